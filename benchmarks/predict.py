"""Time of predicting a study area, and memory of predicting a larger region: `python benchmarks/predict.py`.

A synthetic field of 30 x 15 degrees at 2 arc-minutes, and networks with random weights, which cost the same as trained
ones. The first table has time, windows and pixels per second of each network, from `fields.nc` to the finished map. The
second has the peak memory of a region and of one ten times larger, with small tiles, so that the memory of the network
does not dominate. Each prediction is a separate process; those of the first table alternate, so that other load on the
machine affects all of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

STUDY_WSEN = (65.0, 40.0, 95.0, 55.0)
LARGE_WSEN = (20.0, 10.0, 115.0, 57.0)  # ten times the degrees of the study area
MODELS = ("ggmnet-small", "smp:unet:resnet34")
STEP_DEG = 1 / 30


def write_field(path: Path, bounds_wsen: tuple[float, ...]) -> None:
    """Write smooth noise as fields, in the format of `gravmap residual`."""
    import xarray as xr
    from scipy.ndimage import gaussian_filter

    from gravmap.gravity import write_fields

    west, south, east, north = bounds_wsen
    lat = south + STEP_DEG * (np.arange(round((north - south) / STEP_DEG)) + 0.5)
    lon = west + STEP_DEG * (np.arange(round((east - west) / STEP_DEG)) + 0.5)
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(lat.size, lon.size)).astype(np.float32), 3)
    described = {"units": "mGal", "height_m": 0.0}
    arrays = {
        name: xr.DataArray(
            factor / noise.std() * noise, dims=("lat", "lon"), coords={"lat": lat, "lon": lon}, attrs=described
        )
        for name, factor in (("bouguer", 50.0), ("residual_10km", 10.0))
    }
    recipe = {"quantity": "bouguer", "heights_m": [10_000.0], "spacing_deg": [STEP_DEG, STEP_DEG]}
    write_fields(xr.Dataset(arrays, attrs={"gravmap_recipe": json.dumps(recipe)}), path)


def write_run(folder: Path, model: str, size_px: int, scales_deg: list[float]) -> None:
    """Write a run with an untrained network."""
    import torch

    from gravmap.geology import load_legend
    from gravmap.learning.training.checkpoint import ModelSpec, save_model
    from gravmap.network import build

    torch.manual_seed(0)
    classes = load_legend("basement10").bedrock
    network = build(model, in_channels=1, classes=len(classes))
    spec = ModelSpec(
        model=model,
        architecture=network.architecture.to_dict(),
        inputs=[{"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 10.0}],
        classes=[{"index": entry.index, "name": entry.name, "colour": entry.colour, "age": ""} for entry in classes],
        tile_size_px=size_px,
        scales_deg=scales_deg,
        field_recipe={"quantity": "bouguer", "heights_m": [10_000.0], "spacing_deg": [STEP_DEG, STEP_DEG]},
        split={"name": "none"},
        seed=0,
    )
    save_model(folder, network, spec)


def predict_once(workspace: Path, run: str, bounds_wsen: list[float], device: str, batch_size: int) -> None:
    """Predict in this process and print time and memory as JSON."""
    import torch

    from gravmap.mapping import Options, predict
    from gravmap.regions import Region

    window_times: list[float] = []
    blended: list[int] = []

    def progress(done: int, total: int, note: str = "") -> None:
        if note == "windows":
            window_times.append(time.perf_counter())
        elif note == "files of the map":
            blended.append(peak_bytes())

    options = Options(device=device, batch_size=batch_size)
    with tempfile.TemporaryDirectory(dir=workspace) as scratch:
        start = time.perf_counter()
        region = Region(*bounds_wsen)
        made = predict(
            workspace / f"{run.split('-at-')[-1]}.nc",
            workspace / run,
            region,
            Path(scratch) / "map",
            options=options,
            progress=progress,
        )
        seconds = time.perf_counter() - start
    result = {
        "seconds": seconds,
        "window_seconds": window_times[-1] - window_times[0],
        "windows": len(made.plan.jobs),
        "cells": made.plan.grid.shape[0] * made.plan.grid.shape[1],
        "pixels": len(made.plan.jobs) * made.plan.tile_size_px[0] ** 2,
        "blended_bytes": blended[0],
        "peak_bytes": peak_bytes(),
        "gpu_bytes": torch.cuda.max_memory_allocated() if made.plan.device == "cuda" else 0,
    }
    print(json.dumps(result))


def peak_bytes() -> int:
    """Return the peak memory of this process; `ru_maxrss` would include its parent's when it was started."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def in_process(workspace: Path, run: str, bounds_wsen: tuple[float, ...], options: argparse.Namespace) -> dict:
    """Run :func:`predict_once` in a separate process."""
    arguments = [sys.executable, __file__, "--once", str(workspace), run, *map(str, bounds_wsen)]
    arguments += ["--device", options.device, "--batch-size", str(options.batch_size)]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def speed(workspace: Path, options: argparse.Namespace) -> None:
    """Print the table of times."""
    rows: dict[str, list[dict]] = {}
    for model in MODELS:
        write_run(workspace / f"{model.replace(':', '_')}-at-study", model, options.size, options.scales)
    for _ in range(options.repeats):
        for model in MODELS:
            made = in_process(workspace, f"{model.replace(':', '_')}-at-study", options.bounds, options)
            rows.setdefault(model, []).append(made)
    print(f"{'model':>18} {'windows':>8} {'cells':>9} {'s':>8} {'s, windows alone':>17} {'Mpx/s':>7} {'peak MB':>8}")
    for model, made in rows.items():
        best = min(made, key=lambda each: each["seconds"])
        rate = best["pixels"] / 1e6 / best["window_seconds"]
        gpu = f"  GPU {best['gpu_bytes'] / 1e6:.0f} MB" if best["gpu_bytes"] else ""
        print(
            f"{model:>18} {best['windows']:>8} {best['cells']:>9} {best['seconds']:>8.1f}"
            f" {best['window_seconds']:>17.1f} {rate:>7.2f} {best['peak_bytes'] / 1e6:>8.0f}{gpu}",
            flush=True,
        )


