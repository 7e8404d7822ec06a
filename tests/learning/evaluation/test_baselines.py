import numpy as np
import pytest

from gravmap.errors import InputError
from gravmap.lattice import spacing_yx_km
from gravmap.learning.data import label_diffusion as diffusion
from gravmap.learning.data.outcrop_context import distance_to_outcrop_km
from gravmap.learning.evaluation import baselines

LAT = np.arange(48, 44, -1 / 15)
LON = np.arange(80, 86, 1 / 15)


def sparse_labels(seed=0, fraction=0.05, classes=4):
    rng = np.random.default_rng(seed)
    known = rng.integers(1, classes + 1, (LAT.size, LON.size)).astype(np.uint8)
    return np.where(rng.random(known.shape) < fraction, known, 0).astype(np.uint8)


def test_majority_counts_only_known_nodes():
    known = np.array([[0, 0, 0, 2], [2, 3, 0, 0]], np.uint8)
    assert (baselines.majority(known) == 2).all()


def test_nearest_outcrop_agrees_with_geodesics():
    from pyproj import Geod

    known = sparse_labels()
    found = baselines.nearest_outcrop(known, LAT, LON)
    rows, cols = np.nonzero(known)
    geod = Geod(a=6371000, b=6371000)
    rng = np.random.default_rng(1)
    for row, col in zip(rng.integers(0, LAT.size, 40), rng.integers(0, LON.size, 40), strict=True):
        n = rows.size
        _, _, distance = geod.inv(np.full(n, LON[col]), np.full(n, LAT[row]), LON[cols], LAT[rows])
        nearest = np.flatnonzero(distance <= distance.min() + 1e-6)
        assert found[row, col] in known[rows[nearest], cols[nearest]]
        measured = distance_to_outcrop_km(known, LAT, LON)[row, col]
        assert measured == pytest.approx(distance.min() / 1000, abs=1e-6)


def test_a_degree_of_longitude_is_shorter_than_one_of_latitude():
    lat, lon = np.array([61.0, 60.0, 59.0]), np.array([0.0, 1.0, 2.0])
    known = np.array([[0, 1, 0], [0, 0, 2], [0, 0, 0]], np.uint8)
    assert baselines.nearest_outcrop(known, lat, lon)[1, 1] == 2  # 56 km east against 111 km north


