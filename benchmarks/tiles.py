"""Time, disk space and peak memory to write the 536 tiles of the paper, compared with a loop over rasterio.

The field is random gravity at 2 arc-minutes (gridline, 451 x 901), rough at all wavelengths (spectrum k^-1.8, 60 mGal
rms), and its 10 km residual; the labels are the ten thousand polygons of benchmarks/rasterize.py at 15 arc-seconds.
`gravmap tile` runs with two threads in a separate process. So does the loop, with one thread: open, read the window
with out_shape 2048 x 2048 (bilinear; labels nearest), write float32 and uint8 as tiled DEFLATE with the defaults of
rasterio. It writes no mask of small bodies, palette, index and checksums, and it interpolates between cell centres: the
same extent, slightly less work. It runs on a random fraction of the windows of each scale (all with --fraction 1), and
its time is scaled up.

    python benchmarks/tiles.py [--fraction 0.1] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLAIN = """
import sys, time, json
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import from_bounds
from rasterio.windows import from_bounds as window_of

fields, labels, out, boxes = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
start, start_cpu = time.perf_counter(), time.process_time()
with rasterio.open(fields) as field, rasterio.open(labels) as label:
    for number, box in enumerate(boxes):
        for source, how, name in ((field, Resampling.bilinear, "field"), (label, Resampling.nearest, "label")):
            window = window_of(*box, transform=source.transform)
            values = source.read(1, window=window, out_shape=(2048, 2048), resampling=how)
            profile = dict(driver="GTiff", width=2048, height=2048, count=1, dtype=values.dtype, crs="EPSG:4326",
                           transform=from_bounds(*box, 2048, 2048), tiled=True, blockxsize=512, blockysize=512,
                           compress="deflate", nodata=source.nodata)
            with rasterio.open(f"{out}/{number}_{name}.tif", "w", **profile) as tile:
                tile.write(values, 1)
print(time.perf_counter() - start, time.process_time() - start_cpu)
"""

PREPARE = """
import sys
from pathlib import Path
import numpy as np, rasterio, xarray as xr
from rasterio.transform import from_bounds
sys.path.insert(0, sys.argv[2])
import rasterize as maps
from gravmap.geology import rasterize, write_labels
from gravmap.gravity import residual_fields, write_fields
from gravmap.regions import find_region

data = Path(sys.argv[1])
rng, rows, columns = np.random.default_rng(5), 451, 901
k = np.hypot(np.fft.fftfreq(2 * rows, 1 / 30)[:, None], np.fft.rfftfreq(2 * columns, 1 / 30)[None])  # cycles a degree
wave = (rng.normal(size=k.shape) + 1j * rng.normal(size=k.shape)) / np.maximum(k, 0.05) ** 1.8
gravity = np.fft.irfft2(wave, s=(2 * rows, 2 * columns))[:rows, :columns]
gravity = (gravity * 60 / gravity.std()).astype("f4")
coords = {"lat": 40 + np.arange(rows) / 30, "lon": 65 + np.arange(columns) / 30}
grid = xr.DataArray(gravity, dims=("lat", "lon"), coords=coords, name="bouguer", attrs={"units": "mGal"})
fields = residual_fields(grid, [10_000.0])
fields.attrs.setdefault("gravmap_sources", "[]")
write_fields(fields, data / "fields.nc")
residual = fields["residual_10km"].values[::-1]
print(f"residual: {residual.std():.1f} mGal rms")
half = 1 / 60
with rasterio.open(data / "plain.tif", "w", driver="GTiff", width=columns, height=rows, count=1, dtype="float32",
                   crs="EPSG:4326",
                   transform=from_bounds(65 - half, 40 - half, 95 + half, 55 + half, columns, rows)) as tile:
    tile.write(residual, 1)
maps.make_map(data / "map.gpkg", 10_000, invalid=False)
write_labels(data / "labels.tif", rasterize([(data / "map.gpkg", maps.LEGEND)], find_region("liu2024")))
"""


def run(words: list[str], folder: Path) -> tuple[float, float, float, str]:
    """Wall time, CPU time, peak memory in MB and output of one command."""
    measure = (
        "import resource, subprocess, sys; p = subprocess.run(sys.argv[1:], capture_output=True, text=True);"
        "print(p.stdout + p.stderr); used = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024); sys.exit(p.returncode)"
    )
    start = time.perf_counter()
    process = subprocess.run([sys.executable, "-c", measure, *words], cwd=folder, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(process.stdout + process.stderr)
    *text, used = process.stdout.strip().splitlines()
    cpu, peak = map(float, used.split())
    return seconds, cpu, peak, "\n".join(text).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--fraction", type=float, default=0.1, help="fraction of the windows of each scale for the plain loop"
    )
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        if not (data / "labels.tif").exists():
            print(run([sys.executable, "-c", PREPARE, str(data), str(Path(__file__).parent)], folder)[3])
        command = [sys.executable, "-m", "gravmap_cli", "tile", "--overwrite"]
        print(run([*command, "-n"], folder)[3].splitlines()[-1])
        seconds, cpu, peak, _ = run([*command, "--index-only"], folder)
        print(f"gravmap tile --index-only: {seconds:.1f} s ({cpu:.1f} s of CPU), peak {peak:.0f} MB")
        ours, cpu, peak, _ = run(command, folder)
        size = sum(path.stat().st_size for path in (data / "tiles").rglob("*") if path.is_file())
        print(f"gravmap tile: {ours:.1f} s ({cpu:.1f} s of CPU), {size / 1e9:.2f} GB, peak {peak:.0f} MB")
        plain, plain_cpu = plain_loop(data, options.fraction)
        print(f"plain loop over 536 windows: {plain:.0f} s ({plain_cpu:.0f} s of CPU)")
        print(f"gravmap is {plain / ours:.1f} times faster, and takes {cpu / plain_cpu:.2f} of the CPU")
        print(f"load after: {os.getloadavg()[0]:.1f}")


def plain_loop(data: Path, fraction: float) -> tuple[float, float]:
    """Wall and CPU time of the plain loop over all windows, extrapolated from a fraction of each scale."""
    import json

    from gravmap.tiling.tileset import plan_tiles

    tiles = plan_tiles(data / "fields.nc").tiles()
    out, total, total_cpu, size = data / "plain", 0.0, 0.0, 0.0
    for scale in dict.fromkeys(tile.scale for tile in tiles):
        boxes = [list(tile.window.bounds_wsen) for tile in tiles if tile.scale == scale]
        some = random.Random(0).sample(boxes, max(2, round(fraction * len(boxes))))
        out.mkdir()
        words = [str(data / "plain.tif"), str(data / "labels.tif"), str(out), json.dumps(some)]
        seconds, cpu = map(float, run([sys.executable, "-c", PLAIN, *words], data)[3].split())
        total += seconds * len(boxes) / len(some)
        total_cpu += cpu * len(boxes) / len(some)
        size += sum(path.stat().st_size for path in out.iterdir()) * len(boxes) / len(some)
        print(f"  plain, {scale.name}: {seconds / len(some):.3f} s a window ({len(some)} of {len(boxes)} run)")
        shutil.rmtree(out)
    print(f"  plain: {size / 1e9:.1f} GB")
    return total, total_cpu


if __name__ == "__main__":
    main()
