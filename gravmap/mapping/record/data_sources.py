"""The original data behind a map, each with its address, terms and citation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from gravmap.download.sources import Source, known_sources
from gravmap.geology import load_legend
from gravmap.geology.labels import legend_path
from gravmap.gravity.fields_file import read_field_sources

OWN = "not stated; a file of the user's own"

# Files that gravmap made on the way: they stand among the inputs, not among the original data.
_MADE = ("fields", "labels", "tiles")

_TERMS = {"source": "", "licence": "", "citation": ""}


def original_data(
    fields: Path, labels: Path | None, runs: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """Every original file that a map rests on, once, with what it was used for.

    Parameters
    ----------
    fields : Path
        ``fields.nc``: names the gravity files it was made from.
    labels : Path, optional
        ``labels.tif``: its legend names the maps it was made from.
    runs : mapping of str to sequence of mapping
        Name of a run to the ``sources`` of its ``model.json``.

    Returns
    -------
    list of dict
        As recorded (``path`` or ``file``, ``sha256`` ...), with ``used_for`` and ``role``; ``source`` (address),
        ``licence`` and ``citation`` are filled in for data that gravmap knows by name.
    """
    entries = [({"role": "gravity", **entry}, "the fields") for entry in field_file_sources(fields)]
    if labels is not None:
        entries += [({"role": "map", **entry}, "the mapped outcrop") for entry in label_file_sources(labels)]
    for name, sources in runs.items():
        made = [dict(entry) for entry in sources if entry.get("role") not in _MADE]
        entries += [(entry, f"training {name}") for entry in made]
    merged: dict[str, dict[str, Any]] = {}
    for number, (entry, use) in enumerate(entries):
        key = f"{entry.get('role')} {entry.get('sha256') or entry.get('name') or number}"
        kept = merged.setdefault(key, {**with_terms(entry), "used_for": []})
        if use not in kept["used_for"]:
            kept["used_for"].append(use)
    return list(merged.values())


def field_file_sources(fields: Path) -> list[dict[str, Any]]:
    """The gravity files that ``fields.nc`` was made from, by its attributes; its arrays are not read."""
    attributes = field_attributes(fields)
    return read_field_sources(attributes.get("gravmap_sources", "[]"), str(fields))


def field_attributes(fields: Path) -> dict[str, Any]:
    """The global attributes of ``fields.nc``."""
    import netCDF4

    with netCDF4.Dataset(fields) as file:
        return {name: file.getncattr(name) for name in file.ncattrs()}


def file_name(entry: Mapping[str, Any]) -> str:
    """The name of a recorded original file; empty where none was recorded."""
    return PurePosixPath(str(entry.get("path") or entry.get("file") or "")).name


def with_terms(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded source with address, terms and citation, as far as they are known."""
    filled = {**_TERMS, **entry}
    known = _known(entry)
    if known is None and _source_of_legend(entry) is not None:
        filled["citation"] = ""  # recorded with the legend: that of the map which the legend describes
    filled["citation"] = filled["citation"] or file_attributes(entry).get("references", "")
    if known is not None:
        filled["source"] = filled["source"] or known.files[0].url
        filled["licence"] = filled["licence"] or known.terms
        filled["citation"] = filled["citation"] or known.citation
        filled["known_as"] = known.name
    filled["licence"] = filled["licence"] or OWN
    return filled


def credit(entry: Mapping[str, Any]) -> str:
    """The citation of a recorded source; without one, what is known of the file instead."""
    citation = str(entry.get("citation") or "")
    described = None if entry.get("known_as") else _source_of_legend(entry)
    if citation or described is None:
        return citation
    return f"read with the legend {described.legend}, which describes: {described.title}"


def file_attributes(entry: Mapping[str, Any]) -> dict[str, str]:
    """Title, source, references and comment that a recorded file has as attributes of its own."""
    return dict(entry.get("attributes", {}))


def _known(entry: Mapping[str, Any]) -> Source | None:
    """The source of sources.toml that an entry is of: by checksum, or by the address recorded of a fetched file."""
    for source in known_sources().values():
        for file in source.files:
            if (file.sha256 and entry.get("sha256") == file.sha256) or entry.get("source") == file.url:
                return source
    return None


def _source_of_legend(entry: Mapping[str, Any]) -> Source | None:
    """The source whose legend a map was read with, whether the map is that source or not."""
    legend = entry.get("legend")
    return next((source for source in known_sources().values() if legend and source.legend == legend), None)


def label_file_sources(labels: Path) -> list[dict[str, Any]]:
    """The geological maps that ``labels.tif`` was made from, by its legend; none if that is missing."""
    beside = legend_path(labels)
    if not beside.exists():
        return []
    brief = ("file", "sha256", "legend", "field", "source", "citation")
    return [{key: entry[key] for key in brief if key in entry} for entry in load_legend(beside).sources]
