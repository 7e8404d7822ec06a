"""What changes in the course of a run: the learning rate and the share of pixels that teach.

Both follow the run's progress, a number from 0 to 1: steps done of all steps, or time used of the time
allowed where that is further on, so that a run cut short by the clock still ends with a small rate.
"""

from __future__ import annotations

import math

WARMUP = 0.05
FLOOR = 0.01


def learning_rate(progress: float, peak: float) -> float:
    """Linear warm-up over the first 5 %, then half a cosine down to 1 % of the peak.

    Parameters
    ----------
    progress : float
        0 at the first step, 1 after the last.
    peak : float
        Highest rate.

    References
    ----------
    Loshchilov and Hutter (2017), arXiv:1608.03983.
    """
    if progress < WARMUP:
        return peak * (FLOOR + (1 - FLOOR) * progress / WARMUP)
    falling = min((progress - WARMUP) / (1 - WARMUP), 1.0)
    return peak * (FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * falling)) / 2)


def hard_share(progress: float, final: float, until: float) -> float:
    """Share of an image's pixels that teach: all of them at first, `final` once `until` of the run is done.

    At random weights the worst pixels are mostly errors of the map; so the whole image comes first.
    """
    if until <= 0 or progress >= until:
        return final
    return 1 - (1 - final) * progress / until
