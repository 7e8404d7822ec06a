"""U-Net, to compare GGMNet with.

References
----------
Ronneberger et al. 2015, U-Net: convolutional networks for biomedical image segmentation, arXiv:1505.04597.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from gravmap.errors import OptionError
from gravmap.network.ggmnet import crop, pad_to_multiple
from gravmap.network.operators import conv_bn_relu


@dataclass(frozen=True)
class UNetArchitecture:
    """Architecture of a U-Net.

    Parameters
    ----------
    widths : tuple of int
        Channels at full size and after each halving, two or more.

    Raises
    ------
    OptionError
        Fewer than two widths, or one below 1.

    Examples
    --------
    >>> from gravmap.network.unet import UNet
    >>> from gravmap.network.unet import UNetArchitecture
    >>> network = UNet(UNetArchitecture(widths=(4, 8)), in_channels=1, classes=3)
    >>> network.architecture.to_dict()
    {'kind': 'unet', 'widths': [4, 8]}
    """

    KIND: ClassVar[str] = "unet"

    widths: tuple[int, ...] = (16, 32, 64, 128, 256)

    def __post_init__(self) -> None:
        whole = all(isinstance(width, int) and 1 <= width <= 1 << 16 for width in self.widths)
        if not 2 <= len(self.widths) <= 12 or not whole:
            raise OptionError(f"A U-Net needs 2 to 12 widths of at least 1, not {list(self.widths)}.")

    def to_dict(self) -> dict[str, Any]:
        """Return the architecture as a JSON-able record."""
        return {"kind": self.KIND, "widths": list(asdict(self)["widths"])}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> UNetArchitecture:
        """Read the record that :meth:`to_dict` returns.

        Raises
        ------
        OptionError
            `widths` is missing or invalid, or there is another field.
        """
        widths = record.get("widths")
        if set(record) - {"kind"} != {"widths"} or not isinstance(widths, list | tuple):
            raise OptionError(f"The record of a U-Net has the key widths only, not {sorted(record)}.")
        return cls(tuple(widths))


class UNet(nn.Module):
    """U-Net with padding and batch normalisation.

    Parameters
    ----------
    architecture : UNetArchitecture
        Widths.
    in_channels, classes : int
        Channels of the input and number of classes.

    Examples
    --------
    >>> import torch
    >>> from gravmap.network.unet import UNet
    >>> from gravmap.network.unet import UNetArchitecture
    >>> UNet(UNetArchitecture((4, 8)), in_channels=1, classes=3)(torch.zeros(2, 1, 16, 16)).shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(self, architecture: UNetArchitecture, in_channels: int, classes: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.in_channels, self.classes = in_channels, classes
        widths = architecture.widths
        self.down = nn.ModuleList(_twice(a, b) for a, b in pairwise((in_channels, *widths)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(widths))
        self.join = nn.ModuleList(_twice(2 * a, a) for a in widths[:-1])
        self.classify = nn.Conv2d(widths[0], classes, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")

    @property
    def classifier(self) -> nn.Conv2d:
        """The layer that computes the class scores."""
        return self.classify

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) of any size to logits (B, K, H, W); widths are W0, W1, ... from full size down."""
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, 2 ** (len(self.down) - 1))
        finer: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)  # (B, Wl, H/2^l, W/2^l)
            finer.append(x)
        for level in reversed(range(len(self.up))):
            x = torch.cat((self.up[level](x), finer[level]), dim=1)  # (B, 2 Wl, H/2^l, W/2^l)
            x = self.join[level](x)  # (B, Wl, H/2^l, W/2^l)
        logits: Tensor = self.classify(x)  # (B, K, H, W)
        return crop(logits, height, width)


def _twice(c_in: int, c_out: int) -> nn.Sequential:
    """Make a block of two 3x3 convolutions."""
    return nn.Sequential(conv_bn_relu(c_in, c_out), conv_bn_relu(c_out, c_out))
