"""Opening of netCDF files: their sizes are checked before anything is read, values are masked and scaled as read.

Missing values are those of ``_FillValue``, ``missing_value``, ``valid_range``, ``valid_min`` and ``valid_max``, and the
library's own fill value of the type (netCDF User's Guide, "Attribute conventions").
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from gravmap.errors import InputError
from gravmap.files import check_memory
from gravmap.gravity.netcdf_layout import check_classic_layout, check_heaps, one_line

COPY_AGAIN = "It may be damaged: download or copy it again."

# What the libraries raise for a damaged file, when it is opened or as late as when its values are read.
_DAMAGE = (OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError, OverflowError)

# No grid of the Earth has a longer axis: 360 degrees at 4 m.
_LONGEST_AXIS = 10_000_000
# netCDF-4 compresses to a thousandth at most, and blocks that were never written take no space.
_LARGEST_RATIO = 100_000

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
        check_classic_layout(path, hint)
    else:
        check_heaps(path, hint)
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
        raise InputError(f"{path} cannot be read as netCDF: {one_line(error)}.", hint) from None


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
            raise InputError(f"{self._what} cannot be read: {one_line(error)}.", self._hint) from None
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
