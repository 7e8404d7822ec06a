"""Upward continuation of a region beyond which nothing is known: gravmap and its peers on many kinds of truth.

Each truth is a large field of which a region is cut; its continuation is known. Point masses on the ellipsoid with four
spectra, random harmonics with three (ducc0), and simulated crusts, half of them with a regional trend. A crust's field
fades to zero outside, and is continued there with all of it known. Even truths are for choosing, odd ones for
reporting. Error = rms of (regional - true regional) / rms of the true residual; inner is 2 degrees from the edge.

Padding and correlation length of gravmap, and the best peer, were chosen on the even half.

    OMP_NUM_THREADS=1 python benchmarks/edges.py [--half odd|even|all] [--cache FOLDER]
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import globe
import numpy as np
import point_masses
import xarray as xr
from peers import HAS_HARMONICA, PADDED, ours, rms

from gravmap.gravity.patch import Patch

INNER_DEG = 2.0
RAMP = "harmonica, linear ramp 33 %"
# West, south, width, height and spacing in degrees, continuation height in km.
REGIONS = (
    (65, 40, 30, 15, 1 / 20, 10),
    (70, 20, 16, 12, 1 / 30, 10),
    (75, 50, 22, 14, 1 / 24, 20),
    (68, 30, 14, 10, 1 / 30, 5),
    (60, 42, 24, 16, 1 / 20, 10),
    (80, 34, 12, 9, 1 / 30, 10),
    (72, 5, 18, 12, 1 / 24, 10),
    (66, 46, 20, 10, 1 / 24, 40),
)
# Number, depths in km and standard deviation of the attraction right above in mGal, of masses up to 8 and 25 degrees
# around the region and all over the Earth; and how many make the root of a mountain range (80: across the
# border; 300: a stronger one outside).
MASSES = {
    "masses": ((4000, (7, 35), 18.8), (900, (35, 150), 12), (340, (150, 1200), 12), 80),
    "shallow masses": ((7000, (5, 18), 12), (300, (18, 60), 6), (340, (150, 1200), 4), 0),
    "deep masses": ((1200, (10, 30), 8), (900, (30, 300), 20), (340, (150, 1200), 25), 0),
    "masses and a trend": ((4000, (7, 35), 12), (600, (35, 150), 8), (340, (150, 1200), 12), 300),
}
HARMONICS = {"harmonics n^-1": 1.0, "harmonics n^-2": 2.0, "harmonics n^-3": 3.0}
CRUSTS = ("central-asia", "wide")


@dataclass(frozen=True)
class Truth:
    """A field cut from a larger one, and its continuation, on the same nodes."""

    kind: str
    number: int
    field: xr.DataArray
    regional: np.ndarray
    height_m: float


def nodes(west, south, width, height, step):
    return south + (np.arange(round(height / step)) + 0.5) * step, west + (np.arange(round(width / step)) + 0.5) * step


def scattered(kind, seed, region):
    """Positions and masses of one of the point-mass kinds."""
    west, south, width, height = region[:4]
    rng = np.random.default_rng([seed, *kind.encode()])
    *scatters, range_masses = MASSES[kind]
    groups = []
    for (count, depths, spread), reach in zip(scatters, (8, 25, None), strict=True):
        sides = (-180, 180, -85, 85)
        if reach is not None:
            sides = (west - reach, west + width + reach, south - reach, min(south + height + reach, 85))
        lon, lat = rng.uniform(*sides[:2], count), rng.uniform(*sides[2:], count)
        depth = np.exp(rng.uniform(*np.log(depths), count)) * 1e3
        groups.append((lon, lat, depth, rng.normal(0, spread, count)))
    if range_masses:
        outside = range_masses > 100
        t, angle = rng.normal(0, 1, (2, range_masses)), rng.uniform(0, 2 * np.pi)
        along, across = 0.4 * width * t[0], (0.75 if outside else 0.45) * height + 1.5 * t[1]
        lon = west + width / 2 + along * np.cos(angle) - across * np.sin(angle) * width / height
        lat = np.clip(south + height / 2 + along * np.sin(angle) + across * np.cos(angle), -80, 80)
        peak = rng.choice([-1, 1]) * (60.0 if outside else 130.0)
        groups.append((lon, lat, np.full(range_masses, 55e3), np.full(range_masses, peak)))
    lon, lat, depth, peak = (np.concatenate(part) for part in zip(*groups, strict=True))
    return point_masses.cartesian(lon, lat, -depth), peak * 1e-5 * depth**2 / point_masses.GRAVITATIONAL


def of_masses(kind, seed, region):
    lat, lon = nodes(*region[:5])
    sources = scattered(kind, seed, region)
    return tuple(point_masses.field_of(sources, lat, lon, height) for height in (0.0, region[5] * 1e3))


def of_harmonics(kind, seed, region):
    """A region of the sphere, at the step of the global grid."""
    harmonics = globe.coefficients(seed, HARMONICS[kind])
    globes = [globe.globe(harmonics, level, "pixel", per_deg=12) for level in (0.0, region[5] * 1e3)]
    west, south, width, height = region[:4]
    inside = {"lat": slice(south, south + height), "lon": slice(west, west + width)}
    return tuple(grid.sel(inside) for grid in globes)


def of_crust(kind, seed, region):
    from gravmap.synthetic import draw_crust, load_prior
    from gravmap.synthetic.layers import fade_window

    # A crust 6 degrees larger on each side than the region, fading over the outer 2, and 8 degrees of nothing around.
    beyond, fade, nothing = 180, 60, 240
    shape = [round(min(size, 12) * 30) + 2 * beyond for size in (region[3], region[2])]
    # Farther north or south the nothing would pass 80 degrees, where the operator ends.
    prior = load_prior(kind.split()[1])
    drawn = next(s for s in itertools.count(seed, 1000) if abs(prior.draw(s).latitude_deg) < 55)
    crust = draw_crust(prior, drawn, tuple(shape), collar=0)
    values = np.pad(crust.gravity.values * fade_window(tuple(shape), (fade, fade)), nothing)
    lat, lon = (
        axis[0] + (np.arange(axis.size + 2 * nothing) - nothing) / 30
        for axis in (crust.gravity.lat.values, crust.gravity.lon.values)
    )
    below = xr.DataArray(values, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"), attrs={"units": "mGal"})
    height_m = region[5] * 1e3
    above = below.copy(data=Patch(values, lat, lon, pad_yx=(600, 600)).upward(height_m))
    inside = 2 * (slice(beyond + nothing, -beyond - nothing),)
    pair = below[inside], above[inside]
    if seed % 4 >= 2:
        lat, lon = pair[0].lat.values, pair[0].lon.values
        sources = scattered("deep masses", seed, (lon[0], lat[0], lon[-1] - lon[0], lat[-1] - lat[0]))
        pair = tuple(
            part + point_masses.field_of(sources, lat, lon, level)
            for part, level in zip(pair, (0.0, height_m), strict=True)
        )
    return pair


def truths(half: str, cache: Path | None) -> Iterator[Truth]:
    """Every truth of a half, in a fixed order."""
    makers = (
        [(kind, of_masses) for kind in MASSES]
        + [(kind, of_harmonics) for kind in HARMONICS]
        + [(f"crust {prior}", of_crust) for prior in CRUSTS]
    )
    for place, (kind, make) in enumerate(makers):
        for number in range(6):
            if half != "all" and number % 2 != (half == "odd"):
                continue
            region = REGIONS[(number + 3 * place) % len(REGIONS)]
            path = cache and cache / f"{kind}-{number}.npz".replace(" ", "-")
            if path and path.exists():
                with np.load(path) as kept:
                    field, above, lat, lon = (kept[name] for name in ("field", "above", "lat", "lon"))
            else:
                below, raised = make(kind, number, region)
                field, above = (np.asarray(part.values, dtype=np.float32) for part in (below, raised))
                lat, lon = below.lat.values, below.lon.values
                if path:
                    np.savez(path, field=field, above=above, lat=lat, lon=lon)
            grid = xr.DataArray(field, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"), attrs={"units": "mGal"})
            yield Truth(kind, number, grid, above, region[5] * 1e3)


def inner_nodes(field):
    lat, lon = field.lat.values[:, None], field.lon.values[None, :]
    rows = np.minimum(lat - lat[0], lat[-1] - lat)
    return np.minimum(rows, np.minimum(lon - lon[:, :1], lon[:, -1:] - lon)) >= INNER_DEG


def scores(truth, result):
    """Error of the whole and of the inner part, as fractions of the residual's rms there."""
    error, residual = result - truth.regional, truth.field.values - truth.regional
    inner = inner_nodes(truth.field)
    return rms(error) / rms(residual), rms(error[inner]) / rms(residual[inner])


