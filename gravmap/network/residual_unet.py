"""A U-Net of residual blocks on pooled pixels: the network shipped as `crusts-central-asia`.

A gravity field has no signal as short as a cell of its grid, and its value at a place depends on sources far around it.
So the input is average-pooled first, most layers work at coarse sizes, and at the coarsest size every pixel depends on
all others, through their mean and one self-attention layer. The logits are upsampled bilinearly.

References
----------
Ronneberger et al. 2015, arXiv:1505.04597 (the U); He et al. 2016, arXiv:1512.03385 (residual blocks); Vaswani et al.
2017, arXiv:1706.03762 (attention).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from gravmap.errors import OptionError
from gravmap.network.ggmnet import crop, pad_to_multiple
from gravmap.network.operators import conv_bn_relu, upsample
from gravmap.network.residual import HEADS, Attention, BasicBlock

MAX_BLOCKS = 64
"""Most residual blocks at one size."""


@dataclass(frozen=True)
class ResidualUNetArchitecture:
    """Architecture of a residual U-Net.

    Parameters
    ----------
    widths : tuple of int
        Channels at the pooled size and after each halving, two or more; the last one is a multiple of 4, the number
        of attention heads.
    blocks : tuple of int
        Residual blocks at each size, in the encoder and in the decoder.
    pool : (int, int)
        Rows and columns of the input that are pooled to one pixel. 2 x 3 cells of 2 arc-minutes are nearly square at
        latitudes of 40 to 50 degrees.

    Raises
    ------
    OptionError
        The numbers are inconsistent.
    """

    KIND: ClassVar[str] = "residual-unet"

    widths: tuple[int, ...] = (32, 64, 96, 120)
    blocks: tuple[int, ...] = (1, 1, 2, 2)
    pool: tuple[int, int] = (2, 3)

    def __post_init__(self) -> None:
        numbers = (*self.widths, *self.blocks, *self.pool)
        whole = all(isinstance(each, int) and not isinstance(each, bool) and 1 <= each <= 1 << 16 for each in numbers)
        if (
            not whole
            or max(self.blocks, default=0) > MAX_BLOCKS
            or len(self.widths) > 12
            or len(self.widths) < 2
            or len(self.blocks) != len(self.widths)
            or len(self.pool) != 2
        ):
            raise OptionError(
                "A residual U-Net needs two or more widths, as many blocks, and two pooling sizes, "
                f"not {self.to_dict()}."
            )
        if self.widths[-1] % HEADS:
            raise OptionError(
                f"The last width of a residual U-Net must be a multiple of {HEADS}, not {self.widths[-1]}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the architecture as a JSON-able record."""
        return {"kind": self.KIND, "widths": list(self.widths), "blocks": list(self.blocks), "pool": list(self.pool)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> ResidualUNetArchitecture:
        """Read the record that :meth:`to_dict` returns.

        Raises
        ------
        OptionError
            A field is missing, unknown or has an invalid value.
        """
        values = {name: value for name, value in record.items() if name != "kind"}
        lists = all(isinstance(value, list | tuple) for value in values.values())
        if set(values) != {"widths", "blocks", "pool"} or not lists:
            raise OptionError(
                f"The record of a residual U-Net has the lists widths, blocks and pool, not {sorted(values)}."
            )
        return cls(tuple(values["widths"]), tuple(values["blocks"]), tuple(values["pool"]))


class ResidualUNet(nn.Module):
    """The network, for images of any size."""

    def __init__(self, architecture: ResidualUNetArchitecture, in_channels: int, classes: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.in_channels, self.classes = in_channels, classes
        widths, blocks = architecture.widths, architecture.blocks
        self.stem = conv_bn_relu(in_channels, widths[0])
        self.down = nn.ModuleList(
            _chain(widths[max(level - 1, 0)], widths[level], blocks[level]) for level in range(len(widths))
        )
        self.mean = nn.Linear(widths[-1], widths[-1])
        self.attention = Attention(widths[-1])
        self.after = BasicBlock(widths[-1], widths[-1])
        self.narrow = nn.ModuleList(nn.Conv2d(below, width, 1, bias=False) for width, below in pairwise(widths))
        self.up = nn.ModuleList(
            _chain(2 * width, width, count) for width, count in zip(widths, blocks[:-1], strict=False)
        )
        self.classify = nn.Conv2d(widths[0], classes, 1)

    @property
    def classifier(self) -> nn.Conv2d:
        """The layer that computes the class scores."""
        return self.classify

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to logits (B, K, H, W); widths are W0, W1, ... from the pooled size h, w down."""
        height, width = x.shape[-2:]
        pool, deepest = self.architecture.pool, len(self.down) - 1
        rows, columns = (each * 2**deepest for each in pool)  # whole pixels of the coarsest level
        x = self.stem(functional.avg_pool2d(pad_to_multiple(x, (rows, columns)), pool))  # (B, W0, h, w)
        finer: list[Tensor] = []
        for level, chain in enumerate(self.down):
            x = chain(functional.avg_pool2d(x, 2) if level else x)  # (B, Wl, h/2^l, w/2^l)
            finer.append(x)
        x = x + self.mean(x.mean((-2, -1)))[:, :, None, None].to(x.dtype)
        x = self.after(self.attention(x))
        for level in reversed(range(deepest)):
            x = torch.cat((finer[level], upsample(self.narrow[level](x), 2)), dim=1)  # (B, 2 Wl, h/2^l, w/2^l)
            x = self.up[level](x)
        logits = self.classify(x)  # (B, K, h, w)
        logits = functional.interpolate(logits, scale_factor=tuple(map(float, pool)), mode="bilinear")  # (B, K, H, W)
        return crop(logits, height, width)


def _chain(c_in: int, c_out: int, blocks: int) -> nn.Sequential:
    """Make residual blocks, one after another."""
    return nn.Sequential(*(BasicBlock(c_out if number else c_in, c_out) for number in range(blocks)))
