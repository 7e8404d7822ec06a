"""Files that are either whole or not there: atomic writes, hashes, and the refusal to overwrite."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gravmap.errors import GravmapError, InputError

PARTIAL = ".partial-"
FULL_BELOW_BYTES = 1 << 17  # a file system that has no more than this is full for any file of ours


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise InputError when `path` exists and may not be replaced.

    Raises
    ------
    InputError
        `path` exists and `overwrite` is false.
    """
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already.", "Add --overwrite to replace it.")


def _sidecars(path: Path) -> list[Path]:
    """Files GDAL writes beside a raster under the raster's own name plus a suffix."""
    return [path.with_name(path.name + suffix) for suffix in (".aux.xml", ".msk", ".ovr")]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; rename it to `path` when the block ends well.

    The temporary name keeps the suffix (drivers choose the format by it). A raised error or a kill
    leaves the old file, or none; GDAL sidecars (``.aux.xml``) travel with the file.

    Parameters
    ----------
    path : Path
        The file to write. Its folder is made when missing.

    Yields
    ------
    Path
        Where to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # What a killed run left under our own naming is rubbish by definition, unless its writer lives.
    # A name without suffix would otherwise give "**", which is no pattern.
    for stale in path.parent.glob(f".{path.stem}{PARTIAL}*{path.suffix}*".replace("**", "*")):
        if not _writer_lives(stale):
            stale.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.stem}{PARTIAL}{os.getpid()}{path.suffix}")
    try:
        with reporting_full_disk(path):
            yield temporary
        for partial, final in zip(_sidecars(temporary), _sidecars(path), strict=True):
            # A sidecar of the replaced file would describe the new one wrongly.
            if partial.exists():
                os.replace(partial, final)
            else:
                final.unlink(missing_ok=True)
        os.replace(temporary, path)
    finally:
        for leftover in (temporary, *_sidecars(temporary)):
            leftover.unlink(missing_ok=True)


def _writer_lives(partial: Path) -> bool:
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
    """Say that the disk is full when that is why writing failed: netCDF, HDF5 and GDAL call it many names."""
    try:
        yield
    except GravmapError:
        raise
    except Exception as error:
        # Asked before the half-written file is taken away again.
        if shutil.disk_usage(path.parent).free >= FULL_BELOW_BYTES:
            raise
        raise GravmapError(
            f"The disk is full: {path} could not be written.",
            "Free some space and run the command again; finished files are kept.",
        ) from error


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; put it in the place of `path` when the block ends well.

    Parameters
    ----------
    path : Path
        The folder to write; an existing one is replaced whole.

    Yields
    ------
    Path
        An empty folder to fill.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".{path.name}{PARTIAL}*"):
        if not _writer_lives(stale):
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
    """Put the folder `new` in the place of `path`; an existing one goes when the new one stands there."""
    for stale in path.parent.glob(f".{path.name}.old{PARTIAL}*"):
        if not _writer_lives(stale):
            shutil.rmtree(stale, ignore_errors=True)
    if not path.exists():
        os.replace(new, path)
        return
    # Two renames: a folder cannot be replaced in one.
    old = path.with_name(f".{path.name}.old{PARTIAL}{os.getpid()}")
    os.replace(path, old)
    try:
        os.replace(new, path)
    except OSError:
        os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_disk_space(folder: Path, needed_bytes: int, what: str, hint: str) -> None:
    """Refuse to begin what the disk cannot hold.

    Parameters
    ----------
    folder : Path
        What is to be written, or lies beside it.
    needed_bytes : int
        How much it takes.
    what, hint : str
        For the message: "The tiles take", and what to do.

    Raises
    ------
    GravmapError
        Less is free where `folder` would lie.
    """
    where = folder.absolute()
    while not where.exists():
        where = where.parent
    free = shutil.disk_usage(where).free
    if free < needed_bytes:
        raise GravmapError(f"{what} up to {_size(needed_bytes)} and {where} has {_size(free)} free.", hint)


def _size(count: float) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 5e8 else f"{count / 1e6:.1f} MB"


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, made_by: str) -> Any:
    """Read a JSON file.

    Parameters
    ----------
    path : Path
        The file.
    made_by : str
        The command that makes it, for the error message.

    Raises
    ------
    InputError
        The file is missing or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing.", f"`{made_by}` makes it.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is no readable JSON: {error}.", f"`{made_by}` makes it anew.") from None


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
