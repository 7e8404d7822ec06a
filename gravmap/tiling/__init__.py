"""Tiling: windows over a region, splits without leakage, GeoTIFF tiles, and the arrays a network is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gravmap.tiling.export import export_tiles
from gravmap.tiling.leak import leak_report
from gravmap.tiling.tileset import make_tiles
from gravmap.tiling.training_arrays import load_arrays

if TYPE_CHECKING:
    from gravmap.tiling.tile_dataset import TileDataset as TileDataset

__all__ = ["TileDataset", "export_tiles", "leak_report", "load_arrays", "make_tiles"]


def __getattr__(name: str) -> Any:
    # Loaded when first used: it needs torch, and `gravmap tile` does not.
    if name == "TileDataset":
        from gravmap.tiling.tile_dataset import TileDataset

        return TileDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__  # for tab completion, and for the API reference
