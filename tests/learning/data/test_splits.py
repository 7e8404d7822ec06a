"""Many splits: who is drawn from, what is scored, and that a run on them is one like any other."""

import dataclasses
import functools
import json
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from gravmap.errors import InputError, OptionError
from gravmap.lattice import TEST, TRAIN, TUNE
from gravmap.learning import RegionDataset, TrainConfig, load_model
from gravmap.learning import train as train_and_draw
from gravmap.learning.calibration.applicability import fit_area_of_applicability
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.crust_data import crop_px, crust_dataset, crust_seeds, crust_splits
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.evaluation.held_out import evaluate, predict_held_out
from gravmap.learning.evaluation.under_cover import (
    distance_km,
    held_out_strata,
    null_predictions,
    scores_under_cover,
    with_other_gravity,
)
from gravmap.learning.sampling.augmentation import UNCHANGED
from gravmap.learning.sampling.sampler import Sampler
from gravmap.learning.training.checkpoint import read_pair
from gravmap.learning.training.launch import launch
from gravmap.learning.training.warm_start import load_pretrained
from toys.crusts import COLUMNS, PER_DEG, ROWS, K, make_crust_arrays
from toys.dataset import make_arrays

train = functools.partial(train_and_draw, pictures=False)  # drawing takes longer than a few steps

SEEDS = {"train": [0, 1, 2], "tune": [3], "test": [4, 5]}
SMALL = {"kind": "unet", "widths": [4, 8]}
SHORT = TrainConfig(
    model="small", architecture=SMALL, context="outcrop", epochs=3, steps=2, batch_size=4, lr=1e-2, seed=1,
    class_weight="none", topk_share=1.0, average=0.9,
)  # fmt: skip


def make_splits(change=lambda seed, arrays: None):
    def pool(seeds, progress):
        made = [make_crust_arrays(seed) for seed in seeds]
        for seed, arrays in zip(seeds, made, strict=True):
            change(seed, arrays)
        return made

    return crust_splits(pool, SEEDS, {"prior": {"name": "toy", "sha256": "", "text": ""}})


@pytest.fixture
def splits():
    return make_splits()


def weights_of(folder, stem="last"):
    tensors, _ = read_pair(folder, stem)
    return {name: value for name, value in tensors.items() if stem == "model" or name.startswith("network/")}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


class GravityAlone(torch.nn.Module):
    """Names the class by gravity as the toy crusts do; takes fields as `prepare` gives them."""

    def __init__(self, spread):
        super().__init__()
        self.spread = spread

    def forward(self, x):
        field = x[:, 0] * self.spread
        return torch.stack([-field - 8, 4 - field.abs() / 2, field - 8], 1)


def asking(splits):
    return {"inputs": InputChannels.fit(splits.first, fixed=True), "tile_size_px": splits.meta["tile_size_px"]}


def test_targets_of_a_crust_are_under_cover_and_its_context_is_not():
    arrays = make_crust_arrays(1)
    area = crust_dataset(arrays, TUNE)
    hidden = arrays["labels"] == 0
    labels, role = area.node_truth()
    assert (labels == np.where(hidden, arrays["truth"], 255)).all()
    assert (role == TUNE).all()
    assert area.channels == [
        "residual_10km",
        "outcrop_1",
        "outcrop_2",
        "outcrop_3",
        "outcrop_distance",
        "outcrop_known",
    ]
    assert (area.fields[-1] == ~hidden).all()
    # What lies under cover is in no plane.
    other = {**arrays, "truth": np.where(hidden, arrays["truth"] % K + 1, arrays["truth"]).astype(np.uint8)}
    assert (crust_dataset(other, TUNE).fields == area.fields).all()


