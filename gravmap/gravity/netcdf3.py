"""The header of a netCDF-3 file: what is in it, and at which byte each row of a variable begins.

Written after "The NetCDF Classic Format Specification" (Unidata, netCDF user's guide, appendix B): big-endian, names
and values padded to 4 bytes; classic (``CDF 1``) and 64-bit offset (``CDF 2``) differ in the width of `begin` only.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

# nc_type -> numpy's name of it, big-endian.
_TYPES = {1: "S1", 2: "S1", 3: ">i2", 4: ">i4", 5: ">f4", 6: ">f8"}
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8}
_NC_BYTE, _NC_CHAR = 1, 2
_DIMENSIONS, _VARIABLES, _ATTRIBUTES = 10, 11, 12
_STREAMING = 0xFFFFFFFF


class NotNetCDF3(ValueError):
    """The bytes are no header of a netCDF-3 file."""


class HeaderIsLonger(Exception):
    """The bytes end before the header does."""


@dataclass(frozen=True)
class Variable:
    """One variable.

    Attributes
    ----------
    name : str
        Its name.
    dims, shape : tuple
        Names and lengths of its dimensions.
    type : int
        nc_type: 1 byte, 2 char, 3 short, 4 int, 5 float, 6 double.
    attrs : dict
        Its attributes: text, or a tuple of numbers.
    begin : int
        Where its first value lies, bytes from the start of the file.
    stride : int
        Bytes from one index of the first dimension to the next.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    type: int
    attrs: dict[str, Any]
    begin: int
    stride: int

    @property
    def dtype(self) -> str:
        """Numpy's name of its type, as it is stored."""
        return "i1" if self.type == _NC_BYTE else _TYPES[self.type]

    @property
    def row_bytes(self) -> int:
        """Bytes of all values at one index of the first dimension."""
        return _BYTES[self.type] * math.prod(self.shape[1:])

    def span(self, first: int, end: int) -> tuple[int, int]:
        """The bytes, first and end, that hold the rows `first` to `end` (not with it) of the first dimension."""
        if not self.shape:
            return self.begin, self.begin + _BYTES[self.type]
        return self.begin + first * self.stride, self.begin + (end - 1) * self.stride + self.row_bytes


@dataclass(frozen=True)
class Header:
    """What a netCDF-3 file holds.

    Attributes
    ----------
    version : int
        1 classic, 2 64-bit offset.
    dims : dict
        Length by name.
    unlimited : str or None
        The record dimension.
    attrs : dict
        The file's attributes.
    variables : dict
        Variables by name.
    """

    version: int
    dims: dict[str, int]
    unlimited: str | None
    attrs: dict[str, Any]
    variables: dict[str, Variable]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise HeaderIsLonger
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str = ">I") -> int:
        (value,) = struct.unpack(form, self.take(struct.calcsize(form)))
        return int(value)

    def padded(self, count: int) -> bytes:
        body = self.take(count)
        self.take(-count % 4)
        return body

    def name(self) -> str:
        return self.padded(self.number()).decode("utf-8", "replace")

    def list_of(self, tag: int, what: str) -> int:
        found, count = self.number(), self.number()
        if found != tag and (found, count) != (0, 0):
            raise NotNetCDF3(f"its list of {what} begins with {found}")
        return count

    def attributes(self) -> dict[str, Any]:
        attrs: dict[str, Any] = {}
        for _ in range(self.list_of(_ATTRIBUTES, "attributes")):
            name, kind, count = self.name(), self.number(), self.number()
            if kind not in _TYPES:
                raise NotNetCDF3(f"attribute {name!r} has the type {kind}")
            body = self.padded(count * _BYTES[kind])
            if kind == _NC_CHAR:
                attrs[name] = body.decode("utf-8", "replace")
            else:
                letter = {1: "b", 3: "h", 4: "i", 5: "f", 6: "d"}[kind]
                attrs[name] = (kind, struct.unpack(f">{count}{letter}", body))
        return attrs


def parse_header(data: bytes) -> Header:
    """Read a header.

    Parameters
    ----------
    data : bytes
        The file, or enough of its beginning.

    Returns
    -------
    Header
        Numeric attributes are (nc_type, tuple of numbers).

    Raises
    ------
    HeaderIsLonger
        More bytes are needed.
    NotNetCDF3
        It is something else.
    """
    reader = _Reader(data)
    magic = reader.take(4)
    if magic not in (b"CDF\x01", b"CDF\x02"):
        raise NotNetCDF3(f"it begins with {magic!r}")
    version = magic[3]
    records = reader.number()
    names, lengths = [], []
    for _ in range(reader.list_of(_DIMENSIONS, "dimensions")):
        names.append(reader.name())
        lengths.append(reader.number())
    record_at = lengths.index(0) if 0 in lengths else None
    if record_at is not None and records == _STREAMING:
        raise NotNetCDF3("it does not say how many records it holds")
    if record_at is not None:
        lengths[record_at] = records
    attrs = reader.attributes()
    raw = []
    for _ in range(reader.list_of(_VARIABLES, "variables")):
        name = reader.name()
        ids = [reader.number() for _ in range(reader.number())]
        if any(number >= len(names) for number in ids):
            raise NotNetCDF3(f"variable {name!r} has a dimension that is not there")
        own = reader.attributes()
        kind = reader.number()
        if kind not in _TYPES:
            raise NotNetCDF3(f"variable {name!r} has the type {kind}")
        reader.number()  # vsize: follows from the shape, and is wrong for large variables
        raw.append((name, ids, own, kind, reader.number(">Q" if version == 2 else ">I")))
    # Records interleave the variables that have the record dimension; a single one is packed without padding.
    of_records = [(kind, ids) for _, ids, _, kind, _ in raw if ids and ids[0] == record_at]
    sizes = [_BYTES[kind] * math.prod(lengths[number] for number in ids[1:]) for kind, ids in of_records]
    record_bytes = sizes[0] if len(sizes) == 1 else sum(size + -size % 4 for size in sizes)
    variables = {}
    for name, ids, own, kind, begin in raw:
        shape = tuple(lengths[number] for number in ids)
        stride = record_bytes if ids and ids[0] == record_at else _BYTES[kind] * math.prod(shape[1:])
        variables[name] = Variable(name, tuple(names[n] for n in ids), shape, kind, own, begin, stride)
    return Header(
        version,
        dict(zip(names, lengths, strict=True)),
        None if record_at is None else names[record_at],
        attrs,
        variables,
    )
