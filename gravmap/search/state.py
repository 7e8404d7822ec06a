"""State of an architecture search: supernet, optimizers, history, and saving and resuming."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import TypedDict

from gravmap.errors import InputError, OptionError, out_of_memory
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.sampling.augmentation import UNCHANGED
from gravmap.learning.sampling.sampler import Sampler
from gravmap.learning.training import schedule
from gravmap.learning.training.checkpoint import LAST, read_pair, refuse_not_finite, under, versions, write_pair
from gravmap.learning.training.distributed import Group
from gravmap.learning.training.gradient_accumulation import GradientSum, crops_per_process
from gravmap.learning.training.loss import class_counts, class_weights
from gravmap.learning.training.optimizer import load_optimizer_tensors, optimizer_tensors
from gravmap.network.precision import choose_precision
from gravmap.records import Count, check_record, record
from gravmap.search.config import SearchConfig
from gravmap.search.cost_table import CostTable
from gravmap.search.data_split import split_for_search, without_held_out_labels
from gravmap.search.steps import (
    PRETRAIN_WIDTHS,
    SEARCH_WIDTHS,
    Batch,
    Terms,
    architecture_step,
    ohem_loss,
    weight_step,
)
from gravmap.search.supernet import Supernet

PRETRAIN, SEARCH = "pretrain", "search"

OHEM_WARMUP_FRACTION = 0.1
"""In this fraction of a search the OHEM keep fraction decreases from 1."""


@record
class SearchCheckpoint(TypedDict):
    """Content of a search's ``last.json``."""

    area_sha256: str
    epoch: Count
    pretrained: Count
    warm: bool
    history: list[dict[str, float | str | None]]
    versions: NotRequired[dict[str, str]]


