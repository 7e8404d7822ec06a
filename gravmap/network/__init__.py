"""The network room: arrays of gravity in, class scores per pixel out.

Imports torch, and nothing that knows rasters. The public names are `build`, `build_from_dict` and `MODELS`; the
model itself is one page, ggmnet.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from gravmap.errors import OptionError
from gravmap.network.architecture import Architecture, reference, small, tiny
from gravmap.network.ggmnet import GGMNet
from gravmap.network.peers import UNet, UNetArchitecture

__all__ = ["MODELS", "Architecture", "GGMNet", "UNet", "UNetArchitecture", "build", "build_from_dict"]

MODELS = ("ggmnet", "ggmnet-small", "ggmnet-tiny", "unet")


def build(name: str = "ggmnet", *, in_channels: int = 1, classes: int = 10) -> nn.Module:
    """Make a network by name, with fresh weights.

    Parameters
    ----------
    name : str
        One of `MODELS`.
    in_channels : int
        Input channels, in mGal over one global scale.
    classes : int
        Classes to tell apart (the cover is not one).

    Returns
    -------
    torch.nn.Module
        Takes (N, in_channels, H, W), gives logits (N, classes, H, W), for any H, W >= 1 pixel. Its `architecture`
        is a frozen dataclass whose `to_dict()` is all that `build_from_dict` needs. Weights come from torch's
        global random state.

    Raises
    ------
    OptionError
        `name` is not known, or a number is below 1.
    """
    if name == "unet":
        return UNet(UNetArchitecture(), in_channels, classes)
    makers = {"ggmnet": reference, "ggmnet-small": small, "ggmnet-tiny": tiny}
    if name not in makers:
        raise OptionError(f"There is no model named {name!r}.", f"Choose one of {', '.join(MODELS)}.")
    return GGMNet(makers[name](), in_channels, classes)


def build_from_dict(architecture: Mapping[str, Any], in_channels: int, classes: int) -> nn.Module:
    """Make the network that `module.architecture.to_dict()` describes (of any kind), with fresh weights.

    Raises
    ------
    OptionError
        The description is of no known kind, or does not hold together.
    """
    kind = architecture.get("kind")
    if kind == Architecture.KIND:
        return GGMNet(Architecture.from_dict(architecture), in_channels, classes)
    if kind == UNetArchitecture.KIND:
        return UNet(UNetArchitecture.from_dict(architecture), in_channels, classes)
    raise OptionError(
        f"The architecture is of kind {kind!r}, which this version does not know.",
        f"Known kinds are {Architecture.KIND} and {UNetArchitecture.KIND}; was it written by a newer gravmap?",
    )
