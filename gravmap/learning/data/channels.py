"""From fields at pixels to what a network reads, and back: the kinds of channel and how each is scaled."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gravmap.errors import InputError, OptionError
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.data.outcrop_context import PREFIX, is_context
from gravmap.units import parse_length_m

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


RESIDUALS_MGAL = {2e3: 2.0, 5e3: 4.0, 10e3: 7.0, 20e3: 10.0, 40e3: 15.0}
"""Height in metres to the spread of its residual; a straight line between their logarithms."""

OTHERS = {
    "band_2km_5km": 2.0,
    "band_5km_10km": 2.5,
    "band_10km_20km": 4.0,
    "band_20km_40km": 5.0,
    "vertical_derivative_2km": 0.9,
    "east_derivative_2km": 0.6,
    "north_derivative_2km": 0.6,
    "horizontal_gradient_2km": 0.5,
    "tilt_2km": 0.8,
    "analytic_signal_2km": 0.6,
}
"""Spread of the other fields of `gravmap residual --bands --derivatives`: mGal, mGal/km, radians."""

_RESIDUAL = "residual_"


def fixed_std(name: str) -> float:
    """What a field is divided by, in its unit.

    Parameters
    ----------
    name : str
        Such as ``residual_10km``.

    Raises
    ------
    OptionError
        There is no number for this field.
    """
    if name in OTHERS:
        return OTHERS[name]
    if name.startswith(_RESIDUAL):
        return _of_residual(parse_length_m(name.removeprefix(_RESIDUAL)))
    raise OptionError(
        f"{name} has no fixed spread, and a network for any place cannot be taught on it.",
        f"Take residuals of any height from 1 to 100 km, or {', '.join(OTHERS)}.",
    )


def _of_residual(height_m: float) -> float:
    heights = sorted(RESIDUALS_MGAL)
    over = next((place for place, height in enumerate(heights[1:-1], 1) if height_m <= height), len(heights) - 1)
    low, high = heights[over - 1], heights[over]
    along = math.log(height_m / low) / math.log(high / low)
    return float(RESIDUALS_MGAL[low] * (RESIDUALS_MGAL[high] / RESIDUALS_MGAL[low]) ** along)


SHORT = ("residual", "multi", "rgb")
"""Names of inputs that stand for others; see :func:`expand`."""

_KINDS: tuple[type[Channel], ...] = (FieldChannel, ScaleChannel, RainbowChannel)


@dataclass(frozen=True)
class InputChannels:
    """Everything between fields in their units and a network's input.

    Attributes
    ----------
    channels : tuple of Channel
        In the network's order.
    fields : tuple of str
        Names of the fields that are read, each once, in the order :meth:`prepare` wants them.
    units, spreads : tuple
        Unit of each field, and the number its noise in training is measured in.
    """

    channels: tuple[Channel, ...]
    fields: tuple[str, ...] = field(init=False)
    units: tuple[str, ...] = field(init=False)
    spreads: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        used: dict[str, FieldChannel | RainbowChannel] = {}
        for channel in self.channels:
            if not isinstance(channel, ScaleChannel):
                used.setdefault(channel.field, channel)
        object.__setattr__(self, "fields", tuple(used))
        object.__setattr__(self, "units", tuple(channel.unit for channel in used.values()))
        object.__setattr__(self, "spreads", tuple(channel.spread for channel in used.values()))

    @property
    def names(self) -> list[str]:
        """The channels as the user says them."""
        return [channel.name for channel in self.channels]

    @property
    def width(self) -> int:
        """How many planes the network reads."""
        return sum(3 if isinstance(channel, RainbowChannel) else 1 for channel in self.channels)

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the fields that are measured on the ground: those that are not outcrop as context."""
        return tuple(name for name in self.fields if not is_context(name))

    @property
    def reads_outcrop(self) -> bool:
        """Whether outcrop is read as context."""
        return len(self.measured) < len(self.fields)

    @property
    def outcrop_planes(self) -> tuple[int, int] | None:
        """The first of the planes with log chances of classes and the one after the last; None where there is none."""
        place, found = 0, []
        for channel in self.channels:
            if channel.name.removeprefix(PREFIX).isdigit():
                found.append(place)
            place += 3 if isinstance(channel, RainbowChannel) else 1
        return (found[0], found[-1] + 1) if found else None

    @classmethod
    def fit(cls, area: RegionDataset, names: Sequence[str] | None = None, *, fixed: bool = False) -> InputChannels:
        """Measure on an area what the channels need: one spread per field, and the rainbow's limits.

        Parameters
        ----------
        area : RegionDataset
            Where the network will be taught. Its whole field counts: gravity is known where the map is not.
        names : sequence of str, optional
            Names of fields, `scale`, `rgb:FIELD`; by default every field of the area.
        fixed : bool
            Take spreads from a table (:func:`gravmap.learning.data.channels.fixed_std`), the same everywhere.

        Raises
        ------
        InputError
            The area lacks a field.
        OptionError
            A name stands twice, or no field is among them; or the table has not all of them.
        """
        names = area.channels if names is None else list(names)
        units = dict(zip(area.channels, area.channel_units, strict=True))
        channels: list[Channel] = []
        for name, read in zip(names, fields_read(names, alone=False), strict=True):
            if not read:
                channels.append(ScaleChannel())
                continue
            if read not in units:
                raise InputError(f"The tile set has no field {read!r}; it has {', '.join(units)}.")
            known = area.fields[area.channels.index(read)][area.field_valid]
            if is_context(name):
                channels.append(FieldChannel(read, units[read], 1.0))
            elif fixed:
                channels.append(FieldChannel(read, units[read], fixed_std(name)))
            elif name.startswith(RGB):
                channels.append(RainbowChannel(read, units[read], robust_std(known), *_limits(known)))
            else:
                channels.append(FieldChannel(read, units[read], robust_std(known)))
        return cls(tuple(channels))

    def select(self, area: RegionDataset) -> NDArray[np.float32]:
        """The fields of an area that are read, (F, ny, nx), in the order of :attr:`fields`."""
        if list(self.fields) == area.channels:
            return area.fields
        return area.fields[[area.channels.index(name) for name in self.fields]]

    def prepare(self, fields: Tensor, degrees_per_px: float | Tensor) -> Tensor:
        """Turn fields in their units into a network's input.

        Parameters
        ----------
        fields : Tensor
            (F, H, W) or (N, F, H, W), in the order of :attr:`fields`.
        degrees_per_px : float or Tensor
            Side of a pixel, degrees; one number, or (N,) of them.

        Returns
        -------
        Tensor
            (C, H, W) or (N, C, H, W), C being :attr:`width`.
        """
        given = dict(zip(self.fields, fields.unbind(-3), strict=True))
        planes = [plane for channel in self.channels for plane in channel.planes(given, degrees_per_px)]
        return torch.stack(planes, dim=-3) if len(planes) > 1 else planes[0].unsqueeze(-3)

    def restore(self, planes: Tensor) -> Tensor:
        """Turn a network's input (..., C, H, W) back into fields in their units (..., F, H, W).

        What went through the rainbow comes back clamped to its limits.
        """
        left = list(planes.unbind(-3))
        found: dict[str, Tensor] = {}
        for channel in self.channels:
            count = 3 if isinstance(channel, RainbowChannel) else 1
            mine, left = left[:count], left[count:]
            # A plain channel is exact; a colour does not replace it.
            found = (
                channel.values(mine) | found if isinstance(channel, RainbowChannel) else found | channel.values(mine)
            )
        return torch.stack([found[name] for name in self.fields], dim=-3)

    def to_list(self) -> list[dict[str, Any]]:
        """Plain JSON types, one record per channel."""
        return [
            {"kind": channel.KIND} | {key: _listed(value) for key, value in asdict(channel).items()}
            for channel in self.channels
        ]

    @classmethod
    def from_list(cls, records: Sequence[Mapping[str, Any]]) -> InputChannels:
        """Read the records back.

        Raises
        ------
        ValueError, TypeError, KeyError
            A record is of no known kind, or lacks something.
        """
        makers = {kind.KIND: kind for kind in _KINDS}
        channels: list[Channel] = []
        for record in records:
            values = {key: value for key, value in record.items() if key != "kind"}
            if "colours" in values:
                values["colours"] = tuple(tuple(colour) for colour in values["colours"])
            channels.append(makers[record["kind"]](**values))
        return cls(tuple(channels))


