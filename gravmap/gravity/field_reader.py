"""Reads ``fields.nc`` as plain north-up arrays: all of it, or a rectangle of nodes at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.lattice import MASK_SUFFIX, mask_name
from gravmap.regions import Region

DEFAULT_RESIDUAL = "residual_10km"
"""Default input of a network: the residual of Liu et al. (2024)."""


@dataclass(frozen=True)
class FieldGrid:
    """Fields in memory, at all nodes of a file.

    Attributes
    ----------
    values : ndarray, shape (channels, rows, columns), float32
        North-up (row 0 northernmost); NaN where unknown.
    channels : tuple of str
        Names, such as ``residual_10km``.
    units : tuple of str
        Of each channel: mGal, or that of a layer (km for ``fault_distance``).
    nodes_wsen : tuple of float
        Longitude of the first column, latitude of the southernmost row, longitude of the last column,
        latitude of the northernmost row, degrees.
    region : Region
        What the grid covers: its nodes, and for a pixel-registered grid the half cells around them.
    recipe : dict
        How the fields were computed.
    sources : list of dict
        Files the fields were made from.
    """

    values: NDArray[np.float32]
    channels: tuple[str, ...]
    units: tuple[str, ...]
    nodes_wsen: tuple[float, float, float, float]
    region: Region
    recipe: dict[str, Any]
    sources: list[dict[str, Any]]

    def with_masks(self) -> FieldGrid:
        """The fields with the mask of each layer that has missing values where gravity is known, after the layer."""
        layers = self.recipe.get("by_channel", {})
        known = np.isfinite(self.values)
        surveyed = known[[name not in layers for name in self.channels]].all(axis=0)
        planes: list[tuple[str, str, NDArray[np.float32]]] = []
        for name, unit, values, here in zip(self.channels, self.units, self.values, known, strict=True):
            planes.append((name, unit, values))
            if name in layers and (surveyed & ~here).any():
                planes.append((mask_name(name), "1", here.astype(np.float32)))
        channels, units, grids = zip(*planes, strict=True)
        return replace(self, channels=channels, units=units, values=np.stack(grids))

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Nodes where all is known, but for layers that have a mask; (rows, columns)."""
        required = [mask_name(name) not in self.channels for name in self.channels]
        return np.asarray(np.isfinite(self.values[required]).all(axis=0))

    def filled(self) -> NDArray[np.float32]:
        """The values with 0 where they are unknown, or the mean of a layer that has no mask."""
        layers = self.recipe.get("by_channel", {})
        known = np.isfinite(self.values)
        filled = np.where(known, self.values, np.float32(0))
        for place, name in enumerate(self.channels):
            here = known[place]
            if name in layers and mask_name(name) not in self.channels and here.any():
                filled[place][~here] = filled[place][here].mean()
        return filled


