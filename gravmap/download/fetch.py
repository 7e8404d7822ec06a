"""A named source -> verified files on disk.

A file has its own name in ``data/raw`` only when it is complete and has passed all checks. A source without a hash on
record is trusted on first use: its hash is kept in ``NAME.sha256`` beside it and checked from then on; the same file
holds a hash that the user accepted. A file of the right size with another hash is kept as ``NAME.unverified``, an
incomplete one as ``NAME.part``.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gravmap.download.present import Fetched, unpack, write_prj
from gravmap.download.sources import Source, SourceFile, check_content, public_address
from gravmap.download.transfer import WAITS_S, Transfer
from gravmap.errors import DownloadError
from gravmap.files import sha256, write_text
from gravmap.progress import Progress, silent

log = logging.getLogger(__name__)

# The errors of a file system that has no locks or cannot be written.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EROFS, errno.EACCES, errno.EPERM)


def fetch(
    source: Source,
    raw: Path,
    *,
    origin: str | None = None,
    offline: bool = False,
    accept_hash: bool = False,
    overwrite: bool = False,
    waits_s: tuple[float, ...] = WAITS_S,
    progress: Progress = silent,
) -> Fetched:
    """Bring all files of a source into `raw`, verified.

    Parameters
    ----------
    source : Source
        What to download.
    raw : Path
        The folder, ``data/raw`` of a workspace.
    origin : str, optional
        A file, a folder or a URL (of the file, or of a folder that mirrors it) to take the files from instead.
    offline : bool
        Only check the files that are present.
    accept_hash : bool
        Accept a file of the right size whose hash is not the one on record.
    overwrite : bool
        Download the files again although they are present.
    waits_s : tuple of float
        Seconds before the second, third ... of requests in a row that bring nothing new.
    progress : callable
        Receives bytes done and bytes in all.

    Raises
    ------
    DownloadError
        A file could not be downloaded or failed a check; no incomplete file has its own name.
    """
    paths, messages = tuple(raw / file.name for file in source.files), []
    with exclusive(raw, source.name):
        for file, path in zip(source.files, paths, strict=True):
            target = _Target(source.name, file, path, accept_hash)
            unverified = target.beside(".unverified")
            try:
                target.refuse_folders()
                if path.exists() and not overwrite:
                    messages.append(target.verify(path, "is there"))
                elif accept_hash and unverified.exists() and unverified.stat().st_size == file.bytes:
                    messages.append(target.verify(unverified, "was kept"))
                    unverified.replace(path)
                elif offline:
                    hint = "Run again without --offline, or give --from PATH."
                    raise DownloadError(f"{path} is missing, and --offline forbids downloading it.", hint)
                else:
                    part = target.beside(".part")
                    transfers = [Transfer(place, part, file, waits_s, progress) for place in file.addresses(origin)]
                    messages.append(_download_from_first(target, transfers))
            except DownloadError as error:
                own = f"download it yourself and run `gravmap fetch {source.name} --from PATH`"
                hint = error.hint or f"Try again later; or {own}; or {source.bring}."
                raise DownloadError(f"{source.name}: {error.message}", hint) from None
            if file.unpack:
                unpack(path)
        messages += write_prj(source, paths[0])
    return Fetched(source, paths, tuple(messages))


@dataclass(frozen=True)
class _Target:
    """Where a file of the source `owner` belongs, and which hashes it may have."""

    owner: str
    file: SourceFile
    path: Path
    accept_hash: bool

    def beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def refuse_folders(self) -> None:
        """Raise an error if a folder has a name that a file is to have."""
        for path in (self.path, *map(self.beside, (".part", ".part.json", ".unverified", ".sha256"))):
            if path.is_dir():
                raise DownloadError(f"{path} is a folder, and a file of this name is to be written.", "Move it away.")

    def hashes(self) -> list[str]:
        """The hash on record and the one kept beside the file, where there are any."""
        hashes, kept = [self.file.sha256] if self.file.sha256 else [], self.beside(".sha256")
        if not kept.exists():
            return hashes
        found = re.match(rb"\s*([0-9a-fA-F]{64})\b", kept.read_bytes())
        if found is None:
            raise DownloadError(
                f"{kept} does not begin with a SHA-256 (64 hexadecimal digits).",
                f"Delete it, and run `gravmap fetch {self.owner}` again to record the hash anew.",
            )
        return [*hashes, found[1].decode().lower()]

    def verify(self, came: Path, how: str) -> str:
        """Compare the hash of a file with those it may have. Returns what was done."""
        name, digest, hashes = self.path.name, sha256(came), self.hashes()
        if digest in hashes:
            return f"{name} {how} and verified (SHA-256)"
        if not hashes or (self.accept_hash and self.file.bytes in (None, came.stat().st_size)):
            # The format of sha256sum, so that `sha256sum -c` reads it.
            write_text(self.beside(".sha256"), f"{digest}  {name}\n")
            if hashes:
                return f"{name} {how} and accepted with SHA-256 {digest}, on record is {hashes[-1]}"
            return f"{name} {how}; no hash is on record, its own {digest} is kept and checked from now on"
        accept = f"gravmap fetch {self.owner} --accept-hash"
        if came == self.path:
            message = f"{came} has the SHA-256 {digest}, on record is {hashes[-1]}."
            raise DownloadError(message, f"Replace it with --overwrite, or accept it: {accept}")
        message = f"{name} has changed since it was first fetched: its SHA-256 is {digest}, then it was {hashes[-1]}."
        if self.file.sha256:
            kept = came.replace(self.beside(".unverified"))
            message = (
                f"{name} has the right size but the SHA-256 {digest}, on record is {self.file.sha256}. It may be a new"
                f" edition; it is kept as {kept.name}."
            )
        raise DownloadError(message, f"To accept it: {accept}")


def _download_from_first(target: _Target, transfers: list[Transfer]) -> str:
    """Download a file from the first address that has it. Returns what was done."""
    failures = []
    for transfer in transfers:
        try:
            return _download(target, transfer)
        except DownloadError as error:
            if error.hint:
                # Another address would not help: the disk is full, or the user must decide.
                raise
            failures.append(f"{public_address(transfer.address)}: {error.message}")
            log.info("%s", failures[-1])
    raise DownloadError(f"{target.path.name} could not be downloaded:\n  " + "\n  ".join(failures))


def _download(target: _Target, transfer: Transfer) -> str:
    joined, hashes = transfer.run(), target.hashes()
    if joined and hashes and sha256(transfer.part) not in hashes:
        # The parts may be of two versions of the file; in one piece it is what the server has.
        log.info("%s was joined from parts and is not right; downloading it in one piece.", target.path.name)
        transfer.discard()
        transfer.run()
    try:
        check_content(target.file, transfer.part)
        size = f"{transfer.part.stat().st_size / 1e6:.1f} MB"
        message = target.verify(transfer.part, f"fetched from {public_address(transfer.address)} ({size})")
        transfer.part.replace(target.path)
    finally:
        transfer.discard()
    return message


@contextmanager
def exclusive(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock ``.NAME.lock`` of a folder; wait, and report for whom, while another process holds it.

    The kernel releases the lock of a killed process. On a file system without locks nothing is held.
    """
    from filelock import FileLock, Timeout

    path = folder / f".{name}.lock"
    lock = FileLock(path, fallback_to_soft=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            with path.open("a+", encoding="utf-8") as stream:
                stream.seek(0)
                holder = stream.read().strip() or "another process"
            log.warning("%s is being fetched by %s; waiting for it to end.", name, holder)
            lock.acquire()
        path.write_text(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%H:%M:%S')}\n")
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        log.info("%s: no lock is available (%s); continuing without.", path, error.strerror)
    try:
        yield
    finally:
        if lock.is_locked:
            # Removed while it is held: a process that waits for it sees that the file is gone and makes a new one.
            path.unlink(missing_ok=True)
            lock.release()
