"""From gravity fields and a trained network to the map of a region."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gravmap import __version__
from gravmap.files import refuse_existing, sha256
from gravmap.geology import Legend, LegendClass, open_labels, write_index_raster
from gravmap.learning.checkpoint import ModelSpec
from gravmap.learning.target import to_label
from gravmap.mapping.figures import ClassPanel, FieldPanel, classes_of_legend, draw
from gravmap.mapping.predictor import Plan, Predictor
from gravmap.mapping.provenance import seal, write_provenance
from gravmap.mapping.raster import MapGrid, write_probability
from gravmap.mapping.stac import write_item
from gravmap.progress import Progress, silent
from gravmap.regions import Region
from gravmap.units import format_angle

FILES = ("lithology.tif", "probability.tif", "quicklook.png", "provenance.json", "item.json")


@dataclass(frozen=True)
class Prediction:
    """A finished map.

    Attributes
    ----------
    lithology : (ny, nx) uint8
        Class index, north up; 0 is never predicted, 255 = no data.
    probability : (K, ny, nx) float32
        The network's probabilities; NaN where nothing is predicted.
    outcrop : (ny, nx) bool or None
        Where the class is the mapped one, not the network's; None when all is predicted.
    plan : Plan
        Grid, windows, device.
    files : dict of str to Path
        What was written.
    """

    lithology: NDArray[np.uint8]
    probability: NDArray[np.float32]
    outcrop: NDArray[np.bool_] | None
    plan: Plan
    files: dict[str, Path]


def predict(
    fields_path: Path,
    run_folder: Path,
    region: Region,
    out_folder: Path,
    *,
    name: str = "region",
    labels_path: Path | None = None,
    scales_deg: list[float] | None = None,
    resolution_deg: float | None = None,
    everywhere: bool = False,
    device: str = "auto",
    batch_size: int = 1,
    overwrite: bool = False,
    command: str = "",
    progress: Progress = silent,
) -> Prediction:
    """Map the bedrock of a region and write the map's files.

    By default the mapped outcrop is shown as mapped and the network names the bedrock under cover only.

    Parameters
    ----------
    fields_path, run_folder, device, scales_deg, resolution_deg, batch_size
        As in :class:`Predictor`.
    region : Region
        What to map.
    out_folder : Path
        Where ``lithology.tif``, ``probability.tif``, ``quicklook.png`` and ``provenance.json`` go.
    name : str
        The region's name, for the title.
    labels_path : Path, optional
        ``data/labels.tif``; without it (or with `everywhere`) every cell is the network's.
    everywhere : bool
        Show the network's class on the outcrop too.
    overwrite : bool
        Replace an earlier map.
    command : str
        The command line as typed, for the provenance.
    progress : Progress
        Told after every batch of windows.

    Raises
    ------
    InputError
        Files that do not fit each other, a region beyond the fields, or an earlier map.
    """
    for file in FILES:
        refuse_existing(out_folder / file, overwrite)
    predictor = Predictor(fields_path, run_folder, device)
    plan = predictor.plan(region, scales_deg, resolution_deg)
    legend = legend_of(predictor.spec)
    probability = predictor.probability(plan, batch_size, progress)
    lithology = classes_of(probability)
    outcrop = None
    if labels_path is not None and not everywhere:
        mapped = mapped_classes(labels_path, plan.grid)
        known = {entry.index for entry in legend.bedrock}
        outcrop = np.isin(mapped, list(known))
        lithology = np.where(outcrop, mapped, lithology).astype(np.uint8)
    files = {file: out_folder / file for file in FILES}
    content = (
        "bedrock class predicted everywhere"
        if outcrop is None
        else "outcrop as mapped, bedrock class predicted under cover"
    )
    tags = {
        "GRAVMAP_VERSION": __version__,
        "GRAVMAP_CONTENT": content,
        "GRAVMAP_MODEL_SHA256": sha256(run_folder / "model.safetensors"),
        "GRAVMAP_SCALES": ", ".join(map(format_angle, plan.windows)),
        "GRAVMAP_UPSAMPLING": f"{plan.grid.upsampling:.3g}",
    }
    write_index_raster(files["lithology.tif"], lithology, plan.grid.bounds_wsen, legend, tags=tags, cog=True)
    write_probability(files["probability.tif"], probability, plan.grid, [entry.name for entry in legend.bedrock], tags)
    _picture(files["quicklook.png"], name, lithology, probability, outcrop, plan, legend, predictor.spec)
    settings = {
        "region": name,
        "bounds_wsen": region.bounds_wsen,
        "content": content,
        "scales": [format_angle(scale) for scale in plan.windows],
        "windows": plan.passes,
        "cells": plan.grid.shape,
        "cell_deg": plan.grid.spacing_deg,
        "upsampling": plan.grid.upsampling,
        "device": plan.device,
    }
    write_provenance(
        out_folder,
        command=command,
        settings=settings,
        fields=fields_path,
        runs=[run_folder],
        labels=labels_path if outcrop is not None else None,
        device=plan.device,
    )
    write_item(out_folder)
    seal(out_folder)
    return Prediction(lithology, probability, outcrop, plan, files)


def classes_of(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The likeliest class of every cell, 1..K; 255 where nothing is predicted.

    Parameters
    ----------
    probability : (K, ny, nx) float32
        NaN where nothing is predicted.
    """
    blind = ~np.isfinite(probability[0])
    best = to_label(np.where(blind, 0, probability).argmax(axis=0))
    classes: NDArray[np.uint8] = np.where(blind, 255, best).astype(np.uint8)
    return classes


