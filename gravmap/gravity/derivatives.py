"""Derivatives of a field, and what is made of them to find edges: horizontal gradient, tilt, analytic signal.

All amplify what is short, noise included, so they are taken of the field a little higher up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.gravity.patch import Continuation, Patch, TransferFunction

# How far up derivatives are taken, metres: about half a node of a 2 arc-minute grid.
DERIVATIVE_HEIGHT_M = 2000.0

# long name and unit of each
DERIVATIVES = {
    "vertical_derivative": ("downward derivative of gravity, positive over dense bodies", "mGal/km"),
    "east_derivative": ("derivative towards the east", "mGal/km"),
    "north_derivative": ("derivative towards the north", "mGal/km"),
    "horizontal_gradient": ("total horizontal derivative", "mGal/km"),
    "tilt": ("tilt: angle of the vertical derivative to the horizontal gradient", "radian"),
    "analytic_signal": ("amplitude of the analytic signal", "mGal/km"),
}


def upward_derivative_filter(height_m: float) -> TransferFunction:
    r"""The symbol of d/dr of the field `height_m` above the data, per metre.

    Degree n of radial gravity decays as :math:`(R/r)^{n+2}`, so d/dr multiplies it by
    :math:`-(n+2)/r = -(q + 3/2)/(R + h)`. The vertical derivative that geophysicists draw is its negative.
    """
    raised = Continuation(height_m)

    def symbol(q: NDArray[Any], radius_m: Any) -> NDArray[Any]:
        return np.asarray(-(q + 1.5) / (radius_m + height_m) * raised(q, radius_m))

    return symbol


def derivatives(patch: Patch, height_m: float = DERIVATIVE_HEIGHT_M) -> dict[str, NDArray[np.float32]]:
    r"""Derivatives of the field of a patch, `height_m` above its level.

    With :math:`g_z` the downward derivative (positive over dense bodies) and :math:`g_h` the length of the horizontal
    one: tilt :math:`= \arctan(g_z / g_h)`, analytic signal :math:`= \sqrt{g_h^2 + g_z^2}`.

    Parameters
    ----------
    patch : Patch
        The field, mGal.
    height_m : float
        How far above its level, metres; not negative.

    Returns
    -------
    dict of arrays
        The names of :data:`DERIVATIVES`; mGal/km, the tilt in radians from -π/2 to π/2.

    References
    ----------
    Miller and Singh (1994), J. Applied Geophysics 32, 213-217 (tilt). Roest, Verhoef and Pilkington (1992), Geophysics
    57, 116-125 (analytic signal).
    """
    raised = Continuation(height_m)
    down = -1e3 * patch.apply(upward_derivative_filter(height_m))
    # Per metre at the level of the data; a degree is longer higher up, by a ten-thousandth per 600 m.
    shrink = np.float32(1e3 / (1 + height_m / 6.371e6))
    east, north = shrink * patch.apply(raised, along="east"), shrink * patch.apply(raised, along="north")
    gradient = np.hypot(east, north)
    return {
        "vertical_derivative": down,
        "east_derivative": east,
        "north_derivative": north,
        "horizontal_gradient": gradient,
        "tilt": np.arctan2(down, gradient),
        "analytic_signal": np.hypot(gradient, down),
    }
