"""Many grounds: who is drawn from, what is scored, and that a run on them is one like any other."""

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from gravmap.errors import InputError, OptionError
from gravmap.lattice import TEST, TRAIN, TUNE
from gravmap.learning import RegionDataset, TrainConfig, load_model, train
from gravmap.learning.calibration.applicability import fit_area_of_applicability
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.crust_data import crop_px, crust_dataset, crust_seeds, crust_splits
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.evaluation.evaluation import evaluate
from gravmap.learning.evaluation.held_out_predictions import predict_held_out
from gravmap.learning.evaluation.under_cover import (
    distance_km,
    hidden_scores,
    null_classes,
    strata_of,
    with_other_gravity,
)
from gravmap.learning.sampling.augmentation import UNCHANGED
from gravmap.learning.sampling.sampler import Sampler
from gravmap.learning.training.checkpoint import read_pair
from gravmap.learning.training.launch import launch
from toy_area import make_arrays
from toy_crusts import COLUMNS, PER_DEG, ROWS, K, make_crust_arrays

pytestmark = pytest.mark.usefixtures("no_pictures")

SEEDS = {"train": [0, 1, 2], "tune": [3], "test": [4, 5]}
SMALL = {"kind": "unet", "widths": [4, 8]}
SHORT = TrainConfig(
    model="small", architecture=SMALL, context="outcrop", epochs=3, steps=2, batch_size=4, lr=1e-2, seed=1,
    class_weight="none", topk_share=1.0, average=0.9,
)  # fmt: skip


def make_grounds(change=lambda seed, arrays: None):
    def pool(seeds, progress):
        made = [make_crust_arrays(seed) for seed in seeds]
        for seed, arrays in zip(seeds, made, strict=True):
            change(seed, arrays)
        return made

    return crust_splits(pool, SEEDS, {"prior": {"name": "toy", "sha256": "", "text": ""}})


@pytest.fixture
def grounds():
    return make_grounds()


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


def asking(grounds):
    return {"inputs": InputChannels.fit(grounds.first, fixed=True), "tile_size_px": grounds.meta["tile_size_px"]}


def test_a_crust_is_asked_for_what_is_hidden_and_shows_what_is_not():
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


def test_crops_come_from_every_crust_alike_and_lie_inside_it(grounds):
    sampler = Sampler(grounds, InputChannels.fit(grounds.first, fixed=True), grounds.meta["tile_size_px"], seed=3)
    crops = [sampler.draw(0, number) for number in range(300)]
    drawn = Counter(crop.dataset for crop in crops)
    assert sorted(drawn) == [0, 1, 2]
    assert min(drawn.values()) > 75  # of 100; three standard deviations are 25
    for crop in crops:
        assert crop.half_deg * PER_DEG == pytest.approx(32 / 2)  # cells of 4 arc-minutes
        west, south, east, north = grounds.train[crop.dataset].label_bounds_wsen
        assert west <= crop.lon - crop.half_deg + 1e-9
        assert crop.lon + crop.half_deg <= east + 1e-9
        assert south <= crop.lat - crop.half_deg + 1e-9
        assert crop.lat + crop.half_deg <= north + 1e-9
    assert sampler.crop_px == crop_px(ROWS / PER_DEG, COLUMNS / PER_DEG) == 64


def test_a_crop_holds_the_truth_of_its_crust(grounds):
    inputs = InputChannels.fit(grounds.first, fixed=True)
    sampler = Sampler(grounds, inputs, grounds.meta["tile_size_px"], augmentation=UNCHANGED)
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


def test_one_area_is_a_ground_like_any():
    area = RegionDataset.from_arrays(make_arrays())
    grounds = DatasetSplits.of(area)
    assert grounds.fingerprint() == area.fingerprint()
    assert [ground is area for ground, _ in grounds.held_out(TUNE, TEST)] == [True]
    assert not grounds.simulated


