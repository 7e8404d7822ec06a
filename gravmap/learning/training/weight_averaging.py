"""A running average of a network's weights over the steps: what is scored and kept, calmer than the last step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gravmap.learning.training.distributed import Group


class ExponentialMovingAverage:
    """The exponential moving average of weights and running statistics.

    After step n it keeps the share min(`share`, (n + 1) / (n + 10)) of what it was, so that early steps are soon
    forgotten.

    Parameters
    ----------
    network : nn.Module
        Whose weights are averaged; the average starts where it stands.
    share : float
        Kept of the average at each step, in the long run.

    References
    ----------
    Polyak and Juditsky (1992), doi:10.1137/0330046, for averaging.
    """

    def __init__(self, network: nn.Module, share: float) -> None:
        self._network, self._share = network, share
        self.state = {name: value.detach().clone() for name, value in network.state_dict().items()}

    def take(self, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        kept = min(self._share, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in self._network.state_dict().items():
                if value.is_floating_point():
                    self.state[name].lerp_(value, 1 - kept)
                else:
                    self.state[name].copy_(value)

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up the average that a run was left with.

        Raises
        ------
        KeyError
            It is the state of another network.
        """
        self.state = {name: state[name].detach().to(value.device, copy=True) for name, value in self.state.items()}

    @contextmanager
    def in_place(self, group: Group) -> Iterator[None]:
        """Let the network have the average until the block ends; statistics are the mean of all processes'."""
        own = {name: value.detach().clone() for name, value in self._network.state_dict().items()}
        self._network.load_state_dict(self.state)
        group.average_buffers(self._network)
        self.load(self._network.state_dict())
        try:
            yield
        finally:
            self._network.load_state_dict(own)
