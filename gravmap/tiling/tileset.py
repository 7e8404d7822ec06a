"""The tile set: windows over a region, their index, their splits, and their GeoTIFF tiles."""

from __future__ import annotations

import errno
import logging
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from gravmap import __version__
from gravmap.errors import GravmapError, InputError, OptionError
from gravmap.files import atomic_folder, refuse_existing, sha256, write_json
from gravmap.geology import Labels, open_labels
from gravmap.geology.legend import COVER, UNUSABLE, Legend
from gravmap.progress import Progress, silent
from gravmap.regions import Region
from gravmap.tiling.blocks import BUFFER_DEG, FOLDS
from gravmap.tiling.bodies import SMALL_KM2, small_bodies
from gravmap.tiling.census import count_classes
from gravmap.tiling.field_grid import read_field_grid
from gravmap.tiling.leak import describe_split
from gravmap.tiling.random_split import EFFECTIVE_OUTCROP
from gravmap.tiling.splits import check_kinds, draw_splits, outcrop_shares
from gravmap.tiling.tile_files import FIELD_STEP_MGAL, Tile, write_tiles
from gravmap.tiling.windows import Scale, plan_scales, windows

log = logging.getLogger(__name__)

FORMAT = 2
SIZE_PX = 2048
# Measured, for --dry-run, on fields as rough as a residual of 2 arc-minutes: bytes per pixel grow with the square
# root of the nodes per pixel; the rest are the labels and headers of a tile; a quarter of a second a tile on one core.
_BYTES_PER_PIXEL, _MOST_BYTES_PER_PIXEL, _BYTES_PER_TILE = 4.2, 3.0, 30_000
_SECONDS_PER_PIXEL = 0.25 / 2048**2


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
        Disk the tiles take, at most.
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


