"""What changes in the course of a run: the learning rate, the optimiser, and the share of pixels that teach.

Plain functions of where a run is. Under "cosine" that is its progress, a number from 0 to 1: steps done of
all steps, or time used of the time allowed where that is further on, so that a run cut short by the clock
still ends with a small rate. Under "adam-sgd" epochs are counted, and the training loss tells when Adam has
done what it can.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from gravmap.errors import OptionError

SCHEDULES = ("cosine", "adam-sgd")

WARMUP = 0.05
FLOOR = 0.01


def cosine_rate(progress: float, peak: float) -> float:
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


def sgd_rate(
    epochs: float,
    peak: float,
    *,
    warmup_epochs: float,
    warmup_from: float,
    milestones: Sequence[int],
    decay: float,
    floor: float,
) -> float:
    """SGD's rate ("WarmupMultiStepLR"): a linear warm-up, then steps down.

    Parameters
    ----------
    epochs : float
        Epochs since SGD took over, with the part of the present one that is done.
    peak : float
        Adam's last rate.
    warmup_epochs, warmup_from : float
        From this share of the peak over so many epochs.
    milestones : sequence of int
        Epochs of SGD after each of which the rate is multiplied by `decay`.
    decay, floor : float
        The rate does not fall below the floor (which does not hold it up while it warms up).
    """
    if epochs < warmup_epochs:
        return peak * (warmup_from + (1 - warmup_from) * epochs / warmup_epochs)
    return max(peak * decay ** sum(epochs >= milestone for milestone in milestones), min(floor, peak))


def plateaued(losses: Sequence[float], *, smoothing: float, window: int, gain: float) -> bool:
    """Whether the moving average of the epochs' losses has fallen by less than `gain` over `window` epochs.

    Parameters
    ----------
    losses : sequence of float
        Mean training loss of each epoch so far; they must be of one kind.
    smoothing : float
        Share of the old average that each epoch keeps.
    window : int
        Epochs looked back over; false while there are not more.
    gain : float
        The least fall, as a share of what the average was.
    """
    if len(losses) <= window:
        return False
    averages = [losses[0]]
    for loss in losses[1:]:
        averages.append(smoothing * averages[-1] + (1 - smoothing) * loss)
    before, now = averages[-1 - window], averages[-1]
    return before - now < gain * before


def switch_epoch(switch: str) -> int | None:
    """N of "epoch:N", None of "plateau".

    Raises
    ------
    OptionError
        It is neither.
    """
    if switch == "plateau":
        return None
    told = re.fullmatch(r"epoch:(\d+)", switch)
    if told is None or int(told[1]) == 0:
        raise OptionError(f"{switch!r} is no value of switch.", "Write plateau, or epoch:N with N at least 1.")
    return int(told[1])


def ohem_keep_fraction(progress: float, final: float, warmup: float) -> float:
    """Share of an image's pixels that teach: all of them at first, `final` once `warmup` of the run is done.

    At random weights the worst pixels are mostly errors of the map; so the whole image comes first.
    """
    if warmup <= 0 or progress >= warmup:
        return final
    return 1 - (1 - final) * progress / warmup
