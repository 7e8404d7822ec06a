"""Upward continuation against closed forms: point masses, a wave that shortens with latitude, two steps for one."""

import logging

import numpy as np
import pytest
import xarray as xr

from gravmap.errors import InputError, OptionError
from gravmap.gravity import upward_continue
from gravmap.gravity.continuation import apply_filter, constant_offset
from gravmap.gravity.patch import UpwardContinuation, weyl_factor_by_differences


@pytest.mark.parametrize("height_m", [2e3, 10e3, 30e3])
def test_point_masses_seen_from_higher_up(truth, relative_error, height_m):
    field, regional = truth.at(0), truth.at(height_m)
    assert relative_error(upward_continue(field, height_m), field, regional) < 0.0014


def test_the_level_of_the_data_counts(truth, relative_error):
    # From 10 to 15 km the same 5 km change a field less than from 0 to 5 km.
    field, regional = truth.at(10e3, height_m=10e3), truth.at(15e3)
    assert relative_error(upward_continue(field, 5e3), field, regional) < 0.0014


def test_pixel_registration_is_the_same(pixel_truth, relative_error):
    field, regional = pixel_truth.at(0), pixel_truth.at(10e3)
    assert relative_error(upward_continue(field, 10e3), field, regional) < 0.0014


def test_five_kilometres_twice_are_ten(truth):
    field = truth.at(0)
    twice = upward_continue(upward_continue(field, 5e3), 5e3)
    once = upward_continue(field, 10e3)
    assert twice.attrs["height_m"] == once.attrs["height_m"] == 10e3
    inner = (slice(30, -30), slice(30, -30))
    scale = np.abs(field.values - once.values).max()
    assert np.abs(twice.values - once.values)[inner].max() < 5e-4 * scale


def test_a_wave_decays_with_its_local_wavenumber():
    # 500 waves around the parallel: 64 km long at 40N, 48 km at 55N.
    lat, lon = np.arange(40, 55, 1 / 15), np.arange(70, 90, 1 / 15)
    m, height_m = 500, 10e3
    window = np.exp(-(((lon - 80) / 4) ** 2))
    wave = window * np.cos(m * np.radians(lon - 80))
    field = xr.DataArray(
        np.broadcast_to(wave, (lat.size, lon.size)).astype("f4"), coords={"lat": lat, "lon": lon}, dims=("lat", "lon")
    )
    got = upward_continue(field, height_m)
    column = np.abs(lon - 80).argmin()
    n = 6_378_137 / np.sqrt(1 - 6.694379990141e-3 * np.sin(np.radians(lat)) ** 2)
    expected = np.exp(-m * height_m / (n * np.cos(np.radians(lat))))
    inner = slice(45, -45)
    np.testing.assert_allclose(got.values[inner, column] / field.values[inner, column], expected[inner], rtol=0.02)


def test_linear(truth):
    one, other = truth.at(0), truth.at(20e3)
    both = upward_continue(2 * one - 3 * other, 10e3)
    # The covariance of the padding is fitted to each field.
    np.testing.assert_allclose(
        both.values, 2 * upward_continue(one, 10e3).values - 3 * upward_continue(other, 10e3).values, atol=2e-2
    )


def test_orientation_dims_and_names_are_the_callers(truth):
    field = truth.at(0, long_name="mine")
    straight = upward_continue(field, 10e3)
    turned = field[::-1, ::-1].transpose("lon", "lat").rename(lat="Latitude", lon="x")
    got = upward_continue(turned, 10e3)
    assert got.dims == ("x", "Latitude")
    for dim in got.dims:
        assert got[dim].values.tobytes() == turned[dim].values.tobytes()
    assert got.attrs["long_name"] == "mine"
    assert got.attrs["units"] == "mGal"
    back = got.rename(Latitude="lat", x="lon").transpose("lat", "lon")[::-1, ::-1]
    np.testing.assert_array_equal(back.values, straight.values)


@pytest.mark.parametrize("shape", [(61, 97), (64, 100)])
def test_prime_sizes(truth, shape, relative_error):
    field, regional = truth.at(0), truth.at(10e3)
    cut = {"lat": slice(60, 60 + shape[0]), "lon": slice(100, 100 + shape[1])}
    got = upward_continue(field.isel(cut), 10e3)
    assert got.shape == shape
    # Nothing is known outside, and the field does not end at the edge.
    assert relative_error(got, field.isel(cut), regional.isel(cut)) < 0.2


