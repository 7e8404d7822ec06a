"""Exponential moving average (EMA) of a network's weights: what is scored and kept, smoother than the last step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gravmap.learning.training.distributed import Group


class ExponentialMovingAverage:
    """Exponential moving average of weights and running statistics.

    At step n the decay is min(`decay`, (n + 1) / (n + 10)), so that the first steps are soon forgotten.

    Parameters
    ----------
    network : nn.Module
        The network to average; the average starts at its weights.
    decay : float
        Fraction of the average that each step keeps, in the long run.

    Attributes
    ----------
    state : dict of str to Tensor
        The average, with the keys of the network's state dict.

    References
    ----------
    Polyak and Juditsky (1992), doi:10.1137/0330046, for averaging.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network, self._decay = network, decay
        self.state = {name: value.detach().clone() for name, value in network.state_dict().items()}

    def update(self, step: int) -> None:
        """Add the weights after a step, counted from 1."""
        decay = min(self._decay, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in self._network.state_dict().items():
                if value.is_floating_point():
                    self.state[name].lerp_(value, 1 - decay)
                else:
                    self.state[name].copy_(value)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Replace the average.

        Raises
        ------
        KeyError
            The state is that of another network.
        """
        self.state = {name: state[name].detach().to(value.device, copy=True) for name, value in self.state.items()}

    @contextmanager
    def applied(self, group: Group) -> Iterator[None]:
        """Put the average into the network until the block ends; statistics are averaged over the processes."""
        own = {name: value.detach().clone() for name, value in self._network.state_dict().items()}
        self._network.load_state_dict(self.state)
        group.average_buffers(self._network)
        self.load_state_dict(self._network.state_dict())
        try:
            yield
        finally:
            self._network.load_state_dict(own)
