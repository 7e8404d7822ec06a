"""One ground that crops are cut from: its windows, how much of a crop teaches, and the crop itself."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gravmap.lattice import TRAIN
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import IGNORE, RegionDataset
from gravmap.learning.sampling.augmentation import Crop, ValueAugmentation
from gravmap.learning.sampling.native_grids import NativeGrids, teaching_targets
from gravmap.learning.sampling.resampling import centres, rimmed_cells
from gravmap.learning.sampling.tiles import TileCrops, Tiles

STRICT = "strict"
"""The split whose crops keep inside their windows."""

LATTICE = 32
"""The share of valid pixels is estimated on LATTICE x LATTICE points of a crop."""

SAME_DEG = 1e-6


class CropSource:
    """Cuts crops from one area.

    Parameters
    ----------
    area : RegionDataset
        Only windows and cells of role "train" teach.
    inputs : InputChannels
        Which fields are read.
    crop_px : int
        Pixels across a crop.
    device : torch.device
        Where arrays live and crops appear.
    even_scales, scales_deg, tiles
        As in :class:`gravmap.learning.sampling.sampler.Sampler`.

    Attributes
    ----------
    groups : list of ndarray, shape (n, 5)
        Windows from which something can be learnt, one group per size or all in one: west, south, east, north, and
        half the side of a crop, degrees.
    window_count : int
        Of all groups.
    stays_inside : bool
        Crops are moved until they lie inside their window.
    """

    def __init__(
        self,
        area: RegionDataset,
        inputs: InputChannels,
        crop_px: int,
        device: torch.device,
        even_scales: bool,
        scales_deg: list[float] | None,
        tiles: Tiles | None,
    ) -> None:
        self._area = area
        # A strict split keeps windows off held-out ground, whose gravity a turned or shifted crop would still see.
        self.stays_inside = area.meta.get("split", {}).get("name") == STRICT
        targets = teaching_targets(area)
        self._teaches = targets != IGNORE
        fields = torch.from_numpy(np.ascontiguousarray(inputs.select(area))).to(device)  # (F, ny, nx)
        self._changes = ValueAugmentation(inputs, fields, area.field_valid)
        self._source: NativeGrids | TileCrops
        if tiles is None:
            self._source = NativeGrids(area, fields, targets, self._changes, crop_px)
        else:
            self._source = TileCrops(tiles, area, inputs, self._changes, crop_px, device)
        self.groups = self._teaching_windows(even_scales, scales_deg)
        self.window_count = sum(len(group) for group in self.groups)

    def expect(self, crops: Iterable[Crop]) -> None:
        """Let what these crops will need be read in the meantime; native grids are there already."""
        if isinstance(self._source, TileCrops):
            self._source.expect(crops)

    def cut(self, crop: Crop) -> tuple[Tensor, Tensor, Tensor]:
        """Fields (F, h, h) in their units, targets (h, h) int16 and small-body mask (h, h) of one crop."""
        values, target, small = self._source.cut(crop)
        return self._changes.photograph(values, crop), target, small

    def valid_share(self, crop: Crop) -> float:
        """Share of a crop that teaches, estimated on a lattice of its points; on the host, so no device waits."""
        matrix, across = crop.to_degrees(), centres(LATTICE)
        u, v = across[None, :], across[:, None]
        columns = self._columns(crop.lon + matrix[0, 0] * u + matrix[0, 1] * v)
        rows = self._rows(crop.lat + matrix[1, 0] * u + matrix[1, 1] * v)
        return float(self._teaches[rows, columns].mean())

    def _teaching_windows(self, even_scales: bool, scales_deg: list[float] | None) -> list[NDArray[np.float64]]:
        """Windows from which something can be learnt: one group per size, or all in one."""
        area = self._area
        teaches = np.zeros((self._teaches.shape[0] + 1, self._teaches.shape[1] + 1), np.int64)
        teaches[1:, 1:] = np.cumsum(np.cumsum(self._teaches, axis=0), axis=1)
        kept: dict[float, list[NDArray[np.float64]]] = {}
        for window, scale, role in zip(area.windows, area.window_scale_deg, area.window_role, strict=True):
            wanted = scales_deg is None or any(abs(scale - each) < SAME_DEG for each in scales_deg)
            (left, right), (top, bottom) = self._columns(window[[0, 2]]), self._rows(window[[3, 1]])
            inside = teaches[bottom, right] - teaches[top, right] - teaches[bottom, left] + teaches[top, left]
            if role == TRAIN and wanted and inside:
                half = _half_a_crop(window, float(scale))
                kept.setdefault(round(float(scale), 6), []).append(np.append(window, half))
        groups = [np.array(windows) for _, windows in sorted(kept.items())]
        return groups if even_scales or not groups else [np.concatenate(groups)]

    def _columns(self, lon: NDArray[np.float64]) -> NDArray[np.int64]:
        """Columns of `_teaches` (which has a rim of one cell) at longitudes; the rim outside."""
        west, _, east, _ = self._area.label_bounds_wsen
        columns = self._area.labels.shape[1]
        return rimmed_cells((lon - west) / (east - west) * columns, columns)

    def _rows(self, lat: NDArray[np.float64]) -> NDArray[np.int64]:
        """Rows of `_teaches` at latitudes."""
        _, south, _, north = self._area.label_bounds_wsen
        rows = self._area.labels.shape[0]
        return rimmed_cells((north - lat) / (north - south) * rows, rows)


def _half_a_crop(window: NDArray[np.float64], scale_deg: float) -> float:
    """Half the side of a crop, degrees: crops are half as wide as a window.

    A window need not be a square of its own scale: of a whole crust, which is lower than two crops, any part serves.
    """
    side = float(window[2] - window[0])
    return (side if abs(side - scale_deg) < SAME_DEG else scale_deg) / 4
