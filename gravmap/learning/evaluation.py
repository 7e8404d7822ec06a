"""Score a network on the held-out blocks of an area: every native node once, on the blended mosaic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gravmap.learning.area import Area
from gravmap.learning.channels import InputChannels
from gravmap.learning.distributed import ALONE, Group
from gravmap.learning.metrics import confusion, scores
from gravmap.learning.mosaic import accumulate_logits, covering_windows
from gravmap.learning.target import IGNORE, to_target
from gravmap.progress import Progress, silent


def scoring_scale(scales_deg: list[float]) -> float:
    """The window size that scores are taken with: 5 degrees where the tile set has it, else the middle one."""
    scales = sorted(set(scales_deg))
    return 5.0 if 5.0 in scales else scales[(len(scales) - 1) // 2]


def evaluate(
    network: nn.Module,
    area: Area,
    role: int,
    *,
    inputs: InputChannels,
    tile_size_px: int,
    scale_deg: float,
    device: str | torch.device = "cpu",
    batch_size: int = 1,
    group: Group = ALONE,
    loss: Callable[[Tensor, Tensor], float] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Scores of a network on the labelled nodes of one role.

    Parameters
    ----------
    network : nn.Module
        (N, C, H, W) -> (N, K, H, W).
    area : Area
        Fields, labels and roles.
    role : int
        TUNE or TEST.
    inputs, tile_size_px, device, batch_size, progress
        As in :func:`gravmap.learning.mosaic.predict_logits`.
    scale_deg : float
        Side of the windows, degrees.
    group : Group
        Processes that share the windows; every one gets the same scores.
    loss : callable, optional
        Given blended logits (1, K, ny, nx) and targets (1, ny, nx) with IGNORE.

    Returns
    -------
    dict
        See :func:`gravmap.learning.metrics.scores`; `confusion`, a list of K lists of K counts; and, where asked
        for, `loss` (None where nothing was counted).
    """
    labels, roles = area.node_truth()
    truth = np.where(roles == role, to_target(labels), IGNORE)
    counted = truth != IGNORE
    names = [str(each["name"]) for each in area.classes]
    classes = len(names)
    if not counted.any():
        empty = np.zeros((classes, classes), np.int64)
        told = {} if loss is None else {"loss": None}
        return {**scores(empty, names), "confusion": empty.tolist(), **told}
    windows = _windows_over(counted, area, scale_deg)
    mine = windows[group.rank :: group.size]
    if len(mine):
        total, weight = accumulate_logits(
            network,
            inputs.select(area),
            area.field_nodes_wsen,
            mine,
            tile_size_px,
            area.node_lat,
            area.node_lon,
            inputs=inputs,
            device=device,
            batch_size=batch_size,
            progress=progress,
        )
    else:
        total, weight = np.zeros((classes, *truth.shape), np.float32), np.zeros(truth.shape, np.float32)
    # The weight is common to all classes and does not move the argmax; it only has to be there.
    total, weight = group.sum_array(total), group.sum_array(weight)
    truth = np.where(weight > 0, truth, IGNORE)
    matrix = confusion(truth, total.argmax(0), classes)
    result = {**scores(matrix, names), "confusion": matrix.tolist()}
    if loss is not None:
        blended = total / np.where(weight > 0, weight, 1)
        result["loss"] = loss(torch.from_numpy(blended)[None], torch.from_numpy(truth)[None])
    return result


def _windows_over(counted: NDArray[np.bool_], area: Area, scale_deg: float) -> NDArray[np.float64]:
    """The covering windows of the whole field that hold a counted node."""
    bounds = area.field_nodes_wsen
    lat, lon = area.node_lat, area.node_lon
    kept = [
        window
        for window in covering_windows(bounds, scale_deg, bounds)
        if counted[np.ix_((lat >= window[1]) & (lat <= window[3]), (lon >= window[0]) & (lon <= window[2]))].any()
    ]
    return np.array(kept)
