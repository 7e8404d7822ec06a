"""The state of a training run, and its checkpoint `last.safetensors` + `last.json` from which a run is resumed."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NotRequired

import torch
from torch import Tensor, nn
from typing_extensions import TypedDict

from gravmap.errors import InputError, OptionError, out_of_memory
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.training.checkpoint import LAST, read_pair, refuse_not_finite, under, versions, write_pair
from gravmap.learning.training.config import TrainConfig
from gravmap.learning.training.distributed import Group
from gravmap.learning.training.gradient_accumulation import GradientAccumulation, StepResult
from gravmap.learning.training.optimizer import ADAM, OptimizerSchedule
from gravmap.learning.training.setup import TrainingData
from gravmap.learning.training.weight_averaging import ExponentialMovingAverage
from gravmap.progress import describe_time
from gravmap.records import Count, CrustsRecord, Ge, Len, RunSplit, ScoresRecord, check_record, read_record, record

if TYPE_CHECKING:
    from gravmap.learning.training.scorer import Scorer


@record
class CheckpointRecord(TypedDict):
    """Content of a run's ``last.json``: what it is resumed with besides the tensors."""

    config: dict[str, Any]
    area_sha256: str
    inputs: Annotated[list[str], Len(1)]
    taught_on: NotRequired[CrustsRecord]
    split: RunSplit
    epoch: Count
    step: Count
    progress: float
    best: tuple[float, int]
    history: list[dict[str, float | str | None]]
    tune: dict[str, Any]
    phase: NotRequired[str]
    phase_began: NotRequired[Count]
    at_once: NotRequired[Annotated[int, Ge(1)] | None]
    versions: NotRequired[dict[str, str]]


class TrainingState:
    """Everything that changes during training and is saved in the checkpoint.

    Parameters
    ----------
    network : nn.Module
        On the device it is trained on.
    config : TrainConfig
        Optimizer, learning rate schedule and averaging of weights.
    steps_per_epoch : int
        Optimizer steps per epoch.

    Attributes
    ----------
    schedule : OptimizerSchedule
        The optimizer and its learning rate.
    average : ExponentialMovingAverage or None
        Exponential moving average (EMA) of the weights.
    epoch, step : int
        Epochs and optimizer steps completed.
    progress : float
        Position in the learning rate schedule, from 0 to 1.
    best : (float, int)
        Best FWIoU on the tuning blocks, and its epoch.
    tune : dict
        Latest scores on the tuning blocks.
    history : list of dict
        One row per epoch, as in metrics.csv.
    """

    def __init__(self, network: nn.Module, config: TrainConfig, steps_per_epoch: int) -> None:
        self.network = network
        self.schedule = OptimizerSchedule(network, config, steps_per_epoch)
        self.average = ExponentialMovingAverage(network, config.average) if config.average else None
        self.epoch = self.step = 0
        self.progress = 0.0
        self.best: tuple[float, int] = (-1.0, 0)
        self.tune: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []

    def is_best(self, scores: dict[str, Any]) -> bool:
        """Record scores on the tuning blocks; return whether they are the best so far."""
        self.tune = scores
        fwiou = scores["fwiou"]
        # Without labelled tuning blocks epochs cannot be compared: the last one is kept.
        if fwiou is not None and not fwiou > self.best[0]:
            return False
        self.best = (-1.0 if fwiou is None else fwiou, self.epoch)
        return True

    def stops_early(self, config: TrainConfig) -> bool:
        """Return whether the early-stopping patience is exhausted; under "adam-sgd" only epochs of SGD count."""
        if not config.patience or not self.history:
            return False
        if config.schedule == "adam-sgd" and self.schedule.name == ADAM:
            return False
        return self.epoch - max(self.best[1], self.schedule.first_epoch) >= config.patience

    def tensors(self) -> dict[str, Tensor]:
        """Return weights, EMA and the optimizer's state by name."""
        tensors: dict[str, Tensor] = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"optimiser/{name}": value for name, value in self.schedule.tensors().items()}
        if self.average is not None:
            tensors |= {f"average/{name}": value for name, value in self.average.state.items()}
        return tensors

    def record(self) -> dict[str, Any]:
        """Return the JSON-able part of the state."""
        return {
            **self.schedule.record(),
            "epoch": self.epoch,
            "step": self.step,
            "progress": self.progress,
            "best": list(self.best),
            "history": self.history,
            "tune": self.tune,
        }

    def load(self, tensors: dict[str, Tensor], record: CheckpointRecord) -> None:
        """Load what :meth:`tensors` and :meth:`record` returned.

        Raises
        ------
        KeyError, RuntimeError, TypeError, ValueError
            The state is that of another network or version.
        """
        self.network.load_state_dict(under("network/", tensors))
        if self.average is not None:
            self.average.load_state_dict(under("average/", tensors))
        self.schedule.load(under("optimiser/", tensors), record)
        self.epoch, self.step, self.progress = record["epoch"], record["step"], record["progress"]
        self.best = (record["best"][0], record["best"][1])
        self.history, self.tune = [{**row} for row in record["history"]], record["tune"]


