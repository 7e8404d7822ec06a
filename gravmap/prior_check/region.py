"""A region's field and map in boxes of the crusts' size, described in the same numbers as the crusts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.geology import LabelFile, load_legend
from gravmap.gravity.fields_file import field_recipe, open_fields
from gravmap.gravity.grid import crop, spacing_deg
from gravmap.learning.evaluation.baselines import spacing_yx_km
from gravmap.prior_check.quantities import cut_score
from gravmap.progress import Progress, silent
from gravmap.regions import Region
from gravmap.synthetic.crust import LEGEND, SPACING_DEG
from gravmap.synthetic.measured import Measuring
from gravmap.synthetic.statistics import field_statistics, map_statistics, outcrop_statistics
from gravmap.workspace import require

LARGEST = (240, 360)
"""Cells of the crusts that a region is held against: those that networks are taught on, where it holds such boxes."""

SMALLEST = 60
"""Cells across the smallest crust that says anything: 2 degrees."""


@dataclass(frozen=True)
class Box:
    """A part of the region as large as a crust.

    Attributes
    ----------
    bounds_wsen : tuple of float
        Degrees.
    statistics : dict of str to float
        As of a crust; what could not be taken is left out.
    """

    bounds_wsen: tuple[float, float, float, float]
    statistics: dict[str, float]


@dataclass(frozen=True)
class Described:
    """A region in numbers.

    Attributes
    ----------
    shape : (int, int)
        Cells of 2 arc-minutes of a box, and of the crusts it is held against.
    how : Measuring
        Level, spacing and heights of the fields.
    channels : tuple of str
        Residuals that the fields have.
    class_names : tuple of str
        Of classes 1..10; empty where the map has others than the crusts.
    boxes : tuple of Box
        Overlapping by half, or a little more.
    left_out : tuple of str
        What could not be compared, and why, in words.
    """

    shape: tuple[int, int]
    how: Measuring
    channels: tuple[str, ...]
    class_names: tuple[str, ...]
    boxes: tuple[Box, ...]
    left_out: tuple[str, ...]


def describe_region(
    fields_path: Path,
    labels_path: Path,
    region: Region | None = None,
    channels: tuple[str, ...] | None = None,
    progress: Progress = silent,
) -> Described:
    """Lay boxes over a region, and take the numbers of each.

    Parameters
    ----------
    fields_path, labels_path : Path
        ``data/fields.nc`` and ``data/labels.tif`` of a workspace.
    region : Region, optional
        A part of it; all of it by default.
    channels : tuple of str, optional
        Residuals that must be there, such as those that a network reads; by default those that are.
    progress : callable
        Told after every box.

    Raises
    ------
    InputError
        A file is missing or damaged, the fields lack a residual that is asked for, the region is smaller than the
        smallest crust or holds no box of which enough is known.
    """
    require(labels_path, "gravmap rasterize")
    fields = open_fields(fields_path)
    recipe = field_recipe(fields)
    there = tuple(str(name) for name in fields.data_vars if str(name).startswith("residual_"))
    lacking = [name for name in channels or () if name not in there]
    if lacking:
        wanted = " ".join(f"--height {name.removeprefix('residual_')}" for name in channels or ())
        raise InputError(
            f"{fields_path} lacks {', '.join(lacking)}, which the network reads.",
            f"`gravmap residual {wanted} --overwrite` makes them.",
        )
    chosen = there if channels is None else tuple(channels)
    if region is not None:
        fields = _cropped(fields, region)
    heights = {name: float(fields[name].attrs["lost_over_m"]) for name in chosen}
    how = Measuring(float(recipe["input_height_m"]), spacing_deg(fields["bouguer"]), tuple(sorted(heights.values())))
    shape = _shape(fields["bouguer"])
    left_out = []
    why_not = how.why_not()
    if why_not:
        left_out.append(f"The field itself: {why_not}.")
    with LabelFile(labels_path) as labels:
        names = _class_names(labels)
        if not names:
            left_out.append(
                f"Class shares and diffusion: the legend {labels.legend.name} has other classes than crusts."
            )
        windows = _windows(fields["bouguer"], shape)
        boxes = []
        for done, (rows, columns) in enumerate(windows, 1):
            box = _describe(fields, rows, columns, shape, how, chosen, labels, len(names) or None)
            if box is not None:
                boxes.append(box)
            progress(done, len(windows))
    if not boxes:
        raise InputError(
            "No part of the region as large as a crust is known well enough: gravity or labels are missing there.",
            "Check data/fields.nc and data/labels.tif, or name a part with --bbox W S E N.",
        )
    return Described(shape, how, chosen, names, tuple(boxes), tuple(left_out))


def _cropped(fields: xr.Dataset, region: Region) -> xr.Dataset:
    inside = crop(fields["bouguer"], region)
    # Longitudes may be counted from elsewhere in the file.
    columns = np.round((inside["lon"].values - fields["lon"].values[0]) / np.diff(fields["lon"].values[:2])).astype(int)
    rows = np.searchsorted(fields["lat"].values, inside["lat"].values - 1e-9)
    return fields.isel(lat=rows, lon=columns % fields.sizes["lon"]).assign_coords(lon=inside["lon"].values)


def _shape(grid: xr.DataArray) -> tuple[int, int]:
    """Cells of a crust that fits into the grid.

    Raises
    ------
    InputError
        None that says anything does.
    """
    sides = [size * step for size, step in zip(grid.shape, spacing_deg(grid), strict=True)]
    rows, columns = (min(int(side / SPACING_DEG + 1e-3), most) for side, most in zip(sides, LARGEST, strict=True))
    if min(rows, columns) < SMALLEST:
        raise InputError(
            f"The region measures {sides[0]:.3g} x {sides[1]:.3g} degrees (latitude, longitude); the smallest crust"
            f" that says anything measures {SMALLEST * SPACING_DEG:g} x {SMALLEST * SPACING_DEG:g}.",
            "Name a larger region, or make fields of one: `gravmap residual --bbox W S E N`.",
        )
    return rows, columns


def _windows(grid: xr.DataArray, shape: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Boxes of nodes as large as a crust that cover the grid, each half over the next or a little more."""
    parts = []
    for size, cells, step in zip(grid.shape, shape, spacing_deg(grid), strict=True):
        wide = min(round(cells * SPACING_DEG / step), size)
        count = int(np.ceil((size - wide) / (wide / 2) - 1e-9)) + 1
        parts.append([slice(int(first), int(first) + wide) for first in np.linspace(0, size - wide, count).round()])
    return [(rows, columns) for rows in parts[0] for columns in parts[1]]


