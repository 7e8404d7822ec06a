"""A U-Net of residual blocks on pixels brought together first: what is shipped as taught on crusts.

Gravity holds nothing as short as a cell of its grid, and what it says of a place depends on all around it. So cells are
averaged to pixels about four times as large in area or more, most layers work on ever larger ones, and on the largest
every pixel hears of every other: by their mean and by one layer of attention. The scores come back bilinearly.

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
from gravmap.network.operators import conv_bn_relu, upsample
from gravmap.network.residual import BasicBlock

HEADS = 4


@dataclass(frozen=True)
class ResidualUNetArchitecture:
    """A residual U-Net.

    Parameters
    ----------
    widths : tuple of int
        Channels at the pooled size and after each halving, two or more; the last a multiple of 4, the attention's
        heads.
    blocks : tuple of int
        Residual blocks at each size, on the way down and on the way up.
    pool : (int, int)
        Rows and columns of the input that make one pixel. 2 x 3 cells of 2 arc-minutes are nearly square from 40 to 50
        degrees of latitude.

    Raises
    ------
    OptionError
        The numbers do not go together.
    """

    KIND: ClassVar[str] = "residual-unet"

    widths: tuple[int, ...] = (32, 64, 96, 120)
    blocks: tuple[int, ...] = (1, 1, 2, 2)
    pool: tuple[int, int] = (2, 3)

    def __post_init__(self) -> None:
        numbers = (*self.widths, *self.blocks, *self.pool)
        whole = all(isinstance(each, int) and not isinstance(each, bool) and each >= 1 for each in numbers)
        if not whole or len(self.widths) < 2 or len(self.blocks) != len(self.widths) or len(self.pool) != 2:
            raise OptionError(
                "A residual U-Net needs two or more widths, as many blocks, and two numbers to pool by, "
                f"not {self.to_dict()}."
            )
        if self.widths[-1] % HEADS:
            raise OptionError(f"The last width of a residual U-Net is a multiple of {HEADS}, not {self.widths[-1]}.")

    def to_dict(self) -> dict[str, Any]:
        """Give the record as plain JSON types."""
        return {"kind": self.KIND, "widths": list(self.widths), "blocks": list(self.blocks), "pool": list(self.pool)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> ResidualUNetArchitecture:
        """Read the record back.

        Raises
        ------
        OptionError
            Something is missing or wrong, or another field is there.
        """
        values = {name: value for name, value in record.items() if name != "kind"}
        lists = all(isinstance(value, list | tuple) for value in values.values())
        if set(values) != {"widths", "blocks", "pool"} or not lists:
            raise OptionError(f"A residual U-Net's record holds lists: widths, blocks and pool, not {sorted(values)}.")
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
        """Score (B, C, H, W) as (B, K, H, W); widths are W0, W1, ... from the pooled size h, w down."""
        height, width = x.shape[-2:]
        pool, deepest = self.architecture.pool, len(self.down) - 1
        x = self.stem(functional.avg_pool2d(self._padded(x), pool))  # (B, W0, h, w)
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
        return logits[:, :, :height, :width]

    def _padded(self, x: Tensor) -> Tensor:
        """Pad below and to the right to whole pixels of the deepest level, mirrored where the image is large enough."""
        for axis, each in zip((-2, -1), self.architecture.pool, strict=True):
            size = x.shape[axis]
            more = -size % (each * 2 ** (len(self.down) - 1))
            if more:
                pad = (0, more, 0, 0) if axis == -1 else (0, 0, 0, more)
                x = functional.pad(x, pad, mode="reflect" if more < size else "replicate")
        return x


class Attention(nn.Module):
    """What all pixels tell each, in four ways, added to what it was; at first nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.ask = nn.Conv2d(width, 3 * width, 1)
        self.tell = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.tell.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, C, h, w) into the same shape."""
        batch, width, rows, columns = x.shape
        asked = self.ask(self.norm(x)).reshape(batch, 3, HEADS, width // HEADS, rows * columns)
        query, key, value = asked.transpose(-1, -2).unbind(1)  # (B, heads, h w, C / heads)
        told = functional.scaled_dot_product_attention(query, key, value)
        answer: Tensor = self.tell(told.transpose(-1, -2).reshape(batch, width, rows, columns))
        return x + answer


def _chain(c_in: int, c_out: int, blocks: int) -> nn.Sequential:
    """Make residual blocks, one after another."""
    return nn.Sequential(*(BasicBlock(c_out if number else c_in, c_out) for number in range(blocks)))
