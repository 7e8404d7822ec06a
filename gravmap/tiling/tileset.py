"""The tile set: windows over a region, their index, their splits, and GeoTIFF tiles of field, label and small bodies."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.transform import from_bounds

from gravmap import __version__
from gravmap.errors import GravmapError, InputError, OptionError
from gravmap.files import atomic_folder, refuse_existing, sha256, write_json
from gravmap.geology import Labels, open_labels, write_index_raster
from gravmap.geology.legend import COVER, UNUSABLE, Legend
from gravmap.progress import Progress, silent
from gravmap.regions import Region
from gravmap.tiling.bodies import SMALL_KM2, small_bodies
from gravmap.tiling.field_grid import FieldGrid, fields_region, read_field_grid
from gravmap.tiling.resample import bilinear, nearest
from gravmap.tiling.split import BUFFER_DEG, EFFECTIVE_OUTCROP, FOLDS, RANDOM_SHARE, TEST, TRAIN, leaked_share, split_blocks, split_random
from gravmap.tiling.windows import Scale, plan_scales, windows

log = logging.getLogger(__name__)

FORMAT = 1
SIZE_PX = 2048
SPLITS = ("blocks", "random")
# Field tiles keep steps of 2^-10 mGal: a hundred times finer than the best gravity, and half the disk.
FIELD_STEP_MGAL = 2.0**-10
# Measured on real fields, for --dry-run: bytes and seconds per tile of 2048 pixels a side on one core.
_BYTES_PER_PIXEL = 1.0
_SECONDS_PER_PIXEL = 0.2 / 2048**2


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


@dataclass(frozen=True)
class _Tile:
    scale: Scale
    row: int
    column: int
    window: Region

    @property
    def name(self) -> str:
        return f"{self.scale.name}/r{self.row:03d}_c{self.column:03d}"


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
    region = fields_region(fields)
    scales, notes = plan_scales(region, sizes_deg, strides_deg)
    pixels = size_px**2 * sum(scale.rows * scale.columns for scale in scales)
    return TilePlan(region, tuple(scales), tuple(notes), size_px, int(pixels * _BYTES_PER_PIXEL), pixels * _SECONDS_PER_PIXEL / 2)


def make_tiles(
    fields: Path,
    labels: Path,
    folder: Path,
    *,
    sizes_deg: Sequence[float] = (),
    strides_deg: Sequence[float] = (),
    size_px: int = SIZE_PX,
    index_only: bool = False,
    splits: Sequence[str] = SPLITS,
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
        ``blocks``, ``random`` or both.
    folds, block_deg, buffer_deg, seed
        As in :func:`gravmap.tiling.split_blocks`.
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
    strange = [name for name in splits if name not in SPLITS]
    if strange or not splits:
        raise OptionError(f"No split is called {', '.join(strange) or 'nothing'}.", f"Known: {', '.join(SPLITS)}.")
    plan = plan_tiles(fields, sizes_deg, strides_deg, size_px)
    grid = read_field_grid(fields)
    raster = open_labels(labels)
    _check_overlap(plan.region, raster, fields, labels)
    if not index_only:
        _check_room(folder, plan.disk_bytes)
    tiles = [
        _Tile(scale, number // scale.columns, number % scale.columns, window)
        for scale in plan.scales
        for number, window in enumerate(windows(plan.region, scale.size_deg, scale.stride_deg))
    ]
    boxes = np.array([tile.window.bounds_wsen for tile in tiles])
    counts = count_classes(raster.values, raster.bounds_wsen, boxes)
    cells = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / _cell_deg2(raster)
    outcrop = np.minimum(counts[:, COVER + 1 : UNUSABLE].sum(axis=1) / cells, 1.0)
    described, notes, columns = _split_all(splits, raster, plan, boxes, outcrop, folds, block_deg, buffer_deg, seed)
    index = {
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
                _write_tiles(temporary, tiles, grid, raster, small, size_px, workers, progress)
            _write_index(temporary / "index.parquet", tiles, counts, outcrop, raster.legend, columns, index_only)
            write_json(temporary / "index.json", index)
    except RasterioError as error:
        if shutil.disk_usage(folder.parent).free < 64 * 2**20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from None
        raise GravmapError(f"A tile could not be written: {error}.", "Nothing was kept; run the command again.") from None
    return index


def _relative(path: Path, folder: Path) -> str:
    """The path as seen from the folder, so that a workspace can be moved."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _cell_deg2(raster: Labels) -> float:
    west, south, east, north = raster.bounds_wsen
    return (east - west) * (north - south) / raster.values.size


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
        raise InputError(f"{labels} holds no bedrock, only cover and gaps.", "Bring a map with outcrops: `gravmap rasterize MAP --legend ...`.")
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


