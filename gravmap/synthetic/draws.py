"""One quantity of a prior: a number, a range, or a distribution to draw from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from scipy.special import ndtr, ndtri

FORMS = "a number, [low, high], {log = [low, high]}, {normal = [mean, sd]} or {lognormal = [median, sigma]}"
_NORMAL = ("normal", "lognormal")


@dataclass(frozen=True)
class Draw:
    """What a quantity may be.

    Attributes
    ----------
    kind : str
        ``fixed``; ``uniform`` and ``log`` (uniform in the logarithm) between `low` and `high`; ``normal`` and
        ``lognormal`` around `middle`, never beyond `low` and `high`.
    middle : float
        The usual value: mean, median, or the middle of the range.
    width : float
        Standard deviation (of the natural logarithm, where lognormal); 0 for the other kinds.
    low, high : float
        The least and the most that is ever drawn.
    """

    kind: str
    middle: float
    width: float
    low: float
    high: float

    def at(self, chance: float) -> float:
        """The value that a share `chance` (0 to 1) of all draws stays below."""
        if self.kind == "fixed":
            return self.middle
        if self.kind == "uniform":
            value = self.low + chance * (self.high - self.low)
        elif self.kind == "log":
            value = self.low * (self.high / self.low) ** chance
        else:
            inside = [float(ndtr(self._standard(end))) for end in (self.low, self.high)]
            normal = float(ndtri(inside[0] + chance * (inside[1] - inside[0])))
            value = self.middle + self.width * normal
            if self.kind == "lognormal":
                value = self.middle * math.exp(self.width * normal)
        return min(max(value, self.low), self.high)

    def _standard(self, value: float) -> float:
        """How many widths a value lies from the middle."""
        if self.kind == "normal":
            return (value - self.middle) / self.width
        return math.log(value / self.middle) / self.width if value > 0 else -math.inf

    def to_dict(self) -> dict[str, Any]:
        """As written in a prior's file, the bounds said."""
        if self.kind == "fixed":
            return {"fixed": self.middle}
        if self.kind in _NORMAL:
            return {self.kind: [self.middle, self.width], "low": self.low, "high": self.high}
        return {self.kind: [self.low, self.high]}


def read_draw(written: Any, least: float, most: float) -> Draw:
    """Understand a quantity of a prior's file.

    Parameters
    ----------
    written : number, list of two, or dict
        As TOML gives it.
    least, most : float
        What makes sense at all. A number or a range must lie inside; a normal or lognormal distribution is cut there.

    Returns
    -------
    Draw

    Raises
    ------
    ValueError
        It is written in none of the forms, low is not below high, or it leaves what makes sense.
    """
    if _is_number(written):
        draw = Draw("fixed", float(written), 0.0, float(written), float(written))
    elif isinstance(written, list):
        draw = _between("uniform", written)
    elif isinstance(written, dict) and set(written) == {"log"}:
        draw = _between("log", written["log"])
    elif (
        isinstance(written, dict)
        and len(set(written) & set(_NORMAL)) == 1
        and set(written) <= {*_NORMAL, "low", "high"}
    ):
        draw = _around(written, least, most)
    else:
        raise ValueError(f"is {written!r}, which is none of {FORMS}")
    if draw.low < least or draw.high > most:
        found = f"{draw.low:g}" if draw.low == draw.high else f"{draw.low:g} to {draw.high:g}"
        raise ValueError(f"is {found}, outside {least:g} to {most:g}")
    return draw


def _between(kind: str, pair: Any) -> Draw:
    low, high = _pair(pair)
    if low >= high:
        raise ValueError(f"goes from {low:g} to {high:g}: the first must be the smaller one")
    if kind == "log":
        if low <= 0:
            raise ValueError(f"goes from {low:g}: a logarithm needs numbers above 0")
        return Draw(kind, math.sqrt(low * high), 0.0, low, high)
    return Draw(kind, 0.5 * (low + high), 0.0, low, high)


def _around(written: dict[str, Any], least: float, most: float) -> Draw:
    (kind,) = set(written) & set(_NORMAL)
    middle, width = _pair(written[kind])
    ends = [written.get("low", least), written.get("high", most)]
    if not all(_is_number(end) for end in ends):
        raise ValueError(f"has bounds {ends} that are no numbers")
    low, high = float(ends[0]), float(ends[1])
    if width <= 0 or (kind == "lognormal" and middle <= 0):
        raise ValueError(f"is {kind} around {middle:g} with a width of {width:g}: numbers above 0 are needed")
    if not low <= middle <= high or low == high:
        raise ValueError(f"has its middle {middle:g} outside its bounds {low:g} to {high:g}")
    return Draw(kind, middle, width, low, high)


def _pair(pair: Any) -> tuple[float, float]:
    if not (isinstance(pair, list) and len(pair) == 2 and all(_is_number(end) for end in pair)):
        raise ValueError(f"is {pair!r}, where two numbers are needed")
    return float(pair[0]), float(pair[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
