"""What a network costs: its parameters, and the multiply-adds of one forward pass."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from gravmap.network.deform import DeformConv3x3


def count_parameters(network: nn.Module) -> int:
    """Count the trainable numbers, each shared one once."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def count_macs(network: nn.Module, in_channels: int, size: int = 1024) -> int:
    """Count the multiply-adds of the convolutions in one forward pass over one size x size image.

    A deformable convolution counts as the ordinary one of its shape plus the one that gives its offsets; bilinear
    sampling, normalisation and activations are not counted, as is usual. Run it on a network built under
    ``torch.device("meta")`` and nothing is computed.
    """
    total = 0

    def add(layer: nn.Module, _: Any, out: Tensor) -> None:
        nonlocal total
        weight = layer.weight
        assert isinstance(weight, Tensor)
        total += out.numel() * math.prod(weight.shape[1:])  # weight: (C_out, C_in / groups, k, k)

    handles = [
        layer.register_forward_hook(add) for layer in network.modules() if isinstance(layer, nn.Conv2d | DeformConv3x3)
    ]
    device = next(network.parameters()).device
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.empty(1, in_channels, size, size, device=device))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return total
