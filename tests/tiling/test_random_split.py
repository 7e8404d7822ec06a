import json

import numpy as np
import pytest

from gravmap.errors import InputError, OptionError
from gravmap.regions import find_region
from gravmap.tiling.leak import measure
from gravmap.tiling.random_split import RandomSplit, split_random
from gravmap.tiling.splits import split
from gravmap.tiling.windows import plan_scales, windows

STUDY = find_region("liu2024")


@pytest.fixture(scope="module")
def boxes():
    scales, _ = plan_scales(STUDY)
    return np.array([w.bounds_wsen for scale in scales for w in windows(STUDY, scale.size_deg, scale.stride_deg)])


def test_the_papers_split():
    """475 windows with enough bedrock, 61 without: 71 held out, 404 for training."""
    outcrop = np.array([0.5] * 475 + [0.05] * 61)
    drawn = split_random(outcrop)
    for fold in range(5):
        roles = drawn.window_roles(fold, np.zeros((536, 4)))
        assert np.bincount(roles, minlength=4).tolist() == [404, 23, 48, 61]
        assert (roles[475:] == 3).all()
    assert (drawn.roles_of_window == split_random(outcrop, seed=0).roles_of_window).all()
    assert (drawn.roles_of_window != split_random(outcrop, seed=1).roles_of_window).any()


def test_no_window_is_held_out_twice_in_six_folds():
    roles = split_random(np.ones(536), folds=6).roles_of_window
    assert ((roles == 1) | (roles == 2)).sum(axis=0).max() == 1
    again = split_random(np.ones(536), folds=8).roles_of_window
    assert ((again == 1) | (again == 2)).sum(axis=0).max() == 2


def test_the_papers_split_leaks(boxes):
    """network.md 5.2 found 99.9 % of the area of windows held out at random inside the others."""
    labels = np.ones((150, 300), np.uint8)
    leaks = []
    for seed in range(2):
        drawn = split(labels, STUDY.bounds_wsen, boxes, "random", seed=seed)
        roles = [drawn.roles(fold, labels.shape, STUDY.bounds_wsen) for fold in range(5)]
        held = [drawn.window_roles(fold, boxes) for fold in range(5)]
        leaks += [fold.leak for fold in measure(labels, STUDY.bounds_wsen, boxes, roles, held, 1, distances=False)]
    assert 0.995 < np.mean(leaks) <= 1


def test_it_survives_json():
    drawn = split_random(np.linspace(0, 1, 60), folds=4, seed=3)
    again = RandomSplit.from_dict(json.loads(json.dumps(drawn.to_dict())))
    assert (again.roles_of_window == drawn.roles_of_window).all()
    with pytest.raises(OptionError, match="folds 0 to 3"):
        again.window_roles(4, np.zeros((60, 4)))
    with pytest.raises(InputError, match="60 windows, not 61"):
        again.window_roles(0, np.zeros((61, 4)))


def test_too_few_windows_are_refused():
    with pytest.raises(InputError, match="3 windows"):
        split_random(np.ones(3))
    with pytest.raises(OptionError):
        split_random(np.ones(100), fraction=1.0)
