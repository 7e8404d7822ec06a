"""Networks that start from mapped outcrop, on real ground they never saw: beside the null models, fold by fold.

    python benchmarks/real_ground.py --workspace DIR [--data DIR] [--folds 0 1 2 3 4]

The ground is that of real_input.py: gravity of EIGEN-6C4, 15 arc-minutes, at 10 km height, and stratigraphic ages of
geo3al; it may not be distributed, and the script skips where it is not there. `gravmap residual`, `rasterize` and
`tile` prepare it, `gravmap train --context outcrop` teaches on the outcrop of each fold: two networks from scratch,
and one that begins with weights taught on crusts. The weights that gravmap ships cannot serve: they read five
residuals of a field of 2 arc-minutes at height 0, which this one does not hold, and are refused. So others are taught,
on crusts seen as this field is (:mod:`crusts_at_height`).

Every run that is finished is kept in the workspace, so the script goes on where it was stopped. Scored are the native
nodes of the test blocks, with the functions of `gravmap evaluate`: the same nodes for all, pooled over the folds, and
a paired bootstrap over blocks.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from crusts_at_height import HEIGHTS_KM, teach_on_crusts
from real_input import GEOLOGY, GRAVITY, gravmap

from gravmap.lattice import TEST
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.data.outcrop_context import is_context, with_context
from gravmap.learning.evaluation.comparison import ScoredNodes, paired_bootstrap
from gravmap.learning.evaluation.importance import draw_offsets, shift_input
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.learning.evaluation.node_predictor import predict_class_map
from gravmap.learning.evaluation.null_models import NULL_MODELS, QUICK, known_labels, null_maps
from gravmap.mapping.scoring.evaluation_nodes import EvaluationNodes
from gravmap.tiling import load_arrays

WINDOW, SIZE_PX = "12.8deg", 384
"""Crops are half as wide, 6.4 degrees, in pixels of 2 arc-minutes, as the network's own pixels suppose."""

INPUT = ",".join(f"residual_{height}km" for height in HEIGHTS_KM)
ON_CRUSTS = "taught-on-crusts"
LEARN = ["--context", "outcrop", "--recipe", "crusts", "--epochs", "5", "--steps-per-epoch", "40", "--device", "cpu"]

ROWS = {
    "unet": ["--input", INPUT, "--lr", "1e-3"],
    "ggmnet-tiny": ["--model", "ggmnet-tiny", "--size", "128", "--batch-size", "8", "--input", INPUT, "--lr", "1e-3"],
    "crusts-then-outcrop": ["--init", ON_CRUSTS, "--lr", "3e-4"],
}
TITLES = {
    "unet": "residual U-Net, outcrop alone",
    "ggmnet-tiny": "`ggmnet-tiny`, outcrop alone",
    ON_CRUSTS: "residual U-Net, crusts alone",
    "crusts-then-outcrop": "residual U-Net, crusts, then outcrop",
}
AGAINST = ("label_diffusion", "label_diffusion_gravity", "nearest_outcrop")
MEASURES = ("pa", "mpa", "fwiou")
OWN = ""


def prepare(root: Path, data: Path) -> None:
    """Fields, labels and windows, by the installed commands."""
    if (root / "data" / "tiles" / "index.json").exists():
        return
    heights = [word for height in HEIGHTS_KM for word in ("--height", f"{height}km")]
    gravmap(root, "residual", str(data / GRAVITY), *heights)
    gravmap(root, "rasterize", str(data / GEOLOGY), "--legend", "geo3al")
    gravmap(root, "tile", "--index-only", "--window", WINDOW, "--stride", "3.2deg", "--size", str(SIZE_PX))


def ground_of(root: Path, fold: int) -> RegionDataset:
    """The region with one fold held out, and the outcrop that training sees as context."""
    arrays = load_arrays(root / "data" / "tiles", channels=INPUT.split(","), split="blocks", fold=fold)
    area = RegionDataset.from_arrays(arrays)
    return with_context(area, known_labels(area))


def changed(area: RegionDataset) -> dict[str, RegionDataset]:
    """The area as it is, and its outcrop with other gravity: what a network loses by each is gravity's."""
    measured = np.array([not is_context(name) for name in area.channels])[:, None, None]
    return {
        OWN: area,
        "the same, another place's gravity": shift_input(area, draw_offsets(area, 1, 0)[0]),
        "the same, no gravity": replace(area, fields=np.where(measured, np.float32(0), area.fields)),
        "the same, gravity with its sign turned": replace(area, fields=np.where(measured, -area.fields, area.fields)),
    }


def scored(root: Path, row: str, folds: Iterable[int]) -> dict[str, list[ScoredNodes]]:
    """What a row's networks say of the test nodes of each fold, beside the null models; also with other gravity.

    The network taught on crusts alone has no fold: it saw no label of the region and is asked about every one.
    """
    found: dict[str, list[ScoredNodes]] = {}
    for fold in folds:
        area = ground_of(root, fold)
        nodes, nulls = EvaluationNodes.of(area, False, row), null_maps(area, TEST, which=QUICK)
        for number, (title, read) in enumerate(changed(area).items()):
            named = predict_class_map(
                _folder(root, row, fold), read, nodes.counted, file=f"real-ground-{fold}-{number}.npz"
            )
            found.setdefault(title, []).append(nodes.compared(named, nulls, area))
    return found


