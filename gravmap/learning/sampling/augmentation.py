"""Augmentation: where a training crop lies and how its values are changed, drawn as numbers before anything is read."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gravmap.learning.data.channels import InputChannels
from gravmap.records import record


@record
@dataclass(frozen=True)
class Augmentation:
    """Ranges from which the augmentation of a crop is drawn; the defaults are physical amplitudes.

    Attributes
    ----------
    flip : bool
        Mirror east-west and north-south, each with probability 1/2.
    rotate_share : float
        Fraction of crops that are rotated, by an angle from 0 to 180 degrees in local metric coordinates.
    noise : tuple of float
        Range of the standard deviation of white noise at native nodes, in units of the channel's scale.
    amplitude : tuple of float
        Range of the factor applied to gravity.
    offset_mgal : float
        Largest shift of the level either way, mGal: the uncertainty of the regional field that was removed.
    metric : bool
        Rotate in kilometres, where a degree of longitude is shorter than one of latitude; else in degrees, as a
        picture of the grid is rotated.
    picture : bool
        Augment a crop as photographs are, after interpolation and on values scaled to 0..1 over the dataset; each of
        the following, and the shift, in half of the crops.
    shift : float
        Largest shift of the crop either way, as a fraction of its side; it may leave the window.
    picture_noise : tuple of float
        Range of the standard deviation of white noise on pixels, for values from 0 to 1.
    contrast, brightness : tuple of float
        Range of the factor about the crop's mean, and about zero; values are clipped to 0..1.
    """

    flip: bool = True
    rotate_share: float = 0.5
    noise: tuple[float, float] = (0.01, 0.1)
    amplitude: tuple[float, float] = (0.9, 1.1)
    offset_mgal: float = 2.0
    metric: bool = True
    picture: bool = False
    shift: float = 0.1
    picture_noise: tuple[float, float] = (0.01, 0.1)
    contrast: tuple[float, float] = (0.5, 1.5)
    brightness: tuple[float, float] = (0.8, 1.2)


UNCHANGED = Augmentation(flip=False, rotate_share=0.0, noise=(0.0, 0.0), amplitude=(1.0, 1.0), offset_mgal=0.0)
PAPER = dataclasses.replace(UNCHANGED, flip=True, rotate_share=0.5, metric=False, picture=True)
"""As described in Liu et al. 2024, who give neither how often each augmentation is applied, nor the shift."""


@dataclass(frozen=True)
class Crop:
    """Position and augmentation of one training crop.

    Attributes
    ----------
    lat, lon : float
        Centre, degrees.
    half_deg : float
        Half its side, degrees of latitude and of longitude.
    flip_x, flip_y : int
        1, or -1 where mirrored.
    angle_rad : float
        Rotation, anticlockwise.
    noise, amplitude, offset_mgal : float
        Values drawn from the ranges of :class:`Augmentation`.
    noise_seed : int
        Seed of the noise.
    metric : bool
        See :class:`Augmentation`.
    picture_noise, contrast, brightness : float
        Values drawn from the ranges of :class:`Augmentation`; 0, 1 and 1 change nothing.
    window_wsen : tuple of float, optional
        The window it was drawn in, degrees.
    dataset : int
        Number of the sampler's dataset it is read from.
    """

    lat: float
    lon: float
    half_deg: float
    flip_x: int = 1
    flip_y: int = 1
    angle_rad: float = 0.0
    noise: float = 0.0
    amplitude: float = 1.0
    offset_mgal: float = 0.0
    noise_seed: int = 0
    metric: bool = True
    picture_noise: float = 0.0
    contrast: float = 1.0
    brightness: float = 1.0
    window_wsen: tuple[float, float, float, float] | None = None
    dataset: int = 0

    def to_degrees(self) -> NDArray[np.float64]:
        """Matrix A (2, 2) with (lon, lat) = centre + A (u, v); u runs east, v south, from -1 to 1 across the crop.

        The rotation happens where a degree of longitude is cos(lat) as long as one of latitude, or in degrees.
        """
        squeeze = max(math.cos(math.radians(self.lat)), 0.05) if self.metric else 1.0
        cosine, sine = math.cos(self.angle_rad), math.sin(self.angle_rad)
        metric = self.half_deg * np.array([[squeeze * self.flip_x, 0.0], [0.0, -self.flip_y]])
        rotated = np.array([[cosine, -sine], [sine, cosine]]) @ metric
        return np.array([[1 / squeeze, 0.0], [0.0, 1.0]]) @ rotated

    def moved_inside(self, window_wsen: tuple[float, float, float, float]) -> Crop:
        """The crop moved until no corner lies outside a window; not rotated where it would not fit."""
        west, south, east, north = window_wsen
        # A rotated crop grows a little in latitude towards the equator: the window's lowest latitude is the safe one.
        lowest = 0.0 if south < 0 < north else min(abs(south), abs(north))
        _, height = dataclasses.replace(self, lat=lowest)._half_extent_deg()
        lat = min(max(self.lat, south + height), north - height)
        moved = dataclasses.replace(self, lat=lat)
        width, _ = moved._half_extent_deg()
        slack = 1e-9
        if 2 * height > north - south + slack or 2 * width > east - west + slack:
            return dataclasses.replace(self, angle_rad=0.0).moved_inside(window_wsen)
        return dataclasses.replace(moved, lon=min(max(self.lon, west + width), east - width))

    def _half_extent_deg(self) -> tuple[float, float]:
        """Largest distance of its corners from the centre, degrees of longitude and of latitude."""
        east, north = np.abs(self.to_degrees()).sum(axis=1).tolist()
        return east, north

    def place(self, bounds_wsen: NDArray[np.float64], columns: int, rows: int) -> NDArray[np.float64]:
        """Matrix M (2, 3) with (column, row) = M (u, v, 1), in cells from the north-west corner of a grid.

        Parameters
        ----------
        bounds_wsen : ndarray, shape (4,)
            Of the grid, degrees; of its outermost nodes where steps from node to node are counted.
        columns, rows : int
            Cells, or steps, across them.
        """
        west, south, east, north = (float(side) for side in bounds_wsen)
        per_degree = np.array([columns / (east - west), -rows / (north - south)])
        centre = [[self.lon - west], [self.lat - north]]
        placed: NDArray[np.float64] = per_degree[:, None] * np.hstack([self.to_degrees(), centre])
        return placed


class ValueAugmentation:
    """Augments the values of fields with the numbers drawn for a crop.

    Units decide: the factor applies to gravity and its derivatives, offset and noise to fields in mGal alone, and
    none of them to layers.

    Parameters
    ----------
    inputs : InputChannels
        Units of the fields, and the standard deviations in which their noise is measured.
    fields : Tensor, shape (F, ny, nx)
        The fields of the dataset, on the device of the crops.
    valid : ndarray, shape (ny, nx), bool
        Where they were measured: the range of the values is taken there.
    """

    def __init__(self, inputs: InputChannels, fields: Tensor, valid: NDArray[np.bool_]) -> None:
        level = [unit == "mGal" and own for unit, own in zip(inputs.units, inputs.gravity, strict=True)]
        spread = [own * each for own, each in zip(level, inputs.spreads, strict=True)]
        self._spread = torch.tensor(spread, device=fields.device)[:, None, None]  # 0 where no noise is added
        self._mgal = (self._spread > 0).float()
        self._linear = torch.tensor(inputs.gravity, device=fields.device)[:, None, None]
        self._fields, self._valid = fields, valid

    @functools.cached_property
    def _range(self) -> tuple[Tensor, Tensor]:
        """Least value and span of every field; computed when first used, because few recipes need it."""
        return _value_range(self._fields, self._valid)

    def noise(self, crop: Crop, rows: int, columns: int) -> Tensor | None:
        """White noise (F, rows, columns) for nodes under a crop, in the fields' units; None for a crop without."""
        return crop.noise * self._spread * self._normal(crop, rows, columns) if crop.noise else None

    def augment_field(self, values: Tensor, crop: Crop, noise: Tensor | None) -> Tensor:
        """Values x factor + offset + noise, (F, ., .): at nodes or, since it is linear, at pixels."""
        changed = values * torch.where(self._linear, crop.amplitude, 1.0) + crop.offset_mgal * self._mgal
        return changed if noise is None else changed + noise

    def augment_image(self, values: Tensor, crop: Crop) -> Tensor:
        """Noise, contrast and brightness on gravity (F, h, h), scaled to 0..1 over the dataset."""
        if not crop.picture_noise and crop.contrast == crop.brightness == 1:
            return values
        low, span = self._range
        picture = (values - low) / span
        if crop.picture_noise:
            picture = picture + crop.picture_noise * self._normal(crop, *values.shape[1:])
        mean = picture.mean(dim=(1, 2), keepdim=True)
        picture = (crop.brightness * (mean + crop.contrast * (picture - mean))).clamp(0, 1)
        return torch.where(self._linear, low + picture * span, values)

    def _normal(self, crop: Crop, rows: int, columns: int) -> Tensor:
        device = self._spread.device
        # A generator per crop, so that several threads may read crops at the same time.
        random = torch.Generator(device).manual_seed(crop.noise_seed)
        return torch.randn((len(self._spread), rows, columns), generator=random, device=device)


def _value_range(fields: Tensor, valid: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """Least value and span of every field over the dataset, (F, 1, 1), in its own unit."""
    measured = fields[:, torch.from_numpy(valid).to(fields.device)] if valid.any() else fields.new_zeros(len(fields), 1)
    low, high = measured.amin(1)[:, None, None], measured.amax(1)[:, None, None]
    return low, (high - low).clamp_min(torch.finfo(torch.float32).tiny)
