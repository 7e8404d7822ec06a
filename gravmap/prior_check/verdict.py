"""Verdict of a prior check: where a region lies among simulated crusts, for each quantity and overall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gravmap.prior_check.quantities import GROUPS, Quantity

INSIDE, EDGE, OUTSIDE = "inside", "at the edge", "outside"

UNKNOWN = "not known"
"""Used in place of a verdict that could not be computed."""

NEAR, FAR = 2.0, 3.5
"""Standard deviations from the mean of the crusts beyond which a value outside their range is EDGE, or OUTSIDE."""

EDGE_FRACTION, OUTSIDE_FRACTION = 0.2, 0.35
"""If a larger fraction of the quantities is not inside (each group with equal weight), the region is at the edge, or
outside.
"""

MAX_EDITS = 6
"""Number of quantities, the farthest first, for which a change of the prior is suggested."""

MIN_CRUSTS = 12
"""Fewer crusts are not enough for a verdict."""


@dataclass(frozen=True)
class QuantityResult:
    """Position of a region among the crusts in one quantity.

    Attributes
    ----------
    quantity : Quantity
        Which.
    here : tuple of float
        Its value in every box of the region that has one.
    crusts : tuple of float
        Its value in every crust that has one.
    percentile : float
        Percentage of the crusts below the region's median box; ties count half.
    beyond : float
        Distance of the median box beyond all crusts, in ranges of the crusts; 0 among them, negative below the lowest.
    outside : int
        Boxes that are outside.
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
        """Value of the region's median box."""
        return float(np.median(self.here))

    @property
    def typical(self) -> tuple[float, float, float]:
        """Minimum, median and maximum of the crusts."""
        return min(self.crusts), float(np.median(self.crusts)), max(self.crusts)

    def describe(self) -> str:
        """The difference as text."""
        least, _, most = (self.quantity.format(value, unit=False) for value in self.typical)
        unit = f" {self.quantity.unit}" if self.quantity.unit else ""
        here = self.quantity.format(self.middle)
        if len(self.here) > 1:
            ends = (self.quantity.format(value, unit=False) for value in (min(self.here), max(self.here)))
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
    """Comparison of a region with the crusts of a prior.

    Attributes
    ----------
    prior, prior_sha256 : str
        Name and hash of the prior.
    state : str
        INSIDE, EDGE or OUTSIDE, overall.
    places : tuple of QuantityResult
        One per quantity.
    left_out : tuple of str
        What could not be compared, and why.
    boxes : tuple of (float, float, float, float)
        West, south, east, north of the region's boxes, degrees.
    crusts : int
        Number of crusts.
    shape : (int, int)
        Their cells of 2 arc-minutes.
    leave_one_out : dict of str to int
        Number of crusts in each state if each is compared with all others: what to expect of a region from the prior.
    run : str
        The network that was trained on such crusts, for the advice.
    """

    prior: str
    prior_sha256: str
    state: str
    places: tuple[QuantityResult, ...]
    left_out: tuple[str, ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    crusts: int
    shape: tuple[int, int]
    leave_one_out: dict[str, int]
    run: str = "RUN"

    @property
    def headline(self) -> str:
        """The verdict as a sentence."""
        like = sum(place.state == INSIDE for place in self.places)
        number, crusts = len(self.places), f"those of {self.crusts} simulated crusts"
        unlike = f"{number - like} of {number} quantities of the field and the map are unlike {crusts}"
        return {
            INSIDE: f"Inside the prior {self.prior}: {like} of {number} quantities of the field and the map are"
            f" like {crusts}.",
            EDGE: f"The region is at the edge of the prior {self.prior}: {unlike}.",
            OUTSIDE: f"The region is outside the prior {self.prior}: {unlike}.",
        }[self.state]

    @property
    def advice(self) -> list[str]:
        """Consequences for a network trained on such crusts, and what to do, as sentences."""
        off = sorted((place for place in self.places if place.state != INSIDE), key=_sort_key)
        if self.state == INSIDE:
            few = _first_few([place.describe() for place in off])
            return [
                *([f"At the edge, as expected by chance for a few of so many quantities: {few}."] if off else []),
                f"A network trained on crusts of {self.prior} has seen fields and maps like these. This is necessary"
                " but not sufficient: no statistic of the surface tells whether the densities fit the ages here.",
            ]
        meanings: dict[str, list[str]] = {}
        for place in off:
            meanings.setdefault(_meaning(place), []).append(place.describe())
        differences = [f"{_capitalised(meaning)}: {_first_few(texts)}." for meaning, texts in meanings.items()]
        meaning = (
            "extrapolates here: its probabilities are not reliable"
            if self.state == OUTSIDE
            else "was trained on few crusts like this region: its probabilities may be too high"
        )
        return [
            *differences,
            f"A network trained on crusts of {self.prior} {meaning}. Fine-tune it on the region's outcrop (`gravmap"
            f" train --init {self.run}`), which can be scored on held-out blocks (`gravmap evaluate`).",
        ]

    @property
    def remedy(self) -> str:
        """What to change in the prior, as a sentence for those who write priors; empty where the region is inside."""
        if self.state == INSIDE:
            return ""
        off = sorted((place for place in self.places if place.state != INSIDE), key=_sort_key)
        wide = "" if self.prior == "wide" else "check the wide prior with `gravmap prior-check --prior wide`; or "
        tables = "; ".join(dict.fromkeys(place.quantity.edit for place in off[:MAX_EDITS]))
        return (
            f"What to do: {wide}copy the prior (`gravmap crust` writes it as prior.toml), edit {tables}, and check"
            " again with --prior FILE."
        )

    def lines(self) -> list[str]:
        """The whole verdict as lines of text, with a table."""
        rows, columns = self.shape
        count = len(self.boxes)
        text = [
            self.headline,
            "",
            f"  {'':<44}{'here':>9}{'crusts: min':>15}{'median':>9}{'max':>9}{'below here':>12}",
        ]
        group = None
        for place in self.places:
            if place.quantity.group != group:
                group = place.quantity.group
                text.append(f"  {GROUPS[group]}")
            numbers = [place.quantity.format(value, unit=False) for value in (place.middle, *place.typical)]
            label = f"{place.quantity.label}{', ' + place.quantity.unit if place.quantity.unit else ''}"
            state = "" if place.state == INSIDE else f"  {place.state}"
            text.append(
                f"    {label:<42}{numbers[0]:>9}{numbers[1]:>15}{numbers[2]:>9}{numbers[3]:>9}"
                f"{place.percentile:10.0f} %{state}"
            )
        boxes = "one box" if count == 1 else f"the median of {count} overlapping boxes"
        mapped = max((len(place.here) for place in self.places if place.quantity.group == "cover"), default=0)
        if 0 < mapped < count:
            boxes += f" (the map covers {mapped} of them)"
        boxes += ","
        text += ["", f"  Here: {boxes} {rows / 30:.3g} x {columns / 30:.3g} degrees, as large as the crusts."]
        own = ", ".join(f"{number} {state}" for state, number in self.leave_one_out.items() if number)
        text.append(f"  The crusts themselves, each compared with the others: {own}.")
        text += [f"  Not compared: {reason}" for reason in self.left_out]
        return [*text, "", *self.advice, *([self.remedy] if self.remedy else [])]

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
            "own": dict(self.leave_one_out),
            "left_out": list(self.left_out),
            "quantities": [place.to_dict() for place in self.places],
        }


