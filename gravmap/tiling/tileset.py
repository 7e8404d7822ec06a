"""Makes a tile set: windows over a region, their index, splits (also added later) and GeoTIFF tiles."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from gravmap import __version__
from gravmap.errors import GravmapError, InputError, OptionError
from gravmap.files import atomic_folder, atomic_path, check_disk_space, sha256, write_checksummed_json
from gravmap.geology import open_labels
from gravmap.geology.class_table import auxiliary_xml, class_rows
from gravmap.geology.labels import Labels
from gravmap.geology.legend_file import legend_to_toml
from gravmap.gravity.field_reader import DEFAULT_RESIDUAL, FieldGrid, FieldReader, read_fields
from gravmap.gravity.fields_file import hash_channels
from gravmap.lattice import COVER, UNUSABLE
from gravmap.outputs import check_outputs, locked, writing
from gravmap.progress import Progress, silent
from gravmap.regions import Region
from gravmap.tiling.blocks import BUFFER_DEG, FOLDS
from gravmap.tiling.label_statistics import SMALL_KM2, count_classes, small_bodies
from gravmap.tiling.leak import describe_split
from gravmap.tiling.random_split import EFFECTIVE_OUTCROP
from gravmap.tiling.resumable_folder import ResumableFolder, unfinished_bytes, write_unfinished
from gravmap.tiling.splits import check_kinds, check_name, draw_splits, outcrop_fractions, split
from gravmap.tiling.tile_files import FIELD_STEP_MGAL, FORMAT, KINDS, Tile, cut_tile, index_table, windows_sha256
from gravmap.tiling.training_arrays import open_windows, read_index
from gravmap.tiling.windows import Scale, plan_scales, windows

SIZE_PX = 2048
# Measured (benchmarks/tiles.py) on a residual of 2 arc-minutes with 6 mGal: bytes per pixel of a field tile grow with
# the nodes per pixel to this power; labels, mask and headers add a constant per tile; seconds are those of one core.
_BYTES_PER_PIXEL, _POWER, _MAX_BYTES_PER_PIXEL, _BYTES_PER_TILE = 5.2, 0.65, 3.0, 60_000
_SECONDS_PER_PIXEL = 0.15 / 2048**2


@dataclass(frozen=True)
class TilePlan:
    """Plan of a tile set, before anything is written.

    Attributes
    ----------
    region : Region
        The region of the fields, which the windows cover.
    scales : tuple of Scale
        Sizes, strides and counts.
    notes : tuple of str
        What differs from the options given.
    channel : str
        The field that the tiles hold, and the default input of a network.
    size_px : int
        Pixels a side of a tile.
    disk_bytes : int
        Estimated disk space of the tiles, an upper bound in most cases.
    seconds : float
        Estimated time to write them with two workers.
    """

    region: Region
    scales: tuple[Scale, ...]
    notes: tuple[str, ...]
    channel: str
    size_px: int
    disk_bytes: int
    seconds: float

    @property
    def count(self) -> int:
        """Number of windows."""
        return sum(scale.rows * scale.columns for scale in self.scales)

    def tiles(self) -> list[Tile]:
        """Every window with its position: scale by scale, row by row from the north."""
        return [
            Tile(scale, number // scale.columns, number % scale.columns, window)
            for scale in self.scales
            for number, window in enumerate(windows(self.region, scale.size_deg, scale.stride_deg))
        ]


def plan_tiles(
    fields: Path | str, sizes_deg: Sequence[float] = (), strides_deg: Sequence[float] = (), size_px: int = SIZE_PX
) -> TilePlan:
    """Plan what :func:`gravmap.tiling.make_tiles` would make of a field file.

    Raises
    ------
    OptionError
        Sizes and strides do not match, or the size of the tiles is not supported.
    InputError
        The fields are missing or not written by gravmap, or hold no residual.

    Examples
    --------
    >>> from gravmap.tiling.tileset import plan_tiles
    >>> plan = plan_tiles("data/fields.nc", sizes_deg=[2.5, 5], size_px=64)
    >>> plan.count, [scale.name for scale in plan.scales]
    (21, ['2.5deg', '5deg'])
    """
    if not 16 <= size_px <= 16384:
        raise OptionError(f"Tiles of {size_px} pixels a side are not supported.", "Choose 16 to 16384.")
    with FieldReader(fields) as reader:
        channel, residuals = reader.default_residual, reader.residuals
        region = reader.region
        nodes_per_deg = (reader.lon.size - 1) / (reader.nodes_wsen[2] - reader.nodes_wsen[0])
    scales, notes = plan_scales(region, sizes_deg, strides_deg)
    if channel != DEFAULT_RESIDUAL and len(residuals) > 1:
        notes = [
            *notes,
            f"{fields} has no {DEFAULT_RESIDUAL}: the tiles hold {channel}, the default input of `gravmap train` on "
            f"them; --input chooses among {', '.join(residuals)}.",
        ]
    disk_bytes, pixels = 0.0, 0
    for scale in scales:
        count, rough = scale.rows * scale.columns, scale.size_deg * nodes_per_deg / size_px
        each = min(_BYTES_PER_PIXEL * rough**_POWER, _MAX_BYTES_PER_PIXEL) * size_px**2 + _BYTES_PER_TILE
        disk_bytes, pixels = disk_bytes + count * each, pixels + count * size_px**2
    seconds = pixels * _SECONDS_PER_PIXEL / 2
    return TilePlan(region, tuple(scales), tuple(notes), channel, size_px, int(disk_bytes), seconds)


log = logging.getLogger(__name__)


def make_tiles(
    fields: Path | str,
    labels: Path | str,
    folder: Path | str,
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
    dry_run: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Make a tile set from a field file and a label raster.

    Parameters
    ----------
    fields, labels : Path
        ``fields.nc`` and ``labels.tif``; their SHA-256 go into the index.
    folder : Path
        The tile set. Until it is complete it is written to ``<folder>.partial``, which the next call resumes; an
        older tile set stays until then.
    sizes_deg, strides_deg : sequence of float
        As in :func:`gravmap.tiling.windows.plan_scales`; empty for the paper's four.
    size_px : int
        Pixels a side of a tile.
    index_only : bool
        Write no tiles: training needs the native grids alone.
    splits : sequence of str
        Kinds of splits in the index: ``blocks``, ``random``, ``strict``; empty for every kind that is possible
        for the region.
    folds, block_deg, buffer_deg, seed
        As in :func:`gravmap.tiling.split`.
    overwrite : bool
        Replace an existing folder.
    workers : int
        Threads that make and write tiles.
    dry_run : bool
        Make all checks and draw the splits, but write nothing.
    progress : Progress
        Called after each tile.

    Returns
    -------
    dict
        Content of ``index.json``, and ``kept``: number of tiles that an earlier, stopped run had finished.

    Raises
    ------
    OptionError, InputError
        Invalid options, or inputs that do not fit together.
    GravmapError
        Not enough disk space, before or during writing.

    Examples
    --------
    >>> from gravmap.tiling import make_tiles
    >>> index = make_tiles("data/fields.nc", "data/labels.tif", "data/coarse", sizes_deg=[5], size_px=64)
    >>> index["windows"], [split["name"] for split in index["splits"]]
    (3, ['blocks'])
    """
    fields, labels, folder = Path(fields), Path(labels), Path(folder)
    check_outputs([], [fields, labels], overwrite, folders=[folder])
    check_kinds(splits)
    plan = plan_tiles(fields, sizes_deg, strides_deg, size_px)
    grid = read_fields(fields)
    raster = open_labels(labels)
    _check_overlap(plan.region, raster, fields, labels)
    if not index_only:
        check_disk_space(
            folder,
            plan.disk_bytes - unfinished_bytes(folder),
            "The tiles take",
            "Free some space, or add --index-only: training needs no tile files.",
        )
    tiles = plan.tiles()
    boxes = np.array([tile.window.bounds_wsen for tile in tiles])
    counts = count_classes(raster.values, raster.bounds_wsen, boxes)
    outcrop = outcrop_fractions(raster.values, raster.bounds_wsen, boxes)
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
    set_apart = _set_apart(plan, tiles, (outcrop < EFFECTIVE_OUTCROP).tolist())
    recipe = _recipe(fields, labels, plan, grid, raster)
    index: dict[str, Any] = {
        "format": FORMAT,
        "made_by": f"gravmap {__version__}",
        "tiles": not index_only,
        "size_px": size_px,
        "region_wsen": list(plan.region.bounds_wsen),
        "scales": recipe["scales"],
        "windows": len(tiles),
        "windows_set_apart": sum(map(len, set_apart.values())),
        "set_apart": set_apart,
        "channel": grid.channels[0],
        "field_recipe": grid.recipe,
        "field_step_mgal": FIELD_STEP_MGAL,
        "small_km2": SMALL_KM2,
        "classes": [asdict(entry) for entry in raster.legend.classes],
        "label_resolution_deg": raster.resolution_deg,
        "splits": described,
        "notes": [*plan.notes, *notes],
        "sources": {
            name: {"path": _relative(path, folder), "sha256": recipe["sources"][name]}
            for name, path in (("fields", fields), ("labels", labels))
        },
        "field_sources": grid.sources,
        "legend_toml": legend_to_toml(raster.legend),
    }
    index["sources"]["fields"]["channels"] = hash_channels(fields, grid.channels)
    for note in index["notes"]:
        log.warning(note)
    if dry_run:
        return {**index, "kept": 0}
    if index_only:
        with locked(folder), atomic_folder(folder) as temporary:
            table = index_table(tiles, counts, outcrop, raster.legend, columns, {})
            (temporary / "index.parquet").write_bytes(table)
            index = _write_index(temporary, index)
        return {**index, "kept": 0}
    files = {tile.name: [tile.file(kind) for kind in KINDS] for tile in tiles}
    try:
        with write_unfinished(folder, recipe, files, overwrite=overwrite) as unfinished:
            sums = _write_tiles(unfinished, tiles, grid, raster, size_px, workers, progress)
            unfinished.write("index.parquet", index_table(tiles, counts, outcrop, raster.legend, columns, sums))
            index = _write_index(unfinished.folder, index)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise GravmapError(
            f"The disk is full: {error.filename or folder} could not be written.",
            "Free some space and run the command again; it resumes after the finished tiles.",
        ) from error
    return {**index, "kept": len(unfinished.kept)}


