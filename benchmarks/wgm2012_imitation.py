"""Time and peak memory of fetch and residual on a file of the size and format of WGM2012.

Writes a 5401 x 10801 COARDS netCDF-3 file (x y z, node_offset 0, float32 coordinates, 233 MB) as GMT does, serves it on
127.0.0.1, and runs the installed commands on it in a new folder. Its hash is not that of WGM2012: the first fetch must
reject it, and --accept-hash must accept it.

    python benchmarks/wgm2012_imitation.py [--folder DIR]
"""

from __future__ import annotations

import argparse
import functools
import http.server
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import netCDF4
import numpy as np

NAME = "WGM2012_Bouguer_ponc_2min.grd"
BYTES = 233_410_500


def write_imitation(path: Path, ny: int = 5401, nx: int = 10801, size: int | None = BYTES, seed: int = 7) -> None:
    """Write a global grid of smooth random gravity in the format of WGM2012; the header is padded to `size` bytes."""
    rng = np.random.default_rng(seed)
    waves = [(rng.integers(1, 900), rng.integers(1, 400), rng.uniform(0, 6.28), rng.normal(0, 1)) for _ in range(60)]
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("x", nx)
        file.createDimension("y", ny)
        x = file.createVariable("x", "f4", ("x",))
        y = file.createVariable("y", "f4", ("y",))
        z = file.createVariable("z", "f4", ("y", "x"), fill_value=np.float32(np.nan))
        x.long_name, x.actual_range = "x", [-180.0, 180.0]
        y.long_name, y.actual_range = "y", [-90.0, 90.0]
        z.long_name, z.actual_range = "z", [-529.0, 1005.0]
        file.Conventions, file.title, file.node_offset = "COARDS, CF-1.0", "imitation of WGM2012", 0
        file.history = "benchmarks/wgm2012_imitation.py"
        if size is not None:
            file.description = "-"
        lon, lat = np.linspace(-180, 180, nx), np.linspace(-90, 90, ny)
        x[:], y[:] = lon.astype("f4"), lat.astype("f4")
        lon_waves = [np.cos(np.radians(lon) * m + phase).astype("f4") for m, _, phase, _ in waves]
        for start in range(0, ny, 400):
            rows = np.radians(lat[start : start + 400])
            block = np.zeros((rows.size, nx), dtype="f4")
            for (m, p, phase, a), along in zip(waves, lon_waves, strict=True):
                across = 250 * a / np.sqrt(1 + m / 20 + p / 20) * np.cos(rows * p - phase) * np.cos(rows) ** 2
                block += across.astype("f4")[:, None] * along
            z[start : start + 400] = np.clip(block, -529, 1005)
    if size is not None:
        pad_header(path, size)


def pad_header(path: Path, size: int) -> None:
    """Lengthen an attribute until the file has exactly `size` bytes (a multiple of 4, as any netCDF-3 file)."""
    missing = size - path.stat().st_size
    if missing < 0:
        raise SystemExit(f"{path} is {-missing} bytes too long before padding.")
    with netCDF4.Dataset(path, "a") as file:
        file.description = "-" * (missing + 4 if missing % 4 == 0 else missing)
    if path.stat().st_size != size:
        raise SystemExit(f"{path} has {path.stat().st_size} bytes, expected {size}.")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without logging requests."""

    def log_message(self, *_):
        """Log nothing."""


def run(arguments: list[str], folder: Path) -> tuple[int, float, float, str]:
    """Exit status, seconds, peak memory in MB and output of one installed command."""
    measure = (
        "import resource, subprocess, sys; p = subprocess.run(sys.argv[1:], capture_output=True, text=True);"
        "print(p.stdout + p.stderr); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss);"
        "sys.exit(p.returncode)"
    )
    start = time.perf_counter()
    gravmap = Path(sys.executable).with_name("gravmap")
    process = subprocess.run(
        [sys.executable, "-c", measure, str(gravmap), *arguments], cwd=folder, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    *text, peak = process.stdout.strip().splitlines()
    return process.returncode, seconds, int(peak) / 1024, "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        served = folder / "served"
        served.mkdir(parents=True, exist_ok=True)
        file = served / NAME
        if not file.exists():
            start = time.perf_counter()
            write_imitation(file)
            print(f"wrote {file.stat().st_size} bytes in {time.perf_counter() - start:.0f} s")
        handler = functools.partial(Quiet, directory=str(served))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{NAME}"
        work = folder / "work"
        work.mkdir(exist_ok=True)
        four = [word for height in ("5km", "10km", "20km", "40km") for word in ("--height", height)]
        for title, arguments, expected in (
            ("fetch, another hash", ["fetch", "--from", url], 4),
            ("fetch --accept-hash", ["fetch", "wgm2012", "--accept-hash"], 0),
            ("fetch again", ["fetch", "wgm2012", "--offline"], 0),
            ("residual, liu2024", ["residual", "--height", "10km", "--overwrite"], 0),
            ("residual, 4 heights", ["residual", *four, "--overwrite"], 0),
        ):
            status, seconds, peak, text = run(arguments, work)
            print(f"\n== {title}: status {status}, {seconds:.1f} s, peak {peak:.0f} MB\n{text}")
            if status != expected:
                raise SystemExit(f"status {status}, expected {expected}")
        server.shutdown()
    print(f"\npeak memory of this script: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
