"""The fields at nodes, read from their file a part at a time: a large map needs no more memory than a small one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from gravmap.gravity import field_recipe, open_fields
from gravmap.learning.data.outcrop_context import is_context
from gravmap.mapping.outcrop_file import OutcropFile


class FieldReader:
    """An open ``data/fields.nc``, north-up; a context manager.

    Parameters
    ----------
    path : Path
        The file.
    outcrop : OutcropFile, optional
        What stands for the fields of outcrop as context, which are no part of the file; may be set later.

    Attributes
    ----------
    path : Path
        The file.
    dataset : xr.Dataset
        Its variables and attributes, values still in the file; latitudes ascending as in the file.
    recipe : dict
        How the fields were made.
    lat, lon : (ny,), (nx,) float64
        Nodes, degrees; latitudes descending.

    Raises
    ------
    InputError
        Missing, unreadable, or not gravmap's.
    """

    def __init__(self, path: Path, outcrop: OutcropFile | None = None) -> None:
        self.path, self.outcrop = path, outcrop
        self.dataset = open_fields(path, lazily=True)
        self.recipe = field_recipe(self.dataset)
        self.lat: NDArray[np.float64] = self.dataset["lat"].values.astype(np.float64)[::-1].copy()
        self.lon: NDArray[np.float64] = self.dataset["lon"].values.astype(np.float64)

    def __enter__(self) -> FieldReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self.dataset.close()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of nodes."""
        return self.lat.size, self.lon.size

    @property
    def nodes_wsen(self) -> tuple[float, float, float, float]:
        """West, south, east, north of the outermost nodes, degrees."""
        return float(self.lon[0]), float(self.lat[-1]), float(self.lon[-1]), float(self.lat[0])

    def read(self, names: Sequence[str], rows: slice, columns: slice) -> NDArray[np.float32]:
        """Some fields at a rectangle of nodes.

        Parameters
        ----------
        names : sequence of str
            F variables, or fields of the outcrop.
        rows, columns : slice
            Row 0 is the northernmost.

        Returns
        -------
        (F, h, w) float32
            In their units; NaN where unknown.
        """
        ny = self.lat.size
        stored = slice(ny - rows.stop, ny - rows.start)
        parts = []
        for name in names:
            if not is_context(name):
                parts.append(self.dataset[name].isel(lat=stored, lon=columns).values[::-1])
            elif self.outcrop is not None:
                parts.append(self.outcrop.read([name], rows, columns)[0])
            else:
                raise ValueError(f"{name} is asked for before the outcrop is laid")
        return np.stack(parts).astype(np.float32)

    def between(self, name: str, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.float32]:
        """One field at places between nodes, bilinear; beyond the outermost as on them.

        Parameters
        ----------
        name : str
            As in :meth:`read`.
        lat, lon : (h,), (w,) float64
            Degrees. What a place gets does not hang on the others that are asked for.

        Returns
        -------
        (h, w) float32
            NaN where a node around is unknown.
        """
        west, south, east, north = self.nodes_wsen
        top, down = _split((north - lat) / (north - south) * (self.lat.size - 1), self.lat.size)
        left, right = _split((lon - west) / (east - west) * (self.lon.size - 1), self.lon.size)
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


def _split(position: NDArray[np.float64], count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The node before each position, never the last, and the part of the way to the next."""
    before = np.clip(np.floor(position), 0, count - 2).astype(np.int64)
    return before, np.clip(position - before, 0.0, 1.0)
