"""What a command writes: checked before it begins against what it reads, and locked until it ends."""

from __future__ import annotations

import errno
import json
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gravmap.errors import GravmapError, InputError

log = logging.getLogger(__name__)

# The errors of a file system that has no locks or cannot be written.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass
class _Lock:
    """A lock that this process holds.

    Attributes
    ----------
    file : Path, optional
        The lock file, and journal of the `outputs` written so far; None on a file system without locks.
    outputs : set of Path
        Files that the command writes.
    unfinished : list of dict
        Files that an earlier command had written when it was stopped, as :func:`_stamp` describes them.
    """

    file: Path | None
    outputs: set[Path] = field(default_factory=set)
    unfinished: list[dict[str, Any]] = field(default_factory=list)


_held: dict[Path, _Lock] = {}


def check_outputs(
    outputs: Iterable[Path],
    inputs: Iterable[Path | None] = (),
    overwrite: bool = False,
    *,
    folders: Iterable[Path] = (),
) -> None:
    """Check all files that a command will write, before it begins.

    Parameters
    ----------
    outputs : iterable of Path
        The files, sidecars too.
    inputs : iterable of Path or None
        Files and folders that the command reads; they are never replaced, not even with `overwrite`.
    overwrite : bool
        Existing outputs may be replaced.
    folders : iterable of Path
        Folders that are written or replaced as a whole; no input may lie in one.

    Raises
    ------
    InputError
        An output exists and `overwrite` is false, is an input, or is a folder where a file is needed or the reverse.
    GravmapError
        The folder of an output cannot be written.
    """
    outputs, folders = list(outputs), list(folders)
    read = [part for each in inputs if each is not None for part in _with_parts(each) if part.exists()]
    for path in outputs:
        for each in read:
            if path.exists() and path.samefile(each):
                raise InputError(
                    f"{path} is read by this command, and would be replaced by its result.",
                    "Give the result another name with -o.",
                )
    for folder in folders:
        for each in read:
            if folder.exists() and any(folder.samefile(place) for place in (each, *each.resolve().parents)):
                raise InputError(
                    f"{each} is read by this command, and lies in {folder}, which would be replaced.",
                    "Give the result another name, or move the file.",
                )
    # What GDAL wrote beside a raster that is gone is nobody's work.
    of_gdal = {sidecar for path in outputs for sidecar in sidecars(path)}
    for path in (*outputs, *folders):
        is_folder = path in folders
        if path.exists() and path.is_dir() != is_folder:
            found, needed = ("file", "folder") if is_folder else ("folder", "file")
            raise InputError(f"{path} is a {found}; a {needed} is needed.", "Give another name with -o.")
        if not overwrite and path not in of_gdal and path.exists() and not _is_unfinished(path):
            raise InputError(f"{path} exists already.", "Add --overwrite to replace it.")
        _check_permission(path)


def _with_parts(path: Path) -> list[Path]:
    """The file, and the other files of a shapefile."""
    if path.suffix.lower() != ".shp":
        return [path]
    return [path, *(path.with_suffix(suffix) for suffix in (".shx", ".dbf", ".prj", ".cpg"))]


def _check_permission(path: Path) -> None:
    """Raise an error if `path` cannot be written or replaced."""
    for place in path.absolute().parents:
        if place.is_dir():
            if not os.access(place, os.W_OK | os.X_OK):
                raise no_permission(place)
            return
        if place.exists():
            raise InputError(f"{place} is a file; a folder is needed.", "Give another name with -o.")


def no_permission(place: object) -> GravmapError:
    """The error of a file or folder that may not be written or read."""
    return GravmapError(
        f"No permission for {place}.", "Choose another --workspace or --output, or change the permissions."
    )


@contextmanager
def writing(
    outputs: Iterable[Path] = (),
    inputs: Iterable[Path | None] = (),
    overwrite: bool = False,
    *,
    folders: Iterable[Path] = (),
    lock: Path | None = None,
) -> Iterator[None]:
    """Context manager of a command that writes: :func:`check_outputs`, and a lock until the block ends.

    What the same command left when it failed or was killed does not count as existing: it may be replaced.

    Parameters
    ----------
    outputs, inputs, overwrite, folders
        As of :func:`check_outputs`.
    lock : Path, optional
        What to lock (:func:`locked`); by default the first folder or file.

    Raises
    ------
    InputError, GravmapError
        As of :func:`check_outputs`; or another command is writing the same.
    """
    outputs, folders, inputs = list(outputs), list(folders), list(inputs)
    check_outputs(outputs, inputs, True, folders=folders)  # what is refused whoever holds the lock
    with locked(lock or (*folders, *outputs)[0], outputs):
        check_outputs(outputs, inputs, overwrite, folders=folders)
        yield


