"""One run at a time: a second one waits for the first and says whom it waits for."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

# What file systems answer that know no locks or may not be written.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def only_one(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock ``.NAME.lock`` of a folder; wait while another process holds it.

    The kernel holds the lock for as long as the process lives, so that of a killed process is free at once.

    Parameters
    ----------
    folder : Path
        Made when missing.
    name : str
        What is done by one process at a time.
    """
    import fcntl

    path = folder / f".{name}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _acquire(path, name)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        log.info("%s: no lock can be had (%s); going on without.", path, error.strerror)
        yield
        return
    try:
        yield
    finally:
        # Removed while it is held: whoever waits for it sees that the file is gone and makes a new one.
        path.unlink(missing_ok=True)
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _acquire(path: Path, name: str) -> int:
    import fcntl

    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(handle, 200, 0).decode("utf-8", "replace").strip() or "another process"
                log.warning("%s is being fetched by %s; waiting for it to end.", name, holder)
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_the_file(handle, path):
                os.ftruncate(handle, 0)
                since = time.strftime("%H:%M:%S")
                os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode(), 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_the_file(handle: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    own = os.fstat(handle)
    return (there.st_ino, there.st_dev) == (own.st_ino, own.st_dev)
