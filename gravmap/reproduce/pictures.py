"""Figures 4 and 5: the course of training, and what the networks say of ground they were not taught on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gravmap.files import atomic_path
from gravmap.geology import open_labels
from gravmap.learning import baselines
from gravmap.learning.area import TEST, Area
from gravmap.learning.channels import fields_read
from gravmap.learning.checkpoint import load_model
from gravmap.learning.evaluation import node_logits, scoring_scale
from gravmap.learning.target import to_label
from gravmap.mapping.figures import ClassPanel, Panel, classes_of_legend, draw
from gravmap.mapping.null_models import seen_in_training
from gravmap.progress import Progress, silent
from gravmap.reproduce.dataset import UNUSABLE, bounds_wsen
from gravmap.reproduce.outcome import Trained
from gravmap.reproduce.page import Picture
from gravmap.tiling import load_arrays
from gravmap.workspace import Workspace

# Told apart by every eye (Okabe and Ito); GGMNet's is the darkest.
_COLOURS = ("#1b1b1b", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw_curves(trained: Sequence[Trained], path: Path, title: str, split: str) -> Picture:
    """Figure 4: loss in training and FWIoU on the tuning ground, epoch by epoch, of the compared networks."""
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
    left.set_ylabel("loss of the worst pixels, training crops")
    right.set_ylabel("FWIoU on the tuning ground, percent")
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
        f"Figure 4. Training of the compared networks under {split}: loss, and FWIoU on the ground that chooses the"
        " weights to keep. The share of pixels that the loss counts may fall early on, so that it rises.",
    )


def draw_held_out(
    place: Workspace,
    trained: Sequence[Trained],
    path: Path,
    title: str,
    *,
    device: str = "cpu",
    progress: Progress = silent,
) -> Picture:
    """Figure 5: the test ground as mapped, as the nearest outcrop has it, and as each network names it.

    Parameters
    ----------
    place : Workspace
        Of the runs.
    trained : sequence of Trained
        Finished runs under one split, one or more.
    path, title
        Of the picture.
    device : str
        Where the networks are asked.
    progress : Progress
        Told the networks done.
    """
    _, first = load_model(trained[0].folder)
    split, fold = str(first.split.get("name", "blocks")), int(first.split.get("fold", 0))
    # All runs of a reproduction read one input.
    area = Area.from_arrays(load_arrays(place.tiles, channels=fields_read(first.input.names), split=split, fold=fold))
    labels, roles = area.node_truth()
    usable = (labels > 0) & (labels != UNUSABLE)
    wanted = usable & (roles == TEST)
    known = np.where(usable & seen_in_training(area), labels, 0).astype(np.uint8)

    def shown(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.where(wanted, values, UNUSABLE).astype(np.uint8)

    def panel(said: str, values: NDArray[np.uint8]) -> Panel:
        right = (values == labels)[wanted].mean()
        return ClassPanel(f"{said}: {100 * right:.0f} % right", shown(values), bounds_wsen(area))

    nearest = baselines.nearest_outcrop(known, area.node_lat, area.node_lon)
    panels: list[Panel] = [
        ClassPanel("As mapped", shown(labels), bounds_wsen(area)),
        panel("Nearest outcrop, no gravity", nearest),
    ]
    for done, each in enumerate(trained):
        progress(done, len(trained), each.run.name)
        network, spec = load_model(each.folder, device)
        logits = node_logits(
            network,
            area,
            wanted,
            inputs=spec.input,
            tile_size_px=spec.tile_size_px,
            scale_deg=scoring_scale(spec.scales_deg),
            device=device,
        )
        # As in every score: the window size that scores are taken with, every node once.
        named = np.where(np.isfinite(logits[0]), to_label(logits.argmax(0)), UNUSABLE).astype(np.uint8)
        panels.append(panel(each.run.label, named))
    progress(len(trained), len(trained))
    draw(
        path,
        panels,
        classes_of_legend(open_labels(place.labels).legend),
        title=title,
        columns=3 if len(panels) > 4 else 2,
        panel_width_in=5.0,
    )
    return Picture(
        path,
        "Figure 5. Outcrop held out from training (grey: everything else): as mapped, as the nearest outcrop has it,"
        " and as the networks name it from gravity.",
    )
