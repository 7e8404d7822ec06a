"""A picture of a split: per fold what is learned from, left out, tuned on and scored, and where training sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gravmap.files import atomic_path
from gravmap.lattice import COVER, TEST, TRAIN, TUNE, UNUSABLE
from gravmap.map_frame import furnish
from gravmap.tiling.leak import LeakReport
from gravmap.tiling.patches import cut_patches, painted, stretch
from gravmap.tiling.training_arrays import open_split
from gravmap.units import describe_angle

# Apart in colour for every eye (Okabe and Ito 2008), and in lightness where ground is without labels.
_KINDS = (
    ("not mapped as bedrock", "#F4F4F4"),
    ("learned from", "#8CC5E3"),
    ("bedrock left out of training", "#B5B5B5"),
    ("tuned on, labels not seen", "#E69F00"),
    ("scored, labels not seen", "#0072B2"),
    ("held out, but labels seen", "#D55E00"),
    ("held-out ground without labels", "#DCD6C8"),
)
_PLAIN, _LEARNED, _LEFT_OUT, _TUNED, _SCORED, _SEEN, _HELD_PLAIN = range(len(_KINDS))
_WIDTH_IN, _MOST_COLUMNS, _MOST_PIXELS = 4.6, 2, 1200


def draw_leak(folder: Path, report: LeakReport, path: Path) -> None:
    """Write a PNG with one map per fold.

    Parameters
    ----------
    folder : Path
        The tile set.
    report : LeakReport
        What :func:`gravmap.tiling.leak_report` found of one of its splits.
    path : Path
        The picture.
    """
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    _, split, raster, boxes = open_split(folder, report.name)
    bounds = raster.bounds_wsen
    west, south, east, north = bounds
    shape = raster.values.shape
    roles = [split.roles(fold.fold, shape, bounds) for fold in report.folds]
    windows = [split.window_roles(fold.fold, boxes) for fold in report.folds]
    patches = cut_patches(raster.values, bounds, boxes, roles, len(report.classes))
    step = max(1, -(-shape[1] // _MOST_PIXELS))
    rock = ((raster.values > COVER) & (raster.values < UNUSABLE))[step // 2 :: step, step // 2 :: step]

    count = len(report.folds)
    columns = min(_MOST_COLUMNS, count)
    rows = -(-count // columns)
    tall = _WIDTH_IN * (north - south) / ((east - west) * np.cos(np.radians((south + north) / 2)))
    left, above, below, head, foot = 0.55, 0.32, 0.3, 0.62, 0.62
    width = columns * (_WIDTH_IN + left) + 0.2
    height = head + rows * (above + tall + below) + foot
    figure = Figure(figsize=(width, height), dpi=150)
    shown: set[int] = set()
    for place, (fold, role, window_role) in enumerate(zip(report.folds, patches.roles, windows, strict=True)):
        learns = window_role == TRAIN
        visible = painted(patches.shape, patches.touched[learns]) & (role == TRAIN)
        held = role.copy()
        for value in (TUNE, TEST):
            held[painted(patches.shape, patches.held[window_role == value])] = value
        cells = [
            stretch(patches, mask)[step // 2 :: step, step // 2 :: step]
            for mask in (visible, held == TUNE, held == TEST)
        ]
        picture = _kinds(rock, *cells)
        shown |= set(np.unique(picture).tolist())
        x = left + (place % columns) * (_WIDTH_IN + left)
        y = height - head - (place // columns) * (above + tall + below) - above - tall
        axes = figure.add_axes((x / width, y / height, _WIDTH_IN / width, tall / height))
        axes.imshow(
            picture,
            cmap=ListedColormap([colour for _, colour in _KINDS]),
            norm=BoundaryNorm(np.arange(len(_KINDS) + 1) - 0.5, len(_KINDS)),
            extent=(west, east, south, north),
            interpolation="nearest",
        )
        furnish(axes, bounds, _WIDTH_IN)
        near = "" if not fold.distance_km else f", nearest {fold.distance_km:.0f} km"
        axes.set_title(f"Fold {fold.fold}: {_percent(fold.leak)} seen{near}", fontsize=10, loc="left", pad=4)
    told = f"{report.name}: training sees the labels of {_percent(report.leak)} of the held-out bedrock"
    figure.text(left / width, 1 - 0.12 / height, f"Split {told}", va="top", fontsize=12.5, weight="bold")
    figure.text(left / width, 1 - 0.4 / height, _caption(report), va="top", fontsize=8.5, color="#444444")
    figure.legend(
        handles=[
            Patch(facecolor=colour, edgecolor="#555555", linewidth=0.5, label=label)
            for kind, (label, colour) in enumerate(_KINDS)
            if kind in shown
        ],
        loc="lower left",
        bbox_to_anchor=((left - 0.1) / width, 0.12 / height),
        ncols=max(1, int(width // 2.9)),
        frameon=False,
        fontsize=8.5,
        borderpad=0,
    )
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png")


def _kinds(
    rock: NDArray[np.bool_], visible: NDArray[np.bool_], tuned: NDArray[np.bool_], tested: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """What each cell is drawn as."""
    out = tuned | tested
    picture = np.where(out, np.uint8(_HELD_PLAIN), np.uint8(_PLAIN))
    picture[rock & visible] = _LEARNED
    picture[rock & ~visible] = _LEFT_OUT
    picture[rock & tuned] = _TUNED
    picture[rock & tested] = _SCORED
    picture[rock & out & visible] = _SEEN
    return picture


def _percent(share: float) -> str:
    return "0 %" if share == 0 else f"{100 * share:.1f} %" if share >= 0.001 else "under 0.1 %"


def _caption(report: LeakReport) -> str:
    told = report.described
    if report.kind == "random":
        return f"{100 * told['share']:.0f} % of the windows held out at random, seed {told['seed']}"
    height, width = (describe_angle(side) for side in told["block_deg"])
    text = f"Blocks of {height} x {width}, buffer {describe_angle(told['buffer_deg'])}, seed {told['seed']}"
    if report.kind == "strict":
        text += "; no window learned from touches a block or its buffer"
    return text
