"""What the numbers of a gravity grid are: their unit, their level, and whether they can be an anomaly at all."""

from __future__ import annotations

import logging
import re
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


def mgal_factor(unit: str, where: str) -> float:
    """How many mGal one `unit` is.

    Raises
    ------
    InputError
        The unit is no unit of gravity known here.
    """
    plain = unit.strip().lower().replace("µ", "u").replace("μ", "u").replace("²", "2").replace("⁻", "-")
    plain = re.sub(r"\s*/\s*", "/", plain).replace("**", "").replace("^", "")
    plain = re.sub(r"^(m|cm|mm|um|nm|micrometer|micrometre)[\s.*]+s-?2$", r"\1/s2", plain)
    plain = re.sub(r"^(m|cm|mm|um|nm)/s/s$", r"\1/s2", plain)
    plain = re.sub(r"^(micrometer|micrometre)", "um", plain)
    plain = {"mgals": "mgal", "milligals": "mgal"}.get(plain, plain)
    if plain not in _MGAL:
        raise InputError(
            f"{where} has the unit {unit!r}, which is no unit of gravity known here.",
            "Known: mGal, µGal, Gal, m/s2, mm/s2, um/s2, gu. Say what it is with --units.",
        )
    return _MGAL[plain]


@cache
def warn_once(text: str) -> None:
    """Warn of something that is true of a file however often it is opened."""
    log.warning("%s", text)


def unit_factor(stated: str | None, found: str, where: str) -> float:
    """How many mGal the file's unit is: as the user states it, else as the file says, else mGal with a warning.

    Parameters
    ----------
    stated : str or None
        What the user says.
    found : str
        What the file says, empty where it says nothing.
    where : str
        For messages.

    Raises
    ------
    InputError
        The unit is no unit of gravity known here.
    """
    if stated is not None:
        if found and found.strip().lower() != stated.strip().lower():
            warn_once(f"{where} says the unit {found!r}; taken as {stated}, as stated.")
        return mgal_factor(stated, "--units:")
    if not found:
        warn_once(f"{where} says no unit; taken as mGal (else say --units).")
        return 1.0
    return mgal_factor(found, where)


def looks_like_gravity(unit: str) -> bool:
    """Whether `unit` is one of gravity."""
    try:
        mgal_factor(unit, "")
    except InputError:
        return False
    return True


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
