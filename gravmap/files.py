"""Atomic writing of files and folders, hashes, and checks of free disk space and memory."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gravmap.errors import DeviceError, GravmapError, InputError
from gravmap.outputs import note, sidecars

PARTIAL = ".partial-"
# Less than this is not compared with the memory.
_MEMORY_UNCHECKED_BYTES = 1 << 26
# Limits of the memory of a container (cgroups 2 and 1), which may have less than its machine.
_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
FULL_BELOW_BYTES = 1 << 17  # with less free space than this a disk is reported as full


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Context manager for atomic writing: a temporary path in the same folder, renamed to `path` on success.

    The temporary name has the same suffix, by which drivers choose the format. After an exception or a killed process
    the old file, if any, is unchanged. GDAL sidecar files (``.aux.xml``) are moved after the file.

    Parameters
    ----------
    path : Path
        The file to write. Its folder is created if necessary.

    Yields
    ------
    Path
        The temporary path to write to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Remove temporary files of killed processes. A name without suffix would otherwise give "**", an invalid pattern.
    for stale in path.parent.glob(f".{path.stem}{PARTIAL}*{path.suffix}*".replace("**", "*")):
        if not _writer_is_running(stale):
            stale.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.stem}{PARTIAL}{os.getpid()}{path.suffix}")
    try:
        with reporting_full_disk(path):
            yield temporary
            beside = [pair for pair in zip(sidecars(temporary), sidecars(path), strict=True) if pair[0].exists()]
            for new, final in ((temporary, path), *beside):
                note(new, final)
        for final in sidecars(path):
            # First of all: a sidecar of the replaced file does not describe the new one.
            final.unlink(missing_ok=True)
        os.replace(temporary, path)
        for new, final in beside:
            os.replace(new, final)
    finally:
        for leftover in (temporary, *sidecars(temporary)):
            leftover.unlink(missing_ok=True)


def _writer_is_running(partial: Path) -> bool:
    digits = partial.name.split(PARTIAL)[-1].split(".")[0]
    if not digits.isdigit():
        return False
    try:
        os.kill(int(digits), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def reporting_full_disk(path: Path) -> Iterator[None]:
    """Raise an error that says the disk is full if writing failed for that reason; drivers report it in many ways."""
    try:
        yield
    except GravmapError:
        raise
    except Exception as error:
        # Free space is read before the incomplete file is removed.
        if not says_full_disk(error) and shutil.disk_usage(path.parent).free >= FULL_BELOW_BYTES:
            raise
        raise full_disk(path) from error


def says_full_disk(error: BaseException) -> bool:
    """Whether an error is that of a full disk: by its number, or by the system's text in it (safetensors)."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return os.strerror(errno.ENOSPC) in str(error) or f"os error {errno.EDQUOT}" in str(error)


