"""What improves a network on unseen regions: one change per row, on simulated crusts and on a real region.

Run from the repository: python benchmarks/remedies.py [--regions real:0 crust:0 ...] [--steps 300] [--workspace DIR]
A region is `crust:SEED` (240 x 360 cells, with known bedrock under cover) or `real:FOLD` (EIGEN-6C4 and geo3al, which
may not be redistributed: skipped if --data lacks them). For each, the installed commands make fields, labels and
windows, and the library trains the same small network once per row, with one change. Rows are cached in the workspace,
so an interrupted run is resumed; the table pools the test nodes of all regions of a kind, and compares every row with
the first one and with nearest outcrop by a paired bootstrap over blocks.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from real_input import GEOLOGY, GRAVITY, gravmap

from gravmap.files import atomic_path
from gravmap.learning.data.dataset import RegionDataset, to_target
from gravmap.learning.evaluation.comparison import block_numbers, paired_bootstrap
from gravmap.learning.evaluation.held_out import default_scales, node_logits
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.learning.evaluation.null_models import QUICK, held_out_mask, null_maps
from gravmap.learning.sampling.augmentation import PAPER, UNCHANGED, Augmentation
from gravmap.learning.training.checkpoint import load_model
from gravmap.learning.training.recipes import make_config
from gravmap.learning.training.run import train
from gravmap.synthetic import make_crust
from gravmap.synthetic.files import write_crust
from gravmap.tiling import load_arrays

SIZE_PX = 128
HEIGHTS = {"crust": (5, 10, 20, 40), "real": (10, 20, 40)}
WINDOWS = {"crust": ("2.5deg", "5deg"), "real": ("5deg", "10deg", "15deg")}
STRONG_AUGMENTATION = Augmentation(amplitude=(0.7, 1.3), offset_mgal=30.0)
"""Level and amplitude of the field vary far more than their uncertainty, so that neither identifies the place."""

BASE = "one residual (10 km)"
ROWS: dict[str, dict[str, Any]] = {
    BASE: {},
    "the field itself": {"inputs": ["bouguer"]},
    "the field and the residual": {"inputs": ["residual_10km", "bouguer"]},
    "the same, with strong augmentation of level and amplitude": {
        "inputs": ["residual_10km", "bouguer"],
        "augmentation": STRONG_AUGMENTATION,
    },
    "residuals at all heights": {"inputs": "residuals"},
    "the same, with strong augmentation of amplitude": {"inputs": "residuals", "augmentation": STRONG_AUGMENTATION},
    "the residual of the greatest height": {"inputs": "greatest"},
    "the residual and derivatives": {"inputs": "derivatives"},
    "the residual as colours, as in the paper": {"inputs": ["rgb:residual_10km"]},
    "the smallest windows alone": {"scales_deg": "smallest"},
    "the largest windows alone": {"scales_deg": "largest"},
    "no augmentation": {"augmentation": UNCHANGED},
    "the paper's augmentation": {"augmentation": PAPER},
    "our loss: the hardest 15 % of labelled pixels": {"topk_share": None},
    "the paper's loss: K of all pixels": {"topk_share": None, "topk_base": "all", "topk_warmup": 0.0},
    "3.2 million weights (ggmnet-small)": {"model": "ggmnet-small"},
    "U-Net, 1.9 million weights": {"model": "unet"},
}


def prepare(region: str, root: Path, options: argparse.Namespace) -> bool:
    """Compute fields, labels and windows of a region; False if its data are missing."""
    kind, number = region.split(":")
    if (root / "ready").exists():
        return True
    heights = [word for height in HEIGHTS[kind] for word in ("--height", f"{height}km")]
    windows = [word for size in WINDOWS[kind] for word in ("--window", size)]
    if kind == "real":
        gravity, geology = options.data / GRAVITY, options.data / GEOLOGY
        if not (gravity.exists() and geology.exists()):
            print(f"{region} is skipped: {gravity} or {geology} is missing.")
            return False
        legend = "geo3al"
    else:
        files = write_crust(make_crust(int(number), (240, 360)), root / "data" / "raw")
        gravity, geology, legend = files["gravity"], files["map"], "crust"
    gravmap(root, "residual", str(gravity), *heights, "--derivatives", "--overwrite")
    gravmap(root, "rasterize", str(geology), "--legend", legend, "--overwrite")
    gravmap(root, "tile", "--index-only", *windows, "--size", str(SIZE_PX), "--overwrite")
    (root / "ready").touch()
    return True


def open_dataset(region: str, root: Path) -> RegionDataset:
    kind, number = region.split(":")
    with rasterio.open(f"netcdf:{root / 'data' / 'fields.nc'}") as file:
        names = [each.rsplit(":", 1)[1] for each in file.subdatasets]
    residuals = [f"residual_{height}km" for height in HEIGHTS[kind]]
    others = [name for name in names if not name.startswith(("residual", "regional", "edge", "filled", "crs"))]
    derivatives = [name for name in others if name != "bouguer"]
    channels = [*residuals, "bouguer", *derivatives]
    return RegionDataset.from_arrays(
        load_arrays(root / "data" / "tiles", channels=channels, fold=int(number) * (kind == "real"))
    )


def configure(row: str, region: str, dataset: RegionDataset, options: argparse.Namespace) -> dict[str, Any]:
    kind = region.split(":")[0]
    config: dict[str, Any] = {"model": "ggmnet-tiny", "inputs": ["residual_10km"], "topk_share": 1.0, **ROWS[row]}
    residuals = [f"residual_{height}km" for height in HEIGHTS[kind]]
    derivatives = [name for name in dataset.channels if name not in (*residuals, "bouguer")]
    chosen = {"residuals": residuals, "greatest": residuals[-1:], "derivatives": ["residual_10km", *derivatives]}
    if isinstance(config["inputs"], str):
        config["inputs"] = chosen[config["inputs"]]
    if isinstance(config.get("scales_deg"), str):
        sizes = sorted(set(dataset.window_scale_deg.tolist()))
        config["scales_deg"] = sizes[:1] if config["scales_deg"] == "smallest" else sizes[-1:]
    epochs = 3
    # All rows use the same crops; the seed differs between regions.
    same = {"epochs": epochs, "steps": options.steps // epochs, "batch_size": 8, "lr": 2e-3, "device": "cpu"}
    return {**same, "seed": 100 + int(region.split(":")[1]), **config}


def one_row(row: str, region: str, dataset: RegionDataset, root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train and predict: classes (0 = none) at the test nodes and, on a crust, at the hidden nodes."""
    folder = root / "rows" / str(list(ROWS).index(row))
    start = time.perf_counter()
    config = make_config("default", **configure(row, region, dataset, options))
    folder.mkdir(parents=True, exist_ok=True)
    train(dataset, folder, config)
    trained_s = time.perf_counter() - start
    network, spec = load_model(folder)
    mask = held_out_mask(dataset)
    if region.startswith("crust"):
        mask = mask | (dataset.node_truth()[0] == 0)
    sizes = default_scales(spec.scales_deg, "cpu")
    settings = {"inputs": spec.input, "tile_size_px": spec.tile_size_px}
    logits = sum(node_logits(network, dataset, mask, scale_deg=size, **settings) for size in sizes)
    weights = sum(each.numel() for each in network.parameters())
    return {"map": np.asarray(logits).argmax(0) + 1, "seconds": trained_s, "weights": weights}


