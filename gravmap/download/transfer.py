"""One address -> bytes in a partial file that a later run can resume.

The partial file of ``NAME`` is ``NAME.part``; ``NAME.part.json`` beside it records which version of the file it is a
part of: address, size, and the server's validator (a strong ETag, or Last-Modified). It is resumed only where the
server still has that version, so that two versions of a file are never joined.
"""

from __future__ import annotations

import errno
import itertools
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gravmap.download.sources import HEAD_BYTES, SourceFile, check_content, check_start, public_address, too_large
from gravmap.errors import DownloadError, InputError
from gravmap.files import write_json
from gravmap.progress import Progress, silent
from gravmap.records import read_record, record

if TYPE_CHECKING:
    from requests import Response

log = logging.getLogger(__name__)

WAITS_S = (1.0, 4.0, 15.0)
# No server may make us wait longer than this between two requests (Retry-After).
_LONGEST_WAIT_S = 60.0
# A server that sends a little each time is sent this many requests at most.
_MOST_REQUESTS = 200
# A wait that is longer is reported to the user.
_REPORTED_WAIT_S = 5.0
_CHUNK_BYTES = 1 << 16
_SPARE_BYTES = 64 << 20


class Interrupted(DownloadError):
    """A failure that may pass: the request is repeated, after `wait_s` seconds or more."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


@record
@dataclass(frozen=True)
class Version:
    """What distinguishes one version of a file from another: size in bytes, and the value for the header If-Range."""

    url: str
    total: int | None = None
    validator: str = ""

    def differs(self, other: Version) -> bool:
        """Whether this is certainly another version than `other`; what one of them lacks is not compared."""
        if self.url == other.url and self.validator and other.validator and self.validator != other.validator:
            return True
        return None not in (self.total, other.total) and self.total != other.total


@dataclass(frozen=True)
class Transfer:
    """A file from one address, a URL or a path on this machine, into a partial file.

    `waits_s` are the seconds before the second, third ... of requests in a row that bring nothing new.
    """

    address: str
    part: Path
    file: SourceFile
    waits_s: tuple[float, ...] = WAITS_S
    progress: Progress = silent
    timeout_s: float = 60.0

    @property
    def note(self) -> Path:
        """The record of what the partial file is a part of."""
        return self.part.with_name(self.part.name + ".json")

    @property
    def _recorded(self) -> str:
        """The address as it is written to the record, without a password."""
        return public_address(self.address)

    def discard(self) -> None:
        """Delete the partial file."""
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def run(self) -> bool:
        """Complete the partial file. Returns whether it was joined from more than one answer.

        A failure of the connection or of the server is retried after a pause, a plain refusal is not. The partial file
        stays where it can be resumed.
        """
        try:
            return self._request() if "://" in self.address else self._copy()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            hint = "Free some space and run the command again."
            raise DownloadError(f"the disk is full: {self.part}", hint) from None

    def _copy(self) -> bool:
        original = Path(self.address)
        if not original.is_file():
            raise DownloadError("no such file")
        check_content(self.file, original)
        self._check_disk(original.stat().st_size)
        # Without a note, so that a copy cut short by a kill is never resumed.
        self.note.unlink(missing_ok=True)
        if original.resolve() != self.part.resolve():
            shutil.copyfile(original, self.part)
        return False

    def _request(self) -> bool:
        """Send requests until the file is complete or they bring nothing new."""
        have = most = self._kept()[1]
        self._check_disk((self.file.bytes or have) - have)
        failures = 0
        for requests in range(1, _MOST_REQUESTS + 1):  # noqa: B007
            try:
                return self._request_rest()
            except Interrupted as error:
                trouble = error
            have = self._kept()[1]
            # Compared with the most that was ever there: a file that keeps changing on the server makes no progress.
            failures = 0 if have > most else failures + 1
            most = max(most, have)
            if failures > len(self.waits_s) or not self.waits_s:
                break
            wait_s = max(self.waits_s[max(failures - 1, 0)], trouble.wait_s)
            level = logging.WARNING if wait_s > _REPORTED_WAIT_S else logging.INFO
            address = public_address(self.address)
            log.log(level, "%s: %s; trying again in %.0f s.", address, trouble.message, wait_s)
            time.sleep(wait_s)
        kept = f"; {have / 1e6:.1f} MB are kept, the next run resumes there" if have else ""
        raise DownloadError(f"{trouble.message} ({requests} {'try' if requests == 1 else 'tries'}){kept}")

    def _kept(self) -> tuple[Version, int]:
        """The version and the number of bytes of a partial file that can be resumed."""
        try:
            have = self.part.stat().st_size
            version = read_record(self.note, Version)
        except (OSError, InputError):
            return Version(self._recorded), 0
        same = version.url == self._recorded and version.validator
        # From another server, or one without validators, only where the hash on record will show whether the parts fit.
        hashed = self.file.sha256 is not None and version.total is not None and version.total == self.file.bytes
        fits = (same or hashed) and (version.total is None or have <= version.total)
        return (version, have) if fits else (Version(self._recorded), 0)

    def _request_rest(self) -> bool:
        """Send one request for what is missing. Returns whether a partial file was resumed."""
        kept, have = self._kept()
        if have and have == kept.total:
            return True
        # A body compressed on the way would have other bytes than the file.
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if kept.validator and kept.url == self._recorded:
                headers["If-Range"] = kept.validator
        with self._open(headers) as response:
            answer = response.headers
            compressed = answer.get("Content-Encoding", "identity").lower() not in ("", "identity")
            span, size = answer.get("Content-Range", ""), answer.get("Content-Length", "")
            if response.status_code == 206:
                size = span.rpartition("/")[2]
            etag = answer.get("ETag", "")
            validator = etag if etag and not etag.startswith("W/") else answer.get("Last-Modified", "")
            known = size.isascii() and size.isdigit() and len(size) < 20 and not compressed
            version = Version(self._recorded, int(size) if known else None, validator)
            if response.status_code == 200:
                have = 0
            elif not span.startswith(f"bytes {have}-") or compressed or kept.differs(version):
                # The server has no such part any more, sent another part, or ignores If-Range.
                self.discard()
                raise Interrupted("the file has changed on the server")
            self._receive(response, version, have)
        return have > 0

    def _open(self, headers: dict[str, str]) -> Response:
        """Send a request; the answer has the status 200, 206, or 416 to a request for a part."""
        import requests
        from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema
        from urllib3.exceptions import InvalidHeader, NameResolutionError
        from urllib3.util import Retry

        try:
            response = requests.get(self.address, headers=headers, stream=True, timeout=self.timeout_s)
        except requests.Timeout:
            raise Interrupted(f"the server did not answer within {self.timeout_s:g} s") from None
        except requests.ConnectionError as error:
            if isinstance(getattr(next(iter(error.args), None), "reason", None), NameResolutionError):
                # Offline, waiting does not help, and there are several addresses to try.
                raise DownloadError("the server's name cannot be resolved (offline?)") from None
            raise Interrupted("no connection to the server") from None
        except requests.TooManyRedirects:
            raise DownloadError("the server redirects in a circle") from None
        except (requests.RequestException, ValueError) as error:
            # A plain ValueError is urllib3's or a codec's, of a host name; requests does not wrap it after a redirect.
            known = isinstance(error, requests.RequestException)
            if known and not isinstance(error, (InvalidURL, InvalidSchema, MissingSchema)):
                raise DownloadError(f"the request failed: {type(error).__name__}") from None
            raise DownloadError("the address, or the one that the server redirects to, is not valid") from None
        status = response.status_code
        if status in (200, 206) or (status == 416 and "Range" in headers):
            return response
        response.close()
        reason = f"the server answers {status} {response.reason or ''}".rstrip()
        if status in (408, 425, 429) or status >= 500:
            wait_s = 0.0
            with suppress(InvalidHeader, ValueError, OverflowError):
                # In seconds, or as a date, which may be out of range.
                wait_s = Retry().parse_retry_after(response.headers.get("Retry-After", ""))
            raise Interrupted(reason, min(wait_s, _LONGEST_WAIT_S))
        raise DownloadError(reason)

    def _chunks(self, response: Response) -> Iterator[bytes]:
        """The body, down to the last byte that came before the connection broke off."""
        from urllib3.exceptions import HTTPError, ReadTimeoutError

        try:
            # read1 returns what has come; read would lose what does not fill its buffer when the connection breaks off.
            while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
                yield chunk
        except ReadTimeoutError:
            raise Interrupted(f"the server was silent for {self.timeout_s:g} s") from None
        except (HTTPError, OSError):
            raise Interrupted("the connection broke off") from None

    def _receive(self, response: Response, version: Version, have: int) -> None:
        """Append an answer to the `have` bytes that are there."""
        body, head = self._chunks(response), b""
        if have == 0:
            while len(head) < HEAD_BYTES and (chunk := next(body, b"")):
                head += chunk
            begins = head and any(bytes.fromhex(magic).startswith(head) for magic in self.file.magic)
            if begins and version.total is None and len(head) < (self.file.bytes or HEAD_BYTES):
                # Nothing but the first bytes, right so far: not yet what can be judged.
                raise Interrupted("the connection broke off")
            # Before anything is written: a web page leaves an older partial file as it is.
            try:
                check_start(self.file, head, version.total)
            except DownloadError as error:
                leads_to = public_address(response.url)
                target = f" (it leads to {leads_to})" if leads_to != self._recorded else ""
                raise DownloadError(error.message + target) from None
        self._check_disk((version.total or have) - have)
        if have == 0:
            # Emptied before the note names another version: a kill in between joins nothing.
            self.part.write_bytes(b"")
        write_json(self.note, asdict(version))
        with self.part.open("ab", buffering=0) as stream:
            for chunk in itertools.chain([head] if head else [], body):
                have += len(chunk)
                if have > self.file.most_bytes:
                    # The server did not announce the size, or announced another.
                    self.discard()
                    raise too_large(self.file, have)
                stream.write(chunk)
                self.progress(have, version.total or 0, self.file.name)
        if version.total is None and self.file.bytes is not None and have < self.file.bytes:
            # An answer that does not announce its size ends where the connection does.
            raise Interrupted("the connection broke off")

    def _check_disk(self, needed: int) -> None:
        """Refuse to begin what will not fit."""
        folder = self.part.parent
        free = shutil.disk_usage(folder).free
        if free < needed + _SPARE_BYTES:
            raise DownloadError(
                f"{self.file.name} needs {needed / 1e6:.0f} MB more and {folder} has {free / 1e6:.0f} MB left.",
                "Free some space, or choose another --workspace.",
            )
