"""Axes of any name and order; coordinates that float32 has rounded; spacing that is not even."""

import numpy as np
import pytest
import xarray as xr

from gravmap.errors import InputError
from gravmap.gravity.axes import check_even_spacing, find_axes, snap_coordinates


def grid(lat, lon, dims=("lat", "lon"), attrs=({}, {})):
    values = np.zeros((len(lat), len(lon)), dtype=np.float32)
    coords = {dim: (dim, nodes, a) for dim, nodes, a in zip(dims, (lat, lon), attrs, strict=True)}
    return xr.DataArray(values, coords=coords, dims=dims)


LAT, LON = np.arange(40, 50.0), np.arange(65, 95.0)


@pytest.mark.parametrize(
    ("dims", "attrs"),
    [
        (("lat", "lon"), ({}, {})),
        (("Latitude", "Longitude"), ({}, {})),
        (("y", "x"), ({}, {})),
        (("rows", "cols"), ({"units": "degrees_north"}, {"units": "degrees_east"})),
        (("a", "b"), ({"standard_name": "latitude"}, {"standard_name": "longitude"})),
    ],
)
def test_names_and_attributes(dims, attrs):
    found = grid(LAT, LON, dims, attrs)
    assert find_axes(found) == dims
    assert find_axes(found.transpose()) == dims


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (grid(np.arange(65, 95.0), np.arange(40, 50.0)), "swapped"),
        (grid(np.arange(0, 4e5, 1e4), np.arange(0, 4e5, 1e4), ("y", "x")), "projected"),
        (grid(LAT, LON, ("u", "v")), "which one is latitude"),
        (grid(LAT, np.arange(0, 800.0, 10)), "more than 360 degrees"),
        (xr.DataArray(np.zeros((5, 5)), dims=("lat", "lon")), "no coordinates"),
        (xr.DataArray(np.zeros((2, 5, 5)), dims=("t", "lat", "lon")), "3 dimensions"),
    ],
)
def test_what_is_refused(wrong, words):
    with pytest.raises(InputError, match=words):
        find_axes(wrong)


def test_uneven_spacing_is_refused_with_place_and_amount():
    axis = np.arange(40, 50, 0.5)
    axis[7:] += 0.1
    with pytest.raises(InputError, match=r"step is 0.5 but 0.6 from 43 to 43.6 \(node 6\)"):
        check_even_spacing(axis, "The grid, axis 'lat'")


def test_float32_rounding_is_accepted_as_even_spacing():
    axis = (np.arange(10801) / 30 - 180).astype(np.float32)
    check_even_spacing(axis.astype(float), "x", stored_as_float32=True)
    with pytest.raises(InputError):
        check_even_spacing(axis.astype(float), "x")


@pytest.mark.parametrize(
    ("step_arcsec", "first", "count"),
    [
        (120, -180, 10801),
        (120, -180 + 1 / 60, 10800),
        (900, 62, 145),
        (60, 65, 901),
        (15, 81, 2641),
        (450, -10.0625, 99),
    ],
)
def test_coordinates_are_put_back_on_their_step(step_arcsec, first, count):
    # In arc-seconds everything is a whole number (or a half), so the right answer is rounded once only.
    exact = (round(first * 7200) / 2 + step_arcsec * np.arange(count)) / 3600
    back = snap_coordinates(exact.astype(np.float32))
    np.testing.assert_allclose(back, exact, rtol=0, atol=1e-13)


def test_a_step_that_is_not_round_stays_within_float32():
    axis = (7.123456 + 0.0271828 * np.arange(500)).astype(np.float32)
    back = snap_coordinates(axis)
    assert np.abs(back - axis).max() < 2e-6
    assert np.ptp(np.diff(back)) < 1e-12