def _write_index(folder: Path, index: dict[str, Any]) -> dict[str, Any]:
    """Write ``index.json`` with the checksum of the table beside it and its own."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(folder / "index.parquet")
    return write_checksummed_json(folder / "index.json", {**index, "windows_sha256": windows_sha256(table)})


def _write_tiles(
    unfinished: ResumableFolder,
    tiles: list[Tile],
    grid: FieldGrid,
    raster: Labels,
    size_px: int,
    workers: int,
    progress: Progress,
) -> dict[str, tuple[str, ...]]:
    """Make and write the missing tiles, several in parallel; returns the checksums of all."""
    sums = dict(unfinished.kept)
    missing = [tile for tile in tiles if tile.name not in sums]
    small = small_bodies(raster.values, raster.bounds_wsen)
    # TIFF cannot store the names of classes: GDAL reads them from an .aux.xml file.
    names = auxiliary_xml(class_rows(raster.legend)).encode()
    for scale in {tile.scale.name for tile in tiles}:
        (unfinished.folder / scale).mkdir(exist_ok=True)

    def one(tile: Tile) -> tuple[str, ...]:
        made = cut_tile(tile, grid, raster, small, size_px)
        for kind in KINDS:
            unfinished.write(tile.file(kind), made[kind])
        found = tuple(hashlib.sha256(made[kind]).hexdigest() for kind in KINDS)
        unfinished.finish(tile.name, found)
        return found

    with rasterio.Env(), ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        jobs = {pool.submit(one, tile): tile.name for tile in missing}
        try:
            for done, job in enumerate(as_completed(jobs), start=1 + len(unfinished.kept)):
                sums[jobs[job]] = job.result()
                progress(done, len(tiles), jobs[job])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for tile in tiles:
        unfinished.write(f"{tile.file('label')}.aux.xml", names)
    return sums


def _recipe(fields: Path, labels: Path, plan: TilePlan, grid: FieldGrid, raster: Labels) -> dict[str, Any]:
    """Everything that determines the bytes of the tile files, as JSON values; splits do not."""
    return {
        "made_by": f"gravmap {__version__}, GDAL {rasterio.__gdal_version__}",
        "sources": {"fields": sha256(fields), "labels": sha256(labels)},
        "legend": hashlib.sha256(legend_to_toml(raster.legend).encode()).hexdigest(),
        "channel": grid.channels[0],
        "field_step_mgal": FIELD_STEP_MGAL,
        "small_km2": SMALL_KM2,
        "size_px": plan.size_px,
        "scales": [{**asdict(scale), "name": scale.name} for scale in plan.scales],
    }


def _set_apart(plan: TilePlan, tiles: list[Tile], bare: Sequence[bool]) -> dict[str, list[str]]:
    """Windows with too little bedrock for training and scores, by scale."""
    return {
        scale.name: [tile.name for tile, is_bare in zip(tiles, bare, strict=True) if is_bare and tile.scale == scale]
        for scale in plan.scales
    }


def _relative(path: Path, folder: Path) -> str:
    """The path relative to the folder, so that a workspace can be moved."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _check_overlap(region: Region, raster: Labels, fields: Path, labels: Path) -> None:
    west, south, east, north = raster.bounds_wsen
    # The cells of a raster of the whole Earth may be centred on its edge.
    covered = Region(max(west, -180.0), max(south, -90.0), min(east, 360.0), min(north, 90.0))
    common = region.intersection(covered)
    turned = [(max(west + turn, region.west), min(east + turn, region.east)) for turn in (-360, 360)]
    if not covered.contains(region, 0.5 * raster.resolution_deg) and any(
        last - first > 0.5 * raster.resolution_deg for first, last in turned
    ):
        raise InputError(
            f"{fields} covers {region} and {labels} covers {covered}: their longitudes differ by 360 degrees.",
            "`gravmap rasterize --overwrite` makes labels for the region of the fields.",
        )
    if common is None:
        raise InputError(
            f"{fields} covers {region} and {labels} covers {covered}: they do not overlap.",
            "`gravmap rasterize --overwrite` makes labels for the region of the fields.",
        )
    inside = raster.values
    if not ((inside > COVER) & (inside < UNUSABLE)).any():
        raise InputError(
            f"{labels} holds no bedrock, only cover and gaps.",
            "Use a map with outcrops: `gravmap rasterize MAP --legend ...`.",
        )
    if not covered.contains(region, 0.5 * raster.resolution_deg):
        log.warning("The labels cover %s of the region %s; the rest is not usable.", common, region)


