"""Deformable 3x3 convolution.

An ordinary 3x3 convolution reads the input at p + t for the nine taps t in {-1, 0, 1}^2. The deformable one (first
version, without modulation) reads it at p + t + o_t(p), where the offsets o come from an ordinary convolution of the
same input, and interpolates bilinearly, with zeros outside:

    y(p) = sum_t W_t x(p + t + o_t(p))

`deform_conv3x3` uses plain differentiable operations. Bilinear sampling treats all channels alike, so it commutes with
the channel mix W_t, and whichever side has fewer channels is sampled. Without gradients, only one tap is in memory at a
time. On CUDA, torchvision's kernel is used if it is installed for CUDA.

References
----------
Dai et al. 2017, Deformable convolutional networks, ICCV, doi 10.1109/ICCV.2017.89.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gravmap.errors import DeviceError, OptionError

Implementation = Literal["auto", "native", "torchvision"]
TAPS = 9


def torchvision_available(device_type: str) -> bool:
    """Return whether torchvision can be imported and has its kernel for "cpu" or "cuda".

    A torchvision built for another torch raises RuntimeError on import; a CPU build on a CUDA machine is imported but
    fails when it is called. Both count as not available.
    """
    try:
        import torchvision.ops  # noqa: F401  - registers the operator
    except (ImportError, RuntimeError, OSError):
        return False
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::deform_conv2d", device_type.upper()))


def backend(device_type: str) -> Implementation:
    """Return the implementation that `impl="auto"` uses on a device type: "torchvision" or "native"."""
    return "torchvision" if device_type == "cuda" and torchvision_available("cuda") else "native"


class DeformConv3x3(nn.Module):
    """Deformable 3x3 convolution, stride 1, zero padding, one offset group, no bias.

    The convolution of the offsets is initialised to zero, so the layer starts as an ordinary convolution.

    Parameters
    ----------
    c_in, c_out : int
        Channels in and out.
    impl : {"auto", "native", "torchvision"}
        "auto": torchvision on CUDA if available, native otherwise.
    images_per_call : int
        Images per call of torchvision's kernel. It unrolls 9 x c_in values per pixel of all of them, so one at a time
        needs the least memory.

    Raises
    ------
    OptionError
        `impl` is not one of the three.
    DeviceError
        `impl="torchvision"`, but torchvision is not available.
    """

    def __init__(self, c_in: int, c_out: int, *, impl: Implementation = "auto", images_per_call: int = 1) -> None:
        super().__init__()
        if impl not in ("auto", "native", "torchvision"):
            raise OptionError(f"impl = {impl!r} is not valid.", "Choose auto, native or torchvision.")
        if impl == "torchvision" and not torchvision_available("cpu"):
            raise DeviceError("The deformable convolution of torchvision is not available.", "Use impl='native'.")
        self.impl = impl
        self.images_per_call = images_per_call
        # Not in forward, which torch.compile traces: an import there would be traced as well.
        self.torchvision_on_cuda = impl == "auto" and torch.cuda.is_available() and backend("cuda") == "torchvision"
        self.saves_memory = False
        self.offset = nn.Conv2d(c_in, 2 * TAPS, 3, padding=1)
        self.weight = nn.Parameter(torch.empty(c_out, c_in, 3, 3))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the weight (Kaiming normal) and the convolution of the offsets (zero)."""
        nn.init.kaiming_normal_(self.weight, mode="fan_in", nonlinearity="relu")
        nn.init.zeros_(self.offset.weight)
        if self.offset.bias is not None:
            nn.init.zeros_(self.offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, c_in, H, W) to (N, c_out, H, W)."""
        offset = self.offset(x)  # (N, 18, H, W): dy, dx of tap 0, dy, dx of tap 1, ...
        natively = self.saves_memory and not torch.is_grad_enabled()
        if self.impl == "torchvision" or (self.torchvision_on_cuda and x.is_cuda and not natively):
            return _by_torchvision(x, offset, self.weight, self.images_per_call)
        return deform_conv3x3(x, offset, self.weight)

    def extra_repr(self) -> str:
        """Return channels and implementation."""
        c_out, c_in = self.weight.shape[:2]
        return f"{c_in}, {c_out}, impl={self.impl!r}"


def save_memory(network: nn.Module) -> bool:
    """Compute deformable convolutions natively from now on when no gradients are needed, also on CUDA.

    That takes less memory than torchvision's kernel: one tap at a time instead of all nine, unrolled.

    Returns
    -------
    bool
        Whether anything changed.
    """
    layers = [
        each
        for each in network.modules()
        if isinstance(each, DeformConv3x3) and each.torchvision_on_cuda and not each.saves_memory
    ]
    for layer in layers:
        layer.saves_memory = True
    return bool(layers)


# Our own because torchvision's kernel takes 7 to 9 times as long on a CPU, forward and backward (docs/performance.md,
# section "Network").
def deform_conv3x3(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """Compute a deformable 3x3 convolution in plain operations, on any device.

    Parameters
    ----------
    x : Tensor
        Input, (N, C_in, H, W).
    offset : Tensor
        Offsets in pixels, (N, 18, H, W): channel 2t is dy and 2t + 1 is dx of tap t; taps run row by row.
    weight : Tensor
        (C_out, C_in, 3, 3).

    Returns
    -------
    Tensor
        (N, C_out, H, W), in the dtype an ordinary convolution would return (autocast included). Coordinates and
        interpolation are at least float32: in bfloat16 a coordinate near 1000 would be off by whole pixels.
    """
    batch, c_in, height, width = x.shape
    c_out = weight.shape[0]
    exact = torch.promote_types(x.dtype, torch.float32)
    shifts = offset.to(exact).unbind(1)  # 18 of (N, H, W)
    rows = weight.flatten(2).unbind(2)  # nine matrices (C_out, C_in)
    flat = x.flatten(2)  # (N, C_in, HW)
    out: Tensor | None = None
    for tap, row in enumerate(rows):
        grid = _sampling_grid(tap, shifts[2 * tap], shifts[2 * tap + 1])  # (N, H, W, 2)
        # bmm instead of a 1x1 convolution: the same product, but its gradient is cheaper on a CPU.
        mix = row.expand(batch, -1, -1)  # (N, C_out, C_in)
        if c_out <= c_in:
            mixed = torch.bmm(mix, flat)  # (N, C_out, HW), in the autocast type
            part = _sample(mixed.view(batch, c_out, height, width).to(exact), grid)
        else:
            seen = _sample(x.to(exact), grid).flatten(2)  # (N, C_in, HW)
            mixed = torch.bmm(mix, seen.to(x.dtype))
            part = mixed.view(batch, c_out, height, width).to(exact)
        out = part if out is None else out + part
    assert out is not None
    return out.to(mixed.dtype)


def _sampling_grid(tap: int, dy: Tensor, dx: Tensor) -> Tensor:
    """Convert a tap's shifts (N, H, W) to coordinates of grid_sample (N, H, W, 2): x first, -1 to 1 edge to edge."""
    height, width = dy.shape[-2:]
    row = torch.arange(height, device=dy.device, dtype=dy.dtype).unsqueeze(1) + (tap // 3 - 1)  # (H, 1)
    column = torch.arange(width, device=dy.device, dtype=dy.dtype) + (tap % 3 - 1)  # (W,)
    # The centre of pixel i of n is at (2 i + 1) / n - 1: unlike with align_corners=True, this also holds for n = 1.
    x = torch.add((2 * column + 1) / width - 1, dx, alpha=2 / width)
    y = torch.add((2 * row + 1) / height - 1, dy, alpha=2 / height)
    return torch.stack((x, y), dim=-1)


def _sample(x: Tensor, grid: Tensor) -> Tensor:
    """Sample (N, C, H, W) at (N, H, W, 2), bilinearly, zeros outside."""
    batch, channels, height, width = x.shape
    # An exported graph must work for any number of images, so it must not depend on that number.
    split = x.device.type == "cpu" and not torch.compiler.is_exporting()
    groups = _channel_groups(batch, channels) if split else 1
    if groups > 1:
        x = x.reshape(batch * groups, channels // groups, height, width)
        grid = grid.unsqueeze(1).expand(-1, groups, -1, -1, -1).flatten(0, 1)
    out = functional.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return out.view(batch, channels, height, width)


def _channel_groups(batch: int, channels: int) -> int:
    """Choose the number of channel groups that a small batch is divided into.

    On a CPU grid_sample uses one thread per image, so channel groups take the place of images; each group repeats the
    work on the coordinates, which pays off from eight channels on. The number depends on the shape alone, not on the
    number of threads, so that results do not depend on it either.
    """
    groups = 1
    while batch * groups < 4 and channels % (2 * groups) == 0 and channels // (2 * groups) >= 8:
        groups *= 2
    return groups


def _by_torchvision(x: Tensor, offset: Tensor, weight: Tensor, images_per_call: int) -> Tensor:
    """Call torchvision's kernel for a few images at a time, at least in float32 (it has no bfloat16)."""
    from torchvision.ops import deform_conv2d

    kind = x.device.type
    # Tensors of the device "meta", with which memory is estimated, know no autocast.
    lowered = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    result = torch.get_autocast_dtype(kind) if lowered else x.dtype
    exact = torch.promote_types(x.dtype, torch.float32)
    taps = weight.to(exact)
    parts = [
        deform_conv2d(some.to(exact), shift.to(exact), taps, padding=1)
        for some, shift in zip(torch.split(x, images_per_call), torch.split(offset, images_per_call), strict=True)
    ]
    return torch.cat(parts).to(result)
