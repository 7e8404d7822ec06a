"""Errors of upward continuation by gravmap, harmonica and GMT, for fields whose continuation is known exactly.

First fields of random point masses on the WGS 84 ellipsoid (point_masses.py), with different data outside the region:
none, a margin of 5 degrees, a coarse globe. Then random spherical harmonics of a 2 arc-minute globe (globe.py): regions
of it, and the whole. Error = rms of (regional - true regional) / rms of the true residual, in percent; "inner" is the
part at least 2 degrees from the edge.

    python benchmarks/continuation.py [--height 10] [--draws 3] [--no-globe] [--picture docs/images/edge_error.png]
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import time
import warnings

import numpy as np
import xarray as xr

warnings.filterwarnings("ignore")

import globe  # noqa: E402
import point_masses  # noqa: E402
from peers import PEERS, ours, rms, timed  # noqa: E402

from gravmap.gravity import residual_fields  # noqa: E402
from gravmap.gravity.edges import relative_edge_error  # noqa: E402
from gravmap.gravity.long_wavelength import LongWavelengthField  # noqa: E402
from gravmap.gravity.patch import Patch  # noqa: E402

WEST, SOUTH, EAST, NORTH, MARGIN = 65, 40, 95, 55, 5
BINS_KM = (0, 4, 8, 16, 30, 50, 80, 120, 170, 230, 300, 400, 550, 830)


def ours_restored(globe):
    low = LongWavelengthField(globe)

    def run(grid, height_m):
        fields = residual_fields(grid, [height_m], long_wavelength=low)
        return next(field.values for name, field in fields.items() if str(name).startswith("regional"))

    return run


def nodes(low, high, registration, step=30):
    count = round((high - low) * step)
    return low + (np.arange(count) + 0.5) / step if registration == "pixel" else low + np.arange(count + 1) / step


def truth(seed, registration, height_m, cache):
    """The field with a margin, its exact continuation inside, and a coarse global field."""
    path = f"{cache}/masses-{seed}-{registration}-{height_m:g}.npz" if cache else ""
    lat, lon = (
        nodes(SOUTH - MARGIN, NORTH + MARGIN, registration),
        nodes(WEST - MARGIN, EAST + MARGIN, registration),
    )
    inside = {"lat": slice(SOUTH, NORTH), "lon": slice(WEST, EAST)}
    coarse = np.arange(-89.5, 90), np.arange(-179.5, 180)
    empty = xr.DataArray(np.zeros((lat.size, lon.size), "f4"), coords={"lat": lat, "lon": lon}, dims=("lat", "lon"))
    small = empty.sel(inside)
    if cache and os.path.exists(path):
        with np.load(path) as kept:
            below, above, globe = (kept[name] for name in ("below", "above", "globe"))
    else:
        sources = point_masses.masses(seed)
        below = point_masses.field_of(sources, lat, lon, 0.0).values
        above = point_masses.field_of(sources, small.lat.values, small.lon.values, height_m).values
        globe = point_masses.field_of(sources, *coarse, 0.0).values
        if cache:
            np.savez(path, below=below, above=above, globe=globe)
    world = xr.DataArray(globe, coords={"lat": coarse[0], "lon": coarse[1]}, dims=("lat", "lon"))
    return empty.copy(data=below), small.copy(data=above), world, inside


def distances_km(grid):
    lat, lon = grid.lat.values[:, None], grid.lon.values[None, :]
    rows = np.minimum(lat - SOUTH, NORTH - lat) * 111.2
    return np.minimum(rows, np.minimum(lon - WEST, EAST - lon) * 111.2 * np.cos(np.radians(lat)))


def point_mass_table(seed, registration, height_m, repeats, cache, profiles):
    below, regional, globe, inside = truth(seed, registration, height_m, cache)
    field = below.sel(inside)
    residual = field - regional
    print(
        f"\n### draw {seed}, {registration}, region {field.shape}, {height_m / 1e3:g} km; field"
        f" {float(field.min()):.0f}..{float(field.max()):.0f} mGal, std {float(field.std()):.1f}; residual rms"
        f" {rms(residual):.2f} mGal\n"
    )
    lat, lon = field.lat.values[:, None], field.lon.values[None, :]
    edge = np.minimum(np.minimum(lat - SOUTH, NORTH - lat), np.minimum(lon - WEST, EAST - lon))
    inner, distance = edge >= 2, distances_km(field)
    print(f"| method | known outside | whole % | inner % | rms mGal | max mGal | s | peak MB |\n|{'---|' * 8}")
    cases = [(name, method, "nothing", field) for name, method in (PEERS | {"gravmap": ours}).items()]
    cases += [("gravmap", ours_restored(globe), "coarse globe", field)]
    cases += [(name, method, "5 degrees", below) for name, method in (PEERS | {"gravmap": ours}).items()]
    cases += [("gravmap", ours_restored(globe), "5 degrees and coarse globe", below)]
    for name, method, outside, grid in cases:
        result, seconds, peak = timed(method, grid, height_m, repeats)
        error = (grid.copy(data=result).sel(inside) - regional).values
        print(
            f"| {name} | {outside} | {100 * rms(error) / rms(residual):.2f} |"
            f" {100 * rms(error[inner]) / rms(residual.values[inner]):.2f} | {rms(error):.3f} |"
            f" {np.abs(error).max():.2f} | {seconds:.3f} | {peak:.0f} |",
            flush=True,
        )
        fractions = [
            rms(error[(distance >= low) & (distance < high)]) / rms(residual)
            for low, high in itertools.pairwise(BINS_KM)
        ]
        profiles.setdefault((name, outside), []).append(fractions)
    return field


def heights_table(field):
    """Print the time of the first and of further continuation heights."""
    heights, seconds = (10e3, 5e3, 20e3, 40e3), []
    for _ in range(5):
        start = time.perf_counter()
        patch = Patch(field.values, field.lat.values, field.lon.values)
        marks = [time.perf_counter() - start]
        for height in heights:
            start = time.perf_counter()
            patch.upward(height)
            marks.append(time.perf_counter() - start)
        seconds.append(marks)
    best = np.min(seconds, axis=0)
    first = best[0] + best[1]
    print(f"\n### several heights, {field.shape}, best of 5\n\nthe first (10 km): {first:.3f} s", end="")
    for height, cost in zip(heights[1:], best[2:], strict=True):
        print(f"; {height / 1e3:g} km more: {cost:.3f} s ({100 * cost / first:.0f} %)", end="")
    print()


def profile_table(profiles, height_m):
    middle = 0.5 * (np.array(BINS_KM[:-1]) + BINS_KM[1:])
    print("\n### rms error by distance from the edge, % of the residual's rms, all draws\n")
    print(
        "| method | known outside | "
        + " | ".join(f"{low}-{high} km" for low, high in itertools.pairwise(BINS_KM))
        + " |"
    )
    print(f"|{'---|' * (len(BINS_KM) + 1)}")
    for (name, outside), fractions in profiles.items():
        mean = np.sqrt(np.mean(np.square(fractions), axis=0))
        print(f"| {name} | {outside} | " + " | ".join(f"{100 * fraction:.2f}" for fraction in mean) + " |")
    estimate = [f"{100 * fraction:.2f}" for fraction in relative_edge_error(middle, height_m)]
    print("| gravmap's estimate (one side) | nothing | " + " | ".join(estimate) + " |")
    return middle


def picture(path, profiles, height_m):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    middle = 0.5 * (np.array(BINS_KM[:-1]) + BINS_KM[1:])
    draws = len(next(iter(profiles.values())))
    figure, axes = plt.subplots(figsize=(7.2, 4.4), layout="constrained")
    style = {
        ("harmonica, metres, no padding", "nothing"): ("#b0b0b0", "-"),
        ("harmonica, zeros 33 % (user guide)", "nothing"): ("#8a6fb0", "-"),
        ("harmonica, linear ramp 33 %", "nothing"): ("#d08a2e", "-"),
        ("GMT grdfft -fg", "nothing"): ("#3a8f5c", "-"),
        ("GMT grdfft -fg", "5 degrees"): ("#3a8f5c", "--"),
        ("gravmap", "nothing"): ("#1f4e9c", "-"),
        ("gravmap", "coarse globe"): ("#1f4e9c", ":"),
        ("gravmap", "5 degrees"): ("#1f4e9c", "--"),
        ("gravmap", "5 degrees and coarse globe"): ("#1f4e9c", "-."),
    }
    for key, (colour, line) in style.items():
        if key in profiles:
            fraction = 100 * np.sqrt(np.mean(np.square(profiles[key]), axis=0))
            known = "" if key[1] == "nothing" else f"; {key[1]} known"
            width = 2.2 if key[0] == "gravmap" else 1.4
            axes.plot(middle, fraction, line, color=colour, lw=width, label=f"{key[0]}{known}")
    axes.plot(
        middle, 100 * relative_edge_error(middle, height_m), "k.", ms=5, label="gravmap's own estimate, nothing known"
    )
    axes.set(
        yscale="log",
        xscale="log",
        xlabel="distance from the edge of the region, km",
        ylabel="rms error, % of the rms of the residual",
        title=f"{height_m / 1e3:g} km up, 8220 point masses, {draws} draws",
    )
    axes.set_xlim(2, 700)
    axes.grid(which="major", color="#dddddd", lw=0.6)
    axes.legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=float, default=10.0, help="km")
    parser.add_argument("--draws", type=int, default=3, help="draws of point masses")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each method, on the first draw")
    parser.add_argument("--no-globe", action="store_true", help="skip the random harmonics")
    parser.add_argument("--picture", help="file of a figure of the error against distance")
    parser.add_argument("--cache", default="", help="folder in which fields of point masses are cached")
    options = parser.parse_args()
    height_m = options.height * 1e3
    print(f"{platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}")
    profiles: dict = {}
    for seed in range(options.draws):
        repeats = options.repeats if seed == 0 else 0
        field = point_mass_table(seed, "pixel", height_m, repeats, options.cache, profiles)
    point_mass_table(0, "gridline", height_m, 0, options.cache, {})
    profile_table(profiles, height_m)
    heights_table(field)
    if options.picture:
        picture(options.picture, profiles, height_m)
    if not options.no_globe:
        globe.main(height_m)


if __name__ == "__main__":
    main()
