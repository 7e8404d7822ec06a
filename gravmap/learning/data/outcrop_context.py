"""Mapped outcrop as input of a network: fields at nodes with the class mapped nearby, and the distance to it.

Training crops, augmentation, windows and maps treat these fields as they treat gravity. They have no unit, so changes
of gravity's values (noise, factor, offset) leave them alone.

| field              | value at a node                                                            |
|--------------------|----------------------------------------------------------------------------|
| `outcrop_1` .. `K` | log of the probability of each class (label_diffusion.py), >= 0.001        |
| `outcrop_distance` | log(1 + km to the nearest outcrop / 10)                                    |
| `outcrop_known`    | 1 on outcrop, 0 elsewhere                                                  |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gravmap.errors import InputError
from gravmap.lattice import EARTH_RADIUS_KM, spacing_yx_km, unit_vectors
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.data.label_diffusion import class_probabilities, need_outcrop

CONTEXT = "outcrop"
"""Value of `--context`."""

UNIT = "1"
LEAST = 1e-3
"""Least probability of a class anywhere, so that a network can still predict it."""

DISTANCE_KM = 10.0
PREFIX = f"{CONTEXT}_"
DISTANCE = f"{PREFIX}distance"


def context_names(classes: int) -> list[str]:
    """Names of the fields of context: K + 2 of them, the classes first."""
    return [f"{PREFIX}{index}" for index in range(1, classes + 1)] + [DISTANCE, f"{PREFIX}known"]


def is_context(name: str) -> bool:
    """Whether a field is outcrop as context."""
    return name.startswith(PREFIX)


def distance_km_from_channel(plane: NDArray[np.floating]) -> NDArray[np.float64]:
    """Kilometres to the nearest outcrop, from values of the field `outcrop_distance`."""
    return np.asarray(DISTANCE_KM * np.expm1(plane.astype(np.float64)))


def in_short(names: Iterable[str]) -> list[str]:
    """Names of fields for messages: those of outcrop as one."""
    return list(dict.fromkeys(CONTEXT if is_context(name) else name for name in names))


def measured_names(names: Sequence[str]) -> list[str]:
    """Names of the fields, or channels, that are not outcrop as context."""
    return [name for name in names if not is_context(name)]


def distance_to_outcrop_km(
    known: NDArray[np.uint8], lat_deg: NDArray[Any], lon_deg: NDArray[Any]
) -> NDArray[np.float64]:
    """Great-circle distance of every node to the nearest known node, km; shape (ny, nx)."""
    need_outcrop(known)
    points = unit_vectors(lat_deg, lon_deg)
    chord, _ = cKDTree(points[known.ravel() > 0]).query(points)
    distance: NDArray[np.float64] = 2 * EARTH_RADIUS_KM * np.arcsin(np.clip(chord / 2, 0, 1)).reshape(known.shape)
    return distance


def require_two_classes(known: NDArray[np.uint8]) -> None:
    """Refuse outcrop of a single class: as context it is no information.

    Raises
    ------
    InputError
        The same class, the only one, at all nodes that are not 0.
    """
    present = np.unique(known[known > 0])
    if len(present) == 1:
        raise InputError(
            f"All outcrop here is of one class ({present[0]}): as context it is no information.",
            "Use a larger window, or a network without context.",
        )


def outcrop_context(
    known: NDArray[np.uint8], lat: NDArray[np.float64], lon: NDArray[np.float64], classes: int
) -> NDArray[np.float32]:
    """The fields of outcrop as context, at every node of a grid.

    Parameters
    ----------
    known : (ny, nx) uint8
        1..K where bedrock is mapped, 0 elsewhere.
    lat, lon : (ny,), (nx,) float
        Nodes, degrees, evenly spaced.
    classes : int
        K.

    Returns
    -------
    (K + 2, ny, nx) float32
        In the order of :func:`context_names`.

    Raises
    ------
    InputError
        No outcrop is known, or only one class, which is no information.

    Examples
    --------
    >>> import numpy as np
    >>> from gravmap.learning.data.outcrop_context import outcrop_context
    >>> known = np.zeros((5, 6), np.uint8)
    >>> known[0, 0], known[4, 5] = 1, 2
    >>> fields = outcrop_context(known, np.linspace(46, 45, 5), np.linspace(80, 81, 6), classes=2)
    >>> fields.shape, bool(fields[0, 0, 1] > fields[1, 0, 1])
    ((4, 5, 6), True)
    """
    require_two_classes(known)
    probabilities = class_probabilities(known, spacing_yx_km(lat, lon), classes)
    probabilities = np.maximum(probabilities, np.float32(LEAST))
    logs = np.log(probabilities / probabilities.sum(axis=0))
    distance = np.log1p(distance_to_outcrop_km(known, lat, lon) / DISTANCE_KM)
    return np.concatenate([logs, distance[None], (known > 0)[None]]).astype(np.float32)


def with_context(dataset: RegionDataset, known: NDArray[np.uint8]) -> RegionDataset:
    """A dataset with the fields of its outcrop after its own.

    Parameters
    ----------
    dataset : RegionDataset
        Without context.
    known : (ny, nx) uint8
        Class at the nodes where it is known, 0 elsewhere; training labels alone
        (:func:`gravmap.learning.data.dataset.known_labels`).

    Returns
    -------
    RegionDataset
        With K + 2 more fields, their names and units in `meta`.

    Raises
    ------
    InputError
        As :func:`outcrop_context`; or the dataset has such fields already.

    Examples
    --------
    >>> from gravmap.learning.data.dataset import RegionDataset
    >>> from gravmap.learning.data.outcrop_context import with_context
    >>> from gravmap.learning.data.dataset import known_labels
    >>> from gravmap.tiling import load_arrays
    >>> dataset = RegionDataset.from_arrays(load_arrays("data/tiles"))
    >>> with_context(dataset, known_labels(dataset)).channels[:3]
    ['residual_10km', 'outcrop_1', 'outcrop_2']
    """
    if any(map(is_context, dataset.channels)):
        raise InputError("The fields already hold outcrop as context.")
    return add_context(dataset, outcrop_context(known, dataset.node_lat, dataset.node_lon, len(dataset.classes)))


def add_context(dataset: RegionDataset, context: NDArray[np.float32]) -> RegionDataset:
    """A dataset with the fields of :func:`outcrop_context` for its nodes, (K + 2, ny, nx), after its own."""
    names = context_names(len(dataset.classes))
    meta = {
        **dataset.meta,
        "channels": [*dataset.channels, *names],
        "channel_units": [*dataset.channel_units, *[UNIT] * len(names)],
    }
    return replace(dataset, fields=np.concatenate([dataset.fields, context]), meta=meta)


def without_context(dataset: RegionDataset) -> RegionDataset:
    """A dataset with its measured fields alone."""
    kept = [number for number, name in enumerate(dataset.channels) if not is_context(name)]
    if len(kept) == len(dataset.channels):
        return dataset
    meta = {
        **dataset.meta,
        "channels": [dataset.channels[number] for number in kept],
        "channel_units": [dataset.channel_units[number] for number in kept],
    }
    return replace(dataset, fields=dataset.fields[kept], meta=meta)
