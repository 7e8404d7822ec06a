"""Checks of netCDF files that the libraries leave out: classic headers against the file's size, and heaps of HDF5."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gravmap.errors import InputError

# Heaps are looked for in this first part of a file.
_HEAPS_WITHIN_BYTES = 1 << 26


def check_heaps(path: Path, hint: str) -> None:
    """Refuse an HDF5 file with free space of size 0 in a global heap: HDF5 2.0 and before read such a heap forever.

    Layout: HDF5 File Format Specification, III.E. Heaps beyond the first part of a large file are not checked.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAPS_WITHIN_BYTES)
    at = head.find(b"GCOL\1\0\0\0")
    while at >= 0:
        end = min(len(head), at + int.from_bytes(head[at + 8 : at + 16], "little"))
        place = at + 16
        while place + 16 <= end:
            index, length = struct.unpack("<H6xQ", head[place : place + 16])
            if index == 0 and length == 0:
                raise InputError(f"{path} cannot be read as netCDF: a heap of it is damaged at byte {place}.", hint)
            place += length if index == 0 else 16 + length + -length % 8
        at = head.find(b"GCOL\1\0\0\0", at + 8)


@dataclass(frozen=True)
class _Classic:
    """A variable in the header of a classic file: bytes by its shape, bytes as stated, and where they begin."""

    name: str
    computed: int
    stated: int
    begin: int
    is_record: bool


def check_classic_layout(path: Path, hint: str) -> None:
    """Check the header of a classic netCDF file (1, 2 or 5) against its size: the library reads zeros beyond its end.

    Layout: netCDF User's Guide, "The NetCDF classic format specification".
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        try:
            records, variables = _read_classic_header(stream, size)
        except (struct.error, ValueError, IndexError) as error:
            raise InputError(f"{path} has a damaged header: {one_line(error) or 'it ends early'}.", hint) from None
    fixed = sorted((each for each in variables if not each.is_record), key=lambda each: each.begin)
    per_record = [each for each in variables if each.is_record]
    padded = [each.computed + -each.computed % 4 for each in per_record]
    # Without padding if there is only one.
    record_bytes = per_record[0].computed if len(per_record) == 1 else sum(padded)
    first_record = min((each.begin for each in per_record), default=size)
    for at, each in enumerate(fixed):
        end, following = each.begin + each.computed, fixed[at + 1].begin if at + 1 < len(fixed) else first_record
        if end > size:
            raise InputError(
                f"{path} is truncated at {size} bytes: its variable {each.name!r} ends at {end} by its header.", hint
            )
        stated_fits = each.stated in (each.computed, each.computed + -each.computed % 4)
        # The stated size is redundant, and of no use from 4 GiB on: alone, without a gap, it is no sign of damage.
        gap = following - (end + -end % 4)
        if end > following or (gap > 0 and not stated_fits and each.computed < 2**32 - 4):
            raise InputError(
                f"{path} has a header that does not fit its data: its variable {each.name!r} has {each.computed} bytes"
                f" by its dimensions, but {each.stated} are stated and there is room for {following - each.begin}.",
                hint,
            )
    end = max((each.begin + each.computed for each in fixed), default=0)
    if per_record and records is not None:
        end = first_record + records * record_bytes
        stated = sum(each.stated for each in per_record)
        if record_bytes < stated < 2**32 - 4 and size - end >= records * (stated - record_bytes) > 0:
            raise InputError(
                f"{path} has a header that does not fit its data: records of {record_bytes} bytes by its dimensions,"
                f" but {stated} are stated.",
                hint,
            )
    # The last variable may lack its padding.
    if end - 3 > size:
        raise InputError(f"{path} is truncated at {size} bytes: by its header it ends at {end}.", hint)
    surplus = size - (end + -end % 4)
    # Zeros up to a whole block are the padding of another program.
    if records is not None and surplus > 0 and (size % 512 or _has_data(path, size - surplus)):
        raise InputError(
            f"{path} has a header that does not fit its data: by its header it ends at {end} bytes, but it has {size}.",
            hint,
        )


def _has_data(path: Path, start: int) -> bool:
    """Whether a file has other bytes than zeros from `start` on."""
    with path.open("rb") as stream:
        stream.seek(start)
        while block := stream.read(1 << 20):
            if block.strip(b"\0"):
                return True
    return False


def _read_classic_header(stream: BinaryIO, size: int) -> tuple[int | None, list[_Classic]]:
    """Number of records (None: not stated) and the variables."""
    version = stream.read(4)[3]
    if version not in (1, 2, 5):
        raise ValueError(f"version {version} is not known")
    count_format, offset_format = (">q" if version == 5 else ">i"), (">i" if version == 1 else ">q")

    def number(layout: str = count_format) -> int:
        return int(struct.unpack(layout, stream.read(struct.calcsize(layout)))[0])

    def count() -> int:
        found = number()
        if not 0 <= found <= size:
            raise ValueError(f"a count of {found}")
        return found

    def name() -> str:
        length = count()
        return stream.read(length + -length % 4)[:length].decode("utf-8", errors="replace")

    def item_bytes() -> int:
        kind = number(">i")
        if kind not in _TYPE_BYTES:
            raise ValueError(f"a type {kind}")
        return _TYPE_BYTES[kind]

    def entries() -> Iterator[int]:
        number(">i")  # the tag of the list, 0 if it is absent
        yield from range(count())

    def skip_attributes() -> None:
        for _ in entries():
            name()
            length = item_bytes() * count()
            stream.seek(length + -length % 4, os.SEEK_CUR)
            if stream.tell() > size:
                raise ValueError("it ends early")

    records = number()
    dimensions = []
    for _ in entries():
        name()
        dimensions.append(number())
        if dimensions[-1] < 0:
            raise ValueError(f"a dimension of {dimensions[-1]}")
    skip_attributes()
    variables = []
    for _ in entries():
        title = name()
        sides = [dimensions[number()] for _ in range(count())]
        skip_attributes()
        item = item_bytes()
        stated = number(">Q" if version == 5 else ">I")
        is_record = bool(sides) and sides[0] == 0
        computed = item * math.prod(sides[1:] if is_record else sides)
        variables.append(_Classic(title, computed, stated, number(offset_format), is_record))
    # -1 is a file that was still being written.
    return (records if records >= 0 else None), variables


# Bytes of the types NC_BYTE to NC_UINT64.
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}


def one_line(error: BaseException) -> str:
    """The message of another library's exception, in one line."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
