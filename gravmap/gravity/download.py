"""Bytes from one address into a partial file that a later run can go on with.

The partial of ``NAME`` is ``NAME.part``; ``NAME.part.json`` beside it says which file it is a part of: address, size,
and the server's mark of the version (ETag, Last-Modified). It is gone on with only when the server still has that
version, so a file that has changed in between is never glued to it.
"""

from __future__ import annotations

import errno
import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gravmap.errors import DownloadError
from gravmap.files import write_json
from gravmap.gravity.body import check_size
from gravmap.gravity.server import (
    AskAgain,
    RangeRefused,
    Remote,
    chunks,
    content_range,
    number,
    packed,
    redirected,
    request,
    whole,
)
from gravmap.progress import Progress

if TYPE_CHECKING:
    from requests import Response

log = logging.getLogger(__name__)

# Seconds to wait before the second, third ... try that brings nothing new.
BACK_OFF_S = (1.0, 4.0, 15.0)
# A server that brings a little each time is asked again this often at most.
MOST_TRIES = 200
_SPARE_BYTES = 64 << 20


@dataclass(frozen=True)
class Job:
    """What is to be got.

    Attributes
    ----------
    url : str
        From where.
    part : Path
        Where the partial lies.
    expected : int or None
        Size of the whole file on record.
    hashed : bool
        Whether the whole is checked by a hash on record afterwards; then a partial may be gone on with from a mirror.
    look : callable
        Given the first bytes of the file; raises DownloadError when it cannot be the right one.
    span : (int, int), optional
        Only these bytes, first and end; the whole file by default.
    like : Remote, optional
        The version that the span must be of.
    """

    url: str
    part: Path
    expected: int | None = None
    hashed: bool = False
    look: Callable[[bytes], None] = lambda head: None
    span: tuple[int, int] | None = None
    like: Remote | None = None

    @property
    def note(self) -> Path:
        """Where it is written what the partial is a part of."""
        return self.part.with_name(self.part.name + ".json")

    def forget(self) -> None:
        """Throw the partial away."""
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """The name of a file that is not whole yet."""
    return path.with_name(path.name + ".part")