class EpochTotals:
    """Training loss and confusion matrix of the current epoch."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self._terms = torch.zeros(2, dtype=torch.float64)
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64, device=device)

    def add(self, result: StepResult) -> None:
        """Add a step."""
        self._terms += torch.tensor([result.loss, result.weight], dtype=torch.float64)
        self.confusion += result.confusion

    @property
    def loss(self) -> float:
        """Mean loss over the pixels that entered it."""
        return float(self._terms[0] / self._terms[1].clamp_min(1e-30))


@dataclass(frozen=True)
class TrainingCost:
    """What a run costs on this machine, measured on a micro-batch and a window.

    Attributes
    ----------
    step_s : float
        Seconds of an optimizer step.
    steps_per_epoch : int
        Optimizer steps per epoch.
    window_s, score_s, final_s : float
        Seconds of a window, of a score on the tuning blocks, and of the evaluation after the last epoch.
    tile_size_px : int
        Pixels across a window.
    measuring_s : float
        Seconds that the measurement took; a time limit includes them.
    processes : int
        Processes that share batches and windows. More than one are not measured: the times are those of one of them
        with its share, without what they exchange.
    crops : int
        Crops of a step that was measured.
    """

    step_s: float
    steps_per_epoch: int
    window_s: float
    score_s: float
    final_s: float
    tile_size_px: int
    measuring_s: float = 0.0
    processes: int = 1
    crops: int = 0

    def check_time_limit(self, limit_s: float | None) -> None:
        """Refuse a time limit that leaves no time for one step and the scores after it.

        Raises
        ------
        OptionError
            With a size of windows that would fit.
        """
        least_s = self.measuring_s + self.step_s + self.score_s + self.final_s
        if limit_s is None or least_s <= limit_s:
            return
        # The time of a convolution is proportional to the pixels; a tenth is left for the rest.
        size_px = int(self.tile_size_px * math.sqrt(0.9 * limit_s / least_s)) // 32 * 32
        smaller = f"--size {size_px} would fit; or choose" if size_px >= LEAST_SIZE_PX else "Choose"
        longer = f"{least_s + 1:.0f}s" if least_s < 90 else f"{math.ceil(least_s / 60) + 1}min"
        raise OptionError(
            f"A time limit of {describe_time(limit_s)} is too short: here one step takes {describe_time(self.step_s)}, "
            f"the scores after it {describe_time(self.score_s + self.final_s)}, and measuring both took "
            f"{describe_time(self.measuring_s)}.",
            f"{smaller} a smaller --model, or --time-limit {longer}.",
        )


LEAST_SIZE_PX = 64
"""Smallest width of a window that is recommended; crops are half as wide."""


class Clock:
    """Progress of a run, by steps and by the time limit.

    Work is counted in steps, and after them in windows of the final evaluation; the time left is that of the steps and
    scores that remain, at the speed measured so far.

    Parameters
    ----------
    config : TrainConfig
        Epochs, schedule and time limit.
    state : TrainingState
        Its `progress` is advanced; under "cosine" it follows the time limit if that is closer.
    steps_per_epoch : int
        Optimizer steps per epoch.
    scorer : Scorer
        Estimates the time of scores.
    cost : TrainingCost, optional
        Measured before.
    """

    def __init__(
        self,
        config: TrainConfig,
        state: TrainingState,
        steps_per_epoch: int,
        scorer: Scorer,
        cost: TrainingCost | None = None,
    ) -> None:
        self.config, self.state, self.scorer = config, state, scorer
        self.steps_per_epoch, self.steps = steps_per_epoch, config.epochs * steps_per_epoch
        self._first_epoch, self._first_step, self._first_progress = state.epoch, state.step, state.progress
        self._start = time.monotonic() - (cost.measuring_s if cost else 0.0)
        self._measured_s = cost.step_s if cost else 0.0
        self._elapsed_s = self._epoch_start_s = self.elapsed_s()
        self._training_s = self._shown = 0.0

    @property
    def total(self) -> int:
        """All steps, and the windows of the final evaluation."""
        return self.steps + self.scorer.final_windows

    @property
    def step_s(self) -> float:
        """Mean seconds of a step; before the first one as measured, 0 where nothing was."""
        steps = self.state.step - self._first_step
        return self._training_s / steps if steps else self._measured_s

    def elapsed_s(self) -> float:
        """Return the seconds since training started, on the clock of this process."""
        return time.monotonic() - self._start

    def start_epoch(self, elapsed_s: float) -> None:
        """Note the time at which an epoch starts, after the scores of the one before."""
        self._elapsed_s = self._epoch_start_s = elapsed_s

    def advance(self, elapsed_s: float) -> None:
        """Advance after a step; the clock of the first process counts, so that all stop at the same step."""
        self._training_s += elapsed_s - self._elapsed_s
        self._elapsed_s = elapsed_s
        self.state.progress = self._shown = self.state.step / self.steps
        if self.config.time_limit_s:
            available_s = max(self.config.time_limit_s - self.scorer.score_s - self.scorer.final_s, 1e-9)
            by_time = self._first_progress + (1 - self._first_progress) * elapsed_s / available_s
            self._shown = min(max(self._shown, by_time), 1.0)
        if self.config.schedule == "cosine":
            self.state.progress = self._shown

    def report(self, status: str, windows: int = 0) -> tuple[int, int, str]:
        """Return the work done, all work, and the status line with the time left; so many windows of a score remain."""
        return round(self._shown * self.steps), self.total, f"{status}{self._left(windows)}"

    def report_score(self, done: int, total: int, note: str = "") -> tuple[int, int, str]:
        """Return what :meth:`report` does, while the tuning blocks are scored."""
        return self.report(f"scoring the tuning blocks: {done} of {total} windows", total - done)

    def report_final(self, done: int, note: str) -> tuple[int, int, str]:
        """Return what :meth:`report` does, with so many windows of the final evaluation predicted."""
        left_s = self.scorer.window_s * max(self.scorer.final_windows - done, 0)
        return min(self.steps + done, self.total), self.total, f"{note}, about {describe_time(left_s)} left"

    def _left(self, windows: int) -> str:
        """Describe the time left; empty before anything was measured."""
        if not self.step_s:
            return ""
        epochs = self.config.epochs - self.state.epoch
        scores = math.ceil(epochs / self.config.evaluate_every)
        scoring_s = self.scorer.window_s * windows + self.scorer.final_s
        left_s = self.step_s * (self.steps - self.state.step) + scores * self.scorer.score_s + scoring_s
        if self.config.time_limit_s is not None:
            left_s = min(left_s, max(self.config.time_limit_s - self.elapsed_s(), scoring_s))
        return f", about {describe_time(left_s)} left"

    def is_up(self, index: int) -> bool:
        """Return whether after this step of an epoch the time limit leaves no time for another, and for the scores."""
        if self.config.time_limit_s is None or self.state.step == self.steps:
            return False
        needed_s = self.step_s + self.scorer.score_s + self.scorer.final_s
        if index + 1 == self.steps_per_epoch and self.evaluates(self.state.epoch):
            needed_s += self.scorer.score_s  # of this epoch, before the next step
        return self._elapsed_s + needed_s > self.config.time_limit_s

    def evaluates(self, epoch: int) -> bool:
        """Return whether the tuning blocks are scored after this epoch, counted from 0."""
        return epoch + 1 == self.config.epochs or (epoch - self._first_epoch) % self.config.evaluate_every == 0


def save_checkpoint(
    run_dir: Path,
    state: TrainingState,
    data: TrainingData,
    config: TrainConfig,
    group: Group,
    accumulation: GradientAccumulation,
) -> None:
    """Write the checkpoint, with what must be the same when the run is resumed."""
    record = {
        "config": json.loads(config.to_json()),
        "area_sha256": data.fingerprint,
        "inputs": data.inputs.names,
        "taught_on": data.splits.record,
        "split": data.splits.meta.get("split", {}),
        "processes": group.size,
        "at_once": accumulation.micro_batch,
        **state.record(),
        "versions": versions(),
    }
    write_pair(run_dir, LAST, state.tensors(), record)


def check_resumable(run_dir: Path, data: DatasetSplits, config: TrainConfig) -> None:
    """Make the checks of :func:`load_checkpoint` that need no network; crusts are not compared.

    Raises
    ------
    InputError
        As there.
    """
    stored = read_pair(run_dir, LAST)[1]
    record = check_record(stored, CheckpointRecord, str(run_dir / f"{LAST}.json"), _ANEW)
    _check_resumable(record, run_dir, config, None if data.simulated else data.fingerprint(), data.simulated)


def _check_resumable(
    record: CheckpointRecord, run_dir: Path, config: TrainConfig, fingerprint: str | None, simulated: bool
) -> None:
    if fingerprint is not None and record["area_sha256"] != fingerprint:
        what = "simulated crusts are not those" if simulated else "tile set is not the one"
        raise InputError(
            f"The {what} that the run {run_dir.name} was started with.",
            "Restore the data it was started with, or train anew under another --name.",
        )
    scores = run_dir / "scores.json"
    # A run that was continued and stopped before its end has the scores of its earlier end.
    scored = read_record(scores, ScoresRecord, "gravmap train").get("epochs") if scores.exists() else 0
    if record["epoch"] >= config.epochs and scored in (record["epoch"], None):
        raise InputError(
            f"{run_dir.name} is complete with {record['epoch']} epochs.", "Give a larger --epochs to continue it."
        )


def load_checkpoint(
    run_dir: Path,
    state: TrainingState,
    data: TrainingData,
    config: TrainConfig,
    accumulation: GradientAccumulation,
) -> None:
    """Load the checkpoint into the state, and the micro-batch size that was found to fit into memory.

    Raises
    ------
    InputError
        The checkpoint is missing or damaged, it is of other data, another network or version, or the run is complete.
    """
    tensors, stored = read_pair(run_dir, LAST)
    record = check_record(stored, CheckpointRecord, str(run_dir / f"{LAST}.json"), _ANEW)
    refuse_not_finite(tensors, run_dir / f"{LAST}.safetensors")
    try:
        _check_resumable(record, run_dir, config, data.fingerprint, data.splits.simulated)
        state.load(tensors, record)
        at_once = record.get("at_once")
        if at_once and record["config"].get("micro_batch") == config.micro_batch:
            accumulation.limit_micro_batch(at_once)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        if out_of_memory(error) is not None:
            raise
        first, version = str(error).splitlines()[0], record.get("versions", {}).get("gravmap", "another version")
        raise InputError(
            f"{run_dir}/{LAST}.safetensors, written by gravmap {version}, does not fit the network: {first}.",
            _ANEW,
        ) from None


_ANEW = "Train anew under another --name."