@contextmanager
def locked(path: Path, outputs: Iterable[Path] = ()) -> Iterator[None]:
    """Hold the lock ``.NAME.lock`` beside `path` while it is read, changed and written.

    The kernel releases the lock of a killed process. On a file system without locks nothing is held.

    Parameters
    ----------
    path : Path
        The file or folder; need not exist.
    outputs : iterable of Path
        Files whose writing is noted in the lock file. After a failure or a kill it stays, so that the next command
        knows what an unfinished one wrote.

    Raises
    ------
    InputError
        The lock is held; the message says by which process, what it runs and since when.
    """
    key, named = _key(path), {_key(each) for each in outputs}
    written = named | {each for output in named for each in sidecars(output)}
    created = [place for place in (key.parent, *key.parent.parents) if not place.exists()]
    key.parent.mkdir(parents=True, exist_ok=True)
    lock = _acquire(key, path)
    held = _held[key] = _Lock(None if lock is None else Path(lock.lock_file), written)
    try:
        if held.file is not None:
            entries = map(_parse, held.file.read_text(encoding="utf-8", errors="replace").splitlines()[1:])
            held.unfinished = [entry for entry in entries if entry and _stamp(Path(str(entry.get("path")))) == entry]
            if named <= {Path(entry["path"]) for entry in held.unfinished}:
                held.unfinished = []  # all are there: only the end of that command is lacking
            try:
                held.file.write_text("".join(json.dumps(row) + "\n" for row in (_holder(), *held.unfinished)))
            except OSError as error:
                error.filename = str(path)  # a full disk names none
                raise
        yield
        with suppress(OSError):
            if held.file is not None:
                held.file.unlink()
    finally:
        del _held[key]
        if lock is not None:
            # Without files of a stopped command there is nothing to remember. The file is removed while it is locked:
            # a process that waits for it sees that it is gone, and makes a new one.
            with suppress(OSError):
                if len(Path(lock.lock_file).read_text(encoding="utf-8").splitlines()) < 2:
                    Path(lock.lock_file).unlink()
            lock.release()
        for place in created:
            with suppress(OSError):
                place.rmdir()  # fails where something was written


def _key(path: Path) -> Path:
    return path.parent.resolve() / path.name if path.name not in ("", "..") else path.resolve()


def _acquire(key: Path, path: Path) -> Any:
    """The lock of `key`, taken; None where the file system has none."""
    from filelock import FileLock, Timeout

    lock = FileLock(key.with_name(f".{key.name}.lock"), fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        try:
            first = Path(lock.lock_file).read_text(encoding="utf-8", errors="replace").partition("\n")[0]
        except OSError:
            first = ""
        holder = _parse(first) or {}
        where = "" if holder.get("host") == socket.gethostname() else f" on {holder.get('host')}"
        who = (
            f"process {holder['pid']}{where}, `{holder['command']}`, since {holder['since']}"
            if holder.keys() >= {"pid", "command", "since"}
            else "another process"
        )
        raise InputError(
            f"{path} is being written by another command: {who}.", "Wait until it ends, then run this command again."
        ) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        log.info("%s: no lock is available (%s); continuing without.", path, error)
        return None
    return lock


def _holder() -> dict[str, Any]:
    command = shlex.join([Path(sys.argv[0]).name or "python", *sys.argv[1:]])
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "host": socket.gethostname(), "command": command[:300], "since": since}


def _parse(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _stamp(path: Path, name: Path | None = None) -> dict[str, Any] | None:
    """What tells a file from another one of the same name; a rename keeps it. None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return {"path": str(name or path), "inode": status.st_ino, "bytes": status.st_size, "ns": status.st_mtime_ns}


def note(temporary: Path, path: Path) -> None:
    """Write into the journal of each lock that `path` is an output of what is about to get its name."""
    final = _key(path)
    for lock in _held.values():
        if lock.file is not None and final in lock.outputs:
            with lock.file.open("a", encoding="utf-8") as journal:
                journal.write(json.dumps(_stamp(temporary, final)) + "\n")


def _is_unfinished(path: Path) -> bool:
    """Whether a command that was stopped wrote this file, and may therefore replace it when it is run again."""
    stamp = _stamp(_key(path))
    return any(stamp in lock.unfinished for lock in _held.values())


def sidecars(path: Path) -> list[Path]:
    """Files that GDAL writes beside a raster: its name plus a suffix."""
    return [path.with_name(path.name + suffix) for suffix in (".aux.xml", ".msk", ".ovr")]
