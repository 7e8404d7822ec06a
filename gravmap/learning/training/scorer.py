"""Scores of a network during and after training: on the tuning blocks, and predictions of all held-out blocks."""

from __future__ import annotations

import functools
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
    final_s : float
        Estimated seconds of the evaluation after the last epoch; 0 before the first score.
    """

    def __init__(
        self, network: nn.Module, data: TrainingData, criterion: Criterion, keep_fraction: float, group: Group
    ) -> None:
        self.network, self.data, self.criterion, self.group = network, data, criterion, group
        self.keep_fraction = keep_fraction
        self.final_s = 0.0

    def score_tuning_blocks(self) -> dict[str, Any]:
        """Score the tuning blocks: what :func:`gravmap.learning.evaluate` returns, with the loss."""
        start = time.monotonic()
        found = evaluate(
            self.network,
            self.data.splits,
            TUNE,
            scale_deg=scoring_scale(self.data.scales_deg),
            loss=self.tuning_loss,
            **self._options,
        )
        # The evaluation after the last epoch must still fit into a time limit.
        self.final_s = self.group.broadcast(self._final_windows * (time.monotonic() - start))
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
        device = self.group.device
        return {
            "inputs": self.data.inputs,
            "tile_size_px": self.data.tile_size_px,
            "device": device,
            "batch_size": 1 if device.type == "cpu" else 4,
            "group": self.group,
        }

    @functools.cached_property
    def _final_windows(self) -> float:
        """Windows of the evaluation after the last epoch, relative to those of a score on the tuning blocks."""
        splits, score_deg = self.data.splits, [scoring_scale(self.data.scales_deg)]
        one = count_windows(splits, score_deg, TUNE)
        every = count_windows(splits, self.final_scales_deg, TUNE, TEST)
        if splits.simulated:  # once more with the gravity of other crusts
            every += count_windows(splits, score_deg, TEST)
        return every / one if one else 1.0