def measured(method, truth, repeats=3):
    """Errors of the whole and of the inner part, and the shortest processor time in seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = method(truth.field, truth.height_m)
        seconds.append(time.process_time() - start)
    return (*scores(truth, result), min(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=["odd", "even", "all"], default="odd", help="which truths")
    parser.add_argument("--cache", type=Path, help="folder that keeps the truths")
    options = parser.parse_args()
    if options.cache:
        options.cache.mkdir(parents=True, exist_ok=True)
    if not HAS_HARMONICA:
        print("harmonica is not installed: its arithmetic with numpy instead.")
    if "GMT grdfft -fg" not in PADDED:
        print("GMT is not installed: left out.")
    methods = {"gravmap": ours} | PADDED
    found = {name: [] for name in methods}
    print("\n| truth | km | nodes | gravmap: whole, inner % | best peer: whole, inner % | ratio |")
    print(f"|{'---|' * 6}")
    for truth in truths(options.half, options.cache):
        for name, method in methods.items():
            found[name].append(measured(method, truth))
        own = 100 * np.array(found["gravmap"][-1][:2])
        best = 100 * np.min([found[name][-1][:2] for name in PADDED], axis=0)
        print(
            f"| {truth.kind} {truth.number} | {truth.height_m / 1e3:g} | {' x '.join(map(str, truth.field.shape))} |"
            f" {own[0]:.2f}, {own[1]:.2f} | {best[0]:.2f}, {best[1]:.2f} |"
            f" {own[0] / best[0]:.2f}, {own[1] / best[1]:.2f} |",
            flush=True,
        )
    table = {name: np.array(rows) for name, rows in found.items()}
    own = table["gravmap"]
    rows = table | {"the best of them on each truth": np.min([table[name] for name in PADDED], axis=0)}
    print(f"\n{len(own)} truths; ratios: median over the truths, and how many are above 1\n")
    print("| peer | its error, whole, inner % | gravmap / peer, whole | above 1 | inner | above 1 | time |")
    print(f"|{'---|' * 7}")
    for name, theirs in rows.items():
        if name == "gravmap":
            continue
        ratio, (whole, inner) = own / theirs, 100 * np.median(theirs[:, :2], axis=0)
        print(
            f"| {name} | {whole:.1f}, {inner:.1f} | {np.median(ratio[:, 0]):.2f} | {np.mean(ratio[:, 0] > 1):.0%} |"
            f" {np.median(ratio[:, 1]):.2f} | {np.mean(ratio[:, 1] > 1):.0%} |"
            f" {'' if name.startswith('the best') else f'{np.median(ratio[:, 2]):.2f}'} |"
        )
    whole, inner = 100 * np.median(own[:, :2], axis=0)
    slowest = (own[:, 2] / table[RAMP][:, 2]).max()
    print(f"\ngravmap: {whole:.1f}, {inner:.1f} %; at most {slowest:.1f} times as long as {RAMP}")


if __name__ == "__main__":
    main()
