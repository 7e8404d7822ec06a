"""Padding: the grid is unchanged, the prediction is the best linear one, and coarse cells reach far beyond it."""

import numpy as np
import pytest
from scipy.special import kv

from gravmap.gravity import upward_continue
from gravmap.gravity.padding import Covariance, _prediction_weights, far_field, fit_covariance, pad_periodic
from gravmap.gravity.patch import CORRELATION_M, Patch

ROUGH = Covariance(0.5, 0.0, 400e3)
SMOOTH = Covariance(0.5, 16e3, 400e3)


@pytest.fixture
def slope():
    y, x = np.mgrid[0:40, 0:60]
    return (3 * y + 2 * x + 20 * np.sin(x / 9) * np.cos(y / 7)).astype(np.float32)


def test_the_grid_itself_is_untouched(slope):
    padded = pad_periodic(slope, (30, 41), (3700.0, 2600.0), ROUGH)
    assert padded.shape == (70, 101)
    assert padded.dtype == np.float32
    np.testing.assert_array_equal(padded[:40, :60], slope)


@pytest.mark.parametrize("axis", [0, 1])
def test_it_leaves_with_the_value_and_slope_of_the_edge(slope, axis):
    padded = np.moveaxis(pad_periodic(slope, (60, 60), (3700.0, 3700.0), SMOOTH), axis, 0).astype(float)
    n = slope.shape[axis]
    inside = np.moveaxis(slope, axis, 0).astype(float)
    columns = slice(5, inside.shape[1] - 5)
    # One cell out, on both sides of the wrap: about the straight continuation of the last two cells.
    for edge, before, after in ((inside[-1], inside[-2], padded[n]), (inside[0], inside[1], padded[-1])):
        np.testing.assert_allclose(after[columns], (2 * edge - before)[columns], atol=1.5)


def test_it_dies_out_in_a_wide_gap(slope):
    padded = pad_periodic(slope, (400, 0), (10e3, 10e3), Covariance(0.5, 0.0, 200e3))
    middle = padded[40 + 190 : 40 + 210]
    assert np.abs(middle).max() < 0.02 * np.abs(slope).max()


def test_short_modes_die_first():
    x = np.arange(120)
    edge_long, edge_short = np.cos(np.pi * (x + 0.5) * 2 / 120), np.cos(np.pi * (x + 0.5) * 40 / 120)
    reach = []
    for edge in (edge_long, edge_short):
        padded = pad_periodic(np.tile(edge, (40, 1)), (100, 0), (4e3, 4e3), ROUGH)
        reach.append(np.abs(padded[40 + 10]).max())
    assert reach[0] > 0.5
    assert reach[1] < 0.02


@pytest.mark.parametrize("smoothness", [0.0, 0.5, 1.0])
def test_the_prediction_is_the_best_linear_one(smoothness):
    """No other weights err less on realisations of the model, computed here by a Cholesky factor in one dimension."""
    past, reach = np.array([0, 1, 2, 4, 8, 16]), 6
    covariance = Covariance(smoothness, 6e3, 400e3)
    weights = _prediction_weights(covariance, np.array([0.05 / 4e3]), past, reach, 4e3)[0]
    nodes = np.arange(-16, reach + 1)
    x = 0.05 * np.hypot(nodes[:, None] - nodes, 1.5)
    matrix = x ** (smoothness + 0.5) * kv(smoothness + 0.5, x)
    factor = np.linalg.cholesky(matrix + 1e-7 * matrix[0, 0] * np.eye(nodes.size))
    drawn = factor @ np.random.default_rng(0).normal(size=(nodes.size, 20_000))
    known, beyond = drawn[16 - past], drawn[17:]
    best = np.linalg.lstsq(known.T, beyond.T, rcond=None)[0].T
    error, least = (np.mean((beyond - each @ known) ** 2, axis=1) for each in (weights, best))
    assert (error < 1.01 * least).all()
    nearest = np.zeros_like(weights)
    nearest[:, 0] = 1.0
    assert (error < 0.95 * np.mean((beyond - nearest @ known) ** 2, axis=1)).all()


def random_field(smoothness, smoothing_nodes):
    """Of the power spectrum that the covariance has: k^(-2 smoothness - 2), the shortest waves damped."""
    k = 2 * np.pi * np.hypot(np.fft.fftfreq(1024)[:, None], np.fft.rfftfreq(1024))
    k[0, 0] = np.inf
    amplitude = k ** (-smoothness - 1) * np.exp(-0.5 * smoothing_nodes * k)
    noise = np.fft.rfft2(np.random.default_rng(0).normal(size=(1024, 1024)))
    return np.fft.irfft2(noise * amplitude)[:200, :300]


