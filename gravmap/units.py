"""Parsing and formatting of lengths and angles with units: ``10km``, ``10000 m``, ``2arcmin``, ``5deg``."""

from __future__ import annotations

import re

from gravmap.errors import OptionError

_METRES = {"m": 1.0, "km": 1000.0}
_DEGREES = {"deg": 1.0, "°": 1.0, "arcmin": 1 / 60, "'": 1 / 60, "arcsec": 1 / 3600, '"': 1 / 3600}
_QUANTITY = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(\S*)\s*")


def _parse(text: str, units: dict[str, float], kind: str, example: str) -> float:
    match = _QUANTITY.fullmatch(text)
    named = ", ".join(unit for unit in units if unit.isalpha())
    if match is None:
        raise OptionError(
            f"{text!r} is not a valid {kind}.", f"Write a number and a unit ({named}), such as {example}."
        )
    number, unit = match.groups()
    if unit not in units:
        found = f"has the unit {unit!r}" if unit else "has no unit"
        raise OptionError(f"{text!r} {found}.", f"A {kind} needs one of: {named}; such as {example}.")
    return float(number) * units[unit]


def parse_length_m(text: str) -> float:
    """Parse a length such as ``10km`` or ``10000 m``.

    Returns
    -------
    float
        Metres.

    Raises
    ------
    OptionError
        Not a number with a unit of length.
    """
    return _parse(text, _METRES, "length", "10km")


def parse_angle_deg(text: str) -> float:
    """Parse an angle such as ``5deg``, ``2arcmin`` or ``15arcsec``.

    Returns
    -------
    float
        Degrees.

    Raises
    ------
    OptionError
        Not a number with a unit of angle.
    """
    return _parse(text, _DEGREES, "angle", "5deg")


def format_length(length_m: float) -> str:
    """Format a length as :func:`parse_length_m` reads it: ``10km``, ``500m``."""
    return f"{length_m / 1000:g}km" if length_m % 100 == 0 and length_m >= 1000 else f"{length_m:g}m"


def format_angle(angle_deg: float) -> str:
    """Format an angle as :func:`parse_angle_deg` reads it: ``5deg``, ``2arcmin``, ``15arcsec``."""
    for unit, size in (("deg", 1.0), ("arcmin", 1 / 60)):
        count = angle_deg / size
        if abs(count - round(count, 3)) < 1e-6 and count >= 1:
            return f"{round(count, 3):g}{unit}"
    return f"{round(angle_deg * 3600, 3):g}arcsec"


def describe_angle(angle_deg: float) -> str:
    """Write an angle for people, rounded, in the largest unit of which it has at least one.

    Examples
    --------
    >>> describe_angle(9560 / 3600), describe_angle(0.25), describe_angle(15 / 3600)
    ('2.66deg', '15arcmin', '15arcsec')
    """
    for unit, size in (("deg", 1.0), ("arcmin", 1 / 60)):
        count = angle_deg / size
        if count >= 1 - 1e-6:
            return f"{count:.3g}{unit}" if count < 100 else f"{count:.0f}{unit}"
    return f"{angle_deg * 3600:.3g}arcsec"
