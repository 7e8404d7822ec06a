"""Score a network on held-out ground: every native node once, on the blended mosaic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import IGNORE, RegionDataset, to_target
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.learning.evaluation.mosaic import accumulate_logits, covering_windows, normalise
from gravmap.learning.training.distributed import ALONE, Group
from gravmap.progress import Progress, silent


def scoring_scale(scales_deg: list[float]) -> float:
    """The window size that scores are taken with: 5 degrees where the tile set has it, else the middle one."""
    scales = sorted(set(scales_deg))
    return 5.0 if 5.0 in scales else scales[(len(scales) - 1) // 2]


CPU_SCALES_FROM_DEG = 2.0
"""Windows of a degree would mean thousands of full tiles; on a CPU that is days for a basin."""


def default_scales(scales_deg: Sequence[float], device: str) -> list[float]:
    """The window sizes that a map is made with unless others are asked for: those of training, on a CPU the larger.

    Parameters
    ----------
    scales_deg : sequence of float
        Those of training, degrees.
    device : str
        "cpu" or "cuda".
    """
    trained = sorted(set(scales_deg))
    if device == "cpu":
        return [scale for scale in trained if scale >= CPU_SCALES_FROM_DEG] or trained
    return trained


def evaluate(
    network: nn.Module,
    ground: RegionDataset | DatasetSplits,
    role: int,
    *,
    inputs: InputChannels,
    tile_size_px: int,
    scale_deg: float,
    device: str | torch.device = "cpu",
    batch_size: int = 1,
    group: Group = ALONE,
    loss: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Scores of a network on the labelled nodes of one role, of all grounds together.

    Parameters
    ----------
    network : nn.Module
        (N, C, H, W) -> (N, K, H, W).
    ground : RegionDataset or DatasetSplits
        Fields, labels and roles.
    role : int
        TUNE or TEST.
    inputs, tile_size_px, device, batch_size, progress
        As in :func:`gravmap.learning.evaluation.mosaic.predict_logits`; of many grounds, one after the other.
    scale_deg : float
        Side of the windows, degrees.
    group : Group
        Processes that share the windows, or the grounds where there are many; every one gets the same scores.
    loss : callable, optional
        Given blended logits (1, K, ny, nx) and targets (1, ny, nx) with IGNORE, numerator and denominator of a loss.

    Returns
    -------
    dict
        See :func:`gravmap.learning.evaluation.metrics.scores`; `confusion`, a list of K lists of K counts; and, where
        asked
        for, `loss` (None where nothing was counted).
    """
    names = [str(each["name"]) for each in ground.classes]
    classes = len(names)
    matrix = torch.zeros(classes, classes, dtype=torch.int64)
    terms = torch.zeros(2)
    areas = [area for area, _ in DatasetSplits.of(ground).held_out(role)]
    for area, sharing in zip(areas, divide_among_processes(areas, group), strict=True):
        labels, roles = area.node_truth()
        truth = np.where(roles == role, to_target(labels), IGNORE)
        counted = truth != IGNORE
        if sharing is None or not counted.any():
            continue
        logits = node_logits(
            network,
            area,
            counted,
            inputs=inputs,
            tile_size_px=tile_size_px,
            scale_deg=scale_deg,
            device=device,
            batch_size=batch_size,
            group=sharing,
            progress=progress,
        )
        reached = np.isfinite(logits[0])
        truth = np.where(reached, truth, IGNORE)
        matrix += torch.from_numpy(confusion(truth, logits.argmax(0), classes))
        if loss is not None:
            blended = np.where(reached, logits, np.float32(0))
            terms += torch.stack(loss(torch.from_numpy(blended)[None], torch.from_numpy(truth)[None])).cpu()
    if len(areas) > 1:
        matrix, terms = (group.sum(each.to(group.device)).cpu() for each in (matrix, terms))
    result = {**scores(matrix.numpy(), names), "confusion": matrix.tolist()}
    if loss is not None:
        numerator, denominator = terms
        told = float(numerator / denominator.clamp_min(torch.finfo(torch.float32).tiny))
        result["loss"] = told if result["places"] else None
    return result


def divide_among_processes(areas: Sequence[RegionDataset], group: Group) -> list[Group | None]:
    """Who asks a network about each area: of a single one all processes share the windows.

    Of many, each is the work of one process alone, so that none waits for another: :data:`ALONE` there, None elsewhere.
    """
    if len(areas) == 1:
        return [group]
    return [ALONE if number % group.size == group.rank else None for number in range(len(areas))]


def node_logits(
    network: nn.Module,
    area: RegionDataset,
    wanted: NDArray[np.bool_],
    *,
    inputs: InputChannels,
    tile_size_px: int,
    scale_deg: float,
    device: str | torch.device = "cpu",
    batch_size: int = 1,
    group: Group = ALONE,
    progress: Progress = silent,
) -> NDArray[np.float32]:
    """Blended logits on the nodes of an area, from all windows that hold a wanted node.

    Parameters
    ----------
    wanted : (ny, nx) bool
        At least one node.
    network, area, inputs, tile_size_px, scale_deg, device, batch_size, group, progress
        As in :func:`evaluate`.

    Returns
    -------
    (K, ny, nx) float32
        NaN where no window reaches; at other nodes than the wanted ones windows may be missing.
    """
    windows = windows_over(wanted, area, scale_deg)
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
        total = np.zeros((len(area.classes), *wanted.shape), np.float32)
        weight = np.zeros(wanted.shape, np.float32)
    return normalise(group.sum_array(total), group.sum_array(weight))


def windows_over(wanted: NDArray[np.bool_], area: RegionDataset, scale_deg: float) -> NDArray[np.float64]:
    """The covering windows of the whole field that hold a wanted node, (n, 4)."""
    bounds = area.field_nodes_wsen
    lat, lon = area.node_lat, area.node_lon
    kept = [
        window
        for window in covering_windows(bounds, scale_deg, bounds)
        if wanted[np.ix_((lat >= window[1]) & (lat <= window[3]), (lon >= window[0]) & (lon <= window[2]))].any()
    ]
    return np.array(kept)
