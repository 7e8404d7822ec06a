"""Reading tiles back, for training on tiles that someone edited: what is in a file is checked, not believed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from gravmap.errors import InputError
from gravmap.lattice import UNUSABLE
from gravmap.progress import Progress, silent
from gravmap.tiling.tile_files import KINDS, tile_checksums
from gravmap.tiling.training_arrays import read_index

Window = tuple[float, float, float, float]

OFF_PX = 0.01
"""A tile lies where its index says to this share of a pixel; some programs round what they write."""

GREATEST_MGAL = 5000.0
"""Beyond any residual on Earth: a filler that the file does not call one."""

_PUT_BACK = "Put a good one back, or `gravmap tile --overwrite` makes all anew."


@dataclass(frozen=True)
class TileReader:
    """Reads the tiles of a tile set by their windows; small enough to be pickled to other processes.

    Attributes
    ----------
    folder : Path
        The tile set.
    channel : str
        The field the tiles hold.
    size_px : int
        Pixels a side.
    classes : int
        Labels run from 0 to this, and 255.
    names : dict
        Window (west, south, east, north; degrees) to the tile's name.
    changed : frozenset of str
        Files, as seen from the folder, that are no longer as `gravmap tile` wrote them.
    sha256 : str
        Over the names and SHA-256 of all files as they were when the reader was made.
    """

    folder: Path
    channel: str
    size_px: int
    classes: int
    names: dict[Window, str]
    changed: frozenset[str]
    sha256: str

    @property
    def record(self) -> dict[str, Any]:
        """What a run keeps of the tiles, JSON-able."""
        count = len(self.names) * len(KINDS)
        return {"role": "tiles", "files": count, "changed": sorted(self.changed), "sha256": self.sha256}

    def read(self, window_wsen: Window) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Field, label and mask of small bodies of one window.

        Parameters
        ----------
        window_wsen : tuple of float
            One of the index's windows, degrees.

        Returns
        -------
        field : ndarray, shape (size_px, size_px), float32
            North-up, NaN where there is no data.
        label : ndarray, shape (size_px, size_px), uint8
            0 cover, 1..K, 255 not usable.
        small : ndarray, shape (size_px, size_px), uint8, or None
            1 in small bodies; None where the file is as it was written.

        Raises
        ------
        InputError
            A file is missing or unreadable, of another size, place or CRS than the index says, or holds what no
            field or label is.
        """
        name = self.names[window_wsen]
        # Where gravity is unknown QGIS and others write a filler; rasterio hands it out as masked.
        field = np.ma.filled(self._band(f"{name}_field.tif", window_wsen).astype(np.float32), np.float32(np.nan))
        low, high = (float(each) for each in (np.nanmin(field, initial=0.0), np.nanmax(field, initial=0.0)))
        if max(-low, high) > GREATEST_MGAL:
            raise InputError(
                f"{self.folder / name}_field.tif holds {high if high > -low else low:g} mGal, which no residual is.",
                "If that stands for no data, say so in the file: gdal_edit.py -a_nodata VALUE FILE.",
            )
        label = self._whole_numbers(f"{name}_label.tif", window_wsen, [*range(self.classes + 1), UNUSABLE], UNUSABLE)
        small = f"{name}_small.tif"
        return field, label, self._whole_numbers(small, window_wsen, [0, 1], 0) if small in self.changed else None

    def _band(self, file: str, window_wsen: Window) -> np.ma.MaskedArray[Any, Any]:
        path = self.folder / file
        try:
            with rasterio.open(path) as tile:
                crs, bounds, shape, count = tile.crs, tuple(tile.bounds), tile.shape, tile.count
                band: np.ma.MaskedArray[Any, Any] = tile.read(1, masked=True)
        except RasterioError as error:
            said = "is missing" if not path.exists() else f"cannot be read: {error}"
            raise InputError(f"{path} {said}.", _PUT_BACK) from None
        if count != 1 or shape != (self.size_px, self.size_px):
            raise InputError(
                f"{path} has {count} band(s) of {shape[1]} x {shape[0]} pixels; the tile set's have one of "
                f"{self.size_px} x {self.size_px}.",
                _PUT_BACK,
            )
        if crs is None or crs.to_epsg() != 4326:
            raise InputError(f"{path} is in {crs or 'no CRS'}, not in longitude and latitude (EPSG:4326).", _PUT_BACK)
        pixel = (window_wsen[2] - window_wsen[0]) / self.size_px
        if max(abs(a - b) for a, b in zip(bounds, window_wsen, strict=True)) > OFF_PX * pixel:
            there, wanted = (", ".join(f"{side:.10g}" for side in box) for box in (bounds, window_wsen))
            raise InputError(f"{path} covers {there} (west, south, east, north), its window is {wanted}.", _PUT_BACK)
        return band

    def _whole_numbers(self, file: str, window_wsen: Window, known: list[int], nothing: int) -> NDArray[np.uint8]:
        found = np.ma.filled(self._band(file, window_wsen), nothing)
        values = found.astype(np.uint8)
        is_known = np.zeros(256, dtype=bool)
        is_known[known] = True
        wrong = ~is_known[values]
        if found.dtype != np.uint8:
            wrong |= values != found
        if wrong.any():
            strange = np.unique(found[wrong])[:5]
            raise InputError(
                f"{self.folder / file} holds {', '.join(f'{each:g}' for each in strange)}; known are "
                f"{', '.join(map(str, known))}.",
                _PUT_BACK,
            )
        return values


def open_tiles(folder: Path, *, workers: int = 2, progress: Progress = silent) -> TileReader:
    """Make a reader of a tile set's tiles, and see which of them are no longer as they were written.

    Parameters
    ----------
    folder : Path
        A whole tile set, made with tiles.
    workers : int
        Threads that read; every file is read once for its checksum.
    progress : Progress
        Told after each file.

    Raises
    ------
    InputError
        No tile set there, a half-written one, one without tiles, or with some missing.
    """
    import pyarrow.parquet as parquet

    folder = Path(folder)
    index = read_index(folder)
    if not index["tiles"]:
        raise InputError(
            f"{folder} was made with --index-only: there are no tiles in it.", "`gravmap tile --overwrite` makes them."
        )
    sums = tile_checksums(folder, workers=workers, progress=progress)
    if missing := sorted(file for file, (_, found) in sums.items() if found is None):
        raise InputError(
            f"{len(missing)} of {len(sums)} tile files in {folder} are missing: {', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}.",
            "Put them back, or `gravmap tile --overwrite` makes all anew.",
        )
    table = parquet.read_table(folder / "index.parquet", columns=["west", "south", "east", "north", "name"]).to_pydict()
    digest = hashlib.sha256()
    for file, (_, found) in sorted(sums.items()):
        digest.update(f"{found}  {file}\n".encode())
    *sides, names = table.values()
    return TileReader(
        folder=folder,
        channel=str(index["channel"]),
        size_px=int(index["size_px"]),
        classes=max(int(entry["index"]) for entry in index["classes"]),
        names=dict(zip(zip(*sides, strict=True), names, strict=True)),
        changed=frozenset(file for file, (written, found) in sums.items() if found != written),
        sha256=digest.hexdigest(),
    )