def test_feature_space_finds_a_class_that_gravity_names():
    rng = np.random.default_rng(2)
    truth = np.where(np.add.outer(np.arange(60) // 15, np.arange(90) // 15) % 2, 1, 2).astype(np.uint8)
    field = (truth * 30 + rng.normal(0, 2, truth.shape)).astype(np.float32)[None]
    known = np.where(rng.random(truth.shape) < 0.2, truth, 0).astype(np.uint8)
    found = baselines.nearest_in_feature_space(known, field, (3.7, 2.5))
    assert (found == truth).mean() > 0.95
    blind = baselines.nearest_in_feature_space(known, rng.normal(size=field.shape).astype(np.float32), (3.7, 2.5))
    assert (blind == truth).mean() < 0.7


def test_diffusion_between_two_ends_of_a_line_turns_in_the_middle():
    known = np.zeros((1, 11), np.uint8)
    known[0, 0], known[0, -1] = 3, 7
    found = baselines.label_diffusion(known, (1.0, 1.0))
    assert (found[0, :5] == 3).all()
    assert (found[0, 6:] == 7).all()


def test_diffusion_agrees_with_simulated_random_walks():
    rng = np.random.default_rng(3)
    known = np.zeros((9, 9), np.uint8)
    known[0, :4], known[8, 2:], known[3, 8] = 1, 2, 3
    found = baselines.label_diffusion(known, (1.0, 1.0))
    for start in ((4, 4), (2, 6), (6, 1), (1, 2)):
        hits = np.zeros(4)
        for _ in range(400):
            row, col = start
            while known[row, col] == 0:
                step = rng.integers(4)
                row = min(max(row + (step == 0) - (step == 1), 0), 8)
                col = min(max(col + (step == 2) - (step == 3), 0), 8)
            hits[known[row, col]] += 1
        runner_up, best = np.sort(hits)[-2:]
        if best - runner_up > 60:  # otherwise chance decides
            assert found[start] == hits.argmax()


def test_guided_diffusion_stops_at_a_step_of_gravity():
    known = np.zeros((5, 21), np.uint8)
    known[:, 0], known[:, -1] = 3, 7
    step = np.where(np.arange(21) < 4, 0.0, 30.0)  # far from the middle
    field = np.broadcast_to(step, known.shape).astype(np.float32)[None]
    found = baselines.label_diffusion(known, (1.0, 1.0), field)
    assert (found[:, :4] == 3).all()
    assert (found[:, 4:] == 7).all()
    even = baselines.label_diffusion(known, (1.0, 1.0), np.full_like(field, 5))
    assert (even == baselines.label_diffusion(known, (1.0, 1.0))).all()


def test_guided_diffusion_along_a_line_is_resistors_in_series():
    """Closed form: the potential falls across each link by its resistance, which is one over its weight."""
    rng = np.random.default_rng(5)
    field = np.cumsum(rng.normal(size=40)).astype(np.float32)
    steps = np.diff(field.astype(float))
    resistance = np.exp(diffusion.GUIDE_STRENGTH * steps**2 / (steps**2).mean())
    potential = np.concatenate([[0], np.cumsum(resistance)]) / resistance.sum()
    assert abs(potential - 0.5).min() > 1e-6
    known = np.zeros((1, 40), np.uint8)
    known[0, 0], known[0, -1] = 1, 2
    found = baselines.label_diffusion(known, (4.0, 2.5), field[None, None])
    assert (found[0] == np.where(potential < 0.5, 1, 2)).all()
    # Neither the unit of the field nor the size of the grid matters.
    assert (found == baselines.label_diffusion(known, (8.0, 5.0), 1000 * field[None, None])).all()


def test_guided_diffusion_is_the_dense_solution_on_oblong_cells():
    """Node by node, with numpy alone: two fields, cells longer along latitude."""
    rng = np.random.default_rng(8)
    ny, nx, spacing = 7, 9, (4.0, 1.5)
    fields = np.cumsum(rng.normal(size=(2, ny, nx)), axis=2) * np.array([1.0, 50.0])[:, None, None]
    known = np.zeros((ny, nx), np.uint8)
    known[0, 0], known[6, 8], known[3, 4], known[6, 0] = 1, 2, 3, 2
    links = {}
    for row, column in np.ndindex(ny, nx):
        for down, right, apart in ((1, 0, spacing[0]), (0, 1, spacing[1])):
            if row + down < ny and column + right < nx:
                slope = (fields[:, row + down, column + right] - fields[:, row, column]) / apart
                links[row * nx + column, (row + down) * nx + column + right] = slope**2, apart
    typical = np.mean([slope for slope, _ in links.values()], axis=0)
    matrix = np.zeros((ny * nx, ny * nx))
    for (one, other), (slope, apart) in links.items():
        weight = np.exp(-diffusion.GUIDE_STRENGTH * (slope / typical).mean()) / apart**2
        matrix[[one, other], [other, one]] -= weight
        matrix[[one, other], [one, other]] += weight
    free = known.ravel() == 0
    right = np.stack([-matrix[np.ix_(free, ~free)] @ (known.ravel()[~free] == value) for value in (1, 2, 3)], axis=1)
    fractions = np.linalg.solve(matrix[np.ix_(free, free)], right)
    best = np.sort(fractions, axis=1)
    assert (best[:, 2] - best[:, 1]).min() > 1e-6
    found = baselines.label_diffusion(known, spacing, fields)
    assert (found.ravel()[free] == fractions.argmax(axis=1) + 1).all()


def test_guided_diffusion_agrees_with_scikit_image():
    segmentation = pytest.importorskip("skimage.segmentation")
    rng = np.random.default_rng(6)
    field = np.cumsum(np.cumsum(rng.normal(size=(24, 30)), 0), 1)
    known = np.where(rng.random(field.shape) < 0.05, rng.integers(1, 4, field.shape), 0).astype(np.uint8)
    typical = np.mean(np.concatenate([np.diff(field, axis=0).ravel(), np.diff(field, axis=1).ravel()]) ** 2)
    # Its weights are exp(-beta step^2 / (10 std)) of the data as they are.
    beta = diffusion.GUIDE_STRENGTH / typical * 10 * field.std()
    theirs = segmentation.random_walker(field, known, beta=beta, mode="bf")
    ours = baselines.label_diffusion(known, (1.0, 1.0), field[None])
    assert (ours == theirs).mean() > 0.995


def test_diffusion_keeps_what_is_known():
    known = sparse_labels(seed=4)
    found = baselines.label_diffusion(known, (3.7, 2.5))
    assert (found[known > 0] == known[known > 0]).all()
    assert found.min() >= 1
    full = np.full((3, 3), 2, np.uint8)
    assert (baselines.label_diffusion(full, (1, 1)) == full).all()


def test_null_models_need_outcrop():
    nothing = np.zeros((4, 4), np.uint8)
    with pytest.raises(InputError, match="outcrop"):
        baselines.majority(nothing)
    with pytest.raises(InputError, match="outcrop"):
        baselines.label_diffusion(nothing, (1, 1))


def test_spacing_agrees_with_geodesics():
    from pyproj import Geod

    along_lat, along_lon = spacing_yx_km(LAT, LON)
    geod = Geod(a=6371000, b=6371000)
    middle = LAT.mean()
    assert along_lat == pytest.approx(geod.inv(83, middle, 83, middle + 1 / 15)[2] / 1000, rel=1e-6)
    assert along_lon == pytest.approx(geod.inv(83, middle, 83 + 1 / 15, middle)[2] / 1000, rel=1e-6)
