"""Prior check: whether a region is like the simulated crusts that networks are trained on.

Statistics of the region's gravity field and geological map are compared with those of crusts simulated from a prior.
"""

from gravmap.prior_check.check import prior_verdict

__all__ = ["prior_verdict"]
