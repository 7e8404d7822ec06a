"""The kinds of channel that a network's input is made of, each from a field to planes and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

SCALE = "scale"
RGB = "rgb:"

RAINBOW = ((1.0, 0.0, 1.0), (0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (0.0, 1.0, 0.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""Hues from 300 to 0 degrees at full saturation and value: magenta, blue, cyan, green, yellow, red. Straight lines of
red, green, blue between these six are that formula exactly; it is what GMT calls rainbow."""

RGB_PERCENTILES = (1.0, 99.0)
"""The rainbow's limits; beyond them colours no longer change."""


@dataclass(frozen=True)
class FieldChannel:
    """A field over one number.

    Attributes
    ----------
    field : str
        Name of the variable.
    unit : str
        Its unit.
    spread : float
        What it is divided by, in that unit.
    """

    KIND: ClassVar[str] = "field"

    field: str
    unit: str
    spread: float

    @property
    def name(self) -> str:
        """As the user says it."""
        return self.field

    def planes(self, fields: Mapping[str, Tensor], degrees_per_px: float | Tensor) -> list[Tensor]:
        """One plane (..., H, W)."""
        return [fields[self.field] / self.spread]

    def values(self, planes: Sequence[Tensor]) -> dict[str, Tensor]:
        """Give the field back, in its unit."""
        return {self.field: planes[0] * self.spread}


@dataclass(frozen=True)
class ScaleChannel:
    """How much ground a pixel covers: log10 of degrees per pixel."""

    KIND: ClassVar[str] = "scale"
    name: ClassVar[str] = SCALE

    def planes(self, fields: Mapping[str, Tensor], degrees_per_px: float | Tensor) -> list[Tensor]:
        """One plane (..., H, W), constant over the window."""
        like = next(iter(fields.values()))
        if isinstance(degrees_per_px, Tensor):
            return [degrees_per_px.log10()[..., None, None].expand_as(like)]
        return [torch.full_like(like, math.log10(degrees_per_px))]

    def values(self, planes: Sequence[Tensor]) -> dict[str, Tensor]:
        """No field is in it."""
        return {}


@dataclass(frozen=True)
class RainbowChannel:
    """A field as colours: straight lines between the colours, which are evenly spread from `low` to `high`.

    Attributes
    ----------
    field, unit, spread
        As in :class:`FieldChannel`; the spread is what noise in training is measured in.
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
        """As the user says it."""
        return RGB + self.field

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
        """Give the field back between the limits: the value whose colour is nearest."""
        seen = (torch.stack(list(planes), dim=-1) + 1) / 2  # (..., H, W, 3)
        steps = len(self.colours) - 1
        best, least = torch.zeros_like(planes[0]), torch.full_like(planes[0], math.inf)
        for step, (before, after) in enumerate(zip(self.colours, self.colours[1:], strict=False)):
            start, line = seen.new_tensor(before), seen.new_tensor(after) - seen.new_tensor(before)
            share = (((seen - start) @ line) / (line @ line)).clamp(0, 1)
            away = (seen - start - share[..., None] * line).square().sum(-1)
            best, least = torch.where(away < least, step + share, best), torch.minimum(away, least)
        return {self.field: self.low + best * ((self.high - self.low) / steps)}


Channel = FieldChannel | ScaleChannel | RainbowChannel
