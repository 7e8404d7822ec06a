"""A network on held-out nodes: scores (:func:`evaluate`) and logits (:func:`predict_held_out`).

Every native node counts once, with the logits that a map would show there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gravmap.lattice import TEST, TUNE
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import IGNORE, RegionDataset, to_target
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.learning.evaluation.mosaic import accumulate_logits, covering_windows, normalise
from gravmap.learning.training.distributed import ALONE, Group
from gravmap.network.outcrop_start import AllOutputs
from gravmap.progress import Progress, silent


def scoring_scale(scales_deg: list[float]) -> float:
    """The window size that scores are computed with: 5 degrees if the tile set has it, else the middle one.

    Examples
    --------
    >>> scoring_scale([10.0, 5.0, 1.0]), scoring_scale([1.0, 2.0, 4.0])
    (5.0, 2.0)
    """
    scales = sorted(set(scales_deg))
    return 5.0 if 5.0 in scales else scales[(len(scales) - 1) // 2]


CPU_SCALES_FROM_DEG = 2.0
"""Smaller windows are left out on a CPU: windows of a degree are thousands of full tiles, days for a basin."""


def default_scales(scales_deg: Sequence[float], device: str) -> list[float]:
    """The window sizes that a map is made with by default: those of training; on a CPU only the larger ones.

    Parameters
    ----------
    scales_deg : sequence of float
        Window sizes used in training, degrees.
    device : str
        "cpu" or "cuda".

    Examples
    --------
    >>> default_scales([1.0, 5.0], "cpu"), default_scales([1.0, 5.0], "cuda")
    ([5.0], [1.0, 5.0])
    """
    trained = sorted(set(scales_deg))
    if device == "cpu":
        return [scale for scale in trained if scale >= CPU_SCALES_FROM_DEG] or trained
    return trained


def evaluate(
    network: nn.Module,
    data: RegionDataset | DatasetSplits,
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
    """Score a network on the labelled nodes of one role, pooled over all datasets.

    Parameters
    ----------
    network : nn.Module
        (N, C, H, W) -> (N, K, H, W).
    data : RegionDataset or DatasetSplits
        Fields, labels and roles.
    role : int
        TUNE or TEST.
    inputs, tile_size_px, device, batch_size, progress
        As in :func:`gravmap.learning.evaluation.mosaic.predict_logits`; several datasets are processed one by one.
    scale_deg : float
        Side of the windows, degrees.
    group : Group
        Processes that divide the windows (or, of several datasets, the datasets) among them; each gets all scores.
    loss : callable, optional
        Given blended logits (1, K, ny, nx) and targets (1, ny, nx) with IGNORE, returns numerator and denominator of
        a loss.

    Returns
    -------
    dict
        Scores as returned by :func:`gravmap.learning.evaluation.metrics.scores`; `confusion`, a list of K lists of K
        counts; and `loss` if it was given (None if no node was counted).

    Examples
    --------
    An untrained network on a tile set in ``data/tiles``:

    >>> from pathlib import Path
    >>> from gravmap.lattice import TEST
    >>> from gravmap.learning import RegionDataset, evaluate
    >>> from gravmap.learning.data.channels import InputChannels
    >>> from gravmap.network import build
    >>> from gravmap.tiling import load_arrays
    >>> dataset = RegionDataset.from_arrays(load_arrays(Path("data/tiles")))
    >>> network = build("ggmnet-tiny", in_channels=1, classes=len(dataset.classes)).eval()
    >>> inputs = InputChannels.fit(dataset, ["residual_10km"])
    >>> found = evaluate(network, dataset, TEST, inputs=inputs, tile_size_px=64, scale_deg=5.0)
    >>> 0 <= found["fwiou"] <= found["pa"] <= 1
    True
    """
    names = [str(each["name"]) for each in data.classes]
    classes = len(names)
    matrix = torch.zeros(classes, classes, dtype=torch.int64)
    terms = torch.zeros(2)
    datasets = [dataset for dataset, _ in DatasetSplits.of(data).held_out(role)]
    for dataset, processes in zip(datasets, divide_among_processes(datasets, group), strict=True):
        labels, roles = dataset.node_truth()
        truth = np.where(roles == role, to_target(labels), IGNORE)
        counted = truth != IGNORE
        if processes is None or not counted.any():
            continue
        logits = node_logits(
            network,
            dataset,
            counted,
            inputs=inputs,
            tile_size_px=tile_size_px,
            scale_deg=scale_deg,
            device=device,
            batch_size=batch_size,
            group=processes,
            progress=progress,
        )
        reached = np.isfinite(logits[0])
        truth = np.where(reached, truth, IGNORE)
        matrix += torch.from_numpy(confusion(truth, logits.argmax(0), classes))
        if loss is not None:
            blended = np.where(reached, logits, np.float32(0))
            terms += torch.stack(loss(torch.from_numpy(blended)[None], torch.from_numpy(truth)[None])).cpu()
    if len(datasets) > 1:
        matrix, terms = (group.sum(each.to(group.device)).cpu() for each in (matrix, terms))
    result = {**scores(matrix.numpy(), names), "confusion": matrix.tolist()}
    if loss is not None:
        numerator, denominator = terms
        mean = float(numerator / denominator.clamp_min(torch.finfo(torch.float32).tiny))
        result["loss"] = mean if result["places"] else None
    return result


def divide_among_processes(datasets: Sequence[RegionDataset], group: Group) -> list[Group | None]:
    """The processes that work on each dataset.

    The windows of a single dataset are divided among all processes. Of several datasets each is the work of one
    process, so that none waits for another: :data:`ALONE` in that process, None in the others.
    """
    if len(datasets) == 1:
        return [group]
    return [ALONE if number % group.size == group.rank else None for number in range(len(datasets))]


def node_logits(
    network: nn.Module,
    dataset: RegionDataset,
    mask: NDArray[np.bool_],
    *,
    inputs: InputChannels,
    tile_size_px: int,
    scale_deg: float,
    device: str | torch.device = "cpu",
    batch_size: int = 1,
    group: Group = ALONE,
    progress: Progress = silent,
) -> NDArray[np.float32]:
    """Blended logits at the nodes of a dataset, from all windows that contain a selected node.

    Parameters
    ----------
    mask : (ny, nx) bool
        The selected nodes, at least one.
    network, dataset, inputs, tile_size_px, scale_deg, device, batch_size, group, progress
        As in :func:`evaluate`.

    Returns
    -------
    (K, ny, nx) float32
        NaN where no window reaches. Nodes that are not selected may lack some of their windows.
    """
    windows = windows_over(mask, dataset, scale_deg)
    mine = windows[group.rank :: group.size]
    if len(mine):
        total, weight = accumulate_logits(
            network,
            inputs.select(dataset),
            dataset.field_nodes_wsen,
            mine,
            tile_size_px,
            dataset.node_lat,
            dataset.node_lon,
            inputs=inputs,
            device=device,
            batch_size=batch_size,
            progress=progress,
        )
    else:
        # As many outputs as the network has in the other processes.
        outputs = len(dataset.classes) + getattr(network, "extra_outputs", 0)
        total = np.zeros((outputs, *mask.shape), np.float32)
        weight = np.zeros(mask.shape, np.float32)
    return normalise(group.sum_array(total), group.sum_array(weight))


def windows_over(mask: NDArray[np.bool_], dataset: RegionDataset, scale_deg: float) -> NDArray[np.float64]:
    """The covering windows of the whole field that contain a selected node, (n, 4)."""
    bounds = dataset.field_nodes_wsen
    lat, lon = dataset.node_lat, dataset.node_lon
    kept = [
        window
        for window in covering_windows(bounds, scale_deg, bounds)
        if mask[np.ix_((lat >= window[1]) & (lat <= window[3]), (lon >= window[0]) & (lon <= window[2]))].any()
    ]
    return np.array(kept)


@dataclass(frozen=True)
class HeldOutPredictions:
    """Logits and targets at the labelled nodes of the tuning and test data.

    Attributes
    ----------
    target : (n,) int64
        True classes, 0..K-1.
    role : (n,) uint8
        TUNE or TEST.
    weight : (n,) float64
        Relative area of a node: the cosine of its latitude.
    logits : dict of float to (n, K) float32
        Logits for each side of the windows, degrees.
    cover_km : dict of float to (n, 3) float32
        Quantiles of the thickness of the cover for each side of the windows, km; empty if the network has no such
        output.
    place : (n, 2) int64
        Index of the dataset, in the order of ``DatasetSplits.held_out(TUNE, TEST)``, and of the node in its flattened
        grid.

    Examples
    --------
    >>> import numpy as np
    >>> logits = {1.0: np.array([[0.0, 2.0]], np.float32), 5.0: np.array([[1.0, 0.0]], np.float32)}
    >>> held_out = HeldOutPredictions(np.array([1]), np.array([TUNE], np.uint8), np.ones(1), logits)
    >>> held_out.mean_logits([1.0, 5.0], TUNE)
    array([[0.5, 1. ]], dtype=float32)
    """

    target: NDArray[np.int64]
    role: NDArray[np.uint8]
    weight: NDArray[np.float64]
    logits: dict[float, NDArray[np.float32]]
    place: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    cover_km: dict[float, NDArray[np.float32]] = field(default_factory=dict)

    def mean_logits(self, scales_deg: Sequence[float], role: int) -> NDArray[np.float32]:
        """Logits of one role's nodes, averaged over window sizes as in a map; (n, K)."""
        total = sum(self.logits[scale][self.role == role] for scale in scales_deg)
        return np.asarray(total / np.float32(len(scales_deg)), np.float32)

    def mean_cover_km(self, scales_deg: Sequence[float], role: int) -> NDArray[np.float32]:
        """Quantiles of the thickness of one role's nodes, averaged over window sizes as in a map; (n, 3), km."""
        total = sum(self.cover_km[scale][self.role == role] for scale in scales_deg)
        return np.asarray(total / np.float32(len(scales_deg)), np.float32)


