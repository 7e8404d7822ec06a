"""Residual blocks of HRNet, of the residual U-Net and of BiSeNet's context path, and self-attention.

References
----------
He et al. 2016, Deep residual learning for image recognition, arXiv:1512.03385.
Vaswani et al. 2017, Attention is all you need, arXiv:1706.03762.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from gravmap.network.operators import conv_bn, conv_bn_relu

HEADS = 4
"""Heads of the attention."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a residual connection: the block of ResNet-18 and -34 and of HRNet's branches.

    Parameters
    ----------
    c_in, c_out : int
        Channels of input and output.
    stride : int
        Stride of the first convolution.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn_relu(c_in, c_out, 3, stride), conv_bn(c_out, c_out))
        self.short = shortcut(c_in, c_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c_in, h, w) to (B, c_out, h / stride, w / stride)."""
        return functional.relu(self.body(x) + self.short(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a residual connection: the block of ResNet-50 and of HRNet's first stage.

    Parameters
    ----------
    c_in : int
        Channels of the input.
    narrow : int
        Channels of the 3x3 convolution; the output has four times as many.
    """

    def __init__(self, c_in: int, narrow: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn_relu(c_in, narrow, 1), conv_bn_relu(narrow, narrow), conv_bn(narrow, 4 * narrow, 1)
        )
        self.short = shortcut(c_in, 4 * narrow)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c_in, h, w) to (B, 4 narrow, h, w)."""
        return functional.relu(self.body(x) + self.short(x))


class Attention(nn.Module):
    """Multi-head self-attention over all pixels with a residual connection; at first the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        # The projections to query, key and value, and of the output; the names are keys of saved weights.
        self.ask = nn.Conv2d(width, 3 * width, 1)
        self.tell = nn.Conv2d(width, width, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the projection of the output to zero."""
        nn.init.zeros_(self.tell.weight)
        assert self.tell.bias is not None
        nn.init.zeros_(self.tell.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the same shape."""
        batch, width, rows, columns = x.shape
        projected = self.ask(self.norm(x)).reshape(batch, 3, HEADS, width // HEADS, rows * columns)
        query, key, value = projected.transpose(-1, -2).unbind(1)  # (B, heads, h w, C / heads)
        attended = functional.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.tell(attended.transpose(-1, -2).reshape(batch, width, rows, columns))
        return x + output


def shortcut(c_in: int, c_out: int, stride: int = 1) -> nn.Module:
    """Make the residual connection of a block: the identity if the shape stays the same, else a 1x1 convolution."""
    return nn.Identity() if c_in == c_out and stride == 1 else conv_bn(c_in, c_out, 1, stride)


def init_weights(network: nn.Module) -> None:
    """Initialise convolutions as in the papers: normal with variance 2 / fan-in (Kaiming), biases zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
