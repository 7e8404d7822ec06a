"""Split of the training data of a search: disjoint halves without held-out cells, similar class frequencies."""

import dataclasses

import numpy as np
import pytest

from gravmap.errors import InputError
from gravmap.lattice import TRAIN
from gravmap.learning import RegionDataset
from gravmap.search.data_split import split_for_search, without_held_out_labels
from toys.dataset import make_arrays


def area_of(seed, classes=4, patch=5):
    """Patches of classes, some of them rare; a tenth of the ground is held out, cell by cell."""
    arrays = make_arrays(seed)
    rng = np.random.default_rng(seed)
    shape = tuple(side // patch for side in arrays["labels"].shape)
    sampled = rng.choice(classes + 1, size=shape, p=[0.2, 0.4, 0.25, 0.1, 0.05])
    arrays["labels"] = sampled.repeat(patch, 0).repeat(patch, 1).astype(np.uint8)
    arrays["role"] = rng.choice(4, size=arrays["role"].shape, p=[0.7, 0.1, 0.1, 0.1]).astype(np.uint8)
    arrays["meta"]["classes"] = [{"index": k, "name": f"c{k}", "colour": "#000000"} for k in range(1, classes + 1)]
    arrays["meta"]["split"] = {"name": "blocks", "fold": 0, "block_deg": [1.0, 1.0]}
    return RegionDataset.from_arrays(arrays)


def trained_on(dataset):
    return (dataset.role == TRAIN) & (dataset.labels > 0) & (dataset.labels < 255)


@pytest.mark.parametrize("seed", range(4))
def test_each_training_cell_is_in_one_half_and_no_other_cell_in_any(seed):
    dataset = area_of(seed)
    split = split_for_search(dataset, seed)
    weights, choice = trained_on(split.weights), trained_on(split.architecture)
    assert not (weights & choice).any()
    assert not ((split.weights.role == TRAIN) & (split.architecture.role == TRAIN)).any()
    np.testing.assert_array_equal(weights | choice, trained_on(dataset))
    for part, selected in ((split.weights, weights), (split.architecture, choice)):
        np.testing.assert_array_equal(part.labels[selected], dataset.labels[selected])
        # Of the other half, and of what is held out, not even the labels are there.
        others = (part.labels > 0) & (part.labels < 255) & ~selected
        assert not others.any()
        assert not part.small[~selected & (part.labels == 255)].any()


@pytest.mark.parametrize("seed", range(4))
def test_both_halves_hold_as_much_of_every_class(seed):
    dataset = area_of(seed)
    split = split_for_search(dataset, seed)
    for number, each in enumerate(dataset.classes, start=1):
        selected, theirs = (
            int((part.labels[trained_on(part)] == number).sum()) for part in (split.weights, split.architecture)
        )
        assert 0.35 < selected / (selected + theirs) < 0.65
        assert split.record["cells"]["weights"][each["name"]] == selected
        assert split.record["cells"]["choice"][each["name"]] == theirs


def test_halves_are_whole_blocks_and_the_seed_deals_them():
    dataset = area_of(1)
    first, again, other = (split_for_search(dataset, seed) for seed in (1, 1, 2))
    assert first.record == again.record
    assert first.record["half_of_block"] != other.record["half_of_block"]
    letters = np.array([list(row) for row in first.record["half_of_block"]])
    assert letters.shape == (4, 4)  # four degrees, blocks of one
    side = dataset.labels.shape[0] // 4
    whole = letters.repeat(side, 0).repeat(side, 1)
    assert (whole[trained_on(first.weights)] == "A").all()
    assert (whole[trained_on(first.architecture)] == "B").all()


def test_a_class_in_two_blocks_is_in_both_halves():
    dataset = area_of(3)
    labels = np.where(dataset.labels == 4, np.uint8(1), dataset.labels)
    side = labels.shape[0] // 4
    role = np.zeros_like(dataset.role)
    labels[2, 2] = labels[2, 3 * side + 2] = 4
    for seed in range(6):
        cells = split_for_search(dataclasses.replace(dataset, labels=labels, role=role), seed).record["cells"]
        assert cells["weights"]["c4"] == cells["choice"]["c4"] == 1


def test_labels_in_one_block_cannot_be_halved():
    dataset = area_of(0)
    labels = np.zeros_like(dataset.labels)
    labels[:3, :3] = 1
    with pytest.raises(InputError, match=r"lie in 1 block.*needs two halves"):
        split_for_search(dataclasses.replace(dataset, labels=labels, role=np.zeros_like(dataset.role)))


def test_without_held_out_labels_removes_all_others():
    dataset = area_of(2)
    view, held_out = without_held_out_labels(dataset), dataset.role != TRAIN
    assert (view.labels[held_out] == 255).all()
    assert not view.small[held_out].any()
    np.testing.assert_array_equal(view.labels[~held_out], dataset.labels[~held_out])
    np.testing.assert_array_equal(view.small[~held_out], dataset.small[~held_out])
