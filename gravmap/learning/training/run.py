"""Training runs: train a network and evaluate it, or estimate what that will cost."""

from __future__ import annotations

import math
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
from gravmap.learning.training.gradient_accumulation import crops_per_process
from gravmap.learning.training.state import TrainingCost
from gravmap.learning.training.trainer import Trainer
from gravmap.progress import Progress, silent


def train(
    data: RegionDataset | DatasetSplits,
    run_dir: Path,
    config: TrainConfig,
    progress: Progress = silent,
    *,
    group: Group | None = None,
    resume: bool = False,
    pictures: bool = True,
    cost: TrainingCost | None = None,
) -> dict[str, Any]:
    """Train a network and score it on the held-out blocks.

    Writes into `run_dir`: `model.safetensors` + `model.json` (the weights with the best FWIoU on the tuning blocks),
    `last.safetensors` + `last.json` (checkpoint after the last epoch), `metrics.csv`, `curves.png`, `calibration.json`
    and `reliability.png` (calibration of the probabilities), `reach.safetensors` (area of applicability) and
    `scores.json`. The test blocks are scored once, at the end, with the best weights.

    Parameters
    ----------
    data : RegionDataset or DatasetSplits
        Fields, labels, windows and roles of one region, or of many simulated crusts; crops may be read from tiles
        (:meth:`gravmap.learning.data.DatasetSplits.from_tiles`).
    run_dir : Path
        Folder of the run; created if missing.
    config : TrainConfig
        Configuration.
    progress : Progress
        Called with the steps completed and a status line (loss, score, time left); then, with the windows predicted on
        held-out blocks. The total is the number of both.
    group : Group, optional
        Processes that train together; by default a single process on `config.device`.
    resume : bool
        Continue from the checkpoint; on a CPU the result is that of an uninterrupted run, bit for bit.
    pictures : bool
        Draw `curves.png` and `reliability.png`.
    cost : TrainingCost, optional
        From :func:`estimate_cost`; measured here if it is absent and there is a time limit.

    Returns
    -------
    dict
        The content of `scores.json`: scores on `tune` and `test` with confusion matrices, the best epoch, and a
        summary of the calibration.

    Raises
    ------
    InputError
        There is nothing to train on; the run cannot be resumed (no checkpoint, another tile set, complete); or a tile
        is invalid.
    OptionError
        The batch cannot be divided among the processes or leaves one crop alone; the input has a field that the
        tiles lack; or the time limit is too short for a step and the scores.
    NonFiniteLoss
        The loss is infinite or not a number; its batch is in `nonfinite_batch.safetensors`.
    DeviceError
        Not even the smallest micro-batch fits into memory.

    Examples
    --------
    A field of 2 x 2 degrees whose sign is the class, its west to train on, its east to tune and test on:

    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from gravmap.learning import RegionDataset, TrainConfig, train
    >>> lat, lon = np.linspace(2, 0, 21), np.linspace(0, 2, 21)
    >>> field = 20 * np.sin(9 * lon) * np.ones((21, 1))
    >>> role = np.zeros((21, 21), np.uint8)
    >>> role[:, 14:], role[:, 18:] = 1, 2
    >>> dataset = RegionDataset.from_arrays({
    ...     "fields": field[None].astype(np.float32),
    ...     "field_valid": np.ones((21, 21), bool),
    ...     "field_nodes_wsen": np.array([0.0, 0, 2, 2]),
    ...     "labels": np.where(field > 0, 1, 2).astype(np.uint8),
    ...     "label_bounds_wsen": np.array([0.0, 0, 2, 2]),
    ...     "small": np.zeros((21, 21), np.uint8),
    ...     "role": role,
    ...     "windows": np.array([[0.0, 0, 2, 2]]),
    ...     "window_scale_deg": np.array([2.0]),
    ...     "window_role": np.zeros(1, np.uint8),
    ...     "meta": {
    ...         "channels": ["residual_10km"],
    ...         "classes": [{"index": 1, "name": "high"}, {"index": 2, "name": "low"}],
    ...         "tile_size_px": 32,
    ...     },
    ... })
    >>> config = TrainConfig(
    ...     model="small-unet", architecture={"kind": "unet", "widths": [4, 8]}, epochs=1, steps=2, batch_size=2
    ... )
    >>> scores = train(dataset, Path(tempfile.mkdtemp()), config)
    >>> 0 <= scores["test"]["fwiou"] <= 1
    True
    """
    trainer = Trainer(data, run_dir, config, group or Group(device=torch.device(config.device)))
    clock = trainer.fit(progress, resume=resume, cost=cost)

    def report(done: int, total: int, note: str = "") -> None:
        progress(*clock.report_final(done, note))

    return finish(trainer.scorer, trainer.state, trainer.config, run_dir, report, pictures=pictures)


def estimate_cost(data: RegionDataset | DatasetSplits, config: TrainConfig, processes: int = 1) -> TrainingCost:
    """Measure what training on these data will cost, on a throwaway network and one device.

    Parameters
    ----------
    data, config
        As in :func:`train`.
    processes : int
        Number of processes, one per GPU, that will share each batch and the windows of the scores. One of them is
        measured, with its share of the crops (two at least); what they exchange is not.

    Raises
    ------
    OptionError
        The batch cannot be divided among the processes.
    """
    start = time.monotonic()
    share = crops_per_process(config.batch_size, processes)
    # Cover masks take time to make; one is enough here.
    alone = replace(config, cuts=1, batch_size=share if processes == 1 else max(share, 2))
    trainer = Trainer(data, Path(), alone, Group(device=torch.device(config.device)))
    cost = trainer.measure_cost()
    return replace(
        cost,
        steps_per_epoch=config.steps or math.ceil(trainer.sampler.window_count / config.batch_size),
        score_s=cost.score_s / processes,
        final_s=cost.final_s / processes,
        measuring_s=time.monotonic() - start,
        processes=processes,
        crops=alone.batch_size,
    )
