"""Statistics of a region's field and map, and of simulated crusts of the same size: what a prior check compares."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gravmap.errors import InputError, OptionError
from gravmap.files import write_json
from gravmap.geology import load_legend
from gravmap.geology.areas import row_cell_areas_km2
from gravmap.geology.labels import LabelFile
from gravmap.gravity.fields_file import field_recipe, open_fields
from gravmap.gravity.grid import crop, spacing_deg
from gravmap.gravity.patch import OPERATOR_VERSION
from gravmap.lattice import spacing_yx_km
from gravmap.prior_check.quantities import SCORE_VERSION, cover_mask_score
from gravmap.progress import Progress, silent
from gravmap.records import read_record
from gravmap.regions import Region
from gravmap.synthetic import draw_crust
from gravmap.synthetic.crust import LEGEND, SPACING_DEG
from gravmap.synthetic.measured import Measuring, measured_fields, surface_at
from gravmap.synthetic.pool import CRUST_VERSION, run_in_processes
from gravmap.synthetic.prior import Prior
from gravmap.synthetic.statistics import field_statistics, map_statistics, outcrop_statistics
from gravmap.units import parse_length_m
from gravmap.workspace import require

MAX_SHAPE = (240, 360)
"""Cells of a crust that a region is compared with: the size used in training, if the region contains such boxes."""

MIN_CELLS = 60
"""Minimum number of cells per side of a crust: 2 degrees."""


Statistics = dict[str, float]


@dataclass(frozen=True)
class Box:
    """A part of the region as large as a crust.

    Attributes
    ----------
    bounds_wsen : tuple of float
        West, south, east, north, degrees.
    statistics : dict of str to float
        Keys as for a crust; what could not be computed is missing.
    """

    bounds_wsen: tuple[float, float, float, float]
    statistics: dict[str, float]


@dataclass(frozen=True)
class RegionStatistics:
    """Statistics of a region.

    Attributes
    ----------
    shape : (int, int)
        Cells of 2 arc-minutes of a box, and of the crusts it is compared with.
    how : Measuring
        Level, spacing and heights of the fields.
    channels : tuple of str
        Residuals of the fields.
    class_names : tuple of str
        Of classes 1..10; empty if the map has other classes than the crusts.
    boxes : tuple of Box
        Overlapping by half, or a little more.
    left_out : tuple of str
        What could not be compared, and why.
    """

    shape: tuple[int, int]
    how: Measuring
    channels: tuple[str, ...]
    class_names: tuple[str, ...]
    boxes: tuple[Box, ...]
    left_out: tuple[str, ...]


def region_statistics(
    fields_path: Path,
    labels_path: Path,
    region: Region | None = None,
    channels: tuple[str, ...] | None = None,
    progress: Progress = silent,
) -> RegionStatistics:
    """Statistics of boxes that cover a region.

    Parameters
    ----------
    fields_path, labels_path : Path
        ``data/fields.nc`` and ``data/labels.tif`` of a workspace.
    region : Region, optional
        Part of the fields; all by default.
    channels : tuple of str, optional
        Required residuals, such as those that a network reads; by default those in the file.
    progress : callable
        Called after every box.

    Raises
    ------
    InputError
        A file is missing or damaged, the fields lack a required residual, the region is smaller than the smallest crust
        or contains no box with enough data.
    """
    require(labels_path, "gravmap rasterize")
    fields = open_fields(fields_path)
    recipe = field_recipe(fields)
    available = tuple(str(name) for name in fields.data_vars if str(name).startswith("residual_"))
    missing = [name for name in channels or () if name not in available]
    if missing:
        wanted = " ".join(f"--height {name.removeprefix('residual_')}" for name in channels or ())
        raise InputError(
            f"{fields_path} lacks {', '.join(missing)}, which the network reads.",
            f"Compute them with `gravmap residual {wanted} --overwrite`.",
        )
    chosen = available if channels is None else tuple(channels)
    if region is not None:
        fields = _cropped(fields, region)
    heights = {name: _height_m(name, fields_path) for name in chosen}
    how = Measuring(
        float(recipe.get("input_height_m", 0.0)), spacing_deg(fields["bouguer"]), tuple(sorted(heights.values()))
    )
    shape = _box_shape(fields["bouguer"])
    left_out = []
    why_not = how.why_not()
    if why_not:
        left_out.append(f"The field itself: {why_not}.")
    with LabelFile(labels_path) as labels:
        names = _class_names(labels)
        if not names:
            left_out.append(
                f"Class frequencies and diffusion: the labels have the classes of "
                f"{labels.legend.table or labels.legend.name}, crusts those of {load_legend(LEGEND).table}."
            )
        windows = _windows(fields["bouguer"], shape)
        boxes = []
        for done, (rows, columns) in enumerate(windows, 1):
            box = _box_statistics(fields, rows, columns, shape, how, chosen, labels, len(names) or None)
            if box is not None:
                boxes.append(box)
            progress(done, len(windows))
    if boxes and not any("cover_share" in box.statistics for box in boxes):
        left_out.append("Cover and geology: less than three quarters of every box are mapped.")
    if not boxes:
        raise InputError(
            "No part of the region as large as a crust has enough data: gravity or labels are missing.",
            "Check data/fields.nc and data/labels.tif, or select a part with --bbox W S E N.",
        )
    return RegionStatistics(shape, how, chosen, names, tuple(boxes), tuple(left_out))


def _height_m(name: str, path: Path) -> float:
    """The height of a residual, from its name: ``residual_10km``."""
    try:
        return parse_length_m(name.removeprefix("residual_"))
    except OptionError:
        raise InputError(
            f"{path}: the height of {name} is not known.", "`gravmap residual --overwrite` makes the fields again."
        ) from None


def _cropped(fields: xr.Dataset, region: Region) -> xr.Dataset:
    inside = crop(fields["bouguer"], region)
    # Longitudes in the file may differ by 360 degrees.
    columns = np.round((inside["lon"].values - fields["lon"].values[0]) / np.diff(fields["lon"].values[:2])).astype(int)
    rows = np.searchsorted(fields["lat"].values, inside["lat"].values - 1e-9)
    return fields.isel(lat=rows, lon=columns % fields.sizes["lon"]).assign_coords(lon=inside["lon"].values)


def _box_shape(grid: xr.DataArray) -> tuple[int, int]:
    """Cells of the largest crust that fits into the grid.

    Raises
    ------
    InputError
        The grid is too small.
    """
    sides = [size * step for size, step in zip(grid.shape, spacing_deg(grid), strict=True)]
    rows, columns = (min(int(side / SPACING_DEG + 1e-3), most) for side, most in zip(sides, MAX_SHAPE, strict=True))
    if min(rows, columns) < MIN_CELLS:
        raise InputError(
            f"The region measures {sides[0]:.3g} x {sides[1]:.3g} degrees (latitude, longitude); the smallest crust"
            f" measures {MIN_CELLS * SPACING_DEG:g} x {MIN_CELLS * SPACING_DEG:g}.",
            "Select a larger region, or compute its fields: `gravmap residual --bbox W S E N`.",
        )
    return rows, columns


def _windows(grid: xr.DataArray, shape: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Slices of nodes of boxes as large as a crust that cover the grid and overlap by half or a little more."""
    parts = []
    for size, cells, step in zip(grid.shape, shape, spacing_deg(grid), strict=True):
        wide = min(round(cells * SPACING_DEG / step), size)
        count = int(np.ceil((size - wide) / (wide / 2) - 1e-9)) + 1
        parts.append([slice(int(first), int(first) + wide) for first in np.linspace(0, size - wide, count).round()])
    return [(rows, columns) for rows in parts[0] for columns in parts[1]]


