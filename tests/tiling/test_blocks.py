import numpy as np
import pytest

from gravmap.errors import InputError, OptionError
from gravmap.lattice import BUFFER, TEST, TRAIN, TUNE
from gravmap.regions import Region
from gravmap.tiling.blocks import BlockSplit, assign_folds, split_blocks

STUDY = Region(65, 40, 95, 55)


@pytest.fixture(scope="module")
def labels():
    """0.1 degree cells of the study area: ten classes in patches of 1.5 degrees, of unequal shares."""
    rng = np.random.default_rng(0)
    share = np.array([1, 8, 5, 6, 4, 17, 23, 6, 9, 21]) / 100
    patches = rng.choice(np.arange(11), size=(10, 20), p=[0.4, *(0.6 * share)])
    return np.kron(patches, np.ones((15, 15), dtype=int)).astype(np.uint8)


@pytest.fixture(scope="module")
def split(labels):
    return split_blocks(labels, STUDY.bounds_wsen, STUDY)


def test_blocks_divide_the_region(split):
    assert split.fold_of.shape == (6, 12)
    assert split.block_deg == (2.5, 2.5)
    assert set(split.fold_of.ravel()) <= {-1, 0, 1, 2, 3, 4}
    assert set(split.fold_of.ravel()) >= {0, 1, 2, 3, 4}


