"""Slimmable operators: weights for every width, of which a narrow operator uses the first channels.

Each operator computes exactly what the one of the same name in operators.py computes at that width, and its weights
have the same names, so that they can be extracted (`extract_weights`). Batch statistics depend on the width, so every
output width has its own batch normalisation.

References
----------
Yu et al. 2019, Slimmable neural networks, arXiv:1812.08928.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gravmap.network.operators import OPERATORS, Cell, in_width, upsample


class SlimConv(nn.Module):
    """A convolution with variable numbers of input and output channels."""

    def __init__(self, most_in: int, most_out: int, size: int = 3, stride: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(most_out, most_in, size, size))
        self.bias = nn.Parameter(torch.zeros(most_out)) if bias else None
        self.stride, self.padding = stride, size // 2
        nn.init.kaiming_normal_(self.weight, mode="fan_in", nonlinearity="relu")

    def forward(self, x: Tensor, width: int) -> Tensor:
        """Convolve (B, c, h, w) to (B, width, h / stride, w / stride)."""
        weight = self.weight[:width, : x.shape[1]]
        bias = None if self.bias is None else self.bias[:width]
        return functional.conv2d(x, weight, bias, stride=self.stride, padding=self.padding)


class SlimNorm(nn.Module):
    """One batch normalisation per width."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.of_width = nn.ModuleDict({str(width): nn.BatchNorm2d(width) for width in widths})

    def forward(self, x: Tensor, width: int) -> Tensor:
        """Normalise (B, width, h, w)."""
        y: Tensor = self.of_width[str(width)](x)
        return y


class SlimSequential(nn.Sequential):
    """Layers in sequence, all with the same output width."""

    def forward(self, x: Tensor, width: int) -> Tensor:  # type: ignore[override]
        """Turn (B, c, h, w) into (B, width, h', w')."""
        for layer in self:
            x = layer(x) if isinstance(layer, nn.ReLU) else layer(x, width)
        return x


class SlimSkip(SlimSequential):
    """`skip` at stride 1: the identity if the width does not change."""

    def forward(self, x: Tensor, width: int) -> Tensor:  # type: ignore[override]
        """Turn (B, c, h, w) into (B, width, h, w)."""
        return x if x.shape[1] == width else super().forward(x, width)


class SlimReduce(nn.Module):
    """`skip` at stride 2, see `operators.FactorisedReduce`."""

    def __init__(self, most_in: int, widths: Sequence[int]) -> None:
        super().__init__()
        most = max(widths)
        self.even = SlimConv(most_in, most // 2, 1, stride=2)
        self.odd = SlimConv(most_in, most - most // 2, 1, stride=2)
        self.norm = SlimNorm(widths)

    def forward(self, x: Tensor, width: int) -> Tensor:
        """Reduce (B, c, h, w) to (B, width, h/2, w/2)."""
        both = torch.cat((self.even(x, width // 2), self.odd(x[:, :, 1:, 1:], width - width // 2)), dim=1)
        return functional.relu(self.norm(both, width))


class SlimZoom(nn.Module):
    """`zoom` and `zoom2`, see `operators.Zoom`."""

    def __init__(self, most_in: int, widths: Sequence[int], stride: int, convolutions: int) -> None:
        super().__init__()
        first = [_conv_bn_relu(most_in, widths)] if convolutions == 2 else []
        last = SlimConv(max(widths) if first else most_in, max(widths))
        self.body = SlimSequential(*first, SlimSequential(last, SlimNorm(widths)))
        self.back = stride == 1

    def forward(self, x: Tensor, width: int) -> Tensor:
        """Convolve (B, c, h, w) to (B, width, h, w), or to (B, width, h/2, w/2) at stride 2."""
        y: Tensor = self.body(functional.avg_pool2d(x, 2), width)
        return functional.relu(upsample(y, 2) if self.back else y)


def _conv_bn_relu(most_in: int, widths: Sequence[int], size: int = 3, stride: int = 1) -> SlimSequential:
    conv = SlimConv(most_in, max(widths), size, stride)
    return SlimSequential(conv, SlimNorm(widths), nn.ReLU(inplace=True))


def _make_operator(name: str, most_in: int, widths: Sequence[int], stride: int) -> nn.Module:
    if name == "skip":
        if stride == 2:
            return SlimReduce(most_in, widths)
        return SlimSkip(*_conv_bn_relu(most_in, widths, size=1))
    if name == "conv":
        return _conv_bn_relu(most_in, widths, stride=stride)
    if name == "conv2":
        return SlimSequential(_conv_bn_relu(most_in, widths, stride=stride), _conv_bn_relu(max(widths), widths))
    return SlimZoom(most_in, widths, stride, convolutions=1 if name == "zoom" else 2)


class SlimCell(nn.Module):
    """A cell that can be any operator at any width, or a mixture of all operators.

    Parameters
    ----------
    widths_in, widths : sequence of int
        Possible numbers of input and output channels.
    stride : int
        1 keeps the size of the map, 2 halves it.
    """

    def __init__(self, widths_in: Sequence[int], widths: Sequence[int], stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.operators = nn.ModuleDict(
            {name: _make_operator(name, max(widths_in), widths, stride) for name in OPERATORS}
        )

    def forward(self, x: Tensor, width: int, operator_weights: Tensor) -> Tensor:
        """Weighted sum of all operators.

        Parameters
        ----------
        x : Tensor
            (B, c, h, w).
        width : int
            Output channels.
        operator_weights : Tensor
            (5,), weights of the operators.

        Returns
        -------
        Tensor
            (B, width, h / stride, w / stride).
        """
        parts = [
            operator_weight * operator(x, width)
            for operator_weight, operator in zip(operator_weights, self.operators.values(), strict=True)
        ]
        if self.stride == 1:
            # The identity that `Cell` adds to each operator other than `skip`, added once.
            parts.append(operator_weights[1:].sum() * in_width(x, width))
        total: Tensor = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def forward_single(self, name: str, x: Tensor, width: int) -> Tensor:
        """Run one operator, as `Cell` does: (B, c, h, w) to (B, width, h / stride, w / stride)."""
        y: Tensor = self.operators[name](x, width)
        return y + in_width(x, width) if self.stride == 1 and name != "skip" else y

    def extract_weights(self, name: str, c_in: int, width: int) -> dict[str, Tensor]:
        """State dict of ``Cell(name, c_in, width, stride, residual)``; the tensors are copies."""
        with torch.device("meta"):
            cell = Cell(name, c_in, width, self.stride, residual=True)
        state = self.operators[name].state_dict()
        return {
            f"operator.{key}": _extract(state, key, tuple(expected.shape), width)
            for key, expected in cell.operator.state_dict().items()
        }


def _extract(state: Mapping[str, Tensor], key: str, shape: tuple[int, ...], width: int) -> Tensor:
    """A tensor of an ordinary operator, from those of the slimmable one."""
    if key not in state:
        layer, _, leaf = key.rpartition(".")
        return state[f"{layer}.of_width.{width}.{leaf}"].clone()
    return state[key][tuple(slice(length) for length in shape)].clone()