def _box_statistics(
    fields: xr.Dataset,
    rows: slice,
    columns: slice,
    shape: tuple[int, int],
    how: Measuring,
    channels: tuple[str, ...],
    labels: LabelFile,
    classes: int | None,
) -> Box | None:
    """Statistics of one box; None if neither field nor map have enough data."""
    part = fields.isel(lat=rows, lon=columns)
    lat, lon = part["lat"].values, part["lon"].values
    lat_step, lon_step = how.spacing_yx_deg
    found: dict[str, float] = {}
    if how.why_not() is None:
        planes: dict[str, NDArray[Any]] = {name: part[name].values for name in ("bouguer", *channels)}
        found |= field_statistics(planes, spacing_yx_km(lat, lon))
        found |= outcrop_statistics(planes, labels.sample(lat, lon))
    # The map is read at the centres of cells as those of a crust, independent of the nodes of the field.
    south, west = lat[0] - lat_step / 2, lon[0] - lon_step / 2
    cell_lat = south + (np.arange(shape[0], dtype=float)[::-1] + 0.5) * SPACING_DEG
    cell_lon = west + (np.arange(shape[1], dtype=float) + 0.5) * SPACING_DEG
    surface = labels.sample(cell_lat, cell_lon)
    cells = spacing_yx_km(cell_lat, cell_lon)
    found_classes = classes or int(max(entry.index for entry in labels.legend.classes))
    numbers = map_statistics(surface, cells, found_classes, _row_areas_km2(cell_lat))
    found |= {key: value for key, value in numbers.items() if classes or not key.startswith("share_")}
    if classes and numbers:
        score = cover_mask_score(surface, cells, classes)
        if score is not None:
            found["diffusion_score"] = score
    bounds = (float(west), float(south), float(lon[-1] + lon_step / 2), float(lat[-1] + lat_step / 2))
    return Box(bounds, found) if found else None


