"""Random harmonics of a 2 arc-minute globe, to degree 2159, on a sphere: regions of it, and all of it.

The degree variance is 24000 n^-2 mGal^2. Field and continuation are synthesised by ducc0 in float64, one from the other
by (R/(R+h))^(n+2). Each global grid is continued in its own process, to measure its peak memory.

    python benchmarks/globe.py [--height 10]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr

DEGREE, PER_DEG = 2159, 30
CELLS = ((40, 65), (40, 155), (40, -115), (-55, 20), (-55, 110), (35, -60))


def coefficients(seed=0, slope=2.0):
    """Degree variance 24000 n^-slope mGal^2, packed as ducc0 wants them: order by order."""
    rng = np.random.default_rng(seed)
    parts = []
    for m in range(DEGREE + 1):
        n = np.arange(m, DEGREE + 1)
        size = np.sqrt(4 * np.pi * 24000 * np.maximum(n, 1.0) ** -slope / (2 * n + 1)) * (n >= 2)
        real, imaginary = rng.normal(size=(2, n.size))
        parts.append(size * (real if m == 0 else (real + 1j * imaginary) / np.sqrt(2)))
    return np.concatenate(parts)[None].astype(np.complex128)


def globe(harmonics, height_m, registration, per_deg=PER_DEG):
    import ducc0

    from gravmap.gravity.globe import MEAN_RADIUS_M

    factor = (MEAN_RADIUS_M / (MEAN_RADIUS_M + height_m)) ** (np.arange(DEGREE + 1) + 2)
    raised = harmonics * np.concatenate([factor[m:] for m in range(DEGREE + 1)])
    pixel = registration == "pixel"
    rows, columns = 180 * per_deg + (not pixel), 360 * per_deg
    half = 0.5 / per_deg if pixel else 0.0
    values = ducc0.sht.synthesis_2d(
        alm=raised,
        spin=0,
        lmax=DEGREE,
        geometry="F1" if pixel else "CC",
        ntheta=rows,
        nphi=columns,
        phi0=np.radians(-180 + half),
        nthreads=1,
    )[0, ::-1].astype(np.float32)
    if not pixel:
        values = np.column_stack([values, values[:, :1]])
    lat = (np.arange(rows) + (0.5 if pixel else 0)) / per_deg - 90
    lon = (np.arange(values.shape[1]) + (0.5 if pixel else 0)) / per_deg - 180
    return xr.DataArray(values, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"))


def regions(below, above, height_m, registration):
    """Means over six cells of 30 x 15 degrees."""
    from peers import PEERS, ours, rms

    from gravmap.gravity import residual_fields
    from gravmap.gravity.grid import crop
    from gravmap.gravity.long_wavelength import LongWavelengthField
    from gravmap.regions import Region

    long_wavelength = LongWavelengthField(below)

    def restored(grid, height_m):
        fields = residual_fields(grid, [height_m], long_wavelength=long_wavelength)
        return next(field.values for name, field in fields.items() if str(name).startswith("regional"))

    print(f"\n### region of a 2 arc-minute globe of harmonics, {registration}, mean of {len(CELLS)} cells\n")
    print(f"| method | known outside | whole % | worst cell % | inner % | rms mGal |\n|{'---|' * 6}")
    cases = [(name, method, margin) for margin in (0, 5) for name, method in (PEERS | {"gravmap": ours}).items()]
    cases += [("gravmap", restored, 0.01), ("gravmap", restored, 5.01)]
    words = {0: "nothing", 5: "5 degrees", 0.01: "globe", 5.01: "5 degrees and globe"}
    for name, method, margin in cases:
        whole, inner, errors = [], [], []
        for south, west in CELLS:
            region = Region(west, south, west + 30, south + 15)
            grid, part = crop(below, region, round(margin)), crop(above, region)
            own = {"lat": part.lat, "lon": part.lon}
            error = (grid.copy(data=method(grid, height_m)).sel(own, method="nearest").values - part.values).astype(
                float
            )
            residual = crop(below, region).values - part.values
            edge = 2 * PER_DEG
            deep = (slice(edge, -edge), slice(edge, -edge))
            whole.append(rms(error) / rms(residual))
            inner.append(rms(error[deep]) / rms(residual[deep]))
            errors.append(rms(error))
        print(
            f"| {name} | {words[margin]} | {100 * np.mean(whole):.2f} | {100 * max(whole):.2f} |"
            f" {100 * np.mean(inner):.2f} | {np.mean(errors):.3f} |",
            flush=True,
        )


def whole(below, above, height_m, registration, ways):
    """The whole globe, each method in its own process."""
    import shutil

    from peers import read_gmt, watched, write_gmt

    print(f"\n### whole globe, {below.shape}, {registration}, every core where the method uses several\n")
    print("| method | global % | below 60 | 60-80 | beyond 80 | rms mGal | max mGal | s | peak GB |")
    print(f"|{'---|' * 9}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "in.npz", values=below.values, lat=below.lat.values, lon=below.lon.values)
        if "GMT grdfft -fg" in ways and shutil.which("gmt"):
            write_gmt(below, folder / "in.nc")
        for way in ways:
            if way.startswith("GMT"):
                if not shutil.which("gmt"):
                    continue
                command = ["gmt", "grdfft", f"{folder}/in.nc", f"-G{folder}/out.nc", f"-C{height_m:g}", "-fg"]
            else:
                command = [sys.executable, __file__, "--height", str(height_m / 1e3), "--way", way, str(folder)]
            start = time.perf_counter()
            status, gigabytes = watched(command)
            seconds = time.perf_counter() - start
            if status:
                print(f"| {way} | failed |")
                continue
            if way.startswith("GMT"):
                result, own = read_gmt(folder / "out.nc"), ""
            else:
                with np.load(folder / "out.npz") as out:
                    result, own = out["values"], f" ({float(out['seconds']):.1f} without reading and writing)"
            scores(way, result, below, above, f"{seconds:.1f}{own}", gigabytes)


def scores(way, result, below, above, seconds, gigabytes):
    lat = below.lat.values
    weight = np.cos(np.radians(lat))
    error2 = np.mean(np.square(result - above.values, dtype=np.float64), axis=1)
    residual2 = np.mean(np.square(below.values - above.values, dtype=np.float64), axis=1)
    percents = []
    for low, high in ((0, 90), (0, 60), (60, 80), (80, 90)):
        part = (np.abs(lat) >= low) & (np.abs(lat) <= high)
        percents.append(100 * np.sqrt((weight * error2)[part].sum() / (weight * residual2)[part].sum()))
    rms = np.sqrt((weight * error2).sum() / weight.sum())
    worst = np.abs(result - above.values).max()
    figures = " | ".join(f"{percent:.3f}" for percent in percents)
    print(f"| {way} | {figures} | {rms:.4f} | {worst:.3f} | {seconds} | {gigabytes:.2f} |", flush=True)


def one_way(way, folder, height_m):
    """In the subprocess: continue the global grid in a folder; the time is that of the continuation without reading."""
    from gravmap.gravity import globe as globe_module

    with np.load(Path(folder) / "in.npz") as given:
        values, lat, lon = (given[name] for name in ("values", "lat", "lon"))
    if way == "gravmap without ducc0":
        globe_module.has_ducc0 = lambda: False
    start = time.perf_counter()
    (result,) = globe_module.upward_continue_globe(values, lat, lon, [height_m])
    seconds = time.perf_counter() - start
    np.savez(Path(folder) / "out.npz", values=result, seconds=seconds)


def main(height_m: float) -> None:
    try:
        import ducc0  # noqa: F401
    except ImportError:
        print("\nNo random harmonics: ducc0 is not installed (pip install 'gravmap[global]').")
        return
    harmonics = coefficients()
    for registration in ("pixel", "gridline"):
        below, above = globe(harmonics, 0.0, registration), globe(harmonics, height_m, registration)
        regions(below, above, height_m, registration)
        ways = ["GMT grdfft -fg", "gravmap with ducc0", "gravmap without ducc0"]
        whole(below, above, height_m, registration, ways)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=float, default=10.0, help="km")
    parser.add_argument("--way", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        one_way(*given.way, given.height * 1e3)
    else:
        main(given.height * 1e3)
