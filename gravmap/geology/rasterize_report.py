"""The account of a rasterized map: what was read, which code became what, and how much ground was lost."""

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
from gravmap.geology.legend_file import override_rule

if TYPE_CHECKING:
    from gravmap.geology.geological_map import MapPolygons

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CodeArea:
    """A code met on a map, what became of it, and how much ground it covers in the raster."""

    map: str
    code: str
    index: int | None
    area_km2: float
    polygons: int


@dataclass(frozen=True)
class MapSummary:
    """What was read from one map.

    Attributes
    ----------
    file, sha256, legend, field : str
        The file's name, the hash of its bytes, the legend's name, the field as the file spells it.
    dbf_sha256 : str
        Of a Shapefile, the hash of its table: there the codes are.
    crs : str
        The system it was reprojected from (EPSG:4326: none needed).
    polygons, mended, dropped : int
        Polygons in or near the region; invalid ones mended; features without area left out.
    notes : tuple of str
        What was decided on the way.
    disputed_km2 : float
        Ground that polygons of this map give different classes; the later in the file has it.
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
    """Why ground is 255, km² on the ellipsoid: the parts of ``class_km2[255]``.

    Attributes
    ----------
    outside_km2 : float
        Outside every polygon.
    gaps_km2 : float
        Under polygons whose code says nothing about the ground, and under nothing else.
    by_legend_km2 : float
        Under codes that the legend calls not usable, such as an age too wide for one class.
    unknown_km2 : float
        Under codes that the legend does not know.
    """

    outside_km2: float = 0.0
    gaps_km2: float = 0.0
    by_legend_km2: float = 0.0
    unknown_km2: float = 0.0


@dataclass(frozen=True)
class RasterizedMap:
    """A label raster and the account of its making.

    Attributes
    ----------
    values : ndarray, shape (rows, columns), uint8
        North-up; 0 cover, 1, 2, ... bedrock, 255 not usable (gaps between polygons included).
    bounds_wsen : tuple of float
        Outer edges of the cells, degrees.
    resolution_deg : float
        Side of a cell.
    legend : Legend
        The class table, with the maps and crosswalks used as its sources.
    maps : tuple of MapReport
        One per map, in order of precedence.
    codes : tuple of CodeArea
        Every code met, with the area it holds in the raster.
    class_km2 : dict of int to float
        Area of every class of the legend, and of 255, on the ellipsoid; they sum to that of the raster.
    unusable : UnusableGround
        What the area of 255 is made of.
    disputed_between_km2 : float
        Ground that two maps give different classes; the earlier map has it.
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
        """Codes that their legend does not know: their ground became 255."""
        return tuple(entry for entry in self.codes if entry.index is None)


def check_unknown_codes(
    codes: tuple[CodeArea, ...], maps: Sequence[tuple[Path | str, Legend]], reports: list[MapSummary]
) -> None:
    """Warn of codes a legend does not know; refuse a map of which it knows none."""
    for (_, legend), report in zip(maps, reports, strict=True):
        of_map = [entry for entry in codes if entry.map == report.file]
        unknown = [entry for entry in of_map if entry.index is None]
        if not unknown:
            continue
        listed = ", ".join(f"{entry.code} ({entry.area_km2:,.0f} km²)" for entry in unknown[:12])
        listed += f" and {len(unknown) - 12} more" if len(unknown) > 12 else ""
        if len(unknown) == len(of_map):
            raise InputError(
                f"The legend {legend.name} knows none of the codes in {report.field} of {report.file}: {listed}.",
                f"Is {report.field} the right --field? The legend {_knows(legend)}.",
            )
        lost = sum(entry.area_km2 for entry in unknown)
        log.warning(
            "%s: codes unknown to the legend %s, not usable (%.0f km² lost): %s.",
            report.file,
            legend.name,
            lost,
            listed,
        )


def _knows(legend: Legend) -> str:
    if legend.ages:
        return "reads names of the ICS chart and ages in Ma"
    return f"knows {', '.join(list(legend.codes)[:12])}"


def summarize_map(path: Path, legend: Legend, polygons: MapPolygons) -> MapSummary:
    """What :func:`gravmap.geology.geological_map.read_map` read of a map, and the hash of its file."""
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


def source_record(report: MapSummary, legend: Legend) -> dict[str, Any]:
    """A map and its crosswalk, for the legend beside the raster."""
    crosswalk: dict[str, Any] = {code: "gap" if code in legend.gaps else index for code, index in legend.codes.items()}
    source: dict[str, Any] = {
        "file": report.file,
        "sha256": report.sha256,
        "legend": legend.name,
        "field": report.field,
    }
    if report.dbf_sha256:
        source["dbf_sha256"] = report.dbf_sha256
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