def test_holes_are_put_back_and_do_not_spoil_the_rest(truth):
    field, whole = truth.at(0), upward_continue(truth.at(0), 10e3)
    incomplete = field.copy()
    incomplete[100:106, 120:128] = np.nan
    incomplete[0, 0] = np.nan
    got = upward_continue(incomplete, 10e3)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(incomplete))
    known = ~np.isnan(incomplete.values)
    assert np.abs(got.values - whole.values)[known].max() < 0.15
    assert np.sqrt(np.mean((got.values - whole.values)[known] ** 2)) < 3e-3


def test_a_large_offset_is_taken_out_and_put_back(truth, caplog):
    field, plain = truth.at(0), upward_continue(truth.at(0), 10e3)
    with caplog.at_level(logging.WARNING, logger="gravmap"):
        got = upward_continue(field + 1000, 10e3)
    assert "1000" in caplog.text or "999" in caplog.text
    # What is left of an offset at the edge: the mean removed is not exactly the far field.
    np.testing.assert_allclose(got.values - 1000, plain.values, atol=1.0)
    assert constant_offset(field.values) == 0


@pytest.mark.parametrize("height_m", [0.0, -5e3, float("nan"), 2e6])
def test_invalid_heights_are_refused(truth, height_m):
    with pytest.raises(OptionError, match="height"):
        upward_continue(truth.at(0), height_m)


def test_downward_is_refused_with_the_reason(truth):
    with pytest.raises(OptionError, match="noise"):
        upward_continue(truth.at(0), -1e3)


def test_poles_are_refused(make_grid):
    lat, lon = np.arange(70, 89, 0.5), np.arange(0, 30, 0.5)
    with pytest.raises(InputError, match="80"):
        upward_continue(make_grid(np.random.default_rng(0).normal(size=(lat.size, lon.size)), lat, lon), 1e3)


def test_all_nan_is_refused(make_grid):
    lat, lon = np.arange(40, 50, 0.5), np.arange(0, 30, 0.5)
    with pytest.raises(InputError, match="NaN"):
        upward_continue(make_grid(np.full((lat.size, lon.size), np.nan), lat, lon), 1e3)


def test_the_transfer_function_one_changes_nothing(truth):
    field = truth.at(0)
    got = apply_filter(field.values, truth.lat, truth.lon, lambda q, radius: np.ones_like(q))
    np.testing.assert_allclose(got, field.values, atol=1e-3)


def test_a_transfer_function_gets_the_physical_wavenumber(truth, relative_error):
    field, regional = truth.at(0), truth.at(10e3)
    got = apply_filter(field.values, truth.lat, truth.lon, lambda q, radius: np.exp(-q / radius * 10e3))
    assert relative_error(field.copy(data=got), field, regional) < 0.03


def test_the_vertical_derivative_of_a_point_mass(truth):
    # d/d(up) has the symbol -(q + 3/2)/R; g of a mass below weakens upwards.
    above, below = truth.at(5_100.0), truth.at(4_900.0)
    expected = (above.values.astype(float) - below.values) / 200
    got = apply_filter(truth.at(5e3).values, truth.lat, truth.lon, lambda q, radius: -(q + 1.5) / radius, height_m=5e3)
    inner = (slice(20, -20), slice(20, -20))
    error = np.sqrt(np.mean((got - expected)[inner] ** 2)) / np.sqrt(np.mean(expected[inner] ** 2))
    assert error < 0.01
    dense = np.unravel_index(np.argmax(truth.at(5e3).values), got.shape)
    assert got[dense] < 0


def test_the_closed_form_of_the_correction_is_what_differences_give():
    q, radius, transfer_function = np.array([3.0, 40.0, 500.0, 3000.0]), 6.37e6, UpwardContinuation(10e3)
    np.testing.assert_allclose(
        transfer_function.weyl_factor(q, radius),
        weyl_factor_by_differences(transfer_function, q, radius),
        rtol=1e-4,
    )


def test_a_mean_that_an_anomaly_can_have_is_signal(truth):
    """Tibet is smooth around -500 mGal, an ocean around +400: neither is an offset."""
    smooth = truth.at(30e3).values
    assert abs(smooth.mean() + 500) > 4 * smooth.std()
    assert constant_offset(smooth - 500) == constant_offset(smooth + 400) == 0
    assert constant_offset(smooth + 1000) == pytest.approx(smooth.mean() + 1000)
