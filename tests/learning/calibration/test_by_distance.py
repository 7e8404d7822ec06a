"""Networks whose confidence is wrong in a way that follows the distance to outcrop, planted and to be undone."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from gravmap.errors import InputError
from gravmap.lattice import TEST, TUNE
from gravmap.learning.calibration import by_distance as distance_temperature
from gravmap.learning.calibration.by_distance import DistanceTemperature, fit_distance_temperature, select_knots
from gravmap.learning.calibration.reliability import coverage, draw_reliability, log_softmax
from gravmap.learning.calibration.temperature import Calibration, calibrate, read_calibration
from gravmap.learning.evaluation.held_out import HeldOutPredictions
from gravmap.learning.evaluation.under_cover import BY_COVER, BY_DISTANCE, in_stratum

K = 5


def truthful(count, seed=0):
    """Logits whose softmax is the truth, classes drawn by it, and distances from 2 to 120 km."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (count, K))
    target = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1).astype(np.int64)
    return logits, target, np.exp(rng.uniform(np.log(2), np.log(120), count))


def planted(distance_km, near=0.6, far=3.0):
    """1/T straight in log(1 + km / 10) between 4 and 80 km: what logits were multiplied by."""
    where = np.clip((np.log1p(distance_km / 10) - np.log1p(0.4)) / (np.log1p(8.0) - np.log1p(0.4)), 0, 1)
    return 1 / (1 / near + where * (1 / far - 1 / near))


