"""Simulated crusts whose bedrock under cover is known: geology, the gravity above it, and priors to draw them from."""

from gravmap.synthetic.crust import draw_crust, make_crust
from gravmap.synthetic.files import write_crust
from gravmap.synthetic.pool import crust_pool
from gravmap.synthetic.prior import load_prior

__all__ = ["crust_pool", "draw_crust", "load_prior", "make_crust", "write_crust"]
