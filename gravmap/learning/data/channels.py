"""Input channels of a network: how fields in their units become its input, and back."""

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
"""Percentiles of the field at the ends of the colour scale; values beyond get the colours of the ends."""


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

    def planes(self, fields: Mapping[str, Tensor], degrees_per_px: float | Tensor) -> list[Tensor]:
        """One plane (..., H, W)."""
        return [fields[self.field] / self.spread]

    def values(self, planes: Sequence[Tensor]) -> dict[str, Tensor]:
        """The field, in its unit."""
        return {self.field: planes[0] * self.spread}


@dataclass(frozen=True)
class ScaleChannel:
    """The size of a pixel: log10 of degrees per pixel."""

    KIND: ClassVar[str] = "scale"
    name: ClassVar[str] = SCALE

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


Channel = FieldChannel | ScaleChannel | RainbowChannel


RESIDUALS_MGAL = {2e3: 2.0, 5e3: 4.0, 10e3: 7.0, 20e3: 10.0, 40e3: 15.0}
"""Height in metres to the standard deviation of its residual, mGal; interpolated linearly between logarithms."""

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
"""Standard deviation of the other fields of `gravmap residual --bands --derivatives`: mGal, mGal/km, radians."""

_RESIDUAL = "residual_"


def fixed_std(name: str) -> float:
    """Standard deviation of a field from a table, in its unit: the same for every region.

    Parameters
    ----------
    name : str
        Such as ``residual_10km``.

    Raises
    ------
    OptionError
        The table has no number for this field.
    """
    if name in OTHERS:
        return OTHERS[name]
    height_m = parse_length_m(name.removeprefix(_RESIDUAL)) if name.startswith(_RESIDUAL) else 0.0
    if height_m > 0:
        return _of_residual(height_m)
    raise OptionError(
        f"{name} has no tabulated standard deviation, so a network for any region cannot be trained on it.",
        f"Use residuals of any height from 1 to 100 km, or {', '.join(OTHERS)}.",
    )


def _of_residual(height_m: float) -> float:
    heights = sorted(RESIDUALS_MGAL)
    over = next((place for place, height in enumerate(heights[1:-1], 1) if height_m <= height), len(heights) - 1)
    low, high = heights[over - 1], heights[over]
    along = math.log(height_m / low) / math.log(high / low)
    return float(RESIDUALS_MGAL[low] * (RESIDUALS_MGAL[high] / RESIDUALS_MGAL[low]) ** along)


SHORT = ("residual", "multi", "rgb")
"""Abbreviations of inputs; see :func:`expand`."""

_KINDS: tuple[type[Channel], ...] = (FieldChannel, ScaleChannel, RainbowChannel)


