"""Input channels of a network: how fields in their units become its input, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gravmap.errors import InputError, OptionError
from gravmap.lattice import mask_name
from gravmap.learning.data.channel_kinds import (
    RGB,
    SCALE,
    Channel,
    FieldChannel,
    LayerChannel,
    RainbowChannel,
    ScaleChannel,
)
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.data.outcrop_context import PREFIX, is_context
from gravmap.units import parse_length_m

RGB_PERCENTILES = (1.0, 99.0)
"""Percentiles of the field at the ends of the colour scale; values beyond get the colours of the ends."""


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
        f"{name} has no tabulated standard deviation, so a network for any region cannot be trained on it: simulated"
        " crusts have gravity and outcrop alone, no layers.",
        f"Use residuals of any height from 1 to 100 km, or {', '.join(OTHERS)}. A layer is learned on the region:"
        " gravmap train --context outcrop --init RUN --input with the channels of RUN, and LAYER.",
    )


def _of_residual(height_m: float) -> float:
    heights = sorted(RESIDUALS_MGAL)
    over = next((place for place, height in enumerate(heights[1:-1], 1) if height_m <= height), len(heights) - 1)
    low, high = heights[over - 1], heights[over]
    along = math.log(height_m / low) / math.log(high / low)
    return float(RESIDUALS_MGAL[low] * (RESIDUALS_MGAL[high] / RESIDUALS_MGAL[low]) ** along)


SHORT = ("residual", "multi", "rgb")
"""Abbreviations of inputs; see :func:`expand`."""

_KINDS: tuple[type[Channel], ...] = (FieldChannel, LayerChannel, ScaleChannel, RainbowChannel)


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
        used: dict[str, tuple[str, float]] = {}
        for channel in self.channels:
            used = {**channel.reads, **used}
        names = dict.fromkeys(name for channel in self.channels for name in channel.reads)
        object.__setattr__(self, "fields", tuple(names))
        object.__setattr__(self, "units", tuple(used[name][0] for name in names))
        object.__setattr__(self, "spreads", tuple(used[name][1] for name in names))

    @property
    def names(self) -> list[str]:
        """The channels as in ``--input``."""
        return [channel.name for channel in self.channels]

    @property
    def width(self) -> int:
        """How many planes the network reads."""
        return sum(channel.width for channel in self.channels)

    @property
    def layers(self) -> dict[str, LayerChannel]:
        """The layers among the fields."""
        return {channel.field: channel for channel in self.channels if isinstance(channel, LayerChannel)}

    @property
    def masks(self) -> tuple[str, ...]:
        """Names of the masks of layers among the fields."""
        return tuple(mask_name(name) for name, layer in self.layers.items() if layer.masked)

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the measured fields: neither outcrop as context nor masks of layers."""
        return tuple(name for name in self.fields if not is_context(name) and name not in self.masks)

    @property
    def required(self) -> tuple[str, ...]:
        """Those of the measured fields that have to be known: without the layers that are masked."""
        masked = {name for name, layer in self.layers.items() if layer.masked}
        return tuple(name for name in self.measured if name not in masked)

    @property
    def gravity(self) -> tuple[bool, ...]:
        """Which fields are gravity, by their units, and no layers: noise and changes of level are for these."""
        return tuple(
            unit.startswith("mGal") and name not in self.layers
            for name, unit in zip(self.fields, self.units, strict=True)
        )

    @property
    def fills(self) -> tuple[float, ...]:
        """Value of each field where it is unknown: 0, and the mean of a layer that is not masked."""
        layers = self.layers
        return tuple(layers[name].centre if name in layers and not layers[name].masked else 0.0 for name in self.fields)

    @property
    def reads_outcrop(self) -> bool:
        """Whether outcrop is read as context."""
        return any(map(is_context, self.fields))

    @property
    def planes(self) -> dict[str, range]:
        """The planes of each channel in the network's input."""
        found, place = {}, 0
        for channel in self.channels:
            found[channel.name] = range(place, place := place + channel.width)
        return found

    @property
    def outcrop_planes(self) -> tuple[int, int] | None:
        """First plane with log-probabilities of classes and the one after the last; None where there is none."""
        found = [planes for name, planes in self.planes.items() if name.removeprefix(PREFIX).isdigit()]
        return (found[0].start, found[-1].stop) if found else None

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
        masks = {mask_name(name): name for name in names}
        names = [name for name in names if name not in masks]  # a mask belongs to its layer
        channels: list[Channel] = []
        for name, read in zip(names, fields_read(names, alone=False), strict=True):
            if not read:
                channels.append(ScaleChannel())
                continue
            if read not in units:
                raise InputError(f"The tile set has no field {read!r}; it has {', '.join(units)}.")
            known = dataset.known_values(read)
            if name.startswith(RGB) and mask_name(read) in units:
                raise InputError(f"The layer {read} has missing values, which have no colour.", f"Use --input {read}.")
            if is_context(name):
                channels.append(FieldChannel(read, units[read], 1.0))
            elif fixed:
                channels.append(FieldChannel(read, units[read], fixed_std(name)))
            elif read in dataset.layers and not name.startswith(RGB):
                masked = mask_name(read) in units
                channels.append(LayerChannel(read, units[read], robust_std(known), _mean(known), masked))
            elif name.startswith(RGB):
                channels.append(RainbowChannel(read, units[read], robust_std(known), *_limits(known)))
            else:
                channels.append(FieldChannel(read, units[read], robust_std(known)))
        return cls(tuple(channels))

    def select(self, dataset: RegionDataset) -> NDArray[np.float32]:
        """The fields of a dataset that are read, (F, ny, nx), in the order of :attr:`fields`."""
        if list(self.fields) == dataset.channels:
            return dataset.fields
        planes = []
        for name, fill in zip(self.fields, self.fills, strict=True):
            if name in self.masks and name not in dataset.channels:
                planes.append(dataset.field_valid.astype(np.float32))  # nothing is missing here
                continue
            plane = dataset.fields[dataset.channels.index(name)]
            # Trained where nothing was missing: there is no mask to tell the network.
            unmasked = name in self.layers and not self.layers[name].masked
            planes.append(np.where(dataset.known_mask(name), plane, np.float32(fill)) if unmasked else plane)
        return np.stack(planes)

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
            count = channel.width
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


def _mean(values: NDArray[np.float32]) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else 0.0


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _limits(values: NDArray[np.float32]) -> tuple[float, float]:
    """Values at the ends of a colour scale."""
    low, high = (float(limit) for limit in np.percentile(values, RGB_PERCENTILES)) if values.size else (0.0, 0.0)
    return (low, high) if high > low else (low - 1.0, high + 1.0)
