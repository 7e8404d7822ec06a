"""A map as a STAC item: ``item.json``, by which catalogues find it and programs know what its files hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from gravmap.errors import InputError
from gravmap.files import write_json
from gravmap.mapping.record.provenance import FILE as RECORD
from gravmap.mapping.record.provenance import MADE_BY, outputs_in, read_provenance
from gravmap.mapping.record.stac_assets import asset_of, checksum
from gravmap.mapping.record.stac_model import bands_of, model_assets, model_properties

FILE = "item.json"
VERSION = "1.1.0"
EXTENSIONS = {
    "proj": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "raster": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "classification": "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "file": "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "processing": "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "mlm": "https://stac-extensions.github.io/mlm/v1.4.0/schema.json",
}

# A straight side on paper is curved on the globe: so many points along each.
_POINTS = 21


def write_item(folder: Path) -> Path:
    """Write ``item.json`` of a map.

    Parameters
    ----------
    folder : Path
        Holds ``provenance.json`` and ``lithology.tif``; each other file is an asset if it is there.

    Returns
    -------
    Path
        ``folder / "item.json"``. Take it into the record with :func:`gravmap.mapping.record.provenance.seal`.

    Raises
    ------
    InputError
        The record or the map is missing or unreadable.
    """
    write_json(folder / FILE, describe_item(folder))
    return folder / FILE


def describe_item(folder: Path) -> dict[str, Any]:
    """The STAC item of a map, as a dict; raises what :func:`write_item` does."""
    record = read_provenance(folder)
    lithology = folder / "lithology.tif"
    if not lithology.exists():
        raise InputError(f"{lithology} is missing.", f"`{MADE_BY}` makes it.")
    settings = record["settings"]
    classes = {int(entry["index"]): entry for model in record["models"][:1] for entry in model["classes"]}
    listed = [path for path in outputs_in(folder) if path.name != FILE] + [folder / RECORD]
    assets = dict(asset_of(path, folder, classes) for path in listed) | model_assets(record)
    place = place_of(lithology)
    name = str(settings.get("region", folder.name))
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": list(EXTENSIONS.values()),
        "id": re.sub(r"[^0-9A-Za-z_.-]+", "-", name),
        "geometry": place.pop("geometry"),
        "bbox": place.pop("bbox"),
        "properties": {
            "title": f"Bedrock lithology of {name}",
            "description": _description(record),
            # The bedrock has no date; the map has.
            "datetime": _utc(record["created"]),
            "created": _utc(record["created"]),
            "license": "other",
            "keywords": ["bedrock", "lithology", "gravity", "Bouguer anomaly", "under cover"],
            **place,
            "processing:level": "L4",
            "processing:lineage": _lineage(record),
            "processing:software": {key: str(value) for key, value in record["versions"].items()},
            "processing:expression": {"format": "command line", "expression": record["command"] or MADE_BY},
            **model_properties(record),
            "bands": bands_of(list(assets.values())),
        },
        "links": _links(record),
        "assets": assets,
    }


def place_of(path: Path) -> dict[str, Any]:
    """Where a raster lies: ``geometry`` and ``bbox`` in degrees, and the ``proj:`` fields of its own grid."""
    with rasterio.open(path) as raster:
        left, bottom, right, top = raster.bounds
        shape, transform, crs = raster.shape, raster.transform, raster.crs
    ring = _ring(left, bottom, right, top, 2 if crs.is_geographic else _POINTS)
    if not crs.is_geographic:
        from pyproj import Transformer

        lon, lat = Transformer.from_crs(crs.to_wkt(), "EPSG:4326", always_xy=True).transform(ring[:, 0], ring[:, 1])
        ring = np.column_stack([lon, lat])
    ring = np.round(ring, 9)
    epsg = crs.to_epsg()
    named = {"proj:code": f"EPSG:{epsg}"} if epsg else {"proj:code": None, "proj:wkt2": _wkt2(crs)}
    return {
        "geometry": {"type": "Polygon", "coordinates": [ring.tolist()]},
        "bbox": [*ring.min(axis=0).tolist(), *ring.max(axis=0).tolist()],
        **named,
        "proj:shape": list(shape),
        "proj:transform": list(transform)[:6],
        "proj:bbox": [left, bottom, right, top],
    }


def _ring(left: float, bottom: float, right: float, top: float, points: int) -> np.ndarray[Any, Any]:
    """The outline of a box, anticlockwise from its south-west corner, closed; `points` along each side."""
    x, y = np.linspace(left, right, points), np.linspace(bottom, top, points)
    sides = [
        np.column_stack([x, np.full(points, bottom)]),
        np.column_stack([np.full(points, right), y]),
        np.column_stack([x[::-1], np.full(points, top)]),
        np.column_stack([np.full(points, left), y[::-1]]),
    ]
    return np.concatenate([*(side[:-1] for side in sides), sides[0][:1]])


def _wkt2(crs: Any) -> str:
    from pyproj import CRS

    return str(CRS.from_user_input(crs.to_wkt()).to_wkt("WKT2_2019"))


def _utc(time: str) -> str:
    return time.replace("+00:00", "Z")


def _description(record: dict[str, Any]) -> str:
    content = str(record["settings"].get("content") or "bedrock lithology")
    names = ", ".join(f"{model['name']} ({model['model']})" for model in record["models"])
    told = f"{content[:1].upper()}{content[1:]}. Network: {names}."
    return f"{told} {' '.join(record['deviations'])}".strip()


def _lineage(record: dict[str, Any]) -> str:
    """Every original file with its terms, for people."""
    lines = ["Made from:"]
    for entry in record["sources"]:
        file = entry.get("path") or entry.get("file") or entry.get("name") or "a file"
        cited = f", {entry['citation']}" if entry.get("citation") else ""
        lines.append(f"- {entry.get('role', 'data')} {file}{cited} (terms: {entry['licence']})")
    return "\n".join(lines)


def _links(record: dict[str, Any]) -> list[dict[str, Any]]:
    """To the files the map was derived from, where they lay, and to where the original data come from."""
    links: list[dict[str, Any]] = []
    for role, entry in record["inputs"].items():
        if not role.startswith(("model", "calibration", "reach")):  # these stand among the assets, or belong to one
            links.append(
                {
                    "rel": "derived_from",
                    "href": entry["path"],
                    "title": f"{role}, as gravmap made or read it",
                    **checksum(entry["sha256"], entry["bytes"]),
                }
            )
    urls = {
        str(entry["source"]): entry for entry in record["sources"] if str(entry.get("source", "")).startswith("http")
    }
    links += [{"rel": "via", "href": url, "title": f"{entry['role']} data"} for url, entry in urls.items()]
    dois = sorted(
        {doi.rstrip(".,;") for entry in record["sources"] for doi in _DOI.findall(str(entry.get("citation")))}
    )
    links += [{"rel": "cite-as", "href": f"https://doi.org/{doi}"} for doi in dois]
    return links


_DOI = re.compile(r"\b10\.\d{4,9}/[^\s;,]+")
