"""The installed commands on real data: gravity of EIGEN-6C4 and stratigraphic ages of geo3al.

Run from the repository: python benchmarks/real_input.py [--data DIR] [--workspace DIR] [--train-time 15min]
With `--baselines` no network is trained: the null models are scored on the native nodes of the test blocks, and of the
test windows of the random split, pooled over the five folds, with the class tables basement10 and bedrock10.
It is skipped if the data, which may not be distributed, are missing. The gravity grid is at 10 km height with a spacing
of 15 arc-minutes: `--height 10km` continues it upward to 20 km, and the residual is the difference between the two.
Scores of the network are of 2 arc-minute cells of the held-out blocks of one fold, with null models trained on the same
labels.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio

from gravmap.learning.data.dataset import RegionDataset, known_labels, to_target
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.learning.evaluation.null_models import NULL_MODELS, held_out_mask, null_maps
from gravmap.tiling import load_arrays

GRAVITY = Path("gravity") / "eigen6c4_bouguer_10km_15min_merged.nc"
GEOLOGY = Path("geo3al_decoded.gpkg")
CELL = "2arcmin"
PROTOCOLS = {"blocks": "held-out blocks", "random": "random windows, the paper's protocol"}


def gravmap(workspace: Path, *words: str) -> None:
    """Run one installed command; print its time and peak memory."""
    line = ["gravmap", "-w", str(workspace), *words]
    print(f"\n$ {' '.join(line)}", flush=True)
    start = time.perf_counter()
    done = subprocess.run(line, check=False)
    took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"  [{took:.1f} s; peak memory of the commands so far {peak:.2f} GiB]", flush=True)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--train-time", default="15min")
    parser.add_argument("--model", default="ggmnet")
    parser.add_argument("--size", default="256", help="pixels across a tile")
    parser.add_argument("--fold", default="0")
    parser.add_argument("--baselines", action="store_true", help="score the null models alone, on all folds")
    options = parser.parse_args()
    gravity, geology = options.data / GRAVITY, options.data / GEOLOGY
    if not (gravity.exists() and geology.exists()):
        print(f"Skipped: {gravity} or {geology} is missing.")
        return
    root = options.workspace or Path(tempfile.mkdtemp(prefix="gravmap-real-"))
    print(f"Workspace: {root}")
    if options.baselines:
        for classes in ("basement10", "bedrock10"):
            print("\n".join(["", *baseline_table(root / classes, gravity, geology, classes)]))
        return
    gravmap(root, "residual", str(gravity), "--height", "10km")
    gravmap(root, "rasterize", str(geology), "--legend", "geo3al")
    windows = [word for size in ("5deg", "10deg", "15deg") for word in ("--window", size)]
    gravmap(root, "tile", *windows, "--size", options.size)
    training = ["--gpus", "0", "--model", options.model, "--steps-per-epoch", "40", "--time-limit", options.train_time]
    gravmap(root, "train", *training, "--fold", options.fold, "--name", "real")
    gravmap(root, "predict", "--region", "junggar")
    gravmap(root, "predict", "--region", "liu2024", "--everywhere", "--fill-unmapped", "--resolution", CELL)
    print()
    for line in score(root, int(options.fold)):
        print(line)


def baseline_table(root: Path, gravity: Path, geology: Path, classes: str) -> list[str]:
    """Null models on the held-out nodes of five folds, pooled, under both protocols; a table in Markdown."""
    if not (root / "data" / "tiles" / "index.json").exists():
        gravmap(root, "residual", str(gravity), "--height", "10km")
        gravmap(root, "rasterize", str(geology), "--legend", "geo3al", "--classes", classes)
        gravmap(root, "tile", "--index-only", "--split", "blocks", "--split", "random")
    pooled: dict[str, dict[str, np.ndarray]] = {}
    nodes = {}
    for split in PROTOCOLS:
        for fold in range(5):
            dataset = RegionDataset.from_arrays(load_arrays(root / "data" / "tiles", split=split, fold=fold))
            labels, _ = dataset.node_truth()
            test, count = held_out_mask(dataset), len(dataset.classes)
            for key, values in null_maps(dataset).items():
                found = confusion(to_target(labels[test]), to_target(values[test]), count)
                of_null = pooled.setdefault(key, {})
                of_null[split] = of_null.get(split, 0) + found
                nodes[split] = int(of_null[split].sum())
    heads = [f"{title} ({nodes[split]} nodes)" for split, title in PROTOCOLS.items()]
    lines = [f"| {classes} | " + " | ".join(heads) + " |", "|" + "---|" * (1 + len(heads))]
    for key, by_split in pooled.items():
        rows = [scores(by_split[split]) for split in PROTOCOLS]
        cells = [" / ".join(f"{100 * row[name]:.1f}" for name in ("pa", "mpa", "fwiou")) for row in rows]
        lines.append(f"| {NULL_MODELS[key].title} | " + " | ".join(cells) + " |")
    return lines


def score(root: Path, fold: int) -> list[str]:
    """Score the network and the null models on the cells of the test blocks."""
    dataset = RegionDataset.from_arrays(load_arrays(root / "data" / "tiles", fold=fold))
    with rasterio.open(root / "maps" / "liu2024" / "lithology.tif") as raster:
        network = raster.read(1)
        west, north = raster.transform.c, raster.transform.f
        step_x, step_y = raster.transform.a, -raster.transform.e
    lat = north - (np.arange(network.shape[0]) + 0.5) * step_y
    lon = west + (np.arange(network.shape[1]) + 0.5) * step_x
    fine = on_cells(dataset, lat, lon)
    labels, _ = fine.node_truth()
    test, known = held_out_mask(fine), known_labels(fine)
    maps = {"network": network}
    maps |= {NULL_MODELS[key].title: values for key, values in null_maps(fine).items()}
    names = [entry["name"] for entry in dataset.classes]
    lines = [
        f"{int(test.sum())} bedrock cells of {CELL} in the test blocks of fold {fold}; {int((known > 0).sum())} known"
    ]
    lines.append(f"{'predictor':<34}{'PA':>7}{'MPA':>7}{'FWIoU':>7}")
    record = {}
    for name, values in maps.items():
        row = scores(confusion(to_target(labels[test]), to_target(values[test]), len(names)), names)
        record[name] = row
        lines.append(f"{name:<34}" + "".join(f"{100 * row[key]:>7.1f}" for key in ("pa", "mpa", "fwiou")))
    (root / "scores_on_blocks.json").write_text(json.dumps(record, indent=2))
    return lines


def on_cells(dataset: RegionDataset, lat: np.ndarray, lon: np.ndarray) -> RegionDataset:
    """Interpolate the fields of a dataset bilinearly to cell centres, whose cells are then scored."""
    from scipy.interpolate import RegularGridInterpolator

    points = np.stack(np.meshgrid(lat, lon, indexing="ij"), axis=-1)
    points[..., 0] = np.clip(points[..., 0], dataset.node_lat[-1], dataset.node_lat[0])
    points[..., 1] = np.clip(points[..., 1], dataset.node_lon[0], dataset.node_lon[-1])
    axes = (dataset.node_lat[::-1], dataset.node_lon)
    fields = np.stack([RegularGridInterpolator(axes, field[::-1])(points) for field in dataset.fields])
    return replace(
        dataset,
        fields=fields.astype(np.float32),
        field_valid=np.ones(fields.shape[1:], bool),
        field_nodes_wsen=np.array([lon[0], lat[-1], lon[-1], lat[0]]),
    )


if __name__ == "__main__":
    main()