def table(kind: str, found: dict[str, dict[str, Any]], regions: list[str], roots: dict[str, Path]) -> list[str]:
    """Lines of the table of one kind of region: rows and null models, pooled over its regions."""
    datasets = {region: open_dataset(region, roots[region]) for region in regions}
    parts = {"held-out blocks": [held_out_mask(datasets[each]) for each in regions]}
    truths = [datasets[each].node_truth()[0] for each in regions]
    if kind == "crust":
        parts["under cover"] = [truth == 0 for truth in truths]
        below = []
        for each in regions:
            with rasterio.open(roots[each] / "data" / "raw" / "truth.tif") as raster:
                below.append(raster.read(1))
    nulls = [null_maps(datasets[each], None, which=QUICK) for each in regions]
    maps = {f"[{key}]": [null[key] for null in nulls] for key in nulls[0]}
    done = [row for row in ROWS if all(row in found[each] for each in regions)]
    maps = {row: [found[each][row]["map"] for each in regions] for row in done} | maps
    lines = []
    for part, wheres in parts.items():
        against = below if part == "under cover" else truths
        truth = np.concatenate([to_target(each[where]) for each, where in zip(against, wheres, strict=True)])
        blocks = np.concatenate(
            [1000 * n + block_numbers(datasets[e])[w] for n, (e, w) in enumerate(zip(regions, wheres, strict=True))]
        )
        flat = {
            name: np.concatenate(
                [to_target(each[where].astype(np.uint8)) for each, where in zip(of, wheres, strict=True)]
            )
            for name, of in maps.items()
        }
        lines += ["", f"{part} of {', '.join(regions)}: {truth.size} nodes, {len(np.unique(blocks))} blocks"]
        lines.append(f"{'':<50}{'PA':>6}{'MPA':>7}{'FWIoU':>7}   FWIoU over the first row     over nearest outcrop")
        for name, values in flat.items():
            row = scores(confusion(truth, values, int(max(truth.max(), values.max())) + 1))
            cells = "".join(f"{100 * row[key]:>{width}.1f}" for key, width in (("pa", 6), ("mpa", 7), ("fwiou", 7)))
            for other in (BASE, "[nearest_outcrop]"):
                if name == other or other not in flat:
                    cells += f"{'':>29}"
                    continue
                gap = paired_bootstrap(truth, values, flat[other], blocks)
                ends = f"({100 * (gap.low or 0):+.1f} to {100 * (gap.high or 0):+.1f})"
                cells += f"   {100 * gap.mean:>+6.1f} {ends:<19}"
            lines.append(f"{name:<50}{cells.rstrip()}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", nargs="+", default=["real:0", "crust:0", "real:1", "crust:1"])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--workspace", type=Path)
    options = parser.parse_args()
    folder = options.workspace or Path(tempfile.mkdtemp(prefix="gravmap-remedies-"))
    roots = {region: folder / region.replace(":", "-") for region in options.regions}
    found: dict[str, dict[str, Any]] = {}
    for region in options.regions:
        if not prepare(region, roots[region], options):
            continue
        dataset = open_dataset(region, roots[region])
        found[region] = {}
        for row in ROWS:
            record = roots[region] / "rows" / f"{list(ROWS).index(row)}.npz"
            if not record.exists():
                result = one_row(row, region, dataset, roots[region], options)
                with atomic_path(record) as temporary:
                    np.savez(
                        temporary, row=np.array(row), **{name: np.asarray(value) for name, value in result.items()}
                    )
                print(f"{region}: {row}: {result['seconds']:.0f} s, {result['weights']} weights", flush=True)
            with np.load(record) as arrays:
                assert str(arrays["row"]) == row, f"{record} belongs to another row: use another --workspace"
                found[region][row] = {"map": arrays["map"], "seconds": float(arrays["seconds"])}
        for kind in ("real", "crust"):
            same_kind = [each for each in found if each.startswith(kind)]
            if same_kind and region.startswith(kind):
                lines = table(kind, found, same_kind, roots)
                print("\n".join(lines), flush=True)
                (folder / f"table-{kind}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
