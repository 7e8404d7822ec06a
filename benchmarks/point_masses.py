"""Gravity of point masses under, around and far outside 65-95 E 40-55 N on the WGS 84 ellipsoid, in closed form."""

from __future__ import annotations

import numba  # comes with harmonica
import numpy as np
import xarray as xr

from gravmap.gravity.patch import curvature_radii_m

GRAVITATIONAL = 6.6743e-11
E2 = 6.694379990141e-3


def masses(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """8220 point masses: Earth-fixed coordinates (n, 3), metres, and masses (n,), kg."""
    rng = np.random.default_rng(20261122 + seed)
    groups = []

    def scatter(count, box_wesn, depth_km, spread_mgal):
        west, east, south, north = box_wesn
        lon, lat = rng.uniform(west, east, count), rng.uniform(south, north, count)
        depth = np.exp(rng.uniform(*np.log(depth_km), count)) * 1e3
        groups.append((lon, lat, depth, rng.normal(0, spread_mgal, count)))

    scatter(6000, (55, 105, 30, 65), (7, 35), 18.8)
    scatter(1800, (40, 120, 20, 75), (35, 150), 12)
    scatter(340, (-180, 180, -85, 85), (150, 1200), 12)
    # A mountain root that crosses the southern and the eastern side of the region.
    t = np.linspace(0, 1, 80)
    lon = 68 + 34 * t + rng.normal(0, 0.3, 80)
    lat = 37.5 + 9 * t + 1.5 * np.sin(9 * t) + rng.normal(0, 0.3, 80)
    groups.append((lon, lat, np.full(80, 55e3), np.full(80, -127.0)))
    lon, lat, depth, peak = (np.concatenate(part) for part in zip(*groups, strict=True))
    # The attraction directly above a point mass at depth z is G m / z^2.
    return cartesian(lon, lat, -depth), peak * 1e-5 * depth**2 / GRAVITATIONAL


def cartesian(lon_deg, lat_deg, height_m):
    lon, lat = np.radians(lon_deg), np.radians(lat_deg)
    _, vertical = curvature_radii_m(lat_deg)
    return np.stack(
        [
            (vertical + height_m) * np.cos(lat) * np.cos(lon),
            (vertical + height_m) * np.cos(lat) * np.sin(lon),
            (vertical * (1 - E2) + height_m) * np.sin(lat),
        ],
        axis=-1,
    )


@numba.njit(fastmath=True, cache=True)
def attraction(points, normals, places, moments, out):
    for i in range(points.shape[0]):
        total = 0.0
        for j in range(places.shape[0]):
            x, y, z = points[i, 0] - places[j, 0], points[i, 1] - places[j, 1], points[i, 2] - places[j, 2]
            d2 = x * x + y * y + z * z
            total += moments[j] * (x * normals[i, 0] + y * normals[i, 1] + z * normals[i, 2]) / (d2 * np.sqrt(d2))
        out[i] = total


def field_of(sources, lat, lon, height_m) -> xr.DataArray:
    """Gravity along the ellipsoid normal, positive down, mGal, at nodes `height_m` above the ellipsoid."""
    grid_lon, grid_lat = np.meshgrid(lon, lat)
    lo, la = np.radians(grid_lon.ravel()), np.radians(grid_lat.ravel())
    normals = np.stack([np.cos(la) * np.cos(lo), np.cos(la) * np.sin(lo), np.sin(la)], axis=-1)
    out = np.empty(lo.size)
    attraction(cartesian(grid_lon.ravel(), grid_lat.ravel(), height_m), normals, sources[0], sources[1], out)
    values = (out * GRAVITATIONAL * 1e5).reshape(grid_lat.shape).astype(np.float32)
    return xr.DataArray(
        values, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"), attrs={"units": "mGal", "height_m": 0.0}
    )
