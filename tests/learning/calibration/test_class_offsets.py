"""Class offsets: fit and prediction."""

import itertools

import numpy as np
import pytest

from gravmap.learning.calibration.by_distance import DistanceTemperature
from gravmap.learning.calibration.class_offsets import fit_class_offsets, objective, predict_class
from gravmap.learning.evaluation.metrics import confusion, scores


def sampled(seed=0, n=4000):
    """Classes of 80, 17 and 3 %, and logits that know something of them."""
    rng = np.random.default_rng(seed)
    target = rng.choice(3, size=n, p=(0.8, 0.17, 0.03))
    logits = rng.normal(0, 1, (n, 3)) + 1.2 * (target[:, None] == np.arange(3)) + np.log((0.8, 0.17, 0.03))
    return logits.astype(np.float32), target


def test_objective_combines_three_scores():
    _, target = sampled()
    matrix = confusion(target, np.roll(target, 1), 3)
    found = scores(matrix, ["a", "b", "c"])
    assert objective(matrix) == pytest.approx(found["pa"] + found["fwiou"] + found["mpa"] / 2)


def test_grid_search_finds_no_better_offsets():
    logits, target = sampled()

    def with_offsets(offsets):
        return objective(confusion(target, (logits + np.asarray(offsets, np.float32)).argmax(1), 3))

    # Only differences count, so one class stays where it is.
    best = max(with_offsets((0, *each)) for each in itertools.product(np.arange(-1, 3.01, 0.1), repeat=2))
    found = with_offsets(fit_class_offsets(logits, target))
    assert found > with_offsets((0, 0, 0)) + 0.01
    assert found > best - 0.006  # one at a time is not all at once


def test_it_helps_on_others_and_spares_the_rare():
    offsets = fit_class_offsets(*sampled(0))
    logits, target = sampled(1)
    plain, moved = (confusion(target, (logits + each).argmax(1), 3) for each in (0, offsets))
    assert objective(moved) > objective(plain)
    assert moved[2, 2] > plain[2, 2]
    assert offsets[2] == offsets.max()
    assert offsets.mean() == pytest.approx(0, abs=1e-6)


def test_no_nodes_give_zero_offsets():
    assert (fit_class_offsets(np.zeros((0, 4), np.float32), np.zeros(0, np.int64)) == 0).all()


def test_predicted_class_is_argmax_of_log_probability_plus_offset():
    rng = np.random.default_rng(2)
    chances = rng.dirichlet(np.ones(4), size=(5, 6)).transpose(2, 0, 1).astype(np.float32)
    offsets = [0.5, -1.0, 2.0, 0.0]
    expected = (np.log(chances) + np.array(offsets)[:, None, None]).argmax(0)
    assert (predict_class(chances, offsets) == expected).all()
    assert (expected != chances.argmax(0)).any()
    assert (predict_class(chances, None) == chances.argmax(0)).all()
    assert (predict_class(np.moveaxis(chances, 0, -1), offsets, axis=-1) == expected).all()


def test_a_score_names_what_a_map_shows_where_temperatures_follow_the_distance():
    from scipy.special import softmax

    from gravmap.learning.training.finish import _divisor

    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, (500, 4)).astype(np.float32)
    km, selected = rng.uniform(0, 80, 500), rng.random(500) < 0.6
    curve = {"km": [4.0, 40.0], "temperature": [0.5, 3.0]}
    record = {"temperatures": {"5deg": 1.2}, "scales": [5.0], "by_distance": {"5deg": curve}}
    offsets = np.array([1.5, 0.0, -0.5, -1.0], np.float32)
    divided = _divisor(record, [5.0], km, selected)
    predicted = (logits[selected] + divided * offsets).argmax(axis=1)
    at = DistanceTemperature.from_dict(curve).at(km[selected])[:, None]
    shown = predict_class(softmax(logits[selected] / at, axis=1), offsets, axis=1)
    assert (predicted == shown).all()
    one = (logits[selected] + np.float32(1.2) * offsets).argmax(axis=1)
    assert (one != shown).any()
