"""Upward continuation against a truth known in closed form: gravmap and harmonica in one run.

The truth is a few thousand point masses under, around and far outside the region; the field and its continuation are
both computed in closed form on the WGS 84 ellipsoid (component along the ellipsoid normal, geodetic latitude).
Error = rms of (regional - true regional) / rms of the true residual, in per cent.

    python benchmarks/continuation.py [--height 10] [--registration pixel|gridline]
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import tracemalloc
import warnings

import numpy as np
import xarray as xr

warnings.filterwarnings("ignore")

import numba  # noqa: E402  (comes with harmonica)

from gravmap.gravity import upward_continue  # noqa: E402
from gravmap.gravity.patch import curvature_radii_m  # noqa: E402

GRAVITATIONAL = 6.6743e-11
E2 = 6.694379990141e-3


def masses(seed: int = 20261122) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, 3) in metres, Earth-fixed, and masses (n,) in kg."""
    rng = np.random.default_rng(seed)
    groups = []

    def scatter(count, box_wesn, depth_km, mean_mgal, spread_mgal):
        west, east, south, north = box_wesn
        lon, lat = rng.uniform(west, east, count), rng.uniform(south, north, count)
        depth = np.exp(rng.uniform(*np.log(depth_km), count)) * 1e3
        groups.append((lon, lat, depth, rng.normal(mean_mgal, spread_mgal, count)))

    scatter(2400, (59, 101, 34, 61), (7, 35), 0, 20)
    scatter(400, (50, 110, 25, 70), (35, 150), 0, 14)
    scatter(60, (20, 140, 0, 80), (150, 1200), 0, 14)
    # The root of a mountain range that crosses the southern and the eastern border.
    t = np.linspace(0, 1, 60)
    lon, lat = 66 + 36 * t, 37.5 + 9 * t + 1.5 * np.sin(9 * t)
    groups.append((lon, lat, np.full(60, 55e3), np.full(60, -210.0)))
    lon, lat, depth, peak = (np.concatenate(part) for part in zip(*groups, strict=True))
    # A point mass at depth z draws G m / z^2 right above itself.
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


def truth(lat, lon, height_m, sources) -> xr.DataArray:
    grid_lon, grid_lat = np.meshgrid(lon, lat)
    lo, la = np.radians(grid_lon.ravel()), np.radians(grid_lat.ravel())
    normals = np.stack([np.cos(la) * np.cos(lo), np.cos(la) * np.sin(lo), np.sin(la)], axis=-1)
    out = np.empty(lo.size)
    attraction(cartesian(grid_lon.ravel(), grid_lat.ravel(), height_m), normals, sources[0], sources[1], out)
    values = (out * GRAVITATIONAL * 1e5).reshape(grid_lat.shape).astype(np.float32)
    return xr.DataArray(
        values, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"), attrs={"units": "mGal", "height_m": 0.0}
    )


def in_metres(grid):
    middle = float(grid.lat.mean())
    meridian, vertical = curvature_radii_m(middle)
    return xr.DataArray(
        grid.values.astype(np.float64),
        coords={
            "northing": np.radians(grid.lat.values) * meridian,
            "easting": np.radians(grid.lon.values) * vertical * np.cos(np.radians(middle)),
        },
        dims=("northing", "easting"),
    )


def harmonica_plain(grid, height_m):
    import harmonica

    return harmonica.upward_continuation(in_metres(grid), height_displacement=height_m).values


