"""Temperature scaling by distance to mapped outcrop: calibration errors differ near it and far from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from typing_extensions import TypedDict

from gravmap.learning.data.outcrop_context import DISTANCE_KM
from gravmap.records import Ge, Len, Positive, record

KNOTS_KM = (4.0, 10.0, 20.0, 40.0, 80.0)
"""1/T is linear between these in log(1 + km / 10), the distance that the network itself reads, and constant outside."""

MIN_NODES_PER_KNOT = 500.0
"""Knots with fewer nodes are dropped; a node between two knots counts for both in part."""

MAX_FITTED_NODES = 50_000
"""Larger sets are subsampled evenly: neighbouring nodes are not independent."""

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.1, 10.0
"""Bounds of fitted temperatures."""

Values = NDArray[np.float64]


@record
class TemperatureByDistance(TypedDict):
    """Knots of a temperature that depends on the distance to mapped outcrop."""

    km: Annotated[list[Annotated[float, Ge(0)]], Len(1)]
    temperature: Annotated[list[Positive], Len(1)]


@dataclass(frozen=True)
class DistanceTemperature:
    """Temperature as a function of distance to mapped outcrop.

    Attributes
    ----------
    km : tuple of float
        Knots, ascending.
    temperature : tuple of float
        At the knots; monotonic when fitted.

    Examples
    --------
    >>> import numpy as np
    >>> DistanceTemperature((4.0, 40.0), (1.0, 2.0)).at(np.array([0.0, 4.0, 80.0])).round(6)
    array([1., 1., 2.])
    """

    km: tuple[float, ...]
    temperature: tuple[float, ...]

    def __post_init__(self) -> None:
        ascending = all(0 <= low < high for low, high in zip(self.km, self.km[1:], strict=False))
        if len(self.km) != len(self.temperature) or len(self.km) < 2 or not ascending:
            raise ValueError("knots must be ascending distances with one temperature each")
        if not all(0 < value < 1e6 for value in self.temperature):
            raise ValueError("temperatures must be positive and below 1e6")

    def at(self, distance_km: NDArray[np.floating]) -> Values:
        """Temperatures at distances, km; same shape."""
        inverse_temperature = 1 / np.array(self.temperature)
        return np.asarray(1 / np.interp(_scaled(distance_km), _scaled(np.array(self.km)), inverse_temperature))

    def to_dict(self) -> dict[str, list[float]]:
        """JSON-able."""
        return {"km": list(self.km), "temperature": list(self.temperature)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> DistanceTemperature:
        """Inverse of :meth:`to_dict`.

        Raises
        ------
        ValueError, KeyError, TypeError
            The record is damaged.
        """
        return cls(*(tuple(float(each) for each in record[name]) for name in ("km", "temperature")))


def fit_distance_temperature(
    logits: NDArray[np.float32],
    target: NDArray[np.int64],
    weight: Values,
    distance_km: Values,
    start: float = 1.0,
) -> DistanceTemperature | None:
    """Fit temperatures that increase or decrease with distance, by maximum likelihood of softmax(logits / T).

    The log loss is convex in 1/T, which is linear in its values at the knots, also under the constraint that these only
    increase or only decrease. Both constrained minima are computed and the lower one is taken.

    Parameters
    ----------
    logits : (n, K) float32
        Logits of the network.
    target : (n,) int64
        True classes, 0..K-1.
    weight : (n,) float64
        Weight of each node.
    distance_km : (n,) float64
        Distance to mapped outcrop.
    start : float
        Initial temperature, such as the one fitted to all nodes.

    Returns
    -------
    DistanceTemperature or None
        None if fewer than two knots have :data:`MIN_NODES_PER_KNOT` nodes each.

    References
    ----------
    Guo et al. (2017), arXiv:1706.04599, for temperature scaling.
    """
    knots = select_knots(distance_km)
    if len(knots) < 2:
        return None
    knot_weights = _knot_weights(distance_km, knots)
    values, weights = logits.astype(np.float64), weight / weight.sum()
    true_logit = values[np.arange(len(target)), target]

    def loss(inverse_temperature: Values) -> tuple[float, Values]:
        """Log loss and its gradient with respect to 1/T at the knots."""
        scaled = values * (knot_weights @ inverse_temperature)[:, None]
        highest = scaled.max(axis=1, keepdims=True)
        exponent = np.exp(scaled - highest)
        total = exponent.sum(axis=1)
        losses = np.log(total) + highest[:, 0] - true_logit * (knot_weights @ inverse_temperature)
        gradient = ((exponent * values).sum(axis=1) / total - true_logit) * weights
        return float((weights * losses).sum()), knot_weights.T @ gradient

    found: list[tuple[float, Values]] = []
    for steps in (np.tril(np.ones((len(knots), len(knots)))), np.triu(np.ones((len(knots), len(knots))))):
        first = 0 if steps[0, -1] == 0 else len(knots) - 1  # the step that all knots have in common: their minimum
        initial = np.zeros(len(knots))
        initial[first] = 1 / start
        bounds = [
            (1 / MAX_TEMPERATURE if number == first else 0.0, 1 / MIN_TEMPERATURE) for number in range(len(knots))
        ]
        result = minimize(_loss_of_steps, initial, args=(loss, steps), jac=True, bounds=bounds, method="L-BFGS-B")
        found.append((float(result.fun), steps @ result.x))
    inverse_temperature = np.clip(min(found, key=lambda each: each[0])[1], 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE)
    return DistanceTemperature(knots, tuple(float(1 / each) for each in inverse_temperature))


def subsample_evenly(count: int) -> NDArray[np.intp]:
    """Indices of at most :data:`MAX_FITTED_NODES` of so many nodes, evenly spaced."""
    return np.linspace(0, count - 1, min(count, MAX_FITTED_NODES)).astype(np.intp)


def select_knots(distance_km: Values) -> tuple[float, ...]:
    """The knots with enough nodes; the one with the fewest is dropped until all have enough."""
    knots = list(KNOTS_KM)
    while len(knots) > 1:
        nodes_per_knot = _knot_weights(distance_km, tuple(knots)).sum(axis=0)
        if nodes_per_knot.min() >= MIN_NODES_PER_KNOT:
            break
        del knots[int(nodes_per_knot.argmin())]
    return tuple(knots)


def _loss_of_steps(values: Values, loss: Any, steps: NDArray[np.float64]) -> tuple[float, Values]:
    """Loss and gradient as functions of the increments between knots."""
    losses, gradient = loss(steps @ values)
    return losses, steps.T @ gradient


def _knot_weights(distance_km: Values, knots: tuple[float, ...]) -> Values:
    """Weight of each knot at each node, (n, knots): linear between two knots, constant outside; rows sum to 1."""
    at, place = _scaled(np.array(knots)), _scaled(distance_km)
    return np.stack([np.interp(place, at, row) for row in np.eye(len(knots))], axis=1)


def _scaled(distance_km: NDArray[np.floating]) -> Values:
    return np.log1p(np.asarray(distance_km, np.float64) / DISTANCE_KM)
