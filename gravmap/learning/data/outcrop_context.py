"""Mapped outcrop as context: fields at nodes that say what is mapped around, and how far away.

Outcrop is just more fields. Training crops, flips, rotations, windows and maps treat them as they treat gravity; only
they are in no unit, so that nothing that changes gravity changes them, and they are never measured on a place.

| field              | value at a node                                                                       |
|--------------------|---------------------------------------------------------------------------------------|
| `outcrop_1` .. `K` | log of the chance that class spreads here (label_diffusion.py), >= 0.001 |
| `outcrop_distance` | log(1 + km to the nearest outcrop / 10)                                               |
| `outcrop_known`    | 1 on outcrop, 0 elsewhere                                                             |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.data.label_diffusion import class_probabilities
from gravmap.learning.evaluation.baselines import distance_to_outcrop_km, spacing_yx_km

CONTEXT = "outcrop"
"""What `--context` says."""

UNIT = "1"
LEAST = 1e-3
"""No class is less likely than this anywhere: a network can still speak for it."""

DISTANCE_KM = 10.0
PREFIX = f"{CONTEXT}_"
DISTANCE = f"{PREFIX}distance"


def context_names(classes: int) -> list[str]:
    """Names of the context's fields, K + 2 of them, the classes' first."""
    return [f"{PREFIX}{index}" for index in range(1, classes + 1)] + [DISTANCE, f"{PREFIX}known"]


def is_context(name: str) -> bool:
    """Whether a field is of the outcrop, not of gravity."""
    return name.startswith(PREFIX)


def distance_km_from_channel(plane: NDArray[np.floating]) -> NDArray[np.float64]:
    """Kilometres to the nearest outcrop, out of values of the field `outcrop_distance`."""
    return np.asarray(DISTANCE_KM * np.expm1(plane.astype(np.float64)))


def in_short(names: Iterable[str]) -> list[str]:
    """Names of fields for people: those of the outcrop in one word."""
    return list(dict.fromkeys(CONTEXT if is_context(name) else name for name in names))


def measured_names(names: Sequence[str]) -> list[str]:
    """Those of the fields, or channels, that are not outcrop."""
    return [name for name in names if not is_context(name)]


def outcrop_context(
    known: NDArray[np.uint8], lat: NDArray[np.float64], lon: NDArray[np.float64], classes: int
) -> NDArray[np.float32]:
    """What outcrop says at every node of a grid.

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
        Nothing is known, or only one class: such a context says nothing.
    """
    present = np.unique(known[known > 0])
    if len(present) == 1:
        raise InputError(
            f"All outcrop here is of one class ({present[0]}): as context it says nothing.",
            "Take a larger window, or a network without context.",
        )
    chances = class_probabilities(known, spacing_yx_km(lat, lon), classes)
    chances = np.maximum(chances, np.float32(LEAST))
    logs = np.log(chances / chances.sum(axis=0))
    distance = np.log1p(distance_to_outcrop_km(known, lat, lon) / DISTANCE_KM)
    return np.concatenate([logs, distance[None], (known > 0)[None]]).astype(np.float32)


def with_context(area: RegionDataset, known: NDArray[np.uint8]) -> RegionDataset:
    """An area with the fields of its outcrop after its own.

    Parameters
    ----------
    area : RegionDataset
        Without context.
    known : (ny, nx) uint8
        Which class is known at which of its nodes, 0 elsewhere: never more than may be seen there.

    Returns
    -------
    Area
        With K + 2 fields more, their names and units in `meta`.

    Raises
    ------
    InputError
        As :func:`outcrop_context`; or the area has such fields already.
    """
    if any(map(is_context, area.channels)):
        raise InputError("The fields hold outcrop as context already.")
    return add_context(area, outcrop_context(known, area.node_lat, area.node_lon, len(area.classes)))


def add_context(area: RegionDataset, context: NDArray[np.float32]) -> RegionDataset:
    """An area with what :func:`outcrop_context` gave for its nodes, (K + 2, ny, nx), after its own fields."""
    names = context_names(len(area.classes))
    meta = {
        **area.meta,
        "channels": [*area.channels, *names],
        "channel_units": [*area.channel_units, *[UNIT] * len(names)],
    }
    return replace(area, fields=np.concatenate([area.fields, context]), meta=meta)


def without_context(area: RegionDataset) -> RegionDataset:
    """An area without such fields: what was measured alone."""
    kept = [number for number, name in enumerate(area.channels) if not is_context(name)]
    if len(kept) == len(area.channels):
        return area
    meta = {
        **area.meta,
        "channels": [area.channels[number] for number in kept],
        "channel_units": [area.channel_units[number] for number in kept],
    }
    return replace(area, fields=area.fields[kept], meta=meta)
