"""What gravity is divided by where no place may be measured: for networks that work on ground they were not taught on.

The numbers are rounded standard deviations over three simulated crusts (`gravmap.synthetic`, 8 x 5 degrees), whose
residual 10 km spreads by 6.5 to 7.4 mGal. They need be no better: a network sees the same number of mGal as the same
number everywhere, and that is all. Absolute fields are not among them; their level would tell the place.
"""

from __future__ import annotations

import math

from gravmap.errors import OptionError
from gravmap.units import parse_length_m

RESIDUALS_MGAL = {2e3: 2.0, 5e3: 4.0, 10e3: 7.0, 20e3: 10.0, 40e3: 15.0}
"""Height in metres to the spread of its residual; a straight line between their logarithms."""

OTHERS = {
    "band_2km_5km": 2.0,
    "band_5km_10km": 2.5,
    "band_10km_20km": 4.0,
    "band_20km_40km": 5.0,
    "vertical_derivative_2km": 0.9,
    "east_derivative_2km": 0.6,
    "north_derivative_2km": 0.6,
    "horizontal_gradient_2km": 0.5,
    "tilt_2km": 0.8,
    "analytic_signal_2km": 0.6,
}
"""Spread of the other fields of `gravmap residual --bands --derivatives`: mGal, mGal/km, radians."""

_RESIDUAL = "residual_"


def fixed_spread(name: str) -> float:
    """What a field is divided by, in its unit.

    Parameters
    ----------
    name : str
        Such as ``residual_10km``.

    Raises
    ------
    OptionError
        There is no number for this field.
    """
    if name in OTHERS:
        return OTHERS[name]
    if name.startswith(_RESIDUAL):
        return _of_residual(parse_length_m(name.removeprefix(_RESIDUAL)))
    raise OptionError(
        f"{name} has no fixed spread, and a network for any place cannot be taught on it.",
        f"Take residuals of any height from 1 to 100 km, or {', '.join(OTHERS)}.",
    )


def _of_residual(height_m: float) -> float:
    heights = sorted(RESIDUALS_MGAL)
    over = next((place for place, height in enumerate(heights[1:-1], 1) if height_m <= height), len(heights) - 1)
    low, high = heights[over - 1], heights[over]
    along = math.log(height_m / low) / math.log(high / low)
    return float(RESIDUALS_MGAL[low] * (RESIDUALS_MGAL[high] / RESIDUALS_MGAL[low]) ** along)