def predict_held_out(
    network: nn.Module,
    data: RegionDataset | DatasetSplits,
    scales_deg: Sequence[float],
    *,
    inputs: InputChannels,
    tile_size_px: int,
    device: str | torch.device = "cpu",
    batch_size: int = 1,
    group: Group = ALONE,
    progress: Progress = silent,
) -> HeldOutPredictions:
    """Predict the labelled nodes of the tuning and test data, for several window sizes.

    Parameters
    ----------
    network : nn.Module
        (N, C, H, W) -> (N, K, H, W).
    data : RegionDataset or DatasetSplits
        Fields, labels and roles.
    scales_deg : sequence of float
        Sides of the windows, degrees.
    inputs, tile_size_px, device, batch_size
        As in :func:`gravmap.learning.evaluation.mosaic.predict_logits`.
    group : Group
        Processes that divide the windows (or, of several datasets, the datasets) among them; each gets all logits.
    progress : Progress
        Called with the number of finished windows of all sizes; of several processes, those of this one.
    """
    every_output = AllOutputs(network)
    outputs = len(data.classes) + every_output.extra_outputs
    held_out = list(DatasetSplits.of(data).held_out(TUNE, TEST))
    datasets = [dataset for dataset, _ in held_out]
    done, mine = 0, math.ceil(count_windows(data, scales_deg, TUNE, TEST) / group.size)
    found = []
    for number, ((dataset, roles), processes) in enumerate(
        zip(held_out, divide_among_processes(datasets, group), strict=True)
    ):
        truth, role, mask = _held_out_nodes(dataset, roles)
        logits: dict[float, NDArray[np.float32]] = {}
        for scale in sorted(set(scales_deg)):
            if not mask.any() or processes is None:
                logits[scale] = np.zeros((int(mask.sum()), outputs), np.float32)
                continue
            whole = node_logits(
                every_output,
                dataset,
                mask,
                inputs=inputs,
                tile_size_px=tile_size_px,
                scale_deg=scale,
                device=device,
                batch_size=batch_size,
                group=processes,
                progress=functools.partial(_report_total, progress, done, mine),
            )
            done += math.ceil(len(windows_over(mask, dataset, scale)) / processes.size)
            logits[scale] = whole[:, mask].T
        if len(datasets) > 1 and mask.any():  # zero here where another process predicted the dataset
            logits = {scale: group.sum_array(np.ascontiguousarray(values)) for scale, values in logits.items()}
        found.append(_predictions_of(number, dataset, truth, role, mask, logits))
    every = {scale: np.concatenate([each.logits[scale] for each in found]) for scale in sorted(set(scales_deg))}
    classes = len(data.classes)
    return HeldOutPredictions(
        np.concatenate([each.target for each in found]),
        np.concatenate([each.role for each in found]),
        np.concatenate([each.weight for each in found]),
        {scale: np.ascontiguousarray(values[:, :classes]) for scale, values in every.items()},
        np.concatenate([each.place for each in found]),
        {scale: np.ascontiguousarray(values[:, classes:]) for scale, values in every.items() if outputs > classes},
    )


