"""Low degrees of a globe, against scipy's spherical harmonics."""

import numpy as np
import pytest
import scipy.special

from gravmap.gravity.long_wavelength import LongWavelengthField, _taper, is_global, legendre


def harmonic(n, m, lat, lon):
    """Real part of the orthonormal harmonic of degree n and order m."""
    return scipy.special.sph_harm_y(n, m, np.radians(90 - lat)[:, None], np.radians(lon)[None, :]).real


def globe(make_grid, n, m, registration, step=1.0, start=-180.0):
    if registration == "gridline":
        lat, lon = np.arange(-90, 90 + step / 2, step), start + np.arange(0, 360 + step / 2, step)
    else:
        lat, lon = np.arange(-90 + step / 2, 90, step), start + np.arange(step / 2, 360, step)
    return make_grid(100 * harmonic(n, m, lat, lon), lat, lon)


@pytest.mark.parametrize(("n", "m"), [(0, 0), (3, 0), (10, 7), (60, 60), (90, 31)])
def test_legendre_is_scipys(n, m):
    lat = np.array([-80.0, -33.0, 0.0, 45.5, 89.0])
    ours = list(legendre(lat, 90))[n][:, m]
    # scipy's are orthonormal over the sphere (1/(4π)) and carry the Condon-Shortley sign.
    theirs = harmonic(n, m, lat, np.zeros(1))[:, 0] * np.sqrt(4 * np.pi) * (-1) ** m
    np.testing.assert_allclose(ours, theirs, atol=1e-10)


@pytest.mark.parametrize("registration", ["gridline", "pixel"])
@pytest.mark.parametrize(("n", "m"), [(0, 0), (2, 1), (7, 4), (20, 20), (25, 3)])
@pytest.mark.parametrize("start", [-180.0, 0.0])
def test_a_harmonic_is_found_again_and_decays(make_grid, registration, n, m, start):
    world = globe(make_grid, n, m, registration, start=start)
    assert is_global(world)
    low = LongWavelengthField(world)
    lat, lon = np.arange(40, 55, 0.7), np.arange(65, 95, 0.9)
    truth = 100 * harmonic(n, m, lat, lon)
    scale = np.abs(world.values).max()
    np.testing.assert_allclose(low.field(lat, lon, 0.0), truth, atol=0.01 * scale)
    above = low.field(lat, lon, 50e3)
    radius = 6.3781e6  # of curvature, near 47 N: within 0.2 %
    np.testing.assert_allclose(
        above, low.field(lat, lon, 0.0) * (radius / (radius + 50e3)) ** (n + 2), atol=2e-4 * scale
    )


def test_the_level_of_the_globe_counts(make_grid):
    world = globe(make_grid, 20, 9, "pixel")
    raised = world.copy()
    raised.attrs = {**world.attrs, "height_m": 30e3}
    lat, lon = np.arange(40, 50.0), np.arange(65, 75.0)
    np.testing.assert_allclose(
        LongWavelengthField(raised).field(lat, lon, 30e3), LongWavelengthField(world).field(lat, lon, 0), atol=1e-4
    )
    assert (
        np.abs(LongWavelengthField(raised).field(lat, lon, 0)).max()
        > np.abs(LongWavelengthField(raised).field(lat, lon, 30e3)).max()
    )


def test_the_taper_ends_at_nothing():
    assert _taper(0, 180) == _taper(60, 180) == 1
    assert _taper(180, 180) == pytest.approx(0)


def test_a_regional_grid_is_not_global(make_grid, truth):
    assert not is_global(truth.at(0))
    world = globe(make_grid, 3, 1, "gridline")
    assert not is_global(world[:-10])
    assert not is_global(world[:, :-10])
