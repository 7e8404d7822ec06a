"""The files of a map as STAC assets: media types, roles, bands, classes, checksums."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pystac
import rasterio
from pystac import MediaType
from pystac.extensions.classification import Classification
from pystac.extensions.file import FileExtension

from gravmap.files import sha256
from gravmap.mapping.files.projection import cell_areas_km2
from gravmap.mapping.layers import CLASS_LAYERS, EVIDENCE_COLOURS, NODATA
from gravmap.mapping.record.raster_content import count_values, read_attribute_table

# A multihash starts with the hash function and the length: 12 is SHA2-256, 20 its 32 bytes, in hexadecimal.
MULTIHASH_SHA256 = "1220"


@dataclass(frozen=True)
class Kind:
    """What a file of a map is.

    Attributes
    ----------
    key : str
        Its key among the assets; empty where the file's own name is taken.
    media_type : str
        IANA media type.
    roles : tuple of str
        STAC's asset roles.
    title : str
        For people.
    """

    key: str
    media_type: str
    roles: tuple[str, ...]
    title: str


KINDS = {
    "lithology.tif": Kind(
        "lithology", MediaType.COG, ("data",), "Bedrock lithology: the mapped outcrop, predicted under cover"
    ),
    "probability.tif": Kind("probability", MediaType.COG, ("data",), "Probability of every class"),
    "uncertainty.tif": Kind("uncertainty", MediaType.COG, ("data",), "Measures of how unsure the class is"),
    "evidence.tif": Kind("evidence", MediaType.COG, ("data",), "What the class of a cell rests on"),
    "second_class.tif": Kind("second_class", MediaType.COG, ("data",), "The second likeliest class"),
    "cover_thickness.tif": Kind(
        "cover_thickness", MediaType.COG, ("data",), "Thickness of the cover in metres: median and 80 % interval"
    ),
    "gravity.tif": Kind(
        "gravity", MediaType.COG, ("data",), "Gravity fields that the network reads, and Bouguer gravity"
    ),
    "outcrop_distance.tif": Kind(
        "outcrop_distance", MediaType.COG, ("data",), "Distance to the nearest mapped outcrop"
    ),
    "null_model.tif": Kind(
        "null_model", MediaType.COG, ("data",), "Class by label diffusion from mapped outcrop, without gravity"
    ),
    "map.qgz": Kind(
        "qgis", "application/x-qgis-project", ("metadata", "style"), "QGIS project with every layer styled"
    ),
    "lithology.gpkg": Kind(
        "polygons", MediaType.GEOPACKAGE, ("data",), "Polygons by class, styled, with their evidence"
    ),
    "map.png": Kind("map", MediaType.PNG, ("overview", "visual"), "The map as a picture"),
    "map.pdf": Kind("map_pdf", MediaType.PDF, ("visual",), "The map for printing"),
    "comparison.png": Kind("comparison", MediaType.PNG, ("overview",), "The map beside one made without gravity"),
    "comparison.pdf": Kind(
        "comparison_pdf", MediaType.PDF, ("visual",), "The map beside one made without gravity, for printing"
    ),
    "uncertainty.png": Kind("uncertainty_map", MediaType.PNG, ("overview",), "Uncertainty and evidence as a picture"),
    "uncertainty.pdf": Kind("uncertainty_map_pdf", MediaType.PDF, ("visual",), "Uncertainty and evidence for printing"),
    "cover_thickness.png": Kind(
        "cover_thickness_map", MediaType.PNG, ("overview",), "Thickness of the cover and its interval as a picture"
    ),
    "cover_thickness.pdf": Kind(
        "cover_thickness_map_pdf", MediaType.PDF, ("visual",), "Thickness of the cover and its interval for printing"
    ),
    "report.html": Kind("report", MediaType.HTML, ("metadata",), "The map, its scores and its limits on one page"),
    "explore.html": Kind("explore", MediaType.HTML, ("overview",), "The map to explore in a browser"),
    "provenance.json": Kind(
        "provenance", MediaType.JSON, ("metadata",), "What the map was made of; `gravmap verify` checks it"
    ),
}
BY_SUFFIX = {
    ".qml": Kind("", MediaType.XML, ("metadata", "style"), "QGIS style"),
    ".sld": Kind("", "application/vnd.ogc.sld+xml", ("metadata", "style"), "Style (SLD)"),
    ".xml": Kind("", MediaType.XML, ("metadata",), "Class names and table of areas, which GDAL reads"),
    ".tif": Kind("", MediaType.GEOTIFF, ("data",), "Raster"),
    ".png": Kind("", MediaType.PNG, ("visual",), "Picture"),
    ".pdf": Kind("", MediaType.PDF, ("visual",), "Picture"),
    ".json": Kind("", MediaType.JSON, ("metadata",), "Figures"),
    ".html": Kind("", MediaType.HTML, ("metadata",), "Page"),
}
OTHER = Kind("", "application/octet-stream", ("metadata",), "File")


def add_file(item: pystac.Item, path: Path, folder: Path, classes: Mapping[int, Mapping[str, Any]]) -> None:
    """Add a file of a map to its item.

    Parameters
    ----------
    item : pystac.Item
        Names the file extension among its own.
    path : Path
        The file.
    folder : Path
        Of the map.
    classes : mapping of int to mapping
        Index to name, colour, age of every class.
    """
    name = path.relative_to(folder).as_posix()
    kind = KINDS.get(name) or BY_SUFFIX.get(path.suffix, OTHER)
    asset = pystac.Asset(
        f"./{name}",
        title=kind.title if kind.key else f"{kind.title}: {name}",
        media_type=str(kind.media_type),
        roles=list(kind.roles),
        extra_fields={"bands": _bands(path, classes)} if path.suffix == ".tif" else None,
    )
    item.add_asset(kind.key or re.sub(r"\W+", "_", name), asset)
    if name != "provenance.json":  # the record holds this item's checksum: it is the last to be written
        FileExtension.ext(asset).apply(size=path.stat().st_size, checksum=multihash(sha256(path)))


def multihash(sha256_hex: str) -> str:
    """A SHA-256 as the file extension writes checksums."""
    return MULTIHASH_SHA256 + sha256_hex


def class_objects(classes: Mapping[int, Mapping[str, Any]]) -> list[Classification]:
    """Classes as the classification extension has them: a name for machines, a title for people."""
    return [
        Classification.create(
            value,
            description=f"{entry['name']}, {entry['age']}" if entry.get("age", "any") != "any" else None,
            name=re.sub(r"[^0-9A-Za-z_-]+", "-", str(entry["name"]).lower()).strip("-") or f"class-{value}",
            title=str(entry["name"]),
            color_hint=str(entry["colour"]).removeprefix("#").upper(),
        )
        for value, entry in sorted(classes.items())
    ]


def _bands(path: Path, classes: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The bands of a raster: core fields of STAC 1.1, ``raster:`` 2.0, ``classification:classes``."""
    with rasterio.open(path) as raster:
        bands = [_band(raster, index) for index in raster.indexes]
        middle = rasterio.windows.Window(raster.width // 2, raster.height // 2, 1, 1)
        side_m = 1000 * math.sqrt(float(cell_areas_km2(raster.crs, raster.transform, middle)[0, 0]))
    for band in bands:
        band["raster:sampling"] = "area"
        band["raster:spatial_resolution"] = round(side_m, 2)
    if path.stem in ("lithology", *CLASS_LAYERS):
        bands[0]["classification:classes"] = _counted(path, classes)
    if path.name == "evidence.tif":
        bands[0]["classification:classes"] = _counted(path, _evidence_classes(path))
    return bands


def _evidence_classes(path: Path) -> dict[int, dict[str, Any]]:
    """What the values of the evidence layer mean, as its table has it."""
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
    if raster.units[index - 1]:
        band["unit"] = raster.units[index - 1]
    band["raster:scale"] = raster.scales[index - 1]
    band["raster:offset"] = raster.offsets[index - 1]
    known = {
        "minimum": "MINIMUM",
        "maximum": "MAXIMUM",
        "mean": "MEAN",
        "stddev": "STDDEV",
        "valid_percent": "VALID_PERCENT",
    }
    statistics = {name: float(tags[f"STATISTICS_{key}"]) for name, key in known.items() if f"STATISTICS_{key}" in tags}
    if statistics:
        band["statistics"] = statistics
    return band


def _counted(path: Path, classes: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Classes, and no data, with how many cells each has; classes that do not occur have none."""
    found = count_values(path)
    total = sum(cells for cells, _ in found.values())
    objects = [*class_objects(classes), Classification.create(NODATA, name="no-data", title="no data", nodata=True)]
    for each in objects:
        each.count = found.get(each.value, (0, 0.0))[0]
        each.percentage = round(100 * each.count / total, 4)
    return [each.to_dict() for each in objects]
