"""Check a map, a training run, a tile set, or a workspace of them, against what was recorded; nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gravmap.errors import InputError
from gravmap.mapping.record import provenance
from gravmap.mapping.record.agreement import agreement
from gravmap.mapping.record.data_sources import file_name
from gravmap.mapping.record.finding import (
    AS_RECORDED,
    CHANGED,
    MISSING,
    UNLISTED,
    UNREADABLE,
    Finding,
    Verification,
    held_against,
)
from gravmap.mapping.record.model_record import SIDECAR
from gravmap.mapping.record.verify_training import verify_run, verify_tile_set
from gravmap.progress import Progress, silent
from gravmap.workspace import Workspace

_KINDS = "a map (provenance.json), a training run (model.json), a tile set (index.json), or a workspace holding these"


def verify(folder: Path, progress: Progress = silent) -> list[Verification]:
    """Hash again what was recorded, and compare files that have to agree.

    Parameters
    ----------
    folder : Path
        A map's folder, a training run's, a tile set's, or a workspace: then everything in it.
    progress : Progress
        Told after each tile file.

    Returns
    -------
    list of Verification
        One for each map, run and tile set.

    Raises
    ------
    InputError
        The folder is none of these, or a record cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder.", f"Name {_KINDS}.")
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
    """Tiles, runs and maps of a workspace; what cannot be read does not keep the others from being checked."""

    def check(kind: str, record: Path, how: Callable[[Path], Verification]) -> Verification:
        try:
            return how(record.parent)
        except InputError as error:
            return Verification(record.parent, kind, "", (Finding(record.name, UNREADABLE, error.message),))

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
            told = f"{folder / provenance.FILE} was edited, and no longer holds what a record does: {error!r}."
            raise InputError(told, "Bring it back, or make the map anew: `gravmap predict --overwrite`.") from None
        raise


def _findings(folder: Path, record: Mapping[str, Any]) -> list[Finding]:
    findings = []
    for name, entry in record["outputs"].items():
        findings.append(held_against(folder / name, entry, name, absent=MISSING))
    known = {folder / name for name in record["outputs"]}
    findings += [
        Finding(path.relative_to(folder).as_posix(), UNLISTED, "is not in the record: put there later")
        for path in provenance.outputs_in(folder)
        if path not in known
    ]
    findings += _inputs(folder, record)
    findings += agreement(folder, record)
    return findings


def _of_each(folder: Path, file: str) -> list[Path]:
    """A file in each folder of a folder, but for hidden ones and those half-written."""
    found = folder.glob(f"*/{file}")
    return sorted(path for path in found if path.parent.name[0] != "." and path.parent.suffix != ".partial")


def _record_itself(folder: Path) -> Finding:
    if provenance.is_untouched(folder):
        return Finding(provenance.FILE, AS_RECORDED)
    return Finding(provenance.FILE, CHANGED, "was edited after it was written: its own checksum does not fit")


def _inputs(folder: Path, record: Mapping[str, Any]) -> Iterator[Finding]:
    for role, entry in record["inputs"].items():
        path = (folder / entry["path"]).resolve()
        yield held_against(path, entry, f"{role.replace('_', ' ')} {entry['path']}")
    # The original data lie where `gravmap fetch` puts them, beside the fields, where they are still kept.
    raw = (folder / record["inputs"]["fields"]["path"]).resolve().parent / "raw"
    for source in record["sources"]:
        name = file_name(source)
        if name and source.get("sha256") and (raw / name).is_file():
            yield held_against(raw / name, {"sha256": source["sha256"]}, f"{source.get('role', 'data')} data {name}")
