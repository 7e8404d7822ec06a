"""A network that starts from the mapped outcrop and learns a correction to it.

Some channels of the input hold the log probability of each class, diffused from the outcrop (label diffusion). The
logits are these, times one learned factor, plus the logits of a second network, the body, whose classifier starts at
zero. Before the first step the output is therefore exactly that of the baseline that uses no gravity, and training
improves on it.

Trained on simulated crusts, where the thickness of the cover is known, the body has three further outputs: quantiles of
that thickness (:meth:`OutcropStart.outputs`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from gravmap.errors import OptionError
from gravmap.network.interface import classifier_of
from gravmap.network.precision import scoring_precision

SCALE = 0.6
"""Initial factor of the log probabilities: below 1, since label diffusion is overconfident far from outcrop."""

THICKNESS_QUANTILES = (0.1, 0.5, 0.9)
"""Quantiles of the thickness of the cover that a network outputs, in this order."""

_START_KM = (0.4, 0.8, 1.8)
"""The quantiles before the first step, everywhere."""

MIDDLE = 3.0
"""Log probabilities lie between -7 and 0; the body reads them plus and over this, from about -1.3 to 1."""


@dataclass(frozen=True)
class OutcropStartArchitecture:
    """Architecture of a network that starts from the mapped outcrop.

    Parameters
    ----------
    body : dict
        Architecture record of the network whose logits are added; any kind but this one.
    planes : (int, int)
        Index of the first input channel that holds log probabilities, and the index after the last; one channel per
        class.
    thickness : bool
        Whether the network also outputs the thickness of the cover.

    Raises
    ------
    OptionError
        `planes` is an empty range, or `body` is of this kind.
    """

    KIND: ClassVar[str] = "outcrop-start"

    body: dict[str, Any]
    planes: tuple[int, int]
    thickness: bool = False

    def __post_init__(self) -> None:
        first, end = self.planes
        if not 0 <= first < end:
            raise OptionError(f"planes = [{first}, {end}] is not a range of input channels.", _HINT)
        if self.body.get("kind") == self.KIND:
            raise OptionError(f"The body of a network of kind {self.KIND} cannot be of the same kind.", _HINT)

    def to_dict(self) -> dict[str, Any]:
        """Return the architecture as a JSON-able record."""
        record = {"kind": self.KIND, "body": self.body, "planes": list(self.planes)}
        return record | ({"thickness": True} if self.thickness else {})

    @property
    def extra_outputs(self) -> int:
        """Outputs of the body after the class scores."""
        return len(THICKNESS_QUANTILES) if self.thickness else 0

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> OutcropStartArchitecture:
        """Read the record that :meth:`to_dict` returns.

        Raises
        ------
        OptionError
            A key is missing, unknown or has an invalid value.
        """
        if (
            set(record) - {"kind", "thickness"} != {"body", "planes"}
            or type(record.get("thickness", False)) is not bool
        ):
            raise OptionError(
                f"A record of kind {cls.KIND} has the keys body and planes, not {', '.join(sorted(record))}.",
                _HINT,
            )
        body, planes = record["body"], record["planes"]
        pair = isinstance(planes, list | tuple) and len(planes) == 2
        if not pair or not all(isinstance(each, int) and not isinstance(each, bool) for each in planes):
            raise OptionError(f"planes is {planes!r}, not two integers.", _HINT)
        if not isinstance(body, Mapping):
            raise OptionError(f"body is {body!r}, not an architecture record.", _HINT)
        return cls(dict(body), (planes[0], planes[1]), record.get("thickness", False))


class OutcropStart(nn.Module):
    """Logits of the outcrop plus those of another network, and quantiles of the thickness of the cover.

    Parameters
    ----------
    architecture : OutcropStartArchitecture
        Says which input channels hold log probabilities, and whether there is a thickness.
    body : nn.Module
        Maps (B, C, H, W) to (B, K, H, W), or with thickness to (B, K + 3, H, W). Its `classifier` (see
        `gravmap.network.interface`) is set to zero here.
    in_channels, classes : int
        C and K.

    Raises
    ------
    OptionError
        The input does not have these channels, their number is not the number of classes, or the body has no
        `classifier`.
    """

    def __init__(self, architecture: OutcropStartArchitecture, body: nn.Module, in_channels: int, classes: int) -> None:
        super().__init__()
        first, end = architecture.planes
        if end > in_channels or end - first != classes:
            raise OptionError(
                f"Channels {first} to {end - 1} of an input with {in_channels} cannot hold the log probabilities of "
                f"{classes} classes.",
                _HINT,
            )
        self.architecture = architecture
        self.in_channels, self.classes = in_channels, classes
        self.body = body
        self.scale = nn.Parameter(torch.tensor(SCALE))
        self.reset_parameters()

    @property
    def classifier(self) -> nn.Conv2d:
        """The layer that computes the class scores of the body, and after them its raw quantiles."""
        return classifier_of(self.body, self.classes + self.architecture.extra_outputs)

    def reset_parameters(self) -> None:
        """Set the body's classifier to zero; it receives a gradient from the first step on."""
        self.scale.data.fill_(SCALE)
        nn.init.zeros_(self.classifier.weight)
        if self.classifier.bias is not None:
            nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to logits (B, K, H, W)."""
        return self.outputs(x)[:, : self.classes]

    def outputs(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to logits and quantiles, (B, K + 3, H, W); without thickness to logits, (B, K, H, W).

        The last three are the quantiles :data:`THICKNESS_QUANTILES` of the thickness of the cover, km, in increasing
        order and not negative.
        """
        first, end = self.architecture.planes
        logs = x[:, first:end]
        # Centred about zero and of order one, as gravity is.
        body_input = torch.cat((x[:, :first], (logs + MIDDLE) / MIDDLE, x[:, end:]), dim=1)
        found: Tensor = self.body(body_input)
        if not self.architecture.thickness:
            return self.scale * logs + found  # (B, K, H, W)
        # A split has a cheaper gradient than two slices.
        logits, raw = torch.split(found, [self.classes, self.architecture.extra_outputs], dim=1)
        return torch.cat((self.scale * logs + logits, _quantiles_km(raw).to(logits.dtype)), dim=1)