@dataclass(frozen=True)
class InputChannels:
    """The input of a network: which fields it reads, and how each is scaled.

    Attributes
    ----------
    channels : tuple of Channel
        In the order of the network's input.
    fields : tuple of str
        Names of the fields that are read, each once, in the order that :meth:`prepare` takes.
    units, spreads : tuple
        Unit of each field, and its standard deviation, the unit of noise in training.

    Examples
    --------
    >>> import torch
    >>> from gravmap.learning.data.channels import InputChannels
    >>> from gravmap.learning.data.dataset import RegionDataset
    >>> from gravmap.tiling import load_arrays
    >>> dataset = RegionDataset.from_arrays(load_arrays("data/tiles"))
    >>> inputs = InputChannels.fit(dataset, ["residual_10km", "scale"])
    >>> inputs.names, inputs.width
    (['residual_10km', 'scale'], 2)
    >>> field = torch.from_numpy(inputs.select(dataset))
    >>> planes = inputs.prepare(field, degrees_per_px=0.1)
    >>> torch.allclose(inputs.restore(planes), field, atol=1e-4)
    True
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
        """The channels as in ``--input``."""
        return [channel.name for channel in self.channels]

    @property
    def width(self) -> int:
        """How many planes the network reads."""
        return sum(3 if isinstance(channel, RainbowChannel) else 1 for channel in self.channels)

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the measured fields: those that are not outcrop as context."""
        return tuple(name for name in self.fields if not is_context(name))

    @property
    def reads_outcrop(self) -> bool:
        """Whether outcrop is read as context."""
        return len(self.measured) < len(self.fields)

    @property
    def outcrop_planes(self) -> tuple[int, int] | None:
        """First plane with log-probabilities of classes and the one after the last; None where there is none."""
        place, found = 0, []
        for channel in self.channels:
            if channel.name.removeprefix(PREFIX).isdigit():
                found.append(place)
            place += 3 if isinstance(channel, RainbowChannel) else 1
        return (found[0], found[-1] + 1) if found else None

    @classmethod
    def fit(cls, dataset: RegionDataset, names: Sequence[str] | None = None, *, fixed: bool = False) -> InputChannels:
        """Measure the scales on a dataset: one standard deviation per field, and the limits of colours.

        Parameters
        ----------
        dataset : RegionDataset
            The training data. Its whole field counts: gravity is known where the map is not.
        names : sequence of str, optional
            Names of fields, `scale`, `rgb:FIELD`; by default every field of the dataset.
        fixed : bool
            Take standard deviations from a table, the same for every region (:func:`fixed_std`).

        Raises
        ------
        InputError
            The dataset lacks a field.
        OptionError
            A name is given twice, or no field is among them; or the table lacks one of them.
        """
        names = dataset.channels if names is None else list(names)
        units = dict(zip(dataset.channels, dataset.channel_units, strict=True))
        channels: list[Channel] = []
        for name, read in zip(names, fields_read(names, alone=False), strict=True):
            if not read:
                channels.append(ScaleChannel())
                continue
            if read not in units:
                raise InputError(f"The tile set has no field {read!r}; it has {', '.join(units)}.")
            known = dataset.fields[dataset.channels.index(read)][dataset.field_valid]
            if is_context(name):
                channels.append(FieldChannel(read, units[read], 1.0))
            elif fixed:
                channels.append(FieldChannel(read, units[read], fixed_std(name)))
            elif name.startswith(RGB):
                channels.append(RainbowChannel(read, units[read], robust_std(known), *_limits(known)))
            else:
                channels.append(FieldChannel(read, units[read], robust_std(known)))
        return cls(tuple(channels))

    def select(self, dataset: RegionDataset) -> NDArray[np.float32]:
        """The fields of a dataset that are read, (F, ny, nx), in the order of :attr:`fields`."""
        if list(self.fields) == dataset.channels:
            return dataset.fields
        return dataset.fields[[dataset.channels.index(name) for name in self.fields]]

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

        A field given only as colours comes back clamped to its limits.
        """
        left = list(planes.unbind(-3))
        found: dict[str, Tensor] = {}
        for channel in self.channels:
            count = 3 if isinstance(channel, RainbowChannel) else 1
            mine, left = left[:count], left[count:]
            # A plain channel is exact; the value from a colour does not replace it.
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
        """Make the channels of :meth:`to_list`.

        Raises
        ------
        ValueError, TypeError, KeyError
            A record is of an unknown kind, or incomplete.
        """
        makers = {kind.KIND: kind for kind in _KINDS}
        channels: list[Channel] = []
        for record in records:
            values = {key: value for key, value in record.items() if key != "kind"}
            if "colours" in values:
                values["colours"] = tuple(tuple(colour) for colour in values["colours"])
            channels.append(makers[record["kind"]](**values))
        return cls(tuple(channels))


def expand(text: str, residual: str) -> list[str]:
    """Parse `--input`: names with commas between them, abbreviations written out.

    Parameters
    ----------
    text : str
        Such as ``residual_10km,bouguer``; `residual` is the default residual, `rgb` its colours, `multi` stands for
        ``residual,bouguer,scale``.
    residual : str
        Name of the default residual.

    Raises
    ------
    OptionError
        A name is empty or given twice, or no field is among them.
    """
    abbreviations = {
        "residual": [residual],
        "multi": [residual, "bouguer", SCALE],
        "rgb": [RGB + residual],
    }
    names = [name for each in text.split(",") for name in abbreviations.get(each.strip(), [each.strip()])]
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
        A name is empty or given twice, or no field is among them.
    """
    fields = ["" if name == SCALE else name.removeprefix(RGB) for name in names]
    if twice := sorted({name for name in names if list(names).count(name) > 1}):
        raise OptionError(f"The input names {', '.join(twice)} twice.", "Give each channel once.")
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
    std = float(high - low) / 2 or float(values.std())
    return std if std > 0 else 1.0


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _limits(values: NDArray[np.float32]) -> tuple[float, float]:
    """Values at the ends of a colour scale."""
    low, high = (float(limit) for limit in np.percentile(values, RGB_PERCENTILES)) if values.size else (0.0, 0.0)
    return (low, high) if high > low else (low - 1.0, high + 1.0)