def full_disk(path: object) -> GravmapError:
    """The error of a file that a full disk has no room for."""
    return GravmapError(
        f"The disk is full: {path} could not be written.",
        "Free some space and run the command again; finished files are kept.",
    )


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Context manager for atomic writing of a folder: a temporary folder, renamed to `path` on success.

    Parameters
    ----------
    path : Path
        The folder to write; an existing one is replaced.

    Yields
    ------
    Path
        An empty folder to fill.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".{path.name}{PARTIAL}*"):
        if not _writer_is_running(stale):
            shutil.rmtree(stale, ignore_errors=True)
    temporary = path.with_name(f".{path.name}{PARTIAL}{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with reporting_full_disk(path):
            yield temporary
        replace_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(new: Path, path: Path) -> None:
    """Rename the folder `new` to `path`; an existing one is removed after the new one is in place."""
    old = path.with_name(f".{path.name}.old{PARTIAL}{os.getpid()}")
    if not path.exists():
        os.replace(new, path)
    elif _exchange(new, path):
        os.replace(new, old)
    else:
        # Two renames: a kill between them leaves the old folder under its temporary name.
        os.replace(path, old)
        try:
            os.replace(new, path)
        except OSError:
            os.replace(old, path)
            raise
    for stale in (old, *path.parent.glob(f".{path.name}.old{PARTIAL}*")):
        if stale == old or not _writer_is_running(stale):
            shutil.rmtree(stale, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder, which loses its name first: what is left after a kill is not taken for a whole one."""
    if path.exists():
        old = path.with_name(f".{path.name}.old{PARTIAL}{os.getpid()}")
        os.replace(path, old)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(new: Path, path: Path) -> bool:
    """Exchange the names of two folders at once; False where the system cannot."""
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    return bool(rename(here, os.fsencode(new), here, os.fsencode(path), exchange) == 0)


def check_disk_space(folder: Path, needed_bytes: int, what: str, hint: str) -> None:
    """Raise an error if the disk has not enough free space.

    Parameters
    ----------
    folder : Path
        A path on the disk; need not exist.
    needed_bytes : int
        Space needed.
    what, hint : str
        For the message: "The tiles take", and what to do.

    Raises
    ------
    GravmapError
        Less space is free on the disk of `folder`.
    """
    where = folder.absolute()
    while not where.exists():
        where = where.parent
    free = shutil.disk_usage(where).free
    if free < needed_bytes:
        raise GravmapError(f"{what} up to {_size(needed_bytes)} and {where} has {_size(free)} free.", hint)


def check_memory(needed_bytes: int, what: str, hint: str) -> None:
    """Raise an error if the memory is too small for an array, before it is allocated.

    Parameters
    ----------
    needed_bytes : int
        Memory needed.
    what, hint : str
        For the message: "The grid takes", and what to do.

    Raises
    ------
    DeviceError
        Less memory is available.
    """
    if needed_bytes < _MEMORY_UNCHECKED_BYTES:
        return
    free = _available_memory()
    if needed_bytes > free:
        raise DeviceError(f"{what} {_size(needed_bytes)} of memory, and {_size(free)} are available.", hint)


def _available_memory() -> float:
    """Bytes that can be allocated without swapping; all of the memory where the system does not say."""
    free = math.inf
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        if hasattr(os, "sysconf"):
            free = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in _CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # not in a container, or "max"
            free = min(free, float(Path(limit).read_text(encoding="ascii")))
    return free


def _size(count: float) -> str:
    """Number of bytes as text."""
    return f"{count / 1e9:.1f} GB" if count >= 5e8 else f"{count / 1e6:.1f} MB"


def set_default_mode(path: Path) -> None:
    """Give a file the permissions that a new file has."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_text(value: Any) -> str:
    """`value` as the indented JSON that :func:`write_json` writes."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, atomically."""
    write_text(path, json_text(value))


def write_checksummed_json(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write `record` as JSON that holds its own SHA-256, so that a later change of the file is noticed.

    The checksum is that of the text with 64 zeros in its place.

    Returns
    -------
    dict
        The record as written: with ``record_sha256``.
    """
    text = json_text({"record_sha256": _NO_SUM, **record} | {"record_sha256": _NO_SUM})
    own = _own_sum(text)
    write_text(path, _OWN_SUM.sub(rf"\g<1>{own}\g<3>", text, count=1))
    return {"record_sha256": own, **record} | {"record_sha256": own}


def is_untouched(path: Path) -> bool | None:
    """Whether a file of :func:`write_checksummed_json` is as it was written; None if it holds no checksum."""
    text = path.read_bytes().decode("utf-8", errors="replace")
    stated = _OWN_SUM.search(text)
    return None if stated is None else stated[2] == _own_sum(text)


def refuse_edited(path: Path, hint: str, *, required: bool) -> None:
    """Raise InputError if a file of :func:`write_checksummed_json` was changed.

    Parameters
    ----------
    path : Path
        The file.
    hint : str
        For the message.
    required : bool
        Whether the file must hold a checksum; those of earlier versions of gravmap do not.

    Raises
    ------
    InputError
        The file is not as it was written.
    """
    untouched = is_untouched(path)
    if untouched is False or (untouched is None and required):
        raise InputError(f"{path} was changed after it was written: its own checksum does not fit.", hint)


_OWN_SUM = re.compile(r'("record_sha256": ")([0-9a-f]{64})(")')
_NO_SUM = "0" * 64


def _own_sum(text: str) -> str:
    return hashlib.sha256(_OWN_SUM.sub(rf"\g<1>{_NO_SUM}\g<3>", text, count=1).encode()).hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