class FieldReader:
    """An open ``data/fields.nc``; a context manager. Values stay in the file until they are read.

    Parameters
    ----------
    path : Path
        A file that `gravmap residual` wrote.

    Attributes
    ----------
    path : Path
        The file.
    dataset : xr.Dataset
        Its variables and attributes; latitudes ascending, as in the file.
    lat, lon : (ny,), (nx,) float64
        Nodes, degrees; latitudes descending.
    recipe : dict
        How the fields were computed.
    sources : list of dict
        Files the fields were made from.

    Raises
    ------
    InputError
        Missing, unreadable, or not written by gravmap.

    Examples
    --------
    >>> from gravmap.gravity.field_reader import FieldReader
    >>> with FieldReader("data/fields.nc") as fields:
    ...     north_west = fields.read(["residual_10km"], slice(0, 2), slice(0, 3))
    >>> north_west.shape, north_west.dtype
    ((1, 2, 3), dtype('float32'))
    """

    def __init__(self, path: Path | str) -> None:
        from gravmap.gravity.fields_file import (  # here: xarray takes long to load
            field_recipe,
            field_sources,
            open_fields,
        )

        self.path = Path(path)
        self.dataset = open_fields(self.path, lazily=True)
        self.recipe = field_recipe(self.dataset)
        self.sources = field_sources(self.dataset)
        self.lat: NDArray[np.float64] = self.dataset["lat"].values.astype(np.float64)[::-1].copy()
        self.lon: NDArray[np.float64] = self.dataset["lon"].values.astype(np.float64)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.dataset.close()

    @property
    def names(self) -> list[str]:
        """Names of the fields."""
        return [str(name) for name in self.dataset.data_vars]

    @property
    def residuals(self) -> list[str]:
        """Names of the residuals, in the order of the file."""
        return [name for name in self.names if name.startswith("residual_")]

    @property
    def layers(self) -> list[str]:
        """Names of the layers: the fields that are not gravity (`gravmap layer add`)."""
        added = self.recipe.get("by_channel", {})
        return [name for name in self.names if name in added]

    def __contains__(self, name: object) -> bool:
        """Whether a field, or the mask of a layer, can be read."""
        return name in self.dataset or self._masked(str(name)) is not None

    def _masked(self, name: str) -> str | None:
        """The layer that a name is the mask of; None if it is none."""
        layer = name.removesuffix(MASK_SUFFIX)
        return layer if name.endswith(MASK_SUFFIX) and layer in self.layers else None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of nodes."""
        return self.lat.size, self.lon.size

    @property
    def nodes_wsen(self) -> tuple[float, float, float, float]:
        """West, south, east, north of the outermost nodes, degrees."""
        return float(self.lon[0]), float(self.lat[-1]), float(self.lon[-1]), float(self.lat[0])

    @property
    def region(self) -> Region:
        """What the grid covers: its nodes, and for a pixel-registered grid the half cells around them."""
        return nodes_region(self.lat[::-1], self.lon)

    @property
    def default_residual(self) -> str:
        """Name of the residual that is the default input of a network: :data:`DEFAULT_RESIDUAL`, else the first.

        Raises
        ------
        InputError
            The file holds no residual.
        """
        if not self.residuals:
            raise InputError(
                f"{self.path} holds no residual; it has {', '.join(self.names) or 'nothing'}.",
                "`gravmap residual --height 10km` makes one.",
            )
        return DEFAULT_RESIDUAL if DEFAULT_RESIDUAL in self.residuals else self.residuals[0]

    def unit(self, name: str) -> str:
        """Unit of a field; mGal where the file gives none."""
        return "1" if self._masked(name) else str(self.dataset[name].attrs.get("units", "mGal"))

    def read(
        self, names: Sequence[str], rows: slice = slice(None), columns: slice = slice(None)
    ) -> NDArray[np.float32]:
        """Some fields at a rectangle of nodes, or at all.

        Parameters
        ----------
        names : sequence of str
            F variables, or masks of layers (:func:`gravmap.lattice.mask_name`).
        rows, columns : slice
            Row 0 is the northernmost.

        Returns
        -------
        (F, h, w) float32
            In their units; NaN where unknown.

        Raises
        ------
        InputError
            The file has no such field, or is damaged.
        """
        first, last, _ = rows.indices(self.lat.size)
        stored = slice(self.lat.size - last, self.lat.size - first)
        absent = [repr(name) for name in names if name not in self]
        if absent:
            raise InputError(
                f"{self.path} has no field {', '.join(absent)}; it has {', '.join(self.names)}.",
                "`gravmap residual --height ...` makes residuals, `gravmap layer add ...` all others.",
            )
        parts = []
        for name in names:
            layer = self._masked(name)
            values = self.dataset[layer or name].isel(lat=stored, lon=columns).values[::-1]
            parts.append(np.isfinite(values) if layer else values)
        return np.stack(parts).astype(np.float32)

    def interpolate(self, name: str, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.float32]:
        """One field between nodes, bilinear; beyond the outermost nodes as on them.

        Parameters
        ----------
        name : str
            As in :meth:`read`.
        lat, lon : (h,), (w,) float64
            Degrees. The value at a place does not depend on which others are evaluated with it.

        Returns
        -------
        (h, w) float32
            NaN where a node around is unknown.
        """
        west, south, east, north = self.nodes_wsen
        top, down = _node_before((north - lat) / (north - south) * (self.lat.size - 1), self.lat.size)
        left, right = _node_before((lon - west) / (east - west) * (self.lon.size - 1), self.lon.size)
        rows, columns = slice(int(top.min()), int(top.max()) + 2), slice(int(left.min()), int(left.max()) + 2)
        values = self.read([name], rows, columns)[0].astype(np.float64)
        top, left, down = (top - rows.start)[:, None], (left - columns.start)[None, :], down[:, None]
        upper = values[top, left] * (1 - right) + values[top, left + 1] * right
        lower = values[top + 1, left] * (1 - right) + values[top + 1, left + 1] * right
        return np.asarray(upper * (1 - down) + lower * down, np.float32)

    def nearest(
        self, lat: NDArray[np.float64], lon: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of the node nearest to each latitude and longitude."""
        west, south, east, north = self.nodes_wsen
        row = np.rint((north - lat) / (north - south) * (self.lat.size - 1)).astype(np.int64)
        column = np.rint((lon - west) / (east - west) * (self.lon.size - 1)).astype(np.int64)
        return np.clip(row, 0, self.lat.size - 1), np.clip(column, 0, self.lon.size - 1)


def read_fields(path: Path | str, channels: Sequence[str] | None = None) -> FieldGrid:
    """Read channels of a ``fields.nc`` at all nodes.

    Parameters
    ----------
    path : Path
        A file that `gravmap residual` wrote.
    channels : sequence of str, optional
        Names of variables; default :attr:`FieldReader.default_residual`.

    Raises
    ------
    InputError
        The file is missing or not written by gravmap, or a channel is not in it.
    """
    with FieldReader(path) as fields:
        chosen = tuple(channels) if channels else (fields.default_residual,)
        values = fields.read(chosen)
        units = tuple(fields.unit(name) for name in chosen)
        return FieldGrid(values, chosen, units, fields.nodes_wsen, fields.region, fields.recipe, fields.sources)


def fields_region(path: Path | str) -> Region:
    """The region that a ``fields.nc`` covers.

    Raises
    ------
    InputError
        The file is missing or not written by gravmap.
    """
    with FieldReader(path) as fields:
        return fields.region


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
    """Degrees without the rounding errors of float arithmetic: a nanodegree is a tenth of a millimetre."""
    return round(float(degrees), 9)


def _node_before(position: NDArray[np.float64], count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The node before each position, never the last, and the fraction of the way to the next."""
    before = np.clip(np.floor(position), 0, count - 2).astype(np.int64)
    return before, np.clip(position - before, 0.0, 1.0)
