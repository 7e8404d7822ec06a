"""Check a map, a training run, a tile set, or a workspace of them, against what was recorded; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gravmap.errors import InputError
from gravmap.mapping import provenance
from gravmap.mapping.agreement import agreement
from gravmap.mapping.data_sources import file_name
from gravmap.mapping.finding import AS_RECORDED, CHANGED, MISSING, UNLISTED, Finding, Verification, held_against
from gravmap.mapping.model_record import SIDECAR
from gravmap.mapping.verify_training import verify_run, verify_tile_set
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
    place = Workspace(folder)
    found = [verify_tile_set(place.tiles, progress)] if (place.tiles / "index.json").is_file() else []
    found += [verify_run(path.parent) for path in _of_each(place.runs, SIDECAR)]
    found += [verify_map(path.parent) for path in _of_each(place.maps, provenance.FILE)]
    if not found:
        raise InputError(f"{folder} holds nothing to verify.", f"Name {_KINDS}.")
    return found


def verify_map(folder: Path) -> Verification:
    """Check a map against its record: outputs, inputs, networks, original data, and the rasters among themselves.

    Raises
    ------
    InputError
        The record cannot be read.
    """
    record = provenance.read_provenance(folder)
    title = f"{record['settings'].get('region', folder.name)}, {record['made_by']}, {record['created']}"
    findings = [_record_itself(folder)]
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
    return Verification(folder, "map", title, tuple(findings))


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
