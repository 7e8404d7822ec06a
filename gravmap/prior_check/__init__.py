"""Is a region like the simulated crusts that networks are taught on? Its field and map held against theirs.

Stands beside the rooms and uses several of them: the region is read as predictions read it, the crusts come from
`gravmap.synthetic`, labels are spread out by `gravmap.learning`. Only the command line uses it.
"""

from gravmap.prior_check.check import prior_verdict, run_verdict
from gravmap.prior_check.picture import draw_verdict
from gravmap.prior_check.verdict import EDGE, INSIDE, OUTSIDE, Place, Verdict

__all__ = ["EDGE", "INSIDE", "OUTSIDE", "Place", "Verdict", "draw_verdict", "prior_verdict", "run_verdict"]
