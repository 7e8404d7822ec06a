"""The pass of a window through a network: as one image, or where that is small as overlapping crops.

Training crops are half as wide as windows. The coarsest feature map of a crop of 64 pixels is 2 x 2, and most of what
its convolutions read is padding; that of a window twice as wide is 4 x 4, which the batch statistics of the training do
not describe. So a small window passes in crops of the training's size (measured in docs/results.md).
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from gravmap.network.outcrop_start import AllOutputs, OutcropStart

WHOLE_FROM_PX = 512
"""Windows of so many pixels and more pass as one image, as the paper's of 2048; not measured at these sizes."""

WEIGHT_FLOOR = 1e-4
"""Minimum weight of a crop, so that the edges of the window are covered."""


def window_logits(network: nn.Module, windows: Tensor) -> Tensor:
    """Logits of windows.

    Windows under :data:`WHOLE_FROM_PX` pass as nine crops half as wide, each shifted by half its width, whose logits
    are averaged with the weights of a Hann window. Networks that start from the outcrop (:class:`OutcropStart`) see
    whole windows of any size.

    Parameters
    ----------
    network : nn.Module
        (N, C, H, W) -> (N, K, H, W), in evaluation mode.
    windows : Tensor, shape (N, C, T, T)
        Windows of one size.

    Returns
    -------
    Tensor, shape (N, K, T, T)

    Examples
    --------
    >>> import torch
    >>> from gravmap.network.window_pass import window_logits
    >>> sizes = []
    >>> class Sizes(torch.nn.Module):
    ...     def forward(self, x):
    ...         sizes.append(tuple(x.shape))
    ...         return x
    >>> found = window_logits(Sizes(), torch.ones(2, 1, 128, 128))
    >>> sizes, tuple(found.shape), bool(torch.allclose(found, torch.ones(1)))
    ([(18, 1, 64, 64)], (2, 1, 128, 128), True)
    """
    size = windows.shape[-1]
    starts = crop_starts(network, size)
    if not starts:
        found: Tensor = network(windows)
        return found
    side = size // 2
    corners = list(itertools.product(starts, starts))
    crops = torch.stack([windows[..., top : top + side, left : left + side] for top, left in corners])
    passed: Tensor = network(crops.flatten(0, 1)).float()  # (9 N, K, T / 2, T / 2)
    weight = _weight(side, passed.device)
    total = passed.new_zeros(len(windows), passed.shape[1], size, size)
    weights = passed.new_zeros(size, size)
    for number, (top, left) in enumerate(corners):
        part = (..., slice(top, top + side), slice(left, left + side))
        total[part] += passed[number * len(windows) : (number + 1) * len(windows)] * weight
        weights[part] += weight
    return total / weights


def crop_starts(network: nn.Module, size_px: int) -> list[int]:
    """First rows (and columns) of the crops of a window of this size; empty where it passes as one image."""
    inner = network.network if isinstance(network, AllOutputs) else network
    if size_px >= WHOLE_FROM_PX or isinstance(inner, OutcropStart):
        return []
    side = size_px // 2
    return [0, (size_px - side) // 2, size_px - side]


def _weight(side_px: int, device: torch.device) -> Tensor:
    """Hann window in both directions, shape (side, side)."""
    edge = torch.sin(math.pi * (torch.arange(side_px, device=device) + 0.5) / side_px) ** 2
    edge = edge.clamp(min=WEIGHT_FLOOR)
    return edge[:, None] * edge[None, :]
