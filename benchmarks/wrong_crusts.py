"""Crusts unlike the training crusts of a network: the same seeds, with one parameter changed at a time.

Each kind changes a parameter of the default crust of `make_crust` (the middle of the prior central-asia), in some
kinds to a value outside that prior. All come from the same generator; none has a geology that it cannot make.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from gravmap.synthetic import Crust, draw_crust, load_prior, make_crust
from gravmap.synthetic.setting import Setting

SHAPE = (240, 360)
MEANS_MOVED = 30.0
"""Standard deviation of the random change of the mean density of a class, kg/m3."""


def _means(setting: Setting, seed: int) -> Setting:
    moved = np.random.default_rng([seed, 78]).normal(0.0, MEANS_MOVED, len(setting.rocks.mean))
    means = tuple(float(mean + by) for mean, by in zip(setting.rocks.mean, moved, strict=True))
    return replace(setting, rocks=replace(setting.rocks, mean=means))


def _spreads(setting: Setting, _: int) -> Setting:
    return replace(setting, rocks=replace(setting.rocks, spread=tuple(1.4 * each for each in setting.rocks.spread)))


CHANGES: dict[str, tuple[str, Callable[[Setting, int], Setting]]] = {
    "default": ("defaults of `make_crust`", lambda setting, _: setting),
    "means": ("class means moved by N(0, 30) kg/m³, each of each crust", _means),
    "spreads": ("spreads within classes x 1.4", _spreads),
    "gravity": (
        "poorer gravity: low pass 55 km, noise 3 mGal",
        lambda setting, _: replace(setting, low_pass_km=55.0, noise_mgal=3.0),
    ),
    "cover": ("more cover: 65 %", lambda setting, _: replace(setting, cover_share=0.65)),
    "belts-25": ("belts of 25 km", lambda setting, _: replace(setting, belt_width_km=25.0)),
    "belts-100": ("belts of 100 km", lambda setting, _: replace(setting, belt_width_km=100.0)),
    "loose-cover": (
        "cover anywhere, not where the uplift is low",
        lambda setting, _: replace(setting, cover_on_uplift=0.0),
    ),
    "roots": ("roots of 5 km below swells, for 1.2", lambda setting, _: replace(setting, moho_root_km=5.0)),
}
"""Description of each kind of crusts, and the function that changes the default setting, given the seed."""


def title_of(kind: str) -> str:
    """Description of a kind of crusts, or of a prior."""
    return CHANGES[kind][0] if kind in CHANGES else f"drawn from the prior `{kind}`"


def setting_of(kind: str, seed: int) -> Setting:
    """Parameters of one crust of a kind."""
    return CHANGES[kind][1](load_prior().typical(), seed)


def crust_of(kind: str, seed: int) -> Crust:
    """One crust of a kind, or one drawn from the prior of that name or file."""
    if kind in CHANGES:
        return make_crust(seed, SHAPE, sub=1, setting=setting_of(kind, seed))
    return draw_crust(load_prior(kind), seed, SHAPE)
