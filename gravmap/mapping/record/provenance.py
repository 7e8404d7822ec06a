"""What a map was made of: ``provenance.json``, which `gravmap verify` checks again.

The record holds the SHA-256 of everything that went in and came out, and its own: of its text, with that one number set
to zeros. So it is the one file on which all trust in a map's folder rests.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from gravmap import __version__
from gravmap.errors import InputError
from gravmap.files import PARTIAL, sha256, write_checksummed_json
from gravmap.geology.labels import legend_path
from gravmap.gravity.fields_file import hash_channels, read_field_recipe
from gravmap.mapping.layers import NODATA, UNMAPPED
from gravmap.mapping.plan import WINDOWS_FOLDER
from gravmap.mapping.record.data_sources import field_attributes, file_name, original_data
from gravmap.mapping.record.deviations import deviations_from_paper
from gravmap.mapping.record.model_record import SIDECAR, WEIGHTS, describe_run
from gravmap.mapping.record.raster_content import (
    count_values,
    measure_thickness,
    read_attribute_table,
    read_layers,
)
from gravmap.records import (
    ChannelRecord,
    ClassRecord,
    Count,
    SourceRecord,
    check_record,
    read_model,
    read_record,
    record,
)
from gravmap.tiling.resumable_folder import JOURNAL, MARK

FILE = "provenance.json"
FORMAT = 1
MADE_BY = "gravmap predict"
THICKNESS = "cover_thickness.tif"

# Packages that shape the numbers of a map.
PACKAGES = ("numpy", "scipy", "pyamg", "torch", "torchvision", "rasterio", "pyproj", "xarray", "geopandas", "shapely")

# What of a run a map may rest on, by its role in the record.
RUN_FILES = {
    "model": WEIGHTS,
    "model_json": SIDECAR,
    "calibration": "calibration.json",
    "reach": "reach.safetensors",
}


def write_provenance(
    folder: Path,
    *,
    command: str,
    settings: Mapping[str, Any],
    fields: Path,
    runs: Sequence[Path],
    labels: Path | None = None,
    others: Mapping[str, Path] | None = None,
    device: str = "cpu",
    seconds: float | None = None,
    home: Path | None = None,
) -> Path:
    """Write ``provenance.json`` of a map whose rasters and pictures lie in `folder`.

    Files that are written later (the page, the STAC item) are added by :func:`update_checksums`.

    Parameters
    ----------
    folder : Path
        Where the map's files lie now.
    command : str
        The command line as typed.
    settings : mapping
        Every option with its value: region, scales, resolution ...
    fields : Path
        ``fields.nc``.
    runs : sequence of Path
        The training runs whose networks predicted.
    labels : Path, optional
        ``labels.tif``, where mapped outcrop is shown or treated apart.
    others : mapping of str to Path, optional
        Role to file of whatever else was read, such as ``{"polygon": Path("area.gpkg")}``.
    device : str
        ``cpu`` or ``cuda``.
    seconds : float, optional
        How long it took.
    home : Path, optional
        Where the folder will stand, if it is still to be renamed: paths of inputs are as seen from there.

    Returns
    -------
    Path
        ``folder / "provenance.json"``.

    Raises
    ------
    InputError
        An input or a run is missing or damaged.
    """
    models = [describe_run(run) for run in runs]
    trained = {model["name"]: read_model(run).get("sources", []) for model, run in zip(models, runs, strict=True)}
    attributes = field_attributes(fields)
    recipe = read_field_recipe(attributes.get("gravmap_recipe", "{}"), str(fields))
    sources = [with_layers(fields, entry) for entry in original_data(fields, labels, trained)]
    summary = _summary(folder, models)
    record = {
        "format": FORMAT,
        "record_sha256": "",
        "made_by": f"gravmap {__version__}",
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": None if seconds is None else round(seconds, 1),
        "settings": dict(settings),
        "seeds": {model["name"]: model["seed"] for model in models},
        "fields": {
            "recipe": recipe,
            "edge_note": str(attributes.get("edge_note", "")),
        },
        "models": models,
        "inputs": hashed_inputs(fields, runs, labels, others or {}, (home or folder).resolve()),
        "sources": sources,
        "deviations": deviations_from_paper(recipe, sources, models),
        "summary": summary,
        "unmapped": None if labels is None else _unmapped(summary.get("evidence", []), settings),
        "cover_thickness": measure_thickness(folder / THICKNESS) if (folder / THICKNESS).exists() else None,
        "versions": versions(),
        "platform": machine(device),
    }
    _write(folder, record)
    return folder / FILE


def update_checksums(folder: Path, **added: Any) -> dict[str, Any]:
    """Take every file that now lies in a map's folder into its record, by size and SHA-256.

    Parameters
    ----------
    folder : Path
        Holds ``provenance.json``; call this when the last file of the map is written.
    **added
        Further keys of the record.

    Returns
    -------
    dict
        The record.

    Raises
    ------
    InputError
        There is no readable record.
    """
    _write(folder, read_provenance(folder) | added)
    return read_provenance(folder)


@record
class FileRecord(TypedDict):
    """Size and SHA-256 of a file, the path of one that was read, and SHA-256 of the channels that were read of it."""

    bytes: NotRequired[Count]
    sha256: str
    path: NotRequired[str]
    channels: NotRequired[dict[str, str]]


@record
class CountedClass(TypedDict):
    """Cells and area of one value of a raster."""

    value: int
    cells: Count
    km2: float


@record
class MappedBy(TypedDict):
    """What :func:`gravmap.mapping.record.model_record.describe_run` tells of a network, as far as it is read."""

    name: str
    sha256: str
    model: str
    inputs: list[ChannelRecord]
    classes: list[ClassRecord]


@record
class MapSettings(TypedDict, total=False):
    """The options of a prediction, as far as they are read."""

    region: str
    class_offsets: list[float] | None
    upsampling: float | None
    prior_verdicts: list[dict[str, Any]]
    hidden_outcrop: list[dict[str, Any]]


@record
class UnmappedRecord(TypedDict):
    """Ground that no geological map covers: its area, its fraction of the map's, and whether it has a class."""

    km2: float
    fraction: float
    predicted: bool


