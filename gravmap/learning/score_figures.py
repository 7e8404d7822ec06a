"""Scores as pictures: the confusion matrix, and accuracy against distance to the nearest training outcrop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.files import atomic_path
from gravmap.learning.evaluation.distance_bins import bin_name
from gravmap.plotting import GREY, INK, PANEL, SERIES

MOST_WRITTEN = 16
"""Of more classes than this the cells are too small for numbers."""

MARKERS = "osv^D<>PphXd"


def draw_confusion(
    matrix: NDArray[Any], names: Sequence[str], path: Path, title: str = "", unit: str = "nodes"
) -> None:
    """Draw a confusion matrix into a PNG, each row in percent of the true class.

    Parameters
    ----------
    matrix : ndarray, shape (K, K)
        From :func:`gravmap.learning.evaluation.metrics.confusion`.
    names : sequence of str
        Of the classes.
    path : Path
        The PNG to write.
    title, unit : str
        Over the picture; what was counted.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    matrix = np.asarray(matrix, dtype=np.float64)
    count = len(matrix)
    sums = matrix.sum(axis=1, keepdims=True)
    share = np.divide(100 * matrix, sums, out=np.full_like(matrix, np.nan), where=sums > 0)
    side = 2.6 + 0.52 * min(count, 24)
    figure = Figure(figsize=(side + 1.2, side), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_facecolor(PANEL)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    size = 8 if count <= MOST_WRITTEN else 6
    rows = [
        f"{name}  ({total:,.0f})" if total else f"{name}  (none)" for name, total in zip(names, sums[:, 0], strict=True)
    ]
    axes.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(range(count), rows, fontsize=size)
    axes.set_xlabel("named")
    axes.set_ylabel(f"mapped ({unit})")
    axes.set_xticks(np.arange(count - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(count - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=1)
    axes.tick_params(which="both", length=0)
    if count <= MOST_WRITTEN:
        for row, column in zip(*np.nonzero(matrix > 0), strict=True):
            value = share[row, column]
            axes.text(
                column,
                row,
                f"{value:.0f}" if value >= 0.95 else "<1",
                ha="center",
                va="center",
                fontsize=7.5,
                color="white" if value > 55 else INK,
                weight="bold" if row == column else "normal",
            )
    for each in range(count):
        axes.add_patch(Rectangle((each - 0.45, each - 0.45), 0.9, 0.9, fill=False, ec=GREY, lw=0.8, zorder=3))
    bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02)
    bar.set_label("percent of the mapped class", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        figure.suptitle(title, fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def draw_distance(
    table: Sequence[Mapping[str, Any]], path: Path, title: str = "", network: str = "network", unit: str = "nodes"
) -> None:
    """Draw accuracy against distance to the nearest training outcrop into a PNG; below, how much ground that is.

    Parameters
    ----------
    table : sequence of mapping
        Rows of :func:`gravmap.learning.evaluation.distance_bins.by_distance`; `baselines`, null model to accuracy, where there is.
    path : Path
        The PNG to write.
    title, network, unit : str
        Over the picture; what the network's line is called; what was counted.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 5.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    place = np.arange(len(table))
    total = "km2" if table and "km2" in table[0] else "places"
    nulls = list(table[0].get("baselines", {})) if table else []
    for number, name in enumerate(nulls, start=1):
        above.plot(
            place,
            [100 * row["baselines"][name] for row in table],
            color=SERIES[number % len(SERIES)],
            marker=MARKERS[number % len(MARKERS)],
            ms=4,
            lw=1.1,
            alpha=0.9,
            label=name.replace("_", " "),
        )
    above.plot(place, [100 * row["pa"] for row in table], color=SERIES[0], marker="o", ms=6, lw=2.6, label=network)
    above.set_ylabel("named right, percent")
    above.set_ylim(bottom=0)
    # A few bins do not fill the width: a lone bar as wide as the picture says nothing.
    beside = 0.6 + max(0.0, (4 - len(table)) / 2)
    above.set_xlim(-beside, len(table) - 1 + beside)
    above.grid(alpha=0.3)
    above.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=8)
    below.bar(place, [row[total] for row in table], width=0.7, color=SERIES[0], alpha=0.55)
    below.set_ylabel("km²" if total == "km2" else unit)
    below.set_xticks(place, [bin_name(row) for row in table], fontsize=8)
    below.set_xlabel("distance to the nearest outcrop that training saw")
    below.grid(alpha=0.3, axis="y")
    if title:
        figure.suptitle(title, fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