def _row_areas_km2(lat_deg: NDArray[Any]) -> NDArray[np.float64]:
    """Area of a cell of a crust in each row, north up: shares of cover are of area, as on the page of a map."""
    south, north = lat_deg.min() - SPACING_DEG / 2, lat_deg.max() + SPACING_DEG / 2
    return row_cell_areas_km2(south, north, len(lat_deg), SPACING_DEG)


def _class_names(labels: LabelFile) -> tuple[str, ...]:
    """Names of the map's classes if they are those of the crusts, else none."""
    own = {entry.index: entry.name for entry in labels.legend.bedrock}
    crusts = {entry.index: entry.name for entry in load_legend(LEGEND).bedrock}
    return tuple(crusts[index] for index in sorted(crusts)) if own == crusts else ()


STATISTICS_VERSION = 3
"""Incremented when the statistics of a crust change."""

CLASSES = 10


def simulated_statistics(
    prior: Prior,
    seeds: Sequence[int],
    shape: tuple[int, int],
    how: Measuring,
    *,
    processes: int = 1,
    cache: Path | None = None,
    progress: Progress = silent,
) -> list[Statistics]:
    """Statistics of simulated crusts, measured like a region's field.

    Parameters
    ----------
    prior : Prior
        The distribution of the crusts.
    seeds : sequence of int
        One crust each.
    shape : (int, int)
        Rows and columns of cells of 2 arc-minutes.
    how : Measuring
        Level, spacing and heights of the field.
    processes : int
        Number of parallel processes.
    cache : Path, optional
        Folder for cached statistics, one small file per crust; it can be deleted at any time.
    progress : callable
        Called after every crust.

    Returns
    -------
    list of dict of str to float
        In the order of the seeds; keys as in :mod:`gravmap.prior_check.quantities`.
    """
    tasks = [_CrustTask(prior, int(seed), (int(shape[0]), int(shape[1])), how, cache) for seed in seeds]
    return run_in_processes(tasks, processes, progress)


@dataclass(frozen=True)
class _CrustTask:
    """One crust whose statistics are to be computed."""

    prior: Prior
    seed: int
    shape: tuple[int, int]
    how: Measuring
    cache: Path | None

    def path(self) -> Path | None:
        """Its cache file, named after everything its statistics depend on."""
        if self.cache is None:
            return None
        versions = [CRUST_VERSION, OPERATOR_VERSION, STATISTICS_VERSION, SCORE_VERSION]
        how = [self.how.level_m, list(self.how.spacing_yx_deg), list(self.how.heights_m)]
        key = json.dumps([self.prior.sha256, versions, self.seed, list(self.shape), how])
        return self.cache / f"statistics-{self.seed}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"

    def read(self) -> Statistics | None:
        """Cached statistics; None if there are none."""
        path = self.path()
        if path is None:
            return None
        try:
            return read_record(path, dict[str, float])
        except InputError:
            return None  # missing or damaged: computed again

    def make(self) -> Statistics:
        """Simulate the crust, compute its statistics, and cache them."""
        crust = draw_crust(self.prior, self.seed, self.shape)
        found: Statistics = {}
        if self.how.why_not() is None:
            fields = measured_fields(crust, self.how)
            lat, lon = fields["lat"].values, fields["lon"].values
            planes = {str(name): fields[name].values for name in fields.data_vars}
            found |= field_statistics(planes, spacing_yx_km(lat, lon))
            found |= outcrop_statistics(planes, surface_at(crust, lat, lon))
        lat, lon = crust.gravity["lat"].values, crust.gravity["lon"].values
        cells = spacing_yx_km(lat, lon)
        surface = np.ascontiguousarray(crust.surface[::-1])
        found |= map_statistics(surface, cells, CLASSES, _row_areas_km2(lat))
        score = cover_mask_score(surface, cells, CLASSES)
        if score is not None:
            found["diffusion_score"] = score
        path = self.path()
        if path is not None:
            write_json(path, found)
        return found