def harmonica_padded(mode):
    def run(grid, height_m):
        import harmonica
        import xrft

        flat = in_metres(grid)
        width = {dim: flat.sizes[dim] // 3 for dim in flat.dims}
        # The argument left out must be None: xrft's default for it is refused by the other modes.
        padded = xrft.pad(flat, width, mode=mode, constant_values=0 if mode == "constant" else None)
        return xrft.unpad(harmonica.upward_continuation(padded, height_displacement=height_m), width).values

    return run


def ours(grid, height_m):
    return upward_continue(grid, height_m).values


METHODS = {
    "harmonica, metres, no padding": harmonica_plain,
    "harmonica, zeros 33 % (user guide)": harmonica_padded("constant"),
    "harmonica, linear ramp 33 %": harmonica_padded("linear_ramp"),
    "gravmap": ours,
}


def ours_restored(globe):
    from gravmap.gravity.lowdegrees import LowDegrees

    low = LowDegrees(globe)

    def run(grid, height_m):
        from gravmap.gravity import residual_fields

        fields = residual_fields(grid, [height_m], low=low)
        return next(field.values for name, field in fields.items() if name.startswith("regional"))

    return run


def nodes(low, high, registration, step=1 / 30):
    count = round((high - low) / step)
    return low + step * (np.arange(count) + 0.5) if registration == "pixel" else low + step * np.arange(count + 1)


def timed(method, grid, height_m, repeats=5):
    method(grid, height_m)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = method(grid, height_m)
        seconds.append(time.perf_counter() - start)
    tracemalloc.start()
    method(grid, height_m)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, float(np.median(seconds)), peak / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=float, default=10.0, help="km")
    parser.add_argument("--registration", choices=("pixel", "gridline"), default="pixel")
    options = parser.parse_args()
    height_m = options.height * 1e3
    west, south, east, north, margin = 65, 40, 95, 55, 5

    sources = masses()
    lat, lon = (
        nodes(south - margin, north + margin, options.registration),
        nodes(west - margin, east + margin, options.registration),
    )
    below, above = truth(lat, lon, 0.0, sources), truth(lat, lon, height_m, sources)
    globe = truth(nodes(-90, 90, "pixel", 0.5), nodes(-180, 180, "pixel", 0.5), 0.0, sources)
    inside = {"lat": slice(south, north), "lon": slice(west, east)}
    field, regional = below.sel(inside), above.sel(inside)
    residual = field - regional
    print(f"{platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}; {len(sources[1])} point masses")
    print(
        f"region {field.shape}, {options.registration}, {options.height:g} km; field"
        f" {float(field.min()):.0f}..{float(field.max()):.0f}"
        f" mGal, std {float(field.std()):.1f}; true residual rms {rms(residual):.2f} mGal"
    )
    edge = np.minimum(
        *np.broadcast_arrays(
            np.minimum(field.lat - south, north - field.lat).values[:, None],
            np.minimum(field.lon - west, east - field.lon).values[None, :],
        )
    )
    print(f"\n| method | margin deg | whole % | inner % | rms mGal | max mGal | s | peak MB |\n|{'---|' * 8}")
    for margin_deg, grid in ((0, field), (margin, below)):
        for name, method in (METHODS | {"gravmap, coarse globe known": ours_restored(globe)}).items():
            result, seconds, peak = timed(method, grid, height_m)
            result = xr.DataArray(result, coords=grid.coords, dims=grid.dims).sel(inside)
            error = (result - regional).values
            inner = edge >= 2
            print(
                f"| {name} | {margin_deg} | {100 * rms(error) / rms(residual):.2f} |"
                f" {100 * rms(error[inner]) / rms(residual.values[inner]):.2f} | {rms(error):.3f} |"
                f" {np.abs(error).max():.2f} | {seconds:.3f} | {peak:.0f} |"
            )
            if name == "gravmap" and margin_deg == 0:
                profile = [
                    (
                        low,
                        high,
                        rms(error[(edge >= low) & (edge < high)]),
                        rms(residual.values[(edge >= low) & (edge < high)]),
                    )
                    for low, high in ((0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 1), (1, 2), (2, 4), (4, 8))
                ]
    print("\ngravmap, nothing known outside: rms error by distance from the edge")
    for low, high, error_mgal, residual_mgal in profile:
        share = 100 * error_mgal / residual_mgal
        print(f"  {low:g}-{high:g} deg: {error_mgal:.2f} mGal ({share:.1f} % of the residual there)")


def rms(values) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(values, dtype=np.float64)))))


if __name__ == "__main__":
    main()
