"""Figures of scores: confusion matrix, accuracy by distance to outcrop, and groups of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.files import atomic_path
from gravmap.learning.evaluation.metrics import distance_bin_label
from gravmap.learning.evaluation.run_groups import standard_deviations
from gravmap.plotting import BLUE, GREY, INK, PANEL, SERIES

MAX_ANNOTATED_CLASSES = 16
"""With more classes the cells of a confusion matrix are too small for numbers."""

MARKERS = "osv^D<>PphXd"


def draw_confusion(
    matrix: NDArray[Any], names: Sequence[str], path: Path, title: str = "", unit: str = "nodes"
) -> None:
    """Draw a confusion matrix as a PNG, each row in percent of the true class.

    Parameters
    ----------
    matrix : ndarray, shape (K, K)
        From :func:`gravmap.learning.evaluation.metrics.confusion`.
    names : sequence of str
        Names of the classes.
    path : Path
        The PNG to write.
    title, unit : str
        Title of the figure; unit of the counts.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    matrix = np.asarray(matrix, dtype=np.float64)
    count = len(matrix)
    sums = matrix.sum(axis=1, keepdims=True)
    percent = np.divide(100 * matrix, sums, out=np.full_like(matrix, np.nan), where=sums > 0)
    side = 2.6 + 0.52 * min(count, 24)
    figure = Figure(figsize=(side + 1.2, side), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_facecolor(PANEL)
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    size = 8 if count <= MAX_ANNOTATED_CLASSES else 6
    rows = [
        f"{name}  ({total:,.0f})" if total else f"{name}  (none)" for name, total in zip(names, sums[:, 0], strict=True)
    ]
    axes.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(range(count), rows, fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel(f"mapped ({unit})")
    axes.set_xticks(np.arange(count - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(count - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=1)
    axes.tick_params(which="both", length=0)
    if count <= MAX_ANNOTATED_CLASSES:
        for row, column in zip(*np.nonzero(matrix > 0), strict=True):
            value = percent[row, column]
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
    """Draw accuracy by distance to the nearest training outcrop as a PNG, above a histogram of the nodes.

    Parameters
    ----------
    table : sequence of mapping
        Rows of :func:`gravmap.learning.evaluation.metrics.scores_by_distance`; optionally `baselines`, null model to
        accuracy.
    path : Path
        The PNG to write.
    title, network, unit : str
        Title of the figure; legend entry of the network; unit of the counts.
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
    above.set_ylabel("accuracy, percent")
    above.set_ylim(bottom=0)
    # Few bins keep their width: a single bar must not fill the figure.
    margin = 0.6 + max(0.0, (4 - len(table)) / 2)
    above.set_xlim(-margin, len(table) - 1 + margin)
    above.grid(alpha=0.3)
    above.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=8)
    below.bar(place, [row[total] for row in table], width=0.7, color=SERIES[0], alpha=0.55)
    below.set_ylabel("km²" if total == "km2" else unit)
    below.set_xticks(place, [distance_bin_label(row) for row in table], fontsize=8)
    below.set_xlabel("distance to the nearest outcrop used in training")
    below.grid(alpha=0.3, axis="y")
    if title:
        figure.suptitle(title, fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


SHOWN = {"pa": "accuracy (PA)", "mpa": "mean accuracy (MPA)", "fwiou": "weighted overlap (FWIoU)"}
NETWORK, OTHER, LINE = BLUE, GREY, INK


@dataclass(frozen=True)
class Row:
    """Scores of one predictor on the test data of every run of a group.

    Attributes
    ----------
    name : str
        Label of the row.
    scores : sequence of mapping
        Of each run, from :func:`gravmap.learning.evaluation.metrics.scores`.
    mean : mapping
        Of the group, from :func:`gravmap.learning.evaluation.run_groups.mean_scores`.
    network : bool
        Whether it is the network, which is highlighted.
    """

    name: str
    scores: Sequence[Mapping[str, Any]]
    mean: Mapping[str, Any]
    network: bool = False


def draw_group(rows: Sequence[Row], folds: Sequence[int], seeds: Sequence[int], path: Path, title: str = "") -> None:
    """Draw the scores of a group as a PNG: a dot for each run, a tick at the mean, a bar of one standard deviation.

    The standard deviation is that between folds if there are several, else that between seeds.

    Parameters
    ----------
    rows : sequence of Row
        From top to bottom.
    folds, seeds : sequence of int
        Of each run: its colour and its marker.
    path : Path
        The PNG to write.
    title : str
        Title of the figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    between = "folds" if len({*folds}) > 1 else "seeds"
    colour = {fold: SERIES[1 + number % (len(SERIES) - 1)] for number, fold in enumerate(sorted({*folds}))}
    mark = {seed: MARKERS[number % len(MARKERS)] for number, seed in enumerate(sorted({*seeds}))}
    # Dots of one row are offset by seed, so that equal scores do not hide each other.
    order = sorted({*seeds})
    shift = {
        seed: 0.0 if len(order) == 1 else 0.36 * (number / (len(order) - 1) - 0.5) for number, seed in enumerate(order)
    }
    figure = Figure(figsize=(10.5, 1.9 + 0.36 * len(rows)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(SHOWN), sharey=True)
    for axes, (measure, title_of_measure) in zip(panels, SHOWN.items(), strict=True):
        for place, row in enumerate(rows):
            if row.network:
                axes.axhspan(place - 0.5, place + 0.5, color=NETWORK, alpha=0.10, lw=0)
                axes.axvline(100 * row.mean[measure], color=NETWORK, lw=1, ls=(0, (4, 3)), zorder=1)
            deviation = standard_deviations(row.scores, folds)[measure][between]
            mean = 100 * row.mean[measure]
            if deviation is not None:
                ends = [mean - 100 * deviation, mean + 100 * deviation]
                axes.plot(ends, [place, place], color=NETWORK if row.network else OTHER, lw=6, alpha=0.3, zorder=2)
            for found, fold, seed in zip(row.scores, folds, seeds, strict=True):
                axes.plot(
                    100 * found[measure],
                    place + shift[seed],
                    marker=mark[seed],
                    color=colour[fold],
                    ms=5,
                    mec="white",
                    mew=0.5,
                    ls="none",
                    zorder=3,
                )
            axes.plot([mean, mean], [place - 0.3, place + 0.3], color=LINE, lw=2, solid_capstyle="butt", zorder=4)
        axes.set_title(title_of_measure, fontsize=9)
        axes.margins(x=0.06)
        axes.autoscale_view()
        axes.set_xlim(left=0)
        axes.grid(axis="x", alpha=0.3)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize=8)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
    panels[0].set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8.5)
    for label, row in zip(panels[0].get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.network else "normal")
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    panels[1].set_xlabel("percent", fontsize=8.5)
    _legend(figure, colour, mark, between)
    if title:
        figure.suptitle(title, fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def _legend(figure: Any, colour: Mapping[int, str], mark: Mapping[int, str], between: str) -> None:
    from matplotlib.lines import Line2D

    dot: dict[str, Any] = {"ls": "none", "ms": 5}
    entries = [Line2D([], [], marker="s", color=each, label=f"fold {fold}", **dot) for fold, each in colour.items()]
    if len(mark) > 1:
        entries += [
            Line2D([], [], marker=each, color=OTHER, label=f"seed {seed}", **dot) for seed, each in mark.items()
        ]
    entries.append(Line2D([], [], color=LINE, lw=2, marker="|", ms=9, mew=2, ls="none", label="mean"))
    label = f"± standard deviation between {between}"
    entries.append(Line2D([], [], color=OTHER, lw=6, alpha=0.3, label=label))
    figure.legend(handles=entries, loc="outside lower center", ncols=min(len(entries), 8), frameon=False, fontsize=8)
