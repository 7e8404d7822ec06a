"""Temperatures that follow the distance to mapped outcrop: near it and far from it a network errs in different ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from gravmap.learning.data.outcrop_context import DISTANCE_KM

KNOTS_KM = (4.0, 10.0, 20.0, 40.0, 80.0)
"""Between these 1/T runs straight in log(1 + km / 10), what the network itself reads; outside it stays."""

FEWEST_AT_KNOT = 500.0
"""A knot that fewer nodes speak for gives way to its neighbours; a node between two knots counts for both in part."""

MOST_NODES = 50_000
"""Of more nodes as many are asked, evenly spread: neighbours say much the same."""

COLDEST, HOTTEST = 0.1, 10.0
"""Temperatures are looked for between these."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class DistanceTemperature:
    """What logits are divided by, at any distance to mapped outcrop.

    Attributes
    ----------
    km : tuple of float
        Knots, ascending.
    temperature : tuple of float
        At the knots; rises or falls all the way.
    """

    km: tuple[float, ...]
    temperature: tuple[float, ...]

    def __post_init__(self) -> None:
        ascending = all(0 <= low < high for low, high in zip(self.km, self.km[1:], strict=False))
        if len(self.km) != len(self.temperature) or len(self.km) < 2 or not ascending:
            raise ValueError("knots of temperatures that make no sense")
        if not all(0 < value < 1e6 for value in self.temperature):
            raise ValueError("temperatures that make no sense")

    def at(self, distance_km: NDArray[np.floating]) -> Values:
        """Temperatures at distances, km; of the same shape."""
        sharpness = 1 / np.array(self.temperature)
        return np.asarray(1 / np.interp(_scaled(distance_km), _scaled(np.array(self.km)), sharpness))

    def to_dict(self) -> dict[str, list[float]]:
        """JSON-able."""
        return {"km": list(self.km), "temperature": list(self.temperature)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> DistanceTemperature:
        """What :meth:`to_dict` gave.

        Raises
        ------
        ValueError, KeyError, TypeError
            It is damaged.
        """
        return cls(*(tuple(float(each) for each in record[name]) for name in ("km", "temperature")))


def fit_distance_temperature(
    logits: NDArray[np.float32],
    target: NDArray[np.int64],
    weight: Values,
    distance_km: Values,
    start: float = 1.0,
) -> DistanceTemperature | None:
    """The temperatures, rising or falling with distance, that make softmax(logits / T) likeliest on what is known.

    1/T is what logits are multiplied by, and it is linear in its values at the knots; the log loss is convex in these,
    and stays so when they may only rise, or only fall. So either has one minimum, and the lower of the two is taken.

    Parameters
    ----------
    logits : (n, K) float32
        What the network says.
    target : (n,) int64
        True classes, 0..K-1.
    weight : (n,) float64
        How much each place counts.
    distance_km : (n,) float64
        To mapped outcrop.
    start : float
        A temperature near the answer, such as the one that fits all.

    Returns
    -------
    DistanceTemperature or None
        None where fewer than two knots have :data:`FEWEST_AT_KNOT` nodes each: then one temperature is all there is.

    References
    ----------
    Guo et al. (2017), arXiv:1706.04599, for temperatures.
    """
    knots = select_knots(distance_km)
    if len(knots) < 2:
        return None
    shares = _shares(distance_km, knots)
    said, counts = logits.astype(np.float64), weight / weight.sum()
    true_logit = said[np.arange(len(target)), target]

    def loss(sharpness: Values) -> tuple[float, Values]:
        """Log loss and its derivative by 1/T at the knots."""
        scaled = said * (shares @ sharpness)[:, None]
        highest = scaled.max(axis=1, keepdims=True)
        odds = np.exp(scaled - highest)
        total = odds.sum(axis=1)
        lost = np.log(total) + highest[:, 0] - true_logit * (shares @ sharpness)
        slope = ((odds * said).sum(axis=1) / total - true_logit) * counts
        return float((counts * lost).sum()), shares.T @ slope

    found: list[tuple[float, Values]] = []
    for steps in (np.tril(np.ones((len(knots), len(knots)))), np.triu(np.ones((len(knots), len(knots))))):
        first = 0 if steps[0, -1] == 0 else len(knots) - 1  # the one step that all knots share: their least value
        begin = np.zeros(len(knots))
        begin[first] = 1 / start
        limits = [(1 / HOTTEST if number == first else 0.0, 1 / COLDEST) for number in range(len(knots))]
        ended = minimize(_of_steps, begin, args=(loss, steps), jac=True, bounds=limits, method="L-BFGS-B")
        found.append((float(ended.fun), steps @ ended.x))
    sharpness = np.clip(min(found, key=lambda each: each[0])[1], 1 / HOTTEST, 1 / COLDEST)
    return DistanceTemperature(knots, tuple(float(1 / each) for each in sharpness))


def evenly(count: int) -> NDArray[np.intp]:
    """Which of so many nodes are asked: :data:`MOST_NODES` at most."""
    return np.linspace(0, count - 1, min(count, MOST_NODES)).astype(np.intp)


def select_knots(distance_km: Values) -> tuple[float, ...]:
    """The knots that enough nodes speak for; the poorest goes first, until the others have enough."""
    knots = list(KNOTS_KM)
    while len(knots) > 1:
        spoken = _shares(distance_km, tuple(knots)).sum(axis=0)
        if spoken.min() >= FEWEST_AT_KNOT:
            break
        del knots[int(spoken.argmin())]
    return tuple(knots)


def _of_steps(values: Values, loss: Any, steps: NDArray[np.float64]) -> tuple[float, Values]:
    """The loss and its derivative by the steps from knot to knot instead of by the knots."""
    lost, slope = loss(steps @ values)
    return lost, steps.T @ slope


def _shares(distance_km: Values, knots: tuple[float, ...]) -> Values:
    """How much each knot speaks for each node, (n, knots): linear between two, all of one outside; rows sum to 1."""
    at, place = _scaled(np.array(knots)), _scaled(distance_km)
    return np.stack([np.interp(place, at, row) for row in np.eye(len(knots))], axis=1)


def _scaled(distance_km: NDArray[np.floating]) -> Values:
    return np.log1p(np.asarray(distance_km, np.float64) / DISTANCE_KM)
