"""A map as a STAC item: ``item.json``, by which catalogues find it and programs know what its files hold.

The classes of pystac write it: the core of STAC 1.1 and the extensions projection 2.0, classification 2.0, file 2.1 and
MLM 1.4 (machine learning model). The fields of raster 2.0 and processing 1.2 are set by hand: pystac 1.15 knows only
raster 1.1, whose ``raster:bands`` STAC 1.1 replaced by ``bands``, and no processing extension.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pystac
import rasterio
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.file import FileExtension
from pystac.extensions.mlm import (
    AssetGeneralMLMExtension,
    Hyperparameters,
    InputStructure,
    MLMExtension,
    ModelInput,
    ModelOutput,
    ProcessingExpression,
    ResultStructure,
    TaskType,
    ValueScaling,
    ValueScalingType,
)
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import DataType

from gravmap.errors import InputError
from gravmap.files import write_json
from gravmap.mapping.layers import THICKNESS_BANDS
from gravmap.mapping.record.data_sources import credit
from gravmap.mapping.record.provenance import FILE as RECORD
from gravmap.mapping.record.provenance import MADE_BY, outputs_in, read_provenance
from gravmap.mapping.record.stac_assets import add_file, class_objects, multihash

FILE = "item.json"
EXTENSIONS = (
    ProjectionExtension.get_schema_uri(),
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    ClassificationExtension.get_schema_uri(),
    FileExtension.get_schema_uri(),
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    MLMExtension.get_schema_uri(),
)

# A straight side of a projected map is curved in degrees: so many points along each.
_POINTS = 21

# The channel "rgb" is three planes of one field, the others one each.
_PLANES = {"rgb": 3}
_CHANNEL_WORDS = {
    "field": "{field} in {unit}, divided by {spread:.6g}",
    "layer": "{field} in {unit}, less {centre:.6g}, divided by {spread:.6g}",
    "rgb": "{field} in {unit} as a colour between {low:.6g} and {high:.6g}",
    "scale": "log10 of degrees per pixel, the same all over a window",
}

_DOI = re.compile(r"\b10\.\d{4,9}/[^\s;,]+")


def write_item(folder: Path) -> Path:
    """Write ``item.json`` of a map.

    Parameters
    ----------
    folder : Path
        Holds ``provenance.json`` and ``lithology.tif``; each other file is an asset if it is there.

    Returns
    -------
    Path
        ``folder / "item.json"``. :func:`gravmap.mapping.record.provenance.update_checksums` adds it to the record.

    Raises
    ------
    InputError
        The record or the map is missing or unreadable.
    """
    write_json(folder / FILE, make_item(folder).to_dict())
    return folder / FILE


def make_item(folder: Path) -> pystac.Item:
    """The STAC item of a map; parameters and errors are those of :func:`write_item`."""
    record = read_provenance(folder)
    lithology = folder / "lithology.tif"
    if not lithology.exists():
        raise InputError(f"{lithology} is missing.", f"`{MADE_BY}` makes it.")
    name = str(record["settings"].get("region", folder.name))
    geometry, bbox = footprint(lithology)
    created = datetime.fromisoformat(record["created"])
    item = pystac.Item(
        id=re.sub(r"[^0-9A-Za-z_.-]+", "-", name),
        geometry=geometry,
        bbox=bbox,
        datetime=created,  # the bedrock has no date; the map has
        properties={},
        stac_extensions=list(EXTENSIONS),
    )
    metadata = item.common_metadata
    metadata.title = f"Bedrock lithology of {name}"
    metadata.description = _description(record)
    metadata.created = created
    metadata.license = "other"
    metadata.keywords = ["bedrock", "lithology", "gravity", "Bouguer anomaly", "under cover"]
    _add_projection(item, lithology)
    item.properties |= {
        "processing:level": "L4",
        "processing:lineage": _lineage(record),
        "processing:software": {key: str(value) for key, value in record["versions"].items()},
        "processing:expression": {"format": "command line", "expression": record["command"] or MADE_BY},
    }
    _add_links(item, record)
    classes = {int(entry["index"]): entry for model in record["models"][:1] for entry in model["classes"]}
    for path in [*(path for path in outputs_in(folder) if path.name != FILE), folder / RECORD]:
        add_file(item, path, folder, classes)
    _add_model(item, record, classes)
    _add_weights(item, record)
    item.properties["bands"] = _all_bands(item)
    return item


def footprint(path: Path) -> tuple[dict[str, Any], list[float]]:
    """Outline of a raster as a GeoJSON polygon, and its bounding box W S E N; both in degrees, WGS 84."""
    with rasterio.open(path) as raster:
        bounds, crs = raster.bounds, raster.crs
    left, bottom, right, top = bounds
    ring = _ring(left, bottom, right, top, 2 if crs.is_geographic else _POINTS)
    if not crs.is_geographic:
        to_degrees = Transformer.from_crs(crs.to_wkt(), "EPSG:4326", always_xy=True)
        ring = np.column_stack(to_degrees.transform(ring[:, 0], ring[:, 1]))
    ring = np.round(ring, 9)
    return {"type": "Polygon", "coordinates": [ring.tolist()]}, [*ring.min(axis=0).tolist(), *ring.max(axis=0).tolist()]


def _ring(left: float, bottom: float, right: float, top: float, points: int) -> NDArray[np.float64]:
    """The outline of a box, anticlockwise from its south-west corner, closed; `points` along each side."""
    x, y = np.linspace(left, right, points), np.linspace(bottom, top, points)
    sides = [
        np.column_stack([x, np.full(points, bottom)]),
        np.column_stack([np.full(points, right), y]),
        np.column_stack([x[::-1], np.full(points, top)]),
        np.column_stack([np.full(points, left), y[::-1]]),
    ]
    return np.concatenate([*(side[:-1] for side in sides), sides[0][:1]])


def _add_projection(item: pystac.Item, path: Path) -> None:
    """The raster's own grid; a coordinate system without an EPSG code is written out as WKT2."""
    with rasterio.open(path) as raster:
        bounds, shape, transform, crs = raster.bounds, raster.shape, raster.transform, raster.crs
    epsg = crs.to_epsg()
    ProjectionExtension.ext(item).apply(
        code=f"EPSG:{epsg}" if epsg else None,
        wkt2=None if epsg else str(CRS.from_user_input(crs.to_wkt()).to_wkt("WKT2_2019")),
        bbox=list(bounds),
        shape=list(shape),
        transform=list(transform)[:6],
    )


