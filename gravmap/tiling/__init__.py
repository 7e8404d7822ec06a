"""Tiling: windows over a region, splits that do not leak, GeoTIFF tiles, and the arrays a network is taught on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gravmap.tiling.blocks import BlockSplit, split_blocks
from gravmap.tiling.export import export_tiles
from gravmap.tiling.leak import LEAK_LIMIT, FoldLeak, LeakReport, leak_report
from gravmap.tiling.random_split import RandomSplit, split_random
from gravmap.tiling.splits import Split, split
from gravmap.tiling.strict_split import StrictSplit, split_strict
from gravmap.tiling.tile_files import verify_tiles
from gravmap.tiling.tileset import TilePlan, add_split, make_tiles, plan_tiles
from gravmap.tiling.training_arrays import load_arrays, pack, read_index
from gravmap.tiling.windows import Scale, plan_scales, windows

if TYPE_CHECKING:
    from gravmap.tiling.tile_dataset import TileDataset as TileDataset

__all__ = [
    "LEAK_LIMIT",
    "BlockSplit",
    "FoldLeak",
    "LeakReport",
    "RandomSplit",
    "Scale",
    "Split",
    "StrictSplit",
    "TileDataset",
    "TilePlan",
    "add_split",
    "export_tiles",
    "leak_report",
    "load_arrays",
    "make_tiles",
    "pack",
    "plan_scales",
    "plan_tiles",
    "read_index",
    "split",
    "split_blocks",
    "split_random",
    "split_strict",
    "verify_tiles",
    "windows",
]


def __getattr__(name: str) -> Any:
    # Loaded when first used: it needs torch, and `gravmap tile` does not.
    if name == "TileDataset":
        from gravmap.tiling.tile_dataset import TileDataset

        return TileDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
