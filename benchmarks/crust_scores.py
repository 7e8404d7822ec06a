"""A trained network beside every null model on synthetic crusts, scored under cover.

Run from the repository: python benchmarks/crust_scores.py [--seeds 0 1] [--shape 240 360] [--train-time 15min]
For every seed a crust is written, the installed commands run on its gravity and its surface map (residual, rasterize,
tile, train with held-out blocks, predict), and the map is scored on the cells whose bedrock is hidden, beside the null
models with the same training outcrop. Those that learn from gravity are computed twice: on the fields that the network
reads, and on the field with residuals at four heights. They need scikit-learn: pip install ".[peers]".
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from real_input import gravmap

from gravmap.learning.data.dataset import RegionDataset, known_labels, to_target
from gravmap.learning.data.outcrop_context import distance_to_outcrop_km
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.learning.evaluation.null_models import NULL_MODELS, null_maps
from gravmap.mapping.scoring.under_cover import ALL, FAR, STRATA, score_under_cover
from gravmap.synthetic import make_crust
from gravmap.synthetic.files import write_crust
from gravmap.tiling import load_arrays

HEIGHTS_KM = (5, 10, 20, 40)


def all_gravity(root: Path) -> RegionDataset:
    """The dataset of the tile set with the field and all residuals, whatever the network reads."""
    channels = ["bouguer", *(f"residual_{height}km" for height in HEIGHTS_KM)]
    return RegionDataset.from_arrays(load_arrays(root / "data" / "tiles", channels=channels))


def one_crust(root: Path, seed: int, options: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    crust = make_crust(seed, tuple(options.shape))
    files = write_crust(crust, root / "data" / "raw")
    west, south, east, north = crust.bounds_wsen
    (root / "regions.toml").write_text(f"crust = [{west:.10g}, {south:.10g}, {east:.10g}, {north:.10g}]\n")
    heights = [word for height in HEIGHTS_KM for word in ("--height", f"{height}km")]
    gravmap(root, "residual", str(files["gravity"]), *heights)
    gravmap(root, "rasterize", str(files["map"]), "--legend", "crust")
    windows = [word for size in ("2.5deg", "5deg") for word in ("--window", size)]
    gravmap(root, "tile", "--index-only", *windows, "--size", str(options.size))
    training = ["--gpus", "0", "--model", options.model, "--input", options.input, "--steps-per-epoch", "40"]
    training += [
        "--recipe",
        str(Path(options.recipe).absolute() if options.recipe.endswith(".toml") else options.recipe),
    ]
    predicting = ["--flips"] if options.flips else []
    for number in range(options.runs):
        # The seed changes weights and crops, not the held-out data.
        own = ["--seed", str(100 * number + seed), "--name", f"crust{number}"]
        gravmap(root, "train", *training, "--time-limit", options.train_time, *own)
        predicting += ["--run", f"crust{number}"]
    gravmap(root, "predict", "--region", "crust", *predicting)
    channels = options.input.split(",")
    dataset = RegionDataset.from_arrays(load_arrays(root / "data" / "tiles", channels=channels))
    with rasterio.open(root / "maps" / "crust" / "lithology.tif") as raster:
        mapped = raster.read(1)
    with rasterio.open(files["truth"]) as raster:
        truth = raster.read(1)
    found = score_under_cover(dataset, mapped, truth)
    for line in found.table():
        print(line)
    surface, _ = dataset.node_truth()
    hidden = surface == 0
    far = hidden & (distance_to_outcrop_km(known_labels(dataset), dataset.node_lat, dataset.node_lon) > STRATA[FAR][0])
    names = [entry["name"] for entry in dataset.classes]
    rows = dict(found.scores)
    sklearn_models = [key for key, model in NULL_MODELS.items() if model.needs_sklearn]
    predictions = {
        NULL_MODELS[key].title: predicted
        for key, predicted in null_maps(dataset, None, seed=seed, which=sklearn_models).items()
    }
    all_fields = null_maps(all_gravity(root), None, seed=seed, which=["gravity_forest", "gravity_boosting"])
    predictions |= {f"{NULL_MODELS[key].title}, all of it": predicted for key, predicted in all_fields.items()}
    for name, predicted in predictions.items():
        rows[name] = {
            part: scores(confusion(to_target(truth[where]), to_target(predicted[where]), len(names)), names)
            for part, where in {ALL: hidden, FAR: far}.items()
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
    parser.add_argument("--runs", type=int, default=1, help="size of the ensemble")
    parser.add_argument("--flips", action="store_true", help="test-time augmentation with flips")
    parser.add_argument("--workspace", type=Path)
    options = parser.parse_args()
    start = time.perf_counter()
    folder = options.workspace or Path(tempfile.mkdtemp(prefix="gravmap-crusts-"))
    rows = [one_crust(folder / f"seed{seed}", seed, options) for seed in options.seeds]
    print(
        f"\n{options.model}, {options.input}, {options.shape} cells, {options.runs} x {options.train_time} of training,"
    )
    print(f"{len(rows)} crusts, {time.perf_counter() - start:.0f} s; mean of the crusts, percent: PA MPA FWIoU")
    print(f"{'under cover':<44}{'all hidden cells':>22}   {f'{FAR} from outcrop':>22}")
    for name in rows[0]:
        cells = ""
        for part in (ALL, FAR):
            for key in ("pa", "mpa", "fwiou"):
                cells += f"{100 * np.mean([row[name][part][key] for row in rows]):8.1f}"
            cells += "  "
        print(f"{name:<44}{cells}")


if __name__ == "__main__":
    main()