class SearchState:
    """State of a search.

    Parameters
    ----------
    dataset : RegionDataset
        Only fields and training cells are used.
    config : SearchConfig
        Configuration of the search.
    group : Group, optional
        Processes that search together; by default a single process on `config.device`.

    Attributes
    ----------
    precision : str
        Precision of the supernet, "float32" or "bfloat16".
    epoch : int
        Finished epochs of both phases.
    history : list of dict
        One row per epoch.

    Raises
    ------
    InputError
        One half of the training data has no usable window.
    OptionError
        The depth is too small, or the batch cannot be divided among the processes.
    """

    def __init__(self, dataset: RegionDataset, config: SearchConfig, group: Group | None = None) -> None:
        self.group = group or Group(device=torch.device(config.device))
        self.device = self.group.device
        self.local_batch = local_batch(config, self.group)
        self.config, self.precision = config, choose_precision(config.precision, self.device)
        self.dataset = without_held_out_labels(dataset)
        self.fingerprint = self.dataset.fingerprint()
        self.split = split_for_search(self.dataset, config.seed)
        self.inputs = InputChannels.fit(self.dataset, config.inputs)
        self.tile_size_px = config.tile_size_px or int(dataset.meta["tile_size_px"])
        self.weights_sampler, self.architecture_sampler = (
            self._sampler(part) for part in (self.split.weights, self.split.architecture)
        )
        self.scoring_sampler = self._sampler(self.split.architecture, unchanged=True)
        weight = class_weights(class_counts(self.dataset), config.class_weight)
        self.class_weight = torch.as_tensor(weight, dtype=torch.float32, device=self.device)
        torch.manual_seed(config.seed)
        self.supernet = Supernet(config.space, self.inputs.width, len(dataset.classes)).to(self.device)
        if self.group.synchronises_batch_norm:
            nn.SyncBatchNorm.convert_sync_batchnorm(self.supernet)  # type: ignore[no-untyped-call]
        self.weights_optimizer = torch.optim.SGD(
            self.supernet.weight_parameters(),
            lr=config.pretrain_lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        self.architecture_optimizer = torch.optim.Adam(
            self.supernet.architecture_parameters(), lr=config.architecture_lr, betas=config.architecture_betas
        )
        # The other parameters have no gradient in some passes, those of a width that is not sampled for example: their
        # buckets come last, or the sum of all others would wait for the end of the pass.
        weights = sorted(self.supernet.weight_parameters(), key=lambda each: each.dim() == 4 and each.shape[-1] > 1)
        self.weight_gradients = GradientSum(weights, self.group)
        self.architecture_gradients = GradientSum(self.supernet.architecture_parameters(), self.group)
        self.epoch = self.pretrain_epochs_done = 0
        self.pretraining = True
        self.history: list[dict[str, Any]] = []

    @property
    def phase(self) -> str:
        """Phase of the next epoch."""
        return PRETRAIN if self.pretraining else SEARCH

    @property
    def done(self) -> bool:
        """Whether all epochs are finished."""
        return not self.pretraining and self.epoch - self.pretrain_epochs_done >= self.config.epochs

    def start_epoch(self) -> None:
        """Prepare an epoch; random numbers inside the supernet depend on seed and epoch only."""
        if self.pretraining and self.epoch >= self.config.pretrain_epochs:
            self.end_pretraining()
        self.supernet.train()
        seeds = np.random.SeedSequence((self.config.seed, self.epoch)).generate_state(1, np.uint64)
        torch.manual_seed(int(seeds[0] >> np.uint64(1)))

    def end_pretraining(self) -> None:
        """Start the second phase with the next epoch."""
        self.pretraining, self.pretrain_epochs_done = False, self.epoch

    def step(self, index: int, fraction: float) -> tuple[float, float | None]:
        """Take a step of the weights; in the second phase, after a step of the architecture parameters.

        Parameters
        ----------
        index : int
            Number of the step in its epoch.
        fraction : float
            Finished fraction of the phase, from 0 to 1; the temperature of the widths decreases with it.

        Returns
        -------
        float, float or None
            Loss of the weight step, and of the architecture step.
        """
        config = self.config
        epoch_of_phase = self.epoch - self.pretrain_epochs_done
        rate = (config.pretrain_lr if self.pretraining else config.lr) * config.lr_decay**epoch_of_phase
        for settings in self.weights_optimizer.param_groups:
            settings["lr"] = rate
        initial, final = config.temperature
        self.supernet.temperature = initial if self.pretraining else initial + (final - initial) * min(fraction, 1.0)
        terms = self.terms()
        architecture_loss = None
        if not self.pretraining:
            batch = self._batch(self.architecture_sampler, index)
            architecture_loss = architecture_step(
                self.supernet,
                self.architecture_optimizer,
                batch,
                terms,
                self.precision,
                self.architecture_gradients,
                self.group,
                self._cost(),
            )
        weights_loss = weight_step(
            self.supernet,
            self.weights_optimizer,
            self._batch(self.weights_sampler, index),
            PRETRAIN_WIDTHS if self.pretraining else SEARCH_WIDTHS,
            terms,
            config.clip,
            self.precision,
            self.weight_gradients,
            self.group,
        )
        return weights_loss, architecture_loss

    def terms(self) -> Terms:
        """Loss function of this epoch."""
        fraction = schedule.ohem_keep_fraction(
            self.epoch / self.config.total_epochs, self.config.topk_share, OHEM_WARMUP_FRACTION
        )
        return ohem_loss(self.class_weight, fraction, self.config.small_weight)

    def end_epoch(self, losses: list[tuple[float, float | None]], seconds: float) -> None:
        """Append the epoch to the history; average the running statistics over the processes."""
        self.group.average_buffers(self.supernet)
        architecture_losses = [each for _, each in losses if each is not None]
        self.history.append(
            {
                "epoch": self.epoch + 1,
                "phase": self.phase,
                "lr": self.weights_optimizer.param_groups[0]["lr"],
                "temperature": self.supernet.temperature,
                "loss_weights": sum(each for each, _ in losses) / len(losses),
                "loss_choice": sum(architecture_losses) / len(architecture_losses) if architecture_losses else None,
                **{f"entropy_{name}": value for name, value in self.supernet.entropies().items()},
                "seconds": round(seconds, 3),
            }
        )
        self.epoch += 1

    def save(self, run_dir: Path) -> None:
        """Write the full state."""
        tensors: dict[str, Tensor] = {f"supernet/{name}": each for name, each in self.supernet.state_dict().items()}
        for name, optimizer in (("weights", self.weights_optimizer), ("choice", self.architecture_optimizer)):
            tensors |= {f"{name}/{key}": each for key, each in optimizer_tensors(optimizer).items()}
        record = {
            "search": json.loads(self.config.to_json()),
            "area_sha256": self.fingerprint,
            "inputs": self.inputs.names,
            "split": self.dataset.meta.get("split", {}),
            "epoch": self.epoch,
            "pretrained": self.pretrain_epochs_done,
            "warm": self.pretraining,
            "history": self.history,
            "versions": versions(),
        }
        write_pair(run_dir, LAST, tensors, record)

    def restore(self, run_dir: Path) -> None:
        """Restore the state written by :meth:`save`.

        Raises
        ------
        InputError
            There is none, or it belongs to another tile set, network or version.
        """
        tensors, stored = read_pair(run_dir, LAST)
        hint = "Start a new search with another --name."
        record = check_record(stored, SearchCheckpoint, str(run_dir / f"{LAST}.json"), hint)
        refuse_not_finite(tensors, run_dir / f"{LAST}.safetensors")
        if record.get("area_sha256") != self.fingerprint:
            raise InputError(
                f"The training data differ from those that {run_dir.name} was started with.",
                "Start a new search with another --name, or restore the old tile set.",
            )
        try:
            self.supernet.load_state_dict(under("supernet/", tensors))
            load_optimizer_tensors(self.weights_optimizer, under("weights/", tensors))
            load_optimizer_tensors(self.architecture_optimizer, under("choice/", tensors))
            self.epoch, self.pretrain_epochs_done, self.pretraining = (
                record["epoch"],
                record["pretrained"],
                record["warm"],
            )
            self.history = [{**row} for row in record["history"]]
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            if out_of_memory(error) is not None:
                raise
            wrote = record.get("versions", {}).get("gravmap", "another version")
            raise InputError(
                f"{run_dir / LAST}.safetensors, written by gravmap {wrote}, does not fit the supernet: "
                f"{str(error).splitlines()[0]}.",
                "Start a new search with another --name.",
            ) from None

    def batches(self, sampler: Sampler, count: int) -> list[Batch]:
        """Batches that no step uses; the same at every call."""
        first = self.config.steps * self.config.batch_size
        return [
            sampler.batch(0, list(range(start, start + self.config.batch_size)))
            for start in range(first, first + count * self.config.batch_size, self.config.batch_size)
        ]

    def _batch(self, sampler: Sampler, index: int) -> Batch:
        """Return the part of a batch that is this process's."""
        first = index * self.config.batch_size + self.group.rank * self.local_batch
        return sampler.batch(self.epoch, list(range(first, first + self.local_batch)))

    def _sampler(self, dataset: RegionDataset, unchanged: bool = False) -> Sampler:
        config = self.config
        try:
            return Sampler(
                dataset,
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
                f"One half of the training data has no usable window: {error.message}",
                "A search needs labelled windows in both halves: try another --window, --fold or --seed.",
            ) from None

    def _cost(self) -> Callable[[], Tensor] | None:
        """Weighted expected multiply-adds, as a fraction of the largest network's."""
        config = self.config
        if not config.flops_weight:
            return None
        return lambda: config.flops_weight * self.supernet.expected_macs(self._crop_px) / self._largest_macs

    @functools.cached_property
    def _largest_macs(self) -> int:
        """Multiply-adds of `conv2` cells at the largest width, on branches that go down in their first cells."""
        space = self.supernet.space
        ops, chis = [["conv2"] * space.depth] * 3, [[space.chis[-1]] * space.depth] * 3
        largest = space.architecture(((), (0,), (0, 1)), ops, chis)
        return CostTable(space, self.inputs.width, len(self.dataset.classes), self._crop_px).macs(largest)

    @property
    def _crop_px(self) -> int:
        return self.tile_size_px // 2


def local_batch(config: SearchConfig, group: Group) -> int:
    """Crops of a batch that each process takes.

    Raises
    ------
    OptionError
        The batch cannot be divided among the processes, or leaves one crop for each of several CPU processes.
    """
    crops = crops_per_process(config.batch_size, group.size)
    if crops < 2 and not group.synchronises_batch_norm:
        raise OptionError(
            f"A batch of {config.batch_size} crops leaves one for each of {group.size} CPU processes, which has no "
            "variance for batch normalisation.",
            f"Choose a --batch-size of at least {2 * group.size}.",
        )
    return crops
