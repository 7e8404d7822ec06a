import csv
import dataclasses
import functools
import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gravmap.errors import InputError, OptionError
from gravmap.learning import RegionDataset, TrainConfig, load_model
from gravmap.learning import train as train_and_draw
from gravmap.learning.evaluation.mosaic import predict_logits
from gravmap.learning.sampling.augmentation import Augmentation
from gravmap.learning.training.checkpoint import read_pair
from gravmap.learning.training.distributed import Group
from gravmap.learning.training.run import estimate_cost
from gravmap.learning.training.state import TrainingCost
from gravmap.learning.training.trainer import Trainer
from gravmap.progress import describe_time
from toys.dataset import make_arrays

train = functools.partial(train_and_draw, pictures=False)  # drawing takes longer than a few steps

SHORT = TrainConfig(model="ggmnet-tiny", epochs=3, steps=2, batch_size=4, lr=3e-3, seed=1)


def weights_of(folder, stem="last"):
    tensors, _ = read_pair(folder, stem)
    return {name: value for name, value in tensors.items() if stem == "model" or name.startswith("network/")}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A complete run of SHORT and the progress it reported, for the tests that compare with one."""
    folder, reports = tmp_path_factory.mktemp("whole") / "run", []
    area = RegionDataset.from_arrays(make_arrays())
    result = train_and_draw(area, folder, SHORT, lambda done, total, note="": reports.append((done, total, note)))
    return SimpleNamespace(folder=folder, result=result, reports=reports)


class Interrupt:
    """Ctrl-C after so many steps."""

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, done, total, note=""):
        if done == self.steps:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_the_sign_of_the_field_is_learned(area, tmp_path):
    gentle = Augmentation(noise=(0.0, 0.01), offset_mgal=0.2)  # the field passes zero steeply, but not everywhere
    config = TrainConfig(
        model="ggmnet-tiny", epochs=10, steps=16, batch_size=6, lr=1e-2, evaluate_every=10, augmentation=gentle,
        tile_size_px=128,
    )  # fmt: skip
    result = train(area, tmp_path / "run", config)
    assert result["test"]["pa"] > 0.95
    assert result["tune"]["pa"] > 0.95
    # The test block: 10 x 10 nodes or one row more, without the fifth that is cover.
    assert 60 <= result["test"]["places"] <= 121
    assert np.sum(result["test"]["confusion"]) == result["test"]["places"]

    # The files alone give the same map again.
    network, spec = load_model(tmp_path / "run")
    assert spec.scores["test"] == result["test"]
    windows = np.array([[80.0, 42.0, 82.0, 44.0], [81.0, 43.0, 83.0, 45.0]])
    lat, lon = area.node_lat, area.node_lon
    logits = predict_logits(
        network, area.fields, area.field_nodes_wsen, windows, spec.tile_size_px, lat, lon, inputs=spec.input
    )
    seen = np.isfinite(logits[0]) & (np.abs(area.fields[0]) > 5)
    assert (logits.argmax(0) == (area.fields[0] < 0))[seen].mean() > 0.95


def test_a_run_writes_its_files_and_reports_progress(area, whole):
    result, reports = whole.result, whole.reports
    assert sorted(path.name for path in whole.folder.iterdir()) == [
        "calibration.json", "curves.png", "last.json", "last.safetensors", "metrics.csv", "model.json",
        "model.safetensors", "reach.safetensors", "reliability.png", "scores.json",
    ]  # fmt: skip
    rows = list(csv.DictReader((whole.folder / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert list(rows[0]) == [
        "epoch", "phase", "lr", "loss", "train_fwiou",
        "tune_loss", "tune_pa", "tune_mpa", "tune_miou", "tune_fwiou", "seconds",
    ]  # fmt: skip
    assert all(0 < float(row["train_fwiou"]) < 1 for row in rows)
    assert json.loads((whole.folder / "scores.json").read_text()) == result
    best = max(range(3), key=lambda index: float(rows[index]["tune_fwiou"]))
    assert result["best_epoch"] == best + 1
    assert result["tune"]["fwiou"] == float(rows[best]["tune_fwiou"])
    # Two steps in each of three epochs, each scored; then the windows over held-out blocks. 100 % is the end of all.
    final = [report for report in reports if "held-out" in report[2]]
    windows = len(final) - 1
    assert windows > 0
    assert {total for _, total, _ in reports} == {6 + windows}
    done = [done for done, _, _ in reports]
    assert done == sorted(done)
    assert [done for done, _, note in reports if "loss" in note] == [1, 2, 3, 4, 5, 6]
    assert {done for done, _, note in reports if "scoring" in note} == {2, 4, 6}
    assert [done for done, _, _ in final] == [6 + n for n in range(windows + 1)]
    assert f": {windows} of {windows} windows, about 0 s left" in final[-1][2]
    assert all("left" in note for done, _, note in reports if done)
    spec = load_model(whole.folder)[1]
    assert spec.channels == ["residual_10km"]
    assert spec.field_recipe == {"method": "regional"}
    assert spec.region_wsen == [80.0, 42.0, 84.0, 46.0]
    assert spec.recipe["lr"] == 3e-3
    assert spec.area_sha256 == area.fingerprint()


def test_a_seed_repeats_bit_for_bit_and_another_does_not(area, whole, tmp_path):
    train(area, tmp_path / "again", SHORT)
    train(area, tmp_path / "other", dataclasses.replace(SHORT, epochs=1, seed=2))
    assert_same(weights_of(whole.folder), weights_of(tmp_path / "again"))
    first = "network/" + next(iter(load_model(whole.folder)[0].state_dict()))
    assert not torch.equal(weights_of(whole.folder)[first], weights_of(tmp_path / "other")[first])


def test_held_out_labels_do_not_affect_the_weights(arrays, whole, tmp_path):
    held_out = arrays["role"] != 0
    arrays["labels"] = np.where(held_out, 3 - np.clip(arrays["labels"], 1, 2), arrays["labels"]).astype(np.uint8)
    arrays["small"] = np.where(held_out, 1 - arrays["small"], arrays["small"]).astype(np.uint8)
    train(RegionDataset.from_arrays(arrays), tmp_path / "run", SHORT)
    assert_same(weights_of(whole.folder), weights_of(tmp_path / "run"))


def test_training_labels_affect_the_weights(arrays, whole, tmp_path):
    # The counterpart: without it the test above could pass on weights that depend on nothing.
    arrays["labels"][arrays["role"] == 0] = 3 - np.clip(arrays["labels"][arrays["role"] == 0], 1, 2)
    train(RegionDataset.from_arrays(arrays), tmp_path / "run", SHORT)
    one, other = weights_of(whole.folder), weights_of(tmp_path / "run")
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("steps", [3, 4])
def test_a_resumed_run_equals_an_uninterrupted_one(area, whole, tmp_path, steps):
    with pytest.raises(KeyboardInterrupt):
        train(area, tmp_path / "broken", SHORT, Interrupt(steps))
    train(area, tmp_path / "broken", SHORT, resume=True)
    assert_same(weights_of(whole.folder), weights_of(tmp_path / "broken"))
    assert_same(weights_of(whole.folder, "model"), weights_of(tmp_path / "broken", "model"))
    rows = [list(csv.DictReader((folder / "metrics.csv").open())) for folder in (whole.folder, tmp_path / "broken")]
    for row in (*rows[0], *rows[1]):
        del row["seconds"]
    assert rows[0] == rows[1]


def test_a_run_is_not_resumed_on_other_data_nor_when_complete(area, arrays, tmp_path):
    train(area, tmp_path / "run", dataclasses.replace(SHORT, epochs=1))
    with pytest.raises(InputError, match="complete"):
        train(area, tmp_path / "run", dataclasses.replace(SHORT, epochs=1), resume=True)
    arrays["fields"] = arrays["fields"] + np.float32(1)
    with pytest.raises(InputError, match="is not the one"):
        train(RegionDataset.from_arrays(arrays), tmp_path / "run", SHORT, resume=True)
    with pytest.raises(InputError, match="missing"):
        train(area, tmp_path / "none", SHORT, resume=True)


def test_gradient_accumulation_gives_the_gradient_of_the_whole_batch(area, tmp_path):
    gradients = []
    for micro in (None, 2):
        # Batch statistics of a micro-batch differ; frozen, both see the same network.
        config = dataclasses.replace(SHORT, micro_batch=micro, clip=1e9, freeze_statistics=True)
        trainer = Trainer(area, tmp_path, config, Group())
        trainer.start_epoch()
        trainer.train_step(0)
        gradients.append(
            [parameter.grad.clone() for parameter in trainer.network.parameters() if parameter.grad is not None]
        )
    assert len(gradients[0]) > 20
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-6)


def test_a_time_limit_leaves_time_for_the_final_evaluation(area, tmp_path, monkeypatch):
    # A clock that advances by a tenth of a second each time it is read.
    clock = SimpleNamespace(now=0.0)

    def read():
        clock.now += 0.1
        return clock.now

    monkeypatch.setattr(time, "monotonic", read)
    result = train(area, tmp_path / "run", dataclasses.replace(SHORT, epochs=1000, time_limit_s=16.0))
    assert clock.now < 16.5
    assert 3 <= result["epochs"] < 40
    assert (tmp_path / "run" / "scores.json").exists()
    rates = [float(row["lr"]) for row in csv.DictReader((tmp_path / "run" / "metrics.csv").open())]
    assert rates[-1] < 0.2 * max(rates)  # the rate came down with the clock


@pytest.mark.slow
def test_early_stopping_ends_a_run_that_no_longer_improves(area, tmp_path):
    result = train(area, tmp_path / "run", dataclasses.replace(SHORT, epochs=30, lr=1e-12, patience=2))
    assert result["epochs"] <= 12


def test_without_tuning_labels_the_last_epoch_is_kept(area, tmp_path):
    area.role[area.role == 1] = 3
    result = train(area, tmp_path / "run", SHORT)
    assert result["tune"]["fwiou"] is None
    assert result["best_epoch"] == 3
    assert_same(
        {name.removeprefix("network/"): value for name, value in weights_of(tmp_path / "run").items()},
        weights_of(tmp_path / "run", "model"),
    )


def test_a_class_without_training_labels_is_logged(area, tmp_path, caplog):
    area.labels[(area.labels == 2) & (area.role == 0)] = 0
    train(area, tmp_path / "run", dataclasses.replace(SHORT, epochs=1))
    assert "No training label of: low" in caplog.text


def test_batches_that_cannot_be_normalised_are_refused(area, tmp_path):
    with pytest.raises(OptionError, match="one crop"):
        train(area, tmp_path / "run", dataclasses.replace(SHORT, batch_size=1))
    with pytest.raises(OptionError, match="one crop"):
        train(area, tmp_path / "run", dataclasses.replace(SHORT, micro_batch=1))


@pytest.mark.parametrize("base", ["valid", "all"])
def test_the_tuning_loss_is_that_of_the_hardest_nodes(area, tmp_path, base):
    """Under "all" the training loss counts more pixels where few are labelled; so must the tuning loss."""
    trainer = Trainer(area, tmp_path, dataclasses.replace(SHORT, class_weight="none", topk_base=base), Group())
    scorer, seen = trainer.scorer, []
    loss = scorer.tuning_loss
    scorer.tuning_loss = lambda logits, target: seen.append((logits, target)) or loss(logits, target)
    scores = scorer.score_tuning_blocks()
    logits, target = seen[0][0][0].double().numpy(), seen[0][1][0].numpy()
    counted = target >= 0
    assert counted.sum() == scores["places"]
    log_p = logits - np.log(np.exp(logits).sum(0))
    losses = np.sort([-log_p[target[place], *place] for place in zip(*np.nonzero(counted), strict=True)])
    kept = int(np.ceil(0.15 * (len(losses) if base == "valid" else target.size)))
    assert scores["loss"] == pytest.approx(losses[-kept:].mean(), rel=1e-5)


@pytest.mark.slow
def test_early_stopping_counts_epochs_of_sgd_alone(area, tmp_path):
    config = dataclasses.replace(SHORT, epochs=9, steps=1, batch_size=2, lr=1e-12, patience=2)
    # With frozen statistics and a tiny learning rate nothing changes at all.
    config = dataclasses.replace(config, schedule="adam-sgd", switch="epoch:4", lr_floor=0.0, freeze_statistics=True)
    result = train(area, tmp_path / "run", config)
    # Nothing improves after the first epoch, but the four of Adam do not count.
    assert result["epochs"] == 6


def test_a_configuration_survives_json():
    config = TrainConfig(scales_deg=[1.0], augmentation=Augmentation(noise=(0.0, 0.5)), time_limit_s=3.0)
    assert TrainConfig.from_json(config.to_json()) == config


def test_time_in_words_and_a_measured_step(area):
    assert [describe_time(seconds) for seconds in (40, 720, 12600, 3_510_000)] == ["40 s", "12 min", "3.5 h", "41 days"]
    cost = estimate_cost(area, dataclasses.replace(SHORT, steps=None))
    assert 0 < cost.step_s < 60
    assert 0 < cost.window_s < cost.score_s + cost.final_s < 60
    assert cost.steps_per_epoch == 6  # 23 training windows; two of the 25 lie in held-out blocks


def test_of_several_processes_the_share_of_one_is_measured(area):
    config = dataclasses.replace(SHORT, steps=None, batch_size=8)
    alone, shared = estimate_cost(area, config), estimate_cost(area, config, processes=4)
    assert (alone.processes, alone.crops, shared.processes, shared.crops) == (1, 8, 4, 2)
    assert alone.steps_per_epoch == shared.steps_per_epoch == 3  # of 8 crops, from 23 windows
    # Each process predicts a part of the windows.
    assert shared.score_s / shared.window_s == pytest.approx(alone.score_s / alone.window_s / 4)
    assert shared.final_s / shared.window_s == pytest.approx(alone.final_s / alone.window_s / 4)
    assert estimate_cost(area, config, processes=8).crops == 2  # one crop has no variance
    with pytest.raises(OptionError, match="8 crops cannot be divided among 3 processes"):
        estimate_cost(area, config, processes=3)


def test_measuring_the_cost_leaves_the_network_as_it_is(area, tmp_path):
    trainer = Trainer(area, tmp_path, SHORT, Group())
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.measure_cost()
    assert all(torch.equal(value, before[name]) for name, value in trainer.network.state_dict().items())
    assert all(parameter.grad is None for parameter in trainer.network.parameters())


def test_a_time_limit_without_room_for_a_step_and_its_scores_is_refused(area, tmp_path):
    cost = TrainingCost(156, 30, window_s=30, score_s=90, final_s=500, tile_size_px=2048)
    with pytest.raises(OptionError, match="of 3 min is too short: here one step takes 3 min, the scores") as caught:
        cost.check_time_limit(180)
    assert caught.value.hint == "--size 928 would fit; or choose a smaller --model, or --time-limit 14min."
    dataclasses.replace(cost, step_s=156 * (928 / 2048) ** 2, score_s=18, final_s=100).check_time_limit(180)
    cost.check_time_limit(None)
    cost.check_time_limit(14 * 60)
    with pytest.raises(OptionError, match="too short"):
        train(area, tmp_path / "run", dataclasses.replace(SHORT, time_limit_s=1e-3))
    assert not (tmp_path / "run").exists()
