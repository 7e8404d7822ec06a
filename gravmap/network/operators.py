"""The five operators of a cell, at stride 1 and, for down-sampling cells, at stride 2.

| name    | stride 1                                                    | stride 2                                  |
|---------|-------------------------------------------------------------|-------------------------------------------|
| `skip`  | nothing; 1x1 conv-BN-ReLU where the width changes           | two shifted 1x1 convs, joined, BN, ReLU   |
| `conv`  | conv 3x3, BN, ReLU                                          | the convolution has stride 2              |
| `conv2` | the same twice                                              | the first has stride 2                    |
| `zoom`  | half size, conv 3x3, BN, back to full size, ReLU            | half size, conv 3x3, BN, ReLU             |
| `zoom2` | half size, conv-BN-ReLU, conv-BN, back to full size, ReLU   | the same, staying at half size            |

Down-sampling is the mean of 2 x 2 pixels (which equals bilinear halving with `align_corners=False`), up-sampling is
bilinear with `align_corners=False`: neither depends on the size of the tile. Operators have no residual connection; a
cell may have one (see `Cell`).

References
----------
Chen et al. 2019, FasterSeg: searching for faster real-time semantic segmentation, arXiv:1912.10917 (the operators).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gravmap.errors import OptionError

OPERATORS = ("skip", "conv", "conv2", "zoom", "zoom2")


def conv_bn(c_in: int, c_out: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, then batch normalisation."""
    conv = nn.Conv2d(c_in, c_out, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out))


def conv_bn_relu(c_in: int, c_out: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch normalisation, ReLU."""
    return nn.Sequential(*conv_bn(c_in, c_out, size, stride), nn.ReLU(inplace=True))


def upsample(x: Tensor, factor: int) -> Tensor:
    """Upsample (N, C, H, W) by an integer factor, bilinearly with `align_corners=False`."""
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class FactorisedReduce(nn.Module):
    """`skip` at stride 2: two 1x1 convolutions, the second shifted by one pixel, concatenated."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(c_in, c_out - c_out // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """Reduce (N, c_in, H, W) to (N, c_out, H/2, W/2); H and W are even."""
        both = torch.cat((self.even(x), self.odd(x[:, :, 1:, 1:])), dim=1)
        return functional.relu(self.norm(both))


class Zoom(nn.Module):
    """One or two 3x3 convolutions at half size: twice the receptive field for a quarter of the cost."""

    def __init__(self, c_in: int, c_out: int, stride: int, convolutions: int) -> None:
        super().__init__()
        first = [conv_bn_relu(c_in, c_out)] if convolutions == 2 else []
        self.body = nn.Sequential(*first, conv_bn(c_out if first else c_in, c_out))
        self.back = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, c_in, H, W) to (N, c_out, H, W), or to (N, c_out, H/2, W/2) at stride 2."""
        y: Tensor = self.body(functional.avg_pool2d(x, 2))  # (N, c_out, H/2, W/2)
        if self.back:
            y = upsample(y, 2)  # (N, c_out, H, W)
        return functional.relu(y)


def make_operator(name: str, c_in: int, c_out: int, stride: int) -> nn.Module:
    """Make one operator by name.

    Raises
    ------
    OptionError
        `name` is not one of `OPERATORS`.
    """
    if name == "skip":
        if stride == 2:
            return FactorisedReduce(c_in, c_out)
        return nn.Identity() if c_in == c_out else conv_bn_relu(c_in, c_out, size=1)
    if name == "conv":
        return conv_bn_relu(c_in, c_out, stride=stride)
    if name == "conv2":
        return nn.Sequential(conv_bn_relu(c_in, c_out, stride=stride), conv_bn_relu(c_out, c_out))
    if name in ("zoom", "zoom2"):
        return Zoom(c_in, c_out, stride, convolutions=1 if name == "zoom" else 2)
    raise OptionError(f"Unknown operator {name!r}.", f"Choose one of {', '.join(OPERATORS)}.")


class Cell(nn.Module):
    """One operator, with a residual connection if it keeps the size.

    If the widths differ, the residual connection adds the channels that both sides have: it has no weights (He et al.
    2016, doi 10.1109/CVPR.2016.90, option A). A `skip` has none, since it would only double its input.
    """

    def __init__(self, name: str, c_in: int, c_out: int, stride: int, residual: bool) -> None:
        super().__init__()
        self.operator = make_operator(name, c_in, c_out, stride)
        self.residual = residual and stride == 1 and name != "skip"

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, c_in, H, W) to (N, c_out, H/stride, W/stride)."""
        y: Tensor = self.operator(x)
        return y + in_width(x, y.shape[1]) if self.residual else y


def in_width(x: Tensor, width: int) -> Tensor:
    """Truncate or zero-pad the channels of (N, c, H, W) to (N, width, H, W)."""
    return x[:, :width] if x.shape[1] >= width else functional.pad(x, (0, 0, 0, 0, 0, width - x.shape[1]))
