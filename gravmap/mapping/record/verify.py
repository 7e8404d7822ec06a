"""Check a map, a training run, a tile set, or a workspace of them, against what was recorded; nothing is written."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gravmap.errors import InputError
from gravmap.files import is_untouched, json_text, sha256
from gravmap.geology.layers_file import ROLE as LAYER_ROLE
from gravmap.geology.layers_file import layer_files
from gravmap.mapping.record import provenance
from gravmap.mapping.record.agreement import agreement
from gravmap.mapping.record.data_sources import field_file_sources, file_name
from gravmap.mapping.record.finding import (
    AS_RECORDED,
    CHANGED,
    DISAGREES,
    MISSING,
    UNLISTED,
    UNREADABLE,
    Finding,
    Verification,
    compare_with_record,
)
from gravmap.mapping.record.model_record import MADE_BY, SIDECAR, read_metadata, tensors_sha256
from gravmap.mapping.record.raster_content import read_attribute_table
from gravmap.progress import Progress, silent
from gravmap.records import read_model, read_record
from gravmap.tiling.splits import read_split
from gravmap.tiling.tile_files import read_windows, tile_checksums
from gravmap.tiling.training_arrays import TileIndex, labels_of, read_index
from gravmap.workspace import Workspace

_KINDS = (
    "a map (provenance.json), a training run (model.json), a tile set (index.json), or a workspace with these or layers"
)


def verify(folder: Path, progress: Progress = silent) -> list[Verification]:
    """Hash again what was recorded, and compare files that have to agree.

    Parameters
    ----------
    folder : Path
        A map's folder, a training run's, a tile set's, or a workspace: then everything in it.
    progress : Progress
        Called after each tile file.

    Returns
    -------
    list of Verification
        One for each map, run and tile set, and one for the layers of the fields.

    Raises
    ------
    InputError
        The folder is none of these, or a record cannot be read.

    Examples
    --------
    >>> from pathlib import Path
    >>> from gravmap.mapping import verify
    >>> (checked,) = verify(Path("data/tiles"))
    >>> checked.bad
    []
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder.", f"Name {_KINDS}.")
    if (folder / provenance.FILE).is_file():
        return [verify_map(folder)]
    if (folder / SIDECAR).is_file():
        return [verify_run(folder)]
    if (folder / "index.json").is_file():
        return [verify_tile_set(folder, progress)]
    found = list(_all_of(Workspace(folder), progress))
    if not found:
        raise InputError(f"{folder} holds nothing to verify.", f"Name {_KINDS}.")
    return found


def _all_of(place: Workspace, progress: Progress) -> Iterator[Verification]:
    """Layers, tiles, runs and maps of a workspace; what cannot be read does not keep the others from being checked."""

    def check(kind: str, record: Path, how: Callable[[Path], Verification]) -> Verification:
        try:
            return how(record.parent)
        except InputError as error:
            return Verification(record.parent, kind, "", (Finding(record.name, UNREADABLE, error.message),))

    with contextlib.suppress(InputError, OSError):  # what is wrong with the fields is found with what reads them
        if place.fields.is_file() and layer_files(field_file_sources(place.fields), place.fields):
            yield check("layers", place.fields, lambda _: verify_layers(place.fields))
    if (place.tiles / "index.json").is_file():
        yield check("tile set", place.tiles / "index.json", lambda folder: verify_tile_set(folder, progress))
    for record in _of_each(place.runs, SIDECAR):
        yield check("run", record, verify_run)
    for record in _of_each(place.maps, provenance.FILE):
        yield check("map", record, verify_map)


