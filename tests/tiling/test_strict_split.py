import json

import numpy as np
import pytest

from gravmap.errors import InputError
from gravmap.lattice import TEST, TUNE
from gravmap.regions import Region, find_region
from gravmap.tiling.splits import split
from gravmap.tiling.strict_split import StrictSplit, split_strict
from gravmap.tiling.windows import plan_scales, windows

STUDY = find_region("liu2024")


@pytest.fixture(scope="module")
def labels():
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(0, 11, (10, 20)), np.ones((15, 15), dtype=int)).astype(np.uint8)


@pytest.fixture(scope="module")
def boxes():
    scales, _ = plan_scales(STUDY)
    return np.array([w.bounds_wsen for scale in scales for w in windows(STUDY, scale.size_deg, scale.stride_deg)])


@pytest.fixture(scope="module")
def strict(labels, boxes):
    return split_strict(labels, STUDY.bounds_wsen, STUDY, boxes)


def test_no_training_window_touches_a_held_out_cell(strict, labels, boxes):
    """By painting: each training window, grown by the buffer, on the raster of roles."""
    for fold in range(strict.folds):
        roles = strict.roles(fold, labels.shape, STUDY.bounds_wsen)
        out = (roles == TEST) | (roles == TUNE)
        kept = boxes[strict.window_roles(fold, boxes) == 0]
        for west, south, east, north in kept:
            rows = slice(max(0, round((55 - north - 0.2) * 10)), round((55 - south + 0.2) * 10))
            assert not out[rows, max(0, round((west - 65.2) * 10)) : round((east - 65 + 0.2) * 10)].any()
        lost = boxes[strict.window_roles(fold, boxes) == 3]
        for west, south, east, north in lost:
            rows = slice(max(0, round((55 - north - 0.3) * 10)), round((55 - south + 0.3) * 10))
            assert out[rows, max(0, round((west - 65.3) * 10)) : round((east - 65 + 0.3) * 10)].any()


def test_enough_windows_remain_in_every_fold(strict, boxes):
    scale = boxes[:, 2] - boxes[:, 0]
    for fold in range(strict.folds):
        kept = strict.window_roles(fold, boxes) == 0
        assert np.count_nonzero(kept & (scale == 1)) > 225
        assert np.count_nonzero(kept & (scale == 5)) >= 5


def test_every_block_is_scored_once_and_never_tuned_on_then(strict, labels):
    assert strict.fold_of.shape == (3, 6)
    scored = sum((strict.roles(fold, labels.shape, STUDY.bounds_wsen) == TEST).astype(int) for fold in range(5))
    assert (scored[(labels > 0) & (labels < 255)] == 1).all()
    for fold in range(5):
        assert strict.tuning[fold]
        assert not set(strict.tuning[fold]) & set(np.flatnonzero(strict.fold_of == fold).tolist())


def test_the_seed_decides_and_json_keeps(strict, labels, boxes):
    again = split_strict(labels, STUDY.bounds_wsen, STUDY, boxes, seed=0)
    assert (again.fold_of == strict.fold_of).all()
    assert (split_strict(labels, STUDY.bounds_wsen, STUDY, boxes, seed=1).fold_of != strict.fold_of).any()
    back = StrictSplit.from_dict(json.loads(json.dumps(strict.to_dict())))
    for fold in (0, 4):
        assert (back.window_roles(fold, boxes) == strict.window_roles(fold, boxes)).all()
        one, other = (each.roles(fold, (40, 50), STUDY.bounds_wsen) for each in (back, strict))
        assert (one == other).all()


def test_windows_that_cannot_keep_off_are_refused(labels):
    large = [(65.0 + west, 40.0, 80.0 + west, 55.0) for west in (0, 5, 10, 15)]
    with pytest.raises(InputError, match=r"nothing is left to learn from[\s\S]*--window"):
        split(labels, STUDY.bounds_wsen, large, "strict", block_deg=2.5)
    with pytest.raises(InputError, match=r"blocks of 15deg"):
        split(labels, STUDY.bounds_wsen, large, "strict", block_deg=15)


def training_windows(split, boxes):
    return {(split.window_roles(fold, boxes) == 0).tobytes() for fold in range(split.folds)}


def test_no_two_folds_train_on_the_same_windows(labels, boxes):
    """The best tuning block of two adjacent test blocks is the other: five folds would be four."""
    for seed in range(4):
        drawn = split_strict(labels, STUDY.bounds_wsen, STUDY, boxes, seed=seed)
        assert len(training_windows(drawn, boxes)) == 5
        assert not any("same windows" in note for note in drawn.notes)


def test_three_blocks_are_three_folds(labels):
    """The first choices of the three folds leave the last one only pairs that are taken."""
    region = Region(65, 40, 80, 45)
    narrow = np.array([w.bounds_wsen for w in windows(region, 1, 1)])
    part = labels[100:, :150].copy()
    drawn = split_strict(part, region.bounds_wsen, region, narrow, block_deg=5, folds=3)
    assert drawn.fold_of.size == 3
    assert len(training_windows(drawn, narrow)) == 3


def test_folds_of_too_few_windows_say_so(labels):
    """Two windows leave three folds two training sets; that is no reason to refuse."""
    region = Region(65, 40, 80, 45)
    wide = np.array([(65.5, 40.5, 69.5, 44.5), (75.5, 40.5, 79.5, 44.5)])
    part = np.where(labels[100:, :150] == 0, 1, labels[100:, :150]).astype(np.uint8)
    drawn = split_strict(part, region.bounds_wsen, region, wide, block_deg=5, folds=3)
    assert len(training_windows(drawn, wide)) == 2
    assert "train on the same windows" in drawn.notes[0]
