"""The verdict: where a region lies among the simulated crusts, quantity by quantity and as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gravmap.prior_check.quantities import GROUPS, Quantity

INSIDE, EDGE, OUTSIDE = "inside", "at the edge", "outside"

UNKNOWN = "not known"
"""In the place of a verdict that could not be made."""

NEAR, FAR = 2.0, 3.5
"""Standard deviations of the crusts from their mean. What lies beyond all crusts is at the edge from NEAR on, from FAR
on outside."""

EDGE_SHARE, OUTSIDE_SHARE = 0.2, 0.35
"""Of the quantities, every group counting the same: with more of them not inside, the whole is at the edge, outside."""

MOST_TOLD = 6
"""Quantities, the farthest first, for which is said what to change in the prior."""

FEWEST = 12
"""Crusts; among fewer no place can be told."""


@dataclass(frozen=True)
class Place:
    """Where a region lies among the crusts in one quantity.

    Attributes
    ----------
    quantity : Quantity
        Which.
    here : tuple of float
        Its value in every box of the region that has one.
    crusts : tuple of float
        Its value in every crust that has one.
    percentile : float
        Of the crusts lie so many percent below the region's median box; those equal to it count half.
    beyond : float
        How far the median box lies beyond all crusts, in ranges of the crusts; 0 among them, below 0 under the lowest.
    outside : int
        Boxes that lie outside.
    state : str
        INSIDE, EDGE or OUTSIDE.
    """

    quantity: Quantity
    here: tuple[float, ...]
    crusts: tuple[float, ...]
    percentile: float
    beyond: float
    outside: int
    state: str

    @property
    def middle(self) -> float:
        """The region's median box."""
        return float(np.median(self.here))

    @property
    def typical(self) -> tuple[float, float, float]:
        """Least, median and most of the crusts."""
        return min(self.crusts), float(np.median(self.crusts)), max(self.crusts)

    def told(self) -> str:
        """How far it lies off, in words."""
        least, _, most = (self.quantity.told(value, unit=False) for value in self.typical)
        unit = f" {self.quantity.unit}" if self.quantity.unit else ""
        here = self.quantity.told(self.middle)
        if len(self.here) > 1:
            ends = (self.quantity.told(value, unit=False) for value in (min(self.here), max(self.here)))
            here += f" in the median box ({' to '.join(ends)})"
        text = f"{self.quantity.name} {here}, crusts {least} to {most}{unit}"
        if self.beyond:
            text += f", {abs(self.beyond):.1f} of their range {'above' if self.beyond > 0 else 'below'} them"
        elif self.outside:
            text += f", {self.outside} of {len(self.here)} boxes outside"
        return text

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "quantity": self.quantity.key,
            "group": GROUPS[self.quantity.group],
            "label": self.quantity.label,
            "unit": self.quantity.unit,
            "here": list(self.here),
            "crusts": list(self.crusts),
            "percentile": self.percentile,
            "beyond": self.beyond,
            "boxes_outside": self.outside,
            "state": self.state,
        }