def expand(asked: str, first_residual: str) -> list[str]:
    """Read what `--input` says: names with commas between them, short ones written out.

    Parameters
    ----------
    asked : str
        Such as ``residual_10km,bouguer``; `residual` is the first residual, `rgb` its colours, `multi` stands for
        ``residual,bouguer,scale``.
    first_residual : str
        Name of the first residual.

    Raises
    ------
    OptionError
        A name is empty or stands twice, or no field is among them.
    """
    meant = {"residual": [first_residual], "multi": [first_residual, "bouguer", SCALE], "rgb": [RGB + first_residual]}
    names = [name for each in asked.split(",") for name in meant.get(each.strip(), [each.strip()])]
    fields_read(names)
    return names


def fields_read(names: Sequence[str], *, alone: bool = True) -> list[str]:
    """The fields that channels are made from.

    Parameters
    ----------
    names : sequence of str
        Written out; see :func:`expand`.
    alone : bool
        Each field once; else one entry per name, empty for `scale`.

    Raises
    ------
    OptionError
        A name is empty or stands twice, or no field is among them.
    """
    fields = ["" if name == SCALE else name.removeprefix(RGB) for name in names]
    if twice := sorted({name for name in names if list(names).count(name) > 1}):
        raise OptionError(f"The input names {', '.join(twice)} twice.", "Say each channel once.")
    if any(not read and name != SCALE for name, read in zip(names, fields, strict=True)):
        raise OptionError("The input holds an empty name.", "Write names with commas between them: residual,bouguer.")
    if not any(fields):
        raise OptionError("The input holds no field: a network cannot learn from the scale alone.", "Add residual.")
    return list(dict.fromkeys(filter(None, fields))) if alone else fields


def robust_std(values: NDArray[np.float32]) -> float:
    """Half the distance from the 16th to the 84th percentile: a normal distribution's standard deviation.

    The standard deviation itself where more than two thirds of the values are equal, and 1 where all are.
    """
    if not values.size:
        return 1.0
    low, high = np.percentile(values, (16, 84))
    spread = float(high - low) / 2 or float(values.std())
    return spread if spread > 0 else 1.0


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _limits(values: NDArray[np.float32]) -> tuple[float, float]:
    """Where a rainbow begins and ends."""
    low, high = (float(limit) for limit in np.percentile(values, RGB_PERCENTILES)) if values.size else (0.0, 0.0)
    return (low, high) if high > low else (low - 1.0, high + 1.0)
