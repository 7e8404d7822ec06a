"""Scores of a network during and after training: on the tuning blocks, and predictions of all held-out blocks."""

from __future__ import annotations

import functools
import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from gravmap.lattice import TEST, TUNE
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.evaluation.held_out import (
    HeldOutPredictions,
    count_windows,
    default_scales,
    evaluate,
    predict_held_out,
    scoring_scale,
)
from gravmap.learning.evaluation.mosaic import accumulate_logits, covering_windows
from gravmap.learning.training.distributed import Group
from gravmap.learning.training.loss import Criterion
from gravmap.learning.training.setup import TrainingData
from gravmap.progress import Progress, silent


class Scorer:
    """Scores the network of a run; every process calls it.

    Parameters
    ----------
    network : nn.Module
        Scored as it is when a method is called.
    data : TrainingData
        Held-out data and input channels.
    criterion : callable
        The training loss; the tuning loss is computed by the same function.
    keep_fraction : float
        OHEM keep fraction of the tuning loss: the final one of training.
    group : Group
        Processes that share the work.

    Attributes
    ----------
    window_s : float
        Seconds that a window takes; 0 before the first score, unless measured.
    """

    def __init__(
        self, network: nn.Module, data: TrainingData, criterion: Criterion, keep_fraction: float, group: Group
    ) -> None:
        self.network, self.data, self.criterion, self.group = network, data, criterion, group
        self.keep_fraction = keep_fraction
        self.window_s = 0.0

    @property
    def score_s(self) -> float:
        """Estimated seconds of a score on the tuning blocks."""
        return self.window_s * self._score_windows

    @property
    def final_s(self) -> float:
        """Estimated seconds of the evaluation after the last epoch."""
        return self.window_s * self.final_windows

    def measure(self) -> None:
        """Measure the time of a window with the network as it is."""
        dataset = next((each for each, _ in self.data.splits.held_out(TUNE, TEST)), self.data.splits.first)
        bounds = dataset.field_nodes_wsen
        start = time.monotonic()
        accumulate_logits(
            self.network,
            self.data.inputs.select(dataset),
            bounds,
            covering_windows(bounds, scoring_scale(self.data.scales_deg), bounds)[:1],
            self.data.tile_size_px,
            dataset.node_lat,
            dataset.node_lon,
            inputs=self.data.inputs,
            device=self.group.device,
        )
        self.window_s = self.group.broadcast(time.monotonic() - start)

    def score_tuning_blocks(self, progress: Progress = silent) -> dict[str, Any]:
        """Score the tuning blocks: what :func:`gravmap.learning.evaluate` returns, with the loss."""
        start, before, latest = time.monotonic(), 0, 0

        def report(done: int, total: int, note: str = "") -> None:
            nonlocal before, latest
            if done <= latest:  # the next of several datasets
                before += latest
            latest = done
            progress(before + done, self._score_windows, note)

        found = evaluate(
            self.network,
            self.data.splits,
            TUNE,
            scale_deg=scoring_scale(self.data.scales_deg),
            loss=self.tuning_loss,
            progress=report,
            **self._options,
        )
        if self._score_windows:
            self.window_s = self.group.broadcast((time.monotonic() - start) / self._score_windows)
        return found

    def tuning_loss(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the training loss of a map; small bodies are not weighted up."""
        small = torch.zeros_like(target, dtype=torch.bool)
        return self.criterion(logits, target, small, topk_share=self.keep_fraction)

    def predict_held_out(self, progress: Progress = silent) -> HeldOutPredictions:
        """Predict all held-out nodes, with windows of every size that maps are made with."""
        return self.predict(self.data.splits, self.final_scales_deg, progress)

    def predict(
        self, splits: DatasetSplits, scales_deg: list[float], progress: Progress = silent
    ) -> HeldOutPredictions:
        """Predict the held-out nodes of these datasets, which may be others than the run's."""
        return predict_held_out(self.network, splits, scales_deg, progress=progress, **self._options)

    @property
    def final_scales_deg(self) -> list[float]:
        """Window sizes of the evaluation after the last epoch: those of a map, and that of the scores."""
        scales = self.data.scales_deg
        return sorted({*default_scales(scales, self.group.device.type), scoring_scale(scales)})

    @property
    def _options(self) -> dict[str, Any]:
        # One window at a time, which is more pixels than a crop of training.
        return {
            "inputs": self.data.inputs,
            "tile_size_px": self.data.tile_size_px,
            "device": self.group.device,
            "group": self.group,
        }

    @functools.cached_property
    def final_windows(self) -> int:
        """Windows that this process predicts in the evaluation after the last epoch."""
        windows = self._count(self.final_scales_deg, TUNE, TEST)
        if self.data.splits.simulated:  # once more with the gravity of other crusts
            windows += self._count([scoring_scale(self.data.scales_deg)], TEST)
        return windows

    @functools.cached_property
    def _score_windows(self) -> int:
        """Windows that this process predicts in a score on the tuning blocks."""
        return self._count([scoring_scale(self.data.scales_deg)], TUNE)

    def _count(self, scales_deg: list[float], *roles: int) -> int:
        splits = self.data.splits
        if splits.tune or splits.test:
            windows = count_windows(splits, scales_deg, *roles)
        else:  # a dry run simulates one crust only; all have the same windows
            bounds, seeds = splits.first.field_nodes_wsen, splits.record["seeds"]
            windows = sum(len(covering_windows(bounds, scale, bounds)) for scale in set(scales_deg))
            windows *= sum(len(seeds[{TUNE: "tune", TEST: "test"}[role]]) for role in roles)
        return math.ceil(windows / self.group.size)
