"""Tiling: windows over a region, splits that do not leak, GeoTIFF tiles, and the arrays a network is taught on."""

from gravmap.tiling.blocks import BlockSplit, split_blocks
from gravmap.tiling.export import export_tiles
from gravmap.tiling.field_grid import FieldGrid, fields_region, read_field_grid
from gravmap.tiling.handover import load_arrays, pack, read_index
from gravmap.tiling.random_split import leaked_share, split_random
from gravmap.tiling.tile_index import verify_tiles
from gravmap.tiling.tile_plan import TilePlan, plan_tiles
from gravmap.tiling.tile_reader import TileReader, open_tiles
from gravmap.tiling.tileset import make_tiles
from gravmap.tiling.windows import Scale, plan_scales, windows

__all__ = [
    "BlockSplit",
    "FieldGrid",
    "Scale",
    "TilePlan",
    "TileReader",
    "export_tiles",
    "fields_region",
    "leaked_share",
    "load_arrays",
    "make_tiles",
    "open_tiles",
    "pack",
    "plan_scales",
    "plan_tiles",
    "read_field_grid",
    "read_index",
    "split_blocks",
    "split_random",
    "verify_tiles",
    "windows",
]
