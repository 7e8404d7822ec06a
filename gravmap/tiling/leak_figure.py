"""Map of a split: per fold the training, tuning and test labels, those left out, and those that leak."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gravmap.files import atomic_path
from gravmap.lattice import COVER, TEST, TRAIN, TUNE, UNUSABLE
from gravmap.plotting import (
    BACKGROUND,
    BLUE,
    NOTE,
    ORANGE,
    PALE_BLUE,
    SAND,
    SILVER,
    VERMILLION,
    decorate_map,
    legend_patches,
    map_aspect,
)
from gravmap.tiling.leak import LeakReport, held_out_roles
from gravmap.tiling.patches import covered_patches, make_patches, to_cells
from gravmap.tiling.training_arrays import open_split
from gravmap.units import describe_angle

_KINDS = (
    ("not mapped as bedrock", BACKGROUND),
    ("training labels", PALE_BLUE),
    ("bedrock left out of training", SILVER),
    ("tuning labels", ORANGE),
    ("test labels", BLUE),
    ("held out, but seen by training", VERMILLION),
    ("held out, without labels", SAND),
)
_UNMAPPED, _TRAINING, _LEFT_OUT, _TUNING, _TEST, _LEAKED, _HELD_OUT_UNMAPPED = range(len(_KINDS))
_WIDTH_IN, _MAX_COLUMNS, _MAX_PIXELS = 4.6, 2, 1200


def draw_leak(folder: Path, report: LeakReport, path: Path) -> None:
    """Write a PNG with one map per fold.

    Parameters
    ----------
    folder : Path
        The tile set.
    report : LeakReport
        Report of :func:`gravmap.tiling.leak_report` on one of its splits.
    path : Path
        The PNG to write.
    """
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.figure import Figure

    _, split, raster, boxes = open_split(folder, report.name)
    bounds = raster.bounds_wsen
    west, south, east, north = bounds
    shape = raster.values.shape
    roles = [split.roles(fold.fold, shape, bounds) for fold in report.folds]
    windows = [split.window_roles(fold.fold, boxes) for fold in report.folds]
    patches = make_patches(raster.values, bounds, boxes, roles, len(report.classes))
    step = max(1, -(-shape[1] // _MAX_PIXELS))
    rock = ((raster.values > COVER) & (raster.values < UNUSABLE))[step // 2 :: step, step // 2 :: step]

    count = len(report.folds)
    columns = min(_MAX_COLUMNS, count)
    rows = -(-count // columns)
    tall = _WIDTH_IN * map_aspect(bounds)
    left, above, below, head, foot = 0.55, 0.32, 0.5, 0.62, 0.62
    width = columns * (_WIDTH_IN + left) + 0.2
    height = head + rows * (above + tall + below) + foot
    figure = Figure(figsize=(width, height), dpi=150)
    shown: set[int] = set()
    for place, (fold, role, window_role) in enumerate(zip(report.folds, patches.roles, windows, strict=True)):
        training = window_role == TRAIN
        visible = covered_patches(patches.shape, patches.touched[training]) & (role == TRAIN)
        held_out = held_out_roles(patches, place, window_role)
        cells = [
            to_cells(patches, mask)[step // 2 :: step, step // 2 :: step]
            for mask in (visible, held_out == TUNE, held_out == TEST)
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
        decorate_map(axes, bounds, _WIDTH_IN)
        nearest = "" if not fold.distance_km else f", nearest {fold.distance_km:.0f} km"
        axes.set_title(f"Fold {fold.fold}: {_percent(fold.leak)} seen{nearest}", fontsize=10, loc="left", pad=4)
    title = f"{report.name}: training sees the labels of {_percent(report.leak)} of the held-out bedrock"
    figure.text(left / width, 1 - 0.12 / height, f"Split {title}", va="top", fontsize=12.5, weight="bold")
    figure.text(left / width, 1 - 0.4 / height, _caption(report), va="top", fontsize=8.5, color=NOTE)
    figure.legend(
        handles=legend_patches(entry for kind, entry in enumerate(_KINDS) if kind in shown),
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
    """Category of each cell."""
    out = tuned | tested
    picture = np.where(out, np.uint8(_HELD_OUT_UNMAPPED), np.uint8(_UNMAPPED))
    picture[rock & visible] = _TRAINING
    picture[rock & ~visible] = _LEFT_OUT
    picture[rock & tuned] = _TUNING
    picture[rock & tested] = _TEST
    picture[rock & out & visible] = _LEAKED
    return picture


def _percent(fraction: float) -> str:
    return "0 %" if fraction == 0 else f"{100 * fraction:.1f} %" if fraction >= 0.001 else "under 0.1 %"


def _caption(report: LeakReport) -> str:
    settings = report.described
    if report.kind == "random":
        return f"{100 * settings['share']:.0f} % of the windows held out at random, seed {settings['seed']}"
    height, width = (describe_angle(side) for side in settings["block_deg"])
    text = f"Blocks of {height} x {width}, buffer {describe_angle(settings['buffer_deg'])}, seed {settings['seed']}"
    if report.kind == "strict":
        text += "; no training window touches a block or its buffer"
    return text
