"""The padding: continuous where the edges meet, and the grid itself is unchanged."""

import numpy as np
import pytest

from gravmap.gravity.patch import pad_periodic


@pytest.fixture
def slope():
    y, x = np.mgrid[0:40, 0:60]
    return (3 * y + 2 * x + 20 * np.sin(x / 9) * np.cos(y / 7)).astype(np.float32)


def test_the_grid_itself_is_untouched(slope):
    padded = pad_periodic(slope, (30, 41), (3700.0, 2600.0), 400e3)
    assert padded.shape == (70, 101)
    assert padded.dtype == np.float32
    np.testing.assert_array_equal(padded[:40, :60], slope)


@pytest.mark.parametrize("axis", [0, 1])
def test_it_leaves_with_the_value_and_slope_of_the_edge(slope, axis):
    padded = np.moveaxis(pad_periodic(slope, (60, 60), (3700.0, 3700.0), 400e3), axis, 0).astype(float)
    n = slope.shape[axis]
    inside = np.moveaxis(slope, axis, 0).astype(float)
    columns = slice(5, inside.shape[1] - 5)
    # One cell out, on both sides of the wrap: about the straight continuation of the last two cells.
    for edge, before, after in ((inside[-1], inside[-2], padded[n]), (inside[0], inside[1], padded[-1])):
        np.testing.assert_allclose(after[columns], (2 * edge - before)[columns], atol=1.5)


def test_it_dies_out_in_a_wide_gap(slope):
    padded = pad_periodic(slope, (400, 0), (10e3, 10e3), 200e3)
    middle = padded[40 + 190 : 40 + 210]
    assert np.abs(middle).max() < 0.02 * np.abs(slope).max()


def test_short_modes_die_first():
    x = np.arange(120)
    edge_long, edge_short = np.cos(np.pi * (x + 0.5) * 2 / 120), np.cos(np.pi * (x + 0.5) * 40 / 120)
    reach = []
    for edge in (edge_long, edge_short):
        padded = pad_periodic(np.tile(edge, (40, 1)), (100, 0), (4e3, 4e3), 400e3)
        reach.append(np.abs(padded[40 + 20]).max())
    assert reach[0] > 0.5
    assert reach[1] < 0.02


def test_zero_padding_changes_nothing(slope):
    np.testing.assert_array_equal(pad_periodic(slope, (0, 0), (1e3, 1e3), 1e5), slope)