def legend_of(spec: ModelSpec) -> Legend:
    """The class table that a network was trained with, as a legend."""
    return Legend(
        name="model",
        classes=tuple(
            LegendClass(
                index=int(entry["index"]),
                name=entry["name"],
                age=entry.get("age", ""),
                colour=entry["colour"],
            )
            for entry in spec.classes
        ),
    )


def mapped_classes(labels_path: Path, grid: MapGrid) -> NDArray[np.uint8]:
    """The class mapped at the centre of every cell; 255 outside the label raster.

    Parameters
    ----------
    labels_path : Path
        Label raster.
    grid : MapGrid
        The cells.
    """
    labels = open_labels(labels_path)
    west, south, east, north = labels.bounds_wsen
    rows, cols = labels.values.shape
    row = np.floor((north - grid.lat_deg) / (north - south) * rows + 1e-9).astype(int)
    col = np.floor((grid.lon_deg - west) / (east - west) * cols + 1e-9).astype(int)
    # A node on the very edge of a gridline grid belongs to the last cell.
    row = np.where(np.isclose(grid.lat_deg, south), rows - 1, row)
    col = np.where(np.isclose(grid.lon_deg, east), cols - 1, col)
    inside = ((row >= 0) & (row < rows))[:, None] & ((col >= 0) & (col < cols))[None, :]
    values = labels.values[np.clip(row, 0, rows - 1)[:, None], np.clip(col, 0, cols - 1)[None, :]]
    mapped: NDArray[np.uint8] = np.where(inside, values, 255).astype(np.uint8)
    return mapped


def _picture(
    path: Path,
    name: str,
    lithology: NDArray[np.uint8],
    probability: NDArray[np.float32],
    outcrop: NDArray[np.bool_] | None,
    plan: Plan,
    legend: Legend,
    spec: ModelSpec,
) -> None:
    blind = ~np.isfinite(probability[0])
    confidence = np.where(blind, np.nan, np.where(blind, 0, probability).max(axis=0))
    bounds = plan.grid.bounds_wsen
    shown = "Bedrock: predicted everywhere"
    notes = [
        f"Network {spec.model} on {', '.join(spec.channels)}; windows of {', '.join(map(format_angle, plan.windows))}; "
        f"cells of {format_angle(plan.grid.spacing_deg[0])}."
    ]
    if outcrop is not None:
        shown = "Bedrock: as mapped inside the outlines, predicted under cover outside them"
    if plan.grid.upsampling > 1.01:
        notes.append(f"The cells are {plan.grid.upsampling:.3g} times finer than the gravity grid: no detail is added.")
    notes.append(
        "The probability is the network's own, not calibrated. See provenance.json for data, licences and hashes."
    )
    middle = math.radians((plan.region.south + plan.region.north) / 2)
    wide = plan.region.width_deg * math.cos(middle) > 1.2 * plan.region.height_deg
    draw(
        path,
        [
            ClassPanel(shown, lithology, bounds, outcrop),
            FieldPanel("Probability of the likeliest class", "probability", confidence, bounds, limits=(0, 1)),
        ],
        classes_of_legend(legend),
        title=f"{name}: bedrock lithology",
        notes=notes,
        # A wide region is drawn one map above the other, a tall one side by side.
        columns=1 if wide else 2,
        panel_width_in=9.0 if wide else 6.0,
    )
