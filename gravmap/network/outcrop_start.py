"""A network that starts from the mapped outcrop and learns a correction to it.

Some channels of the input hold the log probability of each class, diffused from the outcrop (label diffusion). The
logits are these, times one learned factor, plus the logits of a second network, the body, whose classifier starts at
zero. Before the first step the output is therefore exactly that of the baseline that uses no gravity, and training
improves on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gravmap.errors import OptionError
from gravmap.network.interface import classifier_of

SCALE = 0.6
"""Initial factor of the log probabilities: below 1, since label diffusion is overconfident far from outcrop."""

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

    Raises
    ------
    OptionError
        `planes` is an empty range, or `body` is of this kind.
    """

    KIND: ClassVar[str] = "outcrop-start"

    body: dict[str, Any]
    planes: tuple[int, int]

    def __post_init__(self) -> None:
        first, end = self.planes
        if not 0 <= first < end:
            raise OptionError(f"planes = [{first}, {end}] is not a range of input channels.", _HINT)
        if self.body.get("kind") == self.KIND:
            raise OptionError(f"The body of a network of kind {self.KIND} cannot be of the same kind.", _HINT)

    def to_dict(self) -> dict[str, Any]:
        """Return the architecture as a JSON-able record."""
        return {"kind": self.KIND, "body": self.body, "planes": list(self.planes)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> OutcropStartArchitecture:
        """Read the record that :meth:`to_dict` returns.

        Raises
        ------
        OptionError
            A key is missing, unknown or has an invalid value.
        """
        if set(record) - {"kind"} != {"body", "planes"}:
            raise OptionError(
                f"A record of kind {cls.KIND} has the keys body and planes, not {', '.join(sorted(record))}.", _HINT
            )
        body, planes = record["body"], record["planes"]
        pair = isinstance(planes, list | tuple) and len(planes) == 2
        if not pair or not all(isinstance(each, int) and not isinstance(each, bool) for each in planes):
            raise OptionError(f"planes is {planes!r}, not two integers.", _HINT)
        if not isinstance(body, Mapping):
            raise OptionError(f"body is {body!r}, not an architecture record.", _HINT)
        return cls(dict(body), (planes[0], planes[1]))


class OutcropStart(nn.Module):
    """Logits of the outcrop plus those of another network.

    Parameters
    ----------
    architecture : OutcropStartArchitecture
        Says which input channels hold log probabilities.
    body : nn.Module
        Maps (B, C, H, W) to (B, K, H, W). Its `classifier` (see `gravmap.network.interface`) is set to zero here.
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
        """The layer that computes the class scores of the body."""
        return classifier_of(self.body, self.classes)

    def reset_parameters(self) -> None:
        """Set the body's classifier to zero; it receives a gradient from the first step on."""
        self.scale.data.fill_(SCALE)
        nn.init.zeros_(self.classifier.weight)
        if self.classifier.bias is not None:
            nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to logits (B, K, H, W)."""
        first, end = self.architecture.planes
        logs = x[:, first:end]
        # Centred about zero and of order one, as gravity is.
        body_input = torch.cat((x[:, :first], (logs + MIDDLE) / MIDDLE, x[:, end:]), dim=1)
        logits: Tensor = self.scale * logs + self.body(body_input)  # (B, K, H, W)
        return logits


def with_outcrop_start(body: Mapping[str, Any], planes: tuple[int, int]) -> dict[str, Any]:
    """Return the record of a network that starts from the outcrop, given the record of its body.

    Parameters
    ----------
    body : mapping
        Architecture record, see `gravmap.network.describe`.
    planes : (int, int)
        As in :class:`OutcropStartArchitecture`.
    """
    return OutcropStartArchitecture(dict(body), planes).to_dict()


_HINT = "Correct the record; `gravmap train --context outcrop` writes a valid one to model.json."
