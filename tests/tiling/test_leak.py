import numpy as np
import pytest
from pyproj import Geod

from gravmap.errors import InputError
from gravmap.geology.areas import row_cell_areas_km2
from gravmap.tiling import leak_report, load_arrays, make_tiles
from gravmap.tiling.leak import measure, nearest_pair_km

BOUNDS = (80.0, 44.0, 91.0, 55.0)
GEOD = Geod(ellps="WGS84")


@pytest.fixture(scope="module")
def tiles(sources):
    folder = sources / "leaking"
    make_tiles(sources / "fields.nc", sources / "labels.tif", folder, sizes_deg=[1, 2], index_only=True)
    return folder


def brute_km(one, other, bounds):
    west, south, east, north = bounds
    lat = north - (np.arange(one.shape[0]) + 0.5) * (north - south) / one.shape[0]
    lon = west + (np.arange(one.shape[1]) + 0.5) * (east - west) / one.shape[1]
    (a, b), (c, d) = (np.nonzero(mask) for mask in (one, other))
    i, k = np.meshgrid(np.arange(len(a)), np.arange(len(c)), indexing="ij")
    i, k = i.ravel(), k.ravel()
    return GEOD.inv(lon[b[i]], lat[a[i]], lon[d[k]], lat[c[k]])[2].min() / 1000


@pytest.mark.parametrize("seed", range(4))
def test_the_nearest_pair_is_that_of_every_pair(seed):
    """Against every geodesic by pyproj: far north, where a degree of longitude is a third of one of latitude."""
    rng = np.random.default_rng(seed)
    bounds = (80, 65, 95, 75)
    one, other = np.zeros((40, 60), bool), np.zeros((40, 60), bool)
    row, column = rng.integers(0, 12, 2)
    one[row : row + 9, column : column + 9] = True
    row, column = rng.integers(22, 30), rng.integers(25, 50)
    other[row : row + 8, column : column + 9] = True
    assert nearest_pair_km(one, other, bounds) == pytest.approx(brute_km(one, other, bounds), rel=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_the_nearest_pair_is_nearest_on_the_ellipsoid(seed):
    """Few cells: which pair is nearest hangs on how long a degree is each way."""
    cells = np.random.default_rng(seed).random((40, 60))
    one, other = cells < 0.004, cells > 0.996
    bounds = (80, 65, 95, 75)
    assert nearest_pair_km(one, other, bounds) == pytest.approx(brute_km(one, other, bounds), rel=1e-9)


def test_sets_that_meet_or_are_empty():
    one = np.ones((3, 3), bool)
    assert nearest_pair_km(one, one, (0, 0, 1, 1)) == 0
    assert nearest_pair_km(one, ~one, (0, 0, 1, 1)) is None


def areas_by_value_km2(values, bounds):
    west, south, east, north = bounds
    rows, columns = values.shape
    cell_km2 = np.repeat(row_cell_areas_km2(south, north, rows, (east - west) / columns), columns)
    return np.bincount(values.ravel(), weights=cell_km2, minlength=256)


def test_the_leak_against_painting():
    """Windows painted on a fine raster, areas of cells: each place once, cover not counted."""
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 10, (12, 2)) * 0.5 + (80, 44)
    boxes = np.column_stack([corners, np.minimum(corners + rng.integers(1, 6, (12, 1)) * 0.5, (91, 55))])
    labels = rng.integers(0, 4, (44, 44)).astype(np.uint8)
    painted = np.zeros((2, 44, 44), dtype=bool)
    for kind, chosen in ((0, boxes[:4]), (1, boxes[4:])):
        for west, south, east, north in np.round((chosen - (80, 44, 80, 44)) * 4).astype(int):
            painted[kind, 44 - north : 44 - south, west:east] = True
    held, seen = painted[0] & (labels > 0), painted[0] & painted[1] & (labels > 0)
    areas = areas_by_value_km2(held.astype(np.uint8) + seen, BOUNDS)
    roles = np.array([2] * 4 + [0] * 8, np.uint8)
    (fold,) = measure(labels, BOUNDS, boxes, [np.zeros((44, 44), np.uint8)], [roles], 3)
    assert fold.leak == pytest.approx(areas[2] / (areas[1] + areas[2]))
    assert fold.held_out_km2 == pytest.approx(areas[1] + areas[2])
    assert 0 < fold.leak < 1
    assert fold.distance_km == 0
    per_class = areas_by_value_km2(np.where(painted[0], labels, 0).astype(np.uint8), BOUNDS)
    assert fold.class_km2["test"] == pytest.approx([per_class[k] for k in (1, 2, 3)], abs=1e-3)


def test_a_leak_is_found_however_it_was_made():
    """Roles of no split of ours: an island of forgotten training cells inside a held-out block."""
    labels = np.ones((44, 44), np.uint8)
    role = np.zeros((44, 44), np.uint8)
    role[:, 20:30] = 2
    boxes = np.array([BOUNDS])
    (clean,) = measure(labels, BOUNDS, boxes, [role], [np.zeros(1, np.uint8)], 1)
    assert clean.leak == 0
    assert clean.distance_km == pytest.approx(brute_km(role == 0, role == 2, BOUNDS), rel=1e-9)
    # The same ground held out by a window whose labels are all open.
    inner = np.array([BOUNDS, [85.0, 44, 87.5, 55]])
    (open_,) = measure(labels, BOUNDS, inner, [np.zeros_like(role)], [np.array([0, 2], np.uint8)], 1)
    assert open_.leak == 1
    assert open_.distance_km == 0


def test_arrays_and_folder_have_the_same_leak(tiles):
    for name in ("blocks", "strict", "random"):
        whole = leak_report(tiles, name)
        for fold in (0, 3):
            (one,) = leak_report(load_arrays(tiles, split=name, fold=fold)).folds
            other = whole.folds[fold]
            assert (one.fold, one.leak, one.class_km2) == (fold, pytest.approx(other.leak), other.class_km2)
            assert one.gravity_seen == pytest.approx(other.gravity_seen)
            assert one.distance_km == other.distance_km
            assert one.windows["train"] == other.windows["train"]


def test_what_the_three_splits_leak(tiles):
    blocks, strict, random = (leak_report(tiles, name) for name in ("blocks", "strict", "random"))
    assert (blocks.leak, strict.leak) == (0, 0)
    assert random.leak > 0.5
    assert all(fold.gravity_seen == 0 for fold in strict.folds)
    assert all(fold.gravity_seen > 0.5 for fold in blocks.folds)
    for report in (blocks, strict):
        for fold in report.folds:
            # A quarter of a degree of longitude is shortest in the north: 48 N.
            assert fold.distance_km > 0.25 * GEOD.inv(80, 48, 81, 48)[2] / 1000
    labels = load_arrays(tiles)["labels"]
    every = areas_by_value_km2(labels, (80, 43, 88, 48))
    for report in (blocks, strict):
        scored = np.sum([fold.class_km2["test"] for fold in report.folds], axis=0)
        assert scored == pytest.approx(every[1:11], abs=0.1)


def test_the_index_keeps_what_was_measured(tiles):
    from gravmap.tiling.training_arrays import read_index

    for stored in read_index(tiles)["splits"]:
        report = leak_report(tiles, stored["name"], distances=False)
        assert stored["leak"] == report.leak
        assert stored["training_windows"] == [fold.windows["train"] for fold in report.folds]


def test_a_split_that_is_not_there(tiles):
    with pytest.raises(InputError, match="no split 'mine'"):
        leak_report(tiles, "mine")
