"""The mapped outcrop around a map's windows, as networks read it: made once, and kept in a file for every process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.files import atomic_path
from gravmap.geology import LabelFile
from gravmap.lattice import LEAST_KM_PER_DEGREE, UNUSABLE
from gravmap.learning.data.outcrop_context import context_names, outcrop_context
from gravmap.units import format_length

MARGIN_KM = 200.0
"""Outcrop so far around the windows counts: hardly any cover is wider, and beyond it outcrop says next to nothing."""


@dataclass(frozen=True)
class OutcropFile:
    """Outcrop as context at a rectangle of a field's nodes.

    Attributes
    ----------
    path : Path
        A ``.npy`` of (K + 2, h, w) float32, of which only what is asked for is read.
    top, left : int
        Row and column of its first node among all of the field.
    """

    path: Path
    top: int
    left: int

    def read(self, names: Sequence[str], rows: slice, columns: slice) -> NDArray[np.float32]:
        """Some of its fields, (F, rows, columns), at a rectangle of the field's nodes; NaN where it has none."""
        stored = np.load(self.path, mmap_mode="r")
        places = [context_names(len(stored) - 2).index(name) for name in names]
        high, wide = stored.shape[1:]
        found = np.full((len(names), rows.stop - rows.start, columns.stop - columns.start), np.nan, np.float32)
        top, bottom = max(rows.start, self.top), min(rows.stop, self.top + high)
        left, right = max(columns.start, self.left), min(columns.stop, self.left + wide)
        if top < bottom and left < right:
            inside = stored[places, top - self.top : bottom - self.top, left - self.left : right - self.left]
            found[:, top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = inside
        return found


def lay_outcrop(
    path: Path,
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
    labels_path: Path,
    windows: Mapping[float, NDArray[np.float64]],
    classes: int,
) -> OutcropFile:
    """Spread classes out from all mapped outcrop under the windows and 200 km around them, once for all windows.

    Parameters
    ----------
    path : Path
        The file to write, whole or not at all.
    lat, lon : (ny,), (nx,) float64
        Nodes of the fields, degrees, `lat` descending.
    labels_path : Path
        ``data/labels.tif``, whose classes are the networks'.
    windows : dict of float to (n, 4) float64
        Size of windows, degrees, to west, south, east, north.
    classes : int
        K.

    Raises
    ------
    InputError
        No bedrock is mapped there, or all of it is of one class.
    """
    west, south, _, _ = np.concatenate(list(windows.values())).min(axis=0)
    _, _, east, north = np.concatenate(list(windows.values())).max(axis=0)
    tall, wide = margin_yx_deg(np.array([south, north]), MARGIN_KM)
    rows = np.flatnonzero((lat >= south - tall) & (lat <= north + tall))
    columns = np.flatnonzero((lon >= west - wide) & (lon <= east + wide))
    lat, lon = lat[rows], lon[columns]
    with LabelFile(labels_path) as labels:
        mapped = labels.sample(lat, lon)
    known = np.where(mapped == UNUSABLE, 0, mapped).astype(np.uint8)
    if not known.any():
        raise InputError(
            f"{labels_path} shows no outcrop between {lon[0]:.2f} and {lon[-1]:.2f} E, {lat[-1]:.2f} and {lat[0]:.2f} N"
            f" (the map's windows and {format_length(1000 * MARGIN_KM)} around them), and the network starts from it.",
            "Rasterize a map that reaches outcrop, or --run a network without context.",
        )
    context = outcrop_context(known, lat, lon, classes)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, context, allow_pickle=False)
    return OutcropFile(path, int(rows[0]), int(columns[0]))


def margin_yx_deg(lat: NDArray[np.float64], km: float) -> tuple[float, float]:
    """A distance in degrees of latitude, and of longitude at the latitude that is nearest to a pole."""
    tall = km / LEAST_KM_PER_DEGREE
    widest = np.cos(np.radians(min(float(np.abs(lat).max()) + tall, 89.9)))
    return tall, float(tall / widest)