def held_ground(count=60_000, pieces=4, wrong=planted, seed=0):
    logits, target, away = truthful(count, seed)
    said = (logits * wrong(away)[:, None]).astype(np.float32)
    role = np.where(np.arange(count) % 2, TUNE, TEST).astype(np.uint8)
    place = np.stack([np.arange(count) // 2 % pieces + pieces * (role == TEST), np.arange(count)], axis=1)
    return HeldOutPredictions(target, role, np.ones(count), {5.0: said}, place), away


@pytest.mark.parametrize(("near", "far"), [(0.6, 3.0), (2.5, 0.8)])
def test_what_was_planted_comes_back_whether_it_rises_or_falls(near, far):
    logits, target, away = truthful(60_000)
    wrong = planted(away, near, far)
    found = fit_distance_temperature((logits * wrong[:, None]).astype(np.float32), target, np.ones(len(target)), away)
    assert found.km == distance_temperature.KNOTS_KM
    asked = np.array([1.0, 4.0, 15.0, 30.0, 80.0, 500.0])
    assert found.at(asked) == pytest.approx(planted(asked, near, far), rel=0.08)
    steps = np.diff(found.temperature) * np.sign(far - near)
    assert (steps >= -1e-9).all()


def test_it_rises_or_falls_all_the_way_even_where_the_network_does_not():
    logits, target, away = truthful(40_000)
    hump = np.where((away > 10) & (away < 30), 3.0, 1.0)
    found = fit_distance_temperature((logits * hump[:, None]).astype(np.float32), target, np.ones(len(target)), away)
    steps = np.diff(found.temperature)
    assert (steps >= -1e-9).all() or (steps <= 1e-9).all()


def test_nodes_without_weight_have_no_influence():
    logits, target, away = truthful(20_000)
    twice = np.concatenate([logits * planted(away)[:, None], logits * 9]).astype(np.float32)
    weight = np.repeat([1.0, 0.0], len(target))
    found = fit_distance_temperature(twice, np.tile(target, 2), weight, np.tile(away, 2))
    assert found.at(np.array([80.0])) == pytest.approx(3.0, rel=0.12)


def test_few_nodes_take_knots_away():
    away = np.concatenate([np.full(5000, 3.0), np.full(5000, 12.0), np.full(40, 90.0)])
    assert 80.0 not in select_knots(away)
    assert select_knots(away)[0] == 4.0
    assert select_knots(np.full(10_000, 3.0)) == (4.0,)
    logits, target, _ = truthful(10_000)
    assert fit_distance_temperature(logits.astype(np.float32), target, np.ones(10_000), np.full(10_000, 3.0)) is None


def test_miscalibration_by_distance_is_corrected_on_test_data():
    held, away = held_ground()
    cover = np.where(np.arange(len(away)) % 3, 0.3, 5.0)
    record = calibrate(held, [5.0], {"distance": (away, BY_DISTANCE), "cover": (cover, BY_COVER)})
    test = record["test"]
    assert record["notes"] == []
    assert test["one"]["nll"] > test["after"]["nll"] + 0.01
    for name, row in test["strata"]["distance"].items():
        mine = (held.role == TEST) & in_stratum(away, BY_DISTANCE[name])
        assert row["nodes"] == mine.sum() > 2000
        assert row["after"]["ece"] < 0.03
        assert row["after"]["coverage"] == pytest.approx(0.8, abs=0.025)
    near, far = test["strata"]["distance"]["under 10 km"], test["strata"]["distance"]["over 30 km"]
    # One temperature for all leaves the near too unsure and the far too sure; before, the same.
    for when in ("before", "one"):
        assert near[when]["coverage"] > 0.82
        assert far[when]["coverage"] < 0.76
    assert [row["nodes"] for row in test["strata"]["cover"].values()] == [20_000, 0, 10_000]
    assert test["strata"]["cover"]["0.5 to 2 km"]["after"] is None
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_test_data_have_no_influence():
    held, away = held_ground(20_000)
    strata = {"distance": (away, BY_DISTANCE)}
    record = calibrate(held, [5.0], strata)
    turned = np.where(held.role == TEST, K - 1 - held.target, held.target)
    other = calibrate(HeldOutPredictions(turned, held.role, held.weight, held.logits, held.place), [5.0], strata)
    assert other["by_distance"] == record["by_distance"]
    assert other["test"] != record["test"]


def test_temperatures_by_distance_need_to_pass_cross_validation():
    """Each piece of tuning ground is wrong in the other direction: what is fitted on one fails on the other."""
    held, away = held_ground(40_000, pieces=2)
    logits, _, _ = truthful(40_000)
    turned = np.where(held.place[:, 0] == 0, planted(away, 0.5, 4.0), planted(away, 4.0, 0.5))
    held.logits[5.0][:] = logits * turned[:, None]
    record = calibrate(held, [5.0], {"distance": (away, BY_DISTANCE)})
    assert "by_distance" not in record
    assert "cross-validation" in record["notes"][0]
    assert "one" not in record["test"]
    assert record["test"]["strata"]["distance"]["over 30 km"]["after"]["ece"] > 0.02


def test_calibrated_probabilities_have_nominal_coverage():
    logits, target, _ = truthful(100_000, seed=3)
    for held in (0.5, 0.8, 0.95):
        right, size = coverage(np.exp(log_softmax(logits)), target, np.ones(len(target)), held)
        assert right == pytest.approx(held, abs=0.006)
        assert 0 < size < K
    sure, _ = coverage(np.exp(log_softmax(logits, 0.4)), target, np.ones(len(target)))
    unsure, wide = coverage(np.exp(log_softmax(logits, 3.0)), target, np.ones(len(target)))
    assert sure < 0.72
    assert unsure > 0.88
    assert wide > 3


def test_the_last_class_of_a_set_counts_in_part():
    probability = np.array([[0.5, 0.4, 0.1]])
    # 0.5 whole and three quarters of 0.4 make 0.8.
    for target, right in ((0, 1.0), (1, 0.75), (2, 0.0)):
        assert coverage(probability, np.array([target]), np.ones(1)) == (pytest.approx(right), pytest.approx(1.75))


def test_a_place_has_its_own_temperature():
    logits = np.array([[2.0, 0.0], [2.0, 0.0]])
    odds = np.exp(log_softmax(logits, np.array([1.0, 4.0])))
    assert odds[:, 0] / odds[:, 1] == pytest.approx(np.exp([2.0, 0.5]))


def test_files_with_and_without_it(tmp_path):
    (tmp_path / "model.json").write_text('{"weights_sha256": "ab"}')
    old = {"format": 1, "model_sha256": "ab", "scales": [5.0], "temperatures": {"5deg": 2.0}}
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(old))
    assert read_calibration(tmp_path).divisor([5.0]) == 2.0
    curve = {"km": [4.0, 80.0], "temperature": [1.0, 3.0]}
    path.write_text(json.dumps(old | {"by_distance": {"5deg": curve}}))
    found = read_calibration(tmp_path)
    assert found.divisor([5.0]) == DistanceTemperature((4.0, 80.0), (1.0, 3.0))
    assert found.divisor([7.0]) == found.divisor([5.0])  # of other windows, with a warning
    assert found.temperature([5.0]) == 2.0
    for bad in (
        {"km": [4.0], "temperature": [1.0]},
        {"km": [80.0, 4.0], "temperature": [1.0, 3.0]},
        {"km": [4.0, 80.0], "temperature": [1.0, -3.0]},
        {"km": [4.0, 80.0]},
        [],
    ):
        path.write_text(json.dumps(old | {"by_distance": {"5deg": bad}}))
        with pytest.raises(InputError, match=r"calibration\.json.*by_distance|is damaged"):
            read_calibration(tmp_path)
    assert Calibration({"5deg": 2.0}, (5.0,), {}).divisor([5.0]) == 2.0


def test_the_diagrams_by_distance_leave_out_ranges_without_nodes_and_keep_their_labels(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: (drawn.append(figure), path.touch()))
    held, away = held_ground()
    far = np.where(away < 10, 20.0, away)
    draw_reliability(calibrate(held, [5.0], {"distance": (far, BY_DISTANCE)}), tmp_path / "reliability.png")
    (figure,) = drawn
    figure.draw_without_rendering()
    below = figure.subfigs[1].axes
    assert [each.get_title().split(",")[0] for each in below] == ["10 to 30 km from outcrop", "over 30 km from outcrop"]
    for each in below:
        assert each.get_xlabel() == "probability"
        assert each.xaxis.label.get_window_extent().y0 >= 0, "cut off at the lower edge"
