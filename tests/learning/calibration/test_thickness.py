"""Thickness of the cover: its interval on planted distributions, its scores against numpy and scipy."""

import numpy as np
import pytest

from gravmap.learning.calibration.temperature import Calibration
from gravmap.learning.calibration.thickness import ThicknessInterval, fit_thickness_interval, thickness_scores
from gravmap.learning.evaluation.under_cover import BY_COVER


def planted(count=20000, seed=0, narrow=0.5):
    """A median with errors that grow with it, and an interval that is too narrow by a known factor on each side."""
    rng = np.random.default_rng(seed)
    median = rng.uniform(0.5, 4.0, count)
    truth = median * np.exp(rng.normal(0, 0.3, count))
    low, high = median * np.exp(-0.3 * 1.2816), median * np.exp(0.3 * 1.2816)
    quantiles = np.stack([median - narrow * (median - low), median, median + 0.25 * (high - median)], axis=1)
    return quantiles.astype(np.float32), truth


def test_the_factors_are_those_that_were_taken_away():
    quantiles, truth = planted()
    interval = fit_thickness_interval(quantiles, truth)
    assert interval.below == pytest.approx(2.0, rel=0.05)
    assert interval.above == pytest.approx(4.0, rel=0.05)
    assert interval.thickest_km == truth.max()
    unseen, its_truth = planted(seed=1)
    assert thickness_scores(unseen, its_truth)["all"]["coverage"] < 0.5
    calibrated = interval.apply(unseen)
    assert thickness_scores(calibrated, its_truth)["all"]["coverage"] == pytest.approx(0.8, abs=0.01)
    assert (its_truth < calibrated[:, 0]).mean() == pytest.approx(0.1, abs=0.01)
    np.testing.assert_array_equal(calibrated[:, 1], unseen[:, 1])


def test_calibrated_quantiles_are_neither_negative_nor_crossed():
    found = ThicknessInterval(below=5.0, above=0.1).apply(np.array([[0.1, 0.4, 0.9], [0, 0, 0]], np.float32))
    assert (np.diff(found, axis=-1) >= 0).all()
    assert (found >= 0).all()


def test_scores_are_those_of_the_definitions():
    quantiles, truth = planted(count=500)
    depth = {"cover": (truth, BY_COVER)}
    found = thickness_scores(quantiles, truth, depth)
    error = 1000 * (quantiles[:, 1].astype(float) - truth)
    assert found["all"]["rmse_m"] == pytest.approx(np.sqrt((error**2).mean()), abs=0.1)
    assert found["all"]["bias_m"] == pytest.approx(error.mean(), abs=0.1)
    assert sum(row["nodes"] for row in found["cover"].values()) == 500
    deep = truth > 2
    assert found["cover"]["over 2 km"]["mae_m"] == pytest.approx(np.abs(error[deep]).mean(), abs=0.1)
    alone = thickness_scores(quantiles[:, 1], truth)["all"]
    assert "coverage" not in alone
    assert alone["rank_correlation"] == found["all"]["rank_correlation"] > 0.8
    assert thickness_scores(quantiles[:0], truth[:0])["all"] == {
        "nodes": 0, "rmse_m": None, "bias_m": None, "mae_m": None, "rank_correlation": None,
    }  # fmt: skip


def test_a_calibration_keeps_the_factors():
    record = {"temperatures": {"5deg": 1.0}, "scales": [5.0]}
    assert Calibration.from_record(record).thickness == ThicknessInterval()
    stored = record | {"thickness": ThicknessInterval(1.25, 0.75).to_dict()}
    assert Calibration.from_record(stored).thickness == ThicknessInterval(1.25, 0.75)
