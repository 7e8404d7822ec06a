"""What augmentation does to a crop's values, as drawn in its `Crop`: in mGal, or as one changes photographs."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gravmap.learning.channels import InputChannels
from gravmap.learning.crops import Crop


class Changes:
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
