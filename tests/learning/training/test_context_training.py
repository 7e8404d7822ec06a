"""Training on a region with outcrop as context, and fine-tuning the weights of another run."""

import dataclasses
import functools
import json

import numpy as np
import pytest
import torch

from gravmap.errors import InputError, OptionError
from gravmap.lattice import BUFFER, TEST, TRAIN, TUNE
from gravmap.learning import RegionDataset, TrainConfig, load_model
from gravmap.learning import train as train_and_draw
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.outcrop_context import context_names
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.sampling.sampler import Sampler
from gravmap.learning.training.checkpoint import read_pair
from gravmap.learning.training.launch import launch
from gravmap.learning.training.run import estimate_cost
from gravmap.learning.training.setup import choose_inputs
from gravmap.learning.training.warm_start import load_pretrained
from toys.dataset import field_at, make_arrays

train = functools.partial(train_and_draw, pictures=False)  # drawing takes longer than a few steps

SMALL = {"kind": "unet", "widths": [4, 8]}
SHORT = TrainConfig(
    model="small", architecture=SMALL, context="outcrop", cuts=2, epochs=3, steps=2, batch_size=4, lr=1e-2, seed=1
)


@pytest.fixture
def arrays():
    """The toy's region with cover as basins are: in one piece, not sprinkled over."""
    made = make_arrays()
    lat, lon = np.linspace(45.975, 42.025, 80), np.linspace(80.025, 83.975, 80)
    made["labels"] = np.where(made["labels"] == 0, 1, made["labels"])
    made["labels"][field_at(lat[:, None] + 31, 0.5 * lon[None, :]) > 8] = 0
    return made


@pytest.fixture
def area(arrays):
    return RegionDataset.from_arrays(arrays)


def weights_of(folder, stem="last"):
    tensors, _ = read_pair(folder, stem)
    return {name: value for name, value in tensors.items() if stem == "model" or name.startswith("network/")}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_one_cover_mask_is_replaced_per_epoch(area):
    splits = DatasetSplits.of(area).with_outcrop(3, seed=5)
    assert [list(splits.cover_masks.numbers(epoch)) for epoch in (0, 1)] == [[0, 1, 2], [1, 2, 3]]
    inputs = choose_inputs(splits, SHORT)
    first, second = (Sampler(splits, inputs, 64, seed=2) for _ in range(2))
    for epoch in range(3):
        drawn = first.batch(epoch, [0, 1, 2, 3])
    # A resumed run makes the cover masks of its epoch without the earlier ones.
    assert all(torch.equal(one, other) for one, other in zip(drawn, second.batch(2, [0, 1, 2, 3]), strict=True))
    assert {first.draw(2, number).dataset for number in range(40)} == {2, 3, 4}
    assert first.window_count == Sampler(area, InputChannels.fit(area), 64).window_count


def test_crops_are_trained_on_what_the_cover_mask_hides(area):
    splits = DatasetSplits.of(area).with_outcrop(2, seed=5)
    inputs = choose_inputs(splits, SHORT)
    sampler = Sampler(splits, inputs, 64)
    known = inputs.names.index("outcrop_known")
    seen = 0
    for number in range(8):
        values, target, _ = (each[0] for each in sampler.batch(0, [number]))
        labelled = target >= 0
        seen += int(labelled.sum())
        # Labels are twice as fine as nodes: at the edge of a mask a training cell may lie beside a known node.
        assert (values[known][labelled] > 0.99).float().mean() < 0.05
    assert seen > 500


def test_held_out_labels_are_not_part_of_the_context(arrays):
    held_out = np.isin(arrays["role"], (TUNE, TEST, BUFFER))
    before = DatasetSplits.of(RegionDataset.from_arrays(arrays)).with_outcrop(2, seed=1)
    mixed = {**arrays, "labels": arrays["labels"].copy()}
    mapped = held_out & (arrays["labels"] > 0)
    mixed["labels"][mapped] = 3 - arrays["labels"][mapped]
    after = DatasetSplits.of(RegionDataset.from_arrays(mixed)).with_outcrop(2, seed=1)
    for one, other in [
        (before.first, after.first),
        *((before.cover_masks.make(n), after.cover_masks.make(n)) for n in range(3)),
    ]:
        assert (one.fields == other.fields).all()
    # Scoring uses all of the training outcrop as context.
    labels, role = before.first.node_truth()
    known = before.first.fields[before.first.channels.index("outcrop_known")] > 0
    assert (known == ((labels > 0) & (labels != 255) & (role == TRAIN))).all()


def test_a_resumed_run_with_context_equals_an_uninterrupted_one(area, tmp_path):
    whole = train(area, tmp_path / "whole", SHORT)

    def interrupt(done, total, note=""):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(area, tmp_path / "broken", SHORT, interrupt)
    broken = train(area, tmp_path / "broken", SHORT, resume=True)
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "broken"))
    assert whole["test"] == broken["test"]
    _, spec = load_model(tmp_path / "whole")
    assert spec.architecture["kind"] == "outcrop-start"
    assert spec.architecture["body"] == SMALL
    assert spec.channels == ["residual_10km", *context_names(2)]
    # The fingerprint is that of the region as given, so that the tile set still fits the run.
    assert spec.area_sha256 == area.fingerprint()


