"""What `gravmap verify` finds out about one file, and how a file is compared with its record."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gravmap.errors import InputError
from gravmap.files import sha256
from gravmap.gravity.fields_file import changed_channels
from gravmap.mapping.record.raster_content import compare_layers, read_layers

AS_RECORDED, CHANGED, MISSING, DISAGREES = "as recorded", "changed", "missing", "disagrees"
UNREADABLE, GONE, UNLISTED = "unreadable", "gone", "unlisted"

# An input that is no longer where it was, or a file that somebody put beside a map, is no fault of the map.
BAD = (CHANGED, MISSING, DISAGREES, UNREADABLE)


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes
    ----------
    what : str
        The file, as seen from the folder that is checked, or what two files were compared in.
    state : str
        ``as recorded``; ``changed``: other bytes than recorded; ``missing``: a file of the folder itself is not there;
        ``gone``: an input is not where it was, so it cannot be checked; ``disagrees``: files contradict each other or
        the record; ``unreadable``: a record of a workspace that cannot be read at all; ``unlisted``: a file that the
        record does not know.
    detail : str
        What was found, in words; empty where all is well.
    """

    what: str
    state: str
    detail: str = ""

    @property
    def bad(self) -> bool:
        """Whether something differs from what was recorded."""
        return self.state in BAD


@dataclass(frozen=True)
class Verification:
    """All that was found out about a folder.

    Attributes
    ----------
    folder : Path
        What was checked.
    kind : str
        ``map``, ``run``, ``tile set`` or ``layers``.
    title : str
        One line on what it is.
    findings : tuple of Finding
        In the order in which they were made.
    """

    folder: Path
    kind: str
    title: str
    findings: tuple[Finding, ...]

    @property
    def bad(self) -> list[Finding]:
        """What differs."""
        return [finding for finding in self.findings if finding.bad]

    def count(self, state: str) -> int:
        """How many findings are of a state."""
        return sum(finding.state == state for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "folder": str(self.folder),
            "kind": self.kind,
            "title": self.title,
            "sound": not self.bad,
            "findings": [
                {"what": finding.what, "state": finding.state, "told": finding.detail} for finding in self.findings
            ],
        }


def compare_with_record(path: Path, recorded: Mapping[str, Any], what: str, *, absent: str = GONE) -> Finding:
    """Compare a file with its recorded SHA-256, and its size where that was recorded.

    Parameters
    ----------
    path : Path
        Where the file should be.
    recorded : mapping
        ``sha256`` and perhaps ``bytes``, of a GeoPackage ``layers``, of fields ``channels``: where the bytes of such a
        file differ, these are compared.
    what : str
        How to call it.
    absent : str
        What it means that the file is not there.
    """
    if not path.is_file():
        where = "is not there" if absent == MISSING else f"is no longer at {path}: it cannot be checked"
        return Finding(what, absent, where)
    layers = recorded.get("layers")
    if layers is not None and sha256(path) != recorded["sha256"]:
        return _compare_geopackage(path, layers, what)
    if recorded.get("channels"):
        return _compare_fields(path, recorded, what)
    size = path.stat().st_size
    if recorded.get("bytes", size) != size:
        return Finding(what, CHANGED, f"has {size:,} bytes, {recorded['bytes']:,} were recorded")
    found = sha256(path)
    if found != recorded["sha256"]:
        return Finding(what, CHANGED, f"its SHA-256 is {found[:12]}..., {str(recorded['sha256'])[:12]}... was recorded")
    return Finding(what, AS_RECORDED)


def _compare_fields(path: Path, recorded: Mapping[str, Any], what: str) -> Finding:
    """Compare the channels that were read: a layer that is added or removed changes the bytes of the file alone."""
    try:
        differing = changed_channels(path, recorded)
    except InputError as error:
        return Finding(what, CHANGED, error.message)
    if differing is None:
        return Finding(what, AS_RECORDED)
    if differing:
        return Finding(what, CHANGED, f"not as recorded: {', '.join(differing)}")
    return Finding(what, AS_RECORDED, "what was read of it is; other channels were added, changed or removed")


def _compare_geopackage(path: Path, layers: Mapping[str, Any], what: str) -> Finding:
    """Compare the content of a GeoPackage: QGIS changes bytes of one that it only opens."""
    try:
        found = read_layers(path)
    except sqlite3.Error as error:
        return Finding(what, CHANGED, f"is damaged: {error}")
    difference = compare_layers(found, layers)
    if difference:
        return Finding(what, CHANGED, difference)
    added = sorted(set(found) - set(layers))
    more = f", and it has more: {', '.join(added)}" if added else ""
    return Finding(what, AS_RECORDED, f"its layers are as recorded, its bytes are not: a program opened it{more}")
