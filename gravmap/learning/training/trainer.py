"""The training loop: crops in, a network out, scored on blocks it never saw the labels of."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.training.config import TrainConfig
from gravmap.learning.training.distributed import Group
from gravmap.learning.training.finish import finish
from gravmap.learning.training.run import Run
from gravmap.learning.training.step import NonFiniteLoss
from gravmap.progress import Progress, describe_time, silent

log = logging.getLogger(__name__)


def train(
    ground: RegionDataset | DatasetSplits,
    run_dir: Path,
    config: TrainConfig,
    progress: Progress = silent,
    *,
    group: Group | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Train a network and score it on held-out ground.

    Writes into `run_dir`: `model.safetensors` + `model.json` (the weights with the best FWIoU on the tuning
    blocks), `last.safetensors` + `last.json` (the full state after the last epoch), `metrics.csv`,
    `curves.png`, `calibration.json` and `reliability.png` (how far probabilities can be believed), `reach.safetensors`
    (what the training ground looks like) and `scores.json`. Test blocks are looked at once, at the end, with the best
    weights.

    Parameters
    ----------
    ground : RegionDataset or DatasetSplits
        Fields, labels, windows and roles: of one region, or of many crusts; crops may be read from tiles
        (:meth:`gravmap.learning.data.DatasetSplits.from_tiles`).
    run_dir : Path
        The run's folder, made when missing.
    config : TrainConfig
        How to train.
    progress : Progress
        Told the steps done and a note on loss, score and time left; in the end, the windows over held-out ground.
    group : Group, optional
        The processes that train together; by default this one alone on `config.device`.
    resume : bool
        Go on from `last`: on a CPU the curve is the one of an unbroken run.

    Returns
    -------
    dict
        What `scores.json` holds: scores on `tune` and `test` with confusion matrices, the epoch kept, and
        `calibration` in short.

    Raises
    ------
    InputError
        Nothing to learn from; or the run cannot be resumed (no state, a changed tile set, complete); or a tile is
        not what it should be.
    OptionError
        The batch cannot be divided among processes, or leaves one crop alone; or the input holds a field that the
        tiles do not.
    NonFiniteLoss
        The loss is no longer a finite number; the crops are in `nonfinite_batch.safetensors`.
    DeviceError
        Memory is too small for the fewest crops a process can take at once.
    """
    run = Run(ground, run_dir, config, group or Group(device=torch.device(config.device)))
    fit(run, progress, resume=resume)
    return finish(run, progress)


def fit(run: Run, progress: Progress = silent, *, resume: bool = False) -> None:
    """Take a run's epochs, and look at no test block.

    Parameters
    ----------
    run : Run
        As it was made.
    progress, resume
        As in :func:`train`.

    Raises
    ------
    InputError, NonFiniteLoss, DeviceError
        As in :func:`train`.
    """
    config = run.config
    if run.absent and run.group.rank == 0:
        log.warning("No training label of: %s. The network cannot learn these.", ", ".join(run.absent))
    if resume:
        run.restore()
    else:
        run.begin()
    first_epoch, p0 = run.epoch, run.progress
    clock, steps_before = time.monotonic(), run.step
    total = config.epochs * run.steps
    while run.epoch < config.epochs and not run.stale():
        began = time.monotonic()
        run.begin_epoch()
        for index in range(run.steps):
            try:
                elapsed = run.train_step(index, time.monotonic() - clock)
            except NonFiniteLoss:
                run.keep_batch(index)
                raise
            # The clock of the first process decides for all, so that all stop at one step.
            run.progress = shown = run.step / total
            if config.time_limit_s:
                shown = max(shown, p0 + (1 - p0) * elapsed / config.time_limit_s)
            if config.schedule == "cosine":
                run.progress = shown
            left = _left(elapsed, run.step - steps_before, total - run.step, config.time_limit_s)
            said = f"epoch {run.epoch + 1}/{config.epochs} {run.told()} {left}"
            progress(min(round(shown * total), total), total, said)
            out_of_time = config.time_limit_s is not None and elapsed + run.ending_s > config.time_limit_s
            if out_of_time:
                break
        last = out_of_time or run.epoch + 1 == config.epochs
        run.end_epoch(began, score=last or (run.epoch - first_epoch) % config.evaluate_every == 0)
        if out_of_time:
            log.info("The time limit is reached after %d epochs.", run.epoch)
            break


def _left(elapsed_s: float, steps: int, steps_left: int, limit_s: float | None) -> str:
    """Time left, in words."""
    left_s = elapsed_s / max(steps, 1) * steps_left
    if limit_s is not None:
        left_s = min(left_s, max(limit_s - elapsed_s, 0))
    return f"about {describe_time(left_s)} left"


def measure_step(ground: RegionDataset | DatasetSplits, config: TrainConfig) -> tuple[float, int]:
    """Seconds one training step takes here, tried on a throwaway network, and the steps of an epoch."""
    # Cuts take time to make; one is as good as all for this.
    run = Run(ground, Path(), replace(config, cuts=1), Group(device=torch.device(config.device)))
    run.begin_epoch()
    run.train_step(0, 0.0, parts=1)  # the first one also allocates
    began = time.monotonic()
    run.train_step(0, 0.0, parts=1)
    if run.group.device.type == "cuda":
        torch.cuda.synchronize()
    return (time.monotonic() - began) * run.stepper.parts, run.steps
