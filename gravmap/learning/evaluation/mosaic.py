"""Overlapping windows, each seen by the network, blended into one grid of logits.

Scoring and prediction share this file: what is scored is what is drawn on a map.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gravmap.learning.data.channels import InputChannels
from gravmap.learning.sampling.augmentation import Crop
from gravmap.learning.sampling.resampling import interpolate, patch_under
from gravmap.progress import Progress, silent

HANN_FLOOR = 1e-4
"""Least weight of a window at its rim, so that a rim no other window reaches is still covered."""

NEAR_LIMIT = 1 / 8
"""A regular window this share of its side from one at the limit gives way to that."""

EDGE_DEG = 1e-9


def covering_windows(
    region_wsen: NDArray[np.float64] | tuple[float, ...],
    scale_deg: float,
    limit_wsen: NDArray[np.float64] | tuple[float, ...],
) -> NDArray[np.float64]:
    """Half-overlapping square windows that cover a region.

    They stand on whole multiples of half their side, wherever the region begins, so that two regions that touch
    see their common ground through the same windows; the outermost ones end at the limit.

    Parameters
    ----------
    region_wsen : sequence of 4 floats
        The region to cover, degrees.
    scale_deg : float
        Side of a window, degrees.
    limit_wsen : sequence of 4 floats
        Where there is a field, degrees. A window larger than the limit is centred on it.

    Returns
    -------
    ndarray, shape (n, 4), float64
        West, south, east, north; rows from north to south, each from west to east.
    """
    wests = _starts(region_wsen[0], region_wsen[2], limit_wsen[0], limit_wsen[2], scale_deg)
    souths = _starts(region_wsen[1], region_wsen[3], limit_wsen[1], limit_wsen[3], scale_deg)[::-1]
    return np.array([[west, south, west + scale_deg, south + scale_deg] for south in souths for west in wests])


def _starts(low: float, high: float, limit_low: float, limit_high: float, scale: float) -> list[float]:
    """Western (southern) sides of the windows along one axis."""
    if limit_high - limit_low <= scale:
        return [(limit_low + limit_high - scale) / 2]
    low, high = max(low, limit_low), min(high, limit_high)
    step, near = scale / 2, scale * NEAR_LIMIT
    first, last = limit_low, limit_high - scale
    # A regular window that nearly coincides with an outermost one is left out: the two would see the same.
    regular = np.arange(math.ceil((first + near) / step - 1e-9), math.floor((last - near) / step + 1e-9) + 1) * step
    starts = [first, *regular.tolist(), *([last] if last - first > EDGE_DEG else [])]
    return [round(start, 9) for start in starts if start < high - EDGE_DEG and start + scale > low + EDGE_DEG]


def predict_logits(
    network: nn.Module,
    fields: NDArray[np.float32],
    field_nodes_wsen: NDArray[np.float64] | tuple[float, ...],
    windows: NDArray[np.float64],
    tile_size_px: int,
    out_lat: NDArray[np.float64],
    out_lon: NDArray[np.float64],
    *,
    inputs: InputChannels,
    device: str | torch.device = "cpu",
    batch_size: int = 1,
    progress: Progress = silent,
) -> NDArray[np.float32]:
    """Logits of a network on a grid, blended over overlapping windows.

    Every window is cut from the field as a training crop is (`tile_size_px` pixels across, bilinear
    between nodes, mirrored outside them); its logits are averaged over the cells of the output
    grid where pixels are finer than these, else interpolated; windows are weighted by a Hann window
    (two half-overlapping ones sum to one) that never falls below :data:`HANN_FLOOR` inside.

    Parameters
    ----------
    network : nn.Module
        (N, C, H, W) -> (N, K, H, W); is put into evaluation mode.
    fields : ndarray, shape (F, ny, nx), float32
        The fields that `inputs` reads, at nodes, in their units, finite, row 0 northernmost.
    field_nodes_wsen : sequence of 4 floats
        First column's and last column's longitude, last row's and first row's latitude (W S E N), degrees.
    windows : ndarray, shape (n, 4)
        West, south, east, north, degrees; sizes may be mixed.
    tile_size_px : int
        Pixels across a window.
    out_lat, out_lon : ndarray, shapes (my,) and (mx,)
        Nodes of the output grid, degrees, evenly spaced; `out_lat` descending for a north-up result.
    inputs : InputChannels
        How fields become the network's input.
    device : str or torch.device
        Where the network runs.
    batch_size : int
        Windows per call of the network; the result does not depend on it.
    progress : Progress
        Told the windows done.

    Returns
    -------
    ndarray, shape (K, my, mx), float32
        NaN where no window reaches.
    """
    total, weight = accumulate_logits(
        network,
        fields,
        field_nodes_wsen,
        windows,
        tile_size_px,
        out_lat,
        out_lon,
        inputs=inputs,
        device=device,
        batch_size=batch_size,
        progress=progress,
    )
    return normalise(total, weight)


def normalise(total: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide weighted sums (K, my, mx) by weights (my, mx); NaN where the weight is zero."""
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1), np.float32(np.nan)).astype(np.float32)


