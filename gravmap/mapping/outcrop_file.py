"""The outcrop context of a map: computed once for all windows, and stored in a file that every process reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.files import atomic_path
from gravmap.geology.labels import LabelFile
from gravmap.gravity.field_reader import FieldReader
from gravmap.lattice import LEAST_KM_PER_DEGREE, UNUSABLE
from gravmap.learning.data.outcrop_context import context_names, is_context, outcrop_context, require_two_classes
from gravmap.units import format_length

MARGIN_KM = 200.0
"""Outcrop up to this distance around the windows is used; beyond it, its influence is negligible."""


@dataclass(frozen=True)
class OutcropFile:
    """A file of outcrop context at a rectangle of the fields' nodes.

    Attributes
    ----------
    path : Path
        ``.npy`` file, (K + 2, h, w) float32; only the nodes that are needed are read.
    top, left : int
        Row and column of its first node in the fields.
    """

    path: Path
    top: int
    left: int

    def read(self, names: Sequence[str], rows: slice, columns: slice) -> NDArray[np.float32]:
        """Read channels by name at a rectangle of the fields' nodes, (F, rows, columns); NaN outside the file."""
        stored = np.load(self.path, mmap_mode="r")
        indices = [context_names(len(stored) - 2).index(name) for name in names]
        height, width = stored.shape[1:]
        values = np.full((len(names), rows.stop - rows.start, columns.stop - columns.start), np.nan, np.float32)
        top, bottom = max(rows.start, self.top), min(rows.stop, self.top + height)
        left, right = max(columns.start, self.left), min(columns.stop, self.left + width)
        if top < bottom and left < right:
            inside = stored[indices, top - self.top : bottom - self.top, left - self.left : right - self.left]
            values[:, top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = inside
        return values


class FieldsWithOutcrop(FieldReader):
    """An open ``data/fields.nc`` whose outcrop channels are read from another file.

    Parameters
    ----------
    path : Path
        Path of the fields.
    outcrop : OutcropFile, optional
        The outcrop channels; may be set later.
    """

    def __init__(self, path: Path, outcrop: OutcropFile | None = None) -> None:
        super().__init__(path)
        self.outcrop = outcrop

    def read(
        self, names: Sequence[str], rows: slice = slice(None), columns: slice = slice(None)
    ) -> NDArray[np.float32]:
        """Read channels of either file, as :meth:`gravmap.gravity.FieldReader.read`.

        Raises
        ------
        InputError
            As there.
        ValueError
            An outcrop channel is read before `outcrop` is set.
        """
        if not any(map(is_context, names)):
            return super().read(names, rows, columns)
        if self.outcrop is None:
            raise ValueError(f"{', '.join(filter(is_context, names))}: there is no outcrop file to read from")
        measured, outcrop = super().read, self.outcrop.read
        return np.concatenate([(outcrop if is_context(name) else measured)([name], rows, columns) for name in names])


def write_outcrop_context(
    path: Path,
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
    labels_path: Path,
    windows: Mapping[float, NDArray[np.float64]],
    classes: int,
) -> OutcropFile:
    """Compute the outcrop context from the mapped outcrop under the windows and 200 km around them, and write it.

    Parameters
    ----------
    path : Path
        The file to write.
    lat, lon : (ny,), (nx,) float64
        Nodes of the fields, degrees, `lat` descending.
    labels_path : Path
        ``data/labels.tif``, with the classes of the networks.
    windows : dict of float to (n, 4) float64
        Window size to the bounds of its windows: west, south, east, north, degrees.
    classes : int
        Number of classes K.

    Raises
    ------
    InputError
        There is no mapped outcrop, or all of it is of one class.
    """
    known, rows, columns = mapped_outcrop(lat, lon, labels_path, windows)
    context = outcrop_context(known, lat[rows], lon[columns], classes)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, context, allow_pickle=False)
    return OutcropFile(path, int(rows[0]), int(columns[0]))


def mapped_outcrop(
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
    labels_path: Path,
    windows: Mapping[float, NDArray[np.float64]],
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Read the mapped outcrop under the windows and 200 km around them, and the rows and columns of its nodes.

    Parameters and errors are those of :func:`write_outcrop_context`.
    """
    west, south, _, _ = np.concatenate(list(windows.values())).min(axis=0)
    _, _, east, north = np.concatenate(list(windows.values())).max(axis=0)
    margin_y, margin_x = margin_yx_deg(np.array([south, north]), MARGIN_KM)
    rows = np.flatnonzero((lat >= south - margin_y) & (lat <= north + margin_y))
    columns = np.flatnonzero((lon >= west - margin_x) & (lon <= east + margin_x))
    lat, lon = lat[rows], lon[columns]
    with LabelFile(labels_path) as labels:
        mapped = labels.sample(lat, lon)
    known = np.where(mapped == UNUSABLE, 0, mapped).astype(np.uint8)
    if not known.any():
        raise InputError(
            f"{labels_path} shows no outcrop between {lon[0]:.2f} and {lon[-1]:.2f} E, {lat[-1]:.2f} and {lat[0]:.2f} N"
            f" (the map's windows and {format_length(1000 * MARGIN_KM)} around them), which the network reads.",
            "Rasterize a map with outcrop there, or choose a network without outcrop context with --run.",
        )
    require_two_classes(known)
    return known, rows, columns


def margin_yx_deg(lat: NDArray[np.float64], km: float) -> tuple[float, float]:
    """Convert a distance to degrees of latitude, and of longitude at the latitude nearest to a pole."""
    margin_y = km / LEAST_KM_PER_DEGREE
    cosine = np.cos(np.radians(min(float(np.abs(lat).max()) + margin_y, 89.9)))
    return margin_y, float(margin_y / cosine)
