"""Training crops cut on the device from native grids: no tile is read, and the field is interpolated once.

A crop is half a window's tile. Where it lies, how it is turned, and how its values are changed is drawn
on the host from (seed, epoch, sample number) alone, so it depends neither on the number of processes nor
on what was drawn before. Window, crop, flips and rotation make one affine map from the crop's pixels to
degrees; the field is interpolated bilinearly between its nodes, and labels are looked up in their cells.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gravmap.errors import InputError
from gravmap.learning.area import SNAP_CELLS, TRAIN, Area
from gravmap.learning.channels import InputChannels
from gravmap.learning.crops import Augmentation, Crop
from gravmap.learning.target import IGNORE, to_target

TRIES = 20
MIN_VALID = 0.05
LATTICE = 32
"""The share of valid pixels is estimated on LATTICE x LATTICE points of a crop."""

# One byte per label cell on the device: the class in the low bits, a flag for small bodies.
SMALL_BIT, NOTHING = 0x80, 0x7F


class Sampler:
    """Draws crops from an area whose arrays live on one device.

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

    Raises
    ------
    InputError
        No training window holds a labelled training cell.
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
    ) -> None:
        self.crop_px = tile_size_px // 2
        self.seed = seed
        self.augmentation = Augmentation() if augmentation is None else augmentation
        self.device = torch.device(device)
        self.area = area
        self._codes = _codes(area)
        self._codes_there = torch.from_numpy(self._codes).to(self.device)
        self._inputs = inputs
        self._fields = torch.from_numpy(np.ascontiguousarray(inputs.select(area))).to(self.device)  # (F, ny, nx)
        # What stands for gravity is changed as gravity is: derivatives by the factor, only mGal by offset and noise.
        spread = torch.tensor(
            [(unit == "mGal") * each for unit, each in zip(inputs.units, inputs.spreads, strict=True)]
        )
        self._spread = spread[:, None, None].to(self.device)  # (F, 1, 1), 0 where no noise is added
        self._mgal = (self._spread > 0).float()
        linear = torch.tensor([unit.startswith("mGal") for unit in inputs.units])
        self._linear = linear[:, None, None].to(self.device)
        self._limits = _limits(self._fields, area.field_valid)
        self._noise = torch.Generator(self.device)
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
        crops = [self.draw(epoch, number) for number in numbers]
        samples = [self.cut(crop) for crop in crops]
        fields, target, small = (torch.stack(parts) for parts in zip(*samples, strict=True))
        return fields, target, small

    def cut(self, crop: Crop) -> tuple[Tensor, Tensor, Tensor]:
        """Input (C, h, h), targets (h, h) and small-body mask (h, h) of one crop."""
        codes = self._lookup(crop)
        ignored = (codes & 0x7F) == NOTHING
        target = torch.where(ignored, IGNORE, (codes & 0x7F).long())
        return self._interpolate(crop), target, (codes & SMALL_BIT).bool() & ~ignored

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
        )
        return self._as_picture(crop, drawing) if aug.picture else crop

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
        teaches = np.zeros((self._codes.shape[0] + 1, self._codes.shape[1] + 1), np.int64)
        teaches[1:, 1:] = np.cumsum(np.cumsum((self._codes & 0x7F) != NOTHING, axis=0), axis=1)
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
        """Columns of `_codes` (which has a rim of one cell) at longitudes; the rim outside."""
        west, _, east, _ = self.area.label_bounds_wsen
        return _rimmed((lon - west) / (east - west), self.area.labels.shape[1])

    def _rows(self, lat: NDArray[np.float64]) -> NDArray[np.int64]:
        """Rows of `_codes` at latitudes."""
        _, south, _, north = self.area.label_bounds_wsen
        return _rimmed((north - lat) / (north - south), self.area.labels.shape[0])

    def _valid_share(self, crop: Crop) -> float:
        """Share of a crop that teaches, estimated on a lattice of its points; on the host, so no device waits."""
        matrix, across = crop.to_degrees(), (2 * np.arange(LATTICE) + 1) / LATTICE - 1
        u, v = across[None, :], across[:, None]
        columns = self._columns(crop.lon + matrix[0, 0] * u + matrix[0, 1] * v)
        rows = self._rows(crop.lat + matrix[1, 0] * u + matrix[1, 1] * v)
        return float(((self._codes[rows, columns] & 0x7F) != NOTHING).mean())

    def _lookup(self, crop: Crop) -> Tensor:
        """Codes (h, h) of the label cells the crop's pixel centres lie in.

        In float64: a float32 position is wrong by up to a thousandth of a cell, enough to hit the wrong one.
        """
        (lon_u, lon_v), (lat_u, lat_v) = crop.to_degrees().tolist()
        west, south, east, north = self.area.label_bounds_wsen.tolist()
        ny, nx = self.area.labels.shape
        per_column, per_row = nx / (east - west), -ny / (north - south)
        u, v = self._across(torch.float64)
        column = (crop.lon - west) * per_column + lon_u * per_column * u + lon_v * per_column * v
        row = (crop.lat - north) * per_row + lat_u * per_row * u + lat_v * per_row * v
        column = (column + SNAP_CELLS).floor_().clamp_(-1, nx).add_(1)  # the rim of `_codes` is outside
        row = (row + SNAP_CELLS).floor_().clamp_(-1, ny).add_(1)
        return self._codes_there.flatten()[(row * (nx + 2) + column).long()]

    def _interpolate(self, crop: Crop) -> Tensor:
        """What the network reads (C, h, h): fields at the crop's pixel centres, changed as drawn, then prepared."""
        (lon_u, lon_v), (lat_u, lat_v) = crop.to_degrees().tolist()
        west, south, east, north = self.area.field_nodes_wsen.tolist()
        _, ny, nx = self._fields.shape
        per_column, per_row = (nx - 1) / (east - west), -(ny - 1) / (north - south)
        # Noise is made only where the crop lies: a patch of nodes around it, cut at the grid's sides.
        reach_x, reach_y = (abs(lon_u) + abs(lon_v)) * per_column, (abs(lat_u) + abs(lat_v)) * -per_row
        first_column, last_column = _patch((crop.lon - west) * per_column, reach_x, nx)
        first_row, last_row = _patch((crop.lat - north) * per_row, reach_y, ny)
        patch = self._fields[:, first_row : last_row + 1, first_column : last_column + 1]  # (F, p, q)
        changed = patch * torch.where(self._linear, crop.amplitude, 1.0) + crop.offset_mgal * self._mgal
        if crop.noise:
            self._noise.manual_seed(crop.noise_seed)
            noise = torch.randn(patch.shape, generator=self._noise, device=self.device)
            changed = changed + crop.noise * self._spread * noise
        # Node 0 of the patch is -1 and its last node is 1, as grid_sample counts with align_corners.
        to_x, to_y = 2 / (last_column - first_column), 2 / (last_row - first_row)
        u, v = self._across(torch.float32)
        x0 = ((crop.lon - west) * per_column - first_column) * to_x - 1
        y0 = ((crop.lat - north) * per_row - first_row) * to_y - 1
        x = x0 + lon_u * per_column * to_x * u + lon_v * per_column * to_x * v
        y = y0 + lat_u * per_row * to_y * u + lat_v * per_row * to_y * v
        grid = torch.stack((x, y), dim=-1)[None]  # (1, h, h, 2)
        sampled = functional.grid_sample(changed[None], grid, "bilinear", "reflection", align_corners=True)[0]
        fields = self._photographed(sampled, crop)  # (F, h, h)
        return self._inputs.prepare(fields, 2 * crop.half_deg / self.crop_px)  # (C, h, h)

    def _photographed(self, values: Tensor, crop: Crop) -> Tensor:
        """Noise, contrast and brightness on gravity (F, h, h) as a picture, which runs from 0 to 1 over the area."""
        if not crop.picture_noise and crop.contrast == crop.brightness == 1:
            return values
        low, span = self._limits
        picture = (values - low) / span
        if crop.picture_noise:
            self._noise.manual_seed(crop.noise_seed)
            picture = picture + crop.picture_noise * torch.randn(
                picture.shape, generator=self._noise, device=self.device
            )
        mean = picture.mean(dim=(1, 2), keepdim=True)
        picture = (crop.brightness * (mean + crop.contrast * (picture - mean))).clamp(0, 1)
        return torch.where(self._linear, low + picture * span, values)

    def _across(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Pixel centres from -1 to 1: u (1, h) and v (h, 1)."""
        centres = (2 * torch.arange(self.crop_px, dtype=dtype, device=self.device) + 1) / self.crop_px - 1
        return centres[None, :], centres[:, None]


def _rimmed(share: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Cell of `_codes` at a share of the labels' extent."""
    cells: NDArray[np.int64] = np.clip(np.floor(share * count + SNAP_CELLS) + 1, 0, count + 1).astype(np.int64)
    return cells


def _patch(centre: float, reach: float, count: int) -> tuple[int, int]:
    """First and last node around a crop, at least two."""
    first = min(max(math.floor(centre - reach) - 1, 0), count - 2)
    return first, max(min(math.ceil(centre + reach) + 1, count - 1), first + 1)


def _limits(fields: Tensor, valid: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """Least value and span of every field over the area, (F, 1, 1), in its own unit."""
    measured = fields[:, torch.from_numpy(valid).to(fields.device)] if valid.any() else fields.new_zeros(len(fields), 1)
    low, high = measured.amin(1)[:, None, None], measured.amax(1)[:, None, None]
    return low, (high - low).clamp_min(torch.finfo(torch.float32).tiny)


def _codes(area: Area) -> NDArray[np.uint8]:
    """One byte per label cell, with a rim of one cell outside: class and small-body flag, or NOTHING.

    Nothing is learnt from cells without bedrock, held-out cells, and cells where the field was not measured.
    """
    byte_of = np.full(256, NOTHING, np.uint8)
    targets = to_target(np.arange(256, dtype=np.uint8))
    byte_of[targets != IGNORE] = np.minimum(targets[targets != IGNORE], NOTHING - 1)
    codes = byte_of[area.labels] | (np.uint8(SMALL_BIT) * (area.small > 0).astype(np.uint8))
    codes[(area.role != TRAIN) | ~_measured(area)] = NOTHING
    return np.pad(codes, 1, constant_values=NOTHING)


def _measured(area: Area) -> NDArray[np.bool_]:
    """Label cells whose nearest node has a measured field."""
    west, south, east, north = area.label_bounds_wsen
    ny, nx = area.labels.shape
    lat = north - (np.arange(ny) + 0.5) * (north - south) / ny
    lon = west + (np.arange(nx) + 0.5) * (east - west) / nx
    node_west, node_south, node_east, node_north = area.field_nodes_wsen
    row = np.rint((node_north - lat) / (node_north - node_south) * (area.field_valid.shape[0] - 1)).astype(np.int64)
    column = np.rint((lon - node_west) / (node_east - node_west) * (area.field_valid.shape[1] - 1)).astype(np.int64)
    inside_row = (row >= 0) & (row < area.field_valid.shape[0])
    inside_column = (column >= 0) & (column < area.field_valid.shape[1])
    found = area.field_valid[
        np.clip(row, 0, area.field_valid.shape[0] - 1)[:, None], np.clip(column, 0, area.field_valid.shape[1] - 1)
    ]
    measured: NDArray[np.bool_] = found & inside_row[:, None] & inside_column[None, :]
    return measured
