"""Opening of netCDF files: their sizes are checked before anything is read, values are masked and scaled as read.

Missing values are those of ``_FillValue``, ``missing_value``, ``valid_range``, ``valid_min`` and ``valid_max``, and the
library's own fill value of the type (netCDF User's Guide, "Attribute conventions").
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from gravmap.errors import InputError
from gravmap.files import check_memory

COPY_AGAIN = "It may be damaged: download or copy it again."

# What the libraries raise for a damaged file, when it is opened or as late as when its values are read.
_DAMAGE = (OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError, OverflowError)

# No grid of the Earth has a longer axis: 360 degrees at 4 m.
_LONGEST_AXIS = 10_000_000
# netCDF-4 compresses to a thousandth at most, and blocks that were never written take no space.
_LARGEST_RATIO = 100_000

_HEAPS_WITHIN_BYTES = 1 << 26

_DECODED = (
    "_FillValue",
    "missing_value",
    "scale_factor",
    "add_offset",
    "valid_range",
    "valid_min",
    "valid_max",
    "_Unsigned",
)
# Text that says that there is no missing value.
_NOTHING = ("", "none", "null", "n/a")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?nan|[-+]?inf(?:inity)?", re.IGNORECASE)


def open_netcdf(path: Path, hint: str = COPY_AGAIN) -> xr.Dataset:
    """Open a netCDF file, with values as stored; :func:`decode` masks and scales those of a variable.

    Parameters
    ----------
    path : Path
        The file.
    hint : str
        What to do about a damaged file, for messages.

    Returns
    -------
    xr.Dataset
        Lazy except for its axes.

    Raises
    ------
    InputError
        Not netCDF, damaged, or a header that does not fit the size of the file.
    """
    import netCDF4

    with path.open("rb") as stream:
        classic = stream.read(3) == b"CDF"
    if classic:
        _check_classic_layout(path, hint)
    else:
        _check_heaps(path, hint)
    try:
        with netCDF4.Dataset(path) as raw:
            _check_sizes(raw, path, hint, classic=classic)
        return xr.open_dataset(
            path,
            engine="netcdf4",
            mask_and_scale=False,
            decode_times=False,
            decode_timedelta=False,
            concat_characters=False,
            cache=False,
        )
    except _DAMAGE as error:
        raise InputError(f"{path} cannot be read as netCDF: {_one_line(error)}.", hint) from None


def decode(array: xr.DataArray, path: Path, hint: str = COPY_AGAIN) -> xr.DataArray:
    """A variable of :func:`open_netcdf` with NaN for missing values, scaled; lazy, without coordinates.

    Values are float32 or float64. Reading them raises InputError if the file is damaged, and DeviceError if they do
    not fit into memory.

    Parameters
    ----------
    array : xr.DataArray
        The variable, as stored.
    path : Path
        The file, for messages.
    hint : str
        What to do about a damaged file, for messages.

    Raises
    ------
    InputError
        The variable is not numeric, or an attribute that its values depend on is not understood.
    """
    values = _Values(array, _Encoding.of(array, path), path, hint)
    attrs = {key: value for key, value in array.attrs.items() if key not in _DECODED}
    return xr.DataArray(xr.Variable(array.dims, indexing.LazilyIndexedArray(values), attrs), name=array.name)


@dataclass(frozen=True)
class _Encoding:
    """How the stored values of a variable are decoded.

    Attributes
    ----------
    stored : np.dtype
        Type of the stored values.
    decoded : np.dtype
        float32 or float64.
    missing : tuple
        Stored values that mean missing.
    low, high : float
        Stored values outside are missing.
    scale, offset : float
        ``decoded = stored * scale + offset``.
    """

    stored: np.dtype[Any]
    decoded: np.dtype[Any]
    missing: tuple[Any, ...]
    low: float
    high: float
    scale: float
    offset: float

    @classmethod
    def of(cls, array: xr.DataArray, path: Path) -> _Encoding:
        """The encoding of a variable, from its type and attributes."""
        import netCDF4

        where = f"{path}, variable {str(array.name)!r},"
        stored = np.dtype(array.dtype)
        if stored.kind not in "iuf" or stored.itemsize > 8:
            raise InputError(f"{where} is not a variable of numbers.", "Choose another one with --variable NAME.")
        if stored.kind in "iu" and "_Unsigned" in array.attrs:
            unsigned = str(array.attrs["_Unsigned"]).strip().lower() == "true"
            stored = np.dtype(f"{stored.byteorder}{'u' if unsigned else 'i'}{stored.itemsize}")
        numbers = {key: _numbers(array.attrs[key], key, where) for key in _DECODED[:-1] if key in array.attrs}
        scale, offset = (
            _one(numbers, key, where, default) for key, default in (("scale_factor", 1.0), ("add_offset", 0.0))
        )
        if scale == 0 or not (math.isfinite(scale) and math.isfinite(offset)):
            raise InputError(
                f"{where} has scale_factor {scale:g} and add_offset {offset:g}.", "Write it again with finite numbers."
            )
        packed = (scale, offset) != (1.0, 0.0)
        # Single bytes have no fill value of their own: all of their 256 values are in use.
        missing = [] if stored.itemsize == 1 else [netCDF4.default_fillvals[f"{stored.kind}{stored.itemsize}"]]
        for key in ("_FillValue", "missing_value"):
            missing += list(numbers.get(key, ()))
        low, high = _limits(array, numbers, where, packed=packed and stored.kind in "iu", scale=scale, offset=offset)
        single = stored.itemsize <= 2 or (stored.kind == "f" and stored.itemsize == 4)
        if packed:  # as xarray does
            factors = [np.asarray(array.attrs[key]).dtype for key in ("scale_factor", "add_offset") if key in numbers]
            single = single and "scale_factor" in numbers and all(factor == np.float32 for factor in factors)
        return cls(
            stored,
            np.dtype(np.float32 if single else np.float64),
            _as_stored(missing, stored),
            low,
            high,
            scale,
            offset,
        )

    def decode(self, values: NDArray[Any]) -> NDArray[Any]:
        """Decode an array of stored values."""
        if values.dtype.kind != self.stored.kind:  # _Unsigned
            values = values.view(self.stored)
        missing = np.zeros(values.shape, dtype=bool)
        for value in self.missing:
            missing |= values == value
        if self.low > -math.inf:
            missing |= values < self.low
        if self.high < math.inf:
            missing |= values > self.high
        decoded = values.astype(self.decoded)
        if self.scale != 1:
            decoded *= self.decoded.type(self.scale)
        if self.offset != 0:
            decoded += self.decoded.type(self.offset)
        decoded[missing] = np.nan
        return decoded


class _Values(BackendArray):
    """The decoded values of a variable, read when indexed."""

    def __init__(self, raw: xr.DataArray, encoding: _Encoding, path: Path, hint: str) -> None:
        self.shape, self.dtype = raw.shape, encoding.decoded
        self._raw, self._encoding, self._path, self._hint = raw.variable, encoding, path, hint
        self._what = f"{path}, variable {str(raw.name)!r},"

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        part = self._raw[key]
        # As stored, decoded, and what is missing.
        needed = math.prod(part.shape) * (part.dtype.itemsize + self.dtype.itemsize + 1)
        sides = " x ".join(map(str, part.shape)) or "1"
        check_memory(needed, f"{self._what} of {sides} values takes", "Choose a smaller region with --bbox W S E N.")
        try:
            values = part.values
        except _DAMAGE as error:
            raise InputError(f"{self._what} cannot be read: {_one_line(error)}.", self._hint) from None
        return self._encoding.decode(np.asarray(values))


def _numbers(value: Any, key: str, where: str) -> NDArray[Any]:
    """An attribute as an array of numbers; text that is a number is one, except where its type has a meaning."""
    found = np.atleast_1d(np.asarray(value))
    if found.dtype.kind in "iuf":
        return found.ravel()
    if (
        key not in ("scale_factor", "add_offset")
        and found.dtype.kind in "UO"
        and found.size == 1
        and isinstance(found[0], str)
    ):
        words = found[0].strip().strip("\0").replace(",", " ").split()
        if " ".join(words).lower() in _NOTHING:
            return np.array([])
        if all(_NUMBER.fullmatch(word) for word in words):
            return np.array([float(word) for word in words])
    raise InputError(
        f"{where} has {key} = {str(value)[:40]!r}, which is not a number.",
        f"Write it as a number, for example: ncatted -a {key},NAME,o,d,NUMBER IN",
    )


def _one(numbers: dict[str, NDArray[Any]], key: str, where: str, default: float) -> float:
    """The one number of an attribute, or a default."""
    found = numbers.get(key, np.array([]))
    if found.size > 1:
        raise InputError(
            f"{where} has {found.size} numbers as {key}: {', '.join(f'{number:g}' for number in found[:4])}.",
            f"Write one, for example: ncatted -a {key},NAME,o,d,NUMBER IN",
        )
    return float(found[0]) if found.size else default


def _as_stored(missing: list[Any], stored: np.dtype[Any]) -> tuple[Any, ...]:
    """Missing values in the type of the stored ones: -999.9 as float64 does not equal -999.9 as float32."""
    if stored.kind == "f":
        with np.errstate(over="ignore"):
            return tuple(np.asarray(value).astype(stored)[()] for value in missing)
    info = np.iinfo(stored)
    kept = []
    for value in missing:
        # A signed value of an unsigned variable, as _FillValue = -1b with _Unsigned.
        whole = int(value) if math.isfinite(value) and float(value).is_integer() else None
        if whole is not None and stored.kind == "u" and -(2 ** (8 * stored.itemsize - 1)) <= whole < 0:
            whole += 2 ** (8 * stored.itemsize)
        if whole is not None and info.min <= whole <= info.max:
            kept.append(stored.type(whole))
    return tuple(kept)


def _limits(
    array: xr.DataArray, numbers: dict[str, NDArray[Any]], where: str, *, packed: bool, scale: float, offset: float
) -> tuple[float, float]:
    """Least and largest valid value, as stored."""
    low, high = -math.inf, math.inf
    for key, count in (("valid_range", 2), ("valid_min", 1), ("valid_max", 1)):
        found = numbers.get(key, np.array([]))
        if found.size == 0:
            continue
        hint = f"Correct it, or remove it: ncatted -a {key},NAME,d,, IN"
        is_text = np.asarray(array.attrs[key]).dtype.kind not in "iuf"
        if found.size != count or (is_text and packed):
            raise InputError(
                f"{where} has {key} = {str(array.attrs[key])[:40]!r}, not {count} number{'s' * (count > 1)}"
                f"{' of the type of its values' if is_text else ''}.",
                hint,
            )
        limits = [float(number) for number in found.astype(np.float64)]
        # A range in floating point on packed integers is one of the unpacked values.
        if packed and found.dtype.kind == "f":
            limits = [(limit - offset) / scale for limit in limits]
            slack = [1e-6 * max(1.0, abs(limit)) for limit in limits]
        else:
            slack = [0.0] * count
            if array.dtype.kind == "f":
                limits = [float(array.dtype.type(limit)) for limit in limits]
        lower, upper = key != "valid_max", key != "valid_min"
        if packed and found.dtype.kind == "f" and scale < 0:
            limits, slack, (lower, upper) = limits[::-1], slack[::-1], (upper, lower)
        if lower and not math.isnan(limits[0]):
            low = max(low, limits[0] - slack[0])
        if upper and not math.isnan(limits[-1]):
            high = min(high, limits[-1] + slack[-1])
        if low > high:
            raise InputError(
                f"{where} has {key} = {', '.join(f'{number:g}' for number in found)}, which no value is within.", hint
            )
    return low, high


def _check_sizes(raw: Any, path: Path, hint: str, *, classic: bool) -> None:
    """Check dimensions against the size of the file and the memory, before xarray reads the axes."""
    size = path.stat().st_size
    for name, variable in raw.variables.items():
        shape = tuple(map(int, variable.shape))
        if not isinstance(variable.dtype, np.dtype):  # text or another type of no fixed size
            continue
        needed = math.prod(shape) * variable.dtype.itemsize
        sides = " x ".join(map(str, shape))
        if len(shape) == 1 and shape[0] > _LONGEST_AXIS and variable.dimensions[0] == name:
            raise InputError(f"{path} has an axis of {sides} values, {name!r}: no grid has so many.", hint)
        if not classic and needed > _LARGEST_RATIO * size:
            raise InputError(f"{path} has {size} bytes, too few for the {sides} values of its variable {name!r}.", hint)
        chunk = None if classic else variable.chunking()
        if isinstance(chunk, list):
            check_memory(
                math.prod(map(int, chunk)) * variable.dtype.itemsize,
                f"{path}, variable {name!r}, is stored in blocks of {' x '.join(map(str, chunk))} values, each of which"
                " takes",
                "Write it again in smaller blocks: nccopy -c lat/1000,lon/1000 IN OUT",
            )


def _check_heaps(path: Path, hint: str) -> None:
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


def _check_classic_layout(path: Path, hint: str) -> None:
    """Check the header of a classic netCDF file (1, 2 or 5) against its size: the library reads zeros beyond its end.

    Layout: netCDF User's Guide, "The NetCDF classic format specification".
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        try:
            records, variables = _read_classic_header(stream, size)
        except (struct.error, ValueError, IndexError) as error:
            raise InputError(f"{path} has a damaged header: {_one_line(error) or 'it ends early'}.", hint) from None
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


def _one_line(error: BaseException) -> str:
    """The message of another library's exception, in one line."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
