"""Rasterization of geological maps to one raster of class indices."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gravmap.classes import CLASS_TABLES
from gravmap.errors import InputError, OptionError
from gravmap.geology.areas import row_cell_areas_km2
from gravmap.geology.legend import Legend, LegendClass
from gravmap.geology.legend_file import load_legend
from gravmap.geology.rasterize_report import (
    CodeArea,
    RasterizedMap,
    UnusableArea,
    check_unknown_codes,
    source_record,
    summarize_map,
)
from gravmap.geology.reclassify import with_classes
from gravmap.geology.scanline import BETWEEN, NO_OWNER, WITHIN, Canvas
from gravmap.lattice import UNUSABLE
from gravmap.progress import Progress, silent
from gravmap.regions import Region

if TYPE_CHECKING:
    from gravmap.geology.geological_map import MapPolygons

log = logging.getLogger(__name__)

RESOLUTION_DEG = 15 / 3600


def grid_shape(region: Region, resolution_deg: float) -> tuple[int, int, tuple[float, float, float, float]]:
    """Rows, columns and outer edges of the raster that covers a region.

    The north-west corners coincide; if the resolution does not divide the region, the last row and column extend beyond
    it by less than a cell.

    Raises
    ------
    OptionError
        The resolution is not positive, or larger than the region.
    """
    if not 0 < resolution_deg <= min(region.width_deg, region.height_deg):
        raise OptionError(
            f"A resolution of {resolution_deg:g} degrees does not fit the region {region}.",
            "Give a smaller one, such as 15arcsec.",
        )
    columns = math.ceil(region.width_deg / resolution_deg - 1e-6)
    rows = math.ceil(region.height_deg / resolution_deg - 1e-6)
    exact = (
        abs(columns * resolution_deg - region.width_deg) < 1e-6
        and abs(rows * resolution_deg - region.height_deg) < 1e-6
    )
    east, south = region.west + columns * resolution_deg, region.north - rows * resolution_deg
    return rows, columns, region.bounds_wsen if exact else (region.west, south, east, region.north)


def rasterize(
    maps: Sequence[tuple[Path | str, Legend]],
    region: Region,
    resolution_deg: float = RESOLUTION_DEG,
    *,
    addresses: Sequence[str] = (),
    progress: Progress = silent,
) -> RasterizedMap:
    r"""Rasterize geological maps to one raster of class indices.

    A cell gets the class of the polygon that contains its centre. Where maps overlap, the earlier one in `maps` is
    used, except where its code is a gap; where polygons of one map overlap, the later one in the file is used. The
    areas decided by these rules are reported. Cells outside every polygon are 255, not cover.

    Parameters
    ----------
    maps : sequence of (path, Legend)
        The maps in order of precedence. Their legends must have the same class table.
    region : Region
        Region to cover, degrees.
    resolution_deg : float
        Cell size, degrees.
    addresses : sequence of str
        Of each map the address that it was downloaded from, for the record; empty for a file of the user's own.
    progress : Progress
        Called after each map.

    Returns
    -------
    RasterizedMap
        To be written with :func:`gravmap.geology.write_labels`.

    Raises
    ------
    InputError
        A map cannot be used, no map intersects the region, or a legend has none of the codes of its map.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import geopandas, shapely
    >>> from gravmap.geology import load_legend, rasterize
    >>> from gravmap.geology.legend_file import read_legend
    >>> from gravmap.regions import Region
    >>> toml = 'name = "toy"\nclasses = "basement10"\n[map]\nfield = "UNIT"\n[map.codes]\nQ = 0\nD = 6\n'
    >>> boxes = [shapely.box(80, 44, 81, 45), shapely.box(81, 44, 82, 45)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "map.gpkg"
    ...     geopandas.GeoDataFrame({"UNIT": ["Q", "D"]}, geometry=boxes, crs="EPSG:4326").to_file(path)
    ...     made = rasterize([(path, read_legend(toml, "toy"))], Region(80, 44, 82, 45), resolution_deg=0.5)
    >>> made.values
    array([[0, 0, 6, 6],
           [0, 0, 6, 6]], dtype=uint8)
    """
    from gravmap.geology.geological_map import read_map  # slow to import

    rows, columns, bounds = grid_shape(region, resolution_deg)
    classes = _common_classes(maps)
    ids: list[tuple[int, tuple[str, ...]]] = []  # map and codes of each number, from 1
    counts: list[int] = []
    drawn: list[tuple[NDArray[Any], NDArray[np.int64]]] = []
    reports = []
    for order, (path, legend) in enumerate(maps):
        progress(order, len(maps) + 1, Path(path).name)
        polygons = read_map(Path(path), legend, region)
        reports.append(summarize_map(Path(path), legend, polygons))
        drawn.append((polygons.geometries, _number(polygons, order, ids, counts)))
    if not any(report.polygons for report in reports):
        _refuse_outside(maps, region)
    for report in reports:
        if report.polygons == 0 and len(reports) > 1:
            log.warning("%s does not intersect the region %s and is not used.", report.file, region)
    # Indexed by number; 0 is the area outside every polygon.
    class_of_number = [None, *(_class_of(maps[order][1], code) for order, code in ids)]
    lookup = np.array([UNUSABLE if index is None else index for index in class_of_number], dtype=np.uint8)
    gap = np.array([False, *(_is_gap(maps[order][1], code) for order, code in ids)])
    owner = np.where(gap, NO_OWNER, [NO_OWNER, *(order for order, _ in ids)])
    cell_km2 = row_cell_areas_km2(bounds[1], bounds[3], rows, (bounds[2] - bounds[0]) / columns)
    canvas = Canvas((rows, columns), bounds, lookup, owner)
    # Later drawing overwrites earlier: gaps first, the first map last.
    for geometries, numbers in reversed(drawn):
        canvas.draw(geometries[gap[numbers]], numbers[gap[numbers]])
    for order, (geometries, numbers) in reversed(list(enumerate(drawn))):
        canvas.draw(geometries[~gap[numbers]], numbers[~gap[numbers]])
        reports[order] = replace(reports[order], disputed_km2=canvas.pop_disputed_km2(WITHIN, cell_km2))
    between_km2 = canvas.pop_disputed_km2(BETWEEN, cell_km2)
    drawn.clear()
    progress(len(maps), len(maps) + 1, "rasterized")
    areas = _areas_km2(canvas.numbers, len(lookup), cell_km2)
    codes = _code_areas(ids, counts, areas, maps)
    check_unknown_codes(codes, maps, reports)
    class_km2 = {entry.index: 0.0 for entry in classes} | {UNUSABLE: 0.0}
    for index, area in zip(lookup, areas, strict=True):
        class_km2[int(index)] += float(area)
    known = np.array([index is not None for index in class_of_number])
    unusable = UnusableArea(
        outside_km2=float(areas[0]),
        gaps_km2=float(areas[gap].sum()),
        by_legend_km2=float(areas[known & ~gap & (lookup == UNUSABLE)].sum()),
        unknown_km2=float(areas[1:][~known[1:]].sum()),
    )
    first = maps[0][1]
    sources = tuple(
        source_record(report, legend, address)
        for report, (_, legend), address in zip(reports, maps, addresses or [""] * len(maps), strict=True)
    )
    name = first.name if len(maps) == 1 else "+".join(dict.fromkeys(legend.name for _, legend in maps))
    table = Legend(
        name=name,
        classes=classes,
        title="Class table of a label raster and the maps it was made from",
        sources=sources,
        table=first.table,
    )
    progress(len(maps) + 1, len(maps) + 1, "done")
    values = lookup[canvas.numbers]
    return RasterizedMap(values, bounds, resolution_deg, table, tuple(reports), codes, class_km2, unusable, between_km2)


def _common_classes(maps: Sequence[tuple[Path | str, Legend]]) -> tuple[LegendClass, ...]:
    if not maps:
        raise InputError("No map was given.", "Give one with its --legend, or run `gravmap fetch` first.")
    classes = maps[0][1].classes
    for _, legend in maps[1:]:
        if legend.classes != classes:
            raise InputError(
                f"The legends {maps[0][1].name} and {legend.name} have different class tables: {maps[0][1].table} and"
                f" {legend.table}.",
                f"Maps that are rasterized together need the same one: {_shared_table(maps)}.",
            )
    return classes


def _shared_table(maps: Sequence[tuple[Path | str, Legend]]) -> str:
    """How to give the legends of all maps the same class table, for a message."""
    for table in dict.fromkeys(legend.table for _, legend in maps if legend.table in CLASS_TABLES):
        try:
            for _, legend in maps:
                with_classes(legend, load_legend(table))
        except InputError:
            continue
        return f"add --classes {table}"
    return "write the same `classes = ...` in both, and ages for their codes"


def _number(
    polygons: MapPolygons, order: int, ids: list[tuple[int, tuple[str, ...]]], counts: list[int]
) -> NDArray[np.int64]:
    """Number each combination of codes, continuing from earlier maps; returns the number of each polygon."""
    known: dict[tuple[str, ...], int] = {}
    numbers = np.empty(len(polygons.codes), dtype=np.int64)
    for place, code in enumerate(polygons.codes):
        if code not in known:
            ids.append((order, code))
            counts.append(0)
            known[code] = len(ids)
        counts[known[code] - 1] += 1
        numbers[place] = known[code]
    if len(ids) >= np.iinfo(np.uint16).max:
        raise InputError(
            f"The maps have {len(ids)} different codes.",
            "Is --field the field of the unit rather than a number of the polygon?",
        )
    return numbers


def _is_gap(legend: Legend, code: tuple[str, ...]) -> bool:
    # An override may assign a class to a code that is a gap by the first field.
    return code[0] in legend.gaps and _class_of(legend, code) == UNUSABLE


def _class_of(legend: Legend, code: tuple[str, ...]) -> int | None:
    others = {override.field: value for override, value in zip(legend.overrides, code[1:], strict=True)}
    return legend.classify(code[0], others)


def _areas_km2(numbers: NDArray[Any], count: int, cell_km2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area of each number, from the cell areas of the rows."""
    total = np.zeros(count)
    for row, area in zip(numbers, cell_km2, strict=True):
        total += np.bincount(row, minlength=count) * area
    return total


def _code_areas(
    ids: list[tuple[int, tuple[str, ...]]],
    counts: list[int],
    areas: NDArray[np.float64],
    maps: Sequence[tuple[Path | str, Legend]],
) -> tuple[CodeArea, ...]:
    found = []
    for number, (order, code) in enumerate(ids, start=1):
        path, legend = maps[order]
        written = " ".join(part for part in code if part) or "(blank)"
        found.append(
            CodeArea(Path(path).name, written, _class_of(legend, code), float(areas[number]), counts[number - 1])
        )
        for override, other in zip(legend.overrides, code[1:], strict=True):
            if other and other not in override.codes:
                log.warning(
                    "%s: %s = %r is not in the legend %s; the class from the first field is kept.",
                    Path(path).name,
                    override.field,
                    other,
                    legend.name,
                )
    return tuple(sorted(found, key=lambda entry: -entry.area_km2))


def _refuse_outside(maps: Sequence[tuple[Path | str, Legend]], region: Region) -> None:
    from gravmap.geology.geological_map import map_region

    where = []
    for path, legend in maps:
        extent = map_region(Path(path), legend)
        where.append(f"{Path(path).name} covers {extent}" if extent else f"{Path(path).name} covers nothing")
    raise InputError(
        f"No map intersects the region {region}: {'; '.join(where)}.",
        "Give another --region or --bbox, or another map.",
    )
