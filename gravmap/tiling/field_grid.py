"""The gravity fields as plain north-up arrays, and the region that a file of them covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.regions import Region


@dataclass(frozen=True)
class FieldGrid:
    """Channels of gravity, and of distance from faults, at nodes.

    Attributes
    ----------
    values : ndarray, shape (channels, rows, columns), float32
        North-up (row 0 northernmost); NaN where unknown.
    channels : tuple of str
        Names, such as ``residual_10km``.
    units : tuple of str
        Of each channel: mGal, or km for ``fault_distance``.
    nodes_wsen : tuple of float
        Longitude of the first column, latitude of the southernmost row, longitude of the last column,
        latitude of the northernmost row, degrees.
    region : Region
        What the grid covers: its nodes, and for a pixel-registered grid the half cells around them.
    recipe : dict
        What shaped the values.
    sources : list of dict
        Where they come from.
    """

    values: NDArray[np.float32]
    channels: tuple[str, ...]
    units: tuple[str, ...]
    nodes_wsen: tuple[float, float, float, float]
    region: Region
    recipe: dict[str, Any]
    sources: list[dict[str, Any]]


def read_field_grid(path: Path, channels: Sequence[str] | None = None) -> FieldGrid:
    """Read channels of a ``fields.nc``.

    Parameters
    ----------
    path : Path
        What `gravmap residual` wrote.
    channels : sequence of str, optional
        Names of variables; default the first ``residual_*``.

    Raises
    ------
    InputError
        The file is missing or not ours, or a channel is not in it.
    """
    from gravmap.gravity import field_recipe, field_sources, open_fields

    dataset = open_fields(path)
    try:
        names = [str(name) for name in dataset.data_vars]
        chosen = tuple(channels) if channels else (default_channel(names, path),)
        for name in chosen:
            if name not in names:
                raise InputError(
                    f"{path} has no field {name!r}; it has {', '.join(names)}.",
                    "`gravmap residual --height ...` makes residuals, `gravmap rasterize --faults ...` fault_distance.",
                )
        lat, lon = (np.asarray(dataset[axis].values, dtype=np.float64) for axis in ("lat", "lon"))
        values = np.stack([np.asarray(dataset[name].values, dtype=np.float32)[::-1] for name in chosen])
        return FieldGrid(
            values,
            chosen,
            tuple(str(dataset[name].attrs.get("units", "mGal")) for name in chosen),
            (float(lon[0]), float(lat[0]), float(lon[-1]), float(lat[-1])),
            nodes_region(lat, lon),
            field_recipe(dataset),
            field_sources(dataset),
        )
    finally:
        dataset.close()


def fields_region(path: Path) -> Region:
    """The region that a ``fields.nc`` covers.

    Raises
    ------
    InputError
        The file is missing or not ours.
    """
    from gravmap.gravity import open_fields

    dataset = open_fields(path)
    try:
        return nodes_region(*(np.asarray(dataset[axis].values, dtype=np.float64) for axis in ("lat", "lon")))
    finally:
        dataset.close()


def default_channel(names: Sequence[str], path: Path) -> str:
    """The first residual: what a network is given when nothing else is said."""
    for name in names:
        if name.startswith("residual_"):
            return name
    raise InputError(
        f"{path} holds no residual; it has {', '.join(names) or 'nothing'}.",
        "`gravmap residual --height 10km` makes one.",
    )


def nodes_region(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> Region:
    """The region of a grid, from its ascending node coordinates in degrees.

    A gridline-registered grid, with nodes on whole multiples of its spacing (WGM2012: 65° is node 1950
    of 2 arc-minutes), covers what its nodes span. A pixel-registered one has them half a cell off and
    covers half a cell more on every side, so that both give the same region and the same windows.
    """
    sides = []
    for axis in (lon, lat):
        spacing = (axis[-1] - axis[0]) / (len(axis) - 1)
        # Distance of the first node from the nearest multiple of the spacing, in cells: 0 or 1/2.
        off = abs(axis[0] / spacing - round(axis[0] / spacing))
        half = spacing / 2 if off > 0.4 else 0.0
        sides.append((_rounded(axis[0] - half), _rounded(axis[-1] + half)))
    (west, east), (south, north) = sides
    return Region(west, max(south, -90.0), east, min(north, 90.0))


def _rounded(degrees: float) -> float:
    """Degrees without the dust of float arithmetic: a nanodegree is a tenth of a millimetre."""
    return round(float(degrees), 9)
