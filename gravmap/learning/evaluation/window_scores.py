"""Scores of held-out windows, each predicted by itself and counted whole, as the paper scores its tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import IGNORE, RegionDataset, to_target
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.learning.evaluation.mosaic import iter_window_logits, window_cells
from gravmap.learning.training.distributed import ALONE, Group


def score_windows(
    network: nn.Module,
    dataset: RegionDataset,
    role: int,
    *,
    inputs: InputChannels,
    tile_size_px: int,
    device: str | torch.device = "cpu",
    group: Group = ALONE,
) -> dict[str, Any] | None:
    """Score a network on the windows of one role, as tiles of one size in pixels.

    Every window has the same weight, whatever its side in degrees, because its tile has the same number of pixels; the
    ground where windows overlap counts in each of them. Both are the paper's, and unlike
    :func:`gravmap.learning.evaluate`, which counts every node once.

    Parameters
    ----------
    network : nn.Module
        (N, C, H, W) -> (N, K, H, W).
    dataset : RegionDataset
        Fields, labels, and windows with their roles.
    role : int
        TUNE or TEST.
    inputs, tile_size_px, device
        As in :func:`gravmap.learning.evaluation.mosaic.predict_logits`.
    group : Group
        Processes that divide the windows among them; each gets all scores.

    Returns
    -------
    dict or None
        Scores as returned by :func:`gravmap.learning.evaluation.metrics.scores`, with ``area`` for the bedrock of a
        class in windows (1: a whole window), and ``windows``, their number. None if no window of this role has bedrock.
    """
    labels, _ = dataset.node_truth()
    target = to_target(labels)
    lat, lon = dataset.node_lat, dataset.node_lon
    names = [str(each["name"]) for each in dataset.classes]
    of_role = dataset.windows[dataset.window_role == role]
    boxes = [box for box in of_role if (target[window_cells(box, lat, lon)] != IGNORE).any()]
    if not boxes:
        return None
    matrix = np.zeros((len(names), len(names)), np.float32)
    mine = np.array(boxes[group.rank :: group.size]).reshape(-1, 4)
    fields = torch.from_numpy(np.ascontiguousarray(inputs.select(dataset))).to(device)
    found = iter_window_logits(
        network,
        lambda rows, columns: fields[:, rows, columns],
        (fields.shape[1], fields.shape[2]),
        dataset.field_nodes_wsen,
        mine,
        tile_size_px,
        lat,
        lon,
        inputs=inputs,
        device=device,
    )
    for box, (logits,) in zip(mine, found, strict=True):
        truth = target[window_cells(box, lat, lon)]
        weight = np.full(truth.shape, 1 / truth.size)
        matrix += confusion(truth, logits.argmax(0), len(names), weight).astype(np.float32)
    return {"windows": len(boxes), **scores(group.sum_array(matrix), names, total="area")}