def plan_tiles(
    fields: Path, sizes_deg: Sequence[float] = (), strides_deg: Sequence[float] = (), size_px: int = SIZE_PX
) -> TilePlan:
    """What :func:`make_tiles` would make of a field file.

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
        each = min(_BYTES_PER_PIXEL * math.sqrt(rough), _MOST_BYTES_PER_PIXEL) * size_px**2 + _BYTES_PER_TILE
        disk_bytes, pixels = disk_bytes + count * each, pixels + count * size_px**2
    return TilePlan(region, tuple(scales), tuple(notes), size_px, int(disk_bytes), pixels * _SECONDS_PER_PIXEL / 2)


def make_tiles(
    fields: Path,
    labels: Path,
    folder: Path,
    *,
    sizes_deg: Sequence[float] = (),
    strides_deg: Sequence[float] = (),
    size_px: int = SIZE_PX,
    index_only: bool = False,
    splits: Sequence[str] = (),
    folds: int = FOLDS,
    block_deg: float | None = None,
    buffer_deg: float = BUFFER_DEG,
    seed: int = 0,
    overwrite: bool = False,
    workers: int = 2,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Make a tile set of a field file and a label raster.

    Parameters
    ----------
    fields, labels : Path
        ``fields.nc`` and ``labels.tif``; their SHA-256 go into the index.
    folder : Path
        The tile set, written whole or not at all.
    sizes_deg, strides_deg : sequence of float
        As in :func:`gravmap.tiling.plan_scales`; empty for the paper's four.
    size_px : int
        Pixels a side of a tile.
    index_only : bool
        Write no tiles: a network can be fed from the native grids alone.
    splits : sequence of str
        Kinds of splits the index shall hold: ``blocks``, ``random``, ``strict``; empty for every one that
        the region has room for.
    folds, block_deg, buffer_deg, seed
        As in :func:`gravmap.tiling.split`.
    overwrite : bool
        Replace an existing folder.
    workers : int
        Threads that cut and write tiles.
    progress : Progress
        Told after each tile.

    Returns
    -------
    dict
        What ``index.json`` says.

    Raises
    ------
    OptionError, InputError
        Options or inputs that do not go together; see the message.
    GravmapError
        The disk has not enough room.
    """
    refuse_existing(folder, overwrite)
    check_kinds(splits)
    plan = plan_tiles(fields, sizes_deg, strides_deg, size_px)
    grid = read_field_grid(fields)
    raster = open_labels(labels)
    _check_overlap(plan.region, raster, fields, labels)
    if not index_only:
        _check_room(folder, plan.disk_bytes)
    tiles = [
        Tile(scale, number // scale.columns, number % scale.columns, window)
        for scale in plan.scales
        for number, window in enumerate(windows(plan.region, scale.size_deg, scale.stride_deg))
    ]
    boxes = np.array([tile.window.bounds_wsen for tile in tiles])
    counts = count_classes(raster.values, raster.bounds_wsen, boxes)
    outcrop = outcrop_shares(raster.values, raster.bounds_wsen, boxes)
    drawn, notes = draw_splits(
        splits,
        raster.values,
        raster.bounds_wsen,
        plan.region,
        boxes,
        folds=folds,
        block_deg=block_deg,
        buffer_deg=buffer_deg,
        seed=seed,
    )
    described = [describe_split(split, raster, boxes) for split in drawn]
    columns = {name: values for split in drawn for name, values in split.columns(boxes).items()}
    index: dict[str, Any] = {
        "format": FORMAT,
        "made_by": f"gravmap {__version__}",
        "tiles": not index_only,
        "size_px": size_px,
        "region_wsen": list(plan.region.bounds_wsen),
        "scales": [{**asdict(scale), "name": scale.name} for scale in plan.scales],
        "windows": len(tiles),
        "windows_set_apart": int(np.count_nonzero(outcrop < EFFECTIVE_OUTCROP)),
        "channel": grid.channels[0],
        "field_recipe": grid.recipe,
        "field_step_mgal": FIELD_STEP_MGAL,
        "small_km2": SMALL_KM2,
        "classes": [asdict(entry) for entry in raster.legend.classes],
        "label_resolution_deg": raster.resolution_deg,
        "splits": described,
        "notes": [*plan.notes, *notes],
        "sources": {
            "fields": {"path": _relative(fields, folder), "sha256": sha256(fields)},
            "labels": {"path": _relative(labels, folder), "sha256": sha256(labels)},
        },
        "field_sources": grid.sources,
        "legend_toml": raster.legend.text(),
    }
    for note in index["notes"]:
        log.warning(note)
    try:
        with atomic_folder(folder) as temporary:
            if not index_only:
                small = small_bodies(raster.values, raster.bounds_wsen)
                write_tiles(temporary, tiles, grid, raster, small, size_px, workers, progress)
            _write_index(temporary / "index.parquet", tiles, counts, outcrop, raster.legend, columns, index_only)
            write_json(temporary / "index.json", index)
    except RasterioError as error:
        if shutil.disk_usage(folder.parent).free < 64 * 2**20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from None
        raise GravmapError(
            f"A tile could not be written: {error}.", "Nothing was kept; run the command again."
        ) from None
    return index


def _relative(path: Path, folder: Path) -> str:
    """The path as seen from the folder, so that a workspace can be moved."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _check_overlap(region: Region, raster: Labels, fields: Path, labels: Path) -> None:
    covered = Region(*raster.bounds_wsen)
    common = region.intersection(covered)
    if common is None:
        raise InputError(
            f"{fields} covers {region} and {labels} covers {covered}: they do not overlap.",
            "`gravmap rasterize --overwrite` makes labels for the region of the fields.",
        )
    inside = raster.values
    if not ((inside > COVER) & (inside < UNUSABLE)).any():
        raise InputError(
            f"{labels} holds no bedrock, only cover and gaps.",
            "Bring a map with outcrops: `gravmap rasterize MAP --legend ...`.",
        )
    if not covered.contains(region, 0.5 * raster.resolution_deg):
        log.warning("The labels cover %s of the region %s; the rest counts as not usable.", common, region)


def _check_room(folder: Path, needed: int) -> None:
    where = folder.absolute()
    while not where.exists():
        where = where.parent
    free = shutil.disk_usage(where).free
    if free < needed:
        raise GravmapError(
            f"The tiles take up to {needed / 1e9:.1f} GB and {where} has {free / 1e9:.1f} GB free.",
            "Free some space, or add --index-only: training needs no tile files.",
        )


def _write_index(
    path: Path,
    tiles: list[Tile],
    counts: NDArray[np.int64],
    outcrop: NDArray[np.float64],
    legend: Legend,
    columns: dict[str, NDArray[Any]],
    index_only: bool,
) -> None:
    import geopandas  # here: it takes a second to load
    import shapely

    boxes = np.array([tile.window.bounds_wsen for tile in tiles])
    table: dict[str, Any] = {
        "name": [tile.name for tile in tiles],
        "scale_deg": [tile.scale.size_deg for tile in tiles],
        "row": [tile.row for tile in tiles],
        "col": [tile.column for tile in tiles],
        **{side: boxes[:, k] for k, side in enumerate(("west", "south", "east", "north"))},
        "outcrop_share": outcrop,
        "effective": outcrop >= EFFECTIVE_OUTCROP,
        **{f"cells_{entry.index}": counts[:, entry.index] for entry in legend.classes},
        f"cells_{UNUSABLE}": counts[:, UNUSABLE],
        **columns,
    }
    for kind in ("field", "label", "small"):
        table[f"{kind}_file"] = [None if index_only else f"{tile.name}_{kind}.tif" for tile in tiles]
    frame = geopandas.GeoDataFrame(table, geometry=shapely.box(*boxes.T), crs="EPSG:4326")
    frame.to_parquet(path)