def pooled(found: list[ScoredNodes]) -> ScoredNodes:
    """All folds as one; a block of the split lies in the test ground of one fold alone."""
    nulls = {name: np.concatenate([each.nulls[name] for each in found]) for name in found[0].nulls}
    parts = (np.concatenate([getattr(each, part) for each in found]) for part in ("truth", "named", "block"))
    truth, named, block = parts
    return ScoredNodes(truth, named, nulls, block)


def told(truth: np.ndarray, named: np.ndarray) -> str:
    """PA / MPA / FWIoU in percent."""
    found = scores(confusion(truth, named, int(max(truth.max(), named.max())) + 1))
    return " / ".join(f"{100 * found[measure]:.1f}" for measure in MEASURES)


def gap(nodes: ScoredNodes, named: np.ndarray, other: np.ndarray, measure: str) -> str:
    """A difference with its interval, bold where that leaves out zero."""
    found = paired_bootstrap(nodes.truth, named, other, nodes.block, measure)
    ends = "" if found.low is None else f" ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
    return f"**{100 * found.mean:+.1f}{ends}**" if found.certain else f"{100 * found.mean:+.1f}{ends}"


def table(root: Path, folds: list[int]) -> list[str]:
    """Scores of all rows and null models pooled over the folds, and what each adds over null models."""
    said = {
        row: scored(root, row, folds)
        for row in TITLES
        if all((_folder(root, row, fold) / "scores.json").exists() for fold in folds)
    }
    rows = {row: {title: pooled(nodes) for title, nodes in each.items()} for row, each in said.items()}
    first = next(iter(rows.values()))[OWN]
    blocks = len(np.unique(first.block))
    lines = [f"{len(first.truth)} nodes in {blocks} test blocks of the folds {', '.join(map(str, folds))}", ""]
    columns = [f"{measure} over {NULL_MODELS[null].title}" for null in AGAINST for measure in ("PA", "FWIoU")]
    lines += ["| | PA / MPA / FWIoU | " + " | ".join(columns) + " |", "|" + "---|" * (2 + len(columns))]
    for row, read in rows.items():
        for title, nodes in read.items():
            assert np.array_equal(nodes.truth, first.truth), "rows are of other nodes"
            gaps = [gap(nodes, nodes.named, nodes.nulls[null], key) for null in AGAINST for key in ("pa", "fwiou")]
            lines.append(f"| {title or TITLES[row]} | {told(nodes.truth, nodes.named)} | " + " | ".join(gaps) + " |")
    for null, values in first.nulls.items():
        lines.append(f"| *{NULL_MODELS[null].title}* | {told(first.truth, values)} |" + " |" * len(columns))
    lines += ["", "PA / MPA / FWIoU fold by fold:", "", "| | " + " | ".join(map(str, folds)) + " |"]
    lines.append("|" + "---|" * (len(folds) + 1))
    for row, each_way in said.items():
        each_fold = each_way[OWN]
        lines.append(f"| {TITLES[row]} | " + " | ".join(told(each.truth, each.named) for each in each_fold) + " |")
    for null in AGAINST:
        lines.append(
            f"| *{NULL_MODELS[null].title}* | "
            + " | ".join(told(each.truth, each.nulls[null]) for each in each_fold)
            + " |"
        )
    return lines


def _folder(root: Path, row: str, fold: int) -> Path:
    return root / "runs" / (f"{row}-{fold}" if row in ROWS else row)


def region_spreads(root: Path) -> dict[str, float]:
    """Standard deviation of each channel over the region, mGal."""
    area = ground_of(root, 0)
    names = INPUT.split(",")
    return {name: round(float(area.fields[area.channels.index(name)].std()), 2) for name in names}


def main() -> None:
    """Prepare, teach, score, and print tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--crusts", type=int, default=60)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS), help="to train; none: score alone")
    asked = parser.parse_args()
    if not ((asked.data / GRAVITY).exists() and (asked.data / GEOLOGY).exists()):
        print(f"Skipped: {asked.data / GRAVITY} or {asked.data / GEOLOGY} is not there.")
        return
    root = asked.workspace or Path(tempfile.mkdtemp(prefix="gravmap-real-ground-"))
    print(f"Workspace: {root}")
    prepare(root, asked.data)
    began = time.process_time()
    spreads = teach_on_crusts(
        root / "runs" / ON_CRUSTS, asked.crusts, root / "data" / "crusts", float(WINDOW[:-3]), SIZE_PX
    )
    if spreads:
        print(f"Taught on crusts in {time.process_time() - began:.0f} s of one core.")
        print("Standard deviations, mGal, of crusts:", spreads, "of the region:", region_spreads(root))
    for fold in asked.folds:
        for row in asked.rows:
            if not (_folder(root, row, fold) / "scores.json").exists():
                gravmap(
                    root, "train", *LEARN, *ROWS[row], "--fold", str(fold), "--name", f"{row}-{fold}", "--overwrite"
                )
    lines = table(root, asked.folds)
    print("\n".join(["", *lines]))
    (root / "real_ground.json").write_text(json.dumps({"folds": asked.folds, "lines": lines}, indent=2))


if __name__ == "__main__":
    main()
