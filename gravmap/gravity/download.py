"""One file from one address, and whether what came can be it."""

from __future__ import annotations

import logging
import time
import zipfile
from pathlib import Path

from gravmap.errors import DownloadError
from gravmap.gravity.sources import SourceFile
from gravmap.progress import Progress

log = logging.getLogger(__name__)

# Seconds to wait before the second and the third try.
BACK_OFF_S = (1.0, 4.0)
TIMEOUT_S = 60.0


def check_body(file: SourceFile, path: Path) -> None:
    """Refuse a web page, a body that begins wrongly, a wrong size."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(512)
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        raise DownloadError("a web page came instead of the file")
    if file.bytes is not None and size != file.bytes:
        kind = "the file was cut short" if size < file.bytes else "too much came"
        raise DownloadError(f"{kind}: {size} bytes instead of {file.bytes}")
    if file.magic and not any(head.startswith(bytes.fromhex(magic)) for magic in file.magic):
        shown = head[:40].decode("ascii", "replace").replace("\n", " ")
        raise DownloadError(
            f"what came is not of the right format; it begins with {shown!r}" if head else "an empty file came"
        )
    if file.unpack:
        try:
            with zipfile.ZipFile(path) as pack:
                broken = pack.testzip()
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise DownloadError(f"what came is no readable zip: {error}") from None
        if broken is not None:
            raise DownloadError(f"what came is a broken zip: its member {broken} does not have its checksum")


class _Bar:
    """What pooch takes for a progress bar; passes it on to our listener."""

    def __init__(self, progress: Progress, note: str) -> None:
        self.total, self.done, self.progress, self.note = 0, 0, progress, note

    def update(self, count: int) -> None:
        self.done = min(self.done + count, self.total) if self.total else self.done + count
        self.progress(self.done, self.total, self.note)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        pass


def download(url: str, path: Path, progress: Progress) -> None:
    """Get `url` into `path`; connection trouble and server trouble are tried again, a plain no is not."""
    import pooch
    import requests

    for attempt in range(len(BACK_OFF_S) + 1):
        bar = _Bar(progress, path.name.lstrip(".").partition(".partial-")[0])
        try:
            # Asked for as it is: a body packed on the way would not have the length that the header says.
            pooch.HTTPDownloader(
                progressbar=bar, chunk_size=1 << 18, timeout=TIMEOUT_S, headers={"Accept-Encoding": "identity"}
            )(url, str(path), None)
            return
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            reason = f"the server answers {error}".partition(" for url")[0]
            if status < 500 and status != 429:
                raise DownloadError(reason) from None
        except requests.ConnectionError as error:
            reason = "the connection broke off" if "IncompleteRead" in str(error) else "no connection to the server"
        except requests.Timeout:
            reason = f"the server did not answer within {TIMEOUT_S:.0f} s"
        except requests.RequestException as error:
            reason = "the connection broke off" if "IncompleteRead" in str(error) else f"{type(error).__name__}"
            if "IncompleteRead" not in str(error):
                raise DownloadError(reason) from None
        if attempt < len(BACK_OFF_S):
            log.info("%s: %s; trying again.", url, reason)
            time.sleep(BACK_OFF_S[attempt])
    raise DownloadError(f"{reason} ({len(BACK_OFF_S) + 1} tries)")
