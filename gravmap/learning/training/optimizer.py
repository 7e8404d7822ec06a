"""The optimizer of a run, its learning rate, and the switch from Adam to SGD.

Liu et al. 2024 switch optimizers by hand when the loss flattens, following Keskar and Socher (2017, arXiv:1712.07628).
Here the switch depends on the training loss of all processes, after whole epochs only, so that every process switches
at the same step, and so does a resumed run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gravmap.learning.training.config import TrainConfig
from gravmap.learning.training.schedule import cosine_rate, plateaued, sgd_rate, switch_epoch

ADAM, SGD = "adam", "sgd"


class OptimizerSchedule:
    """Adam, then SGD if the configuration says so.

    Parameters
    ----------
    network : nn.Module
        Its parameters are optimized.
    config : TrainConfig
        Learning rates and switch.
    steps : int
        Steps per epoch.

    Attributes
    ----------
    name : str
        "adam" or "sgd".
    first_epoch : int
        Epochs that were completed when this optimizer took over.
    optimizer : torch.optim.Optimizer
        The current optimizer.
    """

    def __init__(self, network: nn.Module, config: TrainConfig, steps: int) -> None:
        self.network, self.config, self.steps = network, config, steps
        self.name, self.first_epoch = ADAM, 0
        self.optimizer = self._make(ADAM)

    @property
    def learning_rate(self) -> float:
        """Current learning rate."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    def set_learning_rate(self, progress: float, epoch: int, index: int) -> None:
        """Set the learning rate of a step.

        Parameters
        ----------
        progress : float
            Position in the run, from 0 to 1.
        epoch, index : int
            Epochs completed, and steps completed in this one.
        """
        config = self.config
        if config.schedule == "cosine":
            rate = cosine_rate(progress, config.lr)
        elif self.name == ADAM:
            rate = config.lr
        else:
            rate = sgd_rate(
                epoch - self.first_epoch + index / self.steps,
                config.lr,
                warmup_epochs=config.sgd_warmup_epochs,
                warmup_from=config.sgd_warmup_from,
                milestones=config.sgd_milestones,
                decay=config.sgd_decay,
                floor=config.lr_floor,
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def switch_is_due(self, losses: list[float]) -> bool:
        """Return whether SGD takes over now, given the training loss of every epoch completed."""
        config, epochs = self.config, len(losses)
        if config.schedule != "adam-sgd" or self.name == SGD:
            return False
        fixed = switch_epoch(config.switch)
        if fixed is not None:
            return epochs >= fixed
        # While the OHEM keep fraction falls, the loss rises: that is not a plateau.
        comparable = losses[math.ceil(config.topk_warmup * config.epochs) :]
        flat = plateaued(
            comparable, smoothing=config.switch_smoothing, window=config.switch_window, gain=config.switch_gain
        )
        return epochs >= config.switch_by or (epochs >= config.switch_from and flat)

    def switch_to_sgd(self, epoch: int) -> None:
        """Replace Adam by SGD after `epoch` epochs."""
        self.name, self.first_epoch = SGD, epoch
        self.optimizer = self._make(SGD)

    def tensors(self) -> dict[str, Tensor]:
        """Return the optimizer's state, see :func:`optimizer_tensors`."""
        return optimizer_tensors(self.optimizer)

    def record(self) -> dict[str, Any]:
        """Return the name of the optimizer and when it took over."""
        return {"phase": self.name, "phase_began": self.first_epoch}

    def load(self, tensors: dict[str, Tensor], record: Mapping[str, Any]) -> None:
        """Load what :meth:`tensors` and :meth:`record` returned.

        Raises
        ------
        ValueError, KeyError
            The state is that of another network.
        """
        if record["phase"] == SGD:
            self.switch_to_sgd(int(record["phase_began"]))
        load_optimizer_tensors(self.optimizer, tensors)

    def _make(self, name: str) -> torch.optim.Optimizer:
        parameters, config = self.network.parameters(), self.config
        if name == ADAM:
            return torch.optim.Adam(parameters, lr=config.lr)
        return torch.optim.SGD(
            parameters, lr=config.lr, momentum=config.sgd_momentum, weight_decay=config.sgd_weight_decay
        )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's state per parameter as flat names: ``NUMBER/KEY``."""
    return {
        f"{index}/{key}": value
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
        if value is not None  # SGD without momentum keeps a None
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load what :func:`optimizer_tensors` returned; the hyperparameters stay as they are.

    Raises
    ------
    ValueError, KeyError
        The state is that of another network.
    """
    state = optimizer.state_dict()
    state["state"] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition("/")
        state["state"].setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(state)