def test_crops_come_from_every_crust_with_the_same_probability_and_lie_inside_it(splits):
    sampler = Sampler(splits, InputChannels.fit(splits.first, fixed=True), splits.meta["tile_size_px"], seed=3)
    crops = [sampler.draw(0, number) for number in range(300)]
    drawn = Counter(crop.dataset for crop in crops)
    assert sorted(drawn) == [0, 1, 2]
    assert min(drawn.values()) > 75  # of 100; three standard deviations are 25
    for crop in crops:
        assert crop.half_deg * PER_DEG == pytest.approx(32 / 2)  # cells of 4 arc-minutes
        west, south, east, north = splits.train[crop.dataset].label_bounds_wsen
        assert west <= crop.lon - crop.half_deg + 1e-9
        assert crop.lon + crop.half_deg <= east + 1e-9
        assert south <= crop.lat - crop.half_deg + 1e-9
        assert crop.lat + crop.half_deg <= north + 1e-9
    assert sampler.crop_px == crop_px(ROWS / PER_DEG, COLUMNS / PER_DEG) == 64


def test_targets_of_a_crop_are_the_truth_of_its_crust(splits):
    inputs = InputChannels.fit(splits.first, fixed=True)
    sampler = Sampler(splits, inputs, splits.meta["tile_size_px"], augmentation=UNCHANGED)
    for number in range(6):
        crop = sampler.draw(0, number)
        values, target, _ = sampler.read(crop)
        teaches = target >= 0
        assert teaches.any()
        # The toy's rule, read off the crop's own gravity; near a limit the pixel may be the next cell's.
        field = values[0] * inputs.spreads[0]
        clear = teaches & ((field.abs() - 8).abs() > 7)
        assert (target == (field > -8).long() + (field > 8).long())[clear].all()
        assert (values[-1][teaches] < 1).all()  # nowhere on outcrop alone


def test_one_dataset_serves_as_all_splits():
    area = RegionDataset.from_arrays(make_arrays())
    splits = DatasetSplits.of(area)
    assert splits.fingerprint() == area.fingerprint()
    assert [each is area for each, _ in splits.held_out(TUNE, TEST)] == [True]
    assert not splits.simulated


def test_datasets_that_differ_are_refused(splits):
    with pytest.raises(InputError, match="differ in their channels"):
        DatasetSplits(splits.train, (RegionDataset.from_arrays(make_arrays()),), splits.test)
    with pytest.raises(InputError, match="no dataset to train on"):
        DatasetSplits((), splits.tune, splits.test)


def test_splits_are_the_same_after_save_and_load(splits, tmp_path):
    splits.save(tmp_path)
    again = DatasetSplits.load(tmp_path)
    assert again.fingerprint() == splits.fingerprint()
    assert again.record == splits.record
    assert [len(areas) for areas in (again.train, again.tune, again.test)] == [3, 1, 2]
    for dataset, seed in zip(again.every, [*SEEDS["train"], *SEEDS["tune"], *SEEDS["test"]], strict=True):
        assert (dataset.cover_m == make_crust_arrays(seed)["cover_m"]).all()
    changed = make_splits(lambda seed, arrays: arrays["truth"].__setitem__((0, 0), 3 if seed == 5 else 1))
    assert changed.fingerprint() != splits.fingerprint()


def test_a_perfect_network_scores_one_on_hidden_cells_alone(splits):
    network, how = GravityAlone(asking(splits)["inputs"].spreads[0]), asking(splits)
    scale = splits.scales_deg[0]
    found = evaluate(network, splits, TEST, scale_deg=scale, **how)
    hidden = sum(int((make_crust_arrays(seed)["labels"] == 0).sum()) for seed in SEEDS["test"])
    assert found["places"] == hidden
    assert found["pa"] > 0.97  # pixels lie between nodes
    held = predict_held_out(network, splits, [scale], **how)
    assert (held.role == TEST).sum() == hidden
    named = held.logits[scale][held.role == TEST].argmax(1)
    reported = scores_under_cover(splits, held, named, TEST)
    assert reported["strata"]["all"]["network"]["pa"] == pytest.approx(found["pa"])
    assert (
        reported["strata"]["all"]["nodes"]
        == hidden
        == sum(row["nodes"] for name, row in reported["strata"].items() if name != "all")
    )
    assert reported["gain"]["all"]["pa"] > 0.1
    assert len(reported["crusts"]) == 2
    # Every hidden cell of the toy lies under 500 m: the strata of thickness hold all of them in one.
    assert [row["nodes"] for row in reported["cover"].values()] == [hidden, 0, 0]
    assert reported["cover"]["under 0.5 km"]["network"] == reported["strata"]["all"]["network"]
    # Read another crust's gravity, it knows nothing; the null models, which read none, do not change.
    foreign = with_other_gravity(splits, TEST)
    assert evaluate(network, foreign, TEST, scale_deg=scale, **how)["pa"] < found["pa"] - 0.3
    for moved, area in zip(foreign.test, splits.test, strict=True):
        assert all((null_predictions(moved)[name] == value).all() for name, value in null_predictions(area).items())