def verify_map(folder: Path) -> Verification:
    """Check a map against its record: outputs, inputs, networks, original data, and the rasters among themselves.

    Raises
    ------
    InputError
        The record cannot be read.
    """
    record = provenance.read_provenance(folder)
    itself = _record_itself(folder)
    try:
        title = f"{record['settings'].get('region', folder.name)}, {record['made_by']}, {record['created']}"
        return Verification(folder, "map", title, (itself, *_findings(folder, record)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if itself.bad:
            message = f"{folder / provenance.FILE} was edited, and no longer holds what a record does: {error!r}."
            raise InputError(message, "Bring it back, or make the map anew: `gravmap predict --overwrite`.") from None
        raise


def _findings(folder: Path, record: Mapping[str, Any]) -> list[Finding]:
    findings = []
    for name, entry in record["outputs"].items():
        findings.append(compare_with_record(folder / name, entry, name, absent=MISSING))
    known = {folder / name for name in record["outputs"]}
    findings += [
        Finding(path.relative_to(folder).as_posix(), UNLISTED, _added(path.name))
        for path in provenance.outputs_in(folder)
        if path not in known
    ]
    findings += _inputs(folder, record)
    findings += agreement(folder, record)
    return findings


def _added(name: str) -> str:
    command = "explore" if name == "explore.html" else "explain" if name.startswith("attribution.") else ""
    if command:
        return f"written by `gravmap {command}` after the map, so the record has no hash of it"
    return "is not in the record: put there later"


def _of_each(folder: Path, file: str) -> list[Path]:
    """A file in each folder of a folder, but for hidden ones and those half-written."""
    found = folder.glob(f"*/{file}")
    return sorted(path for path in found if path.parent.name[0] != "." and path.parent.suffix != ".partial")


def _record_itself(folder: Path) -> Finding:
    if is_untouched(folder / provenance.FILE):
        return Finding(provenance.FILE, AS_RECORDED)
    return Finding(provenance.FILE, CHANGED, "was edited after it was written: its own checksum does not fit")


def _inputs(folder: Path, record: Mapping[str, Any]) -> Iterator[Finding]:
    for role, entry in record["inputs"].items():
        path, what = (folder / entry["path"]).resolve(), f"{role.replace('_', ' ')} {entry['path']}"
        found = compare_with_record(path, entry, what)
        if found.bad and role.startswith("model_json") and _sha256_without_files(path) == entry["sha256"]:
            found = Finding(what, AS_RECORDED)
        yield found
    # The original data lie where `gravmap fetch` puts them, beside the fields, where they are still kept.
    fields = (folder / record["inputs"]["fields"]["path"]).resolve()
    yield from _layers(record["sources"], fields)
    raw = fields.parent / "raw"
    for source in record["sources"]:
        name = "" if source.get("role") == LAYER_ROLE else file_name(source)
        if name and source.get("sha256") and (raw / name).is_file():
            yield compare_with_record(
                raw / name,
                {key: source[key] for key in ("sha256", "layers") if key in source},
                f"{source.get('role', 'data')} data {name}",
            )


def verify_layers(fields: Path) -> Verification:
    """Check the layers of a file of fields against the files they were made of.

    Parameters
    ----------
    fields : Path
        ``data/fields.nc``.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    sources = field_file_sources(fields)
    names = dict.fromkeys(name for name, _, _ in layer_files(sources, fields))
    title = f"of {fields.name}: {', '.join(names)}"
    return Verification(fields.parent, "layers", title, tuple(_layers(sources, fields)))


def _layers(sources: Sequence[Mapping[str, Any]], fields: Path) -> Iterator[Finding]:
    """The files that layers were made of; a folder, such as a file geodatabase, has no hash."""
    for name, path, entry in layer_files(sources, fields):
        if entry.get("sha256"):
            yield compare_with_record(path, {"sha256": entry["sha256"]}, f"layer {name}, {path.name}")


def _sha256_without_files(path: Path) -> str:
    """SHA-256 of a model.json as it was before its list of files was added: that of the shipped network was, later."""
    try:
        record = read_record(path, dict[str, Any], MADE_BY)
    except InputError:
        return ""
    return hashlib.sha256(json_text({key: record[key] for key in record if key != "files"}).encode()).hexdigest()


def verify_run(folder: Path) -> Verification:
    """Check a training run: weights and their descriptions, what was measured on them, and the data they learned from.

    Parameters
    ----------
    folder : Path
        Holds ``model.json``.

    Raises
    ------
    InputError
        ``model.json`` cannot be read.
    """
    record = read_model(folder)
    versions = record.get("versions", {})
    title = (
        f"{folder.name}, {record.get('model', 'a network')}, gravmap {versions.get('gravmap', 'of another version')}"
    )
    findings = [_pair(folder, "model")]
    if (folder / "last.json").is_file():
        findings.append(_pair(folder, "last"))
    findings += _measured(folder, record)
    findings += _training_data(folder, record)
    return Verification(folder, "run", title, tuple(findings))


def verify_tile_set(folder: Path, progress: Progress = silent) -> Verification:
    """Check a tile set: every tile against its checksum in the index, and the two files it was cut from.

    Parameters
    ----------
    folder : Path
        Holds ``index.json``.
    progress : Progress
        Called after each tile file.

    Raises
    ------
    InputError
        No tile set there, a half-written one, or one of another version.
    """
    index = read_index(folder)
    title = f"{index['windows']} windows, {index['made_by']}"
    sources = {"fields": index["sources"]["fields"], "labels": index["sources"]["labels"]}
    findings = [
        compare_with_record((folder / entry["path"]).resolve(), entry, f"{role} {entry['path']}")
        for role, entry in sources.items()
    ]
    fields = (folder / sources["fields"]["path"]).resolve()
    findings += _layers(index.get("field_sources", []), fields)
    findings += _tile_index(folder, index)
    sums = tile_checksums(folder, progress=progress)
    for file, (written, found) in sums.items():
        if found is None:
            findings.append(Finding(file, MISSING, "is not there"))
        elif found != written:
            findings.append(Finding(file, CHANGED, f"its SHA-256 is {found[:12]}..., {written[:12]}... was recorded"))
    sound = sum(found == written for written, found in sums.values())
    if sound:
        findings.append(Finding(f"{sound} tile files", AS_RECORDED))
    return Verification(folder, "tile set", title, tuple(findings))


def _tile_index(folder: Path, index: TileIndex) -> Iterator[Finding]:
    """Whether the table of windows, its columns of splits and the classes of the labels are those of index.json."""
    problem = ""
    try:
        table = read_windows(folder, index)
        boxes = np.column_stack([table[side].to_numpy() for side in ("west", "south", "east", "north")])
        for stored in index["splits"]:
            expected = {name: list(column) for name, column in read_split(stored).columns(boxes).items()}
            if any(name not in table.column_names or table[name].to_pylist() != expected[name] for name in expected):
                problem = (
                    f"its columns of the split {stored['name']} are not those of index.json;"
                    f" `gravmap split --add {stored['kind']} --name {stored['name']} --overwrite` writes both"
                )
    except InputError as error:
        problem = error.message
    yield Finding("index.parquet", CHANGED if problem else AS_RECORDED, problem)
    labels = folder / index["sources"]["labels"]["path"]
    if labels.is_file() and sha256(labels) == index["sources"]["labels"]["sha256"]:
        try:
            legend = labels_of(folder, index).legend
        except InputError as error:
            yield Finding(f"legend of {labels.name}", DISAGREES, error.message)
        else:
            yield Finding(f"legend of {labels.name}", AS_RECORDED)
            # The names that QGIS shows.
            names = {entry.index: entry.name for entry in legend.classes}
            table = read_attribute_table(labels)
            wrong = [value for value, row in table.items() if value in names and row.name != names[value]]
            if wrong:
                detail = f"value {wrong[0]} is {table[wrong[0]].name!r}, {names[wrong[0]]!r} in the legend"
                yield Finding(f"attribute table of {labels.name}", DISAGREES, detail)


def _pair(folder: Path, stem: str) -> Finding:
    """Weights beside the JSON that describes them; each names the checksum of the other."""
    weights, what = folder / f"{stem}.safetensors", f"{stem}.safetensors"
    if not weights.is_file():
        return Finding(what, MISSING, "is not there")
    try:
        header = read_metadata(weights)
        whole = tensors_sha256(weights) == header.get("tensors_sha256")
        sidecar = read_record(folder / f"{stem}.json", dict[str, Any], MADE_BY)
    except InputError as error:
        first = error.message
        return Finding(what, CHANGED, f"is damaged: {first}")
    if not whole:
        return Finding(what, CHANGED, "is damaged: its numbers are not those its own header was written for")
    if sha256(weights) != sidecar.get("weights_sha256"):
        detail = f"is not the file that {stem}.json describes: another network, or training was stopped between the two"
        return Finding(what, CHANGED, detail)
    own = {key: value for key, value in sidecar.items() if key not in ("weights_sha256", "files")}
    if json.dumps(own, sort_keys=True) != json.dumps(header, sort_keys=True):  # as text: NaN is not equal to itself
        return Finding(f"{stem}.json", CHANGED, f"differs from the copy of it inside {what}")
    return Finding(f"{what} and {stem}.json", AS_RECORDED)


def _measured(folder: Path, record: Mapping[str, Any]) -> Iterator[Finding]:
    """Files that were measured on the network: those that model.json and evaluation.json record, and whose they are."""
    differing = set()
    listed = {"model.json": record.get("files", {})}  # runs of earlier versions of gravmap list none
    if (folder / "evaluation.json").is_file():
        if is_untouched(folder / "evaluation.json") is False:
            differing.add("evaluation.json")
            yield Finding("evaluation.json", CHANGED, "was edited after it was written: its own checksum does not fit")
        else:
            evaluation = read_record(folder / "evaluation.json", dict[str, Any], "gravmap evaluate")
            listed["evaluation.json"] = evaluation.get("files", {})
    for name, checksum in ((name, checksum) for files in listed.values() for name, checksum in files.items()):
        found = compare_with_record(folder / name, {"sha256": checksum}, name, absent=MISSING)
        if found.bad or name not in _OWNED:
            yield found
        if found.bad:
            differing.add(name)
    for name, owner in _OWNED.items():
        if name not in differing and (folder / name).is_file():
            yield owner(folder / name, record)


def _owner_of_scores(path: Path, record: Mapping[str, Any]) -> Finding:
    scores, known = read_record(path, dict[str, Any], MADE_BY), record.get("scores", {})
    other = [role for role in ("tune", "test") if json.dumps(scores.get(role)) != json.dumps(known.get(role))]
    return _belongs(path.name, f"other scores on the {' and '.join(other)} blocks than model.json" if other else "")


def _owner_by_weights(path: Path, record: Mapping[str, Any]) -> Finding:
    named = read_record(path, dict[str, Any], MADE_BY).get("model_sha256")
    return _belongs(path.name, _other(named, record.get("weights_sha256"), "weights"))


def _owner_of_applicability(path: Path, record: Mapping[str, Any]) -> Finding:
    try:
        named = read_metadata(path).get("area_sha256")
    except InputError:
        return Finding(path.name, CHANGED, "is damaged: its header cannot be read")
    return _belongs(path.name, _other(named, record.get("area_sha256"), "training region"))


_OWNED: dict[str, Callable[[Path, Mapping[str, Any]], Finding]] = {
    "scores.json": _owner_of_scores,
    "calibration.json": _owner_by_weights,
    "evaluation.json": _owner_by_weights,
    "reach.safetensors": _owner_of_applicability,
}


def _other(named: Any, own: Any, what: str) -> str:
    return "" if named == own else f"was measured on another {what} ({str(named)[:12]}...) than model.json names"


def _belongs(file: str, detail: str) -> Finding:
    return Finding(file, DISAGREES if detail else AS_RECORDED, detail)


def _training_data(folder: Path, record: Mapping[str, Any]) -> Iterator[Finding]:
    """The fields and labels, where the workspace of the run has them; their paths are as the tile set sees them."""
    tiles = Workspace(folder.resolve().parent.parent).tiles
    for entry in record.get("sources", []):
        if entry.get("role") in ("fields", "labels") and entry.get("sha256"):
            path = (tiles / str(entry.get("path", ""))).resolve()
            yield compare_with_record(path, entry, f"trained on {entry['role']} {path.name}")