def compare_quantities(
    chosen: Sequence[Quantity], here: Sequence[dict[str, float]], crusts: Sequence[dict[str, float]]
) -> tuple[QuantityResult, ...]:
    """Compare a region with crusts in every quantity that both have.

    Parameters
    ----------
    chosen : sequence of Quantity
        In display order.
    here : sequence of dict of str to float
        Statistics of the region's boxes.
    crusts : sequence of dict of str to float
        Statistics of the crusts.

    Examples
    --------
    >>> from gravmap.prior_check.quantities import quantities
    >>> chosen = quantities((), ())[:1]
    >>> crusts = [{"bouguer_std": 20.0 + number} for number in range(12)]
    >>> [compare_quantities(chosen, [{"bouguer_std": value}], crusts)[0].state for value in (25.0, 200.0)]
    ['inside', 'outside']
    """
    found = []
    for quantity in chosen:
        region = [box[quantity.key] for box in here if quantity.key in box]
        other = [crust[quantity.key] for crust in crusts if quantity.key in crust]
        if region and len(other) >= MIN_CRUSTS - 1:
            found.append(_compare(quantity, region, other))
    return tuple(found)


def overall_state(places: Sequence[QuantityResult]) -> str:
    """State of all quantities together."""
    fraction = fraction_not_inside(places)
    if fraction > OUTSIDE_FRACTION or any(place.state == OUTSIDE for place in places):
        return OUTSIDE
    return EDGE if fraction > EDGE_FRACTION else INSIDE


