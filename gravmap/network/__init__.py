"""Networks: gravity fields as tensors in, one score per pixel and class out.

Imports torch and no raster package. GGMNet is defined in ggmnet.py; registry.py builds networks by name.
"""

from gravmap.network.architecture import Architecture
from gravmap.network.ggmnet import GGMNet
from gravmap.network.registry import MODELS, build, build_from_dict, describe, read_architecture
from gravmap.network.unet import UNet, UNetArchitecture

__all__ = [
    "MODELS",
    "Architecture",
    "GGMNet",
    "UNet",
    "UNetArchitecture",
    "build",
    "build_from_dict",
    "describe",
    "read_architecture",
]
