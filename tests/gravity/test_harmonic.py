"""What must hold of any continued field: Laplace's equation, the decay of every degree, the caller's coordinates."""

import numpy as np
import pytest
import xarray as xr

from gravmap.gravity import upward_continue
from gravmap.gravity.patch import Patch, curvature_radii_m

RADIUS_M = 6_371_000.0


def sphere(lat_deg):
    return np.full(np.shape(lat_deg), RADIUS_M), np.full(np.shape(lat_deg), RADIUS_M)


def crests(n, lat_deg, lon_deg):
    """Harmonics of degree n in closed form: Re (x·u + i x·v)^n, u and v orthonormal, a wave along a great circle."""
    lat, lon = np.radians(lat_deg)[:, None], np.radians(lon_deg)[None, :]
    x = np.stack(np.broadcast_arrays(np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)), axis=-1)
    total = 0.0
    for place_lat, place_lon, azimuth in ((46, 76, 20), (49, 82, 75), (47, 84, 130)):
        f, g, a = np.radians(place_lat), np.radians(place_lon), np.radians(azimuth)
        u = np.array([np.cos(f) * np.cos(g), np.cos(f) * np.sin(g), np.sin(f)])
        north = np.array([-np.sin(f) * np.cos(g), -np.sin(f) * np.sin(g), np.cos(f)])
        east = np.array([-np.sin(g), np.cos(g), 0.0])
        total = total + ((x @ u + 1j * (x @ (np.cos(a) * north + np.sin(a) * east))) ** n).real
    return 50 * total


@pytest.mark.parametrize("n", [120, 250, 500, 1000, 2000])
@pytest.mark.parametrize("height_m", [5e3, 20e3])
def test_one_harmonic_decays_as_its_degree(n, height_m):
    """On the sphere, where harmonics live; away from the edges, beyond which nothing is known."""
    lat, lon = np.arange(38, 58, 1 / 15), np.arange(65, 95, 1 / 15)
    field = crests(n, lat, lon)
    rows, columns = slice(75, -75), slice(75, -75)
    patch = Patch(field, lat, lon, out_rows=rows, out_cols=columns, radii=sphere)
    expected = field[rows, columns] * (RADIUS_M / (RADIUS_M + height_m)) ** (n + 2)
    lost = field[rows, columns] - expected
    error = patch.upward(height_m) - expected
    # The longer the wave, the more of it the patch must guess: found 1.3, 0.7, 0.26, 0.09 and 0.03 % at 20 km.
    allowed = {120: 0.018, 250: 0.009, 500: 0.0035, 1000: 0.0013, 2000: 0.0005}[n]
    assert np.sqrt(np.mean(error**2)) < allowed * np.sqrt(np.mean(lost**2))


def test_the_continued_field_is_harmonic(truth):
    """r g obeys Laplace's equation: differences over three heights and between neighbours cancel."""
    field, levels, step_m = truth.at(0), (9e3, 10e3, 11e3), 1e3
    raised = {height: upward_continue(field, height).values.astype(np.float64) for height in levels}
    lat, lon = np.radians(truth.lat)[:, None], np.radians(truth.lon)
    meridian, vertical = (radius[:, None] + levels[1] for radius in curvature_radii_m(truth.lat))
    mean = np.sqrt(meridian * vertical)
    under, at, over = (raised[height] * (mean - levels[1] + height) for height in levels)
    radial = (over - 2 * at + under) / step_m**2 + 2 / mean * (over - under) / (2 * step_m)
    d_lat, d_lon = lat[1, 0] - lat[0, 0], lon[1] - lon[0]
    between = np.cos(0.5 * (lat[1:] + lat[:-1]))
    along = (between[1:] * (at[2:] - at[1:-1]) - between[:-1] * (at[1:-1] - at[:-2])) / d_lat**2
    north = along[:, 1:-1] / (np.cos(lat[1:-1]) * meridian[1:-1] ** 2)
    across = (at[:, 2:] - 2 * at[:, 1:-1] + at[:, :-2])[1:-1] / d_lon**2
    east = across / (vertical * np.cos(lat))[1:-1] ** 2
    inner = (slice(30, -30), slice(30, -30))
    total, part = (radial[1:-1, 1:-1] + north + east)[inner], radial[1:-1, 1:-1][inner]
    # Neighbours are 7 km apart under waves of 60 km and more: their differences are good to 2 %.
    assert np.sqrt(np.mean(total**2)) < 0.025 * np.sqrt(np.mean(part**2))
    # Detects any field that does not decay upward as it must.
    assert np.sqrt(np.mean(((radial[1:-1, 1:-1] * 1.1) + north + east)[inner] ** 2)) > 0.08 * np.sqrt(np.mean(part**2))


