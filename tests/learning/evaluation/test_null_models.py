"""Null models use exactly the labels of training."""

from dataclasses import replace

import numpy as np
import pytest

from gravmap.errors import InputError, OptionError
from gravmap.lattice import TEST, TUNE
from gravmap.learning.data.dataset import RegionDataset, training_mask
from gravmap.learning.evaluation import null_models
from gravmap.learning.evaluation.null_models import NULL_MODELS, null_maps, null_scores, unavailable_null_models
from toys.dataset import make_arrays

WINDOWS = ("windows", "window_scale_deg", "window_role")


@pytest.fixture
def dataset():
    return RegionDataset.from_arrays(make_arrays())


def test_known_labels_exclude_held_out_nodes(dataset):
    _, roles = dataset.node_truth()
    seen = training_mask(dataset)
    assert not seen[(roles == TEST) | (roles == TUNE)].any()
    assert seen[roles == 0].all(), "the toy's windows cover it all"
    # Only what lies in a training window is seen.
    west, south, east, north = dataset.windows[0]
    single = training_mask(replace(dataset, **{name: getattr(dataset, name)[:1] for name in WINDOWS}))
    lat, lon = np.meshgrid(dataset.node_lat, dataset.node_lon, indexing="ij")
    inside = (lat >= south) & (lat <= north) & (lon >= west) & (lon <= east)
    assert (single == (seen & inside)).all()


def test_the_majority_is_counted_by_hand(dataset):
    labels, roles = dataset.node_truth()
    known = labels[(roles == 0) & (labels > 0) & (labels != 255)]
    commonest = np.bincount(known).argmax()
    held_out = labels[(roles == TEST) & (labels > 0) & (labels != 255)]
    found = null_scores(dataset)["majority"]
    assert found["places"] == held_out.size
    assert found["pa"] == pytest.approx((held_out == commonest).mean())
    assert null_scores(dataset, TUNE)["majority"]["places"] != held_out.size


def test_unmapped_ground_counts_in_no_score(dataset):
    """Where the map has no cover but nothing, null models and what they are scored on are the same."""
    assert (dataset.labels == 0).any()
    unmapped = replace(dataset, labels=np.where(dataset.labels == 0, 255, dataset.labels).astype(np.uint8))
    assert null_scores(unmapped) == null_scores(dataset)


def test_random_windows_give_away_what_they_are_scored_on(dataset):
    """Overlapping windows: the nearest known outcrop is, nearly everywhere, the scored place itself."""
    role = np.zeros(len(dataset.windows), np.uint8)
    role[::5] = TEST
    memory = replace(dataset, role=np.zeros_like(dataset.role), window_role=role)
    assert null_scores(memory)["nearest_outcrop"]["pa"] > 0.98
    assert null_scores(dataset)["nearest_outcrop"]["pa"] < 0.9


def test_without_held_out_bedrock_there_is_nothing_to_score(dataset):
    with pytest.raises(InputError, match="No bedrock is mapped in the test blocks"):
        null_scores(replace(dataset, role=np.zeros_like(dataset.role)))


def world(gravity_decides):
    """Two classes, high and low ground of a field; what the models read is that field or a foreign one as smooth."""
    arrays = make_arrays()
    if not gravity_decides:
        lat, lon = np.meshgrid(*(np.linspace(0, 1, count) for count in arrays["fields"].shape[1:]), indexing="ij")
        rng = np.random.default_rng(0)
        waves = zip(rng.normal(0, 12, (12, 2)), rng.uniform(0, 2 * np.pi, 12), strict=True)
        arrays["fields"] = sum(10 * np.sin(wave[0] * lat + wave[1] * lon + phase) for wave, phase in waves)[None]
        arrays["fields"] = arrays["fields"].astype(np.float32)
    return RegionDataset.from_arrays(arrays)


GRAVITY_ONLY = ("gravity_forest", "gravity_boosting", "nearest_in_gravity")


def test_gravity_alone_wins_where_it_decides_and_guesses_where_it_is_foreign():
    pytest.importorskip("sklearn")
    decisive, shifted = (null_scores(world(truth), which=None) for truth in (True, False))
    for key in GRAVITY_ONLY:
        assert decisive[key]["pa"] > 0.9, key
        assert decisive[key]["pa"] > decisive["nearest_outcrop"]["pa"], key
        assert shifted[key]["pa"] < 0.75, key
    # What reads no gravity does not care.
    for key in ("majority", "nearest_outcrop", "label_diffusion", "location_forest"):
        assert decisive[key] == shifted[key], key


def test_topography_names_classes_only_where_it_is_given():
    pytest.importorskip("sklearn")
    dataset = world(gravity_decides=False)
    heights = world(gravity_decides=True).fields[0] * 100
    heights[3, 4] = np.nan
    assert "topography_forest" not in null_maps(dataset, which=["topography_forest"])
    assert "no grid of topography" in unavailable_null_models(dataset)["topography_forest"]
    found = null_maps(dataset, which=["topography_forest"], topography=heights)["topography_forest"]
    labels, roles = dataset.node_truth()
    held_out = (roles == TEST) & (labels > 0) & (labels != 255)
    assert (found[held_out] == labels[held_out]).mean() > 0.95
    assert 1 <= found[3, 4] <= 2
    with pytest.raises(InputError, match="nodes"):
        null_maps(dataset, topography=heights[1:])


def test_what_cannot_be_made_is_named_and_the_rest_is_made(dataset, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    made = null_maps(dataset)
    assert set(made) == {
        "majority",
        "nearest_outcrop",
        "label_diffusion",
        "label_diffusion_gravity",
        "nearest_in_gravity",
    }
    assert "gravmap[peers]" in unavailable_null_models(dataset)["gravity_forest"]
    assert set(unavailable_null_models(dataset)) | set(made) == set(NULL_MODELS)
    monkeypatch.setattr(null_models, "MAX_DIFFUSION_NODES", dataset.field_valid.size - 1)
    assert "nodes are too many" in unavailable_null_models(dataset)["label_diffusion"]
    assert "label_diffusion" not in null_maps(dataset)
    with pytest.raises(OptionError, match="oracle"):
        null_maps(dataset, which=["oracle"])


def test_every_null_model_names_every_node_and_the_same_seed_the_same(dataset):
    pytest.importorskip("sklearn")
    one, two = null_maps(dataset, seed=3), null_maps(dataset, seed=3)
    for key, values in one.items():
        assert values.shape == dataset.field_valid.shape
        assert values.dtype == np.uint8
        assert set(np.unique(values)) <= {1, 2}
        assert (values == two[key]).all(), key


def test_no_held_out_label_reaches_a_null_model(dataset):
    pytest.importorskip("sklearn")
    labels = dataset.labels.copy()
    held_out = (dataset.role == TEST) | (dataset.role == TUNE)
    labels[held_out] = np.where(labels[held_out] == 1, 2, np.where(labels[held_out] == 2, 1, labels[held_out]))
    flipped = replace(dataset, labels=labels)
    for key, values in null_maps(dataset).items():
        assert (values == null_maps(flipped, which=[key])[key]).all(), key