@record
class ThicknessRecord(TypedDict):
    """Thickness of the cover of a map: cells with data, their area, and the mean of each band, metres."""

    cells: Count
    km2: float
    mean_m: dict[str, float | None]


@record
class Provenance(TypedDict, total=False):
    """Content of ``provenance.json``."""

    format: int
    made_by: str
    command: str | None
    created: str
    settings: MapSettings
    fields: dict[str, Any]
    models: list[MappedBy]
    inputs: dict[str, FileRecord]
    sources: list[SourceRecord]
    deviations: list[str]
    summary: dict[str, list[CountedClass]]
    unmapped: UnmappedRecord | None
    cover_thickness: ThicknessRecord | None
    verdict: dict[str, str]
    versions: dict[str, str]
    outputs: dict[str, FileRecord]


_REQUIRED = ("made_by", "created", "settings", "models", "inputs", "sources", "summary", "outputs")


def read_provenance(folder: Path) -> dict[str, Any]:
    """Read a map's record.

    Raises
    ------
    InputError
        It is missing, no JSON, or of another format.
    """
    path = folder / FILE
    stored = read_record(path, dict[str, Any], f"{MADE_BY} --overwrite")
    if stored.get("format") != FORMAT:
        raise InputError(
            f"{path} is of format {stored.get('format') or 'unknown'}; this gravmap reads format {FORMAT}.",
            "Use the gravmap that wrote it, or make the map anew: `gravmap predict --overwrite`.",
        )
    hint = f"`{MADE_BY} --overwrite` makes it again."
    if lacking := [key for key in _REQUIRED if key not in stored]:
        raise InputError(f"{path} lacks {', '.join(lacking)}.", hint)
    return {**check_record(stored, Provenance, str(path), hint)}


def outputs_in(folder: Path) -> list[Path]:
    """The files of a map that its record lists: all but the record, what is half-written, and what it is made from."""
    others = {folder / name for name in (FILE, MARK, JOURNAL)}
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path not in others
        and path.parent != folder / WINDOWS_FOLDER
        and PARTIAL not in path.name
        and not path.name.startswith(".")
        and not path.name.endswith((".gpkg-wal", ".gpkg-shm"))  # SQLite's, while another program has it open
    )


