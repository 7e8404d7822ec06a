import pytest

from gravmap.learning.curves import draw_curves


def make_history(scored=True):
    rows = []
    for epoch in range(1, 13):
        score = 0.6 * (1 - 0.8**epoch) if scored and epoch % 2 == 0 else None
        rows.append(
            {"epoch": epoch, "loss": 2 * 0.85**epoch, "lr": 1e-3 * (1 - epoch / 13), "tune_pa": score and score + 0.1}
            | {"tune_mpa": score, "tune_miou": score and score - 0.1, "tune_fwiou": score}
        )
    return rows


@pytest.mark.parametrize(("epochs", "scored"), [(12, True), (1, False)])
def test_a_picture_is_drawn(tmp_path, epochs, scored):
    import matplotlib.image

    draw_curves(make_history(scored)[:epochs], tmp_path / "curves.png", "demo: ggmnet-tiny")
    picture = matplotlib.image.imread(tmp_path / "curves.png")
    assert picture.shape[:2] == (780, 900)
    assert picture[..., :3].std() > 0.02
