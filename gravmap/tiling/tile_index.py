"""The index of a tile set: one row per window, as GeoParquet, and the check of the tile files against it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.files import sha256
from gravmap.geology.legend import UNUSABLE, Legend
from gravmap.progress import Progress, silent
from gravmap.tiling.random_split import EFFECTIVE_OUTCROP
from gravmap.tiling.tile_files import KINDS, Tile
from gravmap.tiling.unfinished import refuse_unfinished

FORMAT = 2


def index_table(
    tiles: list[Tile],
    counts: NDArray[np.int64],
    outcrop: NDArray[np.float64],
    legend: Legend,
    columns: Mapping[str, NDArray[Any]],
    sums: Mapping[str, Sequence[str]],
) -> bytes:
    """``index.parquet``: footprints, scales, census, splits, files and their SHA-256, as bytes.

    Parameters
    ----------
    tiles : list of Tile
        The windows.
    counts : ndarray, shape (n, 256), int64
        Label cells of every value in each.
    outcrop : ndarray, shape (n,), float
        Share of bedrock in each.
    legend : Legend
        Its classes have a column each.
    columns : mapping
        Further columns: the splits.
    sums : mapping
        Tile name to the SHA-256 of its field, label and small-body file; empty for an index without tiles.
    """
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
    for k, kind in enumerate(KINDS):
        table[f"{kind}_file"] = [tile.file(kind) if sums else None for tile in tiles]
        table[f"{kind}_sha256"] = [sums[tile.name][k] if sums else None for tile in tiles]
    frame = geopandas.GeoDataFrame(table, geometry=shapely.box(*boxes.T), crs="EPSG:4326")
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def verify_tiles(folder: Path, *, workers: int = 2, progress: Progress = silent) -> dict[str, str]:
    """Check every tile file of a tile set against the checksums in its index.

    Parameters
    ----------
    folder : Path
        The tile set.
    workers : int
        Threads that read.
    progress : Progress
        Told after each file.

    Returns
    -------
    dict
        File, as seen from the folder, to what is wrong with it: ``missing`` or ``changed``. Empty where all are
        sound, and for an index without tiles.

    Raises
    ------
    InputError
        No tile set there, a half-written one, or one whose index has no checksums.
    """
    checked = tile_checksums(folder, workers=workers, progress=progress)
    return {file: "changed" if found else "missing" for file, (written, found) in checked.items() if found != written}


def tile_checksums(folder: Path, *, workers: int = 2, progress: Progress = silent) -> dict[str, tuple[str, str | None]]:
    """SHA-256 of every tile file as it was written, and as it is now; None where it is missing.

    Takes and raises what :func:`verify_tiles` does; empty for an index without tiles.
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
        said = f"{path} is missing" if isinstance(error, FileNotFoundError) else f"{path} has no readable checksums"
        raise InputError(f"{said}.", "`gravmap tile --overwrite` makes the tile set anew.") from None
    written = {file: checksum for file, checksum in listed if file is not None}

    def now(file: str) -> str | None:
        return sha256(folder / file) if (folder / file).is_file() else None

    found: dict[str, tuple[str, str | None]] = {}
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        for done, (file, checksum) in enumerate(zip(written, pool.map(now, written), strict=True), start=1):
            found[file] = (written[file], checksum)
            progress(done, len(written), file)
    return found
