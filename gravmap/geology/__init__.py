"""Geology: legends, rasterization of geological maps, label rasters and layers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gravmap.geology.labels import open_labels, write_labels
from gravmap.geology.legend_check import check_legend
from gravmap.geology.legend_draft import draft_legend
from gravmap.geology.legend_file import load_legend
from gravmap.geology.rasterize import rasterize

if TYPE_CHECKING:
    from gravmap.geology.layers import DistanceLayer, RasterLayer
    from gravmap.geology.layers_file import add_layer

__all__ = [
    "DistanceLayer",
    "RasterLayer",
    "add_layer",
    "check_legend",
    "draft_legend",
    "load_legend",
    "open_labels",
    "rasterize",
    "write_labels",
]


_LAZY = {
    "DistanceLayer": "layers",
    "RasterLayer": "layers",
    "add_layer": "layers_file",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: the modules load pyogrio and xarray, which take a second.
    if name in _LAZY:
        return getattr(importlib.import_module(f"gravmap.geology.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__  # for tab completion, and for the API reference
