"""The interface that every network of the registry has.

It has a separate file because the registry, which builds networks, and networks that wrap another one both need it.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from gravmap.errors import OptionError


class SegmentationNetwork(Protocol):
    """What `gravmap.network.build` returns, besides being a `torch.nn.Module`.

    Attributes
    ----------
    architecture : object
        Frozen dataclass; its `to_dict()` gives the JSON-able record that `gravmap.network.build_from_dict` takes.
    in_channels, classes : int
        Channels of the input and number of classes.
    classifier : torch.nn.Conv2d
        The layer whose output channels are the class scores (logits). A property where the layer is registered under
        another name, so that the keys of the state dict stay as they are.
    """

    architecture: Any
    in_channels: int
    classes: int

    @property
    def classifier(self) -> nn.Conv2d:
        """The layer whose output channels are the class scores."""

    def __call__(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to logits (N, classes, H, W)."""


def classifier_of(network: nn.Module, classes: int) -> nn.Conv2d:
    """Return the layer that computes the class scores of a network.

    Parameters
    ----------
    network : nn.Module
        A network with the attribute `classifier`, see :class:`SegmentationNetwork`.
    classes : int
        Number of classes.

    Raises
    ------
    OptionError
        The network has no attribute `classifier`, or it is not a `Conv2d` with one output channel per class.
    """
    layer = getattr(network, "classifier", None)
    name = type(network).__name__
    if not isinstance(layer, nn.Conv2d):
        raise OptionError(
            f"The network {name} has no attribute `classifier`, or it is not a torch.nn.Conv2d but {layer!r}.",
            f"Give {name} an attribute or property `classifier`: the Conv2d layer that computes the class scores.",
        )
    if layer.out_channels != classes:
        raise OptionError(
            f"The classifier of {name} has {layer.out_channels} output channels, but there are {classes} classes.",
            "The classifier is the Conv2d layer with one output channel per class.",
        )
    return layer
