"""Reads training crops from one dataset: values and targets from its native grids, or from tile files.

Native grids live on the device; no file is read, and fields are interpolated once. Tiles are for users who edited
them: any map-style dataset with the items of :class:`gravmap.tiling.TileDataset` serves. Which labels may be seen is
decided by the roles of the native raster in both cases, whatever a tile holds.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gravmap.errors import InputError, OptionError
from gravmap.lattice import BUFFER, TRAIN
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import IGNORE, RegionDataset, to_target
from gravmap.learning.sampling.augmentation import Crop, ValueAugmentation
from gravmap.learning.sampling.resampling import (
    interpolate,
    look_up,
    moved,
    patch_under,
    pixel_centres,
    rimmed_cells,
)

STRICT = "strict"
"""The split whose crops keep inside their windows."""

LATTICE = 32
"""The fraction of valid pixels is estimated on LATTICE x LATTICE points of a crop."""

SAME_DEG = 1e-6

SMALL = 1024
"""Added to the targets of small bodies, so that both are looked up at once."""

TILE_CACHE_BYTES = 2**30
"""Memory for tiles in every process: 40 tiles of 2048 pixels."""

TILE_THREADS = 4
"""Tiles of a batch are read in so many threads."""


class CropSource:
    """Reads crops from one dataset.

    Parameters
    ----------
    dataset : RegionDataset
        Only windows and cells of role "train" are used.
    inputs : InputChannels
        Which fields are read.
    crop_px : int
        Pixels across a crop.
    device : torch.device
        Where arrays live and crops appear.
    even_scales, scales_deg
        As in :class:`gravmap.learning.sampling.sampler.Sampler`.
    tiles : Dataset, optional
        Tiles to read instead of the native grids; see :class:`gravmap.tiling.TileDataset`.
    tile_cache_bytes : int
        Memory for tiles.

    Attributes
    ----------
    groups : list of ndarray, shape (n, 5)
        Windows with a training label, one group per size or all in one: west, south, east, north, and half the side
        of a crop, degrees.
    window_count : int
        Windows in all groups.
    stays_inside : bool
        Crops are moved until they lie inside their window.

    Raises
    ------
    OptionError
        The input holds another field than the tiles.
    InputError
        A training window has no tile.
    """

    def __init__(
        self,
        dataset: RegionDataset,
        inputs: InputChannels,
        crop_px: int,
        device: torch.device,
        even_scales: bool = True,
        scales_deg: list[float] | None = None,
        tiles: Any = None,
        tile_cache_bytes: int = TILE_CACHE_BYTES,
    ) -> None:
        self._dataset, self._crop_px, self._device = dataset, crop_px, device
        # A strict split keeps windows off held-out blocks, whose gravity a rotated or shifted crop would still see.
        self.stays_inside = dataset.meta.get("split", {}).get("name") == STRICT
        targets = training_targets(dataset)
        self._usable = targets != IGNORE
        self._fields = torch.from_numpy(np.ascontiguousarray(inputs.select(dataset))).to(device)  # (F, ny, nx)
        self._augmentation = ValueAugmentation(inputs, self._fields, dataset.field_valid)
        groups = list(training_windows(dataset, scales_deg, self._usable).values())
        self.groups = groups if even_scales or not groups else [np.concatenate(groups)]
        self.window_count = sum(len(group) for group in self.groups)
        if tiles is not None:
            # Labels come from the tiles; the native raster only says where they may be seen.
            targets = np.where(np.pad(dataset.role, 1, constant_values=BUFFER) == TRAIN, 0, IGNORE).astype(np.int16)
        self._codes = _encode(torch.from_numpy(targets), torch.from_numpy(np.pad(dataset.small > 0, 1))).to(device)
        cover = None if dataset.cover_m is None else np.pad(dataset.cover_m / np.float32(1000), 1)
        self._cover_km = None if cover is None else torch.from_numpy(cover).to(device)
        self._tiles = None if tiles is None else _Tiles(tiles, inputs, self.groups, tile_cache_bytes)

    def read(self, crop: Crop) -> tuple[Tensor, Tensor, Tensor]:
        """Fields (F, h, h) in their units, targets (h, h) int16 and small-body mask (h, h) of one crop."""
        values, target, small = self._from_grids(crop) if self._tiles is None else self._from_tile(crop, self._tiles)
        return self._augmentation.augment_image(values, crop), target, small

    def read_cover_km(self, crop: Crop) -> Tensor:
        """Thickness of the cover in one crop, km, (h, h) float32; 0 outside the labels.

        Raises
        ------
        ValueError
            The dataset has no thickness.
        """
        if self._cover_km is None:
            raise ValueError("the thickness of the cover is not known")
        return look_up(self._cover_km, self._label_place(crop), self._crop_px)

    def preload(self, crops: Iterable[Crop]) -> None:
        """Read the tiles of some crops in several threads; without tiles there is nothing to do."""
        if self._tiles is not None:
            self._tiles.preload({crop.window_wsen for crop in crops})

    def usable_fraction(self, crop: Crop) -> float:
        """Fraction of a crop with a training label, estimated on a lattice of points; on the CPU, so no GPU waits."""
        matrix, across = crop.to_degrees(), pixel_centres(LATTICE)
        u, v = across[None, :], across[:, None]
        columns = _columns(self._dataset, crop.lon + matrix[0, 0] * u + matrix[0, 1] * v)
        rows = _rows(self._dataset, crop.lat + matrix[1, 0] * u + matrix[1, 1] * v)
        return float(self._usable[rows, columns].mean())

    def _from_grids(self, crop: Crop) -> tuple[Tensor, Tensor, Tensor]:
        rows, columns, place = self._nodes_under(crop)
        patch = self._fields[:, rows, columns]
        patch = self._augmentation.augment_field(patch, crop, self._augmentation.noise(crop, *patch.shape[1:]))
        return interpolate(patch, place, self._crop_px), *self._native_labels(crop)

    def _from_tile(self, crop: Crop, tiles: _Tiles) -> tuple[Tensor, Tensor, Tensor]:
        """As from grids, interpolated between the tile's pixels; what lies outside the window has no target."""
        allowed, native_small = self._native_labels(crop)
        tile, px = tiles.get(crop.window_wsen), self._crop_px
        size = tile.field.shape[-1]
        place = crop.place(np.array(crop.window_wsen), size, size)
        target, tile_small = _decode(look_up(tile.codes.to(self._device), place, px))
        target = torch.where(allowed == IGNORE, IGNORE, target)
        small = tile_small if tile.small_edited else native_small
        rows, columns, in_part = patch_under(moved(place, -0.5), size, size)  # the first pixel's centre is 0
        values = interpolate(tile.field[:, rows, columns].to(self._device), in_part, px)
        # Noise is made at the native nodes, as it is without tiles.
        rows, columns, on_nodes = self._nodes_under(crop)
        noise = self._augmentation.noise(crop, rows.stop - rows.start, columns.stop - columns.start)
        noise = None if noise is None else interpolate(noise, on_nodes, px)
        return self._augmentation.augment_field(values, crop, noise), target, small & (target != IGNORE)

    def _nodes_under(self, crop: Crop) -> tuple[slice, slice, NDArray[np.float64]]:
        """Rows and columns of the nodes that a crop needs, and its place among them."""
        rows, columns = self._dataset.field_valid.shape
        return patch_under(crop.place(self._dataset.field_nodes_wsen, columns - 1, rows - 1), columns, rows)

    def _native_labels(self, crop: Crop) -> tuple[Tensor, Tensor]:
        """Target and small-body mask at a crop's pixels."""
        return _decode(look_up(self._codes, self._label_place(crop), self._crop_px))

    def _label_place(self, crop: Crop) -> NDArray[np.float64]:
        rows, columns = self._dataset.labels.shape
        return crop.place(self._dataset.label_bounds_wsen, columns, rows)


