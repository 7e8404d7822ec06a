"""One question to a server and what its answer says: which version of a file, which bytes, whether to ask again."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gravmap.errors import DownloadError

if TYPE_CHECKING:
    from requests import Response

TIMEOUT_S = 60.0
# No server may make us wait longer than this between two tries (Retry-After).
_LONGEST_WAIT_S = 60.0
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Remote:
    """What a server says of a file: enough to tell one version from another.

    Attributes
    ----------
    url : str
        Where it was asked for.
    total : int or None
        Size in bytes.
    etag, modified : str
        The headers ETag and Last-Modified, empty where not sent.
    """

    url: str
    total: int | None = None
    etag: str = ""
    modified: str = ""

    @property
    def validator(self) -> str:
        """What If-Range may be asked with: a strong ETag or a date."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def differs(self, other: Remote) -> bool:
        """Whether two answers are certainly not of one version; what one of them does not say is not compared."""
        pairs = ((self.total, other.total), (self.etag, other.etag), (self.modified, other.modified))
        return any(one and two and one != two for one, two in pairs)


class RangeRefused(Exception):
    """The server gives whole files only."""


class AskAgain(Exception):
    """Trouble that may pass; the argument says what."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def request(url: str, headers: dict[str, str]) -> Response:
    """Ask; trouble that may pass raises AskAgain, a plain no DownloadError."""
    import requests

    try:
        # Asked for as it is: a body packed on the way would have other bytes than the file.
        response = requests.get(url, headers={"Accept-Encoding": "identity", **headers}, stream=True, timeout=TIMEOUT_S)
    except requests.Timeout:
        raise AskAgain(f"the server did not answer within {TIMEOUT_S:.0f} s") from None
    except requests.ConnectionError:
        raise AskAgain("no connection to the server") from None
    except requests.RequestException as error:
        raise DownloadError(f"the address cannot be asked: {type(error).__name__}") from None
    status = response.status_code
    if status in (200, 206) or (status == 416 and "Range" in headers):
        return response
    response.close()
    reason = f"the server answers {status} {response.reason or ''}".rstrip()
    if status in (408, 425, 429) or status >= 500:
        raise AskAgain(reason, _retry_after(response.headers.get("Retry-After", "")))
    raise DownloadError(reason)


def chunks(response: Response) -> Iterator[bytes]:
    """The body, piece by piece, down to the last byte that came; a break-off raises AskAgain."""
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    # read1 gives what has come; read would keep back what does not fill its buffer when the connection breaks.
    read = getattr(response.raw, "read1", response.raw.read)
    try:
        while chunk := read(_CHUNK, decode_content=True):
            yield chunk
    except ReadTimeoutError:
        raise AskAgain(f"the server fell silent for {TIMEOUT_S:g} s") from None
    except (HTTPError, OSError):
        raise AskAgain("the connection broke off") from None


def whole(response: Response, url: str) -> Remote:
    """What an answer with the whole file (status 200) says of it."""
    total = None if packed(response) else number(response.headers.get("Content-Length"))
    return Remote(url, total, response.headers.get("ETag", ""), response.headers.get("Last-Modified", ""))


def content_range(response: Response, url: str) -> tuple[int, Remote]:
    """The first byte of a part (status 206; -1 when it is not said), and what the answer says of the file."""
    match = re.match(r"bytes\s+(\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
    if match is None:
        return -1, Remote(url)
    total = None if match[3] == "*" else int(match[3])
    marks = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
    return int(match[1]), Remote(url, total, *marks)


def packed(response: Response) -> bool:
    """Whether the body is compressed on the way, so that its length is not the file's."""
    return response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity")


def redirected(response: Response, url: str) -> str:
    """Where the address has led to, in brackets; empty where it led nowhere else."""
    return f" (it leads to {response.url})" if response.url != url else ""


def _retry_after(text: str) -> float:
    """Seconds that a server asks to wait, given as seconds or as a date."""
    if text.strip().isdigit():
        return min(float(text), _LONGEST_WAIT_S)
    moment = email.utils.parsedate_tz(text)
    return 0.0 if moment is None else min(max(email.utils.mktime_tz(moment) - time.time(), 0.0), _LONGEST_WAIT_S)


def number(text: str | None) -> int | None:
    """A header's whole number, None where there is none."""
    return int(text) if text is not None and text.isdigit() else None
