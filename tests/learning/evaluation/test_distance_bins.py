import numpy as np
import pytest

from gravmap.learning.data.dataset import IGNORE
from gravmap.learning.evaluation.metrics import distance_bin_label, scores_by_distance

TRUTH = np.array([0, 1, 0, 1, 1, 0, 0, IGNORE])
NAMED = np.array([0, 1, 1, 1, 0, 0, 1, 0])
AWAY = np.array([0.0, 0.0, 0.1, 5.0, 5.1, 199.0, 900.0, 40.0])


def test_bins_by_hand():
    rows = scores_by_distance(TRUTH, NAMED, AWAY, ["a", "b"])
    assert [distance_bin_label(row) for row in rows] == ["seen", "0-5 km", "5-10 km", "150-200 km", "over 200 km"]
    assert [row["places"] for row in rows] == [2, 2, 1, 1, 1]
    assert [row["pa"] for row in rows] == [1, 0.5, 0, 1, 0]
    assert rows[1]["mean_km"] == pytest.approx(2.55)
    assert rows[1]["mpa"] == 0.5  # class a not found, class b found
    assert sum(row["places"] for row in rows) == 7, "what is ignored is in no bin"


def test_bins_with_area_weights():
    rows = scores_by_distance(TRUTH, NAMED, AWAY, ["a", "b"], np.arange(8.0), "km2")
    assert [row["km2"] for row in rows] == [1, 5, 4, 5, 6]
    assert [row["places"] for row in rows] == [2, 2, 1, 1, 1]
    assert rows[1]["pa"] == pytest.approx(3 / 5)
    assert rows[1]["mean_km"] == pytest.approx((2 * 0.1 + 3 * 5.0) / 5)
