"""Schedules of the learning rate, of the switch from Adam to SGD, and of the OHEM keep fraction.

They are functions of the position in a run. Under "cosine" that is the progress from 0 to 1: the fraction of the steps
or of the time limit, whichever is larger, so that a run that its time limit ends still ends with a small learning rate.
Under "adam-sgd" it is the number of epochs, and a plateau of the training loss ends the phase of Adam.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from gravmap.errors import OptionError

SCHEDULES = ("cosine", "adam-sgd")

WARMUP = 0.05
"""Fraction of the run with linear warm-up, under "cosine"."""

FLOOR = 0.01
"""Initial and final learning rate as a fraction of the peak, under "cosine"."""


def cosine_rate(progress: float, peak: float) -> float:
    """Compute the learning rate of linear warm-up over the first 5 %, then cosine annealing to 1 % of the peak.

    Parameters
    ----------
    progress : float
        0 at the first step, 1 after the last.
    peak : float
        Peak learning rate.

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
    """Compute the learning rate of SGD ("WarmupMultiStepLR"): linear warm-up, then step decay.

    Parameters
    ----------
    epochs : float
        Epochs since SGD took over, including the completed part of the current one.
    peak : float
        Peak learning rate.
    warmup_epochs, warmup_from : float
        Length of the warm-up in epochs, and its initial fraction of the peak.
    milestones : sequence of int
        Epochs of SGD after which the learning rate is multiplied by `decay`.
    decay, floor : float
        Factor of the step decay, and minimum learning rate (not applied during warm-up).
    """
    if epochs < warmup_epochs:
        return peak * (warmup_from + (1 - warmup_from) * epochs / warmup_epochs)
    return max(peak * decay ** sum(epochs >= milestone for milestone in milestones), min(floor, peak))


def plateaued(losses: Sequence[float], *, smoothing: float, window: int, gain: float) -> bool:
    """Return whether the moving average of the loss has decreased by less than `gain` over `window` epochs.

    Parameters
    ----------
    losses : sequence of float
        Mean training loss of each epoch, all with the same OHEM keep fraction.
    smoothing : float
        Decay of the exponential moving average.
    window : int
        Number of epochs to look back; False while there are fewer.
    gain : float
        Minimum relative decrease.
    """
    if len(losses) <= window:
        return False
    averages = [losses[0]]
    for loss in losses[1:]:
        averages.append(smoothing * averages[-1] + (1 - smoothing) * loss)
    before, now = averages[-1 - window], averages[-1]
    return before - now < gain * before


def switch_epoch(switch: str) -> int | None:
    """Return N of "epoch:N", None of "plateau".

    Raises
    ------
    OptionError
        `switch` is neither.
    """
    if switch == "plateau":
        return None
    match = re.fullmatch(r"epoch:(\d+)", switch)
    if match is None or int(match[1]) == 0:
        raise OptionError(f"switch = {switch!r} is not valid.", "Write plateau, or epoch:N with N at least 1.")
    return int(match[1])


def ohem_keep_fraction(progress: float, final: float, warmup: float) -> float:
    """Compute the OHEM keep fraction: 1 at first, `final` after the fraction `warmup` of the run.

    At random weights the pixels with the largest loss are mostly errors of the map; so all pixels count at first.
    """
    if warmup <= 0 or progress >= warmup:
        return final
    return 1 - (1 - final) * progress / warmup
