"""The arrays of a region that a network is trained on, and the targets made of its labels."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, NotRequired

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from gravmap.errors import InputError
from gravmap.files import atomic_path
from gravmap.lattice import BUFFER, TEST, TRAIN, TUNE, UNUSABLE, axis_cells, mask_name, turn_longitudes
from gravmap.records import ClassRecord, FieldRecipe, Ge, Len, RunSplit, SourceRecord, parse_record, record

IGNORE = -100
"""Target of a cell that the loss ignores: cover, outside the map, held out."""


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


@record
class MetaRecord(TypedDict):
    """``meta`` of a dataset: what its arrays are."""

    channels: Annotated[list[str], Len(1)]
    channel_units: NotRequired[list[str] | None]
    classes: Annotated[list[ClassRecord], Len(1, 254)]
    tile_size_px: NotRequired[Annotated[int, Ge(1)]]
    region_wsen: NotRequired[list[float]]
    field_recipe: NotRequired[FieldRecipe]
    sources: NotRequired[list[SourceRecord]]
    split: NotRequired[RunSplit]
    legend_toml: NotRequired[str]


@dataclass(frozen=True)
class RegionDataset:
    """Fields, labels, roles and windows of one region, as plain north-up arrays (row 0 north, column 0 west).

    Attributes
    ----------
    fields : ndarray, shape (C, ny, nx), float32
        Channels at grid nodes, in `channel_units` (mGal by default), finite. A layer with missing values is 0 there,
        and its mask is the channel after it (:func:`gravmap.lattice.mask_name`).
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
        1 in small bodies (connected cells of one class), else 0.
    role : ndarray, shape (Ny, Nx), uint8
        0 train, 1 tune, 2 test, 3 unused (the buffer around held-out blocks).
    windows : ndarray, shape (n, 4), float64
        West, south, east, north of every training window, degrees.
    window_scale_deg : ndarray, shape (n,), float64
        Side of each window, degrees. Where the box is larger (a whole crust), crops of half this side come from
        anywhere in it.
    window_role : ndarray, shape (n,), uint8
        Role of each window; all 0 where the split is by blocks.
    meta : dict
        JSON-able: channels, channel_units, classes, tile_size_px, region_wsen, field_recipe, sources, split,
        legend_toml.
    cover_m : ndarray, shape (Ny, Nx), float32, optional
        Thickness of the cover, metres, finite; of simulated crusts, where it is known.

    Raises
    ------
    InputError
        Arrays whose shapes, types or values do not fit together.

    Examples
    --------
    A tile set gives the arrays (:func:`gravmap.tiling.load_arrays`):

    >>> from gravmap.learning import RegionDataset
    >>> from gravmap.tiling import load_arrays
    >>> dataset = RegionDataset.from_arrays(load_arrays("data/tiles", split="blocks", fold=0))
    >>> dataset.channels, dataset.fields.shape, dataset.labels.shape
    (['residual_10km'], (1, 51, 81), (250, 400))
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
    cover_m: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        for name, dimensions, dtype in _ARRAYS:
            array = getattr(self, name)
            if array is None:
                continue
            if array.ndim != dimensions or array.dtype != dtype:
                found = f"has {array.ndim} dimensions of {array.dtype}"
                raise InputError(f"The tile set's {name} {found}; {dimensions} of {np.dtype(dtype)} are needed.", _ANEW)
        if self.fields.shape[1:] != self.field_valid.shape or min(self.field_valid.shape) < 2:
            raise InputError(
                f"fields {self.fields.shape} and field_valid {self.field_valid.shape} do not fit together.", _ANEW
            )
        if not self.labels.shape == self.small.shape == self.role.shape:
            shapes = f"{self.labels.shape}, {self.small.shape}, {self.role.shape}"
            raise InputError(f"labels, small and role have different shapes: {shapes}.", _ANEW)
        if self.cover_m is not None and self.cover_m.shape != self.labels.shape:
            raise InputError(f"labels {self.labels.shape} and cover_m {self.cover_m.shape} do not fit together.", _ANEW)
        if not len(self.windows) == len(self.window_scale_deg) == len(self.window_role):
            raise InputError("windows, window_scale_deg and window_role differ in length.", _ANEW)
        if len(self.meta["channels"]) != len(self.fields):
            raise InputError(f"{len(self.fields)} fields, but {len(self.meta['channels'])} channel names.", _ANEW)
        if len(self.channel_units) != len(self.fields):
            raise InputError(f"{len(self.fields)} fields, but {len(self.channel_units)} units of them.", _ANEW)
        if not np.isfinite(self.fields).all():
            raise InputError("The tile set's fields hold values that are not finite.", _ANEW)
        strange = np.setdiff1d(np.unique(self.labels), [*range(len(self.classes) + 1), UNUSABLE])
        if strange.size:
            raise InputError(f"Labels {strange.tolist()} are not among the {len(self.classes)} classes.", _ANEW)

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> RegionDataset:
        """Make a dataset of the arrays of :func:`gravmap.tiling.load_arrays`, without a copy.

        Raises
        ------
        InputError
            An array is missing or has the wrong shape or type.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in arrays and name != _OPTIONAL]
        if missing:
            raise InputError(f"The tile set's arrays lack {', '.join(missing)}.", _ANEW)
        return cls(**{name: arrays[name] for name in names if name in arrays})

    @classmethod
    def load(cls, path: Path | str) -> RegionDataset:
        """Read a dataset from one ``.npz``, written by :meth:`save` or :func:`gravmap.tiling.pack`; needs numpy alone.

        Raises
        ------
        InputError
            The file is missing, damaged, or holds something else.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays: dict[str, Any] = {name: stored[name] for name in stored.files}
            arrays["meta"] = parse_record(str(arrays["meta"]), MetaRecord, f"meta of {path}", _ANEW)
        except FileNotFoundError:
            raise InputError(f"{path} is missing.", "`gravmap tile` makes the tile set it is packed from.") from None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is not a readable packed tile set: {error}.", _ANEW) from None
        return cls.from_arrays(arrays)

    def save(self, path: Path) -> None:
        """Write the dataset into one ``.npz`` without pickle; the file appears only when it is complete."""
        arrays: dict[str, Any] = dict(self._arrays())
        with atomic_path(path) as temporary:
            np.savez(temporary, meta=np.array(json.dumps(self.meta)), **arrays)

    def _arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Name and values of every array that there is."""
        for name, _, _ in _ARRAYS:
            if getattr(self, name) is not None:
                yield name, getattr(self, name)

    @property
    def channels(self) -> list[str]:
        """Names of the fields."""
        return list(self.meta["channels"])

    @property
    def channel_units(self) -> list[str]:
        """Unit of each field; mGal where none is given."""
        return list(self.meta.get("channel_units") or ["mGal"] * len(self.fields))

    @property
    def layers(self) -> list[str]:
        """Names of the fields that are layers (`gravmap layer add`), not gravity."""
        added = self.meta.get("field_recipe", {}).get("by_channel", {})
        return [name for name in self.channels if name in added]

    def known_mask(self, name: str) -> NDArray[np.bool_]:
        """Nodes where a field is known, (ny, nx): those of `field_valid`, of a layer with a mask those of both."""
        if mask_name(name) not in self.channels:
            return self.field_valid
        return np.asarray(self.field_valid & (self.fields[self.channels.index(mask_name(name))] > 0))

    def known_values(self, name: str) -> NDArray[np.float32]:
        """Values of a field where it is known, (n,)."""
        values: NDArray[np.float32] = self.fields[self.channels.index(name)][self.known_mask(name)]
        return values

    def filled_fields(self) -> NDArray[np.float32]:
        """The fields with the mean of a layer where it is missing, (C, ny, nx): for methods that read no masks.

        Masks stay among them, so that such methods see where values are missing.
        """
        fields = self.fields
        for place, name in enumerate(self.channels):
            if mask_name(name) in self.channels:
                known = self.known_mask(name)
                if fields is self.fields:
                    fields = fields.copy()
                fields[place] = np.where(known, fields[place], fields[place][known].mean() if known.any() else 0)
        return fields

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
        return axis_cells(turn_longitudes(lon, west, east), west, east, self.labels.shape[1])

    def node_cover_km(self) -> NDArray[np.float32] | None:
        """Thickness of the cover at every node of the field, km, (ny, nx); NaN outside the labels, None if unknown."""
        if self.cover_m is None:
            return None
        rows, columns = self.label_rows(self.node_lat), self.label_columns(self.node_lon)
        outside = (rows < 0)[:, None] | (columns < 0)[None, :]
        return np.where(outside, np.float32(np.nan), self.cover_m[rows[:, None], columns[None, :]] / np.float32(1000))

    def node_truth(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Label and role at every node of the field: scores count each node once.

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
        for held_out in (TUNE, TEST):
            for west, south, east, north in self.windows[self.window_role == held_out]:
                rows_inside = (self.node_lat >= south) & (self.node_lat <= north)
                role[np.ix_(rows_inside, (self.node_lon >= west) & (self.node_lon <= east))] = held_out
        labels[outside | ~self.field_valid] = UNUSABLE
        role[outside] = BUFFER
        return labels, role

    def fingerprint(self) -> str:
        """SHA-256 over every array and the split: a run can be resumed only with the dataset it started with."""
        digest = hashlib.sha256()
        for _, array in self._arrays():
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(json.dumps([self.meta["channels"], self.meta.get("split")], sort_keys=True).encode())
        return digest.hexdigest()


def known_labels(dataset: RegionDataset) -> NDArray[np.uint8]:
    """NDArray[np.uint8] at nodes that training uses: classes 1..K there, 0 elsewhere; shape (ny, nx)."""
    labels, _ = dataset.node_truth()
    return np.where(is_bedrock(labels) & training_mask(dataset), labels, 0).astype(np.uint8)


def training_mask(dataset: RegionDataset) -> NDArray[np.bool_]:
    """Nodes whose label training uses: in cells of role TRAIN, inside a training window; shape (ny, nx)."""
    lat, lon = dataset.node_lat, dataset.node_lon
    rows, columns = dataset.label_rows(lat), dataset.label_columns(lon)
    inside = (rows >= 0)[:, None] & (columns >= 0)[None, :]
    training = inside & (dataset.role[rows[:, None], columns[None, :]] == TRAIN)
    covered = np.zeros(training.shape, bool)
    for west, south, east, north in dataset.windows[dataset.window_role == TRAIN]:
        covered[np.ix_((lat >= south) & (lat <= north), (lon >= west) & (lon <= east))] = True
    return np.asarray(training & covered)


def is_bedrock(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Labels that are a bedrock class: neither cover nor unusable."""
    return np.asarray((labels > 0) & (labels != UNUSABLE))


_ANEW = "`gravmap tile --overwrite` makes it again."

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
    ("cover_m", 2, np.float32),
)
_OPTIONAL = "cover_m"
