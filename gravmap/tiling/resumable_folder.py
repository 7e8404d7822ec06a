"""A folder that is being written: one that says so, and with which a later run goes on where one stopped.

The folder ``tiles.partial`` beside ``tiles`` holds what shapes its parts (``unfinished.json``) and a line of checksums
for every finished one (``finished.txt``). Both are taken out when it takes its place as ``tiles``. Parts are the tiles
of a tile set, or the windows of a map.
"""

from __future__ import annotations

import errno
import fcntl
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

log = logging.getLogger(__name__)

MARK, JOURNAL, LOCK = "unfinished.json", "finished.txt", "unfinished.lock"


def unfinished_folder(folder: Path) -> Path:
    """Where a folder is written before it is whole: ``data/tiles.partial`` for ``data/tiles``."""
    return folder.with_name(f"{folder.name}.partial")


def refuse_unfinished(folder: Path) -> None:
    """Raise InputError where a tile set is not whole: it, or the one that is to become it, is half written.

    Raises
    ------
    InputError
        A run of `gravmap tile` was stopped, or is still going on.
    """
    partial = folder if (folder / MARK).exists() else unfinished_folder(folder)
    if (partial / MARK).exists() and (partial == folder or not (folder / "index.json").exists()):
        finished = _read_journal(partial)
        raise InputError(
            f"{partial} is half written: {len(finished)} tiles are finished.",
            "Run `gravmap tile` again, as before: it goes on where it stopped.",
        )


def unfinished_bytes(folder: Path) -> int:
    """Disk that an unfinished run takes already."""
    return sum(path.stat().st_size for path in unfinished_folder(folder).rglob("*") if path.is_file())


class ResumableFolder:
    """A folder in the making; see :func:`write_unfinished`.

    Attributes
    ----------
    folder : Path
        Where to write.
    kept : dict
        Name of each part that an earlier run finished to the SHA-256 of its files.
    """

    def __init__(self, folder: Path, kept: dict[str, tuple[str, ...]], journal: int) -> None:
        self.folder = folder
        self.kept = kept
        self._journal = journal
        self._lock = threading.Lock()

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the folder, whole or not at all under its name."""
        path = self.folder / name
        temporary = path.with_name(f"{path.name}.part")
        temporary.write_bytes(content)
        os.replace(temporary, path)

    def finish(self, name: str, sums: tuple[str, ...]) -> None:
        """Note that a part's files are all written; may be called from several threads."""
        with self._lock:
            _write_all(self._journal, "\t".join((name, *sums)).encode() + b"\n")


@contextmanager
def write_unfinished(
    final: Path, recipe: Mapping[str, Any], files: Mapping[str, Sequence[str]], parts: str = "tiles"
) -> Iterator[ResumableFolder]:
    """Begin a folder, or go on with one that a stopped run left; put it in its place when the block ends well.

    A part of the earlier run is kept when the recipe is the same and its files have the checksums noted;
    whatever else lies in the folder is taken out. An error or a kill leaves the folder for the next run, and
    an older whole set in its place until then.

    Parameters
    ----------
    final : Path
        The tile set, or the map.
    recipe : mapping
        JSON values: all that shapes the parts.
    files : mapping
        Name of each part to the files it has.
    parts : str
        What the parts are called in messages.

    Yields
    ------
    Unfinished

    Raises
    ------
    InputError
        Another run is writing the same.
    """
    partial = unfinished_folder(final)
    partial.mkdir(parents=True, exist_ok=True)
    lock = os.open(partial / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(lock, partial)
        kept = _keep(partial, recipe, files, parts)
        write_json(partial / MARK, {"unfinished": str(final.name), **recipe})
        write_text(partial / JOURNAL, "".join("\t".join((name, *sums)) + "\n" for name, sums in kept.items()))
        journal = os.open(partial / JOURNAL, os.O_WRONLY | os.O_APPEND)
        try:
            yield ResumableFolder(partial, kept, journal)
        except BaseException:
            if not _read_journal(partial):
                shutil.rmtree(partial)  # nothing to go on with
            raise
        finally:
            os.close(journal)
        for name in (JOURNAL, LOCK, MARK):
            (partial / name).unlink()
        replace_folder(partial, final)
    finally:
        os.close(lock)


def _take(lock: int, partial: Path) -> None:
    """Lock the folder for this process; the system lets go of it however the process ends."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"Another run is writing {partial}.", "Wait for it to end, or choose another --workspace."
        ) from None
    except OSError as error:  # a file system without locks: as good as none held
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL):
            raise


def _keep(
    partial: Path, recipe: Mapping[str, Any], files: Mapping[str, Sequence[str]], parts: str
) -> dict[str, tuple[str, ...]]:
    """The finished and sound parts of an earlier run; all else in the folder is taken out."""
    noted = _read_journal(partial)
    kept: dict[str, tuple[str, ...]] = {}
    if noted and _read_mark(partial) != json.loads(json.dumps({"unfinished": partial.stem, **recipe})):
        log.warning(
            "%s holds %d %s of an unfinished run with other sources or options: they are discarded.",
            partial,
            len(noted),
            parts,
        )
    else:
        for name, sums in noted.items():
            paths = [partial / file for file in files.get(name, ())]
            if len(paths) == len(sums) and all(map(_is_sound, paths, sums)):
                kept[name] = sums
    stay = {partial / LOCK} | {partial / file for name in kept for file in files[name]}
    if kept:
        stay |= {partial / MARK, partial / JOURNAL}  # written anew in one step: a kill now loses nothing
    for path in partial.iterdir():
        if path.is_dir():
            for inner in path.iterdir():
                if inner not in stay:
                    _remove(inner)
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in stay:
            path.unlink()
    return kept


def _is_sound(path: Path, checksum: str) -> bool:
    return path.is_file() and sha256(path) == checksum


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _read_mark(partial: Path) -> Any:
    try:
        return json.loads((partial / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _read_journal(partial: Path) -> dict[str, tuple[str, ...]]:
    """Part to checksums; a last line that a kill cut short has no newline and does not count."""
    try:
        lines = (partial / JOURNAL).read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    except FileNotFoundError:
        return {}
    rows = [line.split("\t") for line in lines]
    return {name: tuple(sums) for name, *sums in rows}


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