def add_split(
    folder: Path | str,
    kind: str,
    *,
    name: str | None = None,
    folds: int = FOLDS,
    block_deg: float | None = None,
    buffer_deg: float = BUFFER_DEG,
    seed: int = 0,
    overwrite: bool = False,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Add a split to a tile set; its tiles and its other splits stay unchanged.

    Parameters
    ----------
    folder : Path
        The tile set.
    kind, folds, block_deg, buffer_deg, seed
        As in :func:`gravmap.tiling.split`.
    name : str, optional
        Name of the split; default its kind.
    overwrite : bool
        Replace the split of that name.

    Returns
    -------
    dict
        Its entry in ``index.json``.
    tuple of str
        Warnings: what differs from the options given.

    Raises
    ------
    OptionError
        Unknown kind, invalid name, or invalid options.
    InputError
        No tile set, labels changed since it was made, an existing split of that name, or too little bedrock.

    Examples
    --------
    >>> from gravmap.tiling.tileset import add_split
    >>> described, warnings = add_split("data/tiles", "blocks", name="large", folds=3, block_deg=2.5)
    >>> described["folds"], described["leak"]
    (3, 0.0)
    """
    folder, name = Path(folder), name or kind
    check_name(name)
    with writing([folder / "index.parquet", folder / "index.json"], [], True, lock=folder):
        return _add_split(folder, kind, name, folds, block_deg, buffer_deg, seed, overwrite)


def _add_split(
    folder: Path,
    kind: str,
    name: str,
    folds: int,
    block_deg: float | None,
    buffer_deg: float,
    seed: int,
    overwrite: bool,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    index = read_index(folder)
    others = [stored for stored in index["splits"] if stored["name"] != name]
    if len(others) < len(index["splits"]) and not overwrite:
        raise InputError(
            f"The tile set {folder} already holds a split {name!r}.",
            "Add --overwrite to replace it, or --name to keep both.",
        )
    raster, boxes = open_windows(folder, index)
    drawn = split(
        raster.values,
        raster.bounds_wsen,
        boxes,
        kind,
        region=Region(*index["region_wsen"]),
        folds=folds,
        block_deg=block_deg,
        buffer_deg=buffer_deg,
        seed=seed,
        name=name,
    )
    described = describe_split(drawn, raster, boxes)
    # The table first: columns of a split that index.json does not name are ignored.
    _write_columns(folder / "index.parquet", name, drawn.columns(boxes))
    write_checksummed_json(folder / "index.json", {**index, "splits": [*others, described]})
    return described, drawn.notes


def _write_columns(path: Path, name: str, columns: dict[str, NDArray[Any]]) -> None:
    """Write the columns of a split into the table of windows, replacing earlier ones of the same name."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    table = parquet.read_table(path)
    own = [each for each in table.column_names if each == f"{name}_fold" or each.startswith(f"{name}_role_fold")]
    table = table.drop_columns(own)
    for column, values in columns.items():
        table = table.append_column(column, arrow.array(values))
    with atomic_path(path) as temporary:
        parquet.write_table(table, temporary)
