"""Point masses on the WGS 84 ellipsoid: a field and its continuation, both in closed form."""

import numpy as np
import pytest
import xarray as xr

A, E2, GM = 6_378_137.0, 6.694379990141e-3, 6.6743e-11


def cartesian(lon_deg, lat_deg, height_m):
    lon, lat = np.radians(lon_deg), np.radians(lat_deg)
    n = A / np.sqrt(1 - E2 * np.sin(lat) ** 2)
    return np.stack(
        [
            (n + height_m) * np.cos(lat) * np.cos(lon),
            (n + height_m) * np.cos(lat) * np.sin(lon),
            (n * (1 - E2) + height_m) * np.sin(lat),
        ],
        axis=-1,
    )


def gravity_of(masses, lat, lon, height_m):
    """Down along the ellipsoid normal, mGal, of (lon, lat, depth_m, mGal right above) at nodes."""
    x, y = np.meshgrid(lon, lat)
    points = cartesian(x, y, height_m)
    up = np.stack(
        [
            np.cos(np.radians(y)) * np.cos(np.radians(x)),
            np.cos(np.radians(y)) * np.sin(np.radians(x)),
            np.sin(np.radians(y)),
        ],
        axis=-1,
    )
    total = np.zeros(x.shape)
    for mass_lon, mass_lat, depth, peak in masses:
        apart = points - cartesian(mass_lon, mass_lat, -depth)
        total += peak * depth**2 * (apart * up).sum(-1) / (apart**2).sum(-1) ** 1.5
    return total


def grid_of(values, lat, lon, **attrs):
    return xr.DataArray(
        np.asarray(values, dtype=np.float32),
        coords={"lat": lat, "lon": lon},
        dims=("lat", "lon"),
        attrs={"units": "mGal", "height_m": 0.0, **attrs},
    )


class Truth:
    """A dozen masses in the middle of 70-90E 40-55N, nodes every 4 arc-minutes."""

    masses = (
        (79.2, 46.1, 25e3, 60.0),
        (80.5, 47.7, 40e3, -80.0),
        (81.0, 45.0, 30e3, 40.0),
        (78.4, 48.9, 60e3, -90.0),
        (82.3, 48.3, 28e3, 55.0),
        (80.0, 46.6, 120e3, 50.0),
    )

    def __init__(self, offset_cells=0.0, step=1 / 15):
        self.lat = 40 + step * (np.arange(round(15 / step)) + offset_cells)
        self.lon = 70 + step * (np.arange(round(20 / step)) + offset_cells)

    def at(self, height_m, /, **attrs):
        return grid_of(gravity_of(self.masses, self.lat, self.lon, height_m), self.lat, self.lon, **attrs)


@pytest.fixture(scope="session")
def truth():
    return Truth()


@pytest.fixture(scope="session")
def pixel_truth():
    return Truth(offset_cells=0.5)


def rms(values):
    return float(np.sqrt(np.mean(np.square(np.asarray(values, dtype=np.float64)))))


@pytest.fixture(scope="session")
def relative_error():
    """rms of the error over rms of the true residual."""

    def relative_error(got, field, regional):
        return rms(got.values - regional.values) / rms(field.values - regional.values)

    return relative_error


@pytest.fixture(scope="session")
def make_grid():
    return grid_of


@pytest.fixture(scope="session")
def point_masses():
    """A grid of what given masses draw, at a height."""

    def point_masses(masses, lat, lon, height_m):
        return grid_of(gravity_of(masses, lat, lon, height_m), lat, lon)

    return point_masses


@pytest.fixture(scope="session")
def exact():
    """What given masses draw at nodes, in float64."""
    return gravity_of


@pytest.fixture
def write_coards(tmp_path):
    """Write a grid as GMT writes COARDS netCDF-3: x, y, z, float32 coordinates."""
    import netCDF4

    def write(values, lat, lon, name="grid.grd", node_offset=0, coordinate="f4", units=None, names=("x", "y", "z")):
        path = tmp_path / name
        with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
            for axis, nodes in zip(names[:2], (lon, lat), strict=True):
                file.createDimension(axis, len(nodes))
                file.createVariable(axis, coordinate, (axis,))[:] = np.asarray(nodes).astype(coordinate)
            z = file.createVariable(names[2], "f4", (names[1], names[0]), fill_value=np.float32(np.nan))
            z[:] = values
            if units:
                z.units = units
            file.Conventions, file.node_offset = "COARDS, CF-1.0", node_offset
        return path

    return write
