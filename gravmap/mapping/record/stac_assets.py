"""The files of a map as STAC assets: media types, roles, bands, classes, checksums."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio

from gravmap.files import sha256
from gravmap.mapping.files.projection import cell_areas_km2
from gravmap.mapping.layers import EVIDENCE_COLOURS, NODATA
from gravmap.mapping.record.attribute_table import read_attribute_table
from gravmap.mapping.record.census import census

COG = "image/tiff; application=geotiff; profile=cloud-optimized"
XML, PNG, PDF, JSON = "application/xml", "image/png", "application/pdf", "application/json"

# A multihash says which hash it is and how long: 12 is SHA2-256, 20 its 32 bytes, in hexadecimal.
MULTIHASH_SHA256 = "1220"


@dataclass(frozen=True)
class Kind:
    """What a file of a map is.

    Attributes
    ----------
    key : str
        Its name among the assets.
    media_type, title : str
        For machines, and for people.
    roles : tuple of str
        STAC's asset roles.
    """

    key: str
    media_type: str
    roles: tuple[str, ...]
    title: str


KINDS = {
    "lithology.tif": Kind("lithology", COG, ("data",), "Bedrock lithology: the mapped outcrop, predicted under cover"),
    "probability.tif": Kind("probability", COG, ("data",), "Probability of every class"),
    "uncertainty.tif": Kind("uncertainty", COG, ("data",), "Measures of how unsure the class is"),
    "evidence.tif": Kind("evidence", COG, ("data",), "What the class of a cell rests on"),
    "lithology.gpkg": Kind(
        "polygons", "application/geopackage+sqlite3", ("data",), "Polygons by class, styled, with their evidence"
    ),
    "map.png": Kind("map", PNG, ("overview", "visual"), "The map as a picture"),
    "map.pdf": Kind("map_pdf", PDF, ("visual",), "The map for printing"),
    "uncertainty.png": Kind("uncertainty_map", PNG, ("overview",), "Uncertainty and evidence as a picture"),
    "uncertainty.pdf": Kind("uncertainty_map_pdf", PDF, ("visual",), "Uncertainty and evidence for printing"),
    "report.html": Kind("report", "text/html", ("metadata",), "The map, its scores and its limits on one page"),
    "provenance.json": Kind("provenance", JSON, ("metadata",), "What the map was made of; `gravmap verify` checks it"),
}
BY_SUFFIX = {
    ".qml": Kind("", XML, ("metadata", "style"), "QGIS style"),
    ".sld": Kind("", "application/vnd.ogc.sld+xml", ("metadata", "style"), "Style (SLD)"),
    ".xml": Kind("", XML, ("metadata",), "Class names and table of areas, which GDAL reads"),
    ".tif": Kind("", "image/tiff; application=geotiff", ("data",), "Raster"),
    ".png": Kind("", PNG, ("visual",), "Picture"),
    ".pdf": Kind("", PDF, ("visual",), "Picture"),
    ".json": Kind("", JSON, ("metadata",), "Figures"),
    ".html": Kind("", "text/html", ("metadata",), "Page"),
}
OTHER = Kind("", "application/octet-stream", ("metadata",), "File")


def asset_of(path: Path, folder: Path, classes: Mapping[int, Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
    """A file of a map as an asset.

    Parameters
    ----------
    path : Path
        The file.
    folder : Path
        Of the map.
    classes : mapping of int to mapping
        Index to name, colour, age of every class.

    Returns
    -------
    str
        Its key.
    dict
        The asset.
    """
    name = path.relative_to(folder).as_posix()
    kind = KINDS.get(name) or BY_SUFFIX.get(path.suffix, OTHER)
    asset: dict[str, Any] = {
        "href": f"./{name}",
        "title": kind.title if kind.key else f"{kind.title}: {name}",
        "type": kind.media_type,
        "roles": list(kind.roles),
    }
    if path.suffix == ".tif":
        asset |= _raster(path, classes)
    if name != "provenance.json":  # the record holds this item's checksum: it is the last to be written
        asset |= checksum(sha256(path), path.stat().st_size)
    return kind.key or re.sub(r"\W+", "_", name), asset


def checksum(sha256_hex: str, size: int) -> dict[str, Any]:
    """The fields of STAC's file extension."""
    return {"file:size": size, "file:checksum": MULTIHASH_SHA256 + sha256_hex}