def accumulate_logits(
    network: nn.Module,
    fields: NDArray[np.float32],
    field_nodes_wsen: NDArray[np.float64] | tuple[float, ...],
    windows: NDArray[np.float64],
    tile_size_px: int,
    out_lat: NDArray[np.float64],
    out_lon: NDArray[np.float64],
    *,
    inputs: InputChannels,
    device: str | torch.device = "cpu",
    batch_size: int = 1,
    progress: Progress = silent,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weighted sums (K, my, mx) and weights (my, mx) of :func:`predict_logits`; those of several processes add up."""
    network.eval()
    source = torch.from_numpy(np.ascontiguousarray(fields)).to(device)
    total: NDArray[np.float32] | None = None
    weight = np.zeros((len(out_lat), len(out_lon)), np.float32)
    with torch.inference_mode():
        for first in range(0, len(windows), batch_size):
            batch = windows[first : first + batch_size]
            tiles = []
            for window in batch:
                rows, columns, place = window_patch(window, field_nodes_wsen, *source.shape[1:])
                tiles.append(window_input(source[:, rows, columns], place, window, tile_size_px, inputs))
            logits = network(torch.stack(tiles)).float()  # (n, K, T, T)
            if total is None:
                total = np.zeros((logits.shape[1], *weight.shape), np.float32)
            for window, tile_logits in zip(batch, logits, strict=True):
                rows, columns = window_cells(window, out_lat, out_lon)
                hann = window_weight(window, out_lat[rows], out_lon[columns])
                total[:, rows, columns] += to_cells(tile_logits, window, out_lat, out_lon) * hann
                weight[rows, columns] += hann
            progress(min(first + batch_size, len(windows)), len(windows))
    if total is None:
        raise ValueError("no window to predict")
    return total, weight


def window_patch(
    window: NDArray[np.float64], nodes_wsen: Any, rows: int, columns: int
) -> tuple[slice, slice, NDArray[np.float64]]:
    """The nodes that a window needs: rows and columns of a field, and the window's place among them.

    Parameters
    ----------
    window : ndarray, shape (4,)
        West, south, east, north, degrees.
    nodes_wsen : sequence of 4 floats
        As in :func:`predict_logits`.
    rows, columns : int
        Of the whole field, row 0 northernmost.
    """
    west, south, east, north = (float(side) for side in window)
    # A crop that is not turned: what training cuts, mirrored at the outermost nodes like there.
    crop = Crop((south + north) / 2, (west + east) / 2, (north - south) / 2, metric=False)
    return patch_under(crop.place(np.asarray(nodes_wsen, np.float64), columns - 1, rows - 1), columns, rows)


def window_input(
    patch: Tensor, place: NDArray[np.float64], window: NDArray[np.float64], tile_size_px: int, inputs: InputChannels
) -> Tensor:
    """What the network reads of a window, (C, T, T), from the nodes (F, h, w) that :func:`window_patch` chose."""
    return inputs.prepare(interpolate(patch, place, tile_size_px), float(window[3] - window[1]) / tile_size_px)


def window_cells(
    window: NDArray[np.float64], out_lat: NDArray[np.float64], out_lon: NDArray[np.float64]
) -> tuple[slice, slice]:
    """Rows and columns of the output nodes inside a window; both empty where there is none."""
    west, south, east, north = window
    rows = np.flatnonzero((out_lat >= south - EDGE_DEG) & (out_lat <= north + EDGE_DEG))
    columns = np.flatnonzero((out_lon >= west - EDGE_DEG) & (out_lon <= east + EDGE_DEG))
    if not rows.size or not columns.size:
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def to_cells(
    logits: Tensor, window: NDArray[np.float64], out_lat: NDArray[np.float64], out_lon: NDArray[np.float64]
) -> NDArray[np.float32]:
    """One window's logits (K, T, T) at the output nodes inside it, (K, rows, columns) of :func:`window_cells`."""
    cells: NDArray[np.float32] = on_cells(logits, window, out_lat, out_lon).cpu().numpy()
    return cells


def on_cells(
    logits: Tensor, window: NDArray[np.float64], out_lat: NDArray[np.float64], out_lon: NDArray[np.float64]
) -> Tensor:
    """What :func:`to_cells` gives, as a tensor on the device of the logits that gradients pass through."""
    rows, columns = window_cells(window, out_lat, out_lon)
    down, right = _inside(window, out_lat[rows], out_lon[columns])
    reduced = _reduce(logits, down, _spacing(out_lat) / float(window[3] - window[1]), dim=1)  # (K, rows, T)
    return _reduce(reduced, right, _spacing(out_lon) / float(window[2] - window[0]), dim=2)  # (K, rows, columns)


def window_weight(
    window: NDArray[np.float64], lat: NDArray[np.float64], lon: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Hann weight (rows, columns) of a window at nodes inside it."""
    down, right = _inside(window, lat, lon)
    return np.outer(_hann(down), _hann(right)).astype(np.float32)


def _inside(
    window: NDArray[np.float64], lat: NDArray[np.float64], lon: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where nodes lie in a window, down and to the right: 0 at the first pixel's outer edge, 1 at the last one's."""
    west, south, east, north = window
    return np.clip((north - lat) / (north - south), 0, 1), np.clip((lon - west) / (east - west), 0, 1)


def _spacing(axis: NDArray[np.float64]) -> float:
    return abs(float(axis[1] - axis[0])) if len(axis) > 1 else 0.0


def _hann(position: NDArray[np.float64]) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.maximum(np.sin(np.pi * position) ** 2, HANN_FLOOR)
    return weights


def _reduce(values: Tensor, position: NDArray[np.float64], cell: float, dim: int) -> Tensor:
    """Average `values` along an axis over the output cells: exact integrals of the line through the pixel centres.

    A cell is as wide as the output grid's step, narrower near the window's rim (so that it stays
    symmetric about its node and a slope is kept), and of no width, which is plain interpolation, where
    pixels are coarser than the output grid.
    """
    count = values.shape[dim]
    centre = position * count - 0.5  # in pixels, 0 at the first pixel's centre
    half = np.minimum(cell * count, 2 * np.minimum(position, 1 - position) * count) / 2
    half = np.where((cell * count > 1) & (half > 1e-3), half, 0.0)
    first = np.floor(centre - half).astype(np.int64)
    taps = int(np.max(np.floor(centre + half).astype(np.int64) - first)) + 2
    pixels = first[:, None] + np.arange(taps)  # (m, taps)
    offset = pixels - centre[:, None]
    width = np.where(half > 0, 2 * half, 1.0)[:, None]
    averaged = (_hat_integral(offset + half[:, None]) - _hat_integral(offset - half[:, None])) / width
    share = np.where(half[:, None] > 0, averaged, np.maximum(1 - np.abs(offset), 0))
    weights = torch.as_tensor(share, dtype=values.dtype, device=values.device)
    index = torch.as_tensor(
        np.clip(pixels, 0, count - 1), device=values.device
    )  # clamped: flat beyond the outer centres
    shape = (-1, 1) if dim == 1 else (-1,)
    out = values.index_select(dim, index[:, 0]) * weights[:, 0].reshape(shape)
    for tap in range(1, taps):
        out += values.index_select(dim, index[:, tap]) * weights[:, tap].reshape(shape)
    return out


def _hat_integral(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integral of max(1 - |t|, 0) from minus infinity to x."""
    x = np.clip(x, -1, 1)
    return 0.5 + x - np.sign(x) * x**2 / 2