def _write(folder: Path, record: dict[str, Any]) -> None:
    outputs = {path.relative_to(folder).as_posix(): _hashed(path) for path in outputs_in(folder)}
    # Last in the file: it is the longest list.
    record = {key: value for key, value in record.items() if key != "outputs"} | {"outputs": outputs}
    write_checksummed_json(folder / FILE, record)


def _hashed(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file; of a GeoPackage, whose bytes change when it is opened, also those of its layers."""
    hashed: dict[str, Any] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    if path.suffix.lower() == ".gpkg":
        with contextlib.suppress(sqlite3.Error):
            hashed["layers"] = read_layers(path)
    return hashed


def with_layers(fields: Path, source: dict[str, Any]) -> dict[str, Any]:
    """Add checksums of the layers to a source that is a GeoPackage, if it lies beside the fields and is unchanged."""
    path = fields.resolve().parent / "raw" / (file_name(source) or "")
    if path.suffix.lower() != ".gpkg" or not path.is_file():
        return source
    found = _hashed(path)
    unchanged = found["sha256"] == source.get("sha256") and "layers" in found
    return {**source, "layers": found["layers"]} if unchanged else source


def hashed_inputs(
    fields: Path, runs: Sequence[Path], labels: Path | None, others: Mapping[str, Path], home: Path
) -> dict[str, Any]:
    """Every file that was read, by its role: path as seen from `home`, size, SHA-256, of fields also by channel."""
    files = {"fields": fields}
    for number, run in enumerate(runs, start=1):
        # Of an ensemble, the second run and the others have a number.
        tail = "" if number == 1 else f"_{number}"
        files |= {f"{role}{tail}": run / name for role, name in RUN_FILES.items() if (run / name).exists()}
    if labels is not None:
        files["labels"] = labels
        if legend_path(labels).exists():
            files["labels_legend"] = legend_path(labels)
    found = {}
    for role, path in {**files, **others}.items():
        if not path.is_file():
            raise InputError(f"{path} is missing.", "It was read for this map; put it back and run the command again.")
        # As seen from the map, so that a workspace can be moved.
        seen = Path(os.path.relpath(path.resolve(), home)).as_posix()
        found[role] = {"path": seen, **_hashed(path)}
    read = {str(each.get("field")) for run in runs for each in read_model(run).get("inputs", [])}
    found["fields"]["channels"] = hash_channels(fields, read)
    return found


def _summary(folder: Path, models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Cells and km² of every class and kind of evidence that occurs, counted in the files themselves."""
    classes = {int(entry["index"]): str(entry["name"]) for model in models for entry in model["classes"]}
    summary = {}
    for key in ("lithology", "evidence"):
        path = folder / f"{key}.tif"
        if not path.exists():
            continue
        words = {value: row.name for value, row in read_attribute_table(path).items()}
        names = {NODATA: "no data"} | (classes if key == "lithology" else {}) | words
        summary[key] = [
            {"value": value, "name": names.get(value, ""), "cells": cells, "km2": float(f"{km2:.9g}")}
            for value, (cells, km2) in count_values(path).items()
        ]
    return summary


def _unmapped(evidence: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Area that no geological map covers, its fraction of all cells with evidence, and whether it was predicted."""
    km2 = {int(row["value"]): float(row["km2"]) for row in evidence if row["value"] != NODATA}
    area = km2.get(UNMAPPED, 0.0)
    return {
        "km2": area,
        "fraction": float(f"{area / (sum(km2.values()) or 1.0):.9g}"),
        "predicted": bool(settings.get("fill_unmapped", False)),
    }


def versions() -> dict[str, str]:
    """Of gravmap and of what its numbers depend on."""
    import pyproj
    import rasterio

    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    own = {"gravmap": __version__, "python": platform.python_version()}
    return {**own, **packages, "GDAL": rasterio.__gdal_version__, "PROJ": pyproj.proj_version_str}


def machine(device: str) -> dict[str, str]:
    """System and device; no name of the machine or of its user."""
    found = {"system": platform.system(), "machine": platform.machine(), "device": device}
    torch = sys.modules.get("torch")  # loaded where a network ran; not worth loading for a name
    if device.startswith("cuda") and torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = str(torch.version.cuda)
    return found