def _quantiles_km(raw: Tensor) -> Tensor:
    """Map any three numbers (B, 3, H, W) to increasing quantiles that are not negative, km; 0 to :data:`_START_KM`."""
    low, middle, high = _START_KM
    # Plane by plane in memory: three channels of a channels-last tensor take twice the time.
    fraction, median, above = raw.float().contiguous().unbind(1)
    median = functional.softplus(median + _inverse_softplus(middle))
    below = median * torch.sigmoid(fraction + math.log(low / (middle - low)))
    return torch.stack((below, median, median + functional.softplus(above + _inverse_softplus(high - middle))), dim=1)


def _inverse_softplus(value: float) -> float:
    return math.log(math.expm1(value))


class AllOutputs(nn.Module):
    """A network whose forward pass returns every output: class scores and, where it has them, quantiles of thickness.

    Parameters
    ----------
    network : nn.Module
        Any network; the wrapper shares its weights.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def extra_outputs(self) -> int:
        """Outputs after the class scores: three of a network with thickness, else none."""
        return self.network.architecture.extra_outputs if isinstance(self.network, OutcropStart) else 0

    @property
    def scoring_precision(self) -> str:
        """That of the network, see :func:`gravmap.network.precision.set_scoring_precision`."""
        return scoring_precision(self.network)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, K + 3, H, W), or to (B, K, H, W) of a network without thickness."""
        found: Tensor = self.network.outputs(x) if isinstance(self.network, OutcropStart) else self.network(x)
        return found


def has_thickness(network: nn.Module) -> bool:
    """Whether a network outputs the thickness of the cover."""
    return isinstance(network, OutcropStart) and network.architecture.thickness


def with_outcrop_start(body: Mapping[str, Any], planes: tuple[int, int], thickness: bool = False) -> dict[str, Any]:
    """Return the record of a network that starts from the outcrop, given the record of its body.

    Parameters
    ----------
    body : mapping
        Architecture record, see `gravmap.network.describe`.
    planes, thickness
        As in :class:`OutcropStartArchitecture`.
    """
    return OutcropStartArchitecture(dict(body), planes, thickness).to_dict()


_HINT = "Correct the record; `gravmap train --context outcrop` writes a valid one to model.json."
