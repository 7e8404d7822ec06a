"""The folder that a map takes the place of."""

from __future__ import annotations

from pathlib import Path

from gravmap.errors import InputError, OptionError

OURS = (
    *("lithology", "probability", "uncertainty", "evidence", "map", "item", "provenance", "report"),
    *("demo", "under_cover", "attribution"),
)
"""Files of a map's folder begin with one of these: a folder with others is not replaced."""


def check_folder(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that a map may not take the place of.

    Raises
    ------
    InputError
        It holds a map and may not be replaced, or files that gravmap did not make.
    OptionError
        It is no folder, or the one in which the command runs.
    """
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise OptionError(f"{place} is a file, not a folder.", "Choose another --output.")
    if folder.resolve() in (here := Path.cwd().resolve(), *here.parents):
        raise OptionError(
            f"The map's folder may not be {folder}, in which the command runs.", "Choose another --output."
        )
    entries = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    if entries and not overwrite:
        raise InputError(f"{folder} exists already.", "Add --overwrite to replace it.")
    strange = [entry for entry in entries if entry.lstrip(".").split(".")[0] not in OURS]
    if strange:
        raise InputError(
            f"{folder} holds what gravmap did not make: {', '.join(strange[:4])}.",
            "A new map would take its place: move it away, or choose another --output.",
        )