def count_classes(
    labels: NDArray[np.uint8], bounds_wsen: tuple[float, float, float, float], boxes_wsen: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Cells of every value whose centres lie in each of many boxes.

    Parameters
    ----------
    labels : ndarray, shape (rows, columns), uint8
        North-up.
    bounds_wsen : tuple of float
        Outer edges, degrees.
    boxes_wsen : ndarray, shape (n, 4), float64
        West, south, east, north, degrees.

    Returns
    -------
    ndarray, shape (n, 256), int64
    """
    rows, columns = labels.shape
    west, south, east, north = bounds_wsen
    # The first cell whose centre lies past an edge; a centre on the edge counts as past it.
    first = lambda share, count: np.clip(np.ceil(share * count - 0.5 - 1e-6), 0, count).astype(np.int64)  # noqa: E731
    top, bottom = (first((north - boxes_wsen[:, side]) / (north - south), rows) for side in (3, 1))
    left, right = (first((boxes_wsen[:, side] - west) / (east - west), columns) for side in (0, 2))
    row_edges = np.unique(np.concatenate([top, bottom, [0, rows]]))
    column_edges = np.unique(np.concatenate([left, right, [0, columns]]))
    counts = np.zeros((len(boxes_wsen), 256), dtype=np.int64)
    # Counts between all edges first, then sums over boxes by their running totals: each cell is met once per value.
    corners = [np.searchsorted(row_edges, edge) for edge in (top, bottom)]
    sides = [np.searchsorted(column_edges, edge) for edge in (left, right)]
    for value in range(256):
        hits = labels == value
        if not hits.any():
            continue
        strips = np.stack([np.count_nonzero(hits[a:b], axis=0) for a, b in zip(row_edges[:-1], row_edges[1:], strict=True)])
        patches = np.add.reduceat(strips, column_edges[:-1], axis=1)
        total = np.zeros((len(row_edges), len(column_edges)), dtype=np.int64)
        total[1:, 1:] = patches.cumsum(axis=0).cumsum(axis=1)
        (t, b), (l, r) = corners, sides  # noqa: E741
        counts[:, value] = total[b, r] - total[t, r] - total[b, l] + total[t, l]
    return counts


def _split_all(
    splits: Sequence[str],
    raster: Labels,
    plan: TilePlan,
    boxes: NDArray[np.float64],
    outcrop: NDArray[np.float64],
    folds: int,
    block_deg: float | None,
    buffer_deg: float,
    seed: int,
) -> tuple[list[dict[str, Any]], list[str], dict[str, NDArray[Any]]]:
    """The splits as they go into index.json, what there is to say, and their columns of index.parquet."""
    described: list[dict[str, Any]] = []
    notes: list[str] = []
    columns: dict[str, NDArray[Any]] = {}
    if "blocks" in splits:
        split, said = split_blocks(
            raster.values, raster.bounds_wsen, plan.region, block_deg=block_deg, folds=folds, buffer_deg=buffer_deg, seed=seed
        )
        notes += said
        described.append({**split.to_dict(), "leak": 0.0})
        columns["blocks_fold"] = split.fold_at((boxes[:, 1] + boxes[:, 3]) / 2, (boxes[:, 0] + boxes[:, 2]) / 2)
    if "random" in splits:
        leaks = []
        for fold in range(folds):
            roles = split_random(outcrop, seed=seed, fold=fold)
            leaks.append(leaked_share(boxes[roles == TEST], boxes[roles == TRAIN]))
            columns[f"random_role_fold{fold}"] = roles
        described.append({"name": "random", "folds": folds, "seed": seed, "share": RANDOM_SHARE, "leak": float(np.mean(leaks))})
    return described, notes, columns


def _write_tiles(
    folder: Path,
    tiles: list[_Tile],
    grid: FieldGrid,
    raster: Labels,
    small: NDArray[np.uint8],
    size_px: int,
    workers: int,
    progress: Progress,
) -> None:
    for scale in {tile.scale.name for tile in tiles}:
        (folder / scale).mkdir()

    def one(tile: _Tile) -> None:
        field = bilinear(grid.values[0], grid.nodes_wsen, tile.window, size_px)
        np.multiply(np.rint(field * (1 / FIELD_STEP_MGAL)), FIELD_STEP_MGAL, out=field)
        path = folder / tile.name
        _write_field(path.with_name(f"{path.name}_field.tif"), field, tile.window, grid.channels[0])
        label = nearest(raster.values, raster.bounds_wsen, tile.window, size_px)
        write_index_raster(path.with_name(f"{path.name}_label.tif"), label, tile.window.bounds_wsen, raster.legend)
        mask = nearest(small, raster.bounds_wsen, tile.window, size_px, outside=0)
        _write_mask(path.with_name(f"{path.name}_small.tif"), mask, tile.window)

    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        jobs = [pool.submit(one, tile) for tile in tiles]
        try:
            for done, job in enumerate(jobs, start=1):
                job.result()
                progress(done, len(jobs), tiles[done - 1].name)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _profile(window: Region, size_px: int, dtype: str) -> dict[str, Any]:
    profile = {
        "driver": "GTiff",
        "width": size_px,
        "height": size_px,
        "count": 1,
        "dtype": dtype,
        "crs": "EPSG:4326",
        "transform": from_bounds(*window.bounds_wsen, size_px, size_px),
        "compress": "deflate",
        "zlevel": 1,
    }
    return profile | ({"tiled": True, "blockxsize": 512, "blockysize": 512} if size_px >= 512 else {})


def _write_field(path: Path, field: NDArray[np.float32], window: Region, channel: str) -> None:
    with rasterio.open(path, "w", **_profile(window, len(field), "float32"), nodata=float("nan"), predictor=2) as tile:
        tile.write(field, 1)
        tile.set_band_description(1, f"{channel} (mGal)")
        tile.update_tags(1, UNITS="mGal")


def _write_mask(path: Path, mask: NDArray[np.uint8], window: Region) -> None:
    with rasterio.open(path, "w", **_profile(window, len(mask), "uint8")) as tile:
        tile.write(mask, 1)
        tile.set_band_description(1, "1 in bodies under 1600 km2")


def _write_index(
    path: Path,
    tiles: list[_Tile],
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
