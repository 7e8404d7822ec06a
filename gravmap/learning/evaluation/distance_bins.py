"""Scores against distance to the nearest outcrop that training saw: what cover does to a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.learning.data.dataset import IGNORE
from gravmap.learning.evaluation.metrics import confusion, scores

EDGES_KM = (0.0, 5.0, 10.0, 20.0, 30.0, 50.0, 75.0, 100.0, 150.0, 200.0)
"""Upper ends of the bins, km; the first holds places whose own label training saw, the last has no end."""

SHOWN = ("pa", "mpa", "fwiou")


def bin_of(distance_km: NDArray[np.floating]) -> NDArray[np.intp]:
    """Which bin each distance is in: 0 for 0 km, then ]0, 5], ]5, 10] ..., the last beyond every edge."""
    return np.searchsorted(np.array(EDGES_KM), distance_km, side="left")


def by_distance(
    truth: NDArray[np.int64],
    named: NDArray[np.int64],
    distance_km: NDArray[np.float64],
    names: Sequence[str],
    weight: NDArray[np.float64] | None = None,
    total: str = "places",
) -> list[dict[str, Any]]:
    """Scores bin by bin, of bins that hold a place.

    Parameters
    ----------
    truth, named : (n,) int64
        Classes 0..K-1; places where `truth` is IGNORE are left out.
    distance_km : (n,) float64
        To the nearest outcrop that training saw.
    names : sequence of str
        Of the K classes.
    weight, total
        As in :func:`~gravmap.learning.evaluation.metrics.confusion` and
        :func:`~gravmap.learning.evaluation.metrics.scores`.

    Returns
    -------
    list of dict
        From near to far: `from_km`, `to_km` (None: no end), `mean_km`, `places` (how many), `pa`, `mpa`, `fwiou`; of
        places with weights their sum too, under its own name.
    """
    number = bin_of(distance_km)
    rows = []
    for each in np.unique(number[truth != IGNORE]):
        inside = (number == each) & (truth != IGNORE)
        counts = None if weight is None else weight[inside]
        found = scores(confusion(truth[inside], named[inside], len(names), counts), names, total)
        rows.append(
            {
                "from_km": EDGES_KM[max(int(each) - 1, 0)],
                "to_km": EDGES_KM[each] if each < len(EDGES_KM) else None,
                "mean_km": float(np.average(distance_km[inside], weights=counts)),
                total: found[total],
                "places": int(inside.sum()),
                **{key: found[key] for key in SHOWN},
            }
        )
    return rows


def bin_name(row: Mapping[str, Any]) -> str:
    """A bin in words: "seen", "0-5 km", "over 200 km"."""
    if row["to_km"] is None:
        return f"over {row['from_km']:g} km"
    return f"{row['from_km']:g}-{row['to_km']:g} km" if row["to_km"] else "seen"
