"""Null models know what training sees, no more and no less."""

from dataclasses import replace

import numpy as np
import pytest

from gravmap.errors import InputError
from gravmap.learning.area import TEST, TUNE, Area
from gravmap.mapping.null_models import null_scores, seen_in_training
from toy_area import make_arrays

WINDOWS = ("windows", "window_scale_deg", "window_role")


@pytest.fixture
def area():
    return Area.from_arrays(make_arrays())


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
    found = null_scores(area)["majority class"]
    assert found["places"] == held.size
    assert found["pa"] == pytest.approx((held == commonest).mean())
    assert null_scores(area, TUNE)["majority class"]["places"] != held.size


def test_random_windows_give_away_what_they_are_scored_on(area):
    """Overlapping windows: the nearest known outcrop is, nearly everywhere, the scored place itself."""
    role = np.zeros(len(area.windows), np.uint8)
    role[::5] = TEST
    memory = replace(area, role=np.zeros_like(area.role), window_role=role)
    assert null_scores(memory)["nearest outcrop, no gravity"]["pa"] > 0.98
    assert null_scores(area)["nearest outcrop, no gravity"]["pa"] < 0.9


def test_without_held_out_bedrock_there_is_nothing_to_score(area):
    with pytest.raises(InputError, match="No bedrock is held out"):
        null_scores(replace(area, role=np.zeros_like(area.role)))