def test_grounds_that_differ_are_refused(grounds):
    with pytest.raises(InputError, match="differ in their channels"):
        DatasetSplits(grounds.train, (RegionDataset.from_arrays(make_arrays()),), grounds.test)
    with pytest.raises(InputError, match="no dataset to train on"):
        DatasetSplits((), grounds.tune, grounds.test)


def test_grounds_go_through_files(grounds, tmp_path):
    grounds.save(tmp_path)
    again = DatasetSplits.load(tmp_path)
    assert again.fingerprint() == grounds.fingerprint()
    assert again.record == grounds.record
    assert [len(areas) for areas in (again.train, again.tune, again.test)] == [3, 1, 2]
    for cover, seed in zip(again.cover_m, [*SEEDS["tune"], *SEEDS["test"]], strict=True):
        assert (cover == make_crust_arrays(seed)["cover_m"]).all()
    changed = make_grounds(lambda seed, arrays: arrays["truth"].__setitem__((0, 0), 3 if seed == 5 else 1))
    assert changed.fingerprint() != grounds.fingerprint()


def test_a_network_that_knows_is_scored_so_on_hidden_cells_alone(grounds):
    network, how = GravityAlone(asking(grounds)["inputs"].spreads[0]), asking(grounds)
    scale = grounds.scales_deg[0]
    found = evaluate(network, grounds, TEST, scale_deg=scale, **how)
    hidden = sum(int((make_crust_arrays(seed)["labels"] == 0).sum()) for seed in SEEDS["test"])
    assert found["places"] == hidden
    assert found["pa"] > 0.97  # pixels lie between nodes
    held = predict_held_out(network, grounds, [scale], **how)
    assert (held.role == TEST).sum() == hidden
    named = held.logits[scale][held.role == TEST].argmax(1)
    told = hidden_scores(grounds, held, named, TEST)
    assert told["strata"]["all"]["network"]["pa"] == pytest.approx(found["pa"])
    assert (
        told["strata"]["all"]["nodes"]
        == hidden
        == sum(row["nodes"] for name, row in told["strata"].items() if name != "all")
    )
    assert told["gain"]["all"]["pa"] > 0.1
    assert len(told["crusts"]) == 2
    # Every hidden cell of the toy lies under 500 m: the strata of thickness hold all of them in one.
    assert [row["nodes"] for row in told["cover"].values()] == [hidden, 0, 0]
    assert told["cover"]["under 0.5 km"]["network"] == told["strata"]["all"]["network"]
    # Read another crust's gravity, it knows nothing; the null models, which read none, say what they said.
    foreign = with_other_gravity(grounds, TEST)
    assert evaluate(network, foreign, TEST, scale_deg=scale, **how)["pa"] < found["pa"] - 0.3
    for moved, area in zip(foreign.test, grounds.test, strict=True):
        assert all((null_classes(moved)[name] == value).all() for name, value in null_classes(area).items())


def test_held_out_nodes_know_where_they_lie():
    """Thickness and distance of each node are those of its own crust, at its own place."""

    def slope(seed, arrays):
        arrays["cover_m"] = (1000 * seed + np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)).astype(np.float32)

    sloping = make_grounds(slope)
    held = predict_held_out(GravityAlone(1.0), sloping, [sloping.scales_deg[0]], **asking(sloping))
    found = strata_of(sloping, held)
    crust = np.array([*SEEDS["tune"], *SEEDS["test"]])[held.place[:, 0]]
    np.testing.assert_allclose(1000 * found["cover"][0], 1000 * crust + held.place[:, 1], rtol=1e-6)
    for number, area in enumerate((*sloping.tune, *sloping.test)):
        here = held.place[:, 0] == number
        np.testing.assert_allclose(found["distance"][0][here], distance_km(area).ravel()[held.place[here, 1]])
    assert strata_of(DatasetSplits.of(RegionDataset.from_arrays(make_arrays())), held) == {}


