"""What the demo has to show for itself: null models and two networks under one cover, scored and side by side."""

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
OUTCROP, CRUSTS = "network taught on this outcrop", "network taught on other crusts"

Labels = NDArray[np.uint8]
Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class Report:
    """The demo's outcome.

    Attributes
    ----------
    scores : dict
        Predictor to its scores under cover, by distance to outcrop.
    lines : list of str
        The table, in words.
    said : list of str
        What the table says, and what it is worth, in sentences.
    pictures : list of Path
        What to look at.
    """

    scores: dict[str, Any]
    lines: list[str]
    said: list[str]
    pictures: list[Path]


def report(root: Path, truth_path: Path, seed: int, maps: Mapping[str, Path], taught_on: Mapping[str, Any]) -> Report:
    """Score the demo's maps against the truth below its cover, beside null models, and draw all of them.

    Parameters
    ----------
    root : Path
        The demo's workspace, all steps done.
    truth_path : Path
        Index raster of the bedrock below the cover, on the nodes of the gravity grid.
    seed : int
        That the demo's crust was made from.
    maps : mapping of str to Path
        `OUTCROP` and `CRUSTS` to the folders of their maps.
    taught_on : mapping
        What the network behind `CRUSTS` was taught on, as its record says it.

    Raises
    ------
    InputError
        A step is missing or the grids differ.
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
    said = [*_gains(found), _worth(seed, taught_on)]
    write_json(root / SCORES, {"seed": seed, "cells": found.cells, "scores": found.scores, "said": said})
    picture = root / PICTURE
    _draw(picture, found, surface, truth, bounds, legend, said)
    looked_at = [picture, *(folder / REPORT for folder in maps.values()), workspace.runs / "outcrop" / "curves.png"]
    return Report(found.scores, found.table(), said, [path for path in looked_at if path.exists()])


def _gains(found: UnderCover) -> list[str]:
    """Each network beside the null models, in a sentence."""
    return [
        f"The {name}, in points against the better null model of each measure: {_gain(found, name, ALL)}; {FAR} from"
        f" outcrop {_gain(found, name, FAR)}."
        for name in (OUTCROP, CRUSTS)
    ]


def _gain(found: UnderCover, name: str, stratum: str) -> str:
    """Points of every measure that a network has above the better null model."""
    told = []
    for measure, label in (("pa", "PA"), ("mpa", "MPA"), ("fwiou", "FWIoU")):
        mine, *nulls = (found.scores[each][stratum][measure] for each in (name, NEAREST, DIFFUSION))
        # Adding zero makes a plain one of -0.0.
        told.append(
            f"{round(100 * (mine - max(nulls)), 1) + 0:+.1f} {label}" if found.cells[stratum] else f"no {label}"
        )
    return ", ".join(told)


def _percent(found: UnderCover, name: str, stratum: str) -> str:
    share = found.scores[name][stratum]["pa"]
    return "none" if share is None else f"{100 * share:.1f} %"


def _worth(seed: int, taught_on: Mapping[str, Any]) -> str:
    """How far the score of the network taught on crusts can be believed, with the seeds on record."""
    seeds = taught_on["seeds"]
    first, last = min(seeds["train"]), max(seeds["train"])
    crusts = (
        f"{len(seeds['train'])} crusts that taught it (prior {taught_on['prior']['name']}, seeds {first} to {last})"
    )
    if seed in {*seeds["train"], *seeds["tune"]}:
        return (
            f"The network taught on other crusts has seen one made from the seed of this one, {seed}: its score here"
            f" flatters. Take a seed that is none of the {crusts}, nor of those that tuned it."
        )
    return (
        f"This is the best case for the network taught on other crusts: the same generator made this crust and the"
        f" {crusts}; this one has another seed, {seed}. Real ground differs from simulated crusts in ways that nobody"
        " has measured: expect less."
    )


def _draw(
    path: Path, found: UnderCover, surface: Labels, truth: Labels, bounds: Bounds, legend: Legend, said: list[str]
) -> None:
    outcrop = (surface > 0) & (surface != 255)

    def panel(name: str) -> ClassPanel:
        shown = np.where(outcrop, surface, found.maps[name]).astype(np.uint8)
        title = (
            f"{name[:1].upper()}{name[1:]}\n{_percent(found, name, ALL)} right,"
            f" {_percent(found, name, FAR)} {FAR} from outcrop"
        )
        return ClassPanel(title, shown, bounds, outcrop, ~outcrop)

    panels: list[Panel] = [
        ClassPanel(
            "The map a geologist has\nbedrock where it crops out, nothing under cover", surface, bounds, outcrop
        ),
        panel(NEAREST),
        panel(DIFFUSION),
        ClassPanel("The truth\nbelow the cover", truth, bounds, outcrop),
        panel(OUTCROP),
        panel(CRUSTS),
    ]
    notes = [
        "A simulated crust. Inside the outlines the bedrock crops out and is shown as mapped; where ruled in white it"
        " is predicted. Every predictor sees all mapped outcrop; the two networks see gravity, too.",
        *said,
    ]
    draw(path, panels, classes_of_legend(legend), title="gravmap demo", notes=notes, columns=3, panel_width_in=4.9)


def _read(path: Path) -> tuple[Labels, Bounds]:
    with rasterio.open(path) as raster:
        bounds = raster.bounds
        return raster.read(1), (bounds.left, bounds.bottom, bounds.right, bounds.top)
