"""Files of a tile set: GeoTIFFs of field, label and small bodies, and a GeoParquet index with a row per window."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import DatasetWriter, MemoryFile
from rasterio.transform import from_bounds

from gravmap.errors import InputError
from gravmap.files import sha256
from gravmap.geology.class_table import class_rows, palette
from gravmap.geology.labels import Labels
from gravmap.geology.legend import Legend
from gravmap.gravity.field_reader import FieldGrid
from gravmap.lattice import UNUSABLE
from gravmap.progress import Progress, silent
from gravmap.regions import Region
from gravmap.tiling.random_split import EFFECTIVE_OUTCROP
from gravmap.tiling.resample import bilinear, nearest
from gravmap.tiling.resumable_folder import refuse_unfinished
from gravmap.tiling.windows import Scale

# Field tiles are rounded to 2^-9 mGal, an error of 0.001 mGal at most: a thousandth of that of the best gravity.
FIELD_STEP_MGAL = 2.0**-9

KINDS = ("field", "label", "small")


@dataclass(frozen=True)
class Tile:
    """One window and its position in its scale: row from the north, column from the west."""

    scale: Scale
    row: int
    column: int
    window: Region

    @property
    def name(self) -> str:
        """Folder and first part of the tile's file names: ``5deg/r000_c003``."""
        return f"{self.scale.name}/r{self.row:03d}_c{self.column:03d}"

    def file(self, kind: str) -> str:
        """File of one of KINDS, relative to the folder of the tile set."""
        return f"{self.name}_{kind}.tif"


def cut_tile(tile: Tile, grid: FieldGrid, raster: Labels, small: NDArray[np.uint8], size_px: int) -> dict[str, bytes]:
    """The three GeoTIFFs of one window, as bytes.

    Fields are interpolated bilinearly between nodes and rounded to 2^-9 mGal; labels and the mask of small bodies
    take the value of the cell under the centre of each pixel. GDAL compresses without the GIL, so several threads
    run in parallel.

    Parameters
    ----------
    tile : Tile
        The window.
    grid : FieldGrid
        Its first channel is used.
    raster : Labels
        Labels, with the legend for the palette.
    small : ndarray, shape of the labels, uint8
        1 in small bodies.
    size_px : int
        Pixels a side.

    Returns
    -------
    dict
        Bytes of each file by kind (``field``, ``label``, ``small``); the same input gives the same bytes.
    """
    field = bilinear(grid.values[0], grid.nodes_wsen, tile.window, size_px)
    field *= 1 / FIELD_STEP_MGAL
    np.rint(field, out=field)
    field *= FIELD_STEP_MGAL
    label = nearest(raster.values, raster.bounds_wsen, tile.window, size_px)
    mask = nearest(small, raster.bounds_wsen, tile.window, size_px, outside=0)

    def describe_field(target: DatasetWriter) -> None:
        target.set_band_description(1, f"{grid.channels[0]} ({grid.units[0]})")
        target.units = (grid.units[0],)

    def describe_label(target: DatasetWriter) -> None:
        target.write_colormap(1, palette(class_rows(raster.legend)))
        target.set_band_description(1, "class index")
        target.update_tags(GRAVMAP_LEGEND=raster.legend.name)

    def describe_mask(target: DatasetWriter) -> None:
        target.set_band_description(1, "1 in bodies under 1600 km2")

    # Predictor 2 (differences along a row) compresses as well as GDAL's predictor for floats, in half the time.
    return {
        "field": _geotiff(field, tile.window, describe_field, nodata=float("nan"), predictor=2),
        "label": _geotiff(label, tile.window, describe_label, nodata=UNUSABLE),
        "small": _geotiff(mask, tile.window, describe_mask),
    }


@functools.cache
def _wgs84() -> CRS:
    return CRS.from_epsg(4326)


def _geotiff(values: NDArray[Any], window: Region, describe: Callable[[DatasetWriter], None], **options: Any) -> bytes:
    size_px = len(values)
    profile = {
        "driver": "GTiff",
        "width": size_px,
        "height": size_px,
        "count": 1,
        "dtype": values.dtype.name,
        "crs": _wgs84(),
        "transform": from_bounds(*window.bounds_wsen, size_px, size_px),
        "compress": "deflate",
        "zlevel": 1,
    }
    if size_px >= 512:  # a block larger than the raster only adds padding
        profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512}
    with MemoryFile() as memory:
        with memory.open(**profile, **options) as target:
            describe(target)  # first: a palette cannot be added to a TIFF once pixels are written
            target.write(values, 1)
        return bytes(memory.getbuffer())


FORMAT = 2


