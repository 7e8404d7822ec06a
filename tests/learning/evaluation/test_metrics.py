import json

import numpy as np
import pytest

from gravmap.learning import confusion, scores
from gravmap.learning.data.dataset import IGNORE


def test_confusion_by_hand():
    truth = np.array([0, 0, 1, 2, 2, IGNORE])
    predicted = np.array([0, 1, 1, 0, 2, 2])
    assert confusion(truth, predicted, 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]


def test_confusion_refuses_a_class_out_of_range():
    with pytest.raises(ValueError, match="classes"):
        confusion(np.array([0, 3]), np.array([0, 0]), 3)


def test_scores_by_hand():
    # T = (50, 40, 10), P = (55, 35, 10); IoU = 45/60, 30/45, 5/15.
    matrix = np.array([[45, 3, 2], [7, 30, 3], [3, 2, 5]])
    got = scores(matrix)
    assert got["places"] == 100
    assert got["pa"] == pytest.approx(0.80)
    assert got["mpa"] == pytest.approx((0.9 + 0.75 + 0.5) / 3)
    assert got["miou"] == pytest.approx((0.75 + 30 / 45 + 5 / 15) / 3)
    assert got["fwiou"] == pytest.approx(0.5 * 0.75 + 0.4 * 30 / 45 + 0.1 * 5 / 15)
    chance = (50 * 55 + 40 * 35 + 10 * 10) / 1e4
    assert got["kappa"] == pytest.approx((0.8 - chance) / (1 - chance))
    assert got["macro_f1"] == pytest.approx((90 / 105 + 60 / 75 + 10 / 20) / 3)
    assert got["per_class"]["2"] == {
        "recall": pytest.approx(0.75),
        "precision": pytest.approx(30 / 35),
        "iou": pytest.approx(30 / 45),
        "f1": pytest.approx(60 / 75),
        "places": 40,
    }


def test_absent_class_is_excluded_from_means_and_listed():
    matrix = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])
    got = scores(matrix, ["a", "b", "c"])
    assert got["mpa"] == pytest.approx(0.85)
    assert got["mpa_all_classes"] == pytest.approx(1.7 / 3)
    assert got["absent"] == ["c"]
    assert got["per_class"]["c"]["recall"] is None


def test_a_false_prediction_of_an_absent_class_still_costs():
    assert scores(np.array([[8, 2], [0, 0]]))["pa"] == pytest.approx(0.8)
    assert scores(np.array([[8, 2], [0, 0]]))["fwiou"] == pytest.approx(0.8)


def test_nothing_counted_gives_none_and_is_json():
    got = scores(np.zeros((3, 3), np.int64))
    assert got["fwiou"] is None
    assert got["pa"] is None
    json.dumps(got, allow_nan=False)


def test_chance_agreement_has_kappa_zero():
    matrix = np.outer([60, 40], [0.7, 0.3]).round().astype(int)
    assert scores(matrix)["kappa"] == pytest.approx(0.0, abs=1e-12)


def test_scores_with_area_weights():
    truth, classes_predicted = np.array([0, 0, 1, 1, IGNORE]), np.array([0, 1, 1, 1, 0])
    km2 = np.array([2.0, 1.0, 0.5, 0.25, 100.0])
    matrix = confusion(truth, classes_predicted, 2, km2)
    assert matrix.tolist() == [[2.0, 1.0], [0.0, 0.75]]
    got = scores(matrix, ["a", "b"], "km2")
    assert got["km2"] == 3.75
    assert "places" not in got
    assert got["pa"] == pytest.approx(2.75 / 3.75)
    assert got["fwiou"] == pytest.approx(3 / 3.75 * 2 / 3 + 0.75 / 3.75 * 0.75 / 1.75)
    assert got["per_class"]["a"]["km2"] == 3.0


def test_against_scikit_learn():
    peer = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(4)
    truth, classes_predicted, weight = rng.integers(0, 6, 500), rng.integers(0, 6, 500), rng.uniform(0.5, 2, 500)
    classes_predicted = np.where(rng.random(500) < 0.5, truth, classes_predicted)
    got = scores(confusion(truth, classes_predicted, 6, weight), total="km2")
    kwargs = {"sample_weight": weight}
    assert got["pa"] == pytest.approx(peer.accuracy_score(truth, classes_predicted, **kwargs))
    assert got["mpa"] == pytest.approx(peer.balanced_accuracy_score(truth, classes_predicted, **kwargs))
    assert got["macro_f1"] == pytest.approx(peer.f1_score(truth, classes_predicted, average="macro", **kwargs))
    assert got["kappa"] == pytest.approx(peer.cohen_kappa_score(truth, classes_predicted, **kwargs))
    assert got["miou"] == pytest.approx(peer.jaccard_score(truth, classes_predicted, average="macro", **kwargs))
    assert got["fwiou"] == pytest.approx(peer.jaccard_score(truth, classes_predicted, average="weighted", **kwargs))
    assert [each["precision"] for each in got["per_class"].values()] == pytest.approx(
        peer.precision_score(truth, classes_predicted, average=None, **kwargs)
    )
