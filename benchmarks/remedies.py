"""What helps a network on ground whose labels it never saw: every choice as its own row, on a crust and on real ground.

Run from the repository: python benchmarks/remedies.py [--grounds real:0 crust:0 ...] [--steps 300] [--workspace DIR]
A ground is `crust:SEED` (240 x 360 cells, truth under cover known) or `real:FOLD` (EIGEN-6C4 and geo3al, which may
not be distributed: left out where --data has none). For each, the installed commands make fields, labels and
windows, and the library trains the same small network once per row, with one thing changed. Rows are kept in the
workspace, so the script goes on where it was stopped; the table pools the test nodes of all grounds of a kind, and
sets every row against the first one and against nearest outcrop by a paired bootstrap over blocks.
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
from gravmap.learning.training.trainer import train
from gravmap.synthetic import make_crust, write_crust
from gravmap.tiling import load_arrays

SIZE_PX = 128
HEIGHTS = {"crust": (5, 10, 20, 40), "real": (10, 20, 40)}
WINDOWS = {"crust": ("2.5deg", "5deg"), "real": ("5deg", "10deg", "15deg")}
SHAKEN = Augmentation(amplitude=(0.7, 1.3), offset_mgal=30.0)
"""Level and amplitude of the field changed far more than they are uncertain, so that neither tells the place."""

BASE = "one residual (10 km)"
ROWS: dict[str, dict[str, Any]] = {
    BASE: {},
    "the field itself": {"inputs": ["bouguer"]},
    "the field and the residual": {"inputs": ["residual_10km", "bouguer"]},
    "the same, level and amplitude shaken": {"inputs": ["residual_10km", "bouguer"], "augmentation": SHAKEN},
    "residuals at all heights": {"inputs": "residuals"},
    "the same, amplitude shaken": {"inputs": "residuals", "augmentation": SHAKEN},
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


def prepare(ground: str, root: Path, options: argparse.Namespace) -> bool:
    """Fields, labels and windows of a ground; False where its data is not there."""
    kind, number = ground.split(":")
    if (root / "ready").exists():
        return True
    heights = [word for height in HEIGHTS[kind] for word in ("--height", f"{height}km")]
    windows = [word for size in WINDOWS[kind] for word in ("--window", size)]
    if kind == "real":
        gravity, geology = options.data / GRAVITY, options.data / GEOLOGY
        if not (gravity.exists() and geology.exists()):
            print(f"{ground} is left out: {gravity} or {geology} is not there.")
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


def open_area(ground: str, root: Path) -> RegionDataset:
    kind, number = ground.split(":")
    with rasterio.open(f"netcdf:{root / 'data' / 'fields.nc'}") as file:
        names = [each.rsplit(":", 1)[1] for each in file.subdatasets]
    residuals = [f"residual_{height}km" for height in HEIGHTS[kind]]
    others = [name for name in names if not name.startswith(("residual", "regional", "edge", "filled", "crs"))]
    derivatives = [name for name in others if name != "bouguer"]
    channels = [*residuals, "bouguer", *derivatives]
    return RegionDataset.from_arrays(
        load_arrays(root / "data" / "tiles", channels=channels, fold=int(number) * (kind == "real"))
    )


def configure(row: str, ground: str, area: RegionDataset, options: argparse.Namespace) -> dict[str, Any]:
    kind = ground.split(":")[0]
    said: dict[str, Any] = {"model": "ggmnet-tiny", "inputs": ["residual_10km"], "topk_share": 1.0, **ROWS[row]}
    residuals = [f"residual_{height}km" for height in HEIGHTS[kind]]
    derivatives = [name for name in area.channels if name not in (*residuals, "bouguer")]
    chosen = {"residuals": residuals, "greatest": residuals[-1:], "derivatives": ["residual_10km", *derivatives]}
    if isinstance(said["inputs"], str):
        said["inputs"] = chosen[said["inputs"]]
    if isinstance(said.get("scales_deg"), str):
        sizes = sorted(set(area.window_scale_deg.tolist()))
        said["scales_deg"] = sizes[:1] if said["scales_deg"] == "smallest" else sizes[-1:]
    epochs = 3
    # All rows take the same crops of the same numbers; the seed differs from ground to ground.
    same = {"epochs": epochs, "steps": options.steps // epochs, "batch_size": 8, "lr": 2e-3, "device": "cpu"}
    return {**same, "seed": 100 + int(ground.split(":")[1]), **said}


def one_row(row: str, ground: str, area: RegionDataset, root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train and ask: classes (0 = none) at the test nodes and, on a crust, at the hidden nodes."""
    folder = root / "rows" / str(list(ROWS).index(row))
    start = time.perf_counter()
    config = make_config("default", **configure(row, ground, area, options))
    folder.mkdir(parents=True, exist_ok=True)
    train(area, folder, config)
    trained_s = time.perf_counter() - start
    network, spec = load_model(folder)
    wanted = held_out_mask(area)
    if ground.startswith("crust"):
        wanted = wanted | (area.node_truth()[0] == 0)
    sizes = default_scales(spec.scales_deg, "cpu")
    asking = {"inputs": spec.input, "tile_size_px": spec.tile_size_px}
    logits = sum(node_logits(network, area, wanted, scale_deg=size, **asking) for size in sizes)
    weights = sum(each.numel() for each in network.parameters())
    return {"map": np.asarray(logits).argmax(0) + 1, "seconds": trained_s, "weights": weights}


