import pytest

from gravmap.learning.schedule import hard_share, learning_rate


def test_the_rate_rises_then_falls():
    assert learning_rate(0.0, 1e-3) == pytest.approx(1e-5)
    assert learning_rate(0.05, 1e-3) == pytest.approx(1e-3)
    assert learning_rate(0.525, 1e-3) == pytest.approx(0.505e-3)
    assert learning_rate(1.0, 1e-3) == pytest.approx(1e-5)
    assert learning_rate(1.7, 1e-3) == pytest.approx(1e-5)
    falling = [learning_rate(0.05 + 0.095 * step, 1.0) for step in range(11)]
    assert falling == sorted(falling, reverse=True)


def test_all_pixels_teach_at_first():
    assert hard_share(0.0, 0.15, 0.1) == 1.0
    assert hard_share(0.05, 0.15, 0.1) == pytest.approx(0.575)
    assert hard_share(0.1, 0.15, 0.1) == 0.15
    assert hard_share(0.9, 0.15, 0.1) == 0.15
    assert hard_share(0.0, 0.15, 0.0) == 0.15
