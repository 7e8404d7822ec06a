"""Whether what came can be the file that was asked for: by its first bytes, its size, its packing."""

from __future__ import annotations

import zipfile
from pathlib import Path

from gravmap.errors import DownloadError
from gravmap.gravity.sources import SourceFile

_WEB_PAGE = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")


def check_head(file: SourceFile, head: bytes) -> None:
    """Refuse a web page and whatever else begins wrongly.

    Raises
    ------
    DownloadError
        Says what came instead.
    """
    if head[:512].lstrip().lower().startswith(_WEB_PAGE):
        raise DownloadError("a web page came instead of the file")
    if file.magic and not any(head.startswith(bytes.fromhex(magic)) for magic in file.magic):
        shown = head[:40].decode("ascii", "replace").replace("\n", " ")
        raise DownloadError(
            f"what came is not of the right format; it begins with {shown!r}" if head else "an empty file came"
        )


def check_size(size: int, expected: int | None) -> None:
    """Refuse another size than the one on record.

    Raises
    ------
    DownloadError
        Says both.
    """
    if expected is not None and size != expected:
        kind = "the file was cut short" if size < expected else "too much came"
        raise DownloadError(f"{kind}: {size} bytes instead of {expected}")


def check_body(file: SourceFile, path: Path) -> None:
    """Refuse a web page, a body that begins wrongly, a wrong size, a broken zip.

    Raises
    ------
    DownloadError
        Says what came instead.
    """
    with path.open("rb") as stream:
        head = stream.read(512)
    size = path.stat().st_size
    if head[:512].lstrip().lower().startswith(_WEB_PAGE):
        check_head(file, head)
    check_size(size, file.bytes)
    check_head(file, head)
    if file.unpack:
        try:
            with zipfile.ZipFile(path) as pack:
                broken = pack.testzip()
        # Encrypted members and unknown compressions raise the middle two.
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise DownloadError(f"what came is no readable zip: {error}") from None
        if broken is not None:
            raise DownloadError(f"what came is a broken zip: its member {broken} does not have its checksum")