def table(kind: str, found: dict[str, dict[str, Any]], grounds: list[str], roots: dict[str, Path]) -> list[str]:
    """Lines of the table of one kind of ground: rows and null models, pooled over its grounds."""
    areas = {ground: open_area(ground, roots[ground]) for ground in grounds}
    parts = {"held-out blocks": [held_out_mask(areas[each]) for each in grounds]}
    truths = [areas[each].node_truth()[0] for each in grounds]
    if kind == "crust":
        parts["under cover"] = [truth == 0 for truth in truths]
        below = []
        for each in grounds:
            with rasterio.open(roots[each] / "data" / "raw" / "truth.tif") as raster:
                below.append(raster.read(1))
    nulls = [null_maps(areas[each], None, which=QUICK) for each in grounds]
    maps = {f"[{key}]": [null[key] for null in nulls] for key in nulls[0]}
    done = [row for row in ROWS if all(row in found[each] for each in grounds)]
    maps = {row: [found[each][row]["map"] for each in grounds] for row in done} | maps
    lines = []
    for part, wheres in parts.items():
        against = below if part == "under cover" else truths
        truth = np.concatenate([to_target(each[where]) for each, where in zip(against, wheres, strict=True)])
        blocks = np.concatenate(
            [1000 * n + block_numbers(areas[e])[w] for n, (e, w) in enumerate(zip(grounds, wheres, strict=True))]
        )
        flat = {
            name: np.concatenate(
                [to_target(each[where].astype(np.uint8)) for each, where in zip(of, wheres, strict=True)]
            )
            for name, of in maps.items()
        }
        lines += ["", f"{part} of {', '.join(grounds)}: {truth.size} nodes, {len(np.unique(blocks))} blocks"]
        lines.append(f"{'':<50}{'PA':>6}{'MPA':>7}{'FWIoU':>7}   FWIoU over the first row     over nearest outcrop")
        for name, values in flat.items():
            row = scores(confusion(truth, values, int(max(truth.max(), values.max())) + 1))
            told = "".join(f"{100 * row[key]:>{width}.1f}" for key, width in (("pa", 6), ("mpa", 7), ("fwiou", 7)))
            for other in (BASE, "[nearest_outcrop]"):
                if name == other or other not in flat:
                    told += f"{'':>29}"
                    continue
                gap = paired_bootstrap(truth, values, flat[other], blocks)
                ends = f"({100 * (gap.low or 0):+.1f} to {100 * (gap.high or 0):+.1f})"
                told += f"   {100 * gap.mean:>+6.1f} {ends:<19}"
            lines.append(f"{name:<50}{told.rstrip()}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grounds", nargs="+", default=["real:0", "crust:0", "real:1", "crust:1"])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--workspace", type=Path)
    options = parser.parse_args()
    folder = options.workspace or Path(tempfile.mkdtemp(prefix="gravmap-remedies-"))
    roots = {ground: folder / ground.replace(":", "-") for ground in options.grounds}
    found: dict[str, dict[str, Any]] = {}
    for ground in options.grounds:
        if not prepare(ground, roots[ground], options):
            continue
        area = open_area(ground, roots[ground])
        found[ground] = {}
        for row in ROWS:
            kept = roots[ground] / "rows" / f"{list(ROWS).index(row)}.npz"
            if not kept.exists():
                made = one_row(row, ground, area, roots[ground], options)
                with atomic_path(kept) as temporary:
                    np.savez(temporary, row=np.array(row), **{name: np.asarray(value) for name, value in made.items()})
                print(f"{ground}: {row}: {made['seconds']:.0f} s, {made['weights']} weights", flush=True)
            with np.load(kept) as arrays:
                assert str(arrays["row"]) == row, f"{kept} is of another row: take another --workspace"
                found[ground][row] = {"map": arrays["map"], "seconds": float(arrays["seconds"])}
        for kind in ("real", "crust"):
            alike = [each for each in found if each.startswith(kind)]
            if alike and ground.startswith(kind):
                lines = table(kind, found, alike, roots)
                print("\n".join(lines), flush=True)
                (folder / f"table-{kind}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
