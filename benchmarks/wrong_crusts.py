"""Crusts outside a network's training distribution: the same seeds, with one change at a time.

Each kind changes one number of the crust in the middle of the prior central-asia (the default of `make_crust`), some
beyond the range of that prior. All come from one generator: geology of a different origin is not covered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from gravmap.synthetic import draw_crust, load_prior, make_crust
from gravmap.synthetic.crust import Crust
from gravmap.synthetic.setting import Setting

SHAPE = (240, 360)
MEAN_SHIFT_STD = 30.0
"""Standard deviation of the shift of the mean density of a class, kg/m3."""


def _means(setting: Setting, seed: int) -> Setting:
    shifts = np.random.default_rng([seed, 78]).normal(0.0, MEAN_SHIFT_STD, len(setting.rocks.mean))
    means = tuple(float(mean + shift) for mean, shift in zip(setting.rocks.mean, shifts, strict=True))
    return replace(setting, rocks=replace(setting.rocks, mean=means))


def _spreads(setting: Setting, _: int) -> Setting:
    return replace(setting, rocks=replace(setting.rocks, spread=tuple(1.4 * each for each in setting.rocks.spread)))


def _rocks(setting: Setting, factor: float, *names: str) -> Setting:
    """A setting with some densities or scales of its rocks times a factor."""
    return replace(
        setting, rocks=replace(setting.rocks, **{each: factor * getattr(setting.rocks, each) for each in names})
    )


CHANGES: dict[str, tuple[str, Callable[[Setting, int], Setting]]] = {
    "default": ("default of `make_crust`", lambda setting, _: setting),
    "means": ("class means shifted by N(0, 30) kg/m³ in each crust", _means),
    "spreads": ("standard deviations within classes x 1.4", _spreads),
    "gravity": (
        "poorer gravity: low pass 55 km, noise 3 mGal",
        lambda setting, _: replace(setting, low_pass_km=55.0, noise_mgal=3.0),
    ),
    "cover": ("more cover: 80 %", lambda setting, _: replace(setting, cover_share=0.8)),
    "thick-cover": ("cover up to 12 km thick instead of 8", lambda setting, _: replace(setting, cover_deepest_km=12.0)),
    "thin-cover": ("cover up to 4 km thick", lambda setting, _: replace(setting, cover_deepest_km=4.0)),
    "stiff-cover": (
        "compaction within half the depth",
        lambda setting, _: _rocks(setting, 0.5, "cenozoic_scale_km", "mesozoic_scale_km"),
    ),
    "dense-cover": (
        "density deficits of the cover x 0.65",
        lambda setting, _: _rocks(setting, 0.65, "cenozoic_deficit", "mesozoic_deficit"),
    ),
    "belts-25": ("belts of 25 km", lambda setting, _: replace(setting, belt_width_km=25.0)),
    "belts-100": ("belts of 100 km", lambda setting, _: replace(setting, belt_width_km=100.0)),
    "loose-cover": (
        "cover anywhere, not where the uplift is low",
        lambda setting, _: replace(setting, cover_on_uplift=0.0),
    ),
    "roots": ("roots of 5 km below swells instead of 1.2", lambda setting, _: replace(setting, moho_root_km=5.0)),
}
"""Kind of crusts to its title and its change of the default setting, given the seed."""


def title_of(kind: str) -> str:
    """Title of a kind of crusts, or of a prior."""
    return CHANGES[kind][0] if kind in CHANGES else f"drawn from the prior `{kind}`"


def setting_of(kind: str, seed: int) -> Setting:
    """Setting of one crust of a kind."""
    return CHANGES[kind][1](load_prior().typical(), seed)


def crust_of(kind: str, seed: int) -> Crust:
    """One crust of a kind, or from the prior of that name or file."""
    if kind in CHANGES:
        return make_crust(seed, SHAPE, sub=1, setting=setting_of(kind, seed))
    return draw_crust(load_prior(kind), seed, SHAPE)
