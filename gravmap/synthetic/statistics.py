"""Statistics of a gravity field and a geological map: standard deviations, spectrum, cover, classes.

The same functions apply to simulated and real regions. Keys are those of `gravmap.prior_check.quantities`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from gravmap.lattice import UNUSABLE

BANDS_KM = ((400, 100), (100, 40), (40, 20))
"""Longest and shortest wavelength of each band in which the slope of the power spectrum is computed."""

QUARTILES = (25, 50, 75)
LEAST_KNOWN = 0.75
"""Least fraction of known nodes or cells that a box must have."""

LEAST_OF_EACH = 0.05
"""Least fraction of outcrop, and of cover, among the nodes of a box for the two to be compared."""

_RINGS = 8
_NORMAL = 1.4826  # median absolute deviation to standard deviation, of a normal distribution


def field_statistics(
    fields: Mapping[str, NDArray[np.floating]], spacing_yx_km: tuple[float, float]
) -> dict[str, float]:
    """Standard deviations of a gravity field and its residuals, and slopes of its power spectrum.

    Parameters
    ----------
    fields : dict of str to (ny, nx) float
        ``bouguer``, mGal, and any ``residual_H``; NaN where unknown.
    spacing_yx_km : (float, float)
        Node spacing.

    Returns
    -------
    dict of str to float
        ``bouguer_std``, ``bouguer_range``, for each residual ``residual_H_std`` and ``residual_H_robust`` (1.4826
        times the median absolute deviation), mGal, and ``slope_400_100`` ... for the bands that the grid resolves.
        A field with less than three quarters of its nodes known is left out.
    """
    found: dict[str, float] = {}
    for name, values in fields.items():
        known = np.asarray(values, np.float64)[np.isfinite(values)]
        if known.size < LEAST_KNOWN * values.size:
            continue
        if name == "bouguer":
            found["bouguer_std"] = float(known.std())
            found["bouguer_range"] = float(np.ptp(known))
            for longest, shortest in BANDS_KM:
                slope = power_slope(values, spacing_yx_km, longest, shortest)
                if slope is not None:
                    found[f"slope_{longest}_{shortest}"] = slope
        elif name.startswith("residual_"):
            found[f"{name}_std"] = float(known.std())
            found[f"{name}_robust"] = float(_NORMAL * np.median(np.abs(known - np.median(known))))
    return found


def outcrop_statistics(fields: Mapping[str, NDArray[np.floating]], labels: NDArray[np.uint8]) -> dict[str, float]:
    """Difference of the mean residual between outcrop and cover.

    Light sediments, which cause lows over cover, increase this difference; roots of mountains decrease it. A network
    trained where one dominates misinterprets lows where the other does.

    Parameters
    ----------
    fields : dict of str to (ny, nx) float
        Any ``residual_H``, mGal; others are ignored. NaN where unknown.
    labels : (ny, nx) uint8
        At the same nodes: 0 cover, 1..K bedrock, 255 not usable.

    Returns
    -------
    dict of str to float
        For each residual ``residual_H_outcrop``, mGal: its mean over outcrop minus that over cover. Left out if less
        than a twentieth of the nodes is known outcrop, or known cover.
    """
    found: dict[str, float] = {}
    for name, values in fields.items():
        known = np.isfinite(values)
        outcrop, cover = known & (labels > 0) & (labels != UNUSABLE), known & (labels == 0)
        if name.startswith("residual_") and min(outcrop.mean(), cover.mean()) >= LEAST_OF_EACH:
            found[f"{name}_outcrop"] = float(
                values[outcrop].mean(dtype=np.float64) - values[cover].mean(dtype=np.float64)
            )
    return found


def power_slope(
    field: NDArray[np.floating], spacing_yx_km: tuple[float, float], longest_km: float, shortest_km: float
) -> float | None:
    """Exponent p of the radially averaged power spectrum, power ~ k^p, between two wavelengths.

    A plane is removed, a Hann window applied, and a line fitted to the logarithms of eight rings.

    Parameters
    ----------
    field : (ny, nx) float
        NaN is replaced by the mean.
    spacing_yx_km : (float, float)
        Node spacing.
    longest_km, shortest_km : float
        Wavelengths.

    Returns
    -------
    float or None
        None if the grid is smaller than the longest wavelength, coarser than half the shortest, or has no power there.
    """
    ny, nx = field.shape
    dy, dx = spacing_yx_km
    if min(ny * dy, nx * dx) < longest_km or 2 * max(dy, dx) > shortest_km:
        return None
    known = np.isfinite(field)
    values = np.where(known, field, np.mean(field[known], dtype=np.float64)).astype(np.float64)
    y, x = np.meshgrid(np.linspace(-1, 1, ny), np.linspace(-1, 1, nx), indexing="ij")
    plane = np.stack([np.ones_like(x), x, y], axis=-1).reshape(-1, 3)
    values -= (plane @ np.linalg.lstsq(plane, values.ravel(), rcond=None)[0]).reshape(values.shape)
    power = np.abs(np.fft.fft2(values * np.hanning(ny)[:, None] * np.hanning(nx))) ** 2
    k = np.hypot(np.fft.fftfreq(ny, dy)[:, None], np.fft.fftfreq(nx, dx)[None, :])
    middle, mean = [], []
    for low, high in pairwise(np.geomspace(1 / longest_km, 1 / shortest_km, _RINGS + 1)):
        ring = (k >= low) & (k < high)
        if ring.any() and power[ring].mean() > 0:
            middle.append(np.log(k[ring].mean()))
            mean.append(np.log(power[ring].mean()))
    return float(np.polyfit(middle, mean, 1)[0]) if len(middle) > 2 else None


def map_statistics(
    labels: NDArray[np.uint8],
    spacing_yx_km: tuple[float, float],
    classes: int,
    row_km2: NDArray[np.floating] | None = None,
) -> dict[str, float]:
    """Percentage of cover, distance from cover to outcrop, and percentages of the classes of a geological map.

    Parameters
    ----------
    labels : (ny, nx) uint8
        0 cover, 1..K bedrock, 255 not usable.
    spacing_yx_km : (float, float)
        Cell size.
    classes : int
        K.
    row_km2 : (ny,) float, optional
        Area of a cell of each row; by default all are alike.

    Returns
    -------
    dict of str to float
        ``cover_share``, percent of the usable area; ``outcrop_distance_25``, ``_50`` and ``_75``: quartiles over the
        covered cells of the distance to the nearest outcrop, km, if the map has both; ``share_1`` ... ``share_K``:
        percent of the outcrop.
        Empty if less than three quarters of the map are usable.
    """
    usable = labels != UNUSABLE
    if usable.mean() < LEAST_KNOWN:
        return {}
    cover, outcrop = labels == 0, usable & (labels > 0)
    weight = np.ones(len(labels)) if row_km2 is None else row_km2
    found = {"cover_share": float(100 * (weight @ cover.sum(axis=1)) / (weight @ usable.sum(axis=1)))}
    if outcrop.any():
        if cover.any():
            distance = distance_transform_edt(~outcrop, sampling=spacing_yx_km)[cover]
            for quartile, value in zip(QUARTILES, np.percentile(distance, QUARTILES), strict=True):
                found[f"outcrop_distance_{quartile}"] = float(value)
        percent = 100 * np.bincount(labels[outcrop], minlength=classes + 1)[1:] / outcrop.sum()
        found |= {f"share_{index}": float(value) for index, value in enumerate(percent, 1)}
    return found
