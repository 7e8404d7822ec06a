"""Scores of a map against a reference, all computed from one confusion matrix; by distance to outcrop too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """Confusion matrix: number (or weight) of places by true and predicted class.

    Parameters
    ----------
    truth, predicted : ndarray of int, same shape
        Classes 0..K-1 as the network counts them; places where `truth` is IGNORE are left out.
    classes : int
        K.
    weight : ndarray of float, same shape, optional
        Weight of a place, such as its area in km²; by default 1.

    Returns
    -------
    ndarray, shape (K, K), int64, or float64 with weights
        Row: true class; column: predicted class.

    Raises
    ------
    ValueError
        A counted place holds a class outside 0..K-1.

    Examples
    --------
    >>> import numpy as np
    >>> confusion(np.array([0, 0, 1, IGNORE]), np.array([0, 1, 1, 1]), classes=2)
    array([[1, 1],
           [0, 1]])
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

    Means are over the classes that occur in the reference (T_i > 0); `mpa_all_classes` divides by K, as if the recall
    of an absent class were 0.

    Parameters
    ----------
    matrix : ndarray, shape (K, K), int64 or float64
        From :func:`confusion`.
    names : sequence of str, optional
        Keys of `per_class`; by default the labels "1".."K".
    total : str
        Name of the sums: `places`, which are integers, or `km2`.

    Returns
    -------
    dict
        JSON-able; `places`, `pa`, `mpa`, `mpa_all_classes`, `miou`, `fwiou`, `kappa`, `macro_f1` as fractions (None if
        nothing was counted), `absent` (names of classes not in the reference) and `per_class` (recall, precision, iou,
        f1, places).

    References
    ----------
    Cohen (1960), doi:10.1177/001316446002000104, for kappa.

    Examples
    --------
    >>> import numpy as np
    >>> found = scores(np.array([[3, 1], [0, 4]]), ["granite", "basalt"])
    >>> found["pa"], found["mpa"], round(found["fwiou"], 3), found["per_class"]["granite"]["recall"]
    (0.875, 0.875, 0.775, 0.75)
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
        "absent": [name for name, occurs in zip(names, present, strict=True) if not occurs],
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
    """A float for JSON, which has no NaN."""
    return float(value) if np.isfinite(value) else None


EDGES_KM = (0.0, 5.0, 10.0, 20.0, 30.0, 50.0, 75.0, 100.0, 150.0, 200.0)
"""Upper edges of the distance bins, km. The first bin holds nodes whose own label was used in training; the last bin
has no upper edge."""

BIN_MEASURES = ("pa", "mpa", "fwiou")


def distance_bin(distance_km: NDArray[np.floating]) -> NDArray[np.intp]:
    """Index of the bin of each distance: 0 for 0 km, then ]0, 5], ]5, 10] ..., the last beyond every edge."""
    return np.searchsorted(np.array(EDGES_KM), distance_km, side="left")


def scores_by_distance(
    truth: NDArray[np.int64],
    predicted: NDArray[np.int64],
    distance_km: NDArray[np.float64],
    names: Sequence[str],
    weight: NDArray[np.float64] | None = None,
    total: str = "places",
) -> list[dict[str, Any]]:
    """Scores by distance to the nearest outcrop used in training, for each bin that holds a place.

    Parameters
    ----------
    truth, predicted : (n,) int64
        Classes 0..K-1; places where `truth` is IGNORE are left out.
    distance_km : (n,) float64
        Distance to the nearest outcrop used in training.
    names : sequence of str
        Names of the K classes.
    weight, total
        As in :func:`confusion` and :func:`scores`.

    Returns
    -------
    list of dict
        From near to far: `from_km`, `to_km` (None: no upper edge), `mean_km`, `places` (number), `pa`, `mpa`, `fwiou`;
        with weights also their sum, under the name `total`.

    Examples
    --------
    >>> import numpy as np
    >>> truth, predicted = np.array([0, 1, 1]), np.array([0, 1, 0])
    >>> rows = scores_by_distance(truth, predicted, np.array([0.0, 7.0, 8.0]), ["granite", "basalt"])
    >>> [(distance_bin_label(row), row["places"], row["pa"]) for row in rows]
    [('seen', 1, 1.0), ('5-10 km', 2, 0.5)]
    """
    number = distance_bin(distance_km)
    rows = []
    for each in np.unique(number[truth != IGNORE]):
        inside = (number == each) & (truth != IGNORE)
        counts = None if weight is None else weight[inside]
        found = scores(confusion(truth[inside], predicted[inside], len(names), counts), names, total)
        rows.append(
            {
                "from_km": EDGES_KM[max(int(each) - 1, 0)],
                "to_km": EDGES_KM[each] if each < len(EDGES_KM) else None,
                "mean_km": float(np.average(distance_km[inside], weights=counts)),
                total: found[total],
                "places": int(inside.sum()),
                **{key: found[key] for key in BIN_MEASURES},
            }
        )
    return rows


def distance_bin_label(row: Mapping[str, Any]) -> str:
    """Text for a bin: "seen" (used in training), "0-5 km", "over 200 km"."""
    if row["to_km"] is None:
        return f"over {row['from_km']:g} km"
    return f"{row['from_km']:g}-{row['to_km']:g} km" if row["to_km"] else "seen"
