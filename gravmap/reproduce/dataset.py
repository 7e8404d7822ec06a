"""Tables of class areas and of windows, and figures of the gravity and of its annotation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.classes import CLASS_TABLES
from gravmap.errors import InputError
from gravmap.geology import load_legend, open_labels, rasterize
from gravmap.geology.geological_map import read_map
from gravmap.geology.legend import Legend
from gravmap.geology.legend_file import legend_of_map
from gravmap.geology.reclassify import with_classes
from gravmap.geology.scanline import Canvas
from gravmap.lattice import COVER, TEST, UNUSABLE
from gravmap.learning.data.dataset import RegionDataset
from gravmap.mapping.page.figures import ClassPanel, FieldPanel, classes_of_legend, draw
from gravmap.mapping.page.words import bare_area, count, percent
from gravmap.mapping.record.raster_content import count_values
from gravmap.regions import Region
from gravmap.reproduce.page import Picture, Table, Text
from gravmap.tiling import load_arrays
from gravmap.tiling.training_arrays import read_index
from gravmap.units import format_angle
from gravmap.workspace import Workspace

CELLS_PER_DEGREE = 60
"""Cells of the rasters from which windows are counted under both readings of what is cover."""


def class_table(place: Workspace) -> Table:
    """Table 1: the area of every class, and its percentage of the bedrock that crops out."""
    legend = open_labels(place.labels).legend
    found = count_values(place.labels)
    km2 = {entry.index: found.get(entry.index, (0, 0.0))[1] for entry in legend.classes}
    bedrock = sum(area for index, area in km2.items() if index != COVER)
    rows = []
    for entry in legend.classes:
        fraction = percent(km2[entry.index] / bedrock, 2) if entry.index != COVER and bedrock else "–"
        rows.append((entry.name, bare_area(km2[entry.index]), fraction, "–"))
    if UNUSABLE in found:
        rows.append(("not usable: water, gaps, mixed ages", bare_area(found[UNUSABLE][1]), "–", "–"))
    return Table(
        "Table 1. Classes of the geological map: area on the ellipsoid and percentage of the bedrock that crops out."
        " The paper gives its values in a figure only.",
        ("Class", "Area, km²", "Percent of bedrock", "Paper"),
        tuple(rows),
    )


def window_table(place: Workspace, paper: dict[str, Any]) -> Table:
    """Table 2: number of windows of every size, and of those with too little bedrock."""
    index = read_index(place.tiles)
    rows, total, excluded = [], 0, 0
    for scale in index["scales"]:
        windows, apart = scale["rows"] * scale["columns"], len(index["set_apart"].get(scale["name"], []))
        total, excluded = total + windows, excluded + apart
        row = (format_angle(scale["size_deg"]), format_angle(scale["stride_deg"]), windows, windows - apart, apart)
        rows.append((*(str(cell) for cell in row), "–"))
    paper_sum = f"{paper['windows']} = {paper['windows_with_bedrock']} + {paper['windows_set_apart']}"
    rows.append(("all", "", count(total), count(total - excluded), count(excluded), paper_sum))
    return Table(
        "Table 2. Windows by side and stride: all, those with bedrock on at least a tenth of their area, and those"
        " excluded for less. The text of the paper gives the sums.",
        ("Window", "Stride", "Windows", "With bedrock", "Excluded", "Paper"),
        tuple(rows),
    )


def excluded_windows(maps: Sequence[tuple[Path, Legend]], region: Region) -> tuple[int, dict[str, int]]:
    """Windows of 1 degree that are mapped whole, and how many of them have too little bedrock, by class table.

    Parameters
    ----------
    maps : sequence of (path, Legend)
        As for :func:`gravmap.geology.rasterize`; their codes have ages.
    region : Region
        Its windows of 1 degree are counted from the north-west corner, whole ones only.

    Returns
    -------
    mapped : int
        Windows of which polygons cover at least nine tenths.
    excluded : dict of str to int
        For each shipped class table, those of them with bedrock on less than a tenth of their area.

    Raises
    ------
    InputError
        A map cannot be read, none is in the region, or a legend has codes without age.
    """
    rows, columns = int(region.height_deg + 1e-6), int(region.width_deg + 1e-6)
    bounds = (region.west, region.north - rows, region.west + columns, region.north)
    shape = (rows * CELLS_PER_DEGREE, columns * CELLS_PER_DEGREE)

    def by_window(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        fraction: NDArray[np.float64] = mask.reshape(rows, CELLS_PER_DEGREE, columns, CELLS_PER_DEGREE).mean((1, 3))
        return fraction

    canvas = Canvas(shape, bounds, np.array([0, 1], np.uint8), np.array([0, 1]))
    for path, legend in maps:
        polygons = read_map(path, legend, region)
        shown = polygons.geometries[[code[0] not in legend.gaps for code in polygons.codes]]
        canvas.draw(shown, np.ones(len(shown), dtype=np.int64))
    mapped = by_window(canvas.numbers == 1) >= 0.9
    excluded = {}
    for table in CLASS_TABLES:
        classes = load_legend(table)
        own = [(path, with_classes(legend, classes)) for path, legend in maps]
        values = rasterize(own, Region(*bounds), 1 / CELLS_PER_DEGREE).values
        bedrock = by_window((values != COVER) & (values != UNUSABLE))
        excluded[table] = int(np.count_nonzero(mapped & (bedrock < 0.1)))
    return int(np.count_nonzero(mapped)), excluded


def reading_table(place: Workspace, maps: Sequence[tuple[Path, str]], paper: dict[str, Any]) -> Table | Text:
    """How many windows are excluded for too little bedrock, by what counts as cover, beside the paper's."""
    region = Region(*read_index(place.tiles)["region_wsen"])
    if not maps or min(region.width_deg, region.height_deg) < 1:
        why = "no map with both readings was used" if not maps else "the region has no window of 1 degree"
        return Text(f"Windows are not counted under both readings of what is cover: {why}.", "soft")
    try:
        legends = [(path, legend_of_map(load_legend(name), path)) for path, name in maps]
        mapped, excluded = excluded_windows(legends, region)
    except InputError as error:
        return Text(f"Windows are not counted under both readings of what is cover. {error.message}", "soft")
    paper_fraction = f"{paper['windows_set_apart']} of {paper['windows']}, all sizes"
    rows = tuple(
        (f"{load_legend(table).classes[0].name} ({table})", count(excluded[table]), count(mapped), paper_fraction)
        for table in CLASS_TABLES
    )
    return Table(
        "Windows of 1 degree, mapped on nine tenths of their area at least, that are excluded because bedrock crops out"
        " on less than a tenth of it, by what counts as cover. The paper does not say which it took.",
        ("Cover", "Excluded", "Windows", "Paper"),
        rows,
    )