def class_objects(classes: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Classes as the classification extension has them: a name for machines, a title for people."""
    return [
        {
            "value": value,
            "name": re.sub(r"[^0-9A-Za-z_-]+", "-", str(entry["name"]).lower()).strip("-") or f"class-{value}",
            "title": str(entry["name"]),
            **({"description": f"{entry['name']}, {entry['age']}"} if entry.get("age", "any") != "any" else {}),
            "color_hint": str(entry["colour"]).removeprefix("#").upper(),
        }
        for value, entry in sorted(classes.items())
    ]


def _raster(path: Path, classes: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    with rasterio.open(path) as raster:
        bands = [_band(raster, index) for index in raster.indexes]
        middle = rasterio.windows.Window(raster.width // 2, raster.height // 2, 1, 1)
        side_m = 1000 * math.sqrt(float(cell_areas_km2(raster.crs, raster.transform, middle)[0, 0]))
    for band in bands:
        band["raster:sampling"] = "area"
        band["raster:spatial_resolution"] = round(side_m, 2)
    if path.name == "lithology.tif":
        bands[0]["classification:classes"] = _counted(path, class_objects(classes))
    if path.name == "evidence.tif":
        bands[0]["classification:classes"] = _counted(path, class_objects(_evidence_classes(path)))
    for band in bands:
        if band.get("name") == "second class":
            band["classification:classes"] = class_objects(classes)
    return {"bands": bands}


def _evidence_classes(path: Path) -> dict[int, dict[str, Any]]:
    """What the values of the evidence layer mean, as its table says."""
    table = read_attribute_table(path)
    return {
        value: {"name": table[value].name if value in table else f"evidence {value}", "colour": colour}
        for value, colour in EVIDENCE_COLOURS.items()
    }


def _band(raster: Any, index: int) -> dict[str, Any]:
    tags = raster.tags(index)
    band: dict[str, Any] = {"name": raster.descriptions[index - 1] or f"band {index}"}
    if meaning := tags.get("meaning"):
        band["description"] = meaning
    elif tags.get("quantity") == "probability":
        band["description"] = f"probability of {tags.get('class_name', band['name'])}"
    band["data_type"] = raster.dtypes[index - 1]
    nodata = raster.nodatavals[index - 1]
    if nodata is not None:
        band["nodata"] = int(nodata) if float(nodata).is_integer() else nodata
    band["raster:scale"] = raster.scales[index - 1]
    band["raster:offset"] = raster.offsets[index - 1]
    known = {"minimum": "MINIMUM", "maximum": "MAXIMUM", "mean": "MEAN", "stddev": "STDDEV"}
    statistics = {name: float(tags[f"STATISTICS_{key}"]) for name, key in known.items() if f"STATISTICS_{key}" in tags}
    if "STATISTICS_VALID_PERCENT" in tags:
        statistics["valid_percent"] = float(tags["STATISTICS_VALID_PERCENT"])
    if statistics:
        band["statistics"] = statistics
    return band


def _counted(path: Path, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Classes with how many cells each has; those of the legend that do not occur have none."""
    found = census(path)
    total = sum(cells for cells, _ in found.values())
    rows = [*objects, {"value": NODATA, "name": "no-data", "title": "no data", "nodata": True}]
    for row in rows:
        cells = found.get(row["value"], (0, 0.0))[0]
        row["count"], row["percentage"] = cells, round(100 * cells / total, 4)
    return rows
