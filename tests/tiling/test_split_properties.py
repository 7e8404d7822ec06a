"""For any region, blocks, buffer, windows and seed: held-out labels are never training labels."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from gravmap.errors import InputError
from gravmap.regions import Region
from gravmap.tiling.splits import split
from gravmap.tiling.windows import windows


def check_cases(check, examples):
    """Call `check` with so many random cases, the same ones in every run."""
    too_slow = [HealthCheck.too_slow]
    settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=too_slow)(check)()


examples = pytest.mark.parametrize("examples", [6, pytest.param(20, marks=pytest.mark.slow)])


@some.composite
def cases(draw):
    rows, columns = draw(some.integers(20, 50)), draw(some.integers(20, 60))
    cell = draw(some.sampled_from([0.1, 0.125, 1 / 7]))
    west, south = draw(some.floats(-170, 150)), draw(some.floats(-70, 60))
    region = Region(west, south, west + columns * cell, south + rows * cell)
    rng = np.random.default_rng(draw(some.integers(0, 2**16)))
    patches = rng.choice([0, 1, 2, 3, 255], size=(-(-rows // 5), -(-columns // 5)), p=[0.3, 0.3, 0.2, 0.1, 0.1])
    labels = np.kron(patches, np.ones((5, 5), int))[:rows, :columns].astype(np.uint8)
    size = draw(some.floats(0.15, 0.6)) * min(region.width_deg, region.height_deg)
    laid = windows(region, size, size * draw(some.floats(0.4, 1.0)))
    options = {
        "folds": draw(some.integers(3, 6)),
        "block_deg": draw(some.one_of(some.none(), some.floats(0.3, 2.0))),
        "buffer_deg": draw(some.sampled_from([0.0, 0.05, 0.25, 0.4])),
        "seed": draw(some.integers(0, 99)),
    }
    return region, labels, laid, options


def held_out_boxes(drawn, fold):
    """West, south, east, north of the held-out blocks, from the stored figures alone."""
    stored = drawn.to_dict()
    west, _, _, north = stored["region_wsen"]
    height, width = drawn.block_deg
    of_block = np.array(stored["fold_of_block"])
    tuned = (
        np.isin(np.arange(of_block.size), stored["tuning_blocks"][fold]).reshape(of_block.shape)
        if "tuning_blocks" in stored
        else of_block == (fold + 1) % stored["folds"]
    )
    return [
        (west + c * width, north - (r + 1) * height, west + (c + 1) * width, north - r * height)
        for r, c in np.argwhere(tuned | (of_block == fold))
    ]


def check_labels(kind, case):
    region, labels, laid, options = case
    try:
        drawn = split(labels, region.bounds_wsen, laid, kind, region=region, **options)
    except InputError:
        return  # too little bedrock, or no window left: refused, which is right
    rock = (labels > 0) & (labels < 255)
    lat = region.north - (np.arange(labels.shape[0]) + 0.5) * region.height_deg / labels.shape[0]
    lon = region.west + (np.arange(labels.shape[1]) + 0.5) * region.width_deg / labels.shape[1]
    boxes = np.array([window.bounds_wsen for window in laid])
    scored = np.zeros(labels.shape, int)
    for fold in range(drawn.folds):
        roles = drawn.roles(fold, labels.shape, region.bounds_wsen)
        window_roles = drawn.window_roles(fold, boxes)
        assert set(np.unique(roles)) <= {0, 1, 2, 3}
        scored += roles == 2
        for west, south, east, north in held_out_boxes(drawn, fold):
            up = np.maximum(np.maximum(lat - north, south - lat), 0)
            along = np.maximum(np.maximum(west - lon, lon - east), 0)
            near = np.hypot(up[:, None], along[None]) < options["buffer_deg"] - 1e-6
            # A centre on the line between two blocks may belong to either.
            within_lat, within_lon = (
                (lat > south + 1e-6) & (lat < north - 1e-6),
                (lon > west + 1e-6) & (lon < east - 1e-6),
            )
            inside = within_lat[:, None] & within_lon[None]
            assert not (roles[near] == 0).any()
            assert np.isin(roles[inside], (1, 2)).all()
            if kind == "strict":
                kept = boxes[window_roles == 0]
                grown = options["buffer_deg"] - 1e-6
                meets = (
                    (kept[:, 0] < east + grown)
                    & (kept[:, 2] > west - grown)
                    & (kept[:, 1] < north + grown)
                    & (kept[:, 3] > south - grown)
                )
                assert not meets.any()
        if kind == "strict":
            assert (window_roles == 0).any()
    assert (scored[rock] == 1).all()


@pytest.mark.parametrize("kind", ["blocks", "strict"])
@examples
def test_held_out_labels_are_never_training_labels(kind, examples):
    check_cases(given(kind=some.just(kind), case=cases())(check_labels), examples)


@given(case=cases())
def check_windows(case):
    region, labels, laid, options = case
    try:
        drawn = split(
            labels, region.bounds_wsen, laid, "random", folds=options["folds"], seed=options["seed"], region=region
        )
    except InputError:
        return
    roles = np.stack([drawn.window_roles(fold, np.zeros((len(laid), 4))) for fold in range(drawn.folds)])
    effective = (roles != 3).all(axis=0)
    assert (effective == (roles != 3).any(axis=0)).all()
    held_out = ((roles == 1) | (roles == 2))[:, effective]
    assert (held_out.sum(axis=1) == round(0.15 * effective.sum())).all()
    if drawn.folds * held_out.sum(axis=1)[0] <= effective.sum():
        assert held_out.sum(axis=0).max() <= 1


@examples
def test_random_windows_have_one_role_each(examples):
    check_cases(check_windows, examples)
