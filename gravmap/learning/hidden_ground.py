"""Where held-out nodes lie: how far from mapped outcrop, and under how much cover where that is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from gravmap.learning.area import TEST, TUNE, Area
from gravmap.learning.grounds import Grounds
from gravmap.learning.held_out import HeldOut
from gravmap.learning.outcrop import DISTANCE, is_context, told_km

Values = NDArray[np.float64]
Strata = Mapping[str, tuple[Values, Mapping[str, tuple[float, float]]]]
"""What nodes are sorted by: their values in kilometres, and the strata."""

BY_DISTANCE = {"under 10 km": (0.0, 10.0), "10 to 30 km": (10.0, 30.0), "over 30 km": (30.0, np.inf)}
"""Kilometres from mapped outcrop: from, which is in the stratum before, to, which is in."""

BY_COVER = {"under 0.5 km": (0.0, 0.5), "0.5 to 2 km": (0.5, 2.0), "over 2 km": (2.0, np.inf)}
"""Kilometres of cover; ends as in :data:`BY_DISTANCE`."""


def inside(values: Values, stratum: tuple[float, float]) -> NDArray[np.bool_]:
    """Which values lie in a stratum; 0 lies in the first."""
    above, most = stratum
    found: NDArray[np.bool_] = (values <= most) & ((values > above) | (above == 0))
    return found


def distance_km(area: Area) -> Values:
    """Distance of each node to mapped outcrop, out of the context; (ny, nx)."""
    return told_km(area.fields[area.channels.index(DISTANCE)])


def strata_of(grounds: Grounds, held: HeldOut) -> Strata:
    """What held-out nodes may be sorted by.

    Parameters
    ----------
    grounds : Grounds
        Any.
    held : HeldOut
        Of these grounds.

    Returns
    -------
    dict
        ``distance``, where the grounds have outcrop as context, and ``cover``, where its thickness is known: kilometres
        at each of the n nodes, and the strata they are sorted into.
    """
    found: dict[str, tuple[Values, Mapping[str, tuple[float, float]]]] = {}
    if any(map(is_context, grounds.first.channels)):
        found["distance"] = _at_nodes(grounds, held, distance_km), BY_DISTANCE
    if grounds.cover_m:
        known = {id(area): values for area, values in zip((*grounds.tune, *grounds.test), grounds.cover_m, strict=True)}
        found["cover"] = _at_nodes(grounds, held, lambda area: known[id(area)] / 1000.0), BY_COVER
    return found


def _at_nodes(grounds: Grounds, held: HeldOut, values: Callable[[Area], NDArray[np.floating]]) -> Values:
    """Values of each ground's grid at its held-out nodes."""
    found = np.zeros(len(held.target))
    for number, (area, _) in enumerate(grounds.held(TUNE, TEST)):
        here = held.place[:, 0] == number
        if here.any():
            found[here] = np.asarray(values(area), np.float64).ravel()[held.place[here, 1]]
    return found
