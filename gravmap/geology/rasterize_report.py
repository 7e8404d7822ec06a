"""Results of rasterizing geological maps: the raster, the maps read, and the area of each code and class."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.files import sha256
from gravmap.geology.legend import Legend
from gravmap.geology.legend_file import code_entry, override_rule

if TYPE_CHECKING:
    from gravmap.geology.geological_map import MapPolygons

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CodeArea:
    """A code of a map, its class, and the area and number of its polygons in the raster."""

    map: str
    code: str
    index: int | None
    area_km2: float
    polygons: int


@dataclass(frozen=True)
class MapSummary:
    """Summary of one input map.

    Attributes
    ----------
    file, sha256, legend, field : str
        File name, hash of its bytes, name of the legend, field as spelled in the file.
    dbf_sha256 : str
        For a Shapefile, the hash of its attribute table, which has the codes.
    crs : str
        Coordinate reference system of the file.
    polygons, mended, dropped : int
        Polygons in or near the region; invalid ones among them; features without area, which are left out.
    notes : tuple of str
        Decisions made while reading.
    disputed_km2 : float
        Area to which polygons of this map assign different classes; the later polygon in the file is used.
    """

    file: str
    sha256: str
    legend: str
    field: str
    crs: str
    polygons: int
    mended: int
    dropped: int
    notes: tuple[str, ...] = ()
    dbf_sha256: str = ""
    disputed_km2: float = 0.0


@dataclass(frozen=True)
class UnusableArea:
    """Area of 255 (not usable) by cause, km² on the ellipsoid; the sum is ``class_km2[255]``.

    Attributes
    ----------
    outside_km2 : float
        Outside every polygon.
    gaps_km2 : float
        Covered only by polygons whose code the legend declares a gap.
    by_legend_km2 : float
        Codes that the legend declares not usable, such as an age span too wide for one class.
    unknown_km2 : float
        Codes that are not in the legend.
    """

    outside_km2: float = 0.0
    gaps_km2: float = 0.0
    by_legend_km2: float = 0.0
    unknown_km2: float = 0.0


@dataclass(frozen=True)
class RasterizedMap:
    """A label raster, and how it was made.

    Attributes
    ----------
    values : ndarray, shape (rows, columns), uint8
        North-up; 0 cover, 1, 2, ... bedrock, 255 not usable (gaps between polygons included).
    bounds_wsen : tuple of float
        Outer edges of the cells, degrees.
    resolution_deg : float
        Side of a cell.
    legend : Legend
        The class table; its sources are the maps and crosswalks used.
    maps : tuple of MapSummary
        One per map, in order of precedence.
    codes : tuple of CodeArea
        All codes of the maps, with their areas in the raster.
    class_km2 : dict of int to float
        Area of each class of the legend, and of 255, on the ellipsoid; the sum is the area of the raster.
    unusable : UnusableArea
        The area of 255 by cause.
    disputed_between_km2 : float
        Area to which two maps assign different classes; the earlier map is used.

    Examples
    --------
    >>> import numpy as np
    >>> from gravmap.geology import load_legend
    >>> from gravmap.geology.rasterize_report import RasterizedMap
    >>> from gravmap.geology.rasterize_report import CodeArea
    >>> codes = (CodeArea("map.gpkg", "D", 6, 120.0, 3), CodeArea("map.gpkg", "xx", None, 5.0, 1))
    >>> values = np.full((2, 2), 6, dtype=np.uint8)
    >>> made = RasterizedMap(values, (80, 44, 82, 46), 1.0, load_legend("basement10"), maps=(), codes=codes)
    >>> [code.code for code in made.unknown]
    ['xx']
    """

    values: NDArray[np.uint8]
    bounds_wsen: tuple[float, float, float, float]
    resolution_deg: float
    legend: Legend
    maps: tuple[MapSummary, ...]
    codes: tuple[CodeArea, ...]
    class_km2: dict[int, float] = dataclass_field(default_factory=dict)
    unusable: UnusableArea = UnusableArea()
    disputed_between_km2: float = 0.0

    @property
    def unknown(self) -> tuple[CodeArea, ...]:
        """Codes that are not in their legend; their area is 255."""
        return tuple(entry for entry in self.codes if entry.index is None)


def check_unknown_codes(
    codes: tuple[CodeArea, ...], maps: Sequence[tuple[Path | str, Legend]], reports: list[MapSummary]
) -> None:
    """Log a warning about codes that are not in the legend; raise InputError if none of a map's codes is."""
    for (_, legend), report in zip(maps, reports, strict=True):
        of_map = [entry for entry in codes if entry.map == report.file]
        unknown = [entry for entry in of_map if entry.index is None]
        if not unknown:
            continue
        listed = ", ".join(f"{entry.code} ({entry.area_km2:,.0f} km²)" for entry in unknown[:12])
        listed += f" and {len(unknown) - 12} more" if len(unknown) > 12 else ""
        if len(unknown) == len(of_map):
            raise InputError(
                f"The legend {legend.name} has none of the codes in {report.field} of {report.file}: {listed}.",
                f"Is {report.field} the right --field? The legend {_known_codes(legend)}.",
            )
        lost = sum(entry.area_km2 for entry in unknown)
        log.warning(
            "%s: codes that are not in the legend %s became 255, not usable (%.0f km²): %s.",
            report.file,
            legend.name,
            lost,
            listed,
        )


def _known_codes(legend: Legend) -> str:
    if legend.ages:
        return "reads names of the ICS chart and ages in Ma"
    return f"has {', '.join(list(legend.codes)[:12])}"


def summarize_map(path: Path, legend: Legend, polygons: MapPolygons) -> MapSummary:
    """Summary of a map read by :func:`gravmap.geology.geological_map.read_map`, with the hash of its file."""
    table = path.with_suffix(".dbf")
    return MapSummary(
        path.name,
        sha256(path) if path.is_file() else "",  # a file geodatabase is a folder
        legend.name,
        polygons.fields[0],
        polygons.crs,
        len(polygons.codes),
        polygons.mended,
        polygons.dropped,
        polygons.notes,
        sha256(table) if path.suffix.lower() == ".shp" and table.is_file() else "",
    )


def source_record(report: MapSummary, legend: Legend, address: str = "") -> dict[str, Any]:
    """A map and its crosswalk, as stored in the legend of the raster; :func:`legend_of_source` reads it.

    `address` is that which the map was downloaded from.
    """
    crosswalk = {code: code_entry(code, legend.codes, legend.units, legend.gaps) for code in legend.codes}
    source: dict[str, Any] = {
        "file": report.file,
        "sha256": report.sha256,
        "legend": legend.name,
        "field": report.field,
    }
    if report.dbf_sha256:
        source["dbf_sha256"] = report.dbf_sha256
    if address:
        source["source"] = address
    source |= {"crs": report.crs, "citation": legend.citation}
    if legend.ages:
        source["ages"] = "ICS chart 2023/09; codes are exceptions"
    source["codes"] = crosswalk
    if legend.overrides:
        source["override"] = {
            entry.field: {code: override_rule(decided, entry.unless[code]) for code, decided in entry.codes.items()}
            for entry in legend.overrides
        }
    return source
