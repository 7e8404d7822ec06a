"""The network room: arrays of gravity in, class scores per pixel out.

Imports torch, and nothing that knows rasters. The model itself is one page, ggmnet.py; networks by name are in
registry.py.
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