def memory(workspace: Path, options: argparse.Namespace) -> None:
    """Print the table of memory."""
    write_field(workspace / "large.nc", options.large)
    write_run(workspace / "ggmnet-tiny-at-large", "ggmnet-tiny", 256, [5.0, 10.0])
    west, south, east, north = options.large
    fraction = 10**-0.5
    part = (west, south, west + fraction * (east - west), south + fraction * (north - south))
    made = [in_process(workspace, "ggmnet-tiny-at-large", bounds, options) for bounds in (part, options.large)]
    print(f"\n{'region':>18} {'windows':>8} {'cells':>9} {'s':>8} {'MB, all blended':>16} {'peak MB, files too':>19}")
    for name, each in zip(("a tenth", "the whole"), made, strict=True):
        print(
            f"{name:>18} {each['windows']:>8} {each['cells']:>9} {each['seconds']:>8.1f}"
            f" {each['blended_bytes'] / 1e6:>16.0f} {each['peak_bytes'] / 1e6:>19.0f}"
        )
    ratios = [made[1][key] / made[0][key] for key in ("blended_bytes", "peak_bytes")]
    print(f"ratio of the whole to the tenth: {ratios[0]:.2f} until all blocks are blended, {ratios[1]:.2f} in total")


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", nargs=6, help=argparse.SUPPRESS)
    parser.add_argument("--bounds", type=float, nargs=4, default=STUDY_WSEN, metavar=("W", "S", "E", "N"))
    parser.add_argument("--large", type=float, nargs=4, default=LARGE_WSEN, metavar=("W", "S", "E", "N"))
    parser.add_argument("--size", type=int, default=2048, help="pixels across a window")
    parser.add_argument("--scales", type=float, nargs="+", default=[5.0, 10.0], help="degrees")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--skip", choices=("speed", "memory"), help="omit one table")
    options = parser.parse_args()
    if options.once:
        workspace, run, *bounds = options.once
        predict_once(Path(workspace), run, [float(side) for side in bounds], options.device, options.batch_size)
        return 0
    import torch

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, device {options.device}\n")
    with tempfile.TemporaryDirectory(prefix="gravmap-") as scratch:
        workspace = Path(scratch)
        if options.skip != "speed":
            write_field(workspace / "study.nc", options.bounds)
            speed(workspace, options)
        if options.skip != "memory":
            memory(workspace, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
