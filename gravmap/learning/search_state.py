"""The state of an architecture search: supernet, optimisers, history, and how it is saved and taken up again."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gravmap.errors import InputError
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.sampling.augmentation import UNCHANGED
from gravmap.learning.sampling.sampler import Sampler
from gravmap.learning.training import schedule
from gravmap.learning.training.checkpoint import LAST, read_pair, under, versions, write_pair
from gravmap.learning.training.loss import class_counts, class_weights
from gravmap.learning.training.optimizer import optimiser_tensors, take_up_optimiser
from gravmap.search.config import SearchConfig
from gravmap.search.cost_table import CostTable
from gravmap.search.halves import split_in_halves, training_view
from gravmap.search.steps import TEACHING, WARM_UP, Batch, Terms, bootstrapped_terms, choose, teach_weights
from gravmap.search.supernet import Supernet

PRETRAIN, SEARCH = "pretrain", "search"

TOPK_WARMUP = 0.1
"""Over so much of a search the share of pixels that teach falls from all of them."""


class SearchState:
    """A search, and where it is.

    Parameters
    ----------
    area : RegionDataset
        Of it only fields and training cells are looked at.
    config : SearchConfig
        How to search.

    Attributes
    ----------
    epoch : int
        Epochs done, of both phases.
    history : list of dict
        One row an epoch.

    Raises
    ------
    InputError
        One half of the training ground holds nothing to learn.
    OptionError
        The branches are too short for a choice.
    """

    def __init__(self, area: RegionDataset, config: SearchConfig) -> None:
        self.config, self.device = config, torch.device(config.device)
        self.area = training_view(area)
        self.fingerprint = self.area.fingerprint()
        self.halves = split_in_halves(self.area, config.seed)
        self.inputs = InputChannels.fit(self.area, config.inputs)
        self.tile_size_px = config.tile_size_px or int(area.meta["tile_size_px"])
        self.teaching, self.choosing = (self._sampler(half) for half in (self.halves.weights, self.halves.choice))
        self.asked = self._sampler(self.halves.choice, unchanged=True)
        weight = class_weights(class_counts(self.area), config.class_weight)
        self.class_weight = torch.as_tensor(weight, dtype=torch.float32, device=self.device)
        torch.manual_seed(config.seed)
        self.supernet = Supernet(config.space, self.inputs.width, len(area.classes)).to(self.device)
        self.weights_optimiser = torch.optim.SGD(
            self.supernet.weight_parameters(),
            lr=config.pretrain_lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        self.choice_optimiser = torch.optim.Adam(
            self.supernet.architecture_parameters(), lr=config.architecture_lr, betas=config.architecture_betas
        )
        self.epoch = self.pretrained = 0
        self.warm = True
        self.history: list[dict[str, Any]] = []

    @property
    def phase(self) -> str:
        """The phase of the next epoch."""
        return PRETRAIN if self.warm else SEARCH

    @property
    def done(self) -> bool:
        """Whether all epochs are done."""
        return not self.warm and self.epoch - self.pretrained >= self.config.epochs

    def begin_epoch(self) -> None:
        """Set what an epoch starts with; random numbers inside the supernet depend on seed and epoch alone."""
        if self.warm and self.epoch >= self.config.pretrain_epochs:
            self.end_warm_up()
        self.supernet.train()
        seeds = np.random.SeedSequence((self.config.seed, self.epoch)).generate_state(1, np.uint64)
        torch.manual_seed(int(seeds[0] >> np.uint64(1)))

    def end_warm_up(self) -> None:
        """Let the second phase begin with the next epoch."""
        self.warm, self.pretrained = False, self.epoch

    def step(self, index: int, share: float) -> tuple[float, float | None]:
        """Take a step: one of the weights, after one of the architecture in the second phase.

        Parameters
        ----------
        index : int
            Number of the step in its epoch.
        share : float
            How much of the phase is done, from 0 to 1: the widths' temperature falls with it.

        Returns
        -------
        float, float or None
            Loss on the half that teaches, and on the one that chooses.
        """
        config = self.config
        age = self.epoch - self.pretrained
        rate = (config.pretrain_lr if self.warm else config.lr) * config.lr_decay**age
        for settings in self.weights_optimiser.param_groups:
            settings["lr"] = rate
        hot, cold = config.temperature
        self.supernet.temperature = hot if self.warm else hot + (cold - hot) * min(share, 1.0)
        terms = self.terms()
        chosen = None
        if not self.warm:
            batch = self._batch(self.choosing, index)
            chosen = choose(self.supernet, self.choice_optimiser, batch, terms, config.half, self._cost())
        taught = teach_weights(
            self.supernet,
            self.weights_optimiser,
            self._batch(self.teaching, index),
            WARM_UP if self.warm else TEACHING,
            terms,
            config.clip,
            config.half,
        )
        return taught, chosen

    def terms(self) -> Terms:
        """The loss of this epoch."""
        share = schedule.topk_share(self.epoch / self.config.epochs_in_all, self.config.topk_share, TOPK_WARMUP)
        return bootstrapped_terms(self.class_weight, share, self.config.small_weight)

    def end_epoch(self, losses: list[tuple[float, float | None]], seconds: float) -> None:
        """Write the epoch down."""
        chosen = [each for _, each in losses if each is not None]
        self.history.append(
            {
                "epoch": self.epoch + 1,
                "phase": self.phase,
                "lr": self.weights_optimiser.param_groups[0]["lr"],
                "temperature": self.supernet.temperature,
                "loss_weights": sum(each for each, _ in losses) / len(losses),
                "loss_choice": sum(chosen) / len(chosen) if chosen else None,
                **{f"entropy_{name}": value for name, value in self.supernet.entropies().items()},
                "seconds": round(seconds, 3),
            }
        )
        self.epoch += 1

    def save(self, run_dir: Path) -> None:
        """Write the full state."""
        tensors: dict[str, Tensor] = {f"supernet/{name}": each for name, each in self.supernet.state_dict().items()}
        for name, optimiser in (("weights", self.weights_optimiser), ("choice", self.choice_optimiser)):
            tensors |= {f"{name}/{key}": each for key, each in optimiser_tensors(optimiser).items()}
        record = {
            "search": json.loads(self.config.to_json()),
            "area_sha256": self.fingerprint,
            "inputs": self.inputs.names,
            "split": self.area.meta.get("split", {}),
            "epoch": self.epoch,
            "pretrained": self.pretrained,
            "warm": self.warm,
            "history": self.history,
            "versions": versions(),
        }
        write_pair(run_dir, LAST, tensors, record)

    def restore(self, run_dir: Path) -> None:
        """Take up the state that :meth:`save` wrote.

        Raises
        ------
        InputError
            There is none, or it is of another tile set, network or version.
        """
        tensors, record = read_pair(run_dir, LAST)
        if record.get("area_sha256") != self.fingerprint:
            raise InputError(
                f"The training ground is not the one that {run_dir.name} began with.",
                "Search anew under another --name, or bring the old tile set back.",
            )
        try:
            self.supernet.load_state_dict(under("supernet/", tensors))
            take_up_optimiser(self.weights_optimiser, under("weights/", tensors))
            take_up_optimiser(self.choice_optimiser, under("choice/", tensors))
            self.epoch, self.pretrained, self.warm = record["epoch"], record["pretrained"], record["warm"]
            self.history = record["history"]
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            wrote = record.get("versions", {}).get("gravmap", "another version")
            raise InputError(
                f"{run_dir / LAST}.safetensors, written by gravmap {wrote}, does not fit the supernet: "
                f"{str(error).splitlines()[0]}.",
                "Search anew under another --name.",
            ) from None

    def batches(self, sampler: Sampler, count: int) -> list[Batch]:
        """Batches that no step has seen, the same whenever they are asked for."""
        first = self.config.steps * self.config.batch_size
        return [
            sampler.batch(0, list(range(begin, begin + self.config.batch_size)))
            for begin in range(first, first + count * self.config.batch_size, self.config.batch_size)
        ]

    def _batch(self, sampler: Sampler, index: int) -> Batch:
        size = self.config.batch_size
        return sampler.batch(self.epoch, list(range(index * size, (index + 1) * size)))

    def _sampler(self, area: RegionDataset, unchanged: bool = False) -> Sampler:
        config = self.config
        try:
            return Sampler(
                area,
                self.inputs,
                self.tile_size_px,
                self.device,
                seed=config.seed,
                augmentation=UNCHANGED if unchanged else config.augmentation,
                even_scales=config.even_scales,
                scales_deg=config.scales_deg,
            )
        except InputError as error:
            raise InputError(
                f"One half of the training ground teaches nothing: {error.message}",
                "A search needs labelled windows in both halves: try another --window, --fold or --seed.",
            ) from None

    def _cost(self) -> Callable[[], Tensor] | None:
        """The weighted expected multiply-adds, as a share of the largest network's."""
        config = self.config
        if not config.flops_weight:
            return None
        return lambda: config.flops_weight * self.supernet.expected_macs(self._crop_px) / self._largest_macs

    @functools.cached_property
    def _largest_macs(self) -> int:
        """Of the widest network of the dearest operator, whose branches part at once."""
        space = self.supernet.space
        ops, chis = [["conv2"] * space.depth] * 3, [[space.chis[-1]] * space.depth] * 3
        largest = space.architecture(((), (0,), (0, 1)), ops, chis)
        return CostTable(space, self.inputs.width, len(self.area.classes), self._crop_px).macs(largest)

    @property
    def _crop_px(self) -> int:
        return self.tile_size_px // 2