@pytest.mark.parametrize("smoothing_nodes", [2, 5])
@pytest.mark.parametrize("smoothness", [0.0, 0.5, 1.0])
def test_the_covariance_is_that_of_the_field(smoothness, smoothing_nodes):
    fitted = fit_covariance(random_field(smoothness, smoothing_nodes), (4e3, 4e3), 800e3)
    assert fitted.smoothness == smoothness
    assert fitted.smoothing_m == pytest.approx(4e3 * smoothing_nodes, rel=0.7)
    assert fitted.length_m == (2400e3 if smoothness == 1 else 800e3)


@pytest.mark.parametrize("field", [np.ones((30, 30)), np.eye(3), np.zeros((1, 50))])
def test_a_field_without_a_variogram_has_the_usual_covariance(field):
    assert fit_covariance(field, (1e3, 1e3), 800e3) == Covariance(0.5, 0.0, 800e3)


def test_coarse_cells_do_what_wide_padding_would(point_masses):
    """Two degrees in, coarse cells do as 2000 km of fine padding on each side; the usual padding alone does not."""
    rng = np.random.default_rng(3)
    depth = np.exp(rng.uniform(np.log(20), np.log(200), 200)) * 1e3
    masses = list(zip(rng.uniform(60, 100, 200), rng.uniform(30, 65, 200), depth, rng.normal(0, 30, 200), strict=True))
    lat, lon = np.arange(43, 51, 0.2), np.arange(74, 86, 0.2)
    field = point_masses(masses, lat, lon, 0.0).values
    wide = Patch(field, lat, lon, pad_yx=(360, 500)).upward(40e3)
    coarse = Patch(field, lat, lon).upward(40e3)
    narrow = Patch(field, lat, lon, pad_yx=(33, 49)).upward(40e3)
    inner = (slice(10, -10), slice(10, -10))
    scale = np.sqrt(np.mean((field - wide)[inner] ** 2))
    from_coarse, from_narrow = (np.sqrt(np.mean((each - wide)[inner] ** 2)) for each in (coarse, narrow))
    assert from_coarse < 0.02 * scale
    assert from_coarse < 0.7 * from_narrow


def test_the_far_field_is_zero_on_the_grid_itself():
    field = np.random.default_rng(1).normal(size=(60, 80)).cumsum(axis=0).cumsum(axis=1)
    covariance = fit_covariance(field, (4e3, 3e3), CORRELATION_M)
    padded = pad_periodic(field, (60, 64), (4e3, 3e3), covariance)
    far = far_field(padded, field.shape, (4e3, 3e3), covariance, 1000e3)
    rows, columns = (slice(2, 2 + count) for count in far.shape)
    assert np.abs(far.values[rows, columns]).max() == 0
    assert np.abs(far.values).max() > 0.1 * np.abs(field).max()
    assert far.centres(0)[2] == pytest.approx(far.cell_yx[0] / 2 - 0.5)


@pytest.mark.parametrize("height_m", [10e3, 40e3])
def test_a_field_of_shallow_sources_that_the_edge_cuts(point_masses, relative_error, height_m):
    """The edges of a rough field have steep slopes, which end at once: followed outwards they gave 15 and 26 %."""
    rng = np.random.default_rng(1)
    depth = np.exp(rng.uniform(np.log(6), np.log(20), 1200)) * 1e3
    box = rng.uniform(70, 86, 1200), rng.uniform(40, 53, 1200)
    masses = list(zip(*box, depth, rng.normal(0, 20, 1200), strict=True))
    lat, lon = np.arange(43, 50, 1 / 12), np.arange(73, 83, 1 / 12)
    field, above = (point_masses(masses, lat, lon, height) for height in (0.0, height_m))
    got = upward_continue(field, height_m)
    assert relative_error(got, field, above) < 0.09
    inner = {"lat": slice(24, -24), "lon": slice(24, -24)}
    assert relative_error(got.isel(inner), field.isel(inner), above.isel(inner)) < 0.02


def test_zero_padding_changes_nothing(slope):
    np.testing.assert_array_equal(pad_periodic(slope, (0, 0), (1e3, 1e3), ROUGH), slope)
