"""The optimiser of a run, its rate, and its change from Adam to SGD.

Liu et al. 2024 change optimisers by hand when the loss flattens, after an idea of Keskar and Socher (2017,
arXiv:1712.07628). Here the training loss of all processes together decides, after whole epochs only, so that
every process changes at the same step and a resumed run where the unbroken one did.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gravmap.learning.training.config import TrainConfig
from gravmap.learning.training.schedule import cosine_rate, plateaued, sgd_rate, switch_epoch

ADAM, SGD = "adam", "sgd"


class OptimizerSchedule:
    """Adam, then perhaps SGD.

    Parameters
    ----------
    network : nn.Module
        Whose parameters are taught.
    config : TrainConfig
        Schedule and switch.
    steps : int
        Steps per epoch.

    Attributes
    ----------
    name : str
        "adam" or "sgd".
    began : int
        Epochs that were done when this phase began.
    optimiser : torch.optim.Optimizer
        Of this phase.
    """

    def __init__(self, network: nn.Module, config: TrainConfig, steps: int) -> None:
        self.network, self.config, self.steps = network, config, steps
        self.name, self.began = ADAM, 0
        self.optimiser = self._make(ADAM)

    def set_rate(self, progress: float, epoch: int, index: int) -> None:
        """Set the rate of a step.

        Parameters
        ----------
        progress : float
            Of the run, from 0 to 1.
        epoch, index : int
            Epochs done, and steps done of this one.
        """
        config = self.config
        if config.schedule == "cosine":
            rate = cosine_rate(progress, config.lr)
        elif self.name == ADAM:
            rate = config.lr
        else:
            rate = sgd_rate(
                epoch - self.began + index / self.steps,
                config.lr,
                warmup_epochs=config.sgd_warmup_epochs,
                warmup_from=config.sgd_warmup_from,
                milestones=config.sgd_milestones,
                decay=config.sgd_decay,
                floor=config.lr_floor,
            )
        for settings in self.optimiser.param_groups:
            settings["lr"] = rate

    def due(self, losses: list[float]) -> bool:
        """Whether SGD is to take over, given the training losses of all epochs done."""
        config, done = self.config, len(losses)
        if config.schedule != "adam-sgd" or self.name == SGD:
            return False
        told = switch_epoch(config.switch)
        if told is not None:
            return done >= told
        # While the share of pixels that teach falls, the loss rises: no sign of a plateau.
        alike = losses[math.ceil(config.topk_warmup * config.epochs) :]
        flat = plateaued(alike, smoothing=config.switch_smoothing, window=config.switch_window, gain=config.switch_gain)
        return done >= config.switch_by or (done >= config.switch_from and flat)

    def switch(self, epoch: int) -> None:
        """Let SGD take over after `epoch` epochs."""
        self.name, self.began = SGD, epoch
        self.optimiser = self._make(SGD)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors of the optimiser, by name, and which one it is since when."""
        return optimiser_tensors(self.optimiser), {"phase": self.name, "phase_began": self.began}

    def restore(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Take up what :meth:`state` gave.

        Raises
        ------
        ValueError, KeyError
            It is the state of another network.
        """
        if record["phase"] == SGD:
            self.switch(int(record["phase_began"]))
        take_up_optimiser(self.optimiser, tensors)

    def _make(self, name: str) -> torch.optim.Optimizer:
        parameters, config = self.network.parameters(), self.config
        if name == ADAM:
            return torch.optim.Adam(parameters, lr=config.lr)
        return torch.optim.SGD(
            parameters, lr=config.lr, momentum=config.sgd_momentum, weight_decay=config.sgd_weight_decay
        )


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers of each parameter, by name: ``NUMBER/KEY``."""
    return dict(_named(optimiser.state_dict()["state"]))


def take_up_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimiser back what :func:`optimiser_tensors` took from it; its settings stay.

    Raises
    ------
    ValueError, KeyError
        It is the memory of another network's.
    """
    state = optimiser.state_dict()
    state["state"] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition("/")
        state["state"].setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict(state)


def _named(state: dict[int, dict[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    for index, held in state.items():
        for key, value in held.items():
            # SGD without momentum keeps a None.
            if value is not None:
                yield f"{index}/{key}", value
