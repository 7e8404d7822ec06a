"""Upward continuation with other software: harmonica as in its user guide, harmonica with ramp padding, GMT grdfft.

Without harmonica its arithmetic is done here with numpy: the same values, without the cost of its labelled arrays.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import xarray as xr

from gravmap.gravity import upward_continue
from gravmap.gravity.patch import curvature_radii_m


def ours(grid, height_m):
    """Upward continuation by gravmap, called as the peers below are."""
    return upward_continue(grid, height_m).values


def in_metres(grid):
    """Coordinates in metres with one scale for the middle latitude, as in harmonica's user guide."""
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


HAS_HARMONICA = importlib.util.find_spec("harmonica") is not None


def harmonica_padded(mode, fraction):
    """`harmonica.upward_continuation` of a grid padded by `xrft.pad`, by a fraction of its size on each side."""

    def run(grid, height_m):
        flat = in_metres(grid)
        width = {dim: round(flat.sizes[dim] * fraction) for dim in flat.dims}
        if not HAS_HARMONICA:
            return one_transform(flat, width, mode, height_m)
        import harmonica

        if not fraction:
            return harmonica.upward_continuation(flat, height_displacement=height_m).values
        import xrft

        # The argument left out must be None: xrft's default for it is refused by the other modes.
        padded = xrft.pad(flat, width, mode=mode, constant_values=0 if mode == "constant" else None)
        return xrft.unpad(harmonica.upward_continuation(padded, height_displacement=height_m), width).values

    return run


def one_transform(flat, width, mode, height_m):
    """What harmonica computes: one transform of the padded grid, times exp(-k h)."""
    spacing = [float(flat[dim][1] - flat[dim][0]) for dim in flat.dims]
    padded = np.pad(flat.values, [(n, n) for n in width.values()], mode=mode)
    k_north, k_east = (2 * np.pi * np.fft.fftfreq(n, step) for n, step in zip(padded.shape, spacing, strict=True))
    spectrum = np.fft.fft2(padded) * np.exp(-height_m * np.hypot(k_north[:, None], k_east))
    rows, columns = (slice(n, n + flat.sizes[dim]) for dim, n in width.items())
    return np.fft.ifft2(spectrum).real[rows, columns]


def gmt(grid, height_m):
    """`gmt grdfft -C -fg`: its own process, with its files."""
    with tempfile.TemporaryDirectory() as folder:
        write_gmt(grid, Path(folder) / "in.nc")
        run_gmt(Path(folder), height_m)
        return read_gmt(Path(folder) / "out.nc")


def write_gmt(grid, path):
    step = [float(grid[dim][1] - grid[dim][0]) for dim in ("lat", "lon")]
    # A pixel-registered global grid must be marked, or GMT does not treat it as periodic.
    pixel = abs(float(grid.lon[-1] - grid.lon[0]) + step[1] - 360) < 1e-6
    plain = xr.Dataset({"z": (("lat", "lon"), grid.values)}, coords={"lat": grid.lat.values, "lon": grid.lon.values})
    for dim, size, unit in zip(("lat", "lon"), step, ("degrees_north", "degrees_east"), strict=True):
        half = size / 2 if pixel else 0.0
        plain[dim].attrs = {
            "units": unit,
            "actual_range": np.array([float(grid[dim][0]) - half, float(grid[dim][-1]) + half]),
        }
    plain.attrs = {"Conventions": "CF-1.7", "node_offset": np.int32(pixel)}
    plain.to_netcdf(path, engine="netcdf4")


def run_gmt(folder, height_m):
    subprocess.run(
        ["gmt", "grdfft", "in.nc", "-Gout.nc", f"-C{height_m:g}", "-fg"],
        cwd=folder,
        check=True,
        capture_output=True,
    )


def read_gmt(path):
    with xr.open_dataset(path, engine="netcdf4") as result:
        return result["z"].values


PEERS = {
    "harmonica, metres, no padding": harmonica_padded("constant", 0),
    "harmonica, zeros 33 % (user guide)": harmonica_padded("constant", 1 / 3),
    "harmonica, linear ramp 33 %": harmonica_padded("linear_ramp", 1 / 3),
}
# Every other padding of xrft that could compete where nothing outside is known.
PADDED = PEERS | {
    "harmonica, linear ramp 100 %": harmonica_padded("linear_ramp", 1.0),
    "harmonica, edge 25 % (its next default)": harmonica_padded("edge", 0.25),
    "harmonica, edge 100 %": harmonica_padded("edge", 1.0),
    "harmonica, reflection 25 %": harmonica_padded("reflect", 0.25),
    "harmonica, symmetric 100 %": harmonica_padded("symmetric", 1.0),
    "harmonica, mean 33 %": harmonica_padded("mean", 1 / 3),
}
if shutil.which("gmt"):
    PEERS["GMT grdfft -fg"] = PADDED["GMT grdfft -fg"] = gmt


def timed(method, grid, height_m, repeats):
    """The result, the median time in seconds, and the peak memory in MB, of Python or of the GMT process."""
    result, seconds = method(grid, height_m), []
    for _ in range(repeats):
        start = time.perf_counter()
        method(grid, height_m)
        seconds.append(time.perf_counter() - start)
    if not repeats:
        return result, np.nan, np.nan
    if method is gmt:
        return result, float(np.median(seconds)), child(lambda: gmt_of(grid, height_m))
    tracemalloc.start()
    method(grid, height_m)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, float(np.median(seconds)), peak / 1e6


def gmt_of(grid, height_m):
    folder = tempfile.mkdtemp()
    write_gmt(grid, Path(folder) / "in.nc")
    return ["gmt", "grdfft", f"{folder}/in.nc", f"-G{folder}/out.nc", f"-C{height_m:g}", "-fg"], folder


def child(make):
    """Peak memory of a subprocess, MB."""
    command, folder = make()
    _, gigabytes = watched(command)
    shutil.rmtree(folder)
    return 1e3 * gigabytes


def watched(command):
    """Run a command; exit status and peak memory in GB, polled (the kernel's maximum would include the parent)."""
    process, peak = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), 0
    while process.poll() is None:
        try:
            text = Path(f"/proc/{process.pid}/status").read_text()
            if f"/{Path(command[0]).name}".encode() in b"/" + Path(f"/proc/{process.pid}/cmdline").read_bytes():
                peak = max([peak, *(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM"))])
        except OSError:
            break
        time.sleep(0.004)
    return process.wait(), peak * 1024 / 1e9


def rms(values) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(values, dtype=np.float64)))))
