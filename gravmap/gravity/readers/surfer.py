"""Golden Software's Surfer grids: 6 binary (DSBB), 7 binary (DSRB) and ASCII (DSAA).

Rows run from south to north, columns from west to east, nodes lie on the limits. The formats have neither unit nor
reference system. Layouts: Surfer user's guide, "Grid file formats".
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.files import check_memory
from gravmap.gravity.quantity import Quantity, unit_factor, warn_once
from gravmap.gravity.readers.plain_grid import SURFER_BLANK, check_last_number, geographic

_AGAIN = "It may be truncated: copy it again."


def read_surfer6(path: Path, variable: str | None, units: str | None, quantity: Quantity) -> xr.DataArray:
    """Surfer 6 binary: a header of 56 bytes, then float32 from the south-west corner on."""
    size = path.stat().st_size
    if size < 56:
        raise InputError(f"{path} is truncated: {size} bytes.", _AGAIN)
    with path.open("rb") as stream:
        columns, rows, *limits = struct.unpack("<4x2h6d", stream.read(56))
    _check_count(path, rows, columns, (size - 56) / 4)
    values = np.fromfile(path, dtype="<f4", offset=56, count=rows * columns).reshape(rows, columns)
    return _surfer(path, values.astype(np.float64), tuple(limits), units, quantity)


def read_surfer7(path: Path, variable: str | None, units: str | None, quantity: Quantity) -> xr.DataArray:
    """Surfer 7 binary: tagged sections; GRID is the header, DATA the float64 values."""
    total = path.stat().st_size
    at, version, grid = 0, 1, None
    with path.open("rb") as stream:
        while at + 8 <= total:
            stream.seek(at)
            tag, size = struct.unpack("<4si", stream.read(8))
            at += 8
            if size < 0:
                raise InputError(f"{path} has a section {tag!r} of {size} bytes.", _AGAIN)
            if tag == b"DSRB" and size >= 4 and at + 4 <= total:
                (version,) = struct.unpack("<i", stream.read(4))
            elif tag == b"GRID" and size >= 72 and at + 72 <= total:
                grid = struct.unpack("<2i8d", stream.read(72))
            elif tag == b"DATA" and grid is not None:
                rows, columns, west, south, step_x, step_y, low, high, rotation, blank = grid
                if rotation:
                    raise InputError(
                        f"{path} is rotated by {rotation:g} degrees.", "Resample it without rotation in Surfer first."
                    )
                _check_count(path, rows, columns, min(size, total - at) / 8)
                # Another section may follow, with faults.
                stream.seek(at + size)
                rest = stream.read(8)
                if rest and not (len(rest) == 8 and rest[:4].isalnum()):
                    raise InputError(f"{path} is too long: its values end at {at + size} of {total} bytes.", _AGAIN)
                values = np.fromfile(path, dtype="<f8", offset=at, count=rows * columns).reshape(rows, columns)
                # Version 1 blanks values at or above the blank value, version 2 values equal to it.
                values[values >= blank if version < 2 else values == blank] = np.nan
                limits = (west, west + (columns - 1) * step_x, south, south + (rows - 1) * step_y, low, high)
                return _surfer(path, values, limits, units, quantity)
            at += size
    raise InputError(f"{path} is a Surfer 7 grid without its {'GRID' if grid is None else 'DATA'} section.", _AGAIN)


def read_surfer_ascii(path: Path, variable: str | None, units: str | None, quantity: Quantity) -> xr.DataArray:
    """Surfer ASCII: counts, limits, then the values as text from the south-west corner on."""
    check_last_number(path)
    words = path.read_text(encoding="latin-1").split()
    try:
        columns, rows = int(words[1]), int(words[2])
        limits = tuple(float(word) for word in words[3:9])
        numbers = np.array(words[9:], dtype=np.float64)
        if any("_" in word for word in words):
            raise ValueError("there is '_' in a number")  # Python takes 1_0 as 10
    except (ValueError, IndexError) as error:
        raise InputError(f"{path} is not a complete Surfer ASCII grid: {error}.", _AGAIN) from None
    if len(limits) < 6:
        raise InputError(f"{path} is truncated in its header.", _AGAIN)
    _check_count(path, rows, columns, numbers.size)
    return _surfer(path, numbers.reshape(rows, columns), limits, units, quantity)


def _check_count(path: Path, rows: int, columns: int, found: float) -> None:
    """Check the counts of a header against the number of values in the file, and the memory that these take."""
    if rows < 4 or columns < 4:
        raise InputError(f"{path} has {rows} x {columns} nodes.", "A grid needs at least 4 by 4.")
    if found != rows * columns:
        short = "truncated" if found < rows * columns else "too long"
        raise InputError(f"{path} is {short}: {rows} x {columns} nodes, but {found:.15g} values.", _AGAIN)
    # As stored, as float64, and copies of these while they are checked.
    needed = rows * columns * 32
    check_memory(needed, f"{path} with {rows} x {columns} nodes takes", "Cut out a smaller region in Surfer first.")


def _surfer(
    path: Path, values: NDArray[np.float64], limits: tuple[Any, ...], units: str | None, quantity: Quantity
) -> xr.DataArray:
    """The grid from values and limits; blank nodes become NaN; warns if the range differs from that in the header."""
    west, east, south, north, low, high = limits
    if not (np.isfinite(limits[:4]).all() and west < east and south < north):
        raise InputError(f"{path} has no valid limits: x {west:g} to {east:g}, y {south:g} to {north:g}.", _AGAIN)
    values[values >= SURFER_BLANK] = np.nan
    known = values[np.isfinite(values)]
    # The limits of z may be printed with fewer digits than the grid.
    tolerance = 1e-3 * max(np.ptp(known), abs(high), 1e-9) if known.size else 0.0
    if known.size and max(abs(known.min() - low), abs(known.max() - high)) > tolerance:
        warn_once(
            f"{path}: the range in its header is {low:g} to {high:g}, that of its values {known.min():g} to"
            f" {known.max():g}."
        )
    return geographic(
        values,
        np.linspace(south, north, values.shape[0]),
        np.linspace(west, east, values.shape[1]),
        path,
        variable="z",
        _factor=unit_factor(units, "", str(path), quantity),
    )
