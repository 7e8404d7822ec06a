"""The whole globe: one harmonic of each of several degrees, in both registrations, with ducc0 and without."""

import logging

import numpy as np
import pytest
import scipy.ndimage
import scipy.special

from gravmap.errors import InputError, OptionError
from gravmap.gravity import globe as globe_module
from gravmap.gravity import residual_fields, upward_continue
from gravmap.gravity.globe import (
    _ROWS_BEYOND_POLE,
    MEAN_RADIUS_M,
    _from_cap,
    _spline_across_pole,
    _to_cap,
    globe_registration,
    has_ducc0,
    upward_continue_globe,
)
from gravmap.regions import Region

needs_ducc0 = pytest.mark.skipif(not has_ducc0(), reason="ducc0 is not installed (gravmap[global])")
HEIGHT_M = 60e3


def nodes(registration, step=1.0, start=-180.0):
    if registration == "gridline":
        return np.arange(-90, 90 + step / 2, step), start + np.arange(0, 360 + step / 2, step)
    return np.arange(-90 + step / 2, 90, step), start + np.arange(step / 2, 360, step)


def harmonic(n, m, lat, lon):
    return 100 * scipy.special.sph_harm_y(n, m, np.radians(90 - lat)[:, None], np.radians(lon)[None, :]).real


@pytest.fixture
def without_ducc0(monkeypatch):
    monkeypatch.setattr(globe_module, "has_ducc0", lambda: False)


@needs_ducc0
@pytest.mark.parametrize("registration", ["pixel", "gridline"])
@pytest.mark.parametrize("start", [-180.0, 0.0, 30.0])
@pytest.mark.parametrize(("n", "m"), [(0, 0), (1, 1), (2, 0), (17, 5), (60, 60), (120, 0), (170, 33)])
def test_a_harmonic_decays_as_its_degree(registration, start, n, m):
    lat, lon = nodes(registration, start=start)
    field = harmonic(n, m, lat, lon)
    (got,) = upward_continue_globe(field, lat, lon, [HEIGHT_M])
    expected = field * (MEAN_RADIUS_M / (MEAN_RADIUS_M + HEIGHT_M)) ** (n + 2)
    np.testing.assert_allclose(got, expected, atol=2e-5 * np.abs(field).max())
    assert got.shape == field.shape


@needs_ducc0
def test_several_heights_are_one_height_after_another():
    lat, lon = nodes("pixel", 2.0)
    field = np.random.default_rng(0).normal(size=(lat.size, lon.size))
    both = upward_continue_globe(field, lat, lon, [200e3, 100e3])
    for got, height in zip(both, (200e3, 100e3), strict=True):
        np.testing.assert_array_equal(got, upward_continue_globe(field, lat, lon, [height])[0])
    # From 100 km on, 100 km more.
    (on,) = upward_continue_globe(both[1], lat, lon, [100e3], level_m=100e3)
    np.testing.assert_allclose(on, both[0], atol=1e-5)


@pytest.mark.parametrize("registration", ["pixel", "gridline"])
@pytest.mark.parametrize(("n", "m"), [(0, 0), (3, 1), (40, 0), (40, 38), (60, 2)])
def test_bands_and_caps_on_one_harmonic(without_ducc0, registration, n, m):
    lat, lon = nodes(registration)
    field = harmonic(n, m, lat, lon)
    (got,) = upward_continue_globe(field, lat, lon, [HEIGHT_M])
    # On the ellipsoid the radius of curvature decides, from 6357 km at the equator to 6400 km at the poles.
    factor = [(radius / (radius + HEIGHT_M)) ** (n + 2) for radius in (6.33e6, 6.40e6)]
    bound = 0.5 * (factor[1] - factor[0]) + 2e-3 * (1 - factor[0])
    assert np.abs(got - field * np.mean(factor)).max() < bound * np.abs(field).max()


@needs_ducc0
@pytest.mark.parametrize(("rows", "columns"), [(180, 360), (181, 361), (180, 315)])
def test_bands_are_the_harmonics_to_a_third_of_a_per_cent(monkeypatch, rows, columns):
    """Odd columns too: the far meridian then lies between two."""
    gridline = rows % 2
    lat = np.linspace(-90, 90, rows) if gridline else -90 + 180 / rows * (np.arange(rows) + 0.5)
    lon = np.linspace(-180, 180, columns) if gridline else -180 + 360 / columns * (np.arange(columns) + 0.5)
    rng = np.random.default_rng(1)
    rough = rng.normal(size=(rows, columns))
    rough[:, -1] = rough[:, 0] if gridline else rough[:, -1]
    (field,) = upward_continue_globe(rough, lat, lon, [150e3])  # no wave shorter than the grid can hold
    # As 10 km are to 2 arc-minutes. (At half a node's spacing the caps' splines err by 3 %.)
    (whole,) = upward_continue_globe(field, lat, lon, [300e3])
    monkeypatch.setattr(globe_module, "has_ducc0", lambda: False)
    (bands,) = upward_continue_globe(field, lat, lon, [300e3])
    for part in (np.abs(lat) < 70, np.abs(lat) > 80):
        error, residual = (bands - whole)[part], (field - whole)[part]
        assert np.sqrt(np.mean(error**2)) < 0.0035 * np.sqrt(np.mean(residual**2))


def test_the_cost_of_the_fallback_is_reported(without_ducc0, caplog):
    lat, lon = nodes("pixel", 3.0)
    with caplog.at_level(logging.WARNING, logger="gravmap"):
        upward_continue_globe(harmonic(3, 2, lat, lon), lat, lon, [HEIGHT_M])
    assert "gravmap[global]" in caplog.text
    assert "GPL" in caplog.text
    assert "0.3 %" in caplog.text


