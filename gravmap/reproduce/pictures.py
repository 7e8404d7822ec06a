"""Figures 4 and 5, the paper's test windows, and predictions of all networks on held-out outcrop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.files import atomic_path
from gravmap.geology import open_labels
from gravmap.lattice import COVER, UNUSABLE
from gravmap.learning.data.dataset import RegionDataset, is_bedrock
from gravmap.learning.evaluation.mosaic import window_cells
from gravmap.mapping.page.figures import ClassPanel, FieldPanel, Panel, classes_of_legend, draw
from gravmap.mapping.page.words import count, percent
from gravmap.plotting import BLUE, VERMILLION
from gravmap.reproduce.dataset import bounds_wsen
from gravmap.reproduce.held_out import HeldOutMaps
from gravmap.reproduce.outcome import Trained
from gravmap.reproduce.page import Picture
from gravmap.workspace import Workspace

# Curves of Figure 4: the colours of curves.png of a run.
_CURVES = {
    "loss": (("loss", "training", BLUE), ("tune_loss", "validation", VERMILLION)),
    "fwiou": (("train_fwiou", "training", BLUE), ("tune_fwiou", "validation", VERMILLION)),
}
_LOG_FROM = 20.0
"""Ratio of the largest to the smallest loss from which its axis is logarithmic."""


def draw_curves(trained: Sequence[Trained], path: Path, title: str, split: str) -> Picture:
    """Figure 4: loss and FWIoU by epoch, on training and on validation data, of each compared network."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # One network: its two panels side by side. Several: loss above FWIoU, three networks in a row.
    columns = 2 if len(trained) == 1 else min(3, len(trained))
    rows = 1 if len(trained) == 1 else 2 * -(-len(trained) // columns)
    figure = Figure(figsize=(11, 0.8 + (3.8 if rows == 1 else 2.4 * rows)), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for number, each in enumerate(trained):
        row, column = 2 * (number // columns), number % columns
        pair = (axes[0, 0], axes[0, 1]) if rows == 1 else (axes[row, column], axes[row + 1, column])
        pair[0].set_title(each.run.label, fontsize=10, loc="left")
        _plot_curves(pair[0], each.history, "loss", 1.0)
        _plot_curves(pair[1], each.history, "fwiou", 100.0)
        if rows == 1 or column == 0:
            pair[0].set_ylabel("loss")
            pair[1].set_ylabel("FWIoU, percent")
    for unused in axes.flat:
        if not unused.lines:
            unused.set_axis_off()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
    return Picture(
        path,
        f"Figure 4. Training of the compared networks under {split}: loss and FWIoU on training and on validation data."
        " Training: the crops of an epoch, augmented, while the weights change; the loss is that of the pixels of"
        " highest loss, and may rise early on, while their fraction falls. Validation: the tuning split, by whose FWIoU"
        " the best weights are selected.",
    )


def _plot_curves(axes: Any, history: Sequence[dict[str, float | None]], quantity: str, factor: float) -> None:
    """Plot a quantity of one network by epoch, on training and on validation data."""
    from matplotlib.ticker import MaxNLocator, NullFormatter

    drawn: list[float] = []
    for name, label, colour in _CURVES[quantity]:
        points = [(row["epoch"], factor * value) for row in history if (value := row.get(name)) is not None]
        if points:
            marker = "o" if len(points) < 30 else None
            axes.plot(*zip(*points, strict=True), color=colour, lw=1.5, marker=marker, ms=3, label=label)
            drawn += [value for _, value in points]
    if quantity == "loss" and drawn and 0 < _LOG_FROM * min(drawn) < max(drawn):
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel("epoch", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_held_out_windows(place: Workspace, predicted: HeldOutMaps, path: Path) -> Picture:
    """Figure 5: held-out windows as columns; rows: GGMNet's prediction, the truth, and the residual gravity."""
    found, dataset = predicted.held_out, predicted.dataset
    assert found is not None
    residual = np.where(dataset.field_valid, dataset.fields[0], np.nan)
    limits = _limits(residual, dataset, found.boxes_wsen)
    top: list[Panel] = []
    middle: list[Panel] = []
    below: list[Panel] = []
    for box in found.boxes_wsen:
        cells = window_cells(box, dataset.node_lat, dataset.node_lon)
        bounds = _bounds_of(cells, dataset)
        truth, held_out = predicted.labels[cells], predicted.scored[cells]
        # Elsewhere on outcrop the network has seen the label.
        seen = is_bedrock(truth) & ~held_out
        classes = np.where(seen, UNUSABLE, found.classes[cells]).astype(np.uint8)
        accuracy = percent(float((classes == truth)[held_out].mean()), 0)
        top.append(ClassPanel(f"Prediction: {accuracy} correct", classes, bounds, held_out, ~is_bedrock(truth)))
        middle.append(ClassPanel("Truth: as mapped", truth, bounds, held_out))
        below.append(FieldPanel("Residual gravity", "mGal", residual[cells], bounds, diverging=True, limits=limits))
    draw(
        path,
        [*top, *middle, *below],
        classes_of_legend(open_labels(place.labels).legend),
        title="Held-out windows",
        columns=len(found.boxes_wsen),
        panel_width_in=3.6,
    )
    return Picture(
        path,
        "Figure 5. Held-out windows, one in each column: the prediction of GGMNet, the truth, and the residual gravity."
        " Outlined: the outcrop that is held out and scored, with the fraction predicted correctly; ruled in white:"
        " predicted where no bedrock is mapped; grey: other outcrop, whose labels were used in training.",
    )


def draw_test_windows(
    place: Workspace, predicted: HeldOutMaps, path: Path, truth: NDArray[np.uint8] | None = None
) -> Picture:
    """The paper's test windows, with bedrock on less than a tenth of their area, as GGMNet predicts them.

    Parameters
    ----------
    place : Workspace
        Workspace of the labels.
    predicted : HeldOutMaps
        With `little_bedrock`, of at least one window.
    path : Path
        The PNG to write.
    truth : (ny, nx) uint8, optional
        The bedrock below the cover, where it is known.

    Returns
    -------
    Picture
        Residual gravity, geological map and prediction inside the windows, and the truth below the cover.
    """
    found, dataset = predicted.little_bedrock, predicted.dataset
    assert found is not None
    inside = found.classes != UNUSABLE
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    cells = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    bounds, outcrop = _bounds_of(cells, dataset), inside & is_bedrock(predicted.labels)

    def panel(title: str, values: NDArray[np.uint8], ruled: bool) -> ClassPanel:
        shown = np.where(inside, values, UNUSABLE).astype(np.uint8)[cells]
        return ClassPanel(title, shown, bounds, outcrop[cells], (inside & ~outcrop)[cells] if ruled else None)

    residual = np.where(inside, dataset.fields[0], np.nan)[cells]
    panels: list[Panel] = [
        FieldPanel("Residual gravity", "mGal", residual, bounds, diverging=True),
        panel("The geological map", predicted.labels, False),
        panel("Prediction", found.classes, True),
    ]
    known = ""
    if truth is not None:
        hidden = inside & (predicted.labels == COVER) & is_bedrock(truth)
        panels.append(panel("The bedrock below the cover", truth, False))
        if hidden.any():
            correct = percent(float((found.classes == truth)[hidden].mean()), 1)
            known = f" Of the {count(int(hidden.sum()))} nodes under cover there, {correct} are correct."
    draw(
        path,
        panels,
        classes_of_legend(open_labels(place.labels).legend),
        title="Test windows",
        columns=2 if len(panels) == 4 else len(panels),
        panel_width_in=4.8,
    )
    return Picture(
        path,
        f"The paper's test windows: the {count(len(found.boxes_wsen))} of all sizes with bedrock on less than a tenth"
        " of their area (grey: everything else), predicted by GGMNet, each window by itself; where windows overlap,"
        " their logits are blended. Such windows have too few labels for a score. Outlined: outcrop; ruled in white:"
        f" under cover.{known}",
    )


def draw_comparison(place: Workspace, predicted: HeldOutMaps, path: Path, title: str) -> Picture:
    """The test nodes as mapped, as predicted by nearest outcrop, and as predicted by each network."""
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
        "Not in the paper: the outcrop held out from training (grey: everything else) as mapped, as predicted by the"
        " nearest outcrop, and as predicted by the compared networks from gravity.",
    )


def _bounds_of(cells: tuple[slice, slice], dataset: RegionDataset) -> tuple[float, float, float, float]:
    """Outer edges of the cells around some nodes of a dataset, degrees."""
    lat, lon = dataset.node_lat, dataset.node_lon
    y, x = 0.5 * abs(float(lat[1] - lat[0])), 0.5 * float(lon[1] - lon[0])
    rows, columns = lat[cells[0]], lon[cells[1]]
    return float(columns[0]) - x, float(rows[-1]) - y, float(columns[-1]) + x, float(rows[0]) + y


def _limits(field: NDArray[Any], dataset: RegionDataset, boxes_wsen: NDArray[np.float64]) -> tuple[float, float]:
    """Colour limits common to several windows: the 1st and 99th percentile of the values inside them."""
    inside = [field[window_cells(box, dataset.node_lat, dataset.node_lon)].ravel() for box in boxes_wsen]
    low, high = np.nanpercentile(np.concatenate(inside), (1, 99))
    return float(low), float(high)
