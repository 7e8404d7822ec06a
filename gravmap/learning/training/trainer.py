"""The training loop."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gravmap.errors import GravmapError
from gravmap.files import write_text
from gravmap.learning.data.dataset import IGNORE, RegionDataset
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.evaluation import metrics
from gravmap.learning.sampling.sampler import Sampler
from gravmap.learning.training.checkpoint import save_model, write_pair
from gravmap.learning.training.config import TrainConfig
from gravmap.learning.training.curves import TensorBoardWriter, history_csv
from gravmap.learning.training.distributed import Group
from gravmap.learning.training.gradient_accumulation import GradientAccumulation, StepResult
from gravmap.learning.training.loss import class_weights, make_criterion, pinball_km
from gravmap.learning.training.schedule import ohem_keep_fraction
from gravmap.learning.training.scorer import Scorer
from gravmap.learning.training.setup import TrainingData, compile_network, make_network
from gravmap.learning.training.state import (
    Clock,
    EpochTotals,
    TrainingCost,
    TrainingState,
    load_checkpoint,
    save_checkpoint,
)
from gravmap.learning.training.warm_start import load_weights
from gravmap.network.outcrop_start import AllOutputs
from gravmap.network.precision import autocast, choose_precision, set_scoring_precision
from gravmap.progress import Progress, silent
from gravmap.records import PretrainedRecord

log = logging.getLogger(__name__)

SCORES = ("loss", "pa", "mpa", "miou", "fwiou")
ACCURACY_PX = 256
"""Training accuracy is counted on at most about so many pixels a side."""

QUICK_S = 2.0
"""A micro-batch faster than this is measured twice, because the first one is slower."""


class NonFiniteLoss(GravmapError):
    """Loss or gradient is infinite or not a number."""


class Trainer:
    """Trains a network; test blocks are not used.

    Parameters
    ----------
    data, run_dir, config, group
        As in :func:`gravmap.learning.train`.

    Attributes
    ----------
    data : TrainingData
        Datasets and input channels.
    sampler : Sampler
        Cuts training crops.
    network : nn.Module
        The network.
    state : TrainingState
        Optimizer, weight average, epoch and history: what a checkpoint holds.
    accumulation : GradientAccumulation
        Divides batches into micro-batches.
    criterion : callable
        The loss.
    scorer : Scorer
        Scores the network on the tuning blocks.
    steps_per_epoch : int
        Optimizer steps per epoch.
    precision : str
        Precision of the network in training, "float32" or "bfloat16".
    thickness_weight : float
        Weight of the loss of the thickness of the cover; 0 if the network has no such output.
    """

    def __init__(
        self,
        data: RegionDataset | DatasetSplits,
        run_dir: Path,
        config: TrainConfig,
        group: Group,
    ) -> None:
        splits = DatasetSplits.of(data)
        self.config = config = replace(config, from_tiles=splits.tiles is not None)
        self.precision = choose_precision(config.precision, group.device)
        self.run_dir, self.group = run_dir, group
        self.data = TrainingData.prepare(splits, config)
        self.sampler = Sampler(
            self.data.splits,
            self.data.inputs,
            self.data.tile_size_px,
            group.device,
            seed=config.seed,
            augmentation=config.augmentation,
            even_scales=config.even_scales,
            scales_deg=config.scales_deg,
        )
        self.steps_per_epoch = config.steps or math.ceil(self.sampler.window_count / config.batch_size)
        weights = class_weights(self.data.class_cells, config.class_weight)
        class_weight = torch.as_tensor(weights, dtype=torch.float32, device=group.device)
        self.criterion = make_criterion(class_weight, topk_base=config.topk_base, small_weight=config.small_weight)
        torch.manual_seed(config.seed)
        self.thickness_weight = self.data.thickness_weight(config)
        self.network = make_network(
            self.data.inputs, config, self.data.class_cells, thickness=self.thickness_weight > 0
        ).to(group.device)
        set_scoring_precision(self.network, self.precision, group.device)
        self.state = TrainingState(self.network, config, self.steps_per_epoch)
        self.totals = EpochTotals(len(weights), group.device)
        self.scorer = Scorer(self.network, self.data, self.criterion, config.topk_share, group)
        self.accumulation = GradientAccumulation(self.network, config, group, self.sampler.crop_px)
        self._forward: Callable[[Tensor], Tensor] = self._prepare_forward()
        self._tensorboard: TensorBoardWriter | None = None

    def fit(self, progress: Progress = silent, *, resume: bool = False, cost: TrainingCost | None = None) -> Clock:
        """Train until the last epoch, the early-stopping patience or the time limit.

        Parameters
        ----------
        progress, resume, cost
            As in :func:`gravmap.learning.train`.

        Returns
        -------
        Clock
            With the work done and the time it took.

        Raises
        ------
        InputError, OptionError, NonFiniteLoss, DeviceError
            As in :func:`gravmap.learning.train`.
        """
        config, state = self.config, self.state
        if self.data.unlabelled_classes and self.group.rank == 0:
            log.warning(
                "No training label of: %s. The network cannot learn these.", ", ".join(self.data.unlabelled_classes)
            )
        if self._statistics_differ() and self.group.rank == 0:
            log.warning(
                "Each of the %d CPU processes normalises its own crops (batch normalisation is synchronised on GPUs "
                "only), so the network is not the one that another number of processes would train.",
                self.group.size,
            )
        if resume:
            load_checkpoint(self.run_dir, state, self.data, config, self.accumulation)
        elif config.init is not None:
            self._load_pretrained(config.init)
        if cost is None and config.time_limit_s is not None:
            cost = self.measure_cost()
        if cost is not None:
            cost.check_time_limit(config.time_limit_s)
            self.scorer.window_s = cost.window_s
        clock = Clock(config, state, self.steps_per_epoch, self.scorer, cost)
        progress(*clock.report("first step"))
        while state.epoch < config.epochs and not state.stops_early(config):
            epoch_start = time.monotonic()
            self.start_epoch()
            for index in range(self.steps_per_epoch):
                self.group.at(f"epoch {state.epoch + 1}, step {index + 1}", step=True)
                result = self.train_step(index, clock.elapsed_s)
                clock.advance(result.elapsed_s)
                progress(*clock.report(f"epoch {state.epoch + 1}/{config.epochs} {self.status_line()}"))
                out_of_time = clock.is_up(index)
                if out_of_time:
                    break
            self.group.at(f"the scores of epoch {state.epoch + 1}")
            self.end_epoch(
                epoch_start,
                score=out_of_time or clock.evaluates(state.epoch),
                progress=lambda done, total, note="": progress(*clock.report_score(done, total, note)),
            )
            clock.start_epoch(self.group.broadcast(clock.elapsed_s()))
            if out_of_time:
                log.info("The time limit is reached after %d epochs.", state.epoch)
                break
        self.group.at("the final evaluation")
        return clock

    def measure_cost(self) -> TrainingCost:
        """Measure the time of a step and of the scores, on a micro-batch and a window; the network stays as it is."""
        start = time.monotonic()
        self.start_epoch()
        attempt = functools.partial(
            self.accumulation.find_micro_batch, functools.partial(self.backward, 0, self.config.topk_share)
        )
        batch_s = self._seconds(attempt)
        # The first one also allocates memory, and compiles.
        if self.group.broadcast(batch_s < QUICK_S or self.config.compile or self.group.device.type == "cuda"):
            batch_s = self._seconds(attempt)
        self.scorer.measure()
        step_s, measuring_s = self.group.broadcast((batch_s * self.accumulation.steps, time.monotonic() - start))
        return TrainingCost(
            step_s,
            self.steps_per_epoch,
            self.scorer.window_s,
            self.scorer.score_s,
            self.scorer.final_s,
            self.data.tile_size_px,
            measuring_s,
            crops=self.accumulation.local_batch,
        )

    def _seconds(self, function: Callable[[], None]) -> float:
        start = time.monotonic()
        function()
        if self.group.device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic() - start

    def train_step(self, index: int, elapsed_s: Callable[[], float] = time.monotonic) -> StepResult:
        """Take one optimizer step.

        The gradient is that of sum(numerators) / sum(denominators) of the loss over all micro-batches and processes.

        Parameters
        ----------
        index : int
            Number of the step in the epoch.
        elapsed_s : callable
            Returns the seconds on the clock of this process.

        Raises
        ------
        NonFiniteLoss
            Loss or gradient is infinite or not a number.
        """
        config, state, accumulation = self.config, self.state, self.accumulation
        state.schedule.set_learning_rate(state.progress, state.epoch, index)
        optimizer = state.schedule.optimizer
        keep_fraction = ohem_keep_fraction(state.progress, config.topk_share, config.topk_warmup)
        backward = functools.partial(self.backward, state.epoch, keep_fraction)

        result = None
        while result is None:  # out of memory: again with smaller micro-batches
            optimizer.zero_grad(set_to_none=True)
            result = accumulation.run(backward, index, elapsed_s)
        self._require_finite("loss", result.loss, index)
        if result.weight:
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.clip or math.inf)
            self._require_finite("gradient", float(norm), index)
            optimizer.step()

        state.step += 1
        if state.average is not None:
            state.average.update(state.step)
        self.totals.add(result)
        return result

    def backward(self, epoch: int, keep_fraction: float, samples: list[int]) -> tuple[Tensor, Tensor]:
        """Run forward and backward on a micro-batch; gradients accumulate in the parameters.

        Returns numerator and denominator of the loss, and the confusion matrix.
        """
        classes = len(self.data.classes)
        inputs, target, small = self.sampler.batch(epoch, samples)
        if self.config.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with autocast(self.precision, self.group.device):
            outputs = self._forward(inputs)
        logits, added = outputs, None
        if self.thickness_weight:
            logits, quantiles_km = torch.split(outputs, [classes, outputs.shape[1] - classes], dim=1)
            logits = logits.contiguous(memory_format=torch.channels_last)  # else its argmax is slow
            cover_km = self.sampler.cover_km(epoch, samples)
            added = self.thickness_weight * pinball_km(quantiles_km, cover_km)
        loss, weight = self.criterion(logits, target, small, topk_share=keep_fraction, added=added)
        loss.backward()  # type: ignore[no-untyped-call]
        return torch.stack((loss.detach(), weight)).double(), _confusion(logits.detach(), target, classes)

    def start_epoch(self) -> None:
        """Reset the totals; seed the random numbers of the network (dropout) by epoch and process alone."""
        self.network.train()
        if self.config.freeze_statistics:
            for layer in self.network.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()
        seeds = np.random.SeedSequence((self.config.seed, self.state.epoch, self.group.rank))
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        self.totals = EpochTotals(len(self.data.classes), self.group.device)

    def end_epoch(self, epoch_start: float, *, score: bool, progress: Progress = silent) -> None:
        """Score the tuning blocks, keep the best weights, switch the optimizer if due, and write the checkpoint."""
        state, schedule = self.state, self.state.schedule
        state.epoch += 1
        self.group.average_buffers(self.network)
        confusion = self.group.sum(self.totals.confusion).cpu().numpy()
        row: dict[str, Any] = {
            "epoch": state.epoch,
            "phase": schedule.name,
            "lr": schedule.learning_rate,
            "loss": self.totals.loss,
            "train_fwiou": metrics.scores(confusion)["fwiou"],
            **{f"tune_{name}": None for name in SCORES},
        }
        # The moving average, if there is one, is what is scored and kept.
        with state.average.applied(self.group) if state.average else contextlib.nullcontext():
            if score:
                scores = self.scorer.score_tuning_blocks(progress)
                row |= {f"tune_{name}": scores[name] for name in SCORES}
                if state.is_best(scores) and self.group.rank == 0:
                    architecture: Any = self.network.architecture
                    spec = self.data.model_spec(self.config, architecture.to_dict(), {"tune": scores})
                    save_model(self.run_dir, self.network, spec)
        row["seconds"] = round(time.monotonic() - epoch_start, 3)
        state.history.append(row)
        if self.group.broadcast(schedule.switch_is_due([each["loss"] for each in state.history])):
            schedule.switch_to_sgd(state.epoch)
            log.info("Switched from Adam to SGD after %d epochs.", state.epoch)
        if self.group.rank == 0:
            save_checkpoint(self.run_dir, state, self.data, self.config, self.group, self.accumulation)
            write_text(self.run_dir / "metrics.csv", history_csv(state.history))
            if self.config.tensorboard:
                self._tensorboard = self._tensorboard or TensorBoardWriter(self.run_dir, state.epoch)
                self._tensorboard.write(row)

    def status_line(self) -> str:
        """Return the mean loss of this epoch so far and the latest score."""
        scored = [row["tune_fwiou"] for row in self.state.history if row["tune_fwiou"] is not None]
        return f"loss {self.totals.loss:.3f}" + (f", FWIoU {scored[-1]:.3f}" if scored else "")

    def _prepare_forward(self) -> Callable[[Tensor], Tensor]:
        """Set memory format, synchronised batch normalisation and compilation; return what runs the network."""
        if self.config.channels_last:
            self.network.to(memory_format=torch.channels_last)
        if self.accumulation.synchronised:
            self._forward = AllOutputs(self.network)
            self.accumulation.synchronise_batch_norm(functools.partial(self.backward, 0, self.config.topk_share))
        # The compiled network shares the weights of `network`, whose names stay as they are.
        network = AllOutputs(self.network)
        return compile_network(network, self.group, self._attempt) if self.config.compile else network

    def _attempt(self, forward: Callable[[Tensor], Tensor]) -> None:
        """Run a micro-batch forward and backward through `forward`, as in an epoch."""
        self.start_epoch()
        self._forward = forward
        samples = self.accumulation.sample_numbers(0)[: self.accumulation.micro_batch]
        self.backward(0, self.config.topk_share, samples)

    def _statistics_differ(self) -> bool:
        """Return whether the processes normalise their crops by statistics of their own."""
        if self.group.size == 1 or self.accumulation.synchronised or self.config.freeze_statistics:
            return False
        return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in self.network.modules())

    def _load_pretrained(self, init: PretrainedRecord) -> None:
        load_weights(self.network, init, self.data.inputs)
        if self.state.average is not None:
            self.state.average.load_state_dict(self.network.state_dict())

    def _require_finite(self, what: str, value: float, index: int) -> None:
        if math.isfinite(value):
            return
        self._save_batch(index)
        raise NonFiniteLoss(
            f"The {what} is not finite in epoch {self.state.epoch + 1}, step {index + 1}.",
            "Its batch is in nonfinite_batch.safetensors. Lower --lr; `--resume` continues after the last complete "
            "epoch.",
        )

    def _save_batch(self, index: int) -> None:
        """Write this process's crops of a step, for debugging."""
        numbers = self.accumulation.sample_numbers(index)
        fields, target, small = self.sampler.batch(self.state.epoch, numbers)
        record = {
            "epoch": self.state.epoch + 1,
            "step": index + 1,
            "process": self.group.rank,
            "seed": self.config.seed,
            "samples": numbers,
            "crops": [asdict(self.sampler.draw(self.state.epoch, number)) for number in numbers],
            "channels": self.data.splits.first.channels,
            "lr": self.state.schedule.learning_rate,
            "phase": self.state.schedule.name,
        }
        stem = "nonfinite_batch" + (f"-{self.group.rank}" if self.group.rank else "")
        write_pair(self.run_dir, stem, {"fields": fields, "target": target, "small": small}, record)


def _confusion(logits: Tensor, target: Tensor, classes: int) -> Tensor:
    """Count true by predicted class, (K, K), on every n-th pixel of the crops."""
    stride = max(1, target.shape[-1] // ACCURACY_PX)
    # On a CPU `max` is four to six times as fast as `argmax`, which took up to 4 % of a step.
    predicted = logits[..., ::stride, ::stride].max(1).indices
    truth = target[..., ::stride, ::stride]
    # Ignored pixels are counted in an extra bin, which is dropped.
    pairs = torch.where(truth == IGNORE, classes * classes, truth * classes + predicted)
    return torch.bincount(pairs.flatten(), minlength=classes * classes + 1)[:-1].view(classes, classes)
