"""A network that starts from mapped outcrop: it says what the outcrop says, and learns what gravity adds.

Some planes of its input are the log of the chance of each class, spread out from the outcrop. Its logits are these,
times one learned number, plus those of any other network of the registry, whose last layer starts at zero. Before the
first step it is therefore the null model, to the bit, and what it becomes is measured from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gravmap.errors import OptionError

SCALE = 0.6
"""What the log chances are first weighed with: below 1, since outcrop far away is less sure than diffusion believes."""

MIDDLE = 3.0
"""Log chances lie between -7 and 0: less this, about in the middle."""


@dataclass(frozen=True)
class OutcropStartArchitecture:
    """A network around another.

    Parameters
    ----------
    body : dict
        Record of the architecture of the network that adds to the outcrop, of any kind but this.
    planes : (int, int)
        The first of the input's planes with log chances, and the one after the last; class by class between.

    Raises
    ------
    OptionError
        The planes are no range, or the body is of this kind.
    """

    KIND: ClassVar[str] = "outcrop-start"

    body: dict[str, Any]
    planes: tuple[int, int]

    def __post_init__(self) -> None:
        first, end = self.planes
        if not 0 <= first < end:
            raise OptionError(f"Planes {first} to {end} of an input hold no outcrop.", _MEND)
        if self.body.get("kind") == self.KIND:
            raise OptionError("A network that starts from outcrop stands around another of its kind.", _MEND)

    def to_dict(self) -> dict[str, Any]:
        """Give the record as plain JSON types."""
        return {"kind": self.KIND, "body": self.body, "planes": list(self.planes)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> OutcropStartArchitecture:
        """Read the record back.

        Raises
        ------
        OptionError
            Something is missing, unknown or wrong.
        """
        if set(record) - {"kind"} != {"body", "planes"}:
            raise OptionError(f"Such a network's record holds body and planes, not {sorted(record)}.", _MEND)
        body, planes = record["body"], record["planes"]
        numbers = isinstance(planes, list | tuple) and len(planes) == 2
        if not numbers or not all(isinstance(each, int) and not isinstance(each, bool) for each in planes):
            raise OptionError(f"planes is {planes!r}, not two whole numbers.", _MEND)
        if not isinstance(body, Mapping):
            raise OptionError(f"body is {body!r}, not the record of a network.", _MEND)
        return cls(dict(body), (planes[0], planes[1]))


class OutcropStart(nn.Module):
    """The network around a body.

    Parameters
    ----------
    architecture : OutcropStartArchitecture
        Where the log chances are.
    body : nn.Module
        Takes (B, C, H, W), gives (B, K, H, W); its last layer is set to zero here.
    in_channels, classes : int
        C and K.

    Raises
    ------
    OptionError
        The input has not that many planes, or not one for each class.
    """

    def __init__(self, architecture: OutcropStartArchitecture, body: nn.Module, in_channels: int, classes: int) -> None:
        super().__init__()
        first, end = architecture.planes
        if end > in_channels or end - first != classes:
            raise OptionError(
                f"The planes {first} to {end - 1} of {in_channels} are no log chances of {classes} classes.", _MEND
            )
        self.architecture = architecture
        self.in_channels, self.classes = in_channels, classes
        self.body = body
        self.scale = nn.Parameter(torch.tensor(SCALE))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Let the body say nothing at first: its last layer is zero, and gets a gradient from the first step on."""
        self.scale.data.fill_(SCALE)
        last = last_layer(self.body)
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Score (B, C, H, W) as (B, K, H, W)."""
        first, end = self.architecture.planes
        logs = x[:, first:end]
        # The body reads them about zero, as it reads gravity: from -1.3 to 1.
        read = torch.cat((x[:, :first], (logs + MIDDLE) / MIDDLE, x[:, end:]), dim=1)
        logits: Tensor = self.scale * logs + self.body(read)  # (B, K, H, W)
        return logits


def around(body: Mapping[str, Any], planes: tuple[int, int]) -> dict[str, Any]:
    """Give the record of a network that starts from outcrop in these planes, around the one that `body` describes."""
    return OutcropStartArchitecture(dict(body), planes).to_dict()


def last_layer(network: nn.Module) -> nn.Conv2d:
    """The convolution that gives a network's class scores."""
    *_, last = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    return last


_MEND = "Mend the record; `train --context outcrop` writes it."
