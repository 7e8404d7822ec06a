"""What the numbers of a grid are: gravity or heights, in which unit, at which level, and whether they can be that."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError

log = logging.getLogger(__name__)

# One of each in mGal (1 mGal = 1e-5 m/s2; a gravity unit, gu, is 1 µm/s2).
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

# No Bouguer, free-air or isostatic anomaly on Earth is beyond this.
_LARGEST_MGAL = 5_000.0


# One of each in metres; geopotential metres differ by less than any map of heights errs.
_METRES = {"m": 1.0, "metre": 1.0, "meter": 1.0, "gpm": 1.0, "km": 1e3, "ft": 0.3048, "foot": 0.3048, "feet": 0.3048}

# Challenger Deep lies at -10 935 m, Everest at 8 849 m.
_LOWEST_M, _HIGHEST_M = -12_000.0, 9_500.0

# Ground worth a geological map is not so flat; numbers of classes are.
_LEAST_RELIEF_M = 20.0


@dataclass(frozen=True)
class Quantity:
    """What a file is opened for.

    Attributes
    ----------
    name : str
        In messages: "gravity".
    unit : str
        The one that numbers are brought to.
    factors : mapping of str to float
        How many of it one of each other unit is; keys as :func:`plain_unit` spells them.
    known : str
        Units in words, for an error.
    words : tuple of str
        What a variable of it is called, the likeliest first; parts of its name in small letters.
    choose, restate : str
        What the user can do where several variables could be meant, or where the unit is wrong.
    or_else : str
        What the user can do where no unit is said, in brackets of a warning.
    """

    name: str
    unit: str
    factors: Mapping[str, float] = field(repr=False)
    known: str
    words: tuple[str, ...]
    choose: str
    restate: str
    or_else: str = ""

    def factor(self, unit: str, where: str) -> float:
        """How many of its own unit one `unit` is.

        Raises
        ------
        InputError
            That is no unit of it known here.
        """
        plain = plain_unit(unit)
        if plain not in self.factors:
            raise InputError(
                f"{where} has the unit {unit!r}, which is no unit of {self.name} known here.",
                f"Known: {self.known}. {self.restate}",
            )
        return self.factors[plain]

    def measured_in(self, unit: str) -> bool:
        """Whether `unit` is one of it."""
        return plain_unit(unit) in self.factors


GRAVITY = Quantity(
    "gravity",
    "mGal",
    _MGAL,
    "mGal, µGal, Gal, m/s2, mm/s2, um/s2, gu",
    ("bouguer", "anomaly", "gravity", "disturbance"),
    "Say which with --variable NAME (or its NUMBER, of a band or a column).",
    "Say what it is with --units.",
    " (else say --units)",
)

HEIGHTS = Quantity(
    "height",
    "m",
    _METRES,
    "m, km, ft",
    ("elevation", "topo", "height", "altitude", "dem"),
    "Write the one that holds heights to a file of its own, for example with gdal_translate.",
    "Give a grid of heights, and write its unit on it.",
)


def plain_unit(unit: str) -> str:
    """A unit as it is looked up: small letters, no plural, ``m s-2`` and its like as ``m/s2``."""
    plain = unit.strip().lower().replace("µ", "u").replace("μ", "u").replace("²", "2").replace("⁻", "-")
    plain = re.sub(r"\s*/\s*", "/", plain).replace("**", "").replace("^", "")
    plain = re.sub(r"^(m|cm|mm|um|nm|micrometer|micrometre)[\s.*]+s-?2$", r"\1/s2", plain)
    plain = re.sub(r"^(m|cm|mm|um|nm)/s/s$", r"\1/s2", plain)
    plain = re.sub(r"^(micrometer|micrometre)", "um", plain)
    plural = {"mgals": "mgal", "milligals": "mgal", "metres": "metre", "meters": "meter"}
    return plural.get(plain, plain)


@cache
def warn_once(text: str) -> None:
    """Warn of something that is true of a file however often it is opened."""
    log.warning("%s", text)


def unit_factor(stated: str | None, found: str, where: str, quantity: Quantity = GRAVITY) -> float:
    """How many of the quantity's unit the file's is: as the user states it, else as the file says, else 1, warned of.

    Parameters
    ----------
    stated : str or None
        What the user says.
    found : str
        What the file says, empty where it says nothing.
    where : str
        For messages.
    quantity : Quantity
        What the file is opened for.

    Raises
    ------
    InputError
        The unit is no unit of the quantity known here.
    """
    if stated is not None:
        if found and found.strip().lower() != stated.strip().lower():
            warn_once(f"{where} says the unit {found!r}; taken as {stated}, as stated.")
        return quantity.factor(stated, "--units:")
    if not found:
        warn_once(f"{where} says no unit; taken as {quantity.unit}{quantity.or_else}.")
        return 1.0
    return quantity.factor(found, where)


def level_in_words(text: str) -> float | None:
    """The height a title speaks of, metres: "disturbance at 10 km height" -> 10000; None when it speaks of none."""
    match = re.search(r"\bat (\d+(?:\.\d+)?)[ -]?(km|m)\b(?: ellipsoidal)? (?:height|altitude|above)", text)
    return float(match[1]) * (1000.0 if match[2] == "km" else 1.0) if match else None


def check_values(values: NDArray[Any], where: str) -> None:
    """Refuse values that cannot be a gravity anomaly in mGal.

    Parameters
    ----------
    values : array
        mGal, NaN where unknown.
    where : str
        How to call the grid in an error message.

    Raises
    ------
    InputError
        All NaN, infinite, constant, absolute gravity, or beyond what an anomaly on Earth can be.
    """
    known = values[~np.isnan(values)]
    if known.size == 0:
        raise InputError(f"{where} holds no value at all: every node is NaN.", "Choose another grid or another region.")
    if not np.isfinite(known).all():
        raise InputError(f"{where} holds infinite values.", "Mark unknown nodes with NaN or a _FillValue.")
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
            f"{where} runs from {low:g} to {high:g} mGal, which no gravity anomaly on Earth does.",
            "Check its unit and its fill value (attribute _FillValue).",
        )
    if max(-low, high) < 0.1:
        log.warning("%s runs only from %g to %g mGal: is its unit right?", where, low, high)


def check_heights(values: NDArray[Any], where: str) -> None:
    """Refuse values that cannot be heights of the Earth's surface in metres.

    Parameters
    ----------
    values : array
        Metres, NaN where unknown.
    where : str
        How to call the grid in an error message.

    Raises
    ------
    InputError
        All NaN, infinite, constant, or beyond the deepest sea and the highest mountain.
    """
    known = values[~np.isnan(values)]
    if known.size == 0:
        raise InputError(f"{where} holds no height at all: every node is NaN.", "Choose another grid.")
    low, high = float(known.min()), float(known.max())
    if not (low >= _LOWEST_M and high <= _HIGHEST_M):
        raise InputError(
            f"{where} runs from {low:g} to {high:g} m, which no height on Earth does.",
            "Check its unit and its fill value (attribute _FillValue).",
        )
    if low == high:
        raise InputError(f"{where} is constant: every height is {low:g} m.", "Choose another grid.")
    if high - low < _LEAST_RELIEF_M:
        log.warning("%s runs only from %g to %g m: are these heights in metres?", where, low, high)