def test_null_models_and_distances_are_those_of_another_program(grounds):
    for seed, area in zip(SEEDS["test"], grounds.test, strict=True):
        surface = make_crust_arrays(seed)["labels"]
        km = 6371.0 * np.radians(1 / PER_DEG)
        spacing = (km, km * np.cos(np.radians(area.node_lat.mean())))
        away, index = distance_transform_edt(surface == 0, sampling=spacing, return_indices=True)
        np.testing.assert_allclose(distance_km(area), away, rtol=0.03, atol=0.05)
        agree = null_classes(area)["nearest_outcrop"] + 1 == surface[tuple(index)]
        assert agree.mean() > 0.97  # ties, and one cosine for all rows
        assert (null_classes(area)["label_diffusion"] + 1 == surface)[surface > 0].all()


def test_truth_under_test_crusts_does_not_touch_the_weights_and_under_training_crusts_does(grounds, tmp_path):
    def mix_up(wanted):
        def change(seed, arrays):
            if seed in SEEDS[wanted]:
                arrays["truth"] = (arrays["truth"] % K + 1).astype(np.uint8)

        return make_grounds(change)

    one = dataclasses.replace(SHORT, epochs=1)
    train(grounds, tmp_path / "a", one)
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


def test_a_broken_run_on_crusts_goes_on_along_the_same_curve(grounds, tmp_path):
    whole = train(grounds, tmp_path / "whole", SHORT)
    with pytest.raises(KeyboardInterrupt):
        train(grounds, tmp_path / "broken", SHORT, Interrupt(4))
    broken = train(make_grounds(), tmp_path / "broken", SHORT, resume=True)
    for stem in ("last", "model"):
        assert same(weights_of(tmp_path / "whole", stem), weights_of(tmp_path / "broken", stem))
    assert broken["test"] == whole["test"]
    assert set(whole["test"]["under_cover"]["strata"]["all"]) == {
        "nodes", "network", "network_likeliest", "nearest_outcrop", "label_diffusion", "foreign_gravity",
    }  # fmt: skip
    with pytest.raises(InputError, match="crusts are not those"):
        changed = make_grounds(lambda seed, arrays: arrays["truth"].__setitem__((0, 0), 3 if seed == 0 else 1))
        train(changed, tmp_path / "broken", dataclasses.replace(SHORT, epochs=4), resume=True)
    _, spec = load_model(tmp_path / "whole")
    assert spec.taught_on["on"] == "crusts"
    assert spec.taught_on["seeds"] == SEEDS
    assert spec.input.spreads[0] == 7.0  # the table's, not the ground's
    assert spec.region_wsen == []


@pytest.mark.slow
def test_two_processes_share_crusts(grounds, tmp_path):
    config = dataclasses.replace(SHORT, epochs=2, freeze_statistics=True)
    shared = launch(grounds, tmp_path / "two", config, 2)
    alone = train(grounds, tmp_path / "one", config)
    assert shared["test"]["places"] == alone["test"]["places"]
    np.testing.assert_allclose(shared["test"]["confusion"], alone["test"]["confusion"], atol=3)
    one, two = (json.loads((tmp_path / name / "calibration.json").read_text()) for name in ("one", "two"))
    assert one["test"]["nodes"] == two["test"]["nodes"] == alone["test"]["places"]
    assert one["test"]["after"]["nll"] == pytest.approx(two["test"]["after"]["nll"], rel=1e-3)


def test_the_reach_of_crusts_is_measured_in_gravity_and_across_crusts(grounds):
    reach = fit_area_of_applicability(grounds, InputChannels.fit(grounds.first, fixed=True))
    assert reach.fields == ("residual_10km",)
    assert len(reach.points) == sum(int((area.labels != 255).sum()) for area in grounds.train)
    # One crust five times as strong as it is lies beyond what was seen; as it is, most of it does not.
    area = grounds.test[0]
    as_is, strong = (
        np.nanmean(reach.dissimilarity(by * area.fields[:1], area.node_lat, area.node_lon) > 1) for by in (1, 5)
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
