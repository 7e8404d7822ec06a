"""The tiles of a tile set as a PyTorch dataset: image, mask and georeference of each window.

The one module of this package that imports torch; `gravmap.tiling.TileDataset` loads it when it is first used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from torch.utils.data import Dataset

from gravmap.errors import InputError
from gravmap.lattice import UNUSABLE
from gravmap.progress import Progress, silent
from gravmap.tiling.tile_files import KINDS, read_windows, tile_checksums
from gravmap.tiling.training_arrays import read_index

CRS = "EPSG:4326"

OFF_PX = 0.01
"""Tolerance for the position of a tile, pixels: some programs round the bounds they write."""

GREATEST_MGAL = 5000.0
"""Larger than any residual on Earth: a no-data value that the file does not declare."""

_PUT_BACK = "Restore the file, or make the tile set again: `gravmap tile --overwrite`."

Sample = dict[str, Any]


class TileDataset(Dataset[Sample]):
    """Map-style dataset of the tiles of a tile set, which may have been edited since `gravmap tile` wrote them.

    Every file is checked when it is read: size, position and CRS against the index, and its values. Each sample is a
    dictionary in the manner of torchgeo; with a :class:`torch.utils.data.DataLoader`, the default `collate_fn` and
    worker processes work. `gravmap train --from-tiles` trains on it
    (:meth:`gravmap.learning.data.DatasetSplits.from_tiles`).

    ============== ================================ =================================================================
    key            value                            meaning
    ============== ================================ =================================================================
    image          float32 tensor (1, H, W)         field in its unit, north-up; 0 where unknown
    mask           int64 tensor (H, W)              0 cover, 1..K bedrock class, 255 unusable or field unknown
    small          bool tensor (H, W)               pixels in small bodies
    small_edited   bool                             whether the file behind `small` was edited
    bounds         float64 tensor (4,)              west, south, east, north, degrees
    transform      float64 tensor (6,)              affine from (column, row) to (longitude, latitude), as rasterio's
    crs            str                              ``EPSG:4326``
    ============== ================================ =================================================================

    Parameters
    ----------
    folder : Path
        A complete tile set that was made with tiles.
    transforms : callable, optional
        Applied to every sample.
    workers : int
        Threads that compute checksums; every file is read once when the dataset is made.
    progress : Progress
        Called after each file.

    Attributes
    ----------
    folder : Path
        The tile set.
    names : list of str
        Of each tile, such as ``5deg/r000_c003``; its files are ``<name>_field.tif``, ``_label.tif`` and ``_small.tif``.
    bounds_wsen : ndarray, shape (n, 4), float64
        Windows of the tiles: west, south, east, north, degrees.
    channel : str
        Name of the field in the tiles.
    size_px : int
        Pixels a side.
    classes : int
        K, the number of bedrock classes.
    edited : frozenset of str
        Files that differ from those `gravmap tile` wrote.
    record : dict
        What a run stores of the tiles, JSON-able: number of files, the edited ones, and `sha256` over all.

    Raises
    ------
    InputError
        No tile set there, an incomplete one, one without tiles, or with files missing.

    Examples
    --------
    >>> from torch.utils.data import DataLoader
    >>> from gravmap.tiling import TileDataset
    >>> tiles = TileDataset("data/tiles")
    >>> len(tiles), sorted(tiles[0])
    (21, ['bounds', 'crs', 'image', 'mask', 'small', 'small_edited', 'transform'])
    >>> batch = next(iter(DataLoader(tiles, batch_size=2)))
    >>> tuple(batch["image"].shape), tuple(batch["mask"].shape)
    ((2, 1, 64, 64), (2, 64, 64))
    """

    def __init__(
        self,
        folder: Path | str,
        transforms: Callable[[Sample], Sample] | None = None,
        *,
        workers: int = 2,
        progress: Progress = silent,
    ) -> None:
        self.folder, self.transforms = Path(folder), transforms
        index = read_index(self.folder)
        if not index["tiles"]:
            raise InputError(
                f"{folder} was made with --index-only: it holds no tiles.", "`gravmap tile --overwrite` makes them."
            )
        sums = tile_checksums(self.folder, workers=workers, progress=progress)
        if missing := sorted(file for file, (_, found) in sums.items() if found is None):
            raise InputError(
                f"{len(missing)} of {len(sums)} tile files in {folder} are missing: {', '.join(missing[:3])}"
                f"{', ...' if len(missing) > 3 else ''}.",
                "Restore them, or make the tile set again: `gravmap tile --overwrite`.",
            )
        sides = ["west", "south", "east", "north"]
        table = read_windows(self.folder, index).select([*sides, "name"]).to_pydict()
        self.names: list[str] = table["name"]
        self.bounds_wsen: NDArray[np.float64] = np.column_stack([table[side] for side in sides]).astype(np.float64)
        self.channel, self.size_px = str(index["channel"]), int(index["size_px"])
        self.classes = max(int(entry["index"]) for entry in index["classes"])
        self.edited = frozenset(file for file, (written, found) in sums.items() if found != written)
        digest = hashlib.sha256()
        for file, (_, found) in sorted(sums.items()):
            digest.update(f"{found}  {file}\n".encode())
        self.record: dict[str, Any] = {
            "role": "tiles",
            "files": len(self.names) * len(KINDS),
            "changed": sorted(self.edited),
            "sha256": digest.hexdigest(),
        }

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Read one tile.

        Raises
        ------
        InputError
            A file is missing or unreadable, of another size, position or CRS than the index says, or holds values
            that are not valid for a field or a label.
        """
        name, bounds = self.names[index], self.bounds_wsen[index]
        small = f"{name}_small.tif"
        field = self._field(f"{name}_field.tif", bounds)
        known = np.isfinite(field)
        label = self._integers(f"{name}_label.tif", bounds, [*range(self.classes + 1), UNUSABLE], UNUSABLE)
        label[~known] = UNUSABLE
        field[~known] = 0
        west, _, east, north = bounds.tolist()
        step = (east - west) / self.size_px
        sample = {
            "image": torch.from_numpy(field[None]),
            "mask": torch.from_numpy(label.astype(np.int64)),
            "small": torch.from_numpy(self._integers(small, bounds, [0, 1], 0) > 0),
            "small_edited": small in self.edited,
            "bounds": torch.from_numpy(bounds.copy()),
            "transform": torch.tensor([step, 0.0, west, 0.0, -step, north], dtype=torch.float64),
            "crs": CRS,
        }
        return sample if self.transforms is None else self.transforms(sample)

    def _field(self, file: str, bounds: NDArray[np.float64]) -> NDArray[np.float32]:
        """Values in their unit, NaN where unknown."""
        # QGIS and other programs write a no-data value; rasterio returns it masked.
        field = np.ma.filled(self._band(file, bounds).astype(np.float32), np.float32(np.nan))
        low, high = (float(each) for each in (np.nanmin(field, initial=0.0), np.nanmax(field, initial=0.0)))
        if max(-low, high) > GREATEST_MGAL:
            raise InputError(
                f"{self.folder / file} holds {high if high > -low else low:g} mGal, which is not a residual anomaly.",
                "If this value stands for no data, declare it: gdal_edit.py -a_nodata VALUE FILE.",
            )
        return np.asarray(field)

    def _integers(self, file: str, bounds: NDArray[np.float64], valid: list[int], nodata: int) -> NDArray[np.uint8]:
        """Values of a label or mask; some programs store them as floats."""
        found = np.ma.filled(self._band(file, bounds), nodata)
        values = found.astype(np.uint8)
        is_valid = np.zeros(256, dtype=bool)
        is_valid[valid] = True
        wrong = ~is_valid[values]
        if found.dtype != np.uint8:
            wrong |= values != found
        if wrong.any():
            strange = np.unique(found[wrong])[:5]
            raise InputError(
                f"{self.folder / file} holds {', '.join(f'{each:g}' for each in strange)}; valid values are "
                f"{', '.join(map(str, valid))}.",
                _PUT_BACK,
            )
        return np.asarray(values)

    def _band(self, file: str, bounds: NDArray[np.float64]) -> np.ma.MaskedArray[Any, Any]:
        path = self.folder / file
        try:
            with rasterio.open(path) as tile:
                crs, found, shape, count = tile.crs, tuple(tile.bounds), tile.shape, tile.count
                band: np.ma.MaskedArray[Any, Any] = tile.read(1, masked=True)
        except RasterioError as error:
            problem = "is missing" if not path.exists() else f"cannot be read: {error}"
            raise InputError(f"{path} {problem}.", _PUT_BACK) from None
        if count != 1 or shape != (self.size_px, self.size_px):
            raise InputError(
                f"{path} has {count} band(s) of {shape[1]} x {shape[0]} pixels; the tile set's have one of "
                f"{self.size_px} x {self.size_px}.",
                _PUT_BACK,
            )
        if crs is None or crs.to_epsg() != 4326:
            raise InputError(f"{path} is in {crs or 'no CRS'}, not in longitude and latitude ({CRS}).", _PUT_BACK)
        pixel = (bounds[2] - bounds[0]) / self.size_px
        if max(abs(a - b) for a, b in zip(found, bounds, strict=True)) > OFF_PX * pixel:
            there, expected = (", ".join(f"{side:.10g}" for side in box) for box in (found, bounds))
            raise InputError(f"{path} covers {there} (west, south, east, north); its window is {expected}.", _PUT_BACK)
        return band
