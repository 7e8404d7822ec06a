"""Units and plausible values of the quantities read from grids: gravity anomalies and heights."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError

log = logging.getLogger(__name__)

# Factors to mGal (1 mGal = 1e-5 m/s2; a gravity unit, gu, is 1 µm/s2).
_MGAL = {
    "mgal": 1.0,
    "milligal": 1.0,
    "gal": 1e3,
    "cm/s2": 1e3,
    "ugal": 1e-3,
    "microgal": 1e-3,
    "m/s2": 1e5,
    "mm/s2": 1e2,
    "um/s2": 0.1,
    "gu": 0.1,
    "g.u.": 0.1,
    "nm/s2": 1e-4,
}

# No Bouguer, free-air or isostatic anomaly on Earth exceeds this.
_LARGEST_MGAL = 5_000.0
# Nor does one vary as little as this over the nodes of a grid, standard deviation.
_LEAST_STD_MGAL = 0.01


# Factors to metres; geopotential metres differ by less than the error of any grid of heights.
_METRES = {"m": 1.0, "metre": 1.0, "meter": 1.0, "gpm": 1.0, "km": 1e3, "ft": 0.3048, "foot": 0.3048, "feet": 0.3048}

# Challenger Deep lies at -10 935 m, Everest at 8 849 m.
_LOWEST_M, _HIGHEST_M = -12_000.0, 9_500.0

# A height with its unit, in text.
_LEVEL = re.compile(
    r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*\[?(m|meters?|metres?|km|kilometers?|kilometres?)?\]?",
    re.IGNORECASE,
)

# Less relief than this (metres) suggests that the values are class numbers rather than heights.
_LEAST_RELIEF_M = 20.0


@dataclass(frozen=True)
class Quantity:
    """A physical quantity that a grid can have, its units, and how a variable of it is recognised.

    Attributes
    ----------
    name : str
        For messages: "gravity".
    unit : str
        The unit that values are converted to.
    factors : mapping of str to float
        Factors from other units; keys as returned by :func:`normalize_unit`.
    known : str
        Names of the units, for error messages.
    name_parts : tuple of str
        Lower-case parts of variable names, the most likely first.
    variable_hint, unit_hint : str
        Hints for errors about several candidate variables and about an unknown unit.
    no_unit_hint : str
        Addition to the warning about a missing unit.
    """

    name: str
    unit: str
    factors: Mapping[str, float] = field(repr=False)
    known: str
    name_parts: tuple[str, ...]
    variable_hint: str
    unit_hint: str
    no_unit_hint: str = ""

    def factor(self, unit: str, where: str) -> float:
        """Factor from `unit` to the unit of the quantity.

        Raises
        ------
        InputError
            The unit is not known.
        """
        plain = normalize_unit(unit)
        if plain not in self.factors:
            raise InputError(
                f"{where} has the unit {unit!r}, which is not a known unit of {self.name}.",
                f"Known: {self.known}. {self.unit_hint}",
            )
        return self.factors[plain]

    def has_unit(self, unit: str) -> bool:
        """Whether `unit` is a known unit of the quantity."""
        return normalize_unit(unit) in self.factors


GRAVITY = Quantity(
    "gravity",
    "mGal",
    _MGAL,
    "mGal, µGal, Gal, m/s2, mm/s2, um/s2, gu",
    ("bouguer", "anomaly", "gravity", "disturbance"),
    "Choose one with --variable NAME (or NUMBER, of a band or a column).",
    "State it with --units.",
    " (otherwise state it with --units)",
)

HEIGHTS = Quantity(
    "height",
    "m",
    _METRES,
    "m, km, ft",
    ("elevation", "topo", "height", "altitude", "dem"),
    "Extract the one with heights, for example with gdal_translate.",
    "Give a grid of heights with its unit as attribute.",
)


def normalize_unit(unit: str) -> str:
    """A unit in the spelling used for look-up: lower case, singular, ``m s-2`` and similar as ``m/s2``."""
    plain = unit.strip().lower().replace("µ", "u").replace("μ", "u").replace("²", "2").replace("⁻", "-")
    plain = re.sub(r"\s*/\s*", "/", plain).replace("**", "").replace("^", "")
    plain = re.sub(r"^(m|cm|mm|um|nm|micrometer|micrometre)[\s.*]+s-?2$", r"\1/s2", plain)
    plain = re.sub(r"^(m|cm|mm|um|nm)/s/s$", r"\1/s2", plain)
    plain = re.sub(r"^(micrometer|micrometre)", "um", plain)
    plural = {"mgals": "mgal", "milligals": "mgal", "metres": "metre", "meters": "meter"}
    return plural.get(plain, plain)


@cache
def warn_once(text: str) -> None:
    """Log a warning once, however often a file is opened."""
    log.warning("%s", text)


def unit_factor(stated: str | None, found: str, where: str, quantity: Quantity = GRAVITY) -> float:
    """Factor from the unit of a file to that of the quantity.

    The unit stated by the user has priority over that of the file; without either the factor is 1, with a warning.

    Parameters
    ----------
    stated : str or None
        Unit given by the user.
    found : str
        Unit given by the file; empty if there is none.
    where : str
        For messages.
    quantity : Quantity
        The quantity that is read.

    Raises
    ------
    InputError
        The unit is not a known unit of the quantity.
    """
    if stated is not None:
        if found and found.strip().lower() != stated.strip().lower():
            warn_once(f"{where} has the unit {found!r}; {stated} is used, as stated by --units.")
        return quantity.factor(stated, "--units:")
    if not found:
        warn_once(f"{where} has no unit; taken as {quantity.unit}{quantity.no_unit_hint}.")
        return 1.0
    return quantity.factor(found, where)


def bouguer_name(text: str) -> str:
    """The name of a Bouguer field, from the name or title that its file gives: a disturbance is not an anomaly.

    Examples
    --------
    >>> from gravmap.gravity.quantity import bouguer_name
    >>> bouguer_name("Bouguer gravity disturbance at 10 km height"), bouguer_name("z")
    ('Bouguer gravity disturbance', 'Bouguer gravity')
    """
    kinds = {"disturbance": " disturbance", "anomal": " anomaly"}
    return "Bouguer gravity" + next((kind for part, kind in kinds.items() if part in text.lower()), "")


def height_from_text(text: str) -> float | None:
    """The height named in a title, metres: "disturbance at 10 km height" -> 10000; None if there is none."""
    match = re.search(r"\bat (\d+(?:\.\d+)?)[ -]?(km|m)\b(?: ellipsoidal)? (?:height|altitude|above)", text)
    return float(match[1]) * (1000.0 if match[2] == "km" else 1.0) if match else None


def level_m(value: Any, where: str, hint: str) -> float:
    """The level of the data, metres above the ellipsoid, from an attribute that should be a number.

    Text is accepted if it is a number, with or without the unit m or km: "10 km" is 10000.

    Parameters
    ----------
    value : object
        The attribute.
    where : str
        What has the attribute, for messages.
    hint : str
        What to do, for messages.

    Raises
    ------
    InputError
        Not one number, not finite, or neither within the Earth nor near it.
    """
    found = np.asarray(value).ravel()
    level = math.nan
    if found.size == 1 and found.dtype.kind in "iuf":
        level = float(found[0])
    elif found.size == 1 and (match := _LEVEL.fullmatch(str(found[0]).strip().strip("\0"))):
        level = float(match[1]) * (1000.0 if (match[2] or "m").lower().startswith("k") else 1.0)
    if not -1e5 <= level <= 1e7:  # NaN too
        raise InputError(f"{where} has the level {str(value)[:40]!r}, which is not a height in metres.", hint)
    return level


def check_anomaly(values: NDArray[Any], where: str, factor: float = 1.0, *, unit_stated: bool = False) -> None:
    """Check that values can be a gravity anomaly in mGal.

    Parameters
    ----------
    values : array
        mGal, NaN where missing.
    where : str
        What the grid is called in messages.
    factor : float
        That by which the values of the file were multiplied, for hints about its unit.
    unit_stated : bool
        Whether the user stated the unit: then values may be as small as they like.

    Raises
    ------
    InputError
        All NaN, infinite, constant, absolute gravity, or larger or smoother than any anomaly on Earth.
    """
    known = values[~np.isnan(values)]
    if known.size == 0:
        raise InputError(f"{where} has no values: every node is NaN.", "Choose another grid or another region.")
    if not np.isfinite(known).all():
        raise InputError(f"{where} has infinite values.", "Mark missing nodes with NaN or a _FillValue.")
    low, high = float(known.min()), float(known.max())
    if low == high:
        raise InputError(
            f"{where} is constant: every value is {low:g} mGal.", "Choose another variable or another file."
        )
    if low > 9.6e5 and high < 1.0e6:
        raise InputError(
            f"{where} runs from {low:.0f} to {high:.0f} mGal: that is absolute gravity, not an anomaly.",
            "Subtract normal gravity (and the topography's effect) first, or choose the Bouguer variable.",
        )
    if max(-low, high) > _LARGEST_MGAL:
        raise InputError(
            f"{where} runs from {low:g} to {high:g} mGal, beyond any gravity anomaly on Earth.",
            f"Check its unit{_likely_unit(known / factor)} and its fill value (attribute _FillValue).",
        )
    std = float(known.std(dtype=np.float64))
    if std < _LEAST_STD_MGAL and not unit_stated:
        raise InputError(
            f"{where} has a standard deviation of {std:.2g} mGal, too small for gravity anomalies.",
            f"Check its unit{_likely_unit(known / factor)}; if it is right, state it with --units.",
        )


def _likely_unit(values: NDArray[Any]) -> str:
    """The unit, of mGal and m/s2, in which values as stored could be a gravity anomaly, as a suggestion for a hint."""
    for unit in ("mGal", "m/s2"):
        in_mgal = values.astype(np.float64) * GRAVITY.factor(unit, "")
        if in_mgal.std() >= 1 and np.abs(in_mgal).max() <= _LARGEST_MGAL:
            return f" (--units {unit} would fit)"
    return ""


def check_elevations(values: NDArray[Any], where: str) -> None:
    """Check that values can be heights of the Earth's surface in metres.

    Parameters
    ----------
    values : array
        Metres, NaN where missing.
    where : str
        What the grid is called in messages.

    Raises
    ------
    InputError
        All NaN, infinite, constant, or beyond the deepest sea or the highest mountain.
    """
    known = values[~np.isnan(values)]
    if known.size == 0:
        raise InputError(f"{where} has no heights: every node is NaN.", "Choose another grid.")
    low, high = float(known.min()), float(known.max())
    if not (low >= _LOWEST_M and high <= _HIGHEST_M):
        raise InputError(
            f"{where} runs from {low:g} to {high:g} m, beyond any height on Earth.",
            "Check its unit and its fill value (attribute _FillValue).",
        )
    if low == high:
        raise InputError(f"{where} is constant: every height is {low:g} m.", "Choose another grid.")
    if high - low < _LEAST_RELIEF_M:
        log.warning("%s runs only from %g to %g m: are these heights in metres?", where, low, high)
