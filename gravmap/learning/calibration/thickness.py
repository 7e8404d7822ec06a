"""Thickness of the cover: its interval is calibrated on the tuning crusts, and it is scored on the test crusts.

The network gives the quantiles of 10, 50 and 90 %. On tuning crusts two factors are fitted by which the distances from
the median to the other two are multiplied, so that a tenth of the true values lies below the one and a tenth above the
other (split conformal prediction with normalised residuals).

References
----------
Lei, G'Sell, Rinaldo, Tibshirani and Wasserman (2018), Distribution-free predictive inference for regression, J. Am.
Stat. Assoc. 113, 1094-1111.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NotRequired

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from typing_extensions import TypedDict

from gravmap.learning.evaluation.under_cover import EVERYWHERE, Strata, in_stratum
from gravmap.network.outcrop_start import THICKNESS_QUANTILES
from gravmap.records import Positive, record

LEAST_WIDTH_KM = 0.01
"""Smallest distance from the median to a quantile that residuals are divided by."""

Quantiles = NDArray[np.float32]


@record
class ThicknessIntervalRecord(TypedDict):
    """``thickness`` in ``calibration.json``: the factors of :class:`ThicknessInterval`."""

    below: Positive
    above: Positive
    thickest_km: NotRequired[Positive]


@dataclass(frozen=True)
class ThicknessInterval:
    """Factors of the distances from the median to the other two quantiles.

    Attributes
    ----------
    below, above : float
        Of the distance to the 10 %, and to the 90 % quantile.
    thickest_km : float, optional
        Thickest cover of the tuning crusts: larger predictions are extrapolated.

    Examples
    --------
    >>> import numpy as np
    >>> ThicknessInterval(below=2.0, above=0.5).apply(np.array([[0.5, 1.0, 3.0]], np.float32)).tolist()
    [[0.0, 1.0, 2.0]]
    """

    below: float = 1.0
    above: float = 1.0
    thickest_km: float | None = None

    def apply(self, quantiles: Quantiles) -> Quantiles:
        """Calibrate quantiles (..., 3); none becomes negative."""
        low, median, high = np.moveaxis(quantiles, -1, 0)
        below = np.maximum(median - np.float32(self.below) * (median - low), 0)
        return np.stack((below, median, median + np.float32(self.above) * (high - median)), axis=-1)

    def to_dict(self) -> ThicknessIntervalRecord:
        """JSON-able."""
        factors: ThicknessIntervalRecord = {"below": round(self.below, 4), "above": round(self.above, 4)}
        if self.thickest_km is not None:
            factors["thickest_km"] = round(self.thickest_km, 3)
        return factors


def fit_thickness_interval(quantiles_km: Quantiles, thickness_km: NDArray[np.floating]) -> ThicknessInterval:
    """Fit the factors on tuning nodes.

    Parameters
    ----------
    quantiles_km : (n, 3) float32
        Of the network.
    thickness_km : (n,) float
        True thickness.
    """
    low, median, high = np.asarray(quantiles_km, np.float64).T
    lowest, _, highest = THICKNESS_QUANTILES
    below = np.quantile((median - thickness_km) / np.maximum(median - low, LEAST_WIDTH_KM), 1 - lowest)
    above = np.quantile((thickness_km - median) / np.maximum(high - median, LEAST_WIDTH_KM), highest)
    return ThicknessInterval(max(float(below), 0.05), max(float(above), 0.05), float(np.max(thickness_km)))


def thickness_scores(
    quantiles_km: Quantiles, thickness_km: NDArray[np.floating], strata: Strata | None = None
) -> dict[str, Any]:
    """Score a predicted thickness.

    Parameters
    ----------
    quantiles_km : (n, 3) or (n,) float
        Quantiles of 10, 50 and 90 %, or the thickness alone.
    thickness_km : (n,) float
        True thickness.
    strata : dict, optional
        Strata of the nodes (:func:`gravmap.learning.evaluation.under_cover.held_out_strata`).

    Returns
    -------
    dict
        ``all`` and, for each kind of stratum, its names: ``nodes``, ``rmse_m``, ``bias_m`` (predicted minus true) and
        ``mae_m`` of the median, metres, Spearman's ``rank_correlation`` and, with quantiles, ``coverage`` (fraction of
        the nodes inside the 80 % interval) and ``width_m`` (its mean width). None where there is no node.

    Examples
    --------
    >>> import numpy as np
    >>> true = np.array([0.5, 1.0, 2.0, 3.0])
    >>> found = thickness_scores(np.stack([0.5 * true, true + 0.1, 2 * true], axis=1), true)
    >>> found["all"]["rmse_m"], found["all"]["rank_correlation"], found["all"]["coverage"]
    (100.0, 1.0, 1.0)
    """
    median = quantiles_km if quantiles_km.ndim == 1 else quantiles_km[:, 1]
    inside = (
        None if quantiles_km.ndim == 1 else (quantiles_km[:, 0] <= thickness_km) & (thickness_km <= quantiles_km[:, 2])
    )
    found: dict[str, Any] = {}
    kinds: Mapping[str, Any] = {"": (thickness_km, EVERYWHERE), **(strata or {})}
    for kind, (values, by_name) in kinds.items():
        table = {}
        for name, stratum in by_name.items():
            chosen = in_stratum(values, stratum)
            table[name] = _scores(median, quantiles_km, thickness_km, inside, chosen)
        found |= {kind: table} if kind else table
    return found


def _scores(
    median: NDArray[np.floating],
    quantiles_km: Quantiles,
    thickness_km: NDArray[np.floating],
    inside: NDArray[np.bool_] | None,
    chosen: NDArray[np.bool_],
) -> dict[str, Any]:
    """Scores of some nodes."""
    error = 1000 * (np.asarray(median[chosen], np.float64) - thickness_km[chosen])
    count = int(chosen.sum())
    if not count:
        return {"nodes": 0} | dict.fromkeys(("rmse_m", "bias_m", "mae_m", "rank_correlation"))
    varies = count > 1 and np.ptp(median[chosen]) > 0 and np.ptp(thickness_km[chosen]) > 0
    found: dict[str, Any] = {
        "nodes": count,
        "rmse_m": round(float(np.sqrt(np.mean(error**2))), 1),
        "bias_m": round(float(error.mean()), 1),
        "mae_m": round(float(np.abs(error).mean()), 1),
        "rank_correlation": (
            round(float(spearmanr(median[chosen], thickness_km[chosen]).statistic), 4) if varies else None
        ),
    }
    if inside is not None:
        width = 1000 * (quantiles_km[chosen, 2] - quantiles_km[chosen, 0])
        found |= {"coverage": round(float(inside[chosen].mean()), 4), "width_m": round(float(width.mean()), 1)}
    return found