def check_disk(folder: Path, needed: int, name: str) -> None:
    """Refuse to begin what will not fit.

    Raises
    ------
    DownloadError
        Says how much is needed and how much there is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE_BYTES:
        raise DownloadError(
            f"{name} needs {needed / 1e6:.0f} MB more and {folder} has {free / 1e6:.0f} MB left.",
            "Free some space, or choose another --workspace.",
        )


def download(job: Job, progress: Progress) -> bool:
    """Bring ``job.part`` to its full length; what a broken connection or an earlier run left is gone on with.

    Trouble with the connection or in the server is tried again after a pause; a plain no is not. As long as each try
    brings something new, no try counts as lost.

    Returns
    -------
    bool
        Whether the file was put together from more than one answer.

    Raises
    ------
    DownloadError
        It could not be had. The partial stays when it is of use.
    RangeRefused
        A span was asked for and the server does not give parts.
    """
    lost = 0
    for tries in range(1, MOST_TRIES + 1):  # noqa: B007
        before = _left(job)[1]
        try:
            return _once(job, progress)
        except AskAgain as trouble:
            reason, wait_s = str(trouble), trouble.wait_s
        kept = _left(job)[1]
        lost = 0 if kept > before else lost + 1
        if lost > len(BACK_OFF_S) or not BACK_OFF_S:
            break
        log.info("%s: %s; trying again.", job.url, reason)
        time.sleep(max(BACK_OFF_S[max(lost - 1, 0)], wait_s))
    there = f"; {kept / 1e6:.1f} MB are kept, the next run goes on from there" if kept else ""
    raise DownloadError(f"{reason} ({tries} {'try' if tries == 1 else 'tries'}){there}")


def ask(url: str, first: int, end: int) -> tuple[bytes, Remote]:
    """A few bytes of a file, first and end, and which version they are of.

    Raises
    ------
    RangeRefused
        The server does not give parts; nothing is read of the whole that it offers.
    DownloadError
        It cannot be had.
    """
    for pause in (*BACK_OFF_S, None):
        try:
            with request(url, {"Range": f"bytes={first}-{end - 1}"}) as response:
                if response.status_code != 206:
                    raise RangeRefused
                begin, remote = content_range(response, url)
                if begin != first or remote.total is None:
                    raise RangeRefused
                wanted, body = min(end, remote.total) - first, b""
                for chunk in chunks(response):
                    body += chunk
                    if len(body) >= wanted:
                        return body[:wanted], remote
                raise AskAgain("the connection broke off")
        except AskAgain as trouble:
            if pause is None:
                raise DownloadError(f"{trouble} ({len(BACK_OFF_S) + 1} tries)") from None
            time.sleep(max(pause, trouble.wait_s))
    raise AssertionError("the last pause is None")


def _once(job: Job, progress: Progress) -> bool:
    """One request. Returns whether it went on with what was there."""
    note, have = _left(job)
    first, end = job.span or (0, note.total)
    if have and end is not None and have == end - first:
        return True
    headers = {}
    if have or job.span:
        headers["Range"] = f"bytes={first + have}-{'' if job.span is None else job.span[1] - 1}"
    if have and note.validator and note.url == job.url:
        headers["If-Range"] = note.validator
    with request(job.url, headers) as response:
        if response.status_code == 416 and have:
            job.forget()
            raise AskAgain("the server has no such part any more")
        if response.status_code != 206:
            if job.span:
                raise RangeRefused
            have = 0
            remote = whole(response, job.url)
        else:
            begin, remote = content_range(response, job.url)
            other_version = have > 0 and note.differs(remote if note.url == job.url else Remote("", remote.total))
            if begin != first + have or other_version or packed(response):
                # It ignores If-Range, or another part came than was asked for.
                job.forget()
                if not have:
                    raise RangeRefused
                raise AskAgain("the file has changed on the server")
            if job.like is not None and job.like.differs(remote):
                job.forget()
                raise DownloadError("the file has changed on the server while it was fetched", "Run the command again.")
        _receive(job, response, remote, have, progress)
    return have > 0


def _receive(job: Job, response: Response, remote: Remote, have: int, progress: Progress) -> None:
    """Write an answer behind the `have` bytes that are there."""
    length = None if packed(response) else number(response.headers.get("Content-Length"))
    name = job.part.name.removesuffix(".part")
    body = chunks(response)
    head = next(body, b"")
    if not head and length:
        raise AskAgain("the connection broke off")
    if have == 0 and not (job.span and job.span[0]):
        # Before anything is written: a page of another kind leaves what is there as it is.
        try:
            job.look(head)
        except DownloadError as error:
            raise DownloadError(f"{error.message}{redirected(response, job.url)}") from None
    if job.span is None and remote.total is not None:
        try:
            check_size(remote.total, job.expected)
        except DownloadError:
            job.forget()
            raise
    total = job.span[1] - job.span[0] if job.span else remote.total
    check_disk(job.part.parent, (total or have) - have, name)
    if have == 0:
        # Emptied before the note speaks of another file: a kill between the two glues nothing.
        job.part.write_bytes(b"")
    write_json(job.note, asdict(remote) | {"span": job.span})
    got = 0
    try:
        with job.part.open("ab", buffering=0) as stream:
            while head:
                stream.write(head)
                got += len(head)
                progress(have + got, total or 0, name)
                head = next(body, b"")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DownloadError(f"the disk is full: {job.part}", "Free some space and run the command again.") from None
        raise
    # urllib3 2 says so itself; older ones end quietly.
    if length is not None and got < length:
        raise AskAgain("the connection broke off")


def _left(job: Job) -> tuple[Remote, int]:
    """What an earlier try left that can be gone on with: which version, and how many bytes."""
    have, fits = _size(job.part), False
    note = Remote(job.url)
    if have:
        try:
            table: dict[str, Any] = json.loads(job.note.read_text(encoding="utf-8"))
            span = table.pop("span")
            note = Remote(**table)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            span = "unknown"
        if span == (list(job.span) if job.span else None):
            same = note.url == job.url and bool(note.validator)
            fits = same or (job.hashed and note.total is not None and note.total == job.expected)
        if job.like is not None and job.like.differs(replace(note, url="")):
            fits = False
        end = (job.span[1] - job.span[0]) if job.span else note.total
        fits = fits and (end is None or have <= end)
    return (note, have) if fits else (Remote(job.url), 0)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