def index_table(
    tiles: list[Tile],
    counts: NDArray[np.int64],
    outcrop: NDArray[np.float64],
    legend: Legend,
    columns: Mapping[str, NDArray[Any]],
    sums: Mapping[str, Sequence[str]],
) -> bytes:
    """``index.parquet`` as bytes: footprints, scales, class counts, splits, files and their SHA-256.

    Parameters
    ----------
    tiles : list of Tile
        The windows.
    counts : ndarray, shape (n, 256), int64
        Label cells of every value in each window.
    outcrop : ndarray, shape (n,), float
        Fraction of bedrock in each window.
    legend : Legend
        One column per class.
    columns : mapping
        More columns: those of the splits.
    sums : mapping
        SHA-256 of field, label and small-body file by name of the tile; empty for an index without tiles.
    """
    import geopandas  # here: loading takes a second
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
    for k, kind in enumerate(KINDS):
        table[f"{kind}_file"] = [tile.file(kind) if sums else None for tile in tiles]
        table[f"{kind}_sha256"] = [sums[tile.name][k] if sums else None for tile in tiles]
    frame = geopandas.GeoDataFrame(table, geometry=shapely.box(*boxes.T), crs="EPSG:4326")
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


_SPLIT_COLUMN = re.compile(r".+_(fold|role_fold\d+)")


def windows_sha256(table: Any) -> str:
    """SHA-256 of the windows in ``index.parquet``, which ``index.json`` holds.

    Columns of splits are left out: `gravmap split --add` writes them before it names the split in ``index.json``, and
    what is trained on is computed from ``index.json``.

    Parameters
    ----------
    table : pyarrow.Table
        All columns.
    """
    digest = hashlib.sha256()
    for name in sorted(name for name in table.column_names if not _SPLIT_COLUMN.fullmatch(name)):
        digest.update(json.dumps([name, table[name].to_pylist()], default=bytes.hex).encode())
    return digest.hexdigest()


def read_windows(folder: Path, index: Mapping[str, Any]) -> Any:
    """The table of windows, ``index.parquet``, as a pyarrow.Table; read without geopandas, which is slow to load.

    Raises
    ------
    InputError
        It cannot be read, or is not the table that ``index.json`` was written with.
    """
    import pyarrow.parquet as parquet

    path, anew = folder / "index.parquet", "`gravmap tile --overwrite` makes the tile set again."
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.", anew) from None
    # Tile sets of earlier versions of gravmap have no checksum of the table.
    if index.get("windows_sha256", windows_sha256(table)) != windows_sha256(table):
        raise InputError(f"{path} is not the table that index.json was written with.", anew)
    return table


def verify_tiles(folder: Path | str, *, workers: int = 2, progress: Progress = silent) -> dict[str, str]:
    """Check every tile file of a tile set against the checksums in its index.

    Parameters
    ----------
    folder : Path
        The tile set.
    workers : int
        Threads that read.
    progress : Progress
        Called after each file.

    Returns
    -------
    dict
        ``missing`` or ``changed`` by file, relative to the folder. Empty if all files are unchanged, and for an
        index without tiles.

    Raises
    ------
    InputError
        No tile set there, an incomplete one, or one whose index has no checksums.

    Examples
    --------
    >>> from gravmap.tiling.tile_files import verify_tiles
    >>> verify_tiles("data/tiles")
    {}
    """
    checked = tile_checksums(folder, workers=workers, progress=progress)
    return {file: "changed" if found else "missing" for file, (written, found) in checked.items() if found != written}


def tile_checksums(
    folder: Path | str, *, workers: int = 2, progress: Progress = silent
) -> dict[str, tuple[str, str | None]]:
    """SHA-256 of every tile file as written and as found; None where it is missing.

    Parameters and exceptions are those of :func:`verify_tiles`; empty for an index without tiles.
    """
    import pyarrow.parquet as parquet

    folder = Path(folder)
    refuse_unfinished(folder)
    columns = [f"{kind}_{what}" for kind in KINDS for what in ("file", "sha256")]
    path = folder / "index.parquet"
    try:
        table = parquet.read_table(path, columns=columns).to_pydict()
        listed = [pair for kind in KINDS for pair in zip(table[f"{kind}_file"], table[f"{kind}_sha256"], strict=True)]
    except (OSError, ValueError, KeyError) as error:
        problem = f"{path} is missing" if isinstance(error, FileNotFoundError) else f"{path} has no readable checksums"
        raise InputError(f"{problem}.", "`gravmap tile --overwrite` makes the tile set again.") from None
    written = {file: checksum for file, checksum in listed if file is not None}

    def now(file: str) -> str | None:
        return sha256(folder / file) if (folder / file).is_file() else None

    found: dict[str, tuple[str, str | None]] = {}
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        for done, (file, checksum) in enumerate(zip(written, pool.map(now, written), strict=True), start=1):
            found[file] = (written[file], checksum)
            progress(done, len(written), file)
    return found
