"""Null models know what training sees, no more and no less."""

from dataclasses import replace

import numpy as np
import pytest

from gravmap.errors import InputError, OptionError
from gravmap.lattice import TEST, TUNE
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.evaluation import null_models
from gravmap.learning.evaluation.null_models import NULL_MODELS, left_out, null_maps, null_scores, seen_in_training
from toy_area import make_arrays

WINDOWS = ("windows", "window_scale_deg", "window_role")


@pytest.fixture
def area():
    return RegionDataset.from_arrays(make_arrays())


def test_nothing_held_out_is_known(area):
    _, roles = area.node_truth()
    seen = seen_in_training(area)
    assert not seen[(roles == TEST) | (roles == TUNE)].any()
    assert seen[roles == 0].all(), "the toy's windows cover it all"
    # Only what lies in a training window is seen.
    west, south, east, north = area.windows[0]
    alone = seen_in_training(replace(area, **{name: getattr(area, name)[:1] for name in WINDOWS}))
    lat, lon = np.meshgrid(area.node_lat, area.node_lon, indexing="ij")
    inside = (lat >= south) & (lat <= north) & (lon >= west) & (lon <= east)
    assert (alone == (seen & inside)).all()


def test_the_majority_is_counted_by_hand(area):
    labels, roles = area.node_truth()
    known = labels[(roles == 0) & (labels > 0) & (labels != 255)]
    commonest = np.bincount(known).argmax()
    held = labels[(roles == TEST) & (labels > 0) & (labels != 255)]
    found = null_scores(area)["majority"]
    assert found["places"] == held.size
    assert found["pa"] == pytest.approx((held == commonest).mean())
    assert null_scores(area, TUNE)["majority"]["places"] != held.size


def test_random_windows_give_away_what_they_are_scored_on(area):
    """Overlapping windows: the nearest known outcrop is, nearly everywhere, the scored place itself."""
    role = np.zeros(len(area.windows), np.uint8)
    role[::5] = TEST
    memory = replace(area, role=np.zeros_like(area.role), window_role=role)
    assert null_scores(memory)["nearest_outcrop"]["pa"] > 0.98
    assert null_scores(area)["nearest_outcrop"]["pa"] < 0.9


def test_without_held_out_bedrock_there_is_nothing_to_score(area):
    with pytest.raises(InputError, match="No bedrock is mapped in the test blocks"):
        null_scores(replace(area, role=np.zeros_like(area.role)))


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
    decides, foreign = (null_scores(world(truth), which=None) for truth in (True, False))
    for key in GRAVITY_ONLY:
        assert decides[key]["pa"] > 0.9, key
        assert decides[key]["pa"] > decides["nearest_outcrop"]["pa"], key
        assert foreign[key]["pa"] < 0.75, key
    # What reads no gravity does not care.
    for key in ("majority", "nearest_outcrop", "label_diffusion", "location_forest"):
        assert decides[key] == foreign[key], key


def test_topography_names_classes_only_where_it_is_given():
    pytest.importorskip("sklearn")
    area = world(gravity_decides=False)
    heights = world(gravity_decides=True).fields[0] * 100
    heights[3, 4] = np.nan
    assert "topography_forest" not in null_maps(area, which=["topography_forest"])
    assert "no grid of topography" in left_out(area)["topography_forest"]
    found = null_maps(area, which=["topography_forest"], topography=heights)["topography_forest"]
    labels, roles = area.node_truth()
    held = (roles == TEST) & (labels > 0) & (labels != 255)
    assert (found[held] == labels[held]).mean() > 0.95
    assert 1 <= found[3, 4] <= 2
    with pytest.raises(InputError, match="nodes"):
        null_maps(area, topography=heights[1:])


def test_what_cannot_be_made_is_named_and_the_rest_is_made(area, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    made = null_maps(area)
    assert set(made) == {
        "majority",
        "nearest_outcrop",
        "label_diffusion",
        "label_diffusion_gravity",
        "nearest_in_gravity",
    }
    assert "gravmap[peers]" in left_out(area)["gravity_forest"]
    assert set(left_out(area)) | set(made) == set(NULL_MODELS)
    monkeypatch.setattr(null_models, "MOST_NODES", area.field_valid.size - 1)
    assert "nodes are too many" in left_out(area)["label_diffusion"]
    assert "label_diffusion" not in null_maps(area)
    with pytest.raises(OptionError, match="no null model oracle"):
        null_maps(area, which=["oracle"])


def test_every_null_model_names_every_node_and_the_same_seed_the_same(area):
    pytest.importorskip("sklearn")
    one, two = null_maps(area, seed=3), null_maps(area, seed=3)
    for key, values in one.items():
        assert values.shape == area.field_valid.shape
        assert values.dtype == np.uint8
        assert set(np.unique(values)) <= {1, 2}
        assert (values == two[key]).all(), key


def test_no_held_out_label_reaches_a_null_model(area):
    pytest.importorskip("sklearn")
    labels = area.labels.copy()
    held = (area.role == TEST) | (area.role == TUNE)
    labels[held] = np.where(labels[held] == 1, 2, np.where(labels[held] == 2, 1, labels[held]))
    turned = replace(area, labels=labels)
    for key, values in null_maps(area).items():
        assert (values == null_maps(turned, which=[key])[key]).all(), key
