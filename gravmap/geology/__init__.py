"""Geology: legends, rasterization of geological maps, label rasters and fault distance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gravmap.geology.labels import open_labels, write_labels
from gravmap.geology.legend_check import check_legend
from gravmap.geology.legend_draft import draft_legend
from gravmap.geology.legend_file import load_legend
from gravmap.geology.rasterize import rasterize

if TYPE_CHECKING:
    from gravmap.geology.faults import add_fault_distance

__all__ = [
    "add_fault_distance",
    "check_legend",
    "draft_legend",
    "load_legend",
    "open_labels",
    "rasterize",
    "write_labels",
]


def __getattr__(name: str) -> Any:
    # Imported on first use: the module loads pyogrio and xarray, which take a second.
    if name == "add_fault_distance":
        from gravmap.geology.faults import add_fault_distance

        return add_fault_distance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__  # for tab completion, and for the API reference
