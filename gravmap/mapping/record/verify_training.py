"""Check what a map rests on: a training run, and the tile set it learned from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gravmap.errors import InputError
from gravmap.files import read_json, sha256
from gravmap.mapping.record.finding import AS_RECORDED, CHANGED, DISAGREES, MISSING, Finding, Verification, held_against
from gravmap.mapping.record.model_record import MADE_BY, SIDECAR, read_header, tensors_sha256
from gravmap.progress import Progress, silent
from gravmap.tiling import read_index
from gravmap.tiling.tile_files import tile_checksums
from gravmap.workspace import Workspace


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
    record = read_json(folder / SIDECAR, MADE_BY)
    if not isinstance(record, dict):
        raise InputError(f"{folder / SIDECAR} describes no network.", f"`{MADE_BY}` makes it anew.")
    versions = record.get("versions", {})
    title = (
        f"{folder.name}, {record.get('model', 'a network')}, gravmap {versions.get('gravmap', 'of another version')}"
    )
    findings = [_pair(folder, "model")]
    if (folder / "last.json").is_file():
        findings.append(_pair(folder, "last"))
    findings += _measured(folder, record)
    findings += _learned_from(folder, record)
    return Verification(folder, "run", title, tuple(findings))


def verify_tile_set(folder: Path, progress: Progress = silent) -> Verification:
    """Check a tile set: every tile against its checksum in the index, and the two files it was cut from.

    Parameters
    ----------
    folder : Path
        Holds ``index.json``.
    progress : Progress
        Told after each tile file.

    Raises
    ------
    InputError
        No tile set there, a half-written one, or one of another version.
    """
    index = read_index(folder)
    title = f"{index['windows']} windows, {index['made_by']}"
    findings = [
        held_against((folder / entry["path"]).resolve(), entry, f"{role} {entry['path']}")
        for role, entry in index["sources"].items()
    ]
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


def _pair(folder: Path, stem: str) -> Finding:
    """Weights beside the JSON that describes them; each file carries the other's word."""
    weights, what = folder / f"{stem}.safetensors", f"{stem}.safetensors"
    if not weights.is_file():
        return Finding(what, MISSING, "is not there")
    try:
        header = json.loads(read_header(weights).get("__metadata__", {})["gravmap"])
        whole = tensors_sha256(weights) == header["tensors_sha256"]
        sidecar = read_json(folder / f"{stem}.json", MADE_BY)
    except (InputError, KeyError, ValueError, TypeError) as error:
        first = str(error).splitlines()[0]
        return Finding(what, CHANGED, f"is damaged: {first}")
    if not whole:
        return Finding(what, CHANGED, "is damaged: its numbers are not those its own header was written for")
    if sha256(weights) != sidecar.get("weights_sha256"):
        told = f"is not the file that {stem}.json describes: another network, or training was stopped between the two"
        return Finding(what, CHANGED, told)
    if {key: value for key, value in sidecar.items() if key != "weights_sha256"} != header:
        return Finding(f"{stem}.json", CHANGED, f"says something else than the copy of it inside {what}")
    return Finding(f"{what} and {stem}.json", AS_RECORDED)


def _measured(folder: Path, record: Mapping[str, Any]) -> Iterator[Finding]:
    """Scores, temperatures and reach belong to these weights."""
    if (folder / "scores.json").is_file():
        scores = read_json(folder / "scores.json", MADE_BY)
        told = [role for role in ("tune", "test") if scores.get(role) != record.get("scores", {}).get(role)]
        yield _belongs(
            "scores.json", f"other scores on the {' and '.join(told)} blocks than model.json" if told else ""
        )
    if (folder / "calibration.json").is_file():
        named = read_json(folder / "calibration.json", MADE_BY).get("model_sha256")
        yield _belongs("calibration.json", _other(named, record.get("weights_sha256"), "weights"))
    if (folder / "evaluation.json").is_file():
        named = read_json(folder / "evaluation.json", "gravmap evaluate").get("model_sha256")
        yield _belongs("evaluation.json", _other(named, record.get("weights_sha256"), "weights"))
    if (folder / "reach.safetensors").is_file():
        try:
            named = json.loads(read_header(folder / "reach.safetensors")["__metadata__"]["gravmap"])["area_sha256"]
        except (InputError, KeyError, ValueError, TypeError):
            yield Finding("reach.safetensors", CHANGED, "is damaged: its header cannot be read")
            return
        yield _belongs("reach.safetensors", _other(named, record.get("area_sha256"), "training ground"))


def _other(named: Any, own: Any, what: str) -> str:
    return "" if named == own else f"was measured on another {what} ({str(named)[:12]}...) than model.json names"


def _belongs(file: str, told: str) -> Finding:
    return Finding(file, DISAGREES if told else AS_RECORDED, told)


def _learned_from(folder: Path, record: Mapping[str, Any]) -> Iterator[Finding]:
    """The fields and labels, where the workspace of the run has them; their paths are as the tile set sees them."""
    tiles = Workspace(folder.resolve().parent.parent).tiles
    for entry in record.get("sources", []):
        if entry.get("role") in ("fields", "labels") and entry.get("sha256"):
            path = (tiles / str(entry.get("path", ""))).resolve()
            yield held_against(path, entry, f"learned from {entry['role']} {path.name}")
