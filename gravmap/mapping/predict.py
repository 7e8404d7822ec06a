"""From gravity fields and a trained network to the map of a region."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gravmap import __version__
from gravmap.errors import DeviceError, InputError, OptionError
from gravmap.files import refuse_existing, sha256, write_json
from gravmap.geology import Legend, LegendClass, open_labels, write_index_raster
from gravmap.gravity import field_recipe, open_fields
from gravmap.learning.checkpoint import ModelSpec, load_model
from gravmap.learning.mosaic import covering_windows, predict_logits
from gravmap.learning.target import to_label
from gravmap.mapping.figures import ClassPanel, FieldPanel, draw
from gravmap.mapping.provenance import describe
from gravmap.mapping.raster import MapGrid, map_grid, write_probability
from gravmap.progress import Progress, silent
from gravmap.regions import Region
from gravmap.units import format_angle

FILES = ("lithology.tif", "probability.tif", "quicklook.png", "provenance.json")

# Windows of a degree would mean thousands of full tiles; on a CPU that is days for a basin.
CPU_SCALES_FROM_DEG = 2.0


@dataclass(frozen=True)
class Plan:
    """What a prediction will read, compute and write.

    Attributes
    ----------
    region : Region
        What is mapped.
    grid : MapGrid
        Cells of the map.
    windows : dict of float to (n, 4) float array
        Scale in degrees to windows W S E N.
    device : str
        ``cpu`` or ``cuda``.
    tile_size_px : int
        Each window is this many pixels wide.
    """

    region: Region
    grid: MapGrid
    windows: dict[float, NDArray[np.float64]]
    device: str
    tile_size_px: int

    @property
    def passes(self) -> int:
        """How many windows go through the network."""
        return sum(len(windows) for windows in self.windows.values())


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


class Predictor:
    """A trained network beside the fields it is to read, checked to fit each other.

    Parameters
    ----------
    fields_path : Path
        ``data/fields.nc`` of `gravmap residual`.
    run_folder : Path
        A training run: ``model.json`` and ``model.safetensors``.
    device : str
        ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    InputError
        The fields were made by another recipe than those the network was trained on, or lack a channel.
    DeviceError
        No such device.
    """

    def __init__(self, fields_path: Path, run_folder: Path, device: str = "auto") -> None:
        self.fields_path = fields_path
        self.run_folder = run_folder
        self.device = _device(device)
        self.network, self.spec = load_model(run_folder, self.device)
        self.network.eval()
        self.dataset = open_fields(fields_path)
        _check_recipe(field_recipe(self.dataset), self.spec, fields_path)
        absent = [name for name in self.spec.channels if name not in self.dataset]
        if absent:
            raise InputError(
                f"{fields_path} has no field {', '.join(absent)}, which the network reads.",
                "`gravmap residual` with the --height the network was trained with makes it.",
            )
        self.lat = self.dataset["lat"].values.astype(np.float64)
        self.lon = self.dataset["lon"].values.astype(np.float64)

    def plan(self, region: Region, scales_deg: list[float] | None = None, resolution_deg: float | None = None) -> Plan:
        """Lay cells and windows over a region.

        Parameters
        ----------
        region : Region
            What to map.
        scales_deg : list of float, optional
            Window sizes; by default those the network was trained on, on a CPU without the smallest.
        resolution_deg : float, optional
            Cell size; by default the nodes of the gravity grid.

        Raises
        ------
        InputError
            The region reaches beyond the fields.
        OptionError
            A scale the network has never seen.
        """
        grid = map_grid(self.lat, self.lon, region, resolution_deg)
        limit = (float(self.lon[0]), float(self.lat[0]), float(self.lon[-1]), float(self.lat[-1]))
        scales = self._scales(scales_deg)
        west, south, east, north = grid.bounds_wsen
        inside = (max(west, limit[0]), max(south, limit[1]), min(east, limit[2]), min(north, limit[3]))
        windows = {scale: covering_windows(inside, scale, limit) for scale in scales}
        return Plan(region, grid, windows, self.device, self.spec.tile_size_px)

    def _scales(self, asked: list[float] | None) -> list[float]:
        trained = [float(scale) for scale in self.spec.scales_deg]
        if asked:
            unknown = [scale for scale in asked if not any(math.isclose(scale, known) for known in trained)]
            if unknown:
                raise OptionError(
                    f"The network was not trained on windows of {', '.join(map(format_angle, unknown))}.",
                    f"It knows: {', '.join(map(format_angle, trained))}.",
                )
            return asked
        if self.device == "cpu":
            return [scale for scale in trained if scale >= CPU_SCALES_FROM_DEG] or trained
        return trained

    def seconds_per_pass(self) -> float:
        """Measured time of one window through the network on this device (a smaller one, scaled by area)."""
        probe = min(self.spec.tile_size_px, 256)
        sample = torch.zeros(1, len(self.spec.channels), probe, probe, device=self.device)
        with torch.inference_mode():
            self.network(sample)  # the first pass pays for choosing kernels
            start = time.perf_counter()
            self.network(sample)
            if self.device == "cuda":
                torch.cuda.synchronize()
        return (time.perf_counter() - start) * (self.spec.tile_size_px / probe) ** 2

    def probability(self, plan: Plan, batch_size: int = 1, progress: Progress = silent) -> NDArray[np.float32]:
        """Class probabilities on the cells of a plan: softmax of logits blended over windows, averaged over scales.

        Parameters
        ----------
        plan : Plan
            From :meth:`plan`.
        batch_size : int
            Windows at a time; changes memory and speed, not the result.
        progress : Progress
            Told after every batch of windows.

        Returns
        -------
        (K, ny, nx) float32
            North up; NaN where the fields are unknown or no window reaches.
        """
        stack = np.stack([self.dataset[name].values for name in self.spec.channels]).astype(np.float32)[:, ::-1]
        known: NDArray[np.bool_] = np.asarray(np.isfinite(stack).all(axis=0))
        fields = np.where(known, stack, 0).astype(np.float32)
        nodes = (float(self.lon[0]), float(self.lat[0]), float(self.lon[-1]), float(self.lat[-1]))
        total = np.zeros((len(self.spec.classes), *plan.grid.shape), np.float32)
        reached = np.zeros(plan.grid.shape, np.int32)
        done = 0
        for scale, windows in plan.windows.items():
            report = _from(progress, done, plan.passes, f"windows of {format_angle(scale)}")
            logits = predict_logits(
                self.network,
                fields,
                nodes,
                windows,
                plan.tile_size_px,
                plan.grid.lat_deg,
                plan.grid.lon_deg,
                scale_mgal=self.spec.scale_mgal,
                device=self.device,
                batch_size=batch_size,
                progress=report,
            )
            finite = np.isfinite(logits).all(axis=0)
            total[:, finite] += logits[:, finite]
            reached += finite
            done += len(windows)
        mean = total / np.maximum(reached, 1)
        mean -= mean.max(axis=0)
        exponent = np.exp(mean)
        probability: NDArray[np.float32] = (exponent / exponent.sum(axis=0)).astype(np.float32)
        blind = (reached == 0) | ~_nearest(known, self.lat[::-1], self.lon, plan.grid)
        probability[:, blind] = np.nan
        return probability


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
    inputs = {"fields": fields_path, "model": run_folder / "model.safetensors", "model_json": run_folder / "model.json"}
    if outcrop is not None and labels_path is not None:
        inputs["labels"] = labels_path
    content = (
        "bedrock class predicted everywhere"
        if outcrop is None
        else "outcrop as mapped, bedrock class predicted under cover"
    )
    tags = {
        "GRAVMAP_VERSION": __version__,
        "GRAVMAP_CONTENT": content,
        "GRAVMAP_MODEL_SHA256": sha256(inputs["model"]),
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
    record = describe(command=command, inputs=inputs, sources=predictor.spec.sources, settings=settings)
    record["outputs"] = {file: {"sha256": sha256(path)} for file, path in files.items() if file != "provenance.json"}
    write_json(files["provenance.json"], record)
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


def _from(progress: Progress, start: int, whole: int, title: str) -> Progress:
    """A listener for one part of a longer work."""

    def part(done: int, total: int, note: str = "") -> None:
        progress(start + done, whole, title)

    return part


def _device(asked: str) -> str:
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and not torch.cuda.is_available():
        raise DeviceError("No CUDA device is seen by torch.", "Add --device cpu, or see `gravmap doctor`.")
    return asked


def _check_recipe(found: dict[str, Any], spec: ModelSpec, path: Path) -> None:
    wanted = spec.field_recipe
    # Which other heights lie in the file does not matter: each field says its own height in its name.
    keys = sorted((wanted.keys() | found.keys()) - {"channels", "heights_m"})
    differing = [key for key in keys if not _same(wanted.get(key), found.get(key))]
    if differing:
        words = "; ".join(f"{key}: trained on {wanted.get(key)!r}, found {found.get(key)!r}" for key in differing)
        raise InputError(
            f"{path} was made by another recipe than the network was trained on ({words}).",
            "Make the fields as the network's were (`gravmap residual`), or train on these (`gravmap train`).",
        )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _nearest(
    mask: NDArray[np.bool_], lat_deg: NDArray[np.float64], lon_deg: NDArray[np.float64], grid: MapGrid
) -> NDArray[np.bool_]:
    """The value of a node mask at the node nearest to each cell; latitudes descending."""
    step_lat = (lat_deg[0] - lat_deg[-1]) / (lat_deg.size - 1)
    step_lon = (lon_deg[-1] - lon_deg[0]) / (lon_deg.size - 1)
    row = np.clip(np.rint((lat_deg[0] - grid.lat_deg) / step_lat).astype(int), 0, lat_deg.size - 1)
    col = np.clip(np.rint((grid.lon_deg - lon_deg[0]) / step_lon).astype(int), 0, lon_deg.size - 1)
    near: NDArray[np.bool_] = mask[row[:, None], col[None, :]]
    return near


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
    classes = [{"index": entry.index, "name": entry.name, "colour": entry.colour} for entry in legend.classes]
    middle = math.radians((plan.region.south + plan.region.north) / 2)
    wide = plan.region.width_deg * math.cos(middle) > 1.2 * plan.region.height_deg
    draw(
        path,
        [
            ClassPanel(shown, lithology, bounds, outcrop),
            FieldPanel("Probability of the likeliest class", "probability", confidence, bounds, limits=(0, 1)),
        ],
        classes,
        title=f"{name}: bedrock lithology",
        notes=notes,
        # A wide region is drawn one map above the other, a tall one side by side.
        columns=1 if wide else 2,
        panel_width_in=9.0 if wide else 6.0,
    )
