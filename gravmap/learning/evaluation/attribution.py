"""Where in the fields a network's answer for a region comes from: integrated gradients, back to the nodes.

The answer is the logit of one class over the mean logit of all, averaged over the cells of the region as its map blends
them. Its gradient with respect to the field at each node is gathered along the straight line from a field without any
anomaly to the field as it is; times the difference of the two, it says how much each node, in units of the logit,
speaks for the class (above zero) or against it. All nodes together give the difference between the two answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.outcrop_context import is_context
from gravmap.learning.evaluation.mosaic import (
    accumulate_logits,
    normalise,
    on_cells,
    window_cells,
    window_patch,
    window_weight,
)
from gravmap.learning.sampling.resampling import interpolation_matrices
from gravmap.progress import Progress, silent

STEPS = 32

CLOSED = 0.05
"""A sum that misses the difference of the two answers by at most this share of it is called complete."""


@dataclass(frozen=True)
class Attribution:
    """What the nodes under a region's windows say for one class.

    Attributes
    ----------
    values : (F, h, w) float64
        In units of the logit, of each field that was measured; row 0 northernmost.
    rows, columns : slice
        Of the whole grid of nodes, where the values lie.
    target : int
        The class, 0..K-1.
    logit, baseline_logit : float
        Mean logit of the class over that of all classes, of the fields as they are and of the baseline.
    baseline : dict of str to float
        Level of each field in the baseline, in its unit.
    """

    values: NDArray[np.float64]
    rows: slice
    columns: slice
    target: int
    logit: float
    baseline_logit: float
    baseline: dict[str, float]

    @property
    def gap(self) -> float:
        """What the sum of all values misses of the difference of the two logits."""
        return self.logit - self.baseline_logit - float(self.values.sum())

    @property
    def complete(self) -> bool:
        """Whether the gap is small beside what is explained."""
        return abs(self.gap) <= max(CLOSED * abs(self.logit - self.baseline_logit), 1e-3)


def integrated_gradients(
    network: nn.Module,
    fields: NDArray[np.float32],
    field_nodes_wsen: NDArray[np.float64] | tuple[float, ...],
    windows: Mapping[float, NDArray[np.float64]],
    tile_size_px: int,
    out_lat: NDArray[np.float64],
    out_lon: NDArray[np.float64],
    *,
    inputs: InputChannels,
    target: int | None = None,
    steps: int = STEPS,
    device: str | torch.device = "cpu",
    progress: Progress = silent,
) -> Attribution:
    """Attribute a network's answer for a region to the nodes of the fields it reads.

    Parameters
    ----------
    network : nn.Module
        (N, C, H, W) -> (N, K, H, W); is put into evaluation mode.
    fields : (F, ny, nx) float32
        The fields that `inputs` reads, in their units, row 0 northernmost; NaN where unknown.
    field_nodes_wsen, tile_size_px, out_lat, out_lon, inputs, device
        As in :func:`gravmap.learning.evaluation.mosaic.predict_logits`; the output nodes are the cells of the region.
    windows : dict of float to (n, 4) float64
        Size of windows, degrees, to west, south, east, north of those over the region; sizes count alike.
    target : int, optional
        The class, 0..K-1; by default the one that most cells are named.
    steps : int
        Points on the line from the baseline to the fields (Gauss and Legendre's).
    progress : Progress
        Told the passes done.

    Returns
    -------
    Attribution
        Its baseline is each field's mean over the known nodes that the windows reach; unknown nodes speak for nothing.
        Outcrop as context is in the baseline as it is: it has no values, and what is explained is what gravity adds.

    References
    ----------
    Sundararajan, Taly & Yan (2017), Axiomatic attribution for deep networks, ICML, arXiv:1703.01365.
    """
    network.eval()
    rows, columns = _reached(windows, field_nodes_wsen, fields.shape[1:])
    given = np.array([is_context(name) for name in inputs.fields])
    known = np.isfinite(fields)
    filled = np.where(known, fields, np.float32(0))
    levels = [
        float(field[rows, columns][there[rows, columns]].mean()) if there[rows, columns].any() else 0.0
        for field, there in zip(fields, known, strict=True)
    ]
    flat = np.where(known, np.array(levels, np.float32)[:, None, None], np.float32(0))
    flat[given] = filled[given]

    passes = sum(len(some) for some in windows.values())
    whole, done = passes * (steps + 2), 0
    blended, shares = [], {}
    for each in (filled, flat):
        mean = np.zeros(())
        for scale, some in windows.items():
            total, weight = accumulate_logits(
                network, each, field_nodes_wsen, some, tile_size_px, out_lat, out_lon, inputs=inputs, device=device
            )
            mean = mean + normalise(total, weight) / len(windows)
            # What a window's logit at a cell counts in the mean over cells and sizes of windows.
            shares[scale] = 1 / (np.maximum(weight, np.finfo(np.float32).tiny) * weight.size * len(windows))
            progress(done := done + len(some), whole, "answers")
        blended.append(mean)
    named = np.bincount(blended[0].argmax(axis=0).ravel(), minlength=len(blended[0]))
    chosen = int(named.argmax()) if target is None else target
    logit, baseline_logit = (float((mean[chosen] - mean.mean(axis=0)).mean(dtype=np.float64)) for mean in blended)

    points, weights = np.polynomial.legendre.leggauss(steps)  # on -1 to 1
    gradient = np.zeros(fields.shape)
    for scale, some in windows.items():
        for window in some:
            under_rows, under_columns, place = window_patch(window, field_nodes_wsen, *fields.shape[1:])
            start, end = (torch.from_numpy(each[:, under_rows, under_columns]).to(device) for each in (flat, filled))
            down, right = interpolation_matrices(place, start.shape[1], start.shape[2], tile_size_px, start.device)
            on_map = window_cells(window, out_lat, out_lon)
            share = window_weight(window, out_lat[on_map[0]], out_lon[on_map[1]]) * shares[scale][on_map]
            counts = torch.as_tensor(share, dtype=torch.float32, device=start.device)
            for point, weight_of_point in zip((points + 1) / 2, weights / 2, strict=True):
                patch = torch.lerp(start, end, float(point)).requires_grad_(True)
                tile = inputs.prepare(down @ patch @ right.T, float(window[3] - window[1]) / tile_size_px)
                cells = on_cells(network(tile[None])[0].float(), window, out_lat, out_lon)
                answer = ((cells[chosen] - cells.mean(dim=0)) * counts).sum()
                (slope,) = torch.autograd.grad(answer, patch)
                gradient[:, under_rows, under_columns] += weight_of_point * slope.cpu().numpy()
                progress(done := done + 1, whole, "gradients")
    values = ((filled - flat) * gradient)[~given][:, rows, columns]
    baseline = {name: level for name, level in zip(inputs.fields, levels, strict=True) if not is_context(name)}
    return Attribution(values, rows, columns, chosen, logit, baseline_logit, baseline)


def _reached(
    windows: Mapping[float, NDArray[np.float64]],
    nodes_wsen: NDArray[np.float64] | tuple[float, ...],
    shape: tuple[int, ...],
) -> tuple[slice, slice]:
    """Rows and columns of the nodes that windows reach."""
    reached = [window_patch(window, nodes_wsen, *shape)[:2] for some in windows.values() for window in some]
    rows, columns = zip(*reached, strict=True)
    return (
        slice(min(each.start for each in rows), max(each.stop for each in rows)),
        slice(min(each.start for each in columns), max(each.stop for each in columns)),
    )