def _description(record: Mapping[str, Any]) -> str:
    content = str(record["settings"].get("content") or "bedrock lithology")
    names = ", ".join(f"{model['name']} ({model['model']})" for model in record["models"])
    sentences = [f"{content[:1].upper()}{content[1:]}. Network: {names}.", *record["deviations"]]
    return " ".join(sentences).strip()


def _lineage(record: Mapping[str, Any]) -> str:
    """Every original file with its terms, for people."""
    lines = ["Made from:"]
    for entry in record["sources"]:
        file = entry.get("path") or entry.get("file") or entry.get("name") or "a file"
        cited = f", {credit(entry)}" if credit(entry) else ""
        lines.append(f"- {entry.get('role', 'data')} {file}{cited} (terms: {entry['licence']})")
    return "\n".join(lines)


def _add_links(item: pystac.Item, record: Mapping[str, Any]) -> None:
    """Link the files the map was derived from, where they lay, and where the original data come from."""
    for role, entry in record["inputs"].items():
        if not role.startswith(("model", "calibration", "reach")):  # these are among the assets, or belong to one
            link = pystac.Link(pystac.RelType.DERIVED_FROM, entry["path"], title=f"{role}, as gravmap made or read it")
            item.add_link(link)
            FileExtension.ext(link).apply(size=entry["bytes"], checksum=multihash(entry["sha256"]))
    urls = {
        str(entry["source"]): entry for entry in record["sources"] if str(entry.get("source", "")).startswith("http")
    }
    for url, entry in urls.items():
        item.add_link(pystac.Link(pystac.RelType.VIA, url, title=f"{entry['role']} data"))
    dois = {doi.rstrip(".,;") for entry in record["sources"] for doi in _DOI.findall(str(entry.get("citation")))}
    for doi in sorted(dois):
        item.add_link(pystac.Link("cite-as", f"https://doi.org/{doi}"))


