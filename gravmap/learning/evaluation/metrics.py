"""Scores of a map against a reference, all from one confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.learning.data.dataset import IGNORE


def confusion(
    truth: NDArray[np.integer],
    predicted: NDArray[np.integer],
    classes: int,
    weight: NDArray[np.floating] | None = None,
) -> NDArray[Any]:
    """Count how often each true class was predicted as each class, or add up the ground.

    Parameters
    ----------
    truth, predicted : ndarray of int, same shape
        Classes 0..K-1 as the network counts them; places where `truth` is IGNORE are left out.
    classes : int
        K.
    weight : ndarray of float, same shape, optional
        What a place counts, such as its area in km²; by default all alike.

    Returns
    -------
    ndarray, shape (K, K), int64, or float64 where places have weights
        Row: true class; column: predicted class.

    Raises
    ------
    ValueError
        A counted place holds a class outside 0..K-1.
    """
    counted = truth != IGNORE
    true_class, predicted_class = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
    for values in (true_class, predicted_class):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(f"classes {values.min()}..{values.max()} in a confusion of {classes} classes")
    counts = None if weight is None else weight[counted]
    pairs = np.bincount(true_class * classes + predicted_class, weights=counts, minlength=classes * classes)
    return pairs.reshape(classes, classes).astype(np.int64 if weight is None else np.float64)


def scores(matrix: NDArray[Any], names: Sequence[str] | None = None, total: str = "places") -> dict[str, Any]:
    """Scores of a confusion matrix p (p_ij: places of true class i predicted as j).

    With T_i = sum_j p_ij, P_i = sum_j p_ji and IoU_i = p_ii / (T_i + P_i - p_ii)::

        PA    = sum_i p_ii / sum_i T_i
        MPA   = mean_i p_ii / T_i
        mIoU  = mean_i IoU_i
        FWIoU = sum_i T_i IoU_i / sum_i T_i

    Means run over the classes that occur in the reference (T_i > 0); `mpa_all_classes` divides by K,
    as if an absent class had been missed.

    Parameters
    ----------
    matrix : ndarray, shape (K, K), int64 or float64
        From :func:`confusion`.
    names : sequence of str, optional
        Keys of `per_class`; by default the labels "1".."K".
    total : str
        What its sums are called: `places`, which are whole numbers, or `km2`.

    Returns
    -------
    dict
        JSON-able; `places`, `pa`, `mpa`, `mpa_all_classes`, `miou`, `fwiou`, `kappa`, `macro_f1` as shares
        of one (None where nothing was counted), `absent` (names of classes not in the reference) and
        `per_class` (recall, precision, iou, f1, places).

    References
    ----------
    Cohen (1960), doi:10.1177/001316446002000104, for kappa.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    names = [str(number + 1) for number in range(len(matrix))] if names is None else list(names)
    hit, true_places, predicted_places = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    whole, present = matrix.sum(), matrix.sum(1) > 0
    sized = int if total == "places" else float
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, precision = hit / true_places, hit / predicted_places
        iou = hit / (true_places + predicted_places - hit)
        f1 = 2 * hit / (true_places + predicted_places)
        chance = (true_places * predicted_places).sum() / whole**2
        kappa = (hit.sum() / whole - chance) / (1 - chance)
    empty = whole == 0
    return {
        total: sized(whole),
        "pa": None if empty else float(hit.sum() / whole),
        "mpa": None if empty else float(recall[present].mean()),
        "mpa_all_classes": None if empty else float(recall[present].sum() / len(matrix)),
        "miou": None if empty else float(iou[present].mean()),
        "fwiou": None if empty else float((true_places * np.nan_to_num(iou)).sum() / whole),
        "kappa": _number(kappa),
        "macro_f1": None if empty else float(f1[present].mean()),
        "absent": [name for name, there in zip(names, present, strict=True) if not there],
        "per_class": {
            name: {
                "recall": _number(recall[index]),
                "precision": _number(precision[index]),
                "iou": _number(iou[index]) if present[index] else None,
                "f1": _number(f1[index]) if present[index] else None,
                total: sized(true_places[index]),
            }
            for index, name in enumerate(names)
        },
    }


def _number(value: float) -> float | None:
    """A float for JSON, which knows no NaN."""
    return float(value) if np.isfinite(value) else None