def fraction_not_inside(places: Sequence[QuantityResult]) -> float:
    """Fraction of quantities that are not inside; groups have equal weight, as residuals are correlated."""
    groups: dict[str, list[bool]] = {}
    for place in places:
        groups.setdefault(place.quantity.group, []).append(place.state != INSIDE)
    return float(np.mean([np.mean(off) for off in groups.values()])) if groups else 0.0


def leave_one_out_states(chosen: Sequence[Quantity], crusts: Sequence[dict[str, float]]) -> dict[str, int]:
    """State of each crust compared with all others: what to expect of a region from the prior."""
    counts = dict.fromkeys((INSIDE, EDGE, OUTSIDE), 0)
    for number, crust in enumerate(crusts):
        others = [*crusts[:number], *crusts[number + 1 :]]
        counts[overall_state(compare_quantities(chosen, [crust], others))] += 1
    return counts


def _compare(quantity: Quantity, here: list[float], crusts: list[float]) -> QuantityResult:
    simulated = np.array([quantity.scaled(value) for value in crusts])
    boxes = np.array([quantity.scaled(value) for value in here])
    (low, high), (near_low, near_high), (far_low, far_high) = state_limits(quantity, crusts)
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
    return QuantityResult(quantity, tuple(here), tuple(crusts), percentile, beyond, outside, state)


def state_limits(quantity: Quantity, crusts: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """Intervals on the compared scale: range of the crusts, limits of inside, and limits of the edge."""
    values = np.array([quantity.scaled(value) for value in crusts])
    low, high = float(values.min()), float(values.max())
    # A minimum width, for quantities in which all crusts are nearly equal.
    padding = max(quantity.least - (high - low), 0) / 2
    low, high = low - padding, high + padding
    mean, std = float(values.mean()), float(values.std(ddof=1))
    near, far = ((min(low, mean - times * std), max(high, mean + times * std)) for times in (NEAR, FAR))
    return (low, high), near, far


def _meaning(place: QuantityResult) -> str:
    side = place.beyond
    if not side:  # the median box is among the crusts: other boxes decide
        low, _, high = (place.quantity.scaled(value) for value in place.typical)
        boxes = [place.quantity.scaled(value) for value in place.here]
        side = max(max(boxes) - high, 0) - max(low - min(boxes), 0)
        part = "in some boxes "
    else:
        part = ""
    return part + (place.quantity.high if side > 0 else place.quantity.low)


def _first_few(texts: Sequence[str], most: int = 2) -> str:
    """The first of several texts, and the number of the others."""
    more = f"; and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sort_key(place: QuantityResult) -> tuple[bool, float, int]:
    return place.state != OUTSIDE, -abs(place.beyond), -place.outside