def test_held_out_nodes_keep_their_positions():
    """Thickness and distance of each node are those of its own crust, at its own place."""

    def slope(seed, arrays):
        arrays["cover_m"] = (1000 * seed + np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)).astype(np.float32)

    sloping = make_splits(slope)
    held = predict_held_out(GravityAlone(1.0), sloping, [sloping.scales_deg[0]], **asking(sloping))
    found = held_out_strata(sloping, held)
    crust = np.array([*SEEDS["tune"], *SEEDS["test"]])[held.place[:, 0]]
    np.testing.assert_allclose(1000 * found["cover"][0], 1000 * crust + held.place[:, 1], rtol=1e-6)
    for number, area in enumerate((*sloping.tune, *sloping.test)):
        here = held.place[:, 0] == number
        np.testing.assert_allclose(found["distance"][0][here], distance_km(area).ravel()[held.place[here, 1]])
    assert held_out_strata(DatasetSplits.of(RegionDataset.from_arrays(make_arrays())), held) == {}


def test_null_models_and_distances_are_those_of_another_program(splits):
    for seed, area in zip(SEEDS["test"], splits.test, strict=True):
        surface = make_crust_arrays(seed)["labels"]
        km = 6371.0 * np.radians(1 / PER_DEG)
        spacing = (km, km * np.cos(np.radians(area.node_lat.mean())))
        away, index = distance_transform_edt(surface == 0, sampling=spacing, return_indices=True)
        np.testing.assert_allclose(distance_km(area), away, rtol=0.03, atol=0.05)
        agree = null_predictions(area)["nearest_outcrop"] + 1 == surface[tuple(index)]
        assert agree.mean() > 0.97  # ties, and one cosine for all rows
        assert (null_predictions(area)["label_diffusion"] + 1 == surface)[surface > 0].all()


def test_truth_under_test_crusts_does_not_touch_the_weights_and_under_training_crusts_does(splits, tmp_path):
    def mix_up(wanted):
        def change(seed, arrays):
            if seed in SEEDS[wanted]:
                arrays["truth"] = (arrays["truth"] % K + 1).astype(np.uint8)

        return make_splits(change)

    one = dataclasses.replace(SHORT, epochs=1)
    train(splits, tmp_path / "a", one)
    train(mix_up("test"), tmp_path / "b", one)
    train(mix_up("train"), tmp_path / "c", one)
    assert same(weights_of(tmp_path / "a"), weights_of(tmp_path / "b"))
    assert not same(weights_of(tmp_path / "a"), weights_of(tmp_path / "c"))


class Interrupt:
    """Ctrl-C after so many steps."""

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, done, total, note=""):
        if done == self.steps:
            raise KeyboardInterrupt


