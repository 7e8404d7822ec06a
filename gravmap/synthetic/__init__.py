"""Crusts whose bedrock under cover is known: for training, the demo, the tests and the benchmarks."""

from __future__ import annotations

from gravmap.synthetic.crust import Crust, make_crust
from gravmap.synthetic.drawn import draw_crust
from gravmap.synthetic.pool import crust_arrays, crust_pool
from gravmap.synthetic.prior import PRIORS, Prior, load_prior
from gravmap.synthetic.rocks import RockTable
from gravmap.synthetic.setting import Setting

__all__ = [
    "PRIORS",
    "Crust",
    "Prior",
    "RockTable",
    "Setting",
    "crust_arrays",
    "crust_pool",
    "draw_crust",
    "load_prior",
    "make_crust",
]
