"""Figure of a group: dots at scores, ticks at means, bars of one standard deviation."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from gravmap.learning.evaluation.figures import Row, draw_group

FOLDS, SEEDS = [0, 0, 1, 1, 2], [0, 1, 0, 1, 0]
VALUES = [0.10, 0.20, 0.40, 0.50, 0.30]


def row(name, values, mean, network=False):
    found = [{key: value for key in ("pa", "mpa", "mpa_all_classes", "miou", "fwiou", "macro_f1", "kappa")}
             for value in values]  # fmt: skip
    return Row(name, found, {"pa": mean, "mpa": mean, "fwiou": mean}, network)


@pytest.fixture
def sampled(monkeypatch):
    """The figure that was drawn, besides its file."""
    kept = []
    original = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (kept.append(self), original(self, *a, **k))[1])
    return kept


def test_dots_ticks_and_bars_stand_where_they_should(tmp_path, sampled):
    mean = 0.3  # of the folds' means 0.15, 0.45, 0.3
    rows = [row("network", VALUES, mean, network=True), row("nearest outcrop", [0.6] * 5, 0.6)]
    draw_group(rows, FOLDS, SEEDS, tmp_path / "group.png", "a title")
    (figure,) = sampled
    axes = figure.axes[0]
    lines = [line for line in axes.get_lines() if line.get_marker() in "os"]
    first = [line for line in lines if abs(line.get_ydata()[0]) < 0.4]
    assert [line.get_xdata()[0] for line in first] == pytest.approx([100 * value for value in VALUES])
    assert len({line.get_color() for line in first}) == 3, "a colour for each fold"
    assert [line.get_marker() for line in first] == ["o", "s", "o", "s", "o"]
    assert first[0].get_ydata()[0] != first[1].get_ydata()[0], "seeds do not hide each other"
    (bar,) = [line for line in axes.get_lines() if line.get_linewidth() == 6 and line.get_ydata()[0] == 0]
    deviation = 100 * np.std([0.15, 0.45, 0.3], ddof=1)
    assert bar.get_xdata() == pytest.approx([30 - deviation, 30 + deviation])
    (tick,) = [line for line in axes.get_lines() if line.get_linewidth() == 2 and np.mean(line.get_ydata()) == 0]
    assert tick.get_xdata() == pytest.approx([30, 30])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["network", "nearest outcrop"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the network on top"
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlim()[1] > 60
    assert "± standard deviation between folds" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert imread(tmp_path / "group.png").shape[1] > 1000


def test_seeds_of_one_fold_spread_between_seeds(tmp_path, sampled):
    draw_group([row("network", [0.1, 0.3], 0.2, network=True)], [2, 2], [0, 5], tmp_path / "group.png")
    axes = sampled[0].axes[0]
    (bar,) = [line for line in axes.get_lines() if line.get_linewidth() == 6]
    assert np.ptp(bar.get_xdata()) == pytest.approx(200 * np.std([0.1, 0.3], ddof=1))
    reported = [text.get_text() for text in sampled[0].legends[0].get_texts()]
    assert reported == ["fold 2", "seed 0", "seed 5", "mean", "± standard deviation between seeds"]
