"""Simulated crusts whose bedrock under cover is known: geology, the gravity above it, and priors to draw them from."""

from __future__ import annotations

from gravmap.synthetic.crust import Crust, draw_crust, make_crust
from gravmap.synthetic.files import write_crust
from gravmap.synthetic.pool import crust_arrays, crust_pool
from gravmap.synthetic.prior import PRIORS, Prior, load_prior
from gravmap.synthetic.setting import RockTable, Setting

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
    "write_crust",
]
