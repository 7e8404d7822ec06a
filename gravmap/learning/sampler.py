"""Training crops: drawn here from random numbers alone, cut from native grids on the device or from tile files.

A crop is half a window wide. Where it lies, how it is turned, and how its values are changed is drawn
on the host from (seed, epoch, sample number) alone, so it depends neither on the number of processes nor
on what was drawn before. Window, crop, flips and rotation make one affine map from the crop's pixels to
degrees; what lies there comes from `native.py`, which reads no file, or from `tiles.py`.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gravmap.errors import InputError
from gravmap.learning.area import TRAIN, Area
from gravmap.learning.changes import Changes
from gravmap.learning.channels import InputChannels
from gravmap.learning.crops import Augmentation, Crop
from gravmap.learning.native import NativeGrids, teaching_targets
from gravmap.learning.pixels import centres, rimmed_cells
from gravmap.learning.target import IGNORE
from gravmap.learning.tiles import TileCrops, Tiles

TRIES = 20
MIN_VALID = 0.05
STRICT = "strict"
"""The split whose crops keep inside their windows."""

LATTICE = 32
"""The share of valid pixels is estimated on LATTICE x LATTICE points of a crop."""


class Sampler:
    """Draws crops from an area, and cuts them on one device.

    Parameters
    ----------
    area : Area
        Where to draw from; only windows and cells of role "train" teach.
    inputs : InputChannels
        How fields become the network's input.
    tile_size_px : int
        Pixels across a window; crops are half as wide.
    device : str or torch.device
        Where arrays live and crops appear.
    seed : int
        With epoch and sample number it fixes a crop.
    augmentation : Augmentation
        How crops are changed.
    even_scales : bool
        Draw the window's size first, all sizes alike; else draw evenly among windows, so that the
        many small ones prevail.
    scales_deg : sequence of float, optional
        Use only windows of these sizes.
    tiles : Tiles, optional
        Cut from these files instead of the native grids.

    Raises
    ------
    InputError
        No training window holds a labelled training cell.
    OptionError
        The input holds a field that the tiles do not.
    """

    def __init__(
        self,
        area: Area,
        inputs: InputChannels,
        tile_size_px: int,
        device: str | torch.device = "cpu",
        *,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        even_scales: bool = True,
        scales_deg: list[float] | None = None,
        tiles: Tiles | None = None,
    ) -> None:
        self.crop_px = tile_size_px // 2
        self.seed = seed
        self.augmentation = Augmentation() if augmentation is None else augmentation
        self.device = torch.device(device)
        self.area = area
        # A strict split keeps windows off held-out ground, whose gravity a turned or shifted crop would still see.
        self._stays_inside = area.meta.get("split", {}).get("name") == STRICT
        self._inputs = inputs
        targets = teaching_targets(area)
        self._teaches = targets != IGNORE
        fields = torch.from_numpy(np.ascontiguousarray(inputs.select(area))).to(self.device)  # (F, ny, nx)
        self._changes = Changes(inputs, fields, area.field_valid)
        self._source: NativeGrids | TileCrops
        if tiles is None:
            self._source = NativeGrids(area, fields, targets, self._changes, self.crop_px)
        else:
            self._source = TileCrops(tiles, area, inputs, self._changes, self.crop_px, self.device)
        self._groups = self._teaching_windows(even_scales, scales_deg)
        self.window_count = sum(len(group) for group in self._groups)

    def draw(self, epoch: int, number: int) -> Crop:
        """Choose the crop of a sample: drawn anew until at least 5 % of it teaches, at most 20 times."""
        drawing = np.random.Generator(np.random.PCG64(np.random.SeedSequence((self.seed, epoch, number))))
        best, most = None, -1.0
        for _ in range(TRIES):
            crop = self._propose(drawing)
            share = self._valid_share(crop)
            if share > most:
                best, most = crop, share
            if share >= MIN_VALID:
                break
        assert best is not None
        return best

    def batch(self, epoch: int, numbers: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The samples of an epoch with these numbers.

        Returns
        -------
        fields : Tensor, shape (N, C, h, h), float32
            As the network reads them.
        target : Tensor, shape (N, h, h), int64
            Class, or IGNORE.
        small : Tensor, shape (N, h, h), bool
            Pixels in small bodies.
        """
        return self._cut([self.draw(epoch, number) for number in numbers])

    def cut(self, crop: Crop) -> tuple[Tensor, Tensor, Tensor]:
        """Input (C, h, h), targets (h, h) int64 and small-body mask (h, h) of one crop."""
        fields, target, small = self._cut([crop])
        return fields[0], target[0], small[0]

    def expect(self, epoch: int, numbers: list[int]) -> None:
        """Let what these samples will need be read in the meantime; native grids are there already."""
        if isinstance(self._source, TileCrops):
            self._source.expect(self.draw(epoch, number) for number in numbers)

    def _cut(self, crops: list[Crop]) -> tuple[Tensor, Tensor, Tensor]:
        shape = (len(crops), self.crop_px, self.crop_px)
        fields = torch.empty((shape[0], self._inputs.width, *shape[1:]), device=self.device)
        target = torch.empty(shape, dtype=torch.int64, device=self.device)
        small = torch.empty(shape, dtype=torch.bool, device=self.device)
        for number, crop in enumerate(crops):
            values, target[number], small[number] = self._source.cut(crop)
            values = self._changes.photograph(values, crop)
            fields[number] = self._inputs.prepare(values, 2 * crop.half_deg / self.crop_px)
        return fields, target, small

    def _propose(self, drawing: np.random.Generator) -> Crop:
        group = self._groups[drawing.integers(len(self._groups))]
        west, south, east, north = group[drawing.integers(len(group))]
        aug = self.augmentation
        turned = drawing.random() < aug.rotate_share
        mirrored = drawing.integers(2, size=2) if aug.flip else np.zeros(2, int)
        half = (east - west) / 4
        crop = Crop(
            lat=float(drawing.uniform(south + half, north - half)),
            lon=float(drawing.uniform(west + half, east - half)),
            half_deg=float(half),
            flip_x=1 - 2 * int(mirrored[0]),
            flip_y=1 - 2 * int(mirrored[1]),
            angle_rad=float(drawing.uniform(0, math.pi)) if turned else 0.0,
            noise=float(drawing.uniform(*aug.noise)),
            amplitude=float(drawing.uniform(*aug.amplitude)),
            offset_mgal=float(drawing.uniform(-aug.offset_mgal, aug.offset_mgal)),
            noise_seed=int(drawing.integers(2**62)),
            metric=aug.metric,
            window_wsen=(float(west), float(south), float(east), float(north)),
        )
        crop = self._as_picture(crop, drawing) if aug.picture else crop
        return crop.moved_inside((west, south, east, north)) if self._stays_inside else crop

    def _as_picture(self, crop: Crop, drawing: np.random.Generator) -> Crop:
        """Add the changes of photographs, each in half of the crops."""
        aug, side = self.augmentation, 2 * crop.half_deg
        shifted, noisy, contrasted, lit = (drawing.random(4) < 0.5).tolist()
        east, north = (drawing.uniform(-aug.shift, aug.shift, size=2) * side * shifted).tolist()
        noise, contrast, brightness = (
            float(drawing.uniform(*span)) for span in (aug.picture_noise, aug.contrast, aug.brightness)
        )
        return dataclasses.replace(
            crop,
            lon=crop.lon + east,
            lat=crop.lat + north,
            picture_noise=noise if noisy else 0.0,
            contrast=contrast if contrasted else 1.0,
            brightness=brightness if lit else 1.0,
        )

    def _teaching_windows(self, even_scales: bool, scales_deg: list[float] | None) -> list[NDArray[np.float64]]:
        """Windows from which something can be learnt: one group per size, or all in one."""
        area = self.area
        teaches = np.zeros((self._teaches.shape[0] + 1, self._teaches.shape[1] + 1), np.int64)
        teaches[1:, 1:] = np.cumsum(np.cumsum(self._teaches, axis=0), axis=1)
        kept: dict[float, list[NDArray[np.float64]]] = {}
        for window, scale, role in zip(area.windows, area.window_scale_deg, area.window_role, strict=True):
            wanted = scales_deg is None or any(abs(scale - each) < 1e-6 for each in scales_deg)
            (left, right), (top, bottom) = self._columns(window[[0, 2]]), self._rows(window[[3, 1]])
            inside = teaches[bottom, right] - teaches[top, right] - teaches[bottom, left] + teaches[top, left]
            if role == TRAIN and wanted and inside:
                kept.setdefault(round(float(scale), 6), []).append(window)
        if not kept:
            asked = f" of {', '.join(f'{scale:g}' for scale in scales_deg)} degrees" if scales_deg else ""
            raise InputError(
                f"No training window{asked} of the tile set holds a labelled cell outside the held-out blocks.",
                "Check the labels (`gravmap rasterize`), the windows and the split (`gravmap tile`).",
            )
        groups = [np.array(windows) for _, windows in sorted(kept.items())]
        return groups if even_scales else [np.concatenate(groups)]

    def _columns(self, lon: NDArray[np.float64]) -> NDArray[np.int64]:
        """Columns of `_teaches` (which has a rim of one cell) at longitudes; the rim outside."""
        west, _, east, _ = self.area.label_bounds_wsen
        columns = self.area.labels.shape[1]
        return rimmed_cells((lon - west) / (east - west) * columns, columns)

    def _rows(self, lat: NDArray[np.float64]) -> NDArray[np.int64]:
        """Rows of `_teaches` at latitudes."""
        _, south, _, north = self.area.label_bounds_wsen
        rows = self.area.labels.shape[0]
        return rimmed_cells((north - lat) / (north - south) * rows, rows)

    def _valid_share(self, crop: Crop) -> float:
        """Share of a crop that teaches, estimated on a lattice of its points; on the host, so no device waits."""
        matrix, across = crop.to_degrees(), centres(LATTICE)
        u, v = across[None, :], across[:, None]
        columns = self._columns(crop.lon + matrix[0, 0] * u + matrix[0, 1] * v)
        rows = self._rows(crop.lat + matrix[1, 0] * u + matrix[1, 1] * v)
        return float(self._teaches[rows, columns].mean())