def _describe(
    fields: xr.Dataset,
    rows: slice,
    columns: slice,
    shape: tuple[int, int],
    how: Measuring,
    channels: tuple[str, ...],
    labels: LabelFile,
    classes: int | None,
) -> Box | None:
    """The numbers of one box; None where neither field nor map is known well enough."""
    part = fields.isel(lat=rows, lon=columns)
    lat, lon = part["lat"].values, part["lon"].values
    tall, wide = how.spacing_yx_deg
    found: dict[str, float] = {}
    if how.why_not() is None:
        planes: dict[str, NDArray[Any]] = {name: part[name].values for name in ("bouguer", *channels)}
        found |= field_statistics(planes, spacing_yx_km(lat, lon))
        found |= outcrop_statistics(planes, labels.sample(lat, lon))
    # The map is read at the centres of cells like a crust's, whatever the field's nodes.
    south, west = lat[0] - tall / 2, lon[0] - wide / 2
    cell_lat = south + (np.arange(shape[0], dtype=float)[::-1] + 0.5) * SPACING_DEG
    cell_lon = west + (np.arange(shape[1], dtype=float) + 0.5) * SPACING_DEG
    surface = labels.sample(cell_lat, cell_lon)
    cells = spacing_yx_km(cell_lat, cell_lon)
    numbers = map_statistics(surface, cells, classes or int(max(entry.index for entry in labels.legend.classes)))
    found |= {key: value for key, value in numbers.items() if classes or not key.startswith("share_")}
    if classes and numbers:
        score = cut_score(surface, cells, classes)
        if score is not None:
            found["diffusion_score"] = score
    bounds = (float(west), float(south), float(lon[-1] + wide / 2), float(lat[-1] + tall / 2))
    return Box(bounds, found) if found else None


def _class_names(labels: LabelFile) -> tuple[str, ...]:
    """Names of the map's classes where they are those of the crusts, none otherwise."""
    own = {entry.index: entry.name for entry in labels.legend.bedrock}
    crusts = {entry.index: entry.name for entry in load_legend(LEGEND).bedrock}
    return tuple(crusts[index] for index in sorted(crusts)) if own == crusts else ()