def _add_model(item: pystac.Item, record: Mapping[str, Any], classes: Mapping[int, Mapping[str, Any]]) -> None:
    """The ``mlm:`` properties; of an ensemble, those of its first network."""
    models = record["models"]
    first = models[0]
    size = first["tile_size_px"]
    window = ModelInput.create(
        name=f"window of {size} x {size} pixels",
        bands=[_channel(entry)["name"] for entry in first["inputs"]],
        input=InputStructure.create(
            shape=[-1, sum(_planes(entry) for entry in first["inputs"]), size, size],
            dim_order=["batch", "channel", "height", "width"],
            data_type=DataType.FLOAT32,
        ),
        description="; ".join(_channel(entry)["description"] for entry in first["inputs"]),
    )
    # As MLM 1.4 and its schema have them: pystac 1.15 takes one scaling for all channels, and its ResizeType spells
    # the methods "interpolate-...".
    window.properties |= {"value_scaling": _scaling(first["inputs"]), "resize_type": "interpolation-linear"}
    blended = (
        "half-overlapping windows, blended by Hann weights as logits, then a softmax at the run's temperature"
        " (where it follows the distance to mapped outcrop, at the one there)"
    )
    if len(models) > 1:
        blended += f"; mean of the probabilities of {len(models)} runs"
    logits = ModelOutput.create(
        name="logits of the classes",
        tasks=[TaskType.SEMANTIC_SEGMENTATION],
        result=ResultStructure.create(
            shape=[-1, len(classes), size, size],
            dim_order=["batch", "class", "height", "width"],
            data_type=DataType.FLOAT32,
        ),
        description=blended,
        classes=class_objects(classes),
        post_processing_function=ProcessingExpression.create("python", "torch.softmax(logits / T, dim=1)"),
    )
    outputs, tasks = [logits], [TaskType.SEMANTIC_SEGMENTATION]
    if record.get("cover_thickness"):
        tasks.append(TaskType.REGRESSION)
        outputs.append(
            ModelOutput.create(
                name="quantiles of the thickness of the cover",
                tasks=[TaskType.REGRESSION],
                result=ResultStructure.create(
                    shape=[-1, len(THICKNESS_BANDS), size, size],
                    dim_order=["batch", "quantile", "height", "width"],
                    data_type=DataType.FLOAT32,
                ),
                description="10, 50 and 90 % in kilometres, blended as the logits are; the interval is then calibrated"
                " (thickness_intervals in provenance.json)",
            )
        )
    MLMExtension.ext(item).apply(
        name=_model_name(f"gravmap {first['model']} {'+'.join(model['name'] for model in models)}"),
        architecture=_architecture(first["model"]),
        tasks=tasks,
        input=[window],
        output=outputs,
        framework="PyTorch",
        framework_version=str(first["versions"].get("torch") or record["versions"]["torch"]),
        total_parameters=first["parameters"],
        pretrained=False,
        hyperparameters=Hyperparameters(_hyperparameters(first)),
    )


def _add_weights(item: pystac.Item, record: Mapping[str, Any]) -> None:
    """The weights behind a map as assets, where they lay when it was made."""
    for number, model in enumerate(record["models"], start=1):
        suffix = "" if number == 1 else f"_{number}"
        weights, sidecar = record["inputs"][f"model{suffix}"], record["inputs"][f"model_json{suffix}"]
        asset = pystac.Asset(
            weights["path"],
            title=f"Weights of {model['name']} ({model['model']})",
            description=f"safetensors, described in {PurePosixPath(sidecar['path'])}",
            media_type="application/octet-stream; application=pytorch",
            roles=["mlm:model", "mlm:weights"],
            extra_fields={"bands": [_channel(entry) for entry in model["inputs"]]},
        )
        item.add_asset(f"model{suffix}", asset)
        AssetGeneralMLMExtension.ext(asset).apply(artifact_type="safetensors")
        FileExtension.ext(asset).apply(size=weights["bytes"], checksum=multihash(weights["sha256"]))


def _planes(entry: Mapping[str, Any]) -> int:
    """How many planes of the input a channel has."""
    return 2 if entry.get("masked") else _PLANES.get(entry["kind"], 1)


def _channel(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A channel that a network reads, as a STAC band."""
    kind = entry["kind"]
    field = entry.get("field", kind)
    words = _CHANNEL_WORDS[kind].format(**entry) if kind in _CHANNEL_WORDS else str(dict(entry))
    if entry.get("masked"):
        words += "; and where it has data (1 or 0)"
    unit = {"unit": entry["unit"]} if entry.get("unit") else {}
    name = f"{kind}:{field}" if kind == "rgb" else str(field)
    return {"name": name, "description": words, "data_type": "float32", **unit}


def _scaling(inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """How each channel is scaled; None where that is more than a division (a field as a colour)."""
    if any(entry["kind"] != "field" for entry in inputs):
        return None
    return [
        ValueScaling.create(ValueScalingType.Z_SCORE, mean=0.0, stddev=entry["spread"]).to_dict() for entry in inputs
    ]


def _hyperparameters(model: Mapping[str, Any]) -> dict[str, Any]:
    split = model["split"] or {}
    kept = {key: split[key] for key in ("name", "kind", "fold", "folds", "block_deg", "buffer_deg") if key in split}
    recipe = {key: value for key, value in (model["recipe"] or {}).items() if value is not None}
    return {**recipe, "seed": model["seed"], "scales_deg": model["scales_deg"], "split": kept}


def _architecture(model: str) -> str:
    if model.startswith("ggmnet"):
        return "GGMNet"
    if model.startswith("unet"):
        return "U-Net"
    return model.removeprefix("smp:")


def _model_name(text: str) -> str:
    """A name as MLM requires it: letters, digits, blanks, dots, dashes."""
    return re.sub(r"[^A-Za-z0-9_.\-\s]+", "-", text).rstrip(" ._-")


def _all_bands(item: pystac.Item) -> list[dict[str, Any]]:
    """Every band of every asset, once by name: MLM requires that an item describes the bands its network reads."""
    named: dict[str, dict[str, Any]] = {}
    for asset in item.assets.values():
        for band in asset.extra_fields.get("bands", []):
            named.setdefault(band["name"], {key: band[key] for key in ("name", "description") if key in band})
    return list(named.values())