def _predictions_of(
    number: int,
    dataset: RegionDataset,
    truth: NDArray[np.int64],
    role: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    logits: dict[float, NDArray[np.float32]],
) -> HeldOutPredictions:
    """The selected nodes of one dataset that windows of every size reach."""
    reached = np.ones(int(mask.sum()), np.bool_)
    for values in logits.values():
        reached &= np.isfinite(values).all(axis=1)
    weight = np.broadcast_to(np.cos(np.radians(dataset.node_lat))[:, None], mask.shape)[mask]
    nodes = np.flatnonzero(mask)[reached]
    return HeldOutPredictions(
        truth[mask][reached],
        role[mask][reached],
        weight[reached],
        {scale: values[reached] for scale, values in logits.items()},
        np.stack([np.full_like(nodes, number), nodes], axis=1),
    )


def _report_total(progress: Progress, before: int, whole: int, done: int, total: int, note: str = "") -> None:
    progress(min(before + done, whole), whole, note)


def count_windows(data: RegionDataset | DatasetSplits, scales_deg: Sequence[float], *roles: int) -> int:
    """Number of windows that contain a labelled node of one of these roles: forward passes of a prediction."""
    total = 0
    for dataset, mine in DatasetSplits.of(data).held_out(*roles):
        _, _, mask = _held_out_nodes(dataset, mine)
        total += sum(len(windows_over(mask, dataset, scale)) for scale in set(scales_deg)) if mask.any() else 0
    return total


def _held_out_nodes(
    dataset: RegionDataset, roles: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.bool_]]:
    """Targets, roles, and the mask of nodes that have a label and one of these roles."""
    labels, role = dataset.node_truth()
    truth = to_target(labels)
    mask: NDArray[np.bool_] = (truth != IGNORE) & np.isin(role, roles)
    return truth, role, mask
