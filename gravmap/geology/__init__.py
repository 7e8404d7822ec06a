"""Geology: legends, rasterization of geological maps, label rasters, fault distance and class points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gravmap.geology.areas import row_cell_areas_km2
from gravmap.geology.labels import LabelFile, Labels, legend_path, open_labels, write_index_raster, write_labels
from gravmap.geology.legend import Legend, LegendClass
from gravmap.geology.legend_check import LegendCheck, check_legend
from gravmap.geology.legend_draft import LegendDraft, draft_legend
from gravmap.geology.legend_file import load_legend, shipped_legends, write_legend
from gravmap.geology.rasterize import rasterize
from gravmap.geology.rasterize_report import RasterizedMap

if TYPE_CHECKING:
    from gravmap.geology.faults import add_fault_distance
    from gravmap.geology.points import read_points

__all__ = [
    "LabelFile",
    "Labels",
    "Legend",
    "LegendCheck",
    "LegendClass",
    "LegendDraft",
    "RasterizedMap",
    "add_fault_distance",
    "check_legend",
    "draft_legend",
    "legend_path",
    "load_legend",
    "open_labels",
    "rasterize",
    "read_points",
    "row_cell_areas_km2",
    "shipped_legends",
    "write_index_raster",
    "write_labels",
    "write_legend",
]


def __getattr__(name: str) -> Any:
    # Imported on first use: their modules load pyogrio and xarray, which take a second.
    if name == "add_fault_distance":
        from gravmap.geology.faults import add_fault_distance

        return add_fault_distance
    if name == "read_points":
        from gravmap.geology.points import read_points

        return read_points
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
