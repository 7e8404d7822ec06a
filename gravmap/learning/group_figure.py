"""A group of runs as a picture: means and spreads over folds and seeds, beside the null models of the same ground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gravmap.files import atomic_path
from gravmap.learning.evaluation.figures import MARKERS
from gravmap.learning.evaluation.run_groups import spread
from gravmap.plotting import BLUE, GREY, INK, SERIES

SHOWN = {"pa": "accuracy (PA)", "mpa": "mean accuracy (MPA)", "fwiou": "weighted overlap (FWIoU)"}
NETWORK, OTHER, LINE = BLUE, GREY, INK


@dataclass(frozen=True)
class Row:
    """What one predictor scored on the ground of every run of a group.

    Attributes
    ----------
    name : str
        As it is written.
    scores : sequence of mapping
        Of each run, from :func:`gravmap.learning.evaluation.metrics.scores`.
    mean : mapping
        Of the group, from :func:`gravmap.learning.evaluation.run_groups.mean_scores`.
    network : bool
        Whether it is what the others stand beside.
    """

    name: str
    scores: Sequence[Mapping[str, Any]]
    mean: Mapping[str, Any]
    network: bool = False


def draw_group(rows: Sequence[Row], folds: Sequence[int], seeds: Sequence[int], path: Path, title: str = "") -> None:
    """Draw the scores of a group into a PNG, a dot for each run, a tick at the mean, a bar of one standard deviation.

    The bar is that between folds where there are several, else that between seeds.

    Parameters
    ----------
    rows : sequence of Row
        From the top.
    folds, seeds : sequence of int
        Of each run: its colour and its mark.
    path : Path
        The PNG to write.
    title : str
        Over the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    between = "folds" if len({*folds}) > 1 else "seeds"
    colour = {fold: SERIES[1 + number % (len(SERIES) - 1)] for number, fold in enumerate(sorted({*folds}))}
    mark = {seed: MARKERS[number % len(MARKERS)] for number, seed in enumerate(sorted({*seeds}))}
    # Dots of one row lie one above the other by seed, so that equal scores do not hide each other.
    order = sorted({*seeds})
    shift = {
        seed: 0.0 if len(order) == 1 else 0.36 * (number / (len(order) - 1) - 0.5) for number, seed in enumerate(order)
    }
    figure = Figure(figsize=(10.5, 1.9 + 0.36 * len(rows)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(SHOWN), sharey=True)
    for axes, (measure, told) in zip(panels, SHOWN.items(), strict=True):
        for place, row in enumerate(rows):
            if row.network:
                axes.axhspan(place - 0.5, place + 0.5, color=NETWORK, alpha=0.10, lw=0)
                axes.axvline(100 * row.mean[measure], color=NETWORK, lw=1, ls=(0, (4, 3)), zorder=1)
            deviation = spread(row.scores, folds)[measure][between]
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
        axes.set_title(told, fontsize=9)
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
    told = f"± standard deviation between {between}"
    entries.append(Line2D([], [], color=OTHER, lw=6, alpha=0.3, label=told))
    figure.legend(handles=entries, loc="outside lower center", ncols=min(len(entries), 8), frameon=False, fontsize=8)
