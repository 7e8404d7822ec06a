"""What a network says of the ground that was held out: its logits at the labelled nodes, for each size of window."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gravmap.lattice import TEST, TUNE
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import IGNORE, RegionDataset, to_target
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.evaluation.evaluation import divide_among_processes, node_logits, windows_over
from gravmap.learning.training.distributed import ALONE, Group
from gravmap.progress import Progress, silent


@dataclass(frozen=True)
class HeldOutPredictions:
    """Labelled nodes of the tuning and test ground.

    Attributes
    ----------
    target : (n,) int64
        True classes, 0..K-1.
    role : (n,) uint8
        TUNE or TEST.
    weight : (n,) float64
        The ground a node stands for: the cosine of its latitude.
    logits : dict of float to (n, K) float32
        Side of the windows in degrees to what the network says.
    place : (n, 2) int64
        Number of the dataset in ``DatasetSplits.held_out(TUNE, TEST)``, and of the node in its flattened grid.
    """

    target: NDArray[np.int64]
    role: NDArray[np.uint8]
    weight: NDArray[np.float64]
    logits: dict[float, NDArray[np.float32]]
    place: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))

    def mean_logits(self, scales_deg: Sequence[float], role: int) -> NDArray[np.float32]:
        """Logits of one role's nodes, averaged over window sizes as in prediction; (n, K)."""
        total = sum(self.logits[scale][self.role == role] for scale in scales_deg)
        return np.asarray(total / np.float32(len(scales_deg)), np.float32)


def predict_held_out(
    network: nn.Module,
    ground: RegionDataset | DatasetSplits,
    scales_deg: Sequence[float],
    *,
    inputs: InputChannels,
    tile_size_px: int,
    device: str | torch.device = "cpu",
    batch_size: int = 1,
    group: Group = ALONE,
    progress: Progress = silent,
) -> HeldOutPredictions:
    """Let a network speak of the held-out ground.

    Parameters
    ----------
    network : nn.Module
        (N, C, H, W) -> (N, K, H, W).
    ground : RegionDataset or DatasetSplits
        Fields, labels and roles.
    scales_deg : sequence of float
        Sides of the windows, degrees.
    inputs, tile_size_px, device, batch_size
        As in :func:`gravmap.learning.evaluation.mosaic.predict_logits`.
    group : Group
        Processes that share the windows, or the grounds where there are many; every one gets all.
    progress : Progress
        Told the windows done, of all sizes; of several processes, those of this one.
    """
    held = list(DatasetSplits.of(ground).held_out(TUNE, TEST))
    areas = [area for area, _ in held]
    done, mine = 0, math.ceil(count_windows(ground, scales_deg, TUNE, TEST) / group.size)
    found = []
    for number, ((area, roles), sharing) in enumerate(zip(held, divide_among_processes(areas, group), strict=True)):
        truth, role, wanted = _held_nodes(area, roles)
        logits: dict[float, NDArray[np.float32]] = {}
        for scale in sorted(set(scales_deg)):
            if not wanted.any() or sharing is None:
                logits[scale] = np.zeros((int(wanted.sum()), len(area.classes)), np.float32)
                continue
            whole = node_logits(
                network,
                area,
                wanted,
                inputs=inputs,
                tile_size_px=tile_size_px,
                scale_deg=scale,
                device=device,
                batch_size=batch_size,
                group=sharing,
                progress=functools.partial(_add_up, progress, done, mine),
            )
            done += math.ceil(len(windows_over(wanted, area, scale)) / sharing.size)
            logits[scale] = whole[:, wanted].T
        if len(areas) > 1 and wanted.any():  # those of another process are zero here
            logits = {scale: group.sum_array(np.ascontiguousarray(values)) for scale, values in logits.items()}
        found.append(_of_ground(number, area, truth, role, wanted, logits))
    return HeldOutPredictions(
        np.concatenate([each.target for each in found]),
        np.concatenate([each.role for each in found]),
        np.concatenate([each.weight for each in found]),
        {scale: np.concatenate([each.logits[scale] for each in found]) for scale in sorted(set(scales_deg))},
        np.concatenate([each.place for each in found]),
    )


def _of_ground(
    number: int,
    area: RegionDataset,
    truth: NDArray[np.int64],
    role: NDArray[np.uint8],
    wanted: NDArray[np.bool_],
    logits: dict[float, NDArray[np.float32]],
) -> HeldOutPredictions:
    """The wanted nodes of one ground that windows of every size reach."""
    reached = np.ones(int(wanted.sum()), np.bool_)
    for values in logits.values():
        reached &= np.isfinite(values).all(axis=1)
    weight = np.broadcast_to(np.cos(np.radians(area.node_lat))[:, None], wanted.shape)[wanted]
    nodes = np.flatnonzero(wanted)[reached]
    return HeldOutPredictions(
        truth[wanted][reached],
        role[wanted][reached],
        weight[reached],
        {scale: values[reached] for scale, values in logits.items()},
        np.stack([np.full_like(nodes, number), nodes], axis=1),
    )


def _add_up(progress: Progress, before: int, whole: int, done: int, total: int, note: str = "") -> None:
    progress(min(before + done, whole), whole, note)


def count_windows(ground: RegionDataset | DatasetSplits, scales_deg: Sequence[float], *roles: int) -> int:
    """How many windows hold a labelled node of one of these roles: what asking a network costs."""
    total = 0
    for area, mine in DatasetSplits.of(ground).held_out(*roles):
        _, _, held = _held_nodes(area, mine)
        total += sum(len(windows_over(held, area, scale)) for scale in set(scales_deg)) if held.any() else 0
    return total


def _held_nodes(
    area: RegionDataset, roles: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.bool_]]:
    """Targets, roles, and which nodes have a label and one of these roles."""
    labels, role = area.node_truth()
    truth = to_target(labels)
    held: NDArray[np.bool_] = (truth != IGNORE) & np.isin(role, roles)
    return truth, role, held
