"""GGMNet: a gravity field in, class scores per pixel out.

    x -> encoder (1/2, 1/4, 1/8) -> three branches of cells (1/8, 1/16, 1/32) -> ARM each -> FFM at 1/8
      -> head: three times (upsample, concatenate the encoder's map, deformable convolution) -> classifier

B images, C input channels, K classes, H x W pixels; E1, E2, E3 are the encoder's widths (48, 96, 96) and D1, D2, D3
the head's (64, 32, 16). docs/deviations.md lists what the paper leaves open, and the choices made here.

References
----------
Liu et al. 2024, Deep learning for geological mapping in the overburden area, doi 10.3389/feart.2024.1407173.
Yu et al. 2018, BiSeNet: bilateral segmentation network, arXiv:1808.00897 (ARM and FFM).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gravmap.errors import OptionError
from gravmap.network.architecture import Architecture
from gravmap.network.deform import DeformConv3x3, Implementation
from gravmap.network.operators import Cell, conv_bn_relu, upsample
from gravmap.network.residual import Attention

MULTIPLE = 64
"""Inputs are padded to a multiple of this: 1/32 at the coarsest branch, halved again in its zoom operators."""


def pad_to_multiple(x: Tensor, multiple: int | tuple[int, int]) -> Tensor:
    """Pad (B, C, H, W) at the bottom and right to a multiple: by reflection, or replication if it is too small.

    `multiple` is one number, or one for rows and one for columns.
    """
    multiples = (multiple, multiple) if isinstance(multiple, int) else multiple
    for axis, each in zip((-2, -1), multiples, strict=True):
        size = x.shape[axis]
        more = -size % each
        # torch.export makes one program for all sizes: a branch on a symbolic size would bind it to those of the
        # example. There the size is always padded, by 0 where it is a multiple.
        if not isinstance(more, int) or more:
            pad = (0, more, 0, 0) if axis == -1 else (0, 0, 0, more)
            x = functional.pad(x, pad, mode="reflect" if more < size else "replicate")
    return x


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """Cut (B, C, H, W) at the bottom and right to `height` and `width`: what :func:`pad_to_multiple` added."""
    for axis, size in ((-2, height), (-1, width)):
        if isinstance(size, int):
            x = x.narrow(axis, 0, size)
        else:  # in a program for all sizes a view would bind it to sizes that are a multiple, or to those that are not
            x = x.index_select(axis, torch.arange(size, device=x.device))
    return x


def _resize(x: Tensor, rows: float, columns: float) -> Tensor:
    """Interpolate (B, C, H, W) bilinearly to `rows` times as many rows and `columns` times as many columns."""
    if rows == columns == 1:
        return x
    return functional.interpolate(x, scale_factor=(float(rows), float(columns)), mode="bilinear")


def _least(finer: int) -> int:
    """Smallest number of cells that are a multiple of MULTIPLE pixels, `finer` to a cell."""
    return math.lcm(MULTIPLE, finer) // finer


def make_encoder(in_channels: int, widths: Sequence[int]) -> nn.ModuleList:
    """Make the three convolutions that reduce the input to 1/2, 1/4 and 1/8 of its size."""
    before = (in_channels, *widths[:-1])
    return nn.ModuleList(conv_bn_relu(c_in, c_out, stride=2) for c_in, c_out in zip(before, widths, strict=True))


class AttentionRefinement(nn.Module):
    """ARM: a convolution to the width of the fusion, then channel attention from the mean over the tile."""

    def __init__(self, c_in: int, c_out: int, attention: bool, norm: str) -> None:
        super().__init__()
        self.conv = conv_bn_relu(c_in, c_out)
        self.weigh = nn.Conv2d(c_out, c_out, 1, bias=norm == "none") if attention else None
        self.norm = nn.BatchNorm2d(c_out) if attention and norm == "batch" else None

    def forward(self, x: Tensor) -> Tensor:
        """Refine (B, c_in, h, w) to (B, c_out, h, w)."""
        y: Tensor = self.conv(x)  # (B, c_out, h, w)
        if self.weigh is None:
            return y
        weight: Tensor = self.weigh(y.mean((2, 3), keepdim=True))  # (B, c_out, 1, 1)
        if self.norm is not None:
            # One value per channel has no variance; with synchronised normalisation other processes add theirs.
            if self.norm.training and x.shape[0] < 2 and not isinstance(self.norm, nn.SyncBatchNorm):
                raise OptionError(
                    "This network cannot train on one image per step: its attention normalises over the batch.",
                    "Raise the batch size to 2 or more, or use an architecture with arm_norm = none (ggmnet-tiny).",
                )
            weight = self.norm(weight)
        return y * torch.sigmoid(weight)


class FeatureFusion(nn.Module):
    """FFM: concatenate and mix maps of one size, then channel attention with a residual connection."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.mix = conv_bn_relu(c_in, c_out, size=1)
        self.weigh = nn.Sequential(
            nn.Conv2d(c_out, c_out, 1), nn.ReLU(inplace=True), nn.Conv2d(c_out, c_out, 1), nn.Sigmoid()
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Fuse several (B, c, h, w) to (B, c_out, h, w)."""
        x: Tensor = self.mix(torch.cat(tuple(maps), dim=1))  # (B, c_out, h, w)
        weight: Tensor = self.weigh(x.mean((2, 3), keepdim=True))  # (B, c_out, 1, 1)
        return x + x * weight


class HeadStage(nn.Module):
    """Decoder stage: upsample twofold, concatenate a finer map of that size, (deformable) convolution."""

    def __init__(self, c_in: int, c_beside: int, c_out: int, deform: bool, impl: Implementation) -> None:
        super().__init__()
        both = c_in + c_beside
        self.conv = (
            DeformConv3x3(both, c_out, impl=impl) if deform else nn.Conv2d(both, c_out, 3, padding=1, bias=False)
        )
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:
        """Map (B, c_in, h, w) and (B, c_beside, 2h, 2w) to (B, c_out, 2h, 2w)."""
        x = torch.cat((upsample(x, 2), beside), dim=1)  # (B, c_in + c_beside, 2h, 2w)
        return functional.relu(self.norm(self.conv(x)))  # (B, c_out, 2h, 2w)


class GGMNet(nn.Module):
    """GGMNet of Liu et al. 2024.

    Parameters
    ----------
    architecture : Architecture
        Operators, widths and parts of the network.
    in_channels, classes : int
        Channels of the input and number of classes.
    deform_impl : {"auto", "native", "torchvision"}
        Implementation of the deformable convolutions; it does not affect the weights.

    Examples
    --------
    >>> import torch
    >>> from gravmap.network import GGMNet
    >>> from gravmap.network.presets import tiny
    >>> network = GGMNet(tiny(), in_channels=1, classes=4).eval()
    >>> network(torch.zeros(1, 1, 64, 64)).shape
    torch.Size([1, 4, 64, 64])
    """

    def __init__(
        self, architecture: Architecture, in_channels: int, classes: int, deform_impl: Implementation = "auto"
    ) -> None:
        super().__init__()
        self.architecture = a = architecture
        self.in_channels, self.classes = in_channels, classes

        half, quarter, width = a.encoder
        self.encoder = make_encoder(in_channels, a.encoder)
        self._make_branches(width)
        ends = [a.width(branch, a.depth - 1) for branch in range(len(a.paths))]
        self.refine = nn.ModuleList(AttentionRefinement(end, width, a.arm, a.arm_norm) for end in ends)
        self.fuse = FeatureFusion((len(ends) + a.encoder_skip) * width, width) if a.ffm else None
        self.attend = Attention(ends[-1]) if a.attention else None

        d1, d2, d3 = a.head
        stages = [(width, quarter, d1), (d1, half, d2), (d2, in_channels, d3)]
        stages = stages[: 1 + a.half_res_stage + a.full_res_stage]
        self.head = nn.ModuleList(HeadStage(*widths, a.deform, deform_impl) for widths in stages)
        self.classify = nn.Conv2d(stages[-1][-1], classes, 1)
        self.reset_parameters()

    @property
    def classifier(self) -> nn.Conv2d:
        """The layer that computes the class scores."""
        return self.classify

    def _make_branches(self, width: int) -> None:
        """Make every cell once, and the sequence of cells of each branch.

        `routes` are the numbers of the cells, branch by branch; `shared` is how many of them an earlier branch has
        computed; `split_points` are the cells after which branches separate.
        """
        a = self.architecture
        self.cells = nn.ModuleList()
        self.routes: list[list[int]] = []
        self.shared: list[int] = []
        for branch in range(len(a.paths)):
            common = [a.shared_cells(branch, earlier) for earlier in range(branch)]
            shared = max(common, default=0)
            route = self.routes[common.index(shared)][:shared] if shared else []
            c_in = a.width(branch, shared - 1) if shared else width
            for cell in range(shared, a.depth):
                c_out = a.width(branch, cell)
                stride = 2 if cell in a.paths[branch] else 1
                route.append(len(self.cells))
                self.cells.append(Cell(a.ops[branch][cell], c_in, c_out, stride, a.cell_residual))
                c_in = c_out
            self.routes.append(route)
            self.shared.append(shared)
        self.split_points = {route[n - 1] for route, n in zip(self.routes, self.shared, strict=True) if n}

    def reset_parameters(self) -> None:
        """Initialise convolutions (Kaiming normal, fan-in), offsets of deformable convolutions and biases (zero)."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for layer in self.modules():
            if isinstance(layer, DeformConv3x3 | Attention):
                layer.reset_parameters()

    def set_prior(self, class_frequencies: Sequence[float]) -> None:
        """Initialise the bias of the classifier to the log of the class frequencies.

        Parameters
        ----------
        class_frequencies : sequence of float
            One non-negative number per class, in any unit; frequencies are at least 1 in 10 000.

        Raises
        ------
        OptionError
            There is not one frequency per class, one is negative or not finite, or all are 0.
        """
        frequency = torch.as_tensor(class_frequencies, dtype=torch.float64)
        if (
            frequency.shape != (self.classes,)
            or not torch.isfinite(frequency).all()
            or frequency.min() < 0
            or frequency.sum() <= 0
        ):
            raise OptionError(f"Class frequencies must be {self.classes} numbers of at least 0, not all of them 0.")
        frequency = (frequency / frequency.sum()).clamp_min(1e-4)
        assert self.classify.bias is not None
        with torch.no_grad():
            self.classify.bias.copy_((frequency / frequency.sum()).log())

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits of every pixel.

        Parameters
        ----------
        x : Tensor
            (B, C, H, W), any H and W of at least 1.

        Returns
        -------
        Tensor
            Logits, (B, K, H, W).
        """
        height, width = x.shape[-2:]
        rows, columns = self.architecture.interpolate
        x = _resize(pad_to_multiple(x, (_least(rows), _least(columns))), rows, columns)
        # (B, C, H, W), H and W now multiples of 64; from here on they count the network's pixels

        half = self.encoder[0](x)  # (B, E1, H/2, W/2)
        quarter = self.encoder[1](half)  # (B, E2, H/4, W/4)
        eighth = self.encoder[2](quarter)  # (B, E3, H/8, W/8)

        maps = []
        ends = self.branches(eighth)
        if self.attend is not None:
            ends[-1] = self.attend(ends[-1])
        for scale, branch in enumerate(ends):  # (B, chi * 8 * 2^s, H/8/2^s, W/8/2^s)
            maps.append(upsample(self.refine[scale](branch), 2 ** self._end_scale(scale)))  # (B, E3, H/8, W/8)
        if self.fuse is None:
            y = torch.stack(maps).sum(0)  # (B, E3, H/8, W/8)
        else:
            y = self.fuse([*maps, eighth] if self.architecture.encoder_skip else maps)  # (B, E3, H/8, W/8)

        for stage, beside in zip(self.head, (quarter, half, x), strict=False):
            y = stage(y, beside)  # (B, D1, H/4, W/4), (B, D2, H/2, W/2), (B, D3, H, W)
        y = self.classify(y)  # (B, K, h, w), of the size of the last stage
        up = 2.0 ** (3 - len(self.head))
        y = _resize(y, up / rows, up / columns)  # (B, K, H, W) of the padded input
        return crop(y, height, width)

    def branches(self, x: Tensor) -> list[Tensor]:
        """Run every branch on the encoder's output (B, E3, h, w); cells that branches share run once."""
        kept: dict[int, Tensor] = {}
        ends = []
        for route, shared in zip(self.routes, self.shared, strict=True):
            y = kept[route[shared - 1]] if shared else x
            for number in route[shared:]:
                y = self.cells[number](y)
                if number in self.split_points:
                    kept[number] = y
            ends.append(y)
        return ends

    def _end_scale(self, branch: int) -> int:
        return self.architecture.scale(branch, self.architecture.depth - 1)
