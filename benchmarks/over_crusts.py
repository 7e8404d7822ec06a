"""Scores of class maps over several crusts: pooled, and paired by crust with a confidence interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import stdtrit

from gravmap.learning.evaluation.metrics import confusion, scores

MEASURES = ("pa", "mpa", "fwiou")
CONFIDENCE = 0.95


def by_crust(truth: np.ndarray, predicted: np.ndarray, crust: np.ndarray, crusts: int, classes: int) -> np.ndarray:
    """Confusion matrix of each crust, (crusts, K, K); `crust` is the number of the crust of each cell."""
    return np.stack([confusion(truth[crust == each], predicted[crust == each], classes) for each in range(crusts)])


def percent(matrix: np.ndarray) -> np.ndarray:
    """PA, MPA and FWIoU of a confusion matrix, percent; NaN if it is empty."""
    found = scores(matrix)
    return 100 * np.array([np.nan if found[measure] is None else found[measure] for measure in MEASURES])


def best_of(nulls: Mapping[str, np.ndarray]) -> np.ndarray:
    """The highest score of several confusion matrices, for each measure; percent."""
    return np.max([percent(each) for each in nulls.values()], axis=0)


def gains(network: np.ndarray, nulls: Mapping[str, np.ndarray]) -> np.ndarray:
    """Score of a network minus that of the best null model, by crust: (crusts with a cell, 3), percentage points.

    The best null model is chosen for each crust and measure, so that the gain is at most that over any single one.
    """
    present = [number for number, each in enumerate(network) if each.sum()]
    return np.array(
        [percent(network[each]) - best_of({name: values[each] for name, values in nulls.items()}) for each in present]
    ).reshape(-1, len(MEASURES))


def t_interval(values: np.ndarray) -> dict[str, Any]:
    """Mean over crusts and its 95 % confidence interval by Student's t; no interval for fewer than two crusts."""
    count = len(values)
    if count < 2:
        return {"mean": float(values.mean()) if count else None, "low": None, "high": None, "crusts": count}
    half = float(stdtrit(count - 1, 0.5 + CONFIDENCE / 2)) * float(values.std(ddof=1)) / count**0.5
    mean = float(values.mean())
    return {"mean": mean, "low": mean - half, "high": mean + half, "crusts": count, "above": int((values > 0).sum())}