@dataclass(frozen=True)
class Verdict:
    """A region held against the crusts of a prior.

    Attributes
    ----------
    prior, prior_sha256 : str
        Which.
    state : str
        INSIDE, EDGE or OUTSIDE, of the whole.
    places : tuple of Place
        One per quantity.
    left_out : tuple of str
        What could not be compared, and why.
    boxes : tuple of (float, float, float, float)
        West, south, east, north, degrees, of the region's.
    crusts : int
        How many were drawn.
    shape : (int, int)
        Their cells of 2 arc-minutes.
    own : dict of str to int
        How many of the crusts, each held against the others by the same rule, are in which state: what the rule says
        of a region that the prior is right about.
    """

    prior: str
    prior_sha256: str
    state: str
    places: tuple[Place, ...]
    left_out: tuple[str, ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    crusts: int
    shape: tuple[int, int]
    own: dict[str, int]

    @property
    def headline(self) -> str:
        """The verdict in a sentence."""
        count = sum(place.state == INSIDE for place in self.places)
        among = f"{count} of {len(self.places)} quantities are like those of {self.crusts} simulated crusts"
        return {
            INSIDE: f"Inside the prior {self.prior}: {among}.",
            EDGE: f"At the edge of the prior {self.prior}: {among}.",
            OUTSIDE: f"Outside the prior {self.prior}: {among}.",
        }[self.state]

    @property
    def advice(self) -> list[str]:
        """What it means for a network taught on such crusts, and what to do, in sentences."""
        off = sorted((place for place in self.places if place.state != INSIDE), key=_far)
        if self.state == INSIDE:
            few = _some([place.told() for place in off])
            return [
                *([f"At the edge, as a few of so many are by chance: {few}."] if off else []),
                f"A network taught on crusts of {self.prior} has seen fields and maps like these. That is needed for"
                " trust, and not enough: whether the densities fit the ages here no statistic of the surface can tell.",
            ]
        wide = (
            ""
            if self.prior == "wide"
            else "`gravmap prior-check --prior wide` tells whether the wide prior holds it; or "
        )
        meanings: dict[str, list[str]] = {}
        for place in off:
            meanings.setdefault(_meaning(place), []).append(place.told())
        said = [f"{_capital(meaning)}: {_some(told)}." for meaning, told in meanings.items()]
        tables = "; ".join(dict.fromkeys(place.quantity.edit for place in off[:MOST_TOLD]))
        meaning = (
            "meets here what it was not taught: do not believe its probabilities"
            if self.state == OUTSIDE
            else "saw few crusts like this region: its probabilities may be too high"
        )
        return [
            *said,
            f"A network taught on crusts of {self.prior} {meaning}. Let it go on with the region's outcrop (`gravmap"
            " train --init RUN`), which can be scored on held-out blocks (`gravmap evaluate`).",
            f"What to do: {wide}copy the prior (`gravmap crust` leaves it as prior.toml), change {tables}, and check"
            " again with --prior FILE.",
        ]

    def lines(self) -> list[str]:
        """Everything in words, with a table."""
        rows, columns = self.shape
        count = len(self.boxes)
        text = [
            self.headline,
            "",
            f"  {'':<44}{'here':>9}{'crusts: least':>15}{'median':>9}{'most':>9}{'below here':>12}",
        ]
        group = None
        for place in self.places:
            if place.quantity.group != group:
                group = place.quantity.group
                text.append(f"  {GROUPS[group]}")
            numbers = [place.quantity.told(value, unit=False) for value in (place.middle, *place.typical)]
            label = f"{place.quantity.label}{', ' + place.quantity.unit if place.quantity.unit else ''}"
            state = "" if place.state == INSIDE else f"  {place.state}"
            text.append(
                f"    {label:<42}{numbers[0]:>9}{numbers[1]:>15}{numbers[2]:>9}{numbers[3]:>9}"
                f"{place.percentile:10.0f} %{state}"
            )
        boxes = "one box" if count == 1 else f"the median of {count} overlapping boxes"
        mapped = max((len(place.here) for place in self.places if place.quantity.group == "cover"), default=0)
        if 0 < mapped < count:
            boxes += f" (the map fills {mapped} of them)"
        boxes += ","
        text += ["", f"  Here: {boxes} {rows / 30:.3g} x {columns / 30:.3g} degrees, as large as the crusts."]
        own = ", ".join(f"{number} {state}" for state, number in self.own.items() if number)
        text.append(f"  The crusts themselves, each held against the others: {own}.")
        text += [f"  Not compared: {reason}" for reason in self.left_out]
        return [*text, "", *self.advice]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "prior": {"name": self.prior, "sha256": self.prior_sha256},
            "state": self.state,
            "headline": self.headline,
            "advice": self.advice,
            "crusts": self.crusts,
            "shape": list(self.shape),
            "boxes_wsen": [list(box) for box in self.boxes],
            "own": dict(self.own),
            "left_out": list(self.left_out),
            "quantities": [place.to_dict() for place in self.places],
        }