def test_a_buried_sphere(point_masses, relative_error):
    """A sphere of 5 km radius, 600 kg/m3 denser, 18 km deep draws as its mass at its centre."""
    depth, radius, contrast = 18e3, 5e3, 600.0
    peak = 6.6743e-11 * 4 / 3 * np.pi * radius**3 * contrast / depth**2 * 1e5
    assert peak == pytest.approx(6.47, abs=0.01)
    lat, lon = np.arange(44, 50, 1 / 30), np.arange(76, 84, 1 / 30)
    at = {height: point_masses([(80.0, 47.0, depth, peak)], lat, lon, height) for height in (0.0, 10e3)}
    got = upward_continue(at[0.0], 10e3)
    assert relative_error(got, at[0.0], at[10e3]) < 0.003
    # Right above, the pull falls with the square of the distance: (18/28)².
    assert float(got.max()) == pytest.approx(peak * (18 / 28) ** 2, rel=0.003)


FRAMES = {
    "as it is": (lambda lat, lon: (lat, lon), ("lat", "lon")),
    "south up": (lambda lat, lon: (lat[::-1], lon), ("latitude", "longitude")),
    "eastern first": (lambda lat, lon: (lat, lon[::-1]), ("Lat", "Lon")),
    "0 to 360": (lambda lat, lon: (lat, lon + 200), ("y", "x")),
    "across 0": (lambda lat, lon: (lat, lon - 80), ("nav_lat", "nav_lon")),
    "southern": (lambda lat, lon: (-lat, lon), ("lat", "lon")),
    "float32": (lambda lat, lon: (lat.astype("f4"), lon.astype("f4")), ("lat", "lon")),
}


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(150, 200), (127, 181)])
def test_any_frame_gives_the_same_field_on_the_callers_coordinates(truth, frame, transposed, shape):
    field = truth.at(0).isel(lat=slice(40, 40 + shape[0]), lon=slice(50, 50 + shape[1]))
    expected = upward_continue(field, 10e3)
    turn, names = FRAMES[frame]
    lat, lon = turn(field.lat.values, field.lon.values)
    flip = tuple(slice(None, None, -1 if frame == turned else 1) for turned in ("south up", "eastern first"))
    given = xr.DataArray(
        field.values[flip],
        coords=dict(zip(names, (lat, lon), strict=True)),
        dims=names,
        attrs={"units": "mGal", "a": 7},
    )
    for name, unit in zip(names, ("degrees_north", "degrees_east"), strict=True):
        given[name].attrs["units"] = unit
    given = given.T if transposed else given
    got = upward_continue(given, 10e3)
    assert got.dims == given.dims
    for dim in got.dims:
        assert got[dim].values.tobytes() == given[dim].values.tobytes()
        assert got[dim].dtype == given[dim].dtype
        assert got[dim].attrs == given[dim].attrs
    assert got.attrs == {"units": "mGal", "a": 7, "height_m": 10e3}
    back = (got.T if transposed else got).values[flip]
    np.testing.assert_allclose(back, expected.values, atol=2e-3)
