"""A crust drawn from a prior: first its numbers, then its rocks."""

from __future__ import annotations

from dataclasses import replace

from gravmap.errors import OptionError
from gravmap.synthetic.crust import MARGIN_CELLS, SPACING_DEG, Crust, make_crust
from gravmap.synthetic.prior import Prior

_WEST_DEG = 82.0  # any longitude would do


def draw_crust(
    prior: Prior,
    seed: int,
    shape: tuple[int, int] = (240, 360),
    *,
    sub: int = 1,
    collar: int = MARGIN_CELLS,
    components: bool = False,
) -> Crust:
    """Draw one crust from a prior: first its numbers, then its rocks.

    Parameters
    ----------
    prior : Prior
        See `load_prior`.
    seed : int
        From 0 up; decides both.
    shape : (int, int)
        Rows and columns of cells of 2 arc-minutes.
    sub : int
        As in `make_crust`. Training crusts are built straight on their cells, four times faster.
    collar : int
        As in `make_crust`; the whole margin, so that residuals know what lies around the region.
    components : bool
        As in `make_crust`.

    Returns
    -------
    Crust
        At the drawn latitude; its longitude means nothing.

    Raises
    ------
    OptionError
        As `make_crust`.
    """
    if seed < 0:
        raise OptionError(f"The seed {seed} is negative.", "Any whole number from 0 up will do.")
    setting = prior.draw(seed)
    south = round(setting.latitude_deg - shape[0] * SPACING_DEG / 2, 6)
    crust = make_crust(
        seed,
        shape,
        (_WEST_DEG, south),
        sub=sub,
        setting=setting,
        collar=collar,
        components=components,
    )
    drawn = {"prior": {"name": prior.name, "sha256": prior.sha256}, **crust.parameters}
    return replace(crust, parameters=drawn)
