"""A trained network beside gravity-only random forests on synthetic crusts, scored under cover.

Run from the repository: python benchmarks/crust_scores.py [--seeds 0 1] [--shape 240 360] [--train-time 15min]
For every seed a crust is written, the installed commands run on its gravity and its surface map (residual, rasterize,
tile, train with held-out blocks, predict), and the map is scored on the cells whose bedrock is hidden, beside the null
models and random forests that saw the same training outcrop: one with the network's own channels, one with the field,
residuals at four heights and the horizontal gradient. Needs scikit-learn for the forests.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from real_input import gravmap
from sklearn.ensemble import RandomForestClassifier

from gravmap.gravity import open_fields
from gravmap.learning import baselines
from gravmap.learning.area import TRAIN, Area
from gravmap.learning.metrics import confusion, scores
from gravmap.learning.target import to_target
from gravmap.mapping.under_cover import FAR_KM, score_under_cover
from gravmap.synthetic import make_crust
from gravmap.tiling import load_arrays

HEIGHTS_KM = (5, 10, 20, 40)


def forest(known: NDArray[np.uint8], features: NDArray[np.float32], seed: int) -> NDArray[np.uint8]:
    """Classes at every node by a random forest taught at the known nodes; features (C, ny, nx)."""
    table = features.reshape(len(features), -1).T
    taught = known.ravel() > 0
    # Leaves of some twenty nodes: single nodes of a smooth field are no independent samples.
    trees = RandomForestClassifier(
        200, min_samples_leaf=20, class_weight="balanced_subsample", n_jobs=-1, random_state=seed
    )
    trees.fit(table[taught], known.ravel()[taught])
    return trees.predict(table).reshape(known.shape).astype(np.uint8)


def all_gravity(fields: Path, area: Area) -> NDArray[np.float32]:
    """The field, its residuals, and the size of the horizontal gradient at the area's nodes, north up."""
    with open_fields(fields) as dataset:
        names = ["bouguer", *(f"residual_{height}km" for height in HEIGHTS_KM)]
        layers = [dataset[name].values[::-1].astype(np.float32) for name in names]
    dy, dx = baselines.spacing_yx_km(area.node_lat, area.node_lon)
    rise_y, rise_x = np.gradient(layers[0])
    return np.stack([*layers, np.hypot(rise_y / dy, rise_x / dx).astype(np.float32)])


def one_crust(root: Path, seed: int, options: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    crust = make_crust(seed, tuple(options.shape))
    files = crust.write(root / "data" / "raw")
    west, south, east, north = crust.bounds_wsen
    (root / "regions.toml").write_text(f"crust = [{west:.10g}, {south:.10g}, {east:.10g}, {north:.10g}]\n")
    heights = [word for height in HEIGHTS_KM for word in ("--height", f"{height}km")]
    gravmap(root, "residual", str(files["gravity"]), *heights)
    gravmap(root, "rasterize", str(files["map"]), "--legend", "crust")
    windows = [word for size in ("2.5deg", "5deg") for word in ("--window", size)]
    gravmap(root, "tile", "--index-only", *windows, "--size", str(options.size))
    training = ["--gpus", "0", "--model", options.model, "--input", options.input, "--steps", "40"]
    training += [
        "--recipe",
        str(Path(options.recipe).absolute() if options.recipe.endswith(".toml") else options.recipe),
    ]
    predicting = ["--flips"] if options.flips else []
    for number in range(options.runs):
        # Another seed draws other weights and crops; what is held out stays the same.
        own = ["--seed", str(100 * number + seed), "--name", f"crust{number}"]
        gravmap(root, "train", *training, "--time-limit", options.train_time, *own)
        predicting += ["--run", f"crust{number}"]
    gravmap(root, "predict", "--region", "crust", *predicting)
    channels = options.input.split(",")
    area = Area.from_arrays(load_arrays(root / "data" / "tiles", channels=channels))
    with rasterio.open(root / "maps" / "crust" / "lithology.tif") as raster:
        mapped = raster.read(1)
    with rasterio.open(files["truth"]) as raster:
        truth = raster.read(1)
    found = score_under_cover(area, mapped, truth)
    for line in found.table():
        print(line)
    surface, role = area.node_truth()
    hidden = surface == 0
    known = np.where((role == TRAIN) & (surface > 0) & (surface != 255), surface, 0).astype(np.uint8)
    far = hidden & (baselines.distance_to_outcrop_km(known, area.node_lat, area.node_lon) > FAR_KM)
    names = [entry["name"] for entry in area.classes]
    rows = dict(found.scores)
    own = {
        "forest, the network's channels": area.fields,
        "forest, all gravity": all_gravity(root / "data/fields.nc", area),
    }
    for name, features in own.items():
        guess = forest(known, features, seed)
        parts = {"all": hidden, "far": far}
        rows[name] = {
            part: scores(confusion(to_target(truth[where]), to_target(guess[where]), len(names)), names)
            for part, where in parts.items()
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--shape", type=int, nargs=2, default=[240, 360])
    parser.add_argument("--model", default="ggmnet-small")
    parser.add_argument("--input", default="residual_10km")
    parser.add_argument("--recipe", default="default", help="default, paper or a .toml file")
    parser.add_argument("--size", type=int, default=256, help="pixels across a tile")
    parser.add_argument("--train-time", default="15min", help="of each run")
    parser.add_argument("--runs", type=int, default=1, help="networks that predict together")
    parser.add_argument("--flips", action="store_true", help="average over mirrored fields")
    parser.add_argument("--workspace", type=Path)
    options = parser.parse_args()
    start = time.perf_counter()
    folder = options.workspace or Path(tempfile.mkdtemp(prefix="gravmap-crusts-"))
    rows = [one_crust(folder / f"seed{seed}", seed, options) for seed in options.seeds]
    print(
        f"\n{options.model}, {options.input}, {options.shape} cells, {options.runs} x {options.train_time} of training,"
    )
    print(f"{len(rows)} crusts, {time.perf_counter() - start:.0f} s; mean of the crusts, percent: PA MPA FWIoU")
    print(f"{'under cover':<34}{'all hidden cells':>22}   {f'farther than {FAR_KM:g} km':>22}")
    for name in rows[0]:
        cells = ""
        for part in ("all", "far"):
            for key in ("pa", "mpa", "fwiou"):
                cells += f"{100 * np.mean([row[name][part][key] for row in rows]):8.1f}"
            cells += "  "
        print(f"{name:<34}{cells}")


if __name__ == "__main__":
    main()
