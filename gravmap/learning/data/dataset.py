"""The arrays of a region that a network is trained on, and the targets made of its labels."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.files import atomic_path
from gravmap.lattice import BUFFER, TEST, TUNE, UNUSABLE, axis_cells

IGNORE = -100
"""Target of a cell that teaches nothing: cover, outside the map, held out."""


def to_target(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Turn labels into targets of the network.

    Parameters
    ----------
    labels : ndarray of uint8
        0 cover, 1..K bedrock class, 255 not usable.

    Returns
    -------
    ndarray of int64
        Class - 1; :data:`IGNORE` for cover and unusable cells.
    """
    shifted = labels.astype(np.int64) - 1
    shifted[(labels == 0) | (labels == 255)] = IGNORE
    return shifted


def to_label(classes: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Turn the network's classes (the argmax of its logits) into labels.

    Parameters
    ----------
    classes : ndarray of int
        0..K-1, or :data:`IGNORE`.

    Returns
    -------
    ndarray of uint8
        Class + 1; 255 for :data:`IGNORE`.
    """
    labels = classes.astype(np.int64) + 1
    labels[classes == IGNORE] = 255
    return labels.astype(np.uint8)


@dataclass(frozen=True)
class RegionDataset:
    """Everything training reads, as plain north-up arrays (row 0 northernmost, column 0 westernmost).

    Attributes
    ----------
    fields : ndarray, shape (C, ny, nx), float32
        Channels at grid nodes, in `channel_units` (mGal unless said otherwise), finite.
    field_valid : ndarray, shape (ny, nx), bool
        Nodes where the field was measured (elsewhere `fields` is a filler).
    field_nodes_wsen : ndarray, shape (4,), float64
        Longitude of the first column's nodes, latitude of the southernmost row, longitude of the last
        column, latitude of the northernmost row; degrees.
    labels : ndarray, shape (Ny, Nx), uint8
        0 cover, 1..K bedrock class, 255 not usable.
    label_bounds_wsen : ndarray, shape (4,), float64
        Outer edges of the label cells, degrees.
    small : ndarray, shape (Ny, Nx), uint8
        1 where the body of equal class is small, else 0.
    role : ndarray, shape (Ny, Nx), uint8
        0 train, 1 tune, 2 test, 3 in none of them (the buffer around held-out blocks).
    windows : ndarray, shape (n, 4), float64
        West, south, east, north of every training window, degrees.
    window_scale_deg : ndarray, shape (n,), float64
        Side of each window, degrees. Where it is not the box's (a whole crust), crops of half this side come from
        anywhere in the box.
    window_role : ndarray, shape (n,), uint8
        Role of each window; all 0 where the split is by blocks.
    meta : dict
        JSON-able: channels, channel_units, classes, tile_size_px, region_wsen, field_recipe, sources, split,
        legend_toml.
    """

    fields: NDArray[np.float32]
    field_valid: NDArray[np.bool_]
    field_nodes_wsen: NDArray[np.float64]
    labels: NDArray[np.uint8]
    label_bounds_wsen: NDArray[np.float64]
    small: NDArray[np.uint8]
    role: NDArray[np.uint8]
    windows: NDArray[np.float64]
    window_scale_deg: NDArray[np.float64]
    window_role: NDArray[np.uint8]
    meta: dict[str, Any]

    def __post_init__(self) -> None:
        for name, dimensions, dtype in _ARRAYS:
            array = getattr(self, name)
            if array.ndim != dimensions or array.dtype != dtype:
                found = f"has {array.ndim} dimensions of {array.dtype}"
                raise InputError(f"The tile set's {name} {found}; {dimensions} of {np.dtype(dtype)} are needed.", _ANEW)
        if self.fields.shape[1:] != self.field_valid.shape or min(self.field_valid.shape) < 2:
            raise InputError(f"fields {self.fields.shape} and field_valid {self.field_valid.shape} do not fit.", _ANEW)
        if not self.labels.shape == self.small.shape == self.role.shape:
            shapes = f"{self.labels.shape}, {self.small.shape}, {self.role.shape}"
            raise InputError(f"labels, small and role have different shapes: {shapes}.", _ANEW)
        if not len(self.windows) == len(self.window_scale_deg) == len(self.window_role):
            raise InputError("windows, window_scale_deg and window_role differ in length.", _ANEW)
        if len(self.meta["channels"]) != len(self.fields):
            raise InputError(f"{len(self.fields)} fields, but {len(self.meta['channels'])} channel names.", _ANEW)
        if len(self.channel_units) != len(self.fields):
            raise InputError(f"{len(self.fields)} fields, but {len(self.channel_units)} units of them.", _ANEW)
        if not np.isfinite(self.fields).all():
            raise InputError("The tile set's fields hold values that are no number.", _ANEW)
        strange = np.setdiff1d(np.unique(self.labels), [*range(len(self.classes) + 1), UNUSABLE])
        if strange.size:
            raise InputError(f"Labels {strange.tolist()} are none of the {len(self.classes)} classes.", _ANEW)

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> RegionDataset:
        """Take the tile set's hand-over (`gravmap.tiling.load_arrays`), casting nothing but what is free.

        Raises
        ------
        InputError
            An array is missing or has the wrong shape or type.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in arrays]
        if missing:
            raise InputError(f"The tile set's arrays lack {', '.join(missing)}.", _ANEW)
        return cls(**{name: arrays[name] for name in names})

    @classmethod
    def load(cls, path: Path) -> RegionDataset:
        """Read an area from one ``.npz`` (written by :meth:`save` or by the tile room); needs numpy alone.

        Raises
        ------
        InputError
            The file is missing, damaged, or holds something else.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays: dict[str, Any] = {name: stored[name] for name in stored.files}
            arrays["meta"] = json.loads(str(arrays["meta"]))
        except FileNotFoundError:
            raise InputError(f"{path} is missing.", "`gravmap tile` makes the tile set it is packed from.") from None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is no readable packed tile set: {error}.", _ANEW) from None
        return cls.from_arrays(arrays)

    def save(self, path: Path) -> None:
        """Write the area into one ``.npz``, whole or not at all; no pickle in it."""
        arrays = {name: getattr(self, name) for name, _, _ in _ARRAYS}
        with atomic_path(path) as temporary:
            np.savez(temporary, meta=np.array(json.dumps(self.meta)), **arrays)

    @property
    def channels(self) -> list[str]:
        """Names of the fields."""
        return list(self.meta["channels"])

    @property
    def channel_units(self) -> list[str]:
        """Unit of each field; mGal where the hand-over says none."""
        return list(self.meta.get("channel_units") or ["mGal"] * len(self.fields))

    @property
    def classes(self) -> list[dict[str, Any]]:
        """Index, name, colour and age of each class, in order of the index."""
        return list(self.meta["classes"])

    @property
    def node_lat(self) -> NDArray[np.float64]:
        """Latitudes of the node rows, north first, degrees."""
        _, south, _, north = self.field_nodes_wsen
        return np.linspace(north, south, self.fields.shape[1])

    @property
    def node_lon(self) -> NDArray[np.float64]:
        """Longitudes of the node columns, west first, degrees."""
        west, _, east, _ = self.field_nodes_wsen
        return np.linspace(west, east, self.fields.shape[2])

    def label_rows(self, lat: NDArray[np.float64]) -> NDArray[np.int64]:
        """Row of the label cell at each latitude; -1 where outside. A point between two rows is in the southern one."""
        _, south, _, north = self.label_bounds_wsen
        return axis_cells(lat, north, south, self.labels.shape[0])

    def label_columns(self, lon: NDArray[np.float64]) -> NDArray[np.int64]:
        """Column of the label cell at each longitude; -1 where outside. A point between two is in the eastern one."""
        west, _, east, _ = self.label_bounds_wsen
        return axis_cells(lon, west, east, self.labels.shape[1])

    def node_truth(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Label and role at every node of the field: what scores are counted on, each node once.

        Returns
        -------
        labels : ndarray, shape (ny, nx), uint8
            Label of the cell a node lies in; 255 outside the labels and where the field is not valid.
        role : ndarray, shape (ny, nx), uint8
            Role of that cell. Under a split by windows: the role of the held-out windows over the node.
        """
        rows, columns = self.label_rows(self.node_lat), self.label_columns(self.node_lon)
        outside = (rows < 0)[:, None] | (columns < 0)[None, :]
        labels = self.labels[rows[:, None], columns[None, :]]
        role = self.role[rows[:, None], columns[None, :]]
        for held in (TUNE, TEST):
            for west, south, east, north in self.windows[self.window_role == held]:
                tall = (self.node_lat >= south) & (self.node_lat <= north)
                role[np.ix_(tall, (self.node_lon >= west) & (self.node_lon <= east))] = held
        labels[outside | ~self.field_valid] = UNUSABLE
        role[outside] = BUFFER
        return labels, role

    def fingerprint(self) -> str:
        """SHA-256 over every array and the split: a run goes on only with the area it began with."""
        digest = hashlib.sha256()
        for name, _, _ in _ARRAYS:
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        digest.update(json.dumps([self.meta["channels"], self.meta.get("split")], sort_keys=True).encode())
        return digest.hexdigest()


_ANEW = "`gravmap tile --overwrite` makes it anew."

_ARRAYS: tuple[tuple[str, int, type], ...] = (
    ("fields", 3, np.float32),
    ("field_valid", 2, np.bool_),
    ("field_nodes_wsen", 1, np.float64),
    ("labels", 2, np.uint8),
    ("label_bounds_wsen", 1, np.float64),
    ("small", 2, np.uint8),
    ("role", 2, np.uint8),
    ("windows", 2, np.float64),
    ("window_scale_deg", 1, np.float64),
    ("window_role", 1, np.uint8),
)
