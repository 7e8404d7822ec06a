"""Networks: gravity fields as tensors in, one score per pixel and class out.

Imports torch and no raster package. GGMNet is defined in ggmnet.py; registry.py builds networks by name.
"""

from gravmap.network.ggmnet import GGMNet
from gravmap.network.registry import build

__all__ = ["GGMNet", "build"]
