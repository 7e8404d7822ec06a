import json

import numpy as np
import pytest

from gravmap.errors import InputError
from gravmap.lattice import TEST, TUNE
from gravmap.learning import RegionDataset, TrainConfig, evaluate, load_model, train
from gravmap.learning.calibration.applicability import read_area_of_applicability
from gravmap.learning.calibration.temperature import (
    MIN_NODES,
    calibrate,
    fit_temperature,
    read_calibration,
    window_sizes_key,
)
from gravmap.learning.evaluation.held_out import HeldOutPredictions, default_scales, predict_held_out
from gravmap.learning.evaluation.mosaic import covering_windows, predict_logits
from toys.dataset import make_arrays


def truthful(count, classes=4, seed=0):
    """Logits whose softmax is the truth, and classes drawn by it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (count, classes))
    return logits.astype(np.float32), (logits + rng.gumbel(size=logits.shape)).argmax(axis=1).astype(np.int64)


def held_out_nodes(count=8000, factors=(2.0, 4.0)):
    """Held-out ground of a network that is too sure of itself, by another factor at every size of window."""
    logits, target = truthful(count)
    role = np.where(np.arange(count) % 2, TUNE, TEST).astype(np.uint8)
    message = {2.5 * (number + 1): np.float32(factor) * logits for number, factor in enumerate(factors)}
    return HeldOutPredictions(target, role, np.ones(count), message)


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_known_factor_is_recovered(factor):
    logits, target = truthful(40_000)
    found = fit_temperature(np.float32(factor) * logits, target, np.ones(len(target)))
    assert found == pytest.approx(factor, rel=0.03)


def test_nodes_without_weight_are_ignored():
    logits, target = truthful(20_000)
    both = np.concatenate([logits, np.float32(5) * logits])
    weight = np.repeat([0.0, 1.0], len(target))
    assert fit_temperature(both, np.tile(target, 2), weight) == pytest.approx(5, rel=0.05)
    assert fit_temperature(both, np.tile(target, 2), 1 - weight) == pytest.approx(1, rel=0.05)


def test_every_combination_of_scales_has_a_temperature():
    record = calibrate(held_out_nodes(40_000), [2.5, 5.0])
    assert record["temperatures"].keys() == {"2.5deg", "5deg", "2.5deg+5deg"}
    # The mean of twice and four times the truth is three times the truth.
    for key, factor in (("2.5deg", 2), ("5deg", 4), ("2.5deg+5deg", 3)):
        assert record["temperatures"][key] == pytest.approx(factor, rel=0.05)
    for role in ("tune", "test"):
        assert record[role]["nodes"] == 20_000
        assert record[role]["before"]["ece"] > 0.1
        assert record[role]["after"]["ece"] < 0.02
        assert record[role]["after"]["nll"] < record[role]["before"]["nll"]
    assert record["notes"] == []
    # JSON holds it all: no NaN, no numpy.
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_test_blocks_have_no_influence():
    ground = held_out_nodes()
    record = calibrate(ground, [5.0])
    for role, same in ((TEST, True), (TUNE, False)):
        flipped = np.where(ground.role == role, 3 - ground.target, ground.target)
        other = calibrate(HeldOutPredictions(flipped, ground.role, ground.weight, ground.logits), [5.0])
        assert (other["temperatures"] == record["temperatures"]) is same
        assert other["test"] != record["test"]


def test_too_little_to_measure_leaves_probabilities_alone():
    record = calibrate(held_out_nodes(2 * MIN_NODES - 2), [2.5])
    assert set(record["temperatures"].values()) == {1.0}
    assert f"{MIN_NODES - 1} labelled nodes" in record["notes"][0]
    assert record["test"]["before"] == record["test"]["after"]
    # One more is enough; none at all is no error.
    assert calibrate(held_out_nodes(2 * MIN_NODES), [2.5])["temperatures"]["2.5deg"] != 1
    empty = calibrate(held_out_nodes(0), [2.5])
    assert (empty["test"], empty["tune"]) == ({"nodes": 0, "before": None, "after": None},) * 2


def test_a_network_without_error_is_not_made_surer():
    ground = held_out_nodes()
    flawless = HeldOutPredictions(ground.logits[2.5].argmax(axis=1), ground.role, ground.weight, ground.logits)
    record = calibrate(flawless, [2.5])
    assert record["temperatures"]["2.5deg"] == 1
    assert "no error" in record["notes"][0]


def test_the_scales_of_a_map():
    assert default_scales([10.0, 1.0, 5.0], "cpu") == [5.0, 10.0]
    assert default_scales([10.0, 1.0, 5.0], "cuda") == [1.0, 5.0, 10.0]
    assert default_scales([1.0, 0.5], "cpu") == [0.5, 1.0]
    assert window_sizes_key([10.0, 5.0, 0.25]) == "15arcmin+5deg+10deg"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    dataset = RegionDataset.from_arrays(make_arrays())
    folder = tmp_path_factory.mktemp("runs") / "run"
    result = train(dataset, folder, TrainConfig(model="ggmnet-tiny", epochs=1, steps=6, batch_size=4, lr=3e-3, seed=1))
    return dataset, folder, result


def test_a_run_measures_what_the_files_say_again(run):
    dataset, folder, result = run
    network, spec = load_model(folder)
    calibration = read_calibration(folder)
    assert calibration.scales == (1.0, 2.0)  # the score's, and the one that maps are made with on a CPU
    assert calibration.record["default_scales"] == [2.0]
    # From the weights alone: logits on the whole field, at the labelled nodes of the tuning block.
    windows = covering_windows(dataset.field_nodes_wsen, 2.0, dataset.field_nodes_wsen)
    lat, lon = dataset.node_lat, dataset.node_lon
    logits = predict_logits(
        network, dataset.fields, dataset.field_nodes_wsen, windows, spec.tile_size_px, lat, lon, inputs=spec.input
    )
    labels, role = dataset.node_truth()
    nodes = (role == TUNE) & (labels >= 1) & (labels <= 2)
    assert calibration.record["tune"]["nodes"] == nodes.sum() > 60
    message, truth = logits[:, nodes].T.astype(np.float64), labels[nodes] - 1
    weight = np.cos(np.radians(np.broadcast_to(lat[:, None], nodes.shape)[nodes]))

    def loss(temperature):
        odds = np.exp(message / temperature)
        return -np.average(np.log(odds[np.arange(len(truth)), truth] / odds.sum(axis=1)), weights=weight)

    assert calibration.record["tune"]["before"]["nll"] == pytest.approx(loss(1.0), rel=1e-4)
    grid = np.geomspace(0.1, 10, 4000)
    best = grid[np.argmin([loss(each) for each in grid])]
    assert calibration.temperature([2.0]) == pytest.approx(best, rel=0.01)
    assert calibration.record["tune"]["after"]["nll"] == pytest.approx(loss(best), rel=1e-4)
    assert result["calibration"]["temperature"] == calibration.temperature([2.0])
    assert result["calibration"]["test_ece_after"] == calibration.record["test"]["after"]["ece"]


def test_held_out_predictions_score_like_evaluate(run):
    dataset, folder, result = run
    network, spec = load_model(folder)
    asking = {"inputs": spec.input, "tile_size_px": spec.tile_size_px}
    assert evaluate(network, dataset, TEST, scale_deg=1.0, **asking) == result["test"]
    found = predict_held_out(network, dataset, [2.0], **asking)
    labels, role = dataset.node_truth()
    for each in (TUNE, TEST):
        assert (found.role == each).sum() == ((role == each) & (labels > 0) & (labels < 255)).sum()


def test_other_weights_and_scales_are_reported(run, tmp_path, caplog):
    folder = tmp_path / "run"
    folder.mkdir()
    for path in run[1].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    calibration = read_calibration(folder)
    assert calibration.temperature([1.0, 5.0]) == calibration.temperatures["1deg"]
    assert "of 1deg and 5deg; that of 1deg is used" in caplog.text
    assert calibration.temperature([10.0]) == calibration.temperatures["1deg+2deg"]
    record = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(record | {"weights_sha256": "0" * 64, "area_sha256": "1" * 64}))
    assert read_calibration(folder) is None
    assert read_area_of_applicability(folder) is None
    assert "other weights" in caplog.text
    assert "another tile set" in caplog.text


def test_files_that_are_absent_or_damaged(run, tmp_path):
    assert read_calibration(tmp_path) is None
    assert read_area_of_applicability(tmp_path) is None
    good = json.loads((run[1] / "calibration.json").read_text())
    bad = (
        {**good, "temperatures": {"1deg+2deg": -1.0}},
        {**good, "temperatures": {"1deg": 2.0}},
        {key: value for key, value in good.items() if key != "scales"},
        [],
    )
    for each in bad:
        (tmp_path / "calibration.json").write_text(json.dumps(each))
        with pytest.raises(InputError, match=r"calibration\.json"):
            read_calibration(tmp_path)
    (tmp_path / "calibration.json").write_text(json.dumps({**good, "format": 99}))
    with pytest.raises(InputError, match="format 99"):
        read_calibration(tmp_path)


@pytest.mark.parametrize("roles", [(), (TEST,)])
def test_runs_without_held_out_labels_end_well(arrays, tmp_path, caplog, roles):
    arrays["role"][~np.isin(arrays["role"], roles)] = 0
    config = TrainConfig(model="ggmnet-tiny", epochs=1, steps=1, batch_size=2)
    result = train(RegionDataset.from_arrays(arrays), tmp_path, config)
    assert read_calibration(tmp_path).temperature([2.0]) == 1
    assert result["calibration"]["tune_ece_before"] is None
    assert (result["calibration"]["test_ece_after"] is None) is (TEST not in roles)
    assert "0 labelled nodes in the tuning blocks" in caplog.text
    assert (tmp_path / "reliability.png").stat().st_size > 1000


def test_windows_held_out_at_random_are_measured_too(arrays, tmp_path):
    arrays["role"][:] = 0
    arrays["window_role"][[3, 12]] = TUNE, TEST
    arrays["meta"]["split"] = {"name": "random", "kind": "random", "fold": 0}
    train(
        RegionDataset.from_arrays(arrays), tmp_path, TrainConfig(model="ggmnet-tiny", epochs=1, steps=1, batch_size=2)
    )
    calibration = read_calibration(tmp_path)
    assert calibration.record["split"]["name"] == "random"
    assert calibration.record["tune"]["nodes"] > 50
    assert calibration.record["test"]["nodes"] > 50