class _Tile(NamedTuple):
    """One tile in memory: field (1, n, n), target and small-body mask (n + 2, n + 2) in one, with a rim."""

    field: Tensor
    codes: Tensor
    small_edited: bool


class _Tiles:
    """Tiles by window; those used last stay in memory."""

    def __init__(self, tiles: Any, inputs: InputChannels, groups: list[NDArray[np.float64]], cache_bytes: int) -> None:
        if others := [name for name in inputs.fields if name != tiles.channel]:
            raise OptionError(
                f"The tiles hold {tiles.channel} alone, not {', '.join(others)}.",
                f"From tiles a network reads {tiles.channel}, rgb:{tiles.channel} and scale; leave --from-tiles out "
                "for other fields.",
            )
        self._tiles = tiles
        self._numbers = {tuple(bounds): number for number, bounds in enumerate(np.asarray(tiles.bounds_wsen).tolist())}
        for window in (tuple(row[:4]) for group in groups for row in group.tolist()):
            if window not in self._numbers:
                raise InputError(
                    f"The training window {window} (west, south, east, north) has no tile.",
                    "Take tiles and arrays from the same tile set.",
                )
        bytes_per_tile = (4 + 2) * int(tiles.size_px) ** 2  # float32 field, int16 codes
        self._get = functools.lru_cache(maxsize=max(1, cache_bytes // bytes_per_tile))(self._read)

    def get(self, window_wsen: tuple[float, float, float, float] | None) -> _Tile:
        assert window_wsen is not None, "a crop that was not drawn in a window has no tile"
        return self._get(self._numbers[window_wsen])

    def preload(self, windows: set[tuple[float, float, float, float] | None]) -> None:
        if len(windows) > 1:
            with ThreadPoolExecutor(TILE_THREADS) as pool:
                list(pool.map(self.get, windows))

    def _read(self, number: int) -> _Tile:
        item = self._tiles[number]
        target = torch.from_numpy(_TARGET_OF_LABEL)[item["mask"].long()]
        # A rim of one pixel stands for all that is outside.
        codes = _encode(
            torch.nn.functional.pad(target, (1, 1, 1, 1), value=IGNORE),
            torch.nn.functional.pad(item["small"] > 0, (1, 1, 1, 1)),
        )
        return _Tile(item["image"], codes, bool(item["small_edited"]))


_TARGET_OF_LABEL = to_target(np.arange(256, dtype=np.uint8)).astype(np.int16)


def training_targets(dataset: RegionDataset) -> NDArray[np.int16]:
    """Target of every label cell, with a rim of one cell outside: class - 1, or IGNORE.

    Ignored are cells without bedrock, held-out cells, and cells where the field was not measured.
    """
    targets = _TARGET_OF_LABEL[dataset.labels]
    targets[(dataset.role != TRAIN) | ~_measured(dataset)] = IGNORE
    return np.pad(targets, 1, constant_values=IGNORE)


def training_windows(
    dataset: RegionDataset, scales_deg: Sequence[float] | None = None, usable: NDArray[np.bool_] | None = None
) -> dict[float, NDArray[np.float64]]:
    """Windows that crops are drawn from: those for training that hold a training label.

    Parameters
    ----------
    dataset : RegionDataset
        Windows, labels and roles.
    scales_deg : sequence of float, optional
        Sizes of the windows to use, degrees; all by default.
    usable : ndarray of bool, optional
        Where :func:`training_targets` has a class; computed by default.

    Returns
    -------
    dict of float to ndarray, shape (n, 5)
        Size of the windows, degrees, to west, south, east and north of each, and half the side of a crop, degrees.

    Examples
    --------
    >>> from gravmap.learning import RegionDataset
    >>> from gravmap.learning.sampling.crop_source import training_windows
    >>> from gravmap.tiling import load_arrays
    >>> dataset = RegionDataset.from_arrays(load_arrays("data/tiles"))
    >>> {scale: len(windows) for scale, windows in training_windows(dataset).items()}
    {2.5: 18, 5.0: 3}
    """
    if usable is None:
        usable = training_targets(dataset) != IGNORE
    before = np.zeros((usable.shape[0] + 1, usable.shape[1] + 1), np.int64)
    before[1:, 1:] = np.cumsum(np.cumsum(usable, axis=0), axis=1)
    kept: dict[float, list[NDArray[np.float64]]] = {}
    for window, scale, role in zip(dataset.windows, dataset.window_scale_deg, dataset.window_role, strict=True):
        wanted = scales_deg is None or any(abs(scale - each) < SAME_DEG for each in scales_deg)
        (left, right), (top, bottom) = _columns(dataset, window[[0, 2]]), _rows(dataset, window[[3, 1]])
        inside = before[bottom, right] - before[top, right] - before[bottom, left] + before[top, left]
        if role == TRAIN and wanted and inside:
            half = _half_a_crop(window, float(scale))
            kept.setdefault(round(float(scale), 6), []).append(np.append(window, half))
    return {scale: np.array(windows) for scale, windows in sorted(kept.items())}


def _columns(dataset: RegionDataset, lon: NDArray[np.float64]) -> NDArray[np.int64]:
    """Columns of :func:`training_targets` at longitudes; its rim outside the labels."""
    west, _, east, _ = dataset.label_bounds_wsen
    columns = dataset.labels.shape[1]
    return rimmed_cells((lon - west) / (east - west) * columns, columns)


def _rows(dataset: RegionDataset, lat: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows of :func:`training_targets` at latitudes; its rim outside the labels."""
    _, south, _, north = dataset.label_bounds_wsen
    rows = dataset.labels.shape[0]
    return rimmed_cells((north - lat) / (north - south) * rows, rows)


def _measured(dataset: RegionDataset) -> NDArray[np.bool_]:
    """Label cells whose nearest node has a measured field."""
    west, south, east, north = dataset.label_bounds_wsen
    ny, nx = dataset.labels.shape
    rows, columns = dataset.field_valid.shape
    lat = north - (np.arange(ny) + 0.5) * (north - south) / ny
    lon = west + (np.arange(nx) + 0.5) * (east - west) / nx
    node_west, node_south, node_east, node_north = dataset.field_nodes_wsen
    row = np.rint((node_north - lat) / (node_north - node_south) * (rows - 1)).astype(np.int64)
    column = np.rint((lon - node_west) / (node_east - node_west) * (columns - 1)).astype(np.int64)
    found = dataset.field_valid[np.clip(row, 0, rows - 1)[:, None], np.clip(column, 0, columns - 1)]
    inside_row, inside_column = (row >= 0) & (row < rows), (column >= 0) & (column < columns)
    measured: NDArray[np.bool_] = found & inside_row[:, None] & inside_column[None, :]
    return measured


def _encode(target: Tensor, small: Tensor) -> Tensor:
    """Target and small-body mask in one int16; IGNORE has no mask."""
    return target + SMALL * (small & (target != IGNORE)).to(torch.int16)


def _decode(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Targets, int16, and small-body mask, bool, of the same shape."""
    small = codes >= SMALL
    return codes - SMALL * small.to(torch.int16), small


def _half_a_crop(window: NDArray[np.float64], scale_deg: float) -> float:
    """Half the side of a crop, degrees: crops are half as wide as a window.

    A window need not be a square of its own scale: a whole crust is less than two crops high, and crops lie anywhere
    in it.
    """
    side = float(window[2] - window[0])
    return (side if abs(side - scale_deg) < SAME_DEG else scale_deg) / 4
