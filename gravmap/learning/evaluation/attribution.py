"""Which nodes of the fields a network's prediction for a region comes from: integrated gradients.

The explained output is the logit of one class minus the mean logit of all classes, averaged over the cells of the
region as its map blends them. Its gradient with respect to the field at each node is integrated along the straight line
from a baseline without anomaly to the field itself. Multiplied by the difference of the two, it gives the contribution
of each node, in units of the logit: positive for the class, negative against it. The sum over all nodes is the
difference between the two outputs (completeness).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gravmap.learning.data.channels import InputChannels
from gravmap.learning.evaluation.mosaic import (
    accumulate_logits,
    normalise,
    resample_to_cells,
    window_cells,
    window_nodes,
    window_weight,
)
from gravmap.learning.sampling.resampling import interpolation_matrices
from gravmap.network.precision import set_scoring_precision
from gravmap.network.window_pass import window_logits
from gravmap.progress import Progress, silent

STEPS = 32

TOLERANCE = 0.05
"""Largest relative completeness error of an attribution that is called complete."""


@dataclass(frozen=True)
class Attribution:
    """Contributions of the nodes under a region's windows to the logit of one class.

    Attributes
    ----------
    values : (F, h, w) float64
        In units of the logit, for each measured field; row 0 northernmost.
    rows, columns : slice
        Where the values lie in the whole grid of nodes.
    target : int
        The class, 0..K-1.
    logit, baseline_logit : float
        Mean of the class's logit minus the mean logit, for the fields and for the baseline.
    baseline : dict of str to float
        Value of each field in the baseline, in its unit.

    Examples
    --------
    >>> import numpy as np
    >>> found = Attribution(np.array([[[0.5, 1.0]]]), slice(0, 1), slice(0, 2), 3, 2.0, 0.5, {"residual_10km": 0.0})
    >>> found.gap, found.complete
    (0.0, True)
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
        """Completeness error: difference of the two logits minus the sum of all values."""
        return self.logit - self.baseline_logit - float(self.values.sum())

    @property
    def complete(self) -> bool:
        """Whether the completeness error is small compared with the difference of the two logits."""
        return abs(self.gap) <= max(TOLERANCE * abs(self.logit - self.baseline_logit), 1e-3)


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
    counted: NDArray[np.bool_] | None = None,
    target: int | None = None,
    steps: int = STEPS,
    device: str | torch.device = "cpu",
    progress: Progress = silent,
) -> Attribution:
    """Attribute a network's prediction for a region to the nodes of its input fields.

    Parameters
    ----------
    network : nn.Module
        (N, C, H, W) -> (N, K, H, W); is put into evaluation mode.
    fields : (F, ny, nx) float32
        The fields that `inputs` reads, in their units, row 0 northernmost; NaN where unknown.
    field_nodes_wsen, tile_size_px, out_lat, out_lon, inputs, device
        As in :func:`gravmap.learning.evaluation.mosaic.predict_logits`; the output nodes are the cells of the region.
    windows : dict of float to (n, 4) float64
        For each window size, degrees, the west, south, east, north of its windows over the region; sizes are weighted
        equally.
    counted : (h, w) bool, optional
        Cells of the region that the logit is averaged over, at least one; by default all.
    target : int, optional
        The class, 0..K-1; by default the one predicted for most of these cells.
    steps : int
        Number of Gauss-Legendre integration points between the baseline and the fields.
    progress : Progress
        Called with the number of finished forward and backward passes.

    Returns
    -------
    Attribution
        The baseline is each field's mean over the known nodes under the windows; unknown nodes contribute nothing.
        Channels of outcrop context and masks of layers are the same in the baseline and get no values: the attribution
        explains what gravity and layers add.

    References
    ----------
    Sundararajan, Taly & Yan (2017), Axiomatic attribution for deep networks, ICML, arXiv:1703.01365.

    Examples
    --------
    A network whose logits are the field and its negative:

    >>> import numpy as np, torch
    >>> from gravmap.learning.data.channels import FieldChannel, InputChannels
    >>> inputs = InputChannels((FieldChannel("residual_10km", "mGal", 1.0),))
    >>> network = torch.nn.Conv2d(1, 2, 1, bias=False)
    >>> network.weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    >>> axis = np.linspace(4, 0, 9)
    >>> field = np.tile(axis.astype(np.float32)[:, None], (1, 9))[None]
    >>> windows = {4.0: np.array([[0.0, 0.0, 4.0, 4.0]])}
    >>> found = integrated_gradients(
    ...     network, field, (0, 0, 4, 4), windows, 16, axis[:4], axis[::-1], inputs=inputs, target=0, steps=2
    ... )
    >>> found.complete, found.values.shape, bool(found.values[0, 0].sum() > 0)
    (True, (1, 9, 9), True)
    """
    network.eval()
    # bfloat16 has too few digits to compare the sum of the attributions with the difference of two logits.
    set_scoring_precision(network, "float32", device)
    rows, columns = _nodes_under(windows, field_nodes_wsen, fields.shape[1:])
    fixed = np.array([name not in inputs.measured for name in inputs.fields])
    known = np.isfinite(fields)
    filled = np.where(known, fields, np.array(inputs.fills, np.float32)[:, None, None])
    levels = [
        float(field[rows, columns][mask[rows, columns]].mean()) if mask[rows, columns].any() else 0.0
        for field, mask in zip(fields, known, strict=True)
    ]
    flat = np.where(known, np.array(levels, np.float32)[:, None, None], filled)
    flat[fixed] = filled[fixed]

    cells_in = np.ones((len(out_lat), len(out_lon)), np.bool_) if counted is None else counted
    passes = sum(len(boxes) for boxes in windows.values())
    whole, done = passes * (steps + 2), 0
    blended, cell_weights = [], {}
    for each in (filled, flat):
        mean = np.zeros(())
        for scale, boxes in windows.items():
            total, weight = accumulate_logits(
                network, each, field_nodes_wsen, boxes, tile_size_px, out_lat, out_lon, inputs=inputs, device=device
            )
            mean = mean + normalise(total, weight) / len(windows)
            # Contribution of a window's logit at a cell to the mean over cells and window sizes.
            cell_weights[scale] = cells_in / (
                np.maximum(weight, np.finfo(np.float32).tiny) * int(cells_in.sum()) * len(windows)
            )
            progress(done := done + len(boxes), whole, "forward passes")
        blended.append(mean)
    counts = np.bincount(blended[0].argmax(axis=0)[cells_in], minlength=len(blended[0]))
    chosen = int(counts.argmax()) if target is None else target
    logit, baseline_logit = (
        float((mean[chosen] - mean.mean(axis=0))[cells_in].mean(dtype=np.float64)) for mean in blended
    )

    points, weights = np.polynomial.legendre.leggauss(steps)  # on -1 to 1
    gradient = np.zeros(fields.shape)
    for scale, boxes in windows.items():
        for window in boxes:
            under_rows, under_columns, place = window_nodes(window, field_nodes_wsen, *fields.shape[1:])
            start, end = (torch.from_numpy(each[:, under_rows, under_columns]).to(device) for each in (flat, filled))
            down, right = interpolation_matrices(place, start.shape[1], start.shape[2], tile_size_px, start.device)
            on_map = window_cells(window, out_lat, out_lon)
            hann = window_weight(window, out_lat[on_map[0]], out_lon[on_map[1]]) * cell_weights[scale][on_map]
            cell_weight = torch.as_tensor(hann, dtype=torch.float32, device=start.device)
            for point, weight_of_point in zip((points + 1) / 2, weights / 2, strict=True):
                patch = torch.lerp(start, end, float(point)).requires_grad_(True)
                tile = inputs.prepare(down @ patch @ right.T, float(window[3] - window[1]) / tile_size_px)
                cells = resample_to_cells(window_logits(network, tile[None])[0].float(), window, out_lat, out_lon)
                output = ((cells[chosen] - cells.mean(dim=0)) * cell_weight).sum()
                (partial,) = torch.autograd.grad(output, patch)
                gradient[:, under_rows, under_columns] += weight_of_point * partial.cpu().numpy()
                progress(done := done + 1, whole, "gradients")
    values = ((filled - flat) * gradient)[~fixed][:, rows, columns]
    baseline = {name: level for name, level in zip(inputs.fields, levels, strict=True) if name in inputs.measured}
    return Attribution(values, rows, columns, chosen, logit, baseline_logit, baseline)


def _nodes_under(
    windows: Mapping[float, NDArray[np.float64]],
    nodes_wsen: NDArray[np.float64] | tuple[float, ...],
    shape: tuple[int, ...],
) -> tuple[slice, slice]:
    """Rows and columns of the nodes under windows."""
    reached = [window_nodes(window, nodes_wsen, *shape)[:2] for boxes in windows.values() for window in boxes]
    rows, columns = zip(*reached, strict=True)
    return (
        slice(min(each.start for each in rows), max(each.stop for each in rows)),
        slice(min(each.start for each in columns), max(each.stop for each in columns)),
    )
