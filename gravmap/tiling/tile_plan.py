"""What a tile set will be: windows, disk and time, told before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gravmap.errors import OptionError
from gravmap.regions import Region
from gravmap.tiling.field_grid import read_field_grid
from gravmap.tiling.tile_files import Tile
from gravmap.tiling.windows import Scale, plan_scales, windows

SIZE_PX = 2048
# Measured (benchmarks/tiles.py) on a residual of 2 arc-minutes with 6 mGal: bytes per pixel of a field tile grow with
# the nodes per pixel to this power; the rest are labels, mask and headers of a tile; time is that of one core.
_BYTES_PER_PIXEL, _POWER, _MOST_BYTES_PER_PIXEL, _BYTES_PER_TILE = 5.2, 0.65, 3.0, 60_000
_SECONDS_PER_PIXEL = 0.15 / 2048**2


@dataclass(frozen=True)
class TilePlan:
    """What a tile set will be, before anything is written.

    Attributes
    ----------
    region : Region
        What the windows cover: the region of the fields.
    scales : tuple of Scale
        Sizes, strides and counts.
    notes : tuple of str
        What does not fit and was changed.
    size_px : int
        Pixels a side of a tile.
    disk_bytes : int
        Disk the tiles take, roughly and rather too much.
    seconds : float
        Time to write them, roughly, with two workers.
    """

    region: Region
    scales: tuple[Scale, ...]
    notes: tuple[str, ...]
    size_px: int
    disk_bytes: int
    seconds: float

    @property
    def count(self) -> int:
        """Number of windows."""
        return sum(scale.rows * scale.columns for scale in self.scales)

    def tiles(self) -> list[Tile]:
        """Every window with its place: scale by scale, row by row from the north."""
        return [
            Tile(scale, number // scale.columns, number % scale.columns, window)
            for scale in self.scales
            for number, window in enumerate(windows(self.region, scale.size_deg, scale.stride_deg))
        ]


def plan_tiles(
    fields: Path, sizes_deg: Sequence[float] = (), strides_deg: Sequence[float] = (), size_px: int = SIZE_PX
) -> TilePlan:
    """What :func:`gravmap.tiling.make_tiles` would make of a field file.

    Raises
    ------
    OptionError
        Sizes and strides do not go together, or the tiles have no size.
    InputError
        The fields are missing or not ours.
    """
    if not 16 <= size_px <= 16384:
        raise OptionError(f"Tiles of {size_px} pixels a side are not supported.", "Choose 16 to 16384.")
    grid = read_field_grid(fields)
    region = grid.region
    scales, notes = plan_scales(region, sizes_deg, strides_deg)
    nodes_per_deg = (grid.values.shape[2] - 1) / (grid.nodes_wsen[2] - grid.nodes_wsen[0])
    disk_bytes, pixels = 0.0, 0
    for scale in scales:
        count, rough = scale.rows * scale.columns, scale.size_deg * nodes_per_deg / size_px
        each = min(_BYTES_PER_PIXEL * rough**_POWER, _MOST_BYTES_PER_PIXEL) * size_px**2 + _BYTES_PER_TILE
        disk_bytes, pixels = disk_bytes + count * each, pixels + count * size_px**2
    return TilePlan(region, tuple(scales), tuple(notes), size_px, int(disk_bytes), pixels * _SECONDS_PER_PIXEL / 2)