def draw_gravity(place: Workspace, path: Path, title: str) -> Picture:
    """Figure 1: the Bouguer anomaly and the residual that is the input of the networks."""
    first = read_index(place.tiles)["channel"]
    dataset = RegionDataset.from_arrays(load_arrays(place.tiles, channels=["bouguer", first]))
    bounds = bounds_wsen(dataset)
    bouguer, residual = (np.where(dataset.field_valid, field, np.nan) for field in dataset.fields)
    panels = [
        FieldPanel("Observed: Bouguer anomaly", "mGal", bouguer, bounds),
        FieldPanel(f"Residual: {first.replace('_', ' of ')}", "mGal", residual, bounds, diverging=True),
    ]
    draw(path, panels, [], title=title, columns=2, panel_width_in=6.0)
    return Picture(
        path,
        "Figure 1. Gravity of the study area: the Bouguer anomaly as observed, and the residual after its upward"
        " continuation by 10 km is subtracted. The input of the networks is the residual as a colour image (RGB), as in"
        " the paper.",
    )


def draw_annotation(place: Workspace, dataset: RegionDataset, path: Path, title: str) -> Picture:
    """Figure 2: the labels made from the geological map, and the outcrop that is held out."""
    legend = open_labels(place.labels).legend
    surface, role = dataset.node_truth()
    outcrop = (surface != COVER) & (surface != UNUSABLE)
    held_out = np.where(outcrop & (role == TEST), surface, UNUSABLE).astype(np.uint8)
    bounds = bounds_wsen(dataset)
    panels = [
        ClassPanel("Annotation: bedrock where it crops out, cover elsewhere", surface, bounds, outcrop),
        ClassPanel("Outcrop in the test blocks", held_out, bounds),
    ]
    draw(path, panels, classes_of_legend(legend), title=title, columns=2, panel_width_in=6.0)
    return Picture(
        path,
        "Figure 2. Annotation: the classes of the geological map at the surface, and the outcrop that is held out by"
        " blocks (fold 0; grey: everything else; the paper has no such blocks).",
    )


def bounds_wsen(dataset: RegionDataset) -> tuple[float, float, float, float]:
    """Outer edges of the cells around the nodes of a dataset, degrees."""
    west, south, east, north = (float(side) for side in dataset.field_nodes_wsen)
    rows, columns = dataset.field_valid.shape
    y, x = 0.5 * (north - south) / (rows - 1), 0.5 * (east - west) / (columns - 1)
    return west - x, south - y, east + x, north + y
