"""A folder that is written part by part, and that a later run can resume after an interruption.

The folder ``tiles.partial`` beside ``tiles`` holds the recipe of its parts (``unfinished.json``) and the checksums of
every finished part (``finished.txt``). Both are removed when the folder is complete and renamed to ``tiles``. Parts
are the tiles of a tile set, or the windows of a map.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gravmap.errors import InputError
from gravmap.files import replace_folder, sha256, write_json, write_text
from gravmap.outputs import check_outputs, locked
from gravmap.records import read_record

log = logging.getLogger(__name__)

MARK, JOURNAL = "unfinished.json", "finished.txt"


def unfinished_folder(folder: Path) -> Path:
    """Where a folder is written until it is complete: ``data/tiles.partial`` for ``data/tiles``."""
    return folder.with_name(f"{folder.name}.partial")


def refuse_unfinished(folder: Path) -> None:
    """Raise InputError where a tile set is incomplete, or only its ``.partial`` exists.

    Raises
    ------
    InputError
        A run of `gravmap tile` was stopped, or is still running.
    """
    partial = folder if (folder / MARK).exists() else unfinished_folder(folder)
    if (partial / MARK).exists() and (partial == folder or not (folder / "index.json").exists()):
        finished = _read_journal(partial)
        raise InputError(
            f"{partial} is incomplete: {len(finished)} tiles are finished.",
            "Run `gravmap tile` again with the same options: it resumes where it stopped.",
        )


def unfinished_bytes(folder: Path) -> int:
    """Disk space that an unfinished run already uses."""
    return sum(path.stat().st_size for path in unfinished_folder(folder).rglob("*") if path.is_file())


class ResumableFolder:
    """A folder that is being written; see :func:`write_unfinished`.

    Attributes
    ----------
    folder : Path
        The folder to write into.
    kept : dict
        Parts that an earlier run finished, with the SHA-256 of their files.
    """

    def __init__(self, folder: Path, kept: dict[str, tuple[str, ...]], journal: int) -> None:
        self.folder = folder
        self.kept = kept
        self._journal = journal
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def open(cls, folder: Path, kept: dict[str, tuple[str, ...]]) -> Iterator[ResumableFolder]:
        """Open a folder that this command, perhaps in another process, is writing."""
        journal = os.open(folder / JOURNAL, os.O_WRONLY | os.O_APPEND)
        try:
            yield cls(folder, kept, journal)
        finally:
            os.close(journal)

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the folder; it gets its name only when it is complete."""
        path = self.folder / name
        temporary = path.with_name(f"{path.name}.part")
        temporary.write_bytes(content)
        os.replace(temporary, path)

    def finish(self, name: str, sums: tuple[str, ...]) -> None:
        """Record that all files of a part are written; may be called from several threads."""
        with self._lock:
            _write_all(self._journal, "\t".join((name, *sums)).encode() + b"\n")


@contextmanager
def write_unfinished(
    final: Path,
    recipe: Mapping[str, Any],
    files: Mapping[str, Sequence[str]],
    parts: str = "tiles",
    overwrite: bool = True,
) -> Iterator[ResumableFolder]:
    """Start a folder, or resume one that a stopped run left; rename it to its final name when the block succeeds.

    A part of the earlier run is kept if the recipe is the same and its files have the recorded checksums; everything
    else in the folder is removed. After an error or a kill the folder stays for the next run, and an older complete
    set keeps its place until then.

    Parameters
    ----------
    final : Path
        The final name of the folder.
    recipe : mapping
        JSON values: everything that determines the content of the parts.
    files : mapping
        Files of each part, by name.
    parts : str
        Word for the parts in messages.
    overwrite : bool
        Replace an existing folder.

    Yields
    ------
    ResumableFolder

    Raises
    ------
    InputError
        Another command is writing the same, or has written it meanwhile.
    """
    partial = unfinished_folder(final)
    with locked(final):
        if final.exists() and any(final.iterdir()):
            check_outputs([], [], overwrite, folders=[final])
        partial.mkdir(parents=True, exist_ok=True)
        kept = _keep(partial, recipe, files, parts)
        write_json(partial / MARK, {"unfinished": str(final.name), **recipe})
        write_text(partial / JOURNAL, "".join("\t".join((name, *sums)) + "\n" for name, sums in kept.items()))
        try:
            with ResumableFolder.open(partial, kept) as folder:
                yield folder
        except BaseException:
            if not _read_journal(partial):
                shutil.rmtree(partial)  # nothing to resume
            raise
        for name in (JOURNAL, MARK):
            (partial / name).unlink()
        replace_folder(partial, final)


def _keep(
    partial: Path, recipe: Mapping[str, Any], files: Mapping[str, Sequence[str]], parts: str
) -> dict[str, tuple[str, ...]]:
    """The finished, unchanged parts of an earlier run; everything else in the folder is removed."""
    recorded = _read_journal(partial)
    kept: dict[str, tuple[str, ...]] = {}
    if recorded and _read_mark(partial) != json.loads(json.dumps({"unfinished": partial.stem, **recipe})):
        log.warning(
            "%s holds %d %s of an unfinished run with other sources or options: they are discarded.",
            partial,
            len(recorded),
            parts,
        )
    else:
        for name, sums in recorded.items():
            paths = [partial / file for file in files.get(name, ())]
            if len(paths) == len(sums) and all(map(_is_unchanged, paths, sums)):
                kept[name] = sums
    keep = {partial / file for name in kept for file in files[name]}
    if kept:
        keep |= {partial / MARK, partial / JOURNAL}  # rewritten atomically: a kill now loses nothing
    for path in partial.iterdir():
        if path.is_dir():
            for inner in path.iterdir():
                if inner not in keep:
                    _remove(inner)
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in keep:
            path.unlink()
    return kept


def _is_unchanged(path: Path, checksum: str) -> bool:
    return path.is_file() and sha256(path) == checksum


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _read_mark(partial: Path) -> Any:
    try:
        return read_record(partial / MARK, dict[str, Any])
    except InputError:
        return None


def _read_journal(partial: Path) -> dict[str, tuple[str, ...]]:
    """Checksums by part; a last line that a kill truncated has no newline and does not count."""
    try:
        lines = (partial / JOURNAL).read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    except FileNotFoundError:
        return {}
    rows = [line.split("\t") for line in lines]
    return {name: tuple(sums) for name, *sums in rows}


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
