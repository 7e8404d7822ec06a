"""Results of the demo: maps of two networks and of null models, scored under cover and drawn side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from gravmap.files import write_json
from gravmap.geology import LabelFile, Legend
from gravmap.learning.evaluation.null_models import NULL_MODELS
from gravmap.mapping.page.figures import ClassPanel, Panel, classes_of_legend, draw
from gravmap.mapping.page.report import REPORT
from gravmap.mapping.scoring.under_cover import ALL, FAR, UnderCover, score_from_outcrop
from gravmap.workspace import Workspace

PICTURE, SCORES = "demo.png", "under_cover.json"

NEAREST, DIFFUSION = (NULL_MODELS[key].title for key in ("nearest_outcrop", "label_diffusion"))
OUTCROP, CRUSTS = "network trained on this outcrop", "network trained on other crusts"

Labels = NDArray[np.uint8]
Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class Report:
    """Results of the demo.

    Attributes
    ----------
    scores : dict
        Scores under cover, by predictor and distance to outcrop.
    lines : list of str
        The table of scores, formatted as text.
    conclusions : list of str
        Sentences: gains over the null models, and how far they hold for real data.
    pictures : list of Path
        Figures and reports that were written.
    """

    scores: dict[str, Any]
    lines: list[str]
    conclusions: list[str]
    pictures: list[Path]


def report(root: Path, truth_path: Path, seed: int, maps: Mapping[str, Path], trained_on: Mapping[str, Any]) -> Report:
    """Score the maps of the demo and null models against the bedrock below the cover, and draw all of them.

    Parameters
    ----------
    root : Path
        Workspace of the demo, after all steps.
    truth_path : Path
        Index raster of the bedrock below the cover, on the nodes of the gravity grid.
    seed : int
        Seed of the demo's crust.
    maps : mapping of str to Path
        Folders of the maps by predictor, `OUTCROP` and `CRUSTS`.
    trained_on : mapping
        Training data of the network `CRUSTS`: ``taught_on`` of its model.json.

    Raises
    ------
    InputError
        A file is missing or the grids differ.
    """
    workspace = Workspace(root)
    truth, bounds = _read(truth_path)
    west, south, east, north = bounds
    rows, columns = truth.shape
    lat = north - (np.arange(rows) + 0.5) * (north - south) / rows
    lon = west + (np.arange(columns) + 0.5) * (east - west) / columns
    with LabelFile(workspace.labels) as labels:
        surface, legend = labels.sample(lat, lon), labels.legend
    named = {name: _read(folder / "lithology.tif")[0] for name, folder in maps.items()}
    found = score_from_outcrop(named, truth, surface, lat, lon, [entry.name for entry in legend.bedrock])
    conclusions = [*_gains(found), _validity(seed, trained_on)]
    write_json(root / SCORES, {"seed": seed, "cells": found.cells, "scores": found.scores, "said": conclusions})
    picture = root / PICTURE
    _draw(picture, found, surface, truth, bounds, legend, conclusions)
    pictures = [picture, *(folder / REPORT for folder in maps.values()), workspace.runs / "outcrop" / "curves.png"]
    return Report(found.scores, found.table(), conclusions, [path for path in pictures if path.exists()])


def _gains(found: UnderCover) -> list[str]:
    """A sentence for each network: its gains over the null models."""
    return [
        f"Gain of the {name} over the better null model, in percentage points: {_gain(found, name, ALL)}; {FAR} from"
        f" outcrop: {_gain(found, name, FAR)}."
        for name in (OUTCROP, CRUSTS)
    ]


def _gain(found: UnderCover, name: str, stratum: str) -> str:
    """Score of a network minus that of the better null model, in percentage points, for every measure."""
    gains = []
    for measure, label in (("pa", "PA"), ("mpa", "MPA"), ("fwiou", "FWIoU")):
        ours, *nulls = (found.scores[each][stratum][measure] for each in (name, NEAREST, DIFFUSION))
        # Adding zero turns -0.0 into 0.0.
        gains.append(
            f"{round(100 * (ours - max(nulls)), 1) + 0:+.1f} {label}" if found.cells[stratum] else f"no {label}"
        )
    return ", ".join(gains)


def _percent(found: UnderCover, name: str, stratum: str) -> str:
    accuracy = found.scores[name][stratum]["pa"]
    return "none" if accuracy is None else f"{100 * accuracy:.1f} %"


def _validity(seed: int, trained_on: Mapping[str, Any]) -> str:
    """Whether the demo's crust is independent of the training crusts, and what its score means for real data."""
    seeds = trained_on["seeds"]
    first, last = min(seeds["train"]), max(seeds["train"])
    crusts = f"{len(seeds['train'])} training crusts (prior {trained_on['prior']['name']}, seeds {first} to {last})"
    if seed in {*seeds["train"], *seeds["tune"]}:
        return (
            f"The {CRUSTS} was trained or tuned on a crust of the same seed as this one, {seed}: its score here is too"
            f" high. Use a seed other than those of the {crusts} and of the tuning crusts."
        )
    return (
        f"This is the best case for the {CRUSTS}: this crust and the {crusts} come from the same generator; this one"
        f" has another seed, {seed}. Real crust differs from simulated crusts in ways that have not been measured:"
        " expect lower scores."
    )


def _draw(
    path: Path, found: UnderCover, surface: Labels, truth: Labels, bounds: Bounds, legend: Legend, notes: list[str]
) -> None:
    outcrop = (surface > 0) & (surface != 255)

    def panel(name: str) -> ClassPanel:
        shown = np.where(outcrop, surface, found.maps[name]).astype(np.uint8)
        title = (
            f"{name[:1].upper()}{name[1:]}\n{_percent(found, name, ALL)} correct,"
            f" {_percent(found, name, FAR)} {FAR} from outcrop"
        )
        return ClassPanel(title, shown, bounds, outcrop, ~outcrop)

    panels: list[Panel] = [
        ClassPanel("The geological map\nbedrock where it crops out, nothing under cover", surface, bounds, outcrop),
        panel(NEAREST),
        panel(DIFFUSION),
        ClassPanel("The truth\nbedrock below the cover", truth, bounds, outcrop),
        panel(OUTCROP),
        panel(CRUSTS),
    ]
    notes = [
        "A simulated crust. Inside the outlines the bedrock crops out and is shown as mapped; where ruled in white it"
        " is predicted. The input of every predictor is all mapped outcrop; that of the two networks is gravity, too.",
        *notes,
    ]
    draw(path, panels, classes_of_legend(legend), title="gravmap demo", notes=notes, columns=3, panel_width_in=4.9)


def _read(path: Path) -> tuple[Labels, Bounds]:
    with rasterio.open(path) as raster:
        bounds = raster.bounds
        return raster.read(1), (bounds.left, bounds.bottom, bounds.right, bounds.top)
