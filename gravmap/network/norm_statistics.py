"""What batch normalisations have seen: taken anew over a few batches, or left alone for a step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gravmap.errors import OptionError


def average_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Forget what the normalisations have seen, and take the plain mean over these batches.

    Parameters
    ----------
    network : nn.Module
        Its weights stay; it is left in training or evaluation mode as it was.
    batches : iterable of Tensor
        Inputs of the network, on its device.

    Raises
    ------
    OptionError
        There is no batch.
    """
    norms = _norms(network)
    before = [norm.momentum for norm in norms]
    training = network.training
    seen = 0
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean, not one that fades
        network.train()
        with torch.no_grad():
            for batch in batches:
                network(batch)
                seen += 1
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
        network.train(training)
    if not seen:
        raise OptionError("Statistics cannot be taken over no batch at all.", "Give one batch or more.")


@contextmanager
def statistics_untouched(network: nn.Module) -> Iterator[None]:
    """Within it a network that trains normalises by its batch, and what it has seen before stays bit for bit."""
    norms = [norm for norm in _norms(network) if norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