def test_roles_are_disjoint_and_buffered(split, labels):
    lat, lon = 55 - 0.05 - 0.1 * np.arange(150), 65 + 0.05 + 0.1 * np.arange(300)
    row, column = ((55 - lat) // 2.5).astype(int), ((lon - 65) // 2.5).astype(int)
    tested = np.zeros(labels.shape, dtype=int)
    for fold in range(5):
        roles = split.roles(fold, labels.shape, STUDY.bounds_wsen)
        of_cell = split.fold_of[np.ix_(row, column)]
        assert ((roles == TEST) == (of_cell == fold)).all()
        assert ((roles == TUNE) == (of_cell == (fold + 1) % 5)).all()
        tested += roles == TEST
        held = np.argwhere((roles == TEST) | (roles == TUNE))
        # The nearest training cell to any held-out block: brute force over a thinned set of held cells.
        for r, c in held[:: max(1, len(held) // 150)]:
            top, left = 55 - 2.5 * row[r], 65 + 2.5 * column[c]
            north_south = np.maximum(np.maximum(lat - top, (top - 2.5) - lat), 0)
            east_west = np.maximum(np.maximum(left - lon, lon - (left + 2.5)), 0)
            near = np.hypot(north_south[:, None], east_west[None]) < 0.25 - 1e-9
            assert not (roles[near] == TRAIN).any()
        ignored = np.argwhere(roles == BUFFER)
        assert 0 < len(ignored) < 0.4 * roles.size
    assert (tested <= 1).all()
    # Every bedrock cell is scored in exactly one fold.
    assert (tested[(labels > 0) & (labels < 255)] == 1).all()


def test_the_buffer_is_not_wider_than_given(labels):
    split = BlockSplit(STUDY, np.full((6, 12), -1), 3, 0.25, 0)
    split.fold_of[2, 5] = 0
    roles = split.roles(0, labels.shape, STUDY.bounds_wsen)
    assert np.count_nonzero(roles == TEST) == 25 * 25
    # Cells of 0.1 degrees within 0.25 of the block: two rows and columns on every side (centres at .05 and .15).
    assert np.count_nonzero(roles == BUFFER) == 29 * 29 - 25 * 25
    assert (roles[50:75, 125:150] == TEST).all()


def test_every_class_reaches_training_and_test(split, labels):
    every = set(np.unique(labels[labels > 0]))
    for fold in range(5):
        roles = split.roles(fold, labels.shape, STUDY.bounds_wsen)
        assert set(np.unique(labels[(roles == TRAIN) & (labels > 0)])) == every


def test_folds_are_balanced_better_than_chance(split, labels):
    def imbalance(fold_of):
        cells = np.kron(fold_of, np.ones((25, 25), dtype=int))
        shares = [[(labels[cells == fold] == k).sum() / (labels == k).sum() for k in common] for fold in range(5)]
        return np.square(np.array(shares) - 0.2).sum()

    # A class in one block or two cannot be shared out evenly by anyone.
    common = [k for k in range(1, 11) if (labels == k).sum() > 8 * 15 * 15]
    assert len(common) >= 6

    rng = np.random.default_rng(0)
    chance = [imbalance(rng.integers(0, 5, (6, 12))) for _ in range(30)]
    assert imbalance(split.fold_of) < 0.2 * min(chance)


def test_the_seed_decides(labels):
    bounds = STUDY.bounds_wsen
    again = split_blocks(labels, bounds, STUDY)
    assert (again.fold_of == split_blocks(labels, bounds, STUDY, seed=0).fold_of).all()
    assert (again.fold_of != split_blocks(labels, bounds, STUDY, seed=1).fold_of).any()


def test_a_split_survives_json(split, labels):
    import json

    again = BlockSplit.from_dict(json.loads(json.dumps(split.to_dict())))
    for fold in (0, 4):
        assert (again.roles(fold, (40, 50), STUDY.bounds_wsen) == split.roles(fold, (40, 50), STUDY.bounds_wsen)).all()
    with pytest.raises(OptionError, match="folds 0 to 4"):
        split.roles(5, labels.shape, STUDY.bounds_wsen)


def test_blocks_without_bedrock_are_never_held_out(labels):
    half = labels.copy()
    half[:, 150:] = 0
    split = split_blocks(half, STUDY.bounds_wsen, STUDY)
    assert (split.fold_of[:, 6:] == -1).all()
    assert (split.roles(0, half.shape, STUDY.bounds_wsen)[:, 155:] == TRAIN).all()


def test_a_small_region_gets_smaller_blocks_with_a_note():
    region = Region(80, 43, 88, 48)
    small = np.random.default_rng(0).integers(0, 11, (50, 80)).astype(np.uint8)
    split = split_blocks(small, region.bounds_wsen, region)
    assert split.fold_of.shape == (4, 6)
    assert "1.25deg" in split.notes[0]
    assert all(np.count_nonzero(split.fold_of == fold) >= 2 for fold in range(5))
    text = split_blocks(small, region.bounds_wsen, region, block_deg=2.5)
    assert text.fold_of.shape == (2, 3)
    assert all("Class" in note for note in text.notes)


def test_outside_the_region_nothing_is_learned(split):
    roles = split.roles(0, (200, 400), (60, 35, 100, 55))
    assert (roles[:, :50] == BUFFER).all()
    assert (roles[150:] == BUFFER).all()
    assert (roles[:150, 50:350] != BUFFER).any()


def test_too_few_blocks_or_folds_are_refused(labels):
    bounds = STUDY.bounds_wsen
    for options in ({"folds": 2}, {"block_deg": 0}, {"buffer_deg": -1}):
        with pytest.raises(OptionError):
            split_blocks(labels, bounds, STUDY, **options)
    corner = np.zeros_like(labels)
    corner[:10, :10] = 7
    with pytest.raises(InputError, match=r"blocks of 2\.5deg[\s\S]*--block"):
        split_blocks(corner, bounds, STUDY, block_deg=2.5)


def test_a_class_that_some_fold_cannot_learn_is_named():
    region = Region(0, 0, 12, 1)
    labels = np.full((10, 120), 7, dtype=np.uint8)
    labels[:, :5] = 3  # in one block alone
    split = split_blocks(labels, region.bounds_wsen, region, block_deg=1, folds=4)
    assert split.notes == ("Class 3: so few blocks that a fold has none to learn it from.",)


def test_a_rare_class_is_in_every_fold():
    """A class in two of ten blocks: whatever is held out, some of it must be left to learn from."""
    counts = np.full((10, 2), 50)
    counts[:, 1] = 0
    counts[[0, 1], 1] = 5
    for seed in range(10):
        fold_of = assign_folds(counts, 5, seed)
        first, second = fold_of[0], fold_of[1]
        assert (second - first) % 5 in (2, 3)
