"""Figure of a verdict: for each quantity a strip of the simulated values with those of the region."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gravmap.files import atomic_path
from gravmap.plotting import BACKGROUND, GREEN, GREY, INK, MUTED, OCHRE, SAND, VERMILLION
from gravmap.prior_check.quantities import GROUPS
from gravmap.prior_check.verdict import EDGE, FAR, INSIDE, OUTSIDE, QuantityResult, Verdict, state_limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {INSIDE: GREEN, EDGE: OCHRE, OUTSIDE: VERMILLION}
_ROW, _HEAD, _TOP, _BOTTOM, _WIDE = 0.27, 0.36, 0.95, 0.75, 11.5  # inches
_MARGIN = 0.8  # extent of a strip beyond the crusts, in their range
_X_NAMES, _X_HERE, _X_CRUSTS = -2.6, 1 + _MARGIN + 0.06, 1 + _MARGIN + 0.46


def draw_verdict(verdict: Verdict, path: Path, *, title: str = "", dpi: int = 160) -> None:
    """Draw a verdict as a PNG.

    Parameters
    ----------
    verdict : Verdict
        From :func:`gravmap.prior_check.prior_verdict`.
    path : Path
        The PNG to write.
    title : str
        Above the headline.
    dpi : int
        Pixels per inch.
    """
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(place.quantity.group for place in verdict.places))
    height = _TOP + len(groups) * _HEAD + len(verdict.places) * _ROW + _BOTTOM
    figure = Figure(figsize=(_WIDE, height), dpi=dpi, facecolor="white")
    figure.text(0.03, 1 - 0.16 / height, title, va="top", fontsize=10, color=GREY)
    figure.text(
        0.03, 1 - 0.4 / height, verdict.headline, va="top", fontsize=13.5, weight="bold", color=COLOURS[verdict.state]
    )
    axes = figure.add_axes((0.315, _BOTTOM / height, 0.4, (height - _TOP - _BOTTOM) / height))
    axes.set_axis_off()
    axes.set_xlim(-_MARGIN, 1 + _MARGIN)
    rows = height - _TOP - _BOTTOM
    axes.set_ylim(rows, 0)
    at = 0.0
    for where, word in ((0.0, "min"), (1.0, "max")):
        axes.text(where, -0.06, word, ha="center", va="bottom", fontsize=8, color=GREY)
    for where, word in ((_X_HERE, "here"), (_X_CRUSTS, "min – median – max of the crusts")):
        axes.text(where, -0.06, word, va="bottom", fontsize=8, color=GREY)
    group = None
    for place in verdict.places:
        if place.quantity.group != group:
            group = place.quantity.group
            at += _HEAD
            axes.text(_X_NAMES, at - 0.1, GROUPS[group], fontsize=10, weight="bold", va="center", color=INK)
        _strip(axes, place, at + _ROW / 2)
        at += _ROW
    figure.text(0.03, 0.12 / height, textwrap.fill(_legend(verdict), 170), fontsize=8, color=GREY, va="bottom")
    with atomic_path(path) as partial:
        figure.savefig(
            partial, format="png", metadata={"Title": title or verdict.headline}, pil_kwargs={"compress_level": 4}
        )


def _strip(axes: Axes, place: QuantityResult, y: float) -> None:
    """One quantity: a band from the minimum to the maximum of the crusts, their values, and the region's boxes."""
    from matplotlib.patches import Rectangle

    quantity = place.quantity
    crusts = np.array([quantity.scaled(value) for value in place.crusts])
    (low, high), _, far = state_limits(quantity, place.crusts)
    wide, half = high - low, 0.34 * _ROW
    left, right = (max((far[0] - low) / wide, -_MARGIN), min((far[1] - low) / wide, 1 + _MARGIN))
    for start, end, colour, order in ((left, right, BACKGROUND, 0), (0.0, 1.0, SAND, 1)):
        axes.add_patch(
            Rectangle((start, y - half), end - start, 2 * half, facecolor=colour, edgecolor="none", zorder=order)
        )
    axes.plot((crusts - low) / wide, np.full(len(crusts), y), "|", color=MUTED, markersize=7, alpha=0.75, zorder=2)
    colour = COLOURS[place.state]
    middle = (quantity.scaled(place.middle) - low) / wide
    for value in place.here if len(place.here) > 1 else ():
        where = (quantity.scaled(value) - low) / wide
        _mark(axes, where, y, colour, 3.4, 0.45)
    _mark(axes, middle, y, colour, 8.0, 1.0)
    bold = "normal" if place.state == INSIDE else "bold"
    label = f"{quantity.label}{', ' + quantity.unit if quantity.unit else ''}"
    axes.text(_X_NAMES + 0.06, y, label, va="center", fontsize=9, color=INK)
    least, median, most = (quantity.format(value, unit=False) for value in place.typical)
    here = f"{quantity.format(place.middle, unit=False)}"
    axes.text(_X_HERE, y, here, va="center", fontsize=9, color=colour, weight=bold)
    axes.text(_X_CRUSTS, y, f"{least} – {median} – {most}", va="center", fontsize=8.5, color=GREY)


def _mark(axes: Axes, where: float, y: float, colour: str, size: float, alpha: float) -> None:
    """A dot; an arrow at the end of the strip if the value is farther out."""
    inside = -_MARGIN < where < 1 + _MARGIN
    shape = "o" if inside else (">" if where > 0 else "<")
    x = float(np.clip(where, -_MARGIN + 0.02, 1 + _MARGIN - 0.02))
    axes.plot([x], [y], shape, color=colour, markersize=size, alpha=alpha, markeredgecolor="white", zorder=4)


def _legend(verdict: Verdict) -> str:
    rows, columns = verdict.shape
    boxes = (
        "The dot: the region"
        if len(verdict.boxes) == 1
        else f"Small dots: {len(verdict.boxes)} overlapping boxes of the region, the large one their median"
    )
    return (
        f"Ticks: {verdict.crusts} crusts of the prior {verdict.prior}, {rows / 30:.3g} x {columns / 30:.3g} degrees"
        f" each. {boxes}. Green: inside; orange: at the edge (up to {FAR:g} standard deviations away, or"
        f" some boxes outside); red: outside. Standard deviations, ranges, distances and class frequencies are on a log"
        f" scale."
    )
