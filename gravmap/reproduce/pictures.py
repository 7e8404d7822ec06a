"""Figures 4 and 5: training curves, and predictions of the networks on held-out outcrop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gravmap.files import atomic_path
from gravmap.geology import open_labels
from gravmap.lattice import UNUSABLE
from gravmap.mapping.page.figures import ClassPanel, Panel, classes_of_legend, draw
from gravmap.plotting import INK, SERIES
from gravmap.reproduce.dataset import bounds_wsen
from gravmap.reproduce.held_out import HeldOutMaps
from gravmap.reproduce.outcome import Trained
from gravmap.reproduce.page import Picture
from gravmap.workspace import Workspace

_COLOURS = (INK, *SERIES[:6])  # GGMNet has the darkest


def draw_curves(trained: Sequence[Trained], path: Path, title: str, split: str) -> Picture:
    """Figure 4: training loss and FWIoU on the tuning split by epoch, of the compared networks."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11, 4.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for number, each in enumerate(trained):
        style = {"color": _COLOURS[number % len(_COLOURS)], "lw": 2.2 if number == 0 else 1.3, "label": each.run.label}
        for axes, name, factor in ((left, "loss", 1.0), (right, "tune_fwiou", 100.0)):
            points = [(row["epoch"], factor * value) for row in each.history if (value := row[name]) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 30 else None, ms=3, **style)
    left.set_ylabel("training loss (pixels of highest loss)")
    right.set_ylabel("FWIoU on the tuning split, percent")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = left.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
    return Picture(
        path,
        f"Figure 4. Training of the compared networks under {split}: loss, and FWIoU on the tuning split, by which the"
        " best weights are selected. The loss may rise early on, while the fraction of pixels that it averages falls.",
    )


def draw_held_out(place: Workspace, predicted: HeldOutMaps, path: Path, title: str) -> Picture:
    """Figure 5: the test nodes as mapped, as predicted by nearest outcrop, and as predicted by each network."""
    bounds = bounds_wsen(predicted.dataset)

    def panel(words: str, values: NDArray[np.uint8]) -> Panel:
        shown = np.where(predicted.scored, values, UNUSABLE).astype(np.uint8)
        return ClassPanel(words, shown, bounds)

    panels = [panel("As mapped", predicted.labels)]
    for name, values in predicted.maps.items():
        accuracy = (values == predicted.labels)[predicted.scored].mean()
        panels.append(panel(f"{name[:1].upper()}{name[1:]}: {100 * accuracy:.0f} % correct", values))
    draw(
        path,
        panels,
        classes_of_legend(open_labels(place.labels).legend),
        title=title,
        columns=2 if len(panels) == 4 else min(3, len(panels)),
        panel_width_in=5.0,
    )
    return Picture(
        path,
        "Figure 5. Outcrop held out from training (grey: everything else): as mapped, as predicted by the nearest"
        " outcrop, and as predicted by the networks from gravity.",
    )
