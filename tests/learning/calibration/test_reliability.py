import numpy as np
import pytest

from gravmap.learning.calibration.reliability import log_softmax, reliability_measures


def sampled(probability, seed=0):
    """A true class for each row, drawn with its probabilities."""
    rng = np.random.default_rng(seed)
    return (rng.random(len(probability))[:, None] > probability.cumsum(axis=1)).sum(axis=1).astype(np.int64)


def test_softmax_of_what_would_overflow():
    found = log_softmax(np.array([[1e4, 0.0, -1e4], [1.0, 2.0, 3.0]], np.float32))
    np.testing.assert_allclose(found[0], [0, -1e4, -2e4])
    np.testing.assert_allclose(np.exp(found[1]), np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum())
    np.testing.assert_allclose(log_softmax(np.array([[6.0, 2.0]]), 2.0), log_softmax(np.array([[3.0, 1.0]])))


def test_calibrated_probabilities_have_no_error():
    rng = np.random.default_rng(1)
    probability = rng.dirichlet((0.6, 0.6, 0.6, 0.6), size=200_000)
    text = reliability_measures(np.log(probability), sampled(probability))
    assert text["ece"] < 0.006
    assert text["classwise_ece"] < 0.006
    # Of a perfect forecast the expected losses are its own entropy and Gini's index.
    assert text["nll"] == pytest.approx(-(probability * np.log(probability)).sum(axis=1).mean(), rel=0.01)
    assert text["brier"] == pytest.approx((1 - (probability**2).sum(axis=1)).mean(), rel=0.01)
    for each in text["bins"]:
        if each["share"] > 0.01:
            assert each["accuracy"] == pytest.approx(each["confidence"], abs=0.02)
            assert each["low"] <= each["confidence"] <= each["high"]
    assert sum(each["share"] for each in text["bins"]) == pytest.approx(1)
    assert text["bins"][0]["share"] == 0  # the likeliest of four has at least a quarter
    assert text["bins"][0]["accuracy"] is None


def test_an_overconfident_forecast_has_its_closed_form():
    log_probability = np.log(np.tile([0.9, 0.05, 0.05], (100, 1)))
    target = np.repeat([0, 1, 2], (60, 20, 20))
    text = reliability_measures(log_probability, target)
    assert text["ece"] == pytest.approx(0.9 - 0.6)
    assert text["classwise_ece"] == pytest.approx((0.3 + 0.15 + 0.15) / 3)
    assert text["nll"] == pytest.approx(-0.6 * np.log(0.9) - 0.4 * np.log(0.05))
    assert text["brier"] == pytest.approx(0.6 * (0.01 + 2 * 0.0025) + 0.4 * (0.81 + 0.9025 + 0.0025))
    assert [each["share"] for each in text["bins"]] == [0.0] * 13 + [pytest.approx(1.0), 0.0]


def test_nodes_count_by_weight():
    log_probability = np.log(np.tile([0.7, 0.3], (4, 1)))
    target = np.array([0, 0, 1, 1])
    # A wrong one stands for a ninth of the ground of a right one.
    text = reliability_measures(log_probability, target, np.array([9.0, 9.0, 1.0, 1.0]))
    assert text["ece"] == pytest.approx(0.9 - 0.7)
    repeated = reliability_measures(np.repeat(log_probability, [9, 9, 1, 1], axis=0), np.repeat(target, [9, 9, 1, 1]))
    for name in ("ece", "classwise_ece", "nll", "brier"):
        assert text[name] == pytest.approx(repeated[name])
    with pytest.raises(ValueError, match="positive weight"):
        reliability_measures(np.zeros((0, 2)), np.zeros(0, np.int64))


def test_errors_of_opposite_sign_in_different_bins_do_not_cancel():
    log_probability = np.log(np.array([[0.6, 0.4]] * 10 + [[0.9, 0.1]] * 10))
    target = np.repeat([0, 1, 0, 1], (9, 1, 6, 4))  # 0.6 comes true 0.9 of the time, 0.9 comes true 0.6
    assert reliability_measures(log_probability, target)["ece"] == pytest.approx(0.3)


@pytest.mark.parametrize(("confident", "number"), [(1.0, 14), (9 / 15, 8), (0.6000001, 9), (0.5, 7)])
def test_sides_of_bins_belong_to_the_lower_one(confident, number):
    with np.errstate(divide="ignore"):
        text = reliability_measures(np.log(np.array([[confident, 1 - confident]])), np.zeros(1, np.int64))
    assert [each["share"] for each in text["bins"]].index(1.0) == number


@pytest.mark.peer
def test_scikit_learn_counts_the_same():
    metrics = pytest.importorskip("sklearn.metrics")
    calibration_curve = pytest.importorskip("sklearn.calibration").calibration_curve
    rng = np.random.default_rng(4)
    probability = rng.dirichlet((1, 0.5, 0.4), size=3000)
    target = sampled(rng.dirichlet((1, 1, 1), size=3000))
    weight = rng.uniform(0.5, 1, 3000)
    text = reliability_measures(np.log(probability), target, weight)
    assert text["nll"] == pytest.approx(metrics.log_loss(target, probability, sample_weight=weight))
    even = reliability_measures(np.log(probability), target)
    right = (probability.argmax(axis=1) == target).astype(int)
    true, confident = calibration_curve(right, probability.max(axis=1), n_bins=15)
    filled = [each for each in even["bins"] if each["share"]]
    np.testing.assert_allclose([each["accuracy"] for each in filled], true)
    np.testing.assert_allclose([each["confidence"] for each in filled], confident)