def find_places(
    wanted: Sequence[Quantity], here: Sequence[dict[str, float]], crusts: Sequence[dict[str, float]]
) -> tuple[Place, ...]:
    """Place a region among crusts, in every quantity that both have.

    Parameters
    ----------
    wanted : sequence of Quantity
        In which order.
    here : sequence of dict of str to float
        Statistics of the region's boxes.
    crusts : sequence of dict of str to float
        Of the crusts.
    """
    found = []
    for quantity in wanted:
        own = [box[quantity.key] for box in here if quantity.key in box]
        other = [crust[quantity.key] for crust in crusts if quantity.key in crust]
        if own and len(other) >= FEWEST - 1:
            found.append(_place(quantity, own, other))
    return tuple(found)


def whole_state(places: Sequence[Place]) -> str:
    """The verdict on all quantities together."""
    share = share_off(places)
    if share > OUTSIDE_SHARE or any(place.state == OUTSIDE for place in places):
        return OUTSIDE
    return EDGE if share > EDGE_SHARE else INSIDE


def share_off(places: Sequence[Place]) -> float:
    """Share of the quantities that are not inside, 0 to 1, every group counting the same: residuals go together."""
    groups: dict[str, list[bool]] = {}
    for place in places:
        groups.setdefault(place.quantity.group, []).append(place.state != INSIDE)
    return float(np.mean([np.mean(off) for off in groups.values()])) if groups else 0.0


def own_states(wanted: Sequence[Quantity], crusts: Sequence[dict[str, float]]) -> dict[str, int]:
    """How the rule judges each crust by all others: what to expect of a region that the prior is right about."""
    counts = dict.fromkeys((INSIDE, EDGE, OUTSIDE), 0)
    for number, crust in enumerate(crusts):
        others = [*crusts[:number], *crusts[number + 1 :]]
        counts[whole_state(find_places(wanted, [crust], others))] += 1
    return counts


def _place(quantity: Quantity, here: list[float], crusts: list[float]) -> Place:
    simulated = np.array([quantity.scaled(value) for value in crusts])
    boxes = np.array([quantity.scaled(value) for value in here])
    (low, high), (near_low, near_high), (far_low, far_high) = limits(quantity, crusts)
    middle = float(np.median(boxes))
    outside = int(((boxes < far_low) | (boxes > far_high)).sum())
    off = int(((boxes < near_low) | (boxes > near_high)).sum())
    if outside > len(here) / 2:
        state = OUTSIDE
    elif outside or off > len(here) / 2:
        state = EDGE
    else:
        state = INSIDE
    percentile = 100 * float(np.mean(simulated < middle) + np.mean(simulated == middle) / 2)
    beyond = (max(middle - high, 0.0) - max(low - middle, 0.0)) / (high - low)
    return Place(quantity, tuple(here), tuple(crusts), percentile, beyond, outside, state)


def limits(quantity: Quantity, crusts: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """Between which numbers, as they are compared, the crusts lie, what is inside, and what is not outside."""
    values = np.array([quantity.scaled(value) for value in crusts])
    low, high = float(values.min()), float(values.max())
    # Crusts that are all alike in something still leave a region some room.
    short = max(quantity.least - (high - low), 0) / 2
    low, high = low - short, high + short
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    near, far = ((min(low, mean - times * spread), max(high, mean + times * spread)) for times in (NEAR, FAR))
    return (low, high), near, far


def _meaning(place: Place) -> str:
    side = place.beyond
    if not side:  # the median box is among the crusts: the boxes that are not decide
        low, _, high = (place.quantity.scaled(value) for value in place.typical)
        boxes = [place.quantity.scaled(value) for value in place.here]
        side = max(max(boxes) - high, 0) - max(low - min(boxes), 0)
        part = "in some boxes "
    else:
        part = ""
    return part + (place.quantity.high if side > 0 else place.quantity.low)


def _some(told: Sequence[str], most: int = 2) -> str:
    """The first of several, and how many more there are."""
    more = f"; and {len(told) - most} more" if len(told) > most else ""
    return "; ".join(told[:most]) + more


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _far(place: Place) -> tuple[bool, float, int]:
    return place.state != OUTSIDE, -abs(place.beyond), -place.outside
