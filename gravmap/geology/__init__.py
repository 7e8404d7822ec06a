"""Geology: legends that say what a map's codes mean, and maps burned into rasters of bedrock classes."""

from gravmap.geology.areas import row_cell_areas_km2
from gravmap.geology.labels import LabelFile, Labels, legend_path, open_labels, write_index_raster, write_labels
from gravmap.geology.legend import Legend, LegendClass
from gravmap.geology.legend_check import LegendCheck, check_legend
from gravmap.geology.legend_draft import LegendDraft, draft_legend
from gravmap.geology.legend_file import load_legend, shipped_legends
from gravmap.geology.rasterize import class_areas_km2, rasterize
from gravmap.geology.rasterize_report import RasterizedMap

__all__ = [
    "LabelFile",
    "Labels",
    "Legend",
    "LegendCheck",
    "LegendClass",
    "LegendDraft",
    "RasterizedMap",
    "check_legend",
    "class_areas_km2",
    "draft_legend",
    "legend_path",
    "load_legend",
    "open_labels",
    "rasterize",
    "row_cell_areas_km2",
    "shipped_legends",
    "write_index_raster",
    "write_labels",
]
