"""Augmentation: where a training crop lies and how it is changed, drawn as numbers before anything is cut."""

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


@dataclass(frozen=True)
class Augmentation:
    """How much a crop is changed; the defaults are physical amplitudes.

    Attributes
    ----------
    flip : bool
        Mirror east-west and north-south, each with probability 1/2.
    rotate_share : float
        Share of crops turned by an angle drawn from 0 to 180 degrees, in local metric coordinates.
    noise : tuple of float
        Least and greatest standard deviation of white noise at native nodes, in units of the channel's scale.
    amplitude : tuple of float
        Least and greatest factor.
    offset_mgal : float
        Greatest shift either way, mGal: what is uncertain in the regional field taken away.
    metric : bool
        Turn on the ground, where a degree of longitude is shorter than one of latitude; else in degrees, as one
        turns a picture of the grid.
    picture : bool
        Change a crop as one changes photographs, after interpolation and on values that run from 0 to 1 over the
        area; each of the following, and the shift, in half of the crops.
    shift : float
        Greatest shift of the crop either way, share of its side; it may leave the window.
    picture_noise : tuple of float
        Least and greatest standard deviation of white noise on pixels, of values from 0 to 1.
    contrast, brightness : tuple of float
        Least and greatest factor about the crop's mean, and about zero; values are cut off at 0 and 1.
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
"""Liu et al. 2024, as it is written; how often each change happens, and how far a crop is shifted, is not."""


@dataclass(frozen=True)
class Crop:
    """One training crop.

    Attributes
    ----------
    lat, lon : float
        Centre, degrees.
    half_deg : float
        Half its side, degrees of latitude and of longitude.
    flip_x, flip_y : int
        1, or -1 where mirrored.
    angle_rad : float
        Turned anticlockwise by this much.
    noise, amplitude, offset_mgal : float
        See :class:`Augmentation`.
    noise_seed : int
        Seed of the noise.
    metric : bool
        See :class:`Augmentation`.
    picture_noise, contrast, brightness : float
        Drawn from what stands there; 0, 1 and 1 change nothing.
    window_wsen : tuple of float, optional
        The window it was drawn in, degrees.
    ground : int
        Which of the sampler's grounds it lies on.
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
    ground: int = 0

    def to_degrees(self) -> NDArray[np.float64]:
        """Matrix A (2, 2) with (lon, lat) = centre + A (u, v); u runs east, v south, from -1 to 1 across the crop.

        The turn happens where a degree of longitude is cos(lat) as long as one of latitude, or in degrees.
        """
        squeeze = max(math.cos(math.radians(self.lat)), 0.05) if self.metric else 1.0
        cosine, sine = math.cos(self.angle_rad), math.sin(self.angle_rad)
        metric = self.half_deg * np.array([[squeeze * self.flip_x, 0.0], [0.0, -self.flip_y]])
        turned = np.array([[cosine, -sine], [sine, cosine]]) @ metric
        return np.array([[1 / squeeze, 0.0], [0.0, 1.0]]) @ turned

    def moved_inside(self, window_wsen: tuple[float, float, float, float]) -> Crop:
        """The crop moved so far that no corner lies outside a window; not turned where it would not fit."""
        west, south, east, north = window_wsen
        # The turned height grows a little towards the equator: the window's warmest latitude is on the safe side.
        warmest = 0.0 if south < 0 < north else min(abs(south), abs(north))
        _, height = dataclasses.replace(self, lat=warmest)._reach_deg()
        lat = min(max(self.lat, south + height), north - height)
        moved = dataclasses.replace(self, lat=lat)
        width, _ = moved._reach_deg()
        slack = 1e-9
        if 2 * height > north - south + slack or 2 * width > east - west + slack:
            return dataclasses.replace(self, angle_rad=0.0).moved_inside(window_wsen)
        return dataclasses.replace(moved, lon=min(max(self.lon, west + width), east - width))

    def _reach_deg(self) -> tuple[float, float]:
        """How far its corners lie from the centre, degrees of longitude and of latitude."""
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
    """Changes values of fields as a crop says.

    What stands for gravity is changed as gravity is: derivatives by the factor, only mGal by offset and noise.

    Parameters
    ----------
    inputs : InputChannels
        Units of the fields, and what their noise is measured in.
    fields : Tensor, shape (F, ny, nx)
        The area's fields, on the device of the crops.
    valid : ndarray, shape (ny, nx), bool
        Where they were measured: there a picture's darkest and brightest values are found.
    """

    def __init__(self, inputs: InputChannels, fields: Tensor, valid: NDArray[np.bool_]) -> None:
        spread = [(unit == "mGal") * each for unit, each in zip(inputs.units, inputs.spreads, strict=True)]
        self._spread = torch.tensor(spread, device=fields.device)[:, None, None]  # 0 where no noise is added
        self._mgal = (self._spread > 0).float()
        linear = [unit.startswith("mGal") for unit in inputs.units]
        self._linear = torch.tensor(linear, device=fields.device)[:, None, None]
        self._fields, self._valid = fields, valid

    @functools.cached_property
    def _limits(self) -> tuple[Tensor, Tensor]:
        """Of a picture; few recipes ask, and many grounds would be slow to look through."""
        return _limits(self._fields, self._valid)

    def noise(self, crop: Crop, rows: int, columns: int) -> Tensor | None:
        """White noise (F, rows, columns) for nodes under a crop, in the fields' units; None where none is drawn."""
        return crop.noise * self._spread * self._normal(crop, rows, columns) if crop.noise else None

    def vary(self, values: Tensor, crop: Crop, noise: Tensor | None) -> Tensor:
        """Values x factor + offset + noise, (F, ., .): at nodes or, since it is linear, at pixels."""
        varied = values * torch.where(self._linear, crop.amplitude, 1.0) + crop.offset_mgal * self._mgal
        return varied if noise is None else varied + noise

    def photograph(self, values: Tensor, crop: Crop) -> Tensor:
        """Noise, contrast and brightness on gravity (F, h, h) as a picture, which runs from 0 to 1 over the area."""
        if not crop.picture_noise and crop.contrast == crop.brightness == 1:
            return values
        low, span = self._limits
        picture = (values - low) / span
        if crop.picture_noise:
            picture = picture + crop.picture_noise * self._normal(crop, *values.shape[1:])
        mean = picture.mean(dim=(1, 2), keepdim=True)
        picture = (crop.brightness * (mean + crop.contrast * (picture - mean))).clamp(0, 1)
        return torch.where(self._linear, low + picture * span, values)

    def _normal(self, crop: Crop, rows: int, columns: int) -> Tensor:
        device = self._spread.device
        random = torch.Generator(device).manual_seed(crop.noise_seed)  # one each, so that threads may cut side by side
        return torch.randn((len(self._spread), rows, columns), generator=random, device=device)


def _limits(fields: Tensor, valid: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """Least value and span of every field over the area, (F, 1, 1), in its own unit."""
    measured = fields[:, torch.from_numpy(valid).to(fields.device)] if valid.any() else fields.new_zeros(len(fields), 1)
    low, high = measured.amin(1)[:, None, None], measured.amax(1)[:, None, None]
    return low, (high - low).clamp_min(torch.finfo(torch.float32).tiny)
