"""Score and draw the maps of the demo: null models and two networks under the same cover, beside the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from gravmap.files import write_json
from gravmap.geology.labels import LabelFile
from gravmap.geology.legend import Legend
from gravmap.learning.evaluation.null_models import NULL_MODELS
from gravmap.mapping.page.figures import ClassPanel, Panel, classes_of_legend, draw
from gravmap.mapping.page.report import REPORT
from gravmap.mapping.scoring.under_cover import ALL, FAR, UnderCover, score_from_outcrop
from gravmap.workspace import Workspace

PICTURE, SCORES = "demo.png", "under_cover.json"

NEAREST, DIFFUSION = (NULL_MODELS[key].title for key in ("nearest_outcrop", "label_diffusion"))
# Rows of the table, and keys of the scores in under_cover.json.
OUTCROP, CRUSTS = "GGMNet trained on this outcrop", "GGMNet trained on other crusts"

Labels = NDArray[np.uint8]
Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class DemoResult:
    """The result of the demo.

    Attributes
    ----------
    scores : dict
        Name of each map to its scores under cover, by distance to outcrop.
    lines : list of str
        The table of scores.
    conclusions : list of str
        The differences to the null models, and how far they generalise, in sentences.
    pictures : list of Path
        Pictures and reports to look at.
    """

    scores: dict[str, Any]
    lines: list[str]
    conclusions: list[str]
    pictures: list[Path]


def score_demo(
    root: Path, truth_path: Path, seed: int, maps: Mapping[str, Path], trained_on: Mapping[str, Any]
) -> DemoResult:
    """Score the demo's maps against the truth below its cover, beside null models, and draw all of them.

    Parameters
    ----------
    root : Path
        Workspace of the demo, with all steps done.
    truth_path : Path
        Index raster of the bedrock below the cover, on the nodes of the gravity grid.
    seed : int
        Seed of the demo's crust.
    maps : mapping of str to Path
        `OUTCROP` and `CRUSTS` to the folders of their maps.
    trained_on : mapping
        Training data of the network `CRUSTS`: ``taught_on`` of its ``model.json``.

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
    predicted = {name: _read(folder / "lithology.tif")[0] for name, folder in maps.items()}
    scored = score_from_outcrop(predicted, truth, surface, lat, lon, [entry.name for entry in legend.bedrock])
    conclusions = [*_compare_with_null_models(scored), describe_validity(seed, trained_on)]
    write_json(root / SCORES, {"seed": seed, "cells": scored.cells, "scores": scored.scores, "said": conclusions})
    picture = root / PICTURE
    _draw(picture, scored, surface, truth, bounds, legend, conclusions)
    pictures = [picture, *(folder / REPORT for folder in maps.values()), workspace.runs / "outcrop" / "curves.png"]
    return DemoResult(scored.scores, scored.table(), conclusions, [path for path in pictures if path.exists()])


def _compare_with_null_models(scored: UnderCover) -> list[str]:
    return [
        f"The {name}, in points against the better null model of each measure: {_gain(scored, name, ALL)}; {FAR} from"
        f" outcrop {_gain(scored, name, FAR)}."
        for name in (OUTCROP, CRUSTS)
    ]


def _gain(scored: UnderCover, name: str, stratum: str) -> str:
    """Format the gain of a network over the better null model, in percentage points of each measure."""
    gains = []
    for measure, label in (("pa", "PA"), ("mpa", "MPA"), ("fwiou", "FWIoU")):
        network, *nulls = (scored.scores[each][stratum][measure] for each in (name, NEAREST, DIFFUSION))
        # Adding zero turns -0.0 into 0.0.
        gains.append(
            f"{round(100 * (network - max(nulls)), 1) + 0:+.1f} {label}" if scored.cells[stratum] else f"no {label}"
        )
    return ", ".join(gains)


def _percent(scored: UnderCover, name: str, stratum: str) -> str:
    accuracy = scored.scores[name][stratum]["pa"]
    return "none" if accuracy is None else f"{100 * accuracy:.1f} %"


def describe_validity(seed: int, trained_on: Mapping[str, Any]) -> str:
    """Describe how far the score of the network trained on other crusts generalises, with the recorded seeds."""
    seeds = trained_on["seeds"]
    first, last = min(seeds["train"]), max(seeds["train"])
    crusts = f"{len(seeds['train'])} training crusts (prior {trained_on['prior']['name']}, seeds {first} to {last})"
    if seed in {*seeds["train"], *seeds["tune"]}:
        return (
            f"The {CRUSTS} was trained or tuned on a crust with the seed of this one, {seed}: its score here is too"
            f" high. Choose a seed that is not one of its {crusts} or its tuning crusts."
        )
    return (
        f"This is the best case for the {CRUSTS}: this crust comes from the same generator as its {crusts}, with"
        f" another seed, {seed}. Real geology differs from simulated crusts in ways that are not measured: expect lower"
        " scores."
    )


def _draw(
    path: Path,
    scored: UnderCover,
    surface: Labels,
    truth: Labels,
    bounds: Bounds,
    legend: Legend,
    conclusions: list[str],
) -> None:
    outcrop = (surface > 0) & (surface != 255)

    def panel(name: str) -> ClassPanel:
        shown = np.where(outcrop, surface, scored.maps[name]).astype(np.uint8)
        title = (
            f"{name[:1].upper()}{name[1:]}\n{_percent(scored, name, ALL)} right,"
            f" {_percent(scored, name, FAR)} {FAR} from outcrop"
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
        "A simulated crust. Inside the outlines bedrock crops out and is shown as mapped; where the map is ruled it is"
        " predicted. All maps use all mapped outcrop; the two networks also use gravity.",
        *conclusions,
    ]
    draw(path, panels, classes_of_legend(legend), title="gravmap demo", notes=notes, columns=3, panel_width_in=4.9)


def _read(path: Path) -> tuple[Labels, Bounds]:
    with rasterio.open(path) as raster:
        bounds = raster.bounds
        return raster.read(1), (bounds.left, bounds.bottom, bounds.right, bounds.top)
