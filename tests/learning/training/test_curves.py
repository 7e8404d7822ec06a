import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from gravmap.learning.training.curves import draw_curves


def make_history(scored=True, switch=None):
    rows = []
    for epoch in range(1, 13):
        score = 0.6 * (1 - 0.8**epoch) if scored and epoch % 2 == 0 else None
        phase = "sgd" if switch and epoch > switch else "adam"
        rows.append(
            {"epoch": epoch, "phase": phase, "loss": 2 * 0.85**epoch, "lr": 1e-3 * (1 - epoch / 13)}
            | {"train_fwiou": 0.7 * (1 - 0.8**epoch), "tune_loss": score and 2 - score, "tune_fwiou": score}
        )
    return rows


def draw(history, path):
    draw_curves(history, path, "demo: ggmnet-tiny")
    return matplotlib.image.imread(path)[..., :3]


@pytest.mark.parametrize(("epochs", "scored"), [(12, True), (1, False)])
def test_curves_are_plotted(tmp_path, epochs, scored):
    picture = draw(make_history(scored)[:epochs], tmp_path / "curves.png")
    assert picture.shape[:2] == (780, 900)
    assert picture.std() > 0.02


def test_the_words_on_a_single_epoch_are_clear_of_the_legend(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: (drawn.append(figure), path.touch()))
    draw_curves(make_history()[:1], tmp_path / "curves.png")
    (figure,) = drawn
    figure.draw_without_rendering()
    above = figure.axes[0]
    words = [*above.texts, above.title, above._left_title]
    (note,) = [each for each in words if each.get_text().startswith("One epoch")]
    assert not note.get_window_extent().overlaps(above.get_legend().get_window_extent())


def test_the_switch_of_the_optimizer_is_a_line_through_both_panels(tmp_path):
    without, with_it = (draw(make_history(switch=epoch), tmp_path / "curves.png") for epoch in (None, 5))
    # Columns that turned dark from top to bottom in either panel.
    darker = (without - with_it).max(-1) > 0.5
    for panel in (darker[:390], darker[390:]):
        columns = np.flatnonzero(panel.sum(0) > 200)
        assert 1 <= len(columns) <= 3
        assert 300 < columns.mean() < 450  # between epochs 5 and 6 of 12