def test_measuring_a_step_makes_one_cover_mask(area):
    made = []
    config = dataclasses.replace(SHORT, cuts=5, steps=None)
    original = DatasetSplits.with_outcrop

    def spied(self, cuts, seed):
        made.append(cuts)
        return original(self, cuts, seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DatasetSplits, "with_outcrop", spied)
        steps = estimate_cost(area, config).steps_per_epoch
    assert made == [1]
    assert steps == -(-Sampler(area, InputChannels.fit(area), 64).window_count // 4)


@pytest.mark.slow
def test_two_processes_use_the_same_cover_masks(area, tmp_path):
    config = dataclasses.replace(SHORT, epochs=2, freeze_statistics=True)
    shared = launch(area, tmp_path / "two", config, 2)
    alone = train(area, tmp_path / "one", config)
    np.testing.assert_allclose(shared["test"]["confusion"], alone["test"]["confusion"], atol=2)
    one, other = (load_model(tmp_path / name)[0].state_dict() for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=2e-3, atol=1e-4)


def test_a_map_without_cover_or_with_one_class_is_refused(arrays, tmp_path):
    full = {**arrays, "labels": np.where(arrays["labels"] == 0, 1, arrays["labels"]).astype(np.uint8)}
    with pytest.raises(InputError, match="no cover"):
        train(RegionDataset.from_arrays(full), tmp_path / "full", SHORT)
    alike = {**arrays, "labels": np.minimum(arrays["labels"], 1)}
    with pytest.raises(InputError, match="of one class"):
        train(RegionDataset.from_arrays(alike), tmp_path / "alike", SHORT)
    with pytest.raises(OptionError, match="context = 'faults' is not valid"):
        dataclasses.replace(SHORT, context="faults")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Folder of a run to fine-tune."""
    folder = tmp_path_factory.mktemp("runs") / "pretrained"
    config = dataclasses.replace(SHORT, context=None, epochs=1)
    train(RegionDataset.from_arrays(make_arrays()), folder, config)
    return folder


def fine_tuned(pretrained, **changes):
    """The configuration that `train --init` makes of a run."""
    start = load_pretrained(pretrained)
    values = {
        "model": start.model,
        "architecture": start.architecture,
        "context": start.context,
        "inputs": start.measured,
    }
    return dataclasses.replace(SHORT, **values, init=start.init, **changes)


def test_a_fine_tuned_run_starts_from_the_weights_and_scales_of_another(pretrained, area, arrays, tmp_path):
    arrays["fields"] = arrays["fields"] * 3  # scales are those of the other run, whatever the data
    config = fine_tuned(pretrained, epochs=1, steps=1, lr=1e-30, freeze_statistics=True)
    train(RegionDataset.from_arrays(arrays), tmp_path / "next", config)
    assert same(weights_of(pretrained, "model"), weights_of(tmp_path / "next", "model"))
    old, new = load_model(pretrained)[1], load_model(tmp_path / "next")[1]
    assert new.inputs == old.inputs
    assert new.recipe["init"]["run"] == "pretrained"
    record = json.loads((pretrained / "model.json").read_text())
    assert new.recipe["init"]["weights_sha256"] == record["weights_sha256"]


def test_a_fine_tuned_run_is_resumed_without_the_other_run(pretrained, area, tmp_path):
    import shutil

    copy = shutil.copytree(pretrained, tmp_path / "pretrained")
    train(area, tmp_path / "whole", fine_tuned(copy, epochs=2))

    def interrupt(done, total, note=""):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(area, tmp_path / "broken", fine_tuned(copy, epochs=2), interrupt)
    config = TrainConfig.from_json(json.dumps(json.loads((tmp_path / "broken" / "last.json").read_text())["config"]))
    shutil.rmtree(copy)
    train(area, tmp_path / "broken", config, resume=True)
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "broken"))
    # A new run needs it.
    with pytest.raises(InputError, match="is missing"):
        train(area, tmp_path / "anew", config)


def test_other_channels_classes_or_weights_are_refused(pretrained, area, arrays, tmp_path):
    with pytest.raises(OptionError, match="other channels: residual_10km; this run has residual_10km, scale"):
        train(area, tmp_path / "a", dataclasses.replace(fine_tuned(pretrained), inputs=["residual_10km", "scale"]))
    renamed = [{**each, "name": f"other {each['name']}"} for each in arrays["meta"]["classes"]]
    other = RegionDataset.from_arrays({**arrays, "meta": {**arrays["meta"], "classes": renamed}})
    with pytest.raises(InputError, match=r"class 1 is high there and other high here \(2 classes differ\)"):
        train(other, tmp_path / "b", fine_tuned(pretrained))
    config = fine_tuned(pretrained)
    with pytest.raises(InputError, match="have changed since"):
        train(area, tmp_path / "c", dataclasses.replace(config, init={**config.init, "weights_sha256": "0" * 64}))


def test_fine_tuning_on_another_gravity_field_is_refused(pretrained, arrays, tmp_path):
    for key, value in (("input_height_m", 10_000.0), ("quantity", "free_air")):
        recipe = {**arrays["meta"]["field_recipe"], key: value}
        other = RegionDataset.from_arrays({**arrays, "meta": {**arrays["meta"], "field_recipe": recipe}})
        with pytest.raises(
            InputError, match=f"pretrained was trained on another gravity field: {key} None, here {value}"
        ):
            train(other, tmp_path / key, fine_tuned(pretrained))
    finer = {**arrays["meta"]["field_recipe"], "spacing_deg": [0.01, 0.01]}
    other = RegionDataset.from_arrays({**arrays, "meta": {**arrays["meta"], "field_recipe": finer}})
    train(other, tmp_path / "finer", fine_tuned(pretrained, epochs=1, steps=1))


def test_windows_keep_the_size_of_pixels(pretrained):
    start = load_pretrained(pretrained)
    assert (start.scales_deg, start.tile_size_px) == ([1.0, 2.0], 64)
    assert start.windows_for([1.0, 2.0, 5.0]) == ([1.0, 2.0], 64)
    assert start.windows_for([1.5, 5.0]) == ([1.5], 48)  # 2 degrees had 64 pixels
    assert start.windows_for([10.0]) == ([10.0], 320)
