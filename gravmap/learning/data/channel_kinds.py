"""Kinds of input channels: how a field in its unit becomes planes of a network's input, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gravmap.lattice import mask_name

SCALE = "scale"
RGB = "rgb:"

RAINBOW = ((1.0, 0.0, 1.0), (0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (0.0, 1.0, 0.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""Hues from 300 to 0 degrees at full saturation and value: magenta, blue, cyan, green, yellow, red. Straight lines of
red, green, blue between these six are that formula exactly; it is what GMT calls rainbow."""


@dataclass(frozen=True)
class FieldChannel:
    """A field divided by a constant.

    Attributes
    ----------
    field : str
        Name of the variable.
    unit : str
        Its unit.
    spread : float
        Standard deviation it is divided by, in that unit.
    """

    KIND: ClassVar[str] = "field"

    field: str
    unit: str
    spread: float

    @property
    def name(self) -> str:
        """As in ``--input``."""
        return self.field

    @property
    def reads(self) -> dict[str, tuple[str, float]]:
        """Unit and standard deviation of each field that it is made from."""
        return {self.field: (self.unit, self.spread)}

    @property
    def width(self) -> int:
        """How many planes it has."""
        return 1

    def planes(self, fields: Mapping[str, Tensor], degrees_per_px: float | Tensor) -> list[Tensor]:
        """One plane (..., H, W)."""
        return [fields[self.field] / self.spread]

    def values(self, planes: Sequence[Tensor]) -> dict[str, Tensor]:
        """The field, in its unit."""
        return {self.field: planes[0] * self.spread}


@dataclass(frozen=True)
class LayerChannel:
    """A layer (`gravmap layer add`), standardized; with a mask if it has missing values in the training data.

    Where it is missing, the first plane is 0, the mean of the layer, and the second is 0 instead of 1. Fields hold 0
    there, so that between nodes both are weighted means over the nodes with data.

    Attributes
    ----------
    field, unit, spread
        As in :class:`FieldChannel`.
    centre : float
        Mean that is subtracted before, in the layer's unit.
    masked : bool
        Whether the mask is read. Without it the layer has to be known, as gravity has.
    """

    KIND: ClassVar[str] = "layer"

    field: str
    unit: str
    spread: float
    centre: float
    masked: bool = False

    @property
    def name(self) -> str:
        """As in ``--input``."""
        return self.field

    @property
    def reads(self) -> dict[str, tuple[str, float]]:
        """Unit and standard deviation of each field that it is made from."""
        mask = {mask_name(self.field): ("1", 1.0)} if self.masked else {}
        return {self.field: (self.unit, self.spread), **mask}

    @property
    def width(self) -> int:
        """How many planes it has."""
        return 2 if self.masked else 1

    def planes(self, fields: Mapping[str, Tensor], degrees_per_px: float | Tensor) -> list[Tensor]:
        """One plane (..., H, W), or two."""
        if not self.masked:
            return [(fields[self.field] - self.centre) / self.spread]
        known = fields[mask_name(self.field)]
        return [(fields[self.field] - self.centre * known) / self.spread, known]

    def values(self, planes: Sequence[Tensor]) -> dict[str, Tensor]:
        """The layer, in its unit, and its mask."""
        if not self.masked:
            return {self.field: planes[0] * self.spread + self.centre}
        return {self.field: planes[0] * self.spread + self.centre * planes[1], mask_name(self.field): planes[1]}


@dataclass(frozen=True)
class ScaleChannel:
    """The size of a pixel: log10 of degrees per pixel."""

    KIND: ClassVar[str] = "scale"
    name: ClassVar[str] = SCALE
    reads: ClassVar[dict[str, tuple[str, float]]] = {}
    width: ClassVar[int] = 1

    def planes(self, fields: Mapping[str, Tensor], degrees_per_px: float | Tensor) -> list[Tensor]:
        """One plane (..., H, W), constant over the window."""
        like = next(iter(fields.values()))
        if isinstance(degrees_per_px, Tensor):
            return [degrees_per_px.log10()[..., None, None].expand_as(like)]
        return [torch.full_like(like, math.log10(degrees_per_px))]

    def values(self, planes: Sequence[Tensor]) -> dict[str, Tensor]:
        """Nothing: it holds no field."""
        return {}


@dataclass(frozen=True)
class RainbowChannel:
    """A field as colours: straight lines between the colours, which are evenly spread from `low` to `high`.

    Attributes
    ----------
    field, unit, spread
        As in :class:`FieldChannel`; `spread` is the unit of noise in training.
    low, high : float
        Values of the first and the last colour, in the field's unit; values beyond get these colours.
    colours : tuple of (red, green, blue)
        From 0 to 1.
    """

    KIND: ClassVar[str] = "rgb"

    field: str
    unit: str
    spread: float
    low: float
    high: float
    colours: tuple[tuple[float, float, float], ...] = RAINBOW

    @property
    def name(self) -> str:
        """As in ``--input``."""
        return RGB + self.field

    @property
    def reads(self) -> dict[str, tuple[str, float]]:
        """Unit and standard deviation of each field that it is made from."""
        return {self.field: (self.unit, self.spread)}

    @property
    def width(self) -> int:
        """How many planes it has."""
        return 3

    def planes(self, fields: Mapping[str, Tensor], degrees_per_px: float | Tensor) -> list[Tensor]:
        """Three planes (..., H, W): red, green, blue, from -1 to 1."""
        steps = len(self.colours) - 1
        along = (fields[self.field] - self.low) * (steps / (self.high - self.low))  # 0 to steps
        passed = [(along - step).clamp(0, 1) for step in range(steps)]  # how much of each step lies below the value
        planes = []
        for shade in zip(*self.colours, strict=True):
            plane = torch.full_like(along, 2 * shade[0] - 1)
            for part, before, after in zip(passed, shade, shade[1:], strict=False):
                if before != after:
                    plane = plane + part * (2 * (after - before))
            planes.append(plane)
        return planes

    def values(self, planes: Sequence[Tensor]) -> dict[str, Tensor]:
        """The field between the limits: the value whose colour is nearest."""
        seen = (torch.stack(list(planes), dim=-1) + 1) / 2  # (..., H, W, 3)
        steps = len(self.colours) - 1
        best, least = torch.zeros_like(planes[0]), torch.full_like(planes[0], math.inf)
        for step, (before, after) in enumerate(zip(self.colours, self.colours[1:], strict=False)):
            start, line = seen.new_tensor(before), seen.new_tensor(after) - seen.new_tensor(before)
            along = (((seen - start) @ line) / (line @ line)).clamp(0, 1)
            away = (seen - start - along[..., None] * line).square().sum(-1)
            best, least = torch.where(away < least, step + along, best), torch.minimum(away, least)
        return {self.field: self.low + best * ((self.high - self.low) / steps)}


Channel = FieldChannel | LayerChannel | ScaleChannel | RainbowChannel
