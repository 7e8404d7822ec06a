"""Grids without a coordinate reference system: checks for geographic coordinates, and gridding of regular points."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.gravity.axes import ASSIGN_AND_WARP, check_even_spacing, snap_coordinates
from gravmap.gravity.quantity import warn_once

# Deviations of printed coordinates up to this fraction of a step are rounding; larger ones are uneven spacing.
_MAX_ROUNDING_FRACTION = 0.02
# Points that fill a smaller fraction of their grid than this are scattered stations.
_MIN_FILLED_FRACTION = 0.25
# No coordinate, in degrees or in metres, is larger.
_FARTHEST = 1e9
# Surfer's blank node is 1.70141e38; nothing on Earth comes near.
SURFER_BLANK = 1.0e38


def geographic(
    values: NDArray[Any], lat: NDArray[Any], lon: NDArray[Any], path: Path, *, stated: bool = False, **attrs: Any
) -> xr.DataArray:
    """A grid as degrees on WGS 84, if its coordinates can be; with a warning unless the format says so (`stated`).

    Raises
    ------
    InputError
        The coordinates cannot be degrees.
    """
    spans = f"x from {lon.min():g} to {lon.max():g}, y from {lat.min():g} to {lat.max():g}"
    if np.abs(lat).max() > 90 + 1e-4 and np.abs(lon).max() <= 90 and np.abs(lat).max() <= 360:
        raise InputError(
            f"{path} has its axes swapped: {spans}, and latitudes do not exceed 90.",
            "Write it with longitude as x and latitude as y.",
        )
    if np.abs(lat).max() > 90 + 1e-4 or lon.min() < -360 or lon.max() > 720 or np.ptp(lon) > 360 + 1e-4:
        raise InputError(
            f"{path} has no reference system, and its coordinates are not degrees: {spans}.",
            ASSIGN_AND_WARP,
        )
    if not stated:
        warn_once(f"{path} has no reference system; taken as degrees on WGS 84: {spans}.")
    return xr.DataArray(values, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"), attrs=attrs)


def grid_of_points(
    lon: NDArray[np.float64], lat: NDArray[np.float64], values: NDArray[np.float64], rounding_deg: float, path: Path
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], int]:
    """Arrange points, in any order, on the regular grid of which they are the nodes.

    Parameters
    ----------
    lon, lat, values : array, shape (n,)
        The points.
    rounding_deg : float
        Half a unit of the last printed digit of the coordinates.
    path : Path
        For messages.

    Returns
    -------
    values, lat, lon, missing
        Both axes ascending; NaN at nodes without a point, and the number of these.

    Raises
    ------
    InputError
        Not finite, scattered, uneven, or two points at one node.
    """
    if lon.size < 16:
        raise InputError(f"{path} has only {lon.size} points.", "A grid needs at least 4 by 4 nodes.")
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        worst = int(np.flatnonzero(~(np.isfinite(lon) & np.isfinite(lat)))[0])
        raise InputError(f"{path}: point {worst + 1} has no position: lon {lon[worst]}, lat {lat[worst]}.")
    farthest = int(np.maximum(np.abs(lon), np.abs(lat)).argmax())
    if max(abs(lon[farthest]), abs(lat[farthest])) > _FARTHEST:
        raise InputError(
            f"{path}: point {farthest + 1} lies at lon {lon[farthest]:g}, lat {lat[farthest]:g}, which is no position.",
            "Correct or remove it.",
        )
    distinct = [np.unique(axis) for axis in (lat, lon)]
    if distinct[0].size * distinct[1].size > max(4096, lon.size / _MIN_FILLED_FRACTION):
        raise InputError(
            f"{path} has {lon.size} points at {distinct[0].size} latitudes and {distinct[1].size} longitudes:"
            " scattered stations, not a grid.",
            "Grid them first, for example with gmt surface.",
        )
    axes = [_axis(nodes, rounding_deg, f"{path}, {name}") for nodes, name in zip(distinct, ("lat", "lon"), strict=True)]
    rows, columns = (
        np.rint((points - axis[0]) / (axis[1] - axis[0])).astype(np.int64)
        for points, axis in zip((lat, lon), axes, strict=True)
    )
    shape = axes[0].size, axes[1].size
    if shape[0] * shape[1] > max(4096, lon.size / _MIN_FILLED_FRACTION):
        raise InputError(
            f"{path} has {lon.size} points of {shape[0]} x {shape[1]} nodes: most of the grid is missing.",
            "Grid them first, for example with gmt surface.",
        )
    place = rows * shape[1] + columns
    counts = np.bincount(place, minlength=shape[0] * shape[1])
    if counts.max() > 1:
        twice = int(counts.argmax())
        raise InputError(
            f"{path} has {counts[twice]} values at {axes[1][twice % shape[1]]:g} {axes[0][twice // shape[1]]:g};"
            f" {int((counts > 1).sum())} nodes have more than one.",
            "Keep one value for each node.",
        )
    grid = np.full(shape[0] * shape[1], np.nan)
    grid[place] = values
    return grid.reshape(shape), axes[0], axes[1], int((counts == 0).sum())


def _axis(distinct: NDArray[np.float64], rounding_deg: float, where: str) -> NDArray[np.float64]:
    """The evenly spaced axis of all distinct coordinates; whole rows may be missing."""
    if distinct.size < 4:
        raise InputError(f"{where}: only {distinct.size} distinct values.", "A grid needs at least 4 by 4 nodes.")
    steps = np.diff(distinct)
    smallest = float(steps.min())
    usual = float(steps[steps < 1.5 * smallest].mean())
    rounding = min(rounding_deg, _MAX_ROUNDING_FRACTION * usual)
    numbers = np.rint((distinct - distinct[0]) / usual)
    if numbers[-1] >= distinct.size / _MIN_FILLED_FRACTION + 4096:
        raise InputError(
            f"{where}: {distinct.size} of {numbers[-1] + 1:.0f} values of an even step of {usual:g}.",
            "Most of the grid is missing: grid the points first, for example with gmt surface.",
        )
    if (np.diff(numbers) == 1).all():
        check_even_spacing(distinct, where, rounding=rounding)
    step = float(distinct[-1] - distinct[0]) / float(numbers[-1])
    off = np.abs(distinct - (distinct[0] + numbers * step))
    worst = int(off.argmax())
    if off[worst] > 2 * rounding + 1e-6 * step:
        raise InputError(
            f"{where} is not evenly spaced: the step is {step:.6g}, but {distinct[worst]:.6g} lies"
            f" {off[worst]:.3g} off.",
            "Resample it to an even step, for example with gmt surface; or print more digits.",
        )
    line = distinct[0] + step * np.arange(int(numbers[-1]) + 1)
    return snap_coordinates(line, rounding=max(rounding, float(np.spacing(np.abs(line).max()))))


def check_last_number(path: Path) -> None:
    """Refuse a text file that ends inside its last number; warn where this cannot be seen.

    A file whose last line has no newline may have been cut. It was, for certain, if the numbers before all have the
    same number of decimals and the last one has another.

    Raises
    ------
    InputError
        The last number is cut.
    """
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - (1 << 16)))
        tail = stream.read().decode("latin-1")
    if not tail or tail[-1] in "\r\n":
        return
    # The first word of the tail may be a part of a number.
    words = [re.split(r"[\s,;]+", line.strip())[-1] for line in tail.splitlines()[1:][-12:]]
    if len(words) < 4:
        words = tail.split()[1:][-12:]
    if not words:
        return
    decimals = [len(word.partition(".")[2]) for word in words]
    if len(decimals) >= 4 and len(set(decimals[:-1])) == 1 and decimals[0] > 0:
        if decimals[-1] == decimals[0]:
            return
        raise InputError(
            f"{path} ends inside its last number, {words[-1][:20]!r}: it is truncated.",
            "Copy it again; if it is complete, end its last line with a newline.",
        )
    warn_once(f"{path}: its last line does not end; the last number, {words[-1][:20]!r}, may be cut.")