def test_the_turned_sphere_turns_back():
    lat, lon = np.array([[90.0], [75.0], [60.0]]), np.array([[-170.0, 0.0, 33.0]])
    there = _from_cap(*_to_cap(lat, lon))
    np.testing.assert_allclose(there[0], np.broadcast_to(lat, (3, 3)), atol=1e-9)
    np.testing.assert_allclose(there[1][1:], np.broadcast_to(lon, (2, 3)), atol=1e-9)


@pytest.mark.parametrize("pole_row", [True, False])
@pytest.mark.parametrize("columns", [72, 71])
def test_rows_continue_beyond_the_pole(pole_row, columns):
    """A plane that slopes along one meridian: across the pole it falls on."""
    lat = np.arange(60, 90.5, 1.0) if pole_row else np.arange(60.5, 90, 1.0)
    lon = 360 / columns * np.arange(columns)
    plane = (90 - lat)[:, None] * np.cos(np.radians(lon))
    spline = _spline_across_pole(plane, pole_row)
    rows, column = 29.0 + np.array([0.0, 0.4, 1.0, 3.3]), 4
    at = [rows, np.full(4, float(column + _ROWS_BEYOND_POLE))]
    got = scipy.ndimage.map_coordinates(spline, at, order=3, prefilter=False)
    np.testing.assert_allclose(got, (90 - lat[0] - rows) * np.cos(np.radians(lon[column])), atol=0.02)


@pytest.mark.parametrize("engine", [pytest.param("ducc0", marks=needs_ducc0), "bands"])
def test_upward_continue_takes_a_globe_as_it_comes(make_grid, engine, monkeypatch):
    if engine == "bands":
        monkeypatch.setattr(globe_module, "has_ducc0", lambda: False)
    lat, lon = nodes("gridline", 2.0, start=0.0)
    grid = make_grid(harmonic(5, 2, lat, lon), lat, lon, long_name="mine", height_m=5e3)
    turned = grid[::-1].transpose("lon", "lat")
    got = upward_continue(turned, HEIGHT_M)
    assert got.dims == turned.dims
    for dim in got.dims:
        assert got[dim].values.tobytes() == turned[dim].values.tobytes()
    assert got.attrs == {"units": "mGal", "long_name": "mine", "height_m": 65e3}
    np.testing.assert_array_equal(got.values[0], got.values[-1])
    # A pole is one place.
    assert np.ptp(got.values[:, 0]) < 1e-3 * float(grid.max())
    expected = turned.values * ((MEAN_RADIUS_M + 5e3) / (MEAN_RADIUS_M + 65e3)) ** 7
    np.testing.assert_allclose(got.values, expected, atol=1e-3 * float(grid.max()))


@pytest.mark.parametrize("registration", ["pixel", "gridline"])
def test_fields_of_the_globe_and_of_a_region_of_it(make_grid, registration):
    lat, lon = nodes(registration, 2.0)
    grid = make_grid(harmonic(9, 4, lat, lon), lat, lon)
    grid[40:43, 50:53] = np.nan
    whole = residual_fields(grid, [20e3, 60e3], method="global", with_bands=True)
    assert list(whole) == [
        *("bouguer", "regional_20km", "residual_20km", "regional_60km", "residual_60km"),
        *("band_20km_60km", "coverage"),
    ]
    assert whole.sizes == {"lat": lat.size, "lon": lon.size}
    assert "edge_note" not in whole.attrs
    assert np.isnan(whole.regional_20km.values).sum() == 9
    # Counted beyond 180, where this globe is not.
    part = residual_fields(grid, [20e3, 60e3], Region(160, 30, 200, 60), method="global")
    same = whole.regional_60km.sel(lat=part.lat, lon=[x if x < 180 else x - 360 for x in part.lon.values])
    np.testing.assert_allclose(part.regional_60km.values, same.values, atol=1e-4)
    assert part.lon.values[-1] == pytest.approx(200, abs=1.1)


def test_what_is_refused(make_grid, truth):
    lat, lon = nodes("pixel", 4.0)
    grid = make_grid(harmonic(3, 2, lat, lon), lat, lon)
    with pytest.raises(OptionError, match="Derivatives"):
        residual_fields(grid, [10e3], method="global", with_derivatives=True)
    with pytest.raises(InputError, match="whole Earth"):
        residual_fields(truth.at(0), [10e3], method="global")
    with pytest.raises(InputError, match="not 360 degrees"):
        globe_registration(lat, lon[:-3])
    with pytest.raises(InputError, match="neither at the poles"):
        globe_registration(lat[1:], lon)


def test_a_zone_all_around_meets_itself(make_grid):
    """Without poles the regional method does it; the first meridian is no edge."""
    lat, lon = nodes("pixel")
    field, around = make_grid(harmonic(30, 30, lat, lon), lat, lon), Region(-180, -50, 180, 50)
    fields = residual_fields(field, [HEIGHT_M], around)
    assert fields.sizes == {"lat": 100, "lon": 360}
    regional = fields.regional_60km.values
    ratio = regional[30:70] / field.sel(lat=fields.lat).values[30:70]
    strong = np.abs(np.cos(np.radians(30 * lon))) > 0.5
    spread = np.ptp(ratio[:, strong], axis=1) / ratio[:, strong].mean(axis=1)
    assert spread.max() < 1e-3