def test_a_stopped_run_on_crusts_resumes_along_the_same_curve(splits, tmp_path):
    whole = train(splits, tmp_path / "whole", SHORT)
    with pytest.raises(KeyboardInterrupt):
        train(splits, tmp_path / "broken", SHORT, Interrupt(4))
    broken = train(make_splits(), tmp_path / "broken", SHORT, resume=True)
    for stem in ("last", "model"):
        assert same(weights_of(tmp_path / "whole", stem), weights_of(tmp_path / "broken", stem))
    assert broken["test"] == whole["test"]
    assert set(whole["test"]["under_cover"]["strata"]["all"]) == {
        "nodes", "network", "network_likeliest", "nearest_outcrop", "label_diffusion", "foreign_gravity",
    }  # fmt: skip
    with pytest.raises(InputError, match="crusts are not those"):
        changed = make_splits(lambda seed, arrays: arrays["truth"].__setitem__((0, 0), 3 if seed == 0 else 1))
        train(changed, tmp_path / "broken", dataclasses.replace(SHORT, epochs=4), resume=True)
    _, spec = load_model(tmp_path / "whole")
    assert spec.taught_on["on"] == "crusts"
    assert spec.taught_on["seeds"] == SEEDS
    assert spec.input.spreads[0] == 7.0  # the table's, not the region's
    assert spec.region_wsen == []


@pytest.mark.slow
def test_two_processes_train_on_crusts_as_one_does(splits, tmp_path):
    config = dataclasses.replace(SHORT, epochs=2, freeze_statistics=True)
    shared = launch(splits, tmp_path / "two", config, 2)
    alone = train(splits, tmp_path / "one", config)
    assert shared["test"]["places"] == alone["test"]["places"]
    np.testing.assert_allclose(shared["test"]["confusion"], alone["test"]["confusion"], atol=3)
    one, two = (json.loads((tmp_path / name / "calibration.json").read_text()) for name in ("one", "two"))
    assert one["test"]["nodes"] == two["test"]["nodes"] == alone["test"]["places"]
    assert one["test"]["after"]["nll"] == pytest.approx(two["test"]["after"]["nll"], rel=1e-3)


def test_the_area_of_applicability_of_crusts_is_measured_in_gravity_and_across_crusts(splits):
    reach = fit_area_of_applicability(splits, InputChannels.fit(splits.first, fixed=True))
    assert reach.fields == ("residual_10km",)
    assert len(reach.training_features) == sum(int((area.labels != 255).sum()) for area in splits.train)
    # One crust five times as strong as it is lies beyond what was seen; as it is, most of it does not.
    area = splits.test[0]
    as_is, strong = (
        np.nanmean(reach.relative_dissimilarity_index(by * area.fields[:1], area.node_lat, area.node_lon) > 1)
        for by in (1, 5)
    )
    assert as_is < 0.3 < 0.5 < strong


def test_seeds_of_tuning_and_test_are_kept_apart():
    for count in (1, 7, 60, 500):
        seeds = crust_seeds(count)
        every = [seed for role in seeds.values() for seed in role]
        assert len(seeds["train"]) == count
        assert len(set(every)) == len(every)
    assert crust_seeds(60)["test"] == crust_seeds(500)["test"] == list(range(8))


