"""Sliding-window inference: overlapping windows pass through the network and are blended into one grid of logits.

Scoring and prediction both use this module, so a score describes what a map shows.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gravmap.errors import DeviceError, out_of_memory
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.sampling.augmentation import Crop
from gravmap.learning.sampling.resampling import interpolate, patch_under
from gravmap.network.deform import save_memory
from gravmap.network.precision import autocast, scoring_precision
from gravmap.network.window_pass import window_logits
from gravmap.progress import Progress, silent

log = logging.getLogger(__name__)

HANN_FLOOR = 1e-4
"""Minimum weight of a window inside its bounds, so that cells at the edge of the region are still covered."""

NEAR_LIMIT = 1 / 8
"""A regular window closer than this fraction of its side to an outermost window is dropped."""

EDGE_DEG = 1e-9


def covering_windows(
    region_wsen: NDArray[np.float64] | tuple[float, ...],
    scale_deg: float,
    limit_wsen: NDArray[np.float64] | tuple[float, ...],
) -> NDArray[np.float64]:
    """Half-overlapping square windows that cover a region.

    Windows are aligned to multiples of half their side, independent of the region, so that two adjacent regions see
    their common boundary through the same windows. The outermost windows end at the limit.

    Parameters
    ----------
    region_wsen : sequence of 4 floats
        Region to cover: west, south, east, north, degrees.
    scale_deg : float
        Side of a window, degrees.
    limit_wsen : sequence of 4 floats
        Extent of the field, degrees. A window larger than this is centred on it.

    Returns
    -------
    ndarray, shape (n, 4), float64
        West, south, east, north; rows from north to south, each from west to east.

    Examples
    --------
    >>> covering_windows((81, 45, 83, 46), 2.0, (80, 42, 90, 48))[:, :2].tolist()
    [[80.0, 45.0], [81.0, 45.0], [82.0, 45.0], [80.0, 44.0], [81.0, 44.0], [82.0, 44.0]]
    """
    wests = _window_starts(region_wsen[0], region_wsen[2], limit_wsen[0], limit_wsen[2], scale_deg)
    souths = _window_starts(region_wsen[1], region_wsen[3], limit_wsen[1], limit_wsen[3], scale_deg)[::-1]
    return np.array([[west, south, west + scale_deg, south + scale_deg] for south in souths for west in wests])


def _window_starts(low: float, high: float, limit_low: float, limit_high: float, scale: float) -> list[float]:
    """Western (southern) sides of the windows along one axis."""
    if limit_high - limit_low <= scale:
        return [(limit_low + limit_high - scale) / 2]
    low, high = max(low, limit_low), min(high, limit_high)
    step, near = scale / 2, scale * NEAR_LIMIT
    first, last = limit_low, limit_high - scale
    # A regular window that nearly coincides with an outermost one is redundant.
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

    Every window is cut from the field as a training crop is (`tile_size_px` pixels across, bilinear between nodes,
    mirrored outside them). Its logits are averaged over the cells of the output grid where pixels are finer than these,
    else interpolated. Windows are weighted by a Hann window (two half-overlapping ones sum to one) with a minimum of
    :data:`HANN_FLOOR`.

    Parameters
    ----------
    network : nn.Module
        (N, C, H, W) -> (N, K, H, W); is put into evaluation mode.
    fields : ndarray, shape (F, ny, nx), float32
        The fields that `inputs` reads, at nodes, in their units, finite, row 0 northernmost.
    field_nodes_wsen : sequence of 4 floats
        Longitude of the first and last column, latitude of the last and first row (W S E N), degrees.
    windows : ndarray, shape (n, 4)
        West, south, east, north, degrees; sizes may be mixed.
    tile_size_px : int
        Pixels across a window.
    out_lat, out_lon : ndarray, shapes (my,) and (mx,)
        Nodes of the output grid, degrees, evenly spaced; `out_lat` descending for a north-up result.
    inputs : InputChannels
        Maps fields to the network's input.
    device : str or torch.device
        Device of the network.
    batch_size : int
        Windows per forward pass; the result does not depend on it.
    progress : Progress
        Called with the number of finished windows.

    Returns
    -------
    ndarray, shape (K, my, mx), float32
        NaN where no window reaches.

    Examples
    --------
    A network that returns its input gives the field back, in units of the channel's standard deviation:

    >>> import numpy as np, torch
    >>> from gravmap.learning.data.channels import FieldChannel, InputChannels
    >>> inputs = InputChannels((FieldChannel("residual_10km", "mGal", 2.0),))
    >>> lat, lon = np.linspace(46, 42, 5), np.linspace(80, 84, 5)
    >>> field = np.broadcast_to(lon.astype(np.float32), (1, 5, 5))
    >>> windows = covering_windows((80, 42, 84, 46), 4.0, (80, 42, 84, 46))
    >>> predict_logits(torch.nn.Identity(), field, (80, 42, 84, 46), windows, 64, lat, lon, inputs=inputs)[0, 2, 1:4]
    array([40.5, 41. , 41.5], dtype=float32)
    """
    return normalise(
        *accumulate_logits(
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
    )


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
    source = torch.from_numpy(np.ascontiguousarray(fields)).to(device)
    outputs = iter_window_logits(
        network,
        lambda rows, columns: source[:, rows, columns],
        (source.shape[1], source.shape[2]),
        field_nodes_wsen,
        windows,
        tile_size_px,
        out_lat,
        out_lon,
        inputs=inputs,
        device=device,
        batch_size=batch_size,
    )
    blended: BlendedLogits | None = None
    for done, (window, (logits,)) in enumerate(zip(windows, outputs, strict=True), 1):
        if blended is None:
            blended = BlendedLogits(len(logits), (len(out_lat), len(out_lon)))
        rows, columns = window_cells(window, out_lat, out_lon)
        blended.add(logits, window_weight(window, out_lat[rows], out_lon[columns]), rows, columns)
        if done % batch_size == 0 or done == len(windows):
            progress(done, len(windows))
    if blended is None:
        raise ValueError("no window to predict")
    return blended.total, blended.weight


def iter_window_logits(
    network: nn.Module,
    read_nodes: Callable[[slice, slice], Tensor],
    field_shape: tuple[int, int],
    field_nodes_wsen: NDArray[np.float64] | tuple[float, ...],
    windows: NDArray[np.float64],
    tile_size_px: int,
    out_lat: NDArray[np.float64],
    out_lon: NDArray[np.float64],
    *,
    inputs: InputChannels,
    device: str | torch.device = "cpu",
    batch_size: int = 1,
    flips: Sequence[tuple[int, ...]] = ((),),
) -> Iterator[list[NDArray[np.float32]]]:
    """Run a network on windows, one batch at a time, and resample its logits to the output cells.

    This is the only loop over windows: scores, maps and attributions get their logits from it or from its parts. The
    network computes in its scoring precision (:mod:`gravmap.network.precision`). If memory runs out, the number of
    windows per pass is halved; at one, torchvision's deformable convolution is replaced by our own.

    Parameters
    ----------
    network, field_nodes_wsen, windows, tile_size_px, out_lat, out_lon, inputs, device, batch_size
        As in :func:`predict_logits`.
    read_nodes : callable
        Given slices of rows and columns, the fields (F, h, w) at these nodes as a finite tensor.
    field_shape : (int, int)
        Rows and columns of the whole field.
    flips : sequence of tuple of int
        Axes of (N, C, H, W) that are flipped for each image of the test-time augmentation; the logits are flipped
        back. The default is one image that is not flipped.

    Yields
    ------
    list of (K, rows, columns) float32
        For each window, in order: one array per flip, at the cells of :func:`window_cells`.

    Raises
    ------
    DeviceError
        Not even one window fits into memory.
    """
    network.eval()

    # Not around `yield`: inference mode would stay on in the caller.
    @torch.inference_mode()
    def run(batch: NDArray[np.float64]) -> list[list[NDArray[np.float32]]]:
        tiles = []
        for window in batch:
            rows, columns, place = window_nodes(window, field_nodes_wsen, *field_shape)
            tiles.append(window_tile(read_nodes(rows, columns), place, window, tile_size_px, inputs))
        stacked = torch.stack(tiles).to(device)
        found: list[list[NDArray[np.float32]]] = [[] for _ in batch]
        for axes in flips:
            with autocast(scoring_precision(network), device):
                images = window_logits(network, stacked.flip(axes)).flip(axes)  # (n, K, T, T)
            for number, window in enumerate(batch):
                cells = resample_to_cells(images[number].float(), window, out_lat, out_lon)
                found[number].append(cells.cpu().numpy())
        return found

    first = 0
    while first < len(windows):
        batch = windows[first : first + batch_size]
        try:
            found = run(batch)
        except (RuntimeError, MemoryError) as error:
            if out_of_memory(error) is None:
                raise
            found = []
        if found:
            yield from found
            first += len(batch)
            continue
        # Outside the handler: until here the traceback keeps the tensors of the failed pass alive.
        torch.cuda.empty_cache()
        if len(batch) > 1:
            batch_size = len(batch) // 2
            log.warning("Out of memory with %d windows at a time; continuing with %d.", len(batch), batch_size)
        elif save_memory(network):
            log.warning("Out of memory with one window; continuing without torchvision, which takes more memory.")
        else:
            raise DeviceError(
                f"Out of memory with one window of {tile_size_px} x {tile_size_px} pixels.",
                "Use --device cpu, or a network trained with a smaller --size or --model.",
            )


class BlendedLogits:
    """Weighted mean of window logits on a grid, accumulated window by window.

    Parameters
    ----------
    classes : int
        K.
    shape : (int, int)
        Rows and columns of the grid.

    Attributes
    ----------
    total : (K, rows, columns) float32
        Sum of the weighted logits.
    weight : (rows, columns) float32
        Sum of the weights.

    Examples
    --------
    >>> import numpy as np
    >>> blended = BlendedLogits(1, (1, 3))
    >>> blended.add(np.full((1, 1, 2), 4.0), np.full((1, 2), 0.5), slice(0, 1), slice(0, 2))
    >>> blended.add(np.full((1, 1, 1), 8.0), np.full((1, 1), 0.5), slice(0, 1), slice(1, 2))
    >>> blended.mean()
    array([[[ 4.,  6., nan]]], dtype=float32)
    """

    def __init__(self, classes: int, shape: tuple[int, int]) -> None:
        self.total = np.zeros((classes, *shape), np.float32)
        self.weight = np.zeros(shape, np.float32)

    def add(self, logits: NDArray[np.float32], weight: NDArray[np.float32], rows: slice, columns: slice) -> None:
        """Add a window's logits (K, h, w) with weights (h, w) at rows and columns of the grid."""
        self.total[:, rows, columns] += logits * weight
        self.weight[rows, columns] += weight

    def mean(self) -> NDArray[np.float32]:
        """Weighted mean, (K, rows, columns); NaN where no window was added."""
        return normalise(self.total, self.weight)


def window_nodes(
    window: NDArray[np.float64], nodes_wsen: Any, rows: int, columns: int
) -> tuple[slice, slice, NDArray[np.float64]]:
    """Nodes under a window: rows and columns of the field, and the window's placement among them.

    Parameters
    ----------
    window : ndarray, shape (4,)
        West, south, east, north, degrees.
    nodes_wsen : sequence of 4 floats
        As in :func:`predict_logits`.
    rows, columns : int
        Shape of the whole field, row 0 northernmost.
    """
    west, south, east, north = (float(side) for side in window)
    # A crop without rotation, as in training: mirrored at the outermost nodes.
    crop = Crop((south + north) / 2, (west + east) / 2, (north - south) / 2, metric=False)
    return patch_under(crop.place(np.asarray(nodes_wsen, np.float64), columns - 1, rows - 1), columns, rows)


def window_tile(
    patch: Tensor, place: NDArray[np.float64], window: NDArray[np.float64], tile_size_px: int, inputs: InputChannels
) -> Tensor:
    """Network input of a window, (C, T, T), from the nodes (F, h, w) that :func:`window_nodes` selected."""
    return inputs.prepare(interpolate(patch, place, tile_size_px), float(window[3] - window[1]) / tile_size_px)


def window_cells(
    window: NDArray[np.float64], out_lat: NDArray[np.float64], out_lon: NDArray[np.float64]
) -> tuple[slice, slice]:
    """Rows and columns of the output nodes inside a window; two empty slices if there are none."""
    west, south, east, north = window
    rows = np.flatnonzero((out_lat >= south - EDGE_DEG) & (out_lat <= north + EDGE_DEG))
    columns = np.flatnonzero((out_lon >= west - EDGE_DEG) & (out_lon <= east + EDGE_DEG))
    if not rows.size or not columns.size:
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def resample_to_cells(
    logits: Tensor, window: NDArray[np.float64], out_lat: NDArray[np.float64], out_lon: NDArray[np.float64]
) -> Tensor:
    """One window's logits (K, T, T) at the output nodes inside it, (K, rows, columns); differentiable.

    They are averaged over the cells of the output grid where pixels are finer than these, else interpolated. Rows and
    columns are those of :func:`window_cells`.
    """
    rows, columns = window_cells(window, out_lat, out_lon)
    down, right = _relative_position(window, out_lat[rows], out_lon[columns])
    reduced = _average_along(logits, down, _spacing(out_lat) / float(window[3] - window[1]), dim=1)  # (K, rows, T)
    return _average_along(reduced, right, _spacing(out_lon) / float(window[2] - window[0]), dim=2)  # (K, rows, columns)


def window_weight(
    window: NDArray[np.float64], lat: NDArray[np.float64], lon: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Hann weight (rows, columns) of a window at nodes inside it."""
    down, right = _relative_position(window, lat, lon)
    return np.outer(_hann(down), _hann(right)).astype(np.float32)


def _relative_position(
    window: NDArray[np.float64], lat: NDArray[np.float64], lon: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Position of nodes in a window, down and right: 0 at the outer edge of the first pixel, 1 at that of the last."""
    west, south, east, north = window
    return np.clip((north - lat) / (north - south), 0, 1), np.clip((lon - west) / (east - west), 0, 1)


def _spacing(axis: NDArray[np.float64]) -> float:
    return abs(float(axis[1] - axis[0])) if len(axis) > 1 else 0.0


def _hann(position: NDArray[np.float64]) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.maximum(np.sin(np.pi * position) ** 2, HANN_FLOOR)
    return weights


def _average_along(values: Tensor, position: NDArray[np.float64], cell: float, dim: int) -> Tensor:
    """Average `values` along an axis over the output cells: exact integrals of the linear interpolant of the pixels.

    A cell is as wide as the output grid's step, narrower near the window's edge (so that it stays symmetric about its
    node and a linear trend is preserved), and has zero width, which is plain interpolation, where pixels are coarser
    than the output grid.
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
    fraction = np.where(half[:, None] > 0, averaged, np.maximum(1 - np.abs(offset), 0))
    weights = torch.as_tensor(fraction, dtype=values.dtype, device=values.device)
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
