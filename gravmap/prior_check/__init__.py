"""Prior check: whether a region is like the simulated crusts that networks are trained on.

Statistics of the region's gravity field and geological map are compared with those of crusts simulated from a prior.
"""

from gravmap.prior_check.check import prior_verdict, run_verdict
from gravmap.prior_check.picture import draw_verdict
from gravmap.prior_check.quantities import Quantity, cover_mask_score
from gravmap.prior_check.verdict import EDGE, INSIDE, OUTSIDE, QuantityResult, Verdict

__all__ = [
    "EDGE",
    "INSIDE",
    "OUTSIDE",
    "Quantity",
    "QuantityResult",
    "Verdict",
    "cover_mask_score",
    "draw_verdict",
    "prior_verdict",
    "run_verdict",
]