def test_contexts_are_kept_and_a_damaged_one_is_made_anew(tmp_path):
    arrays = make_crust_arrays(2)
    made = crust_dataset(arrays, TRAIN, cache=tmp_path)
    (kept,) = tmp_path.iterdir()
    values = np.load(kept)
    np.save(kept, values + 1)
    assert (crust_dataset(arrays, TRAIN, cache=tmp_path).fields[1:] == values + 1).all()  # it is read
    kept.write_bytes(kept.read_bytes()[:100])
    again = crust_dataset(arrays, TRAIN, cache=tmp_path)
    assert (again.fields == made.fields).all()
    assert (np.load(kept) == values).all()
    # Other outcrop has another file.
    other = {**arrays, "labels": np.where(arrays["labels"] == 3, 2, arrays["labels"]).astype(np.uint8)}
    crust_dataset(other, TRAIN, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_windows_too_large_for_a_crust_are_refused():
    with pytest.raises(OptionError, match=r"do not fit into crusts of 2\.13 x 3\.2 degrees"):
        crust_dataset(make_crust_arrays(), TRAIN, [5.0])
    with pytest.raises(InputError, match="outcrop"):
        crust_dataset({**make_crust_arrays(), "labels": np.zeros((ROWS, COLUMNS), np.uint8)}, TRAIN)


def test_thickness_of_a_crop_lies_where_its_targets_lie():
    def change(seed, arrays):
        arrays["cover_m"] = np.float32(1000) * arrays["truth"]

    splits = make_splits(change)
    sampler = Sampler(splits, InputChannels.fit(splits.first, fixed=True), splits.meta["tile_size_px"], seed=1)
    numbers = list(range(6))
    _, target, _ = sampler.batch(2, numbers)
    cover_km = sampler.cover_km(2, numbers)
    labelled = target >= 0
    assert labelled.float().mean() > 0.1
    assert torch.equal(cover_km[labelled], target[labelled].float() + 1)


def thickness_of_gravity(seed, arrays):
    """Thicker where gravity is lower: what a network can learn."""
    arrays["cover_m"] = (1000 + 40 * np.clip(-arrays["fields"][0], -20, 20)).astype(np.float32)


def test_the_thickness_is_learned_scored_and_calibrated(tmp_path):
    config = dataclasses.replace(SHORT, epochs=2, steps=30, average=0.0)
    scores = train(make_splits(thickness_of_gravity), tmp_path, config)
    network, spec = load_model(tmp_path)
    assert spec.architecture["thickness"] is True
    assert network.classifier.out_channels == K + 3
    found = scores["test"]["thickness"]
    assert found["all"]["nodes"] == scores["test"]["places"]
    assert found["all"]["rank_correlation"] > 0.25  # 0 before the first step
    truth = np.concatenate([make_arrays_of(seed) for seed in SEEDS["test"]])
    assert found["all"]["rmse_m"] < truth.std()  # that of the best constant
    factors = json.loads((tmp_path / "calibration.json").read_text())["thickness"]
    assert set(factors) == {"below", "above", "thickest_km"}


def make_arrays_of(seed):
    """Thickness, metres, under the cover of a crust of :func:`thickness_of_gravity`."""
    arrays = make_crust_arrays(seed)
    thickness_of_gravity(seed, arrays)
    return arrays["cover_m"][arrays["labels"] == 0]


def test_without_weight_or_knowledge_there_is_no_thickness(tmp_path):
    scores = train(make_splits(), tmp_path / "a", dataclasses.replace(SHORT, epochs=1, thickness_weight=0.0))
    unknown = make_splits(lambda seed, arrays: arrays.pop("cover_m"))
    assert not unknown.knows_thickness
    for name, splits in (("a", make_splits()), ("b", unknown)):
        if name == "b":
            scores = train(splits, tmp_path / name, dataclasses.replace(SHORT, epochs=1))
        network, spec = load_model(tmp_path / name)
        assert "thickness" not in spec.architecture
        assert network.classifier.out_channels == K
        assert "thickness" not in scores["test"]


@pytest.mark.slow
def test_fine_tuning_where_the_thickness_is_unknown_keeps_the_classes_alone(tmp_path):
    train(make_splits(), tmp_path / "crusts", dataclasses.replace(SHORT, epochs=1))
    start = load_pretrained(tmp_path / "crusts")
    config = dataclasses.replace(
        SHORT, epochs=1, steps=1, lr=1e-9, average=0.0, init=start.init, architecture=start.architecture
    )
    train(make_splits(lambda seed, arrays: arrays.pop("cover_m")), tmp_path / "fine", config)
    (before, _), (after, _) = (load_model(tmp_path / name) for name in ("crusts", "fine"))
    assert after.classifier.out_channels == K
    torch.testing.assert_close(after.classifier.weight, before.classifier.weight[:K], rtol=0, atol=1e-6)
    # And back: the classes are kept, the thickness begins anew.
    train(make_splits(), tmp_path / "again", dataclasses.replace(config, init=load_pretrained(tmp_path / "fine").init))
    again, _ = load_model(tmp_path / "again")
    torch.testing.assert_close(again.classifier.weight[:K], after.classifier.weight, rtol=0, atol=1e-6)
    assert again.classifier.weight[K:].abs().max() < 1e-6
