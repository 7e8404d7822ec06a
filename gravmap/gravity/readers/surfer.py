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
from gravmap.gravity.quantity import Quantity, unit_factor, warn_once
from gravmap.gravity.readers.plain_grid import SURFER_BLANK, geographic

_AGAIN = "It may be truncated: copy it again."


def read_surfer6(path: Path, variable: str | None, units: str | None, quantity: Quantity) -> xr.DataArray:
    """Surfer 6 binary: a header of 56 bytes, then float32 from the south-west corner on."""
    body = path.read_bytes()
    if len(body) < 56:
        raise InputError(f"{path} is truncated: {len(body)} bytes.", _AGAIN)
    columns, rows = struct.unpack("<2h", body[4:8])
    limits = struct.unpack("<6d", body[8:56])
    _check_count(path, rows, columns, (len(body) - 56) / 4)
    values = np.frombuffer(body, dtype="<f4", offset=56, count=rows * columns).reshape(rows, columns)
    return _surfer(path, values.astype(np.float64), limits, units, quantity)


def read_surfer7(path: Path, variable: str | None, units: str | None, quantity: Quantity) -> xr.DataArray:
    """Surfer 7 binary: tagged sections; GRID is the header, DATA the float64 values."""
    body = path.read_bytes()
    at, version, grid = 0, 1, None
    while at + 8 <= len(body):
        tag, size = body[at : at + 4], struct.unpack("<i", body[at + 4 : at + 8])[0]
        at += 8
        if tag == b"DSRB" and size >= 4:
            version = struct.unpack("<i", body[at : at + 4])[0]
        elif tag == b"GRID" and size >= 72 and at + 72 <= len(body):
            grid = struct.unpack("<2i8d", body[at : at + 72])
        elif tag == b"DATA" and grid is not None:
            rows, columns, west, south, step_x, step_y, low, high, rotation, blank = grid
            if rotation:
                raise InputError(
                    f"{path} is rotated by {rotation:g} degrees.", "Resample it without rotation in Surfer first."
                )
            _check_count(path, rows, columns, min(size, len(body) - at) / 8)
            values = np.frombuffer(body, dtype="<f8", offset=at, count=rows * columns).reshape(rows, columns).copy()
            # Version 1 blanks values at or above the blank value, version 2 values equal to it.
            values[values >= blank if version < 2 else values == blank] = np.nan
            limits = (west, west + (columns - 1) * step_x, south, south + (rows - 1) * step_y, low, high)
            return _surfer(path, values, limits, units, quantity)
        if size < 0:
            break
        at += size
    raise InputError(f"{path} is a Surfer 7 grid without its {'GRID' if grid is None else 'DATA'} section.", _AGAIN)


def read_surfer_ascii(path: Path, variable: str | None, units: str | None, quantity: Quantity) -> xr.DataArray:
    """Surfer ASCII: counts, limits, then the values as text from the south-west corner on."""
    words = path.read_text(encoding="latin-1").split()
    try:
        columns, rows = int(words[1]), int(words[2])
        limits = tuple(float(word) for word in words[3:9])
        numbers = np.array(words[9:], dtype=np.float64)
    except (ValueError, IndexError) as error:
        raise InputError(f"{path} is not a complete Surfer ASCII grid: {error}.", _AGAIN) from None
    if len(limits) < 6:
        raise InputError(f"{path} is truncated in its header.", _AGAIN)
    _check_count(path, rows, columns, numbers.size, exactly=True)
    return _surfer(path, numbers.reshape(rows, columns), limits, units, quantity)


def _check_count(path: Path, rows: int, columns: int, found: float, *, exactly: bool = False) -> None:
    if rows < 4 or columns < 4:
        raise InputError(f"{path} has {rows} x {columns} nodes.", "A grid needs at least 4 by 4.")
    if found < rows * columns or (exactly and found > rows * columns):
        short = "truncated" if found < rows * columns else "too long"
        raise InputError(f"{path} is {short}: {rows} x {columns} nodes, but {found:g} values.", _AGAIN)


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
