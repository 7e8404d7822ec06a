"""Networks with outcrop context on a real region, beside the null models, for each fold.

    python benchmarks/real_data.py --workspace DIR [--data DIR] [--folds 0 1 2 3 4]

The region is that of real_input.py: gravity of EIGEN-6C4, 15 arc-minutes, at a height of 10 km, and stratigraphic ages
of geo3al; the data may not be redistributed, and the script is skipped without them. `gravmap residual`, `rasterize`
and `tile` prepare them, `gravmap train --context outcrop` trains on the outcrop of each fold: two networks from random
weights, and one fine-tuned from weights trained on crusts. The weights shipped with gravmap do not fit: they read five
residuals of a field of 2 arc-minutes at height 0. So others are trained, on crusts measured as this field is
(:mod:`crusts_at_height`).

Finished runs are kept in the workspace, so an interrupted benchmark is resumed. The native nodes of the test blocks are
scored with the functions of `gravmap evaluate`: the same nodes for all, pooled over the folds, with a paired bootstrap
over blocks.
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
from crusts_at_height import HEIGHTS_KM, train_on_crusts
from real_input import GEOLOGY, GRAVITY, gravmap

from gravmap.lattice import TEST
from gravmap.learning.data.dataset import RegionDataset, known_labels
from gravmap.learning.data.outcrop_context import is_context, with_context
from gravmap.learning.evaluation.comparison import ScoredNodes, paired_bootstrap
from gravmap.learning.evaluation.importance import draw_offsets, shift_input
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.learning.evaluation.node_predictor import predict_class_map
from gravmap.learning.evaluation.null_models import NULL_MODELS, QUICK, null_maps
from gravmap.mapping.scoring.evaluation_nodes import EvaluationNodes
from gravmap.tiling import load_arrays

WINDOW, SIZE_PX = "12.8deg", 384
"""Crops are half as wide, 6.4 degrees, in pixels of 2 arc-minutes, the resolution the network assumes."""

INPUT = ",".join(f"residual_{height}km" for height in HEIGHTS_KM)
ON_CRUSTS = "trained-on-crusts"
TRAIN_OPTIONS = ["--context", "outcrop", "--recipe", "crusts", "--epochs", "5", "--steps-per-epoch", "40"]
TRAIN_OPTIONS += ["--device", "cpu"]

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
ORIGINAL = ""


def prepare(root: Path, data: Path) -> None:
    """Compute fields, labels and windows with the installed commands."""
    if (root / "data" / "tiles" / "index.json").exists():
        return
    heights = [word for height in HEIGHTS_KM for word in ("--height", f"{height}km")]
    gravmap(root, "residual", str(data / GRAVITY), *heights)
    gravmap(root, "rasterize", str(data / GEOLOGY), "--legend", "geo3al")
    gravmap(root, "tile", "--index-only", "--window", WINDOW, "--stride", "3.2deg", "--size", str(SIZE_PX))


def dataset_of(root: Path, fold: int) -> RegionDataset:
    """The region with one fold held out, and the training outcrop as context."""
    arrays = load_arrays(root / "data" / "tiles", channels=INPUT.split(","), split="blocks", fold=fold)
    dataset = RegionDataset.from_arrays(arrays)
    return with_context(dataset, known_labels(dataset))


def modified_inputs(dataset: RegionDataset) -> dict[str, RegionDataset]:
    """The dataset, and the same with modified gravity: the loss of score is due to gravity."""
    measured = np.array([not is_context(name) for name in dataset.channels])[:, None, None]
    return {
        ORIGINAL: dataset,
        "the same, another place's gravity": shift_input(dataset, draw_offsets(dataset, 1, 0)[0]),
        "the same, no gravity": replace(dataset, fields=np.where(measured, np.float32(0), dataset.fields)),
        "the same, gravity with the opposite sign": replace(
            dataset, fields=np.where(measured, -dataset.fields, dataset.fields)
        ),
    }


def scored(root: Path, row: str, folds: Iterable[int]) -> dict[str, list[ScoredNodes]]:
    """Predictions of a row's networks and the null models at the test nodes of each fold; also with modified gravity.

    The network trained on crusts alone has no fold: it is evaluated on the test nodes of every fold.
    """
    found: dict[str, list[ScoredNodes]] = {}
    for fold in folds:
        dataset = dataset_of(root, fold)
        scored_data, nulls = EvaluationNodes.of(dataset, False, row), null_maps(dataset, TEST, which=QUICK)
        for number, (title, modified) in enumerate(modified_inputs(dataset).items()):
            predicted = predict_class_map(
                _folder(root, row, fold), modified, scored_data.counted, file=f"real-data-{fold}-{number}.npz"
            )
            found.setdefault(title, []).append(scored_data.compared(predicted, nulls, dataset))
    return found


def pooled(found: list[ScoredNodes]) -> ScoredNodes:
    """All folds as one; each block of the split is in the test data of one fold."""
    nulls = {name: np.concatenate([each.nulls[name] for each in found]) for name in found[0].nulls}
    parts = (np.concatenate([getattr(each, part) for each in found]) for part in ("truth", "predicted", "block"))
    truth, predicted, block = parts
    return ScoredNodes(truth, predicted, nulls, block)


def format_scores(truth: np.ndarray, predicted: np.ndarray) -> str:
    """PA / MPA / FWIoU in percent."""
    found = scores(confusion(truth, predicted, int(max(truth.max(), predicted.max())) + 1))
    return " / ".join(f"{100 * found[measure]:.1f}" for measure in MEASURES)


def gap(nodes: ScoredNodes, predicted: np.ndarray, other: np.ndarray, measure: str) -> str:
    """A difference with its interval, bold if that excludes zero."""
    found = paired_bootstrap(nodes.truth, predicted, other, nodes.block, measure)
    ends = "" if found.low is None else f" ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
    return f"**{100 * found.mean:+.1f}{ends}**" if found.significant else f"{100 * found.mean:+.1f}{ends}"


def table(root: Path, folds: list[int]) -> list[str]:
    """Scores of all rows and null models pooled over the folds, and the gain over null models."""
    scored_rows = {
        row: scored(root, row, folds)
        for row in TITLES
        if all((_folder(root, row, fold) / "scores.json").exists() for fold in folds)
    }
    rows = {row: {title: pooled(nodes) for title, nodes in each.items()} for row, each in scored_rows.items()}
    first = next(iter(rows.values()))[ORIGINAL]
    blocks = len(np.unique(first.block))
    lines = [f"{len(first.truth)} nodes in {blocks} test blocks of the folds {', '.join(map(str, folds))}", ""]
    columns = [f"{measure} over {NULL_MODELS[null].title}" for null in AGAINST for measure in ("PA", "FWIoU")]
    lines += ["| | PA / MPA / FWIoU | " + " | ".join(columns) + " |", "|" + "---|" * (2 + len(columns))]
    for row, modified in rows.items():
        for title, nodes in modified.items():
            assert np.array_equal(nodes.truth, first.truth), "rows have different nodes"
            gaps = [gap(nodes, nodes.predicted, nodes.nulls[null], key) for null in AGAINST for key in ("pa", "fwiou")]
            lines.append(
                f"| {title or TITLES[row]} | {format_scores(nodes.truth, nodes.predicted)} | " + " | ".join(gaps) + " |"
            )
    for null, values in first.nulls.items():
        lines.append(f"| *{NULL_MODELS[null].title}* | {format_scores(first.truth, values)} |" + " |" * len(columns))
    lines += ["", "PA / MPA / FWIoU fold by fold:", "", "| | " + " | ".join(map(str, folds)) + " |"]
    lines.append("|" + "---|" * (len(folds) + 1))
    for row, each_way in scored_rows.items():
        each_fold = each_way[ORIGINAL]
        lines.append(
            f"| {TITLES[row]} | " + " | ".join(format_scores(each.truth, each.predicted) for each in each_fold) + " |"
        )
    for null in AGAINST:
        lines.append(
            f"| *{NULL_MODELS[null].title}* | "
            + " | ".join(format_scores(each.truth, each.nulls[null]) for each in each_fold)
            + " |"
        )
    return lines


def _folder(root: Path, row: str, fold: int) -> Path:
    return root / "runs" / (f"{row}-{fold}" if row in ROWS else row)


def region_stds(root: Path) -> dict[str, float]:
    """Standard deviation of each channel over the region, mGal."""
    dataset = dataset_of(root, 0)
    names = INPUT.split(",")
    return {name: round(float(dataset.fields[dataset.channels.index(name)].std()), 2) for name in names}


def main() -> None:
    """Prepare, train, score, and print tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--crusts", type=int, default=60)
    parser.add_argument(
        "--rows", nargs="*", default=list(ROWS), choices=list(ROWS), help="rows to train; none: score only"
    )
    options = parser.parse_args()
    if not ((options.data / GRAVITY).exists() and (options.data / GEOLOGY).exists()):
        print(f"Skipped: {options.data / GRAVITY} or {options.data / GEOLOGY} is missing.")
        return
    root = options.workspace or Path(tempfile.mkdtemp(prefix="gravmap-real-data-"))
    print(f"Workspace: {root}")
    prepare(root, options.data)
    started = time.process_time()
    stds = train_on_crusts(
        root / "runs" / ON_CRUSTS, options.crusts, root / "data" / "crusts", float(WINDOW[:-3]), SIZE_PX
    )
    if stds:
        print(f"Trained on crusts in {time.process_time() - started:.0f} s of one core.")
        print("Standard deviations, mGal, of crusts:", stds, "of the region:", region_stds(root))
    for fold in options.folds:
        for row in options.rows:
            if not (_folder(root, row, fold) / "scores.json").exists():
                gravmap(
                    root,
                    "train",
                    *TRAIN_OPTIONS,
                    *ROWS[row],
                    "--fold",
                    str(fold),
                    "--name",
                    f"{row}-{fold}",
                    "--overwrite",
                )
    lines = table(root, options.folds)
    print("\n".join(["", *lines]))
    (root / "real_data.json").write_text(json.dumps({"folds": options.folds, "lines": lines}, indent=2))


if __name__ == "__main__":
    main()
