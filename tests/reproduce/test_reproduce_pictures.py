"""Figures of a reproduction: what is drawn in which panel."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from gravmap.geology import load_legend
from gravmap.lattice import TEST, UNUSABLE
from gravmap.learning.data.dataset import RegionDataset, is_bedrock
from gravmap.learning.evaluation.mosaic import window_cells
from gravmap.mapping.page.figures import ClassPanel, FieldPanel
from gravmap.reproduce import pictures
from gravmap.reproduce.held_out import HeldOutMaps, WindowMaps, choose_windows
from gravmap.reproduce.outcome import Trained
from gravmap.reproduce.pictures import draw_curves, draw_held_out_windows, draw_test_windows
from gravmap.reproduce.plan import load_plan
from gravmap.workspace import Workspace
from toys.dataset import make_arrays


@pytest.fixture(scope="module")
def predicted():
    """A network that predicts class 2 everywhere; two windows of a degree, and one set apart."""
    dataset = RegionDataset.from_arrays(make_arrays())
    labels, role = dataset.node_truth()
    scored = is_bedrock(labels) & (role == TEST)
    shape, west, north = labels.shape, dataset.node_lon[0], dataset.node_lat[0]
    # The test block is a degree wide; each of these windows has half of it.
    shown = choose_windows(np.array([(81.5, 43.0, 82.5, 44.0), (82.5, 43.0, 83.5, 44.0)]), dataset, scored)
    apart = np.array([(west, north - 1, west + 1, north)])

    def maps(boxes):
        classes = np.full(shape, UNUSABLE, np.uint8)
        for box in boxes:
            classes[window_cells(box, dataset.node_lat, dataset.node_lon)] = 2
        return WindowMaps(boxes, classes)

    return HeldOutMaps(dataset, labels, scored, {}, maps(shown), maps(apart))


@pytest.fixture
def drawn(monkeypatch):
    """The panels of each figure, in place of the file."""
    figures = []
    monkeypatch.setattr(pictures, "draw", lambda path, panels, classes, **options: figures.append((panels, options)))
    monkeypatch.setattr(pictures, "open_labels", lambda path: SimpleNamespace(legend=load_legend("basement10")))
    return figures


def test_windows_are_chosen_by_the_test_nodes_that_no_other_shows(predicted):
    dataset, scored = predicted.dataset, np.zeros_like(predicted.scored)
    lat, lon = dataset.node_lat, dataset.node_lon
    scored[np.ix_(lat > lat[0] - 0.55, lon < lon[0] + 1.45)] = True  # a strip across two windows
    west, north = lon[0], lat[0]
    left, shifted, right, empty = (
        (west, north - 1, west + 1, north),
        (west + 0.1, north - 1, west + 1.1, north),
        (west + 1, north - 1, west + 2, north),
        (west, north - 3, west + 1, north - 2),
    )
    chosen = choose_windows(np.array([empty, left, shifted, right]), dataset, scored, most=4)
    # Of two that overlap the second adds less than a window beside them, and comes later or not at all.
    assert chosen[:2].tolist() == [[*left], [*right]]
    assert [*empty] not in chosen.tolist()
    assert len(choose_windows(np.array([left, right]), dataset, scored, most=1)) == 1
    assert choose_windows(np.array([empty]), dataset, scored).shape == (0, 4)


def test_figure_5_has_rows_of_prediction_truth_and_residual(predicted, drawn, tmp_path):
    draw_held_out_windows(Workspace(tmp_path), predicted, tmp_path / "5.png")
    panels, options = drawn[0]
    columns = options["columns"]
    assert columns == len(predicted.held_out.boxes_wsen) == 2
    assert len(panels) == 3 * columns
    for number, box in enumerate(predicted.held_out.boxes_wsen):
        cells = window_cells(box, predicted.dataset.node_lat, predicted.dataset.node_lon)
        prediction, truth, gravity = panels[number::columns]
        labels, scored = predicted.labels[cells], predicted.scored[cells]
        assert isinstance(prediction, ClassPanel)
        # Outcrop that is not held out was seen in training: no prediction is shown there.
        assert (prediction.values == UNUSABLE).tolist() == (is_bedrock(labels) & ~scored).tolist()
        assert set(np.unique(prediction.values)) <= {2, UNUSABLE}
        assert f"{100 * (labels[scored] == 2).mean():.0f}\u202f%" in prediction.title
        assert isinstance(truth, ClassPanel)
        assert np.array_equal(truth.values, labels)
        assert isinstance(gravity, FieldPanel)
        assert np.array_equal(gravity.values, predicted.dataset.fields[0][cells])
        assert prediction.bounds_wsen == truth.bounds_wsen == gravity.bounds_wsen
    assert panels[-1].limits == panels[-2].limits  # one scale of colours for all windows


def test_the_test_windows_are_predicted_and_scored_only_where_the_bedrock_is_known(predicted, drawn, tmp_path):
    dataset, found = predicted.dataset, predicted.little_bedrock
    cells = window_cells(found.boxes_wsen[0], dataset.node_lat, dataset.node_lon)
    without = draw_test_windows(Workspace(tmp_path), predicted, tmp_path / "t.png")
    panels, _ = drawn[0]
    assert [type(panel) for panel in panels] == [FieldPanel, ClassPanel, ClassPanel]
    assert np.array_equal(panels[1].values, predicted.labels[cells])
    assert (panels[2].values == 2).all()
    assert "correct" not in without.caption
    labels = predicted.labels.copy()
    labels[cells] = 0  # all cover, a quarter of it granite that was predicted as class 2
    truth = np.full(labels.shape, 2, np.uint8)
    truth[cells][: labels[cells].shape[0] // 2, : labels[cells].shape[1] // 2] = 1
    hidden = truth[cells]
    known = draw_test_windows(Workspace(tmp_path), replace(predicted, labels=labels), tmp_path / "t.png", truth)
    assert len(drawn[1][0]) == 4
    assert np.array_equal(drawn[1][0][3].values, hidden)
    assert (
        f"{hidden.size} nodes under cover there, {100 * (hidden == 2).mean():.1f}\u202f% are correct" in known.caption
    )


def trained(folder, run, history):
    return Trained(run, folder, 1, {}, history, 1.0)


@pytest.mark.parametrize("networks", [1, 2, 4])
def test_figure_4_has_four_curves_of_every_network(networks, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path: (figures.append(self), path.touch()))
    names = ("loss", "tune_loss", "train_fwiou", "tune_fwiou")
    runs = load_plan("full").networks("comparison")[:networks]
    histories = [
        [
            {"epoch": epoch, **{name: 0.1 + 0.01 * number + 0.001 * epoch for number, name in enumerate(names)}}
            for epoch in range(3)
        ]
        for _ in runs
    ]
    for history in histories:
        history[1]["tune_loss"] = history[1]["tune_fwiou"] = None  # not scored after every epoch
    draw_curves(
        [trained(tmp_path, run, history) for run, history in zip(runs, histories, strict=True)],
        tmp_path / "4.png",
        "Training",
        "held-out blocks",
    )
    used = [axes for axes in figures[0].axes if axes.lines]
    assert len(used) == 2 * networks
    titles = [axes.get_title(loc="left") for axes in used]
    assert [title for title in titles if title] == [run.label for run in runs]
    for axes in used:
        labels = [line.get_label() for line in axes.lines]
        assert labels == ["training", "validation"]
        factor, pair = (1, names[:2]) if axes.get_title(loc="left") else (100, names[2:])
        for line, name in zip(axes.lines, pair, strict=True):
            values = [(row["epoch"], row[name]) for row in histories[0] if row[name] is not None]
            assert line.get_xdata().tolist() == [epoch for epoch, _ in values]
            assert line.get_ydata() == pytest.approx([factor * value for _, value in values])


def test_a_loss_over_orders_of_magnitude_has_a_logarithmic_axis(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path: (figures.append(self), path.touch()))
    (run, *_) = load_plan("full").networks("comparison")
    for highest in (3.0, 300.0):
        history = [
            {"epoch": 1, "loss": 2.0, "tune_loss": highest, "train_fwiou": 0.1, "tune_fwiou": 0.1},
            {"epoch": 2, "loss": 1.0, "tune_loss": 2.0, "train_fwiou": 0.2, "tune_fwiou": 0.1},
        ]
        draw_curves([trained(tmp_path, run, history)], tmp_path / "4.png", "Training", "held-out blocks")
    assert [figure.axes[0].get_yscale() for figure in figures] == ["linear", "log"]
    assert [figure.axes[1].get_yscale() for figure in figures] == ["linear", "linear"]
