"""Boreholes and other points whose bedrock is known, at the nodes of a region: the only observed truth under cover."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.geology.points import Points
from gravmap.lattice import COVER, UNUSABLE, turn_longitudes
from gravmap.learning.data.dataset import RegionDataset
from gravmap.mapping.scoring.borehole_classes import read_classes

NO_THICKNESS = "the network was not trained with the thickness of the cover"

MOST_NAMED = 8
"""So many unknown classes are named; the rest is counted."""


@dataclass(frozen=True)
class Boreholes:
    """Points that can be scored, and why the others cannot.

    Attributes
    ----------
    row, column : ndarray, shape (n,), int64
        Of the nearest node.
    label : ndarray, shape (n,), uint8
        Class found there, 1..K.
    read, outside, unplaced, without_gravity : int
        Rows of the file; points outside the region, without a position, and where the field is not known.
    in_cover, unnamed : int
        Points that end in cover, the legend's class 0, and so do not give the bedrock; and without any class.
    unknown : dict of str to int
        Values of the class field that cannot be read, and how often each occurs.
    unusable : int
        Points whose code or age has no class, such as an age that spans several.
    reading : str
        What the class field holds: class names, indices, codes of a legend, ages.
    """

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    label: NDArray[np.uint8]
    read: int
    outside: int
    unplaced: int
    without_gravity: int
    in_cover: int
    unnamed: int
    unknown: dict[str, int]
    unusable: int = 0
    reading: str = ""

    def account(self) -> dict[str, Any]:
        """How many of the points are scored and why the others are not; JSON-able."""
        return {
            "read": self.read,
            "scored": len(self.label),
            "outside": self.outside,
            "unplaced": self.unplaced,
            "without_gravity": self.without_gravity,
            "in_cover": self.in_cover,
            "unnamed": self.unnamed,
            "unusable": self.unusable,
            "unknown_class": dict(self.unknown),
        }


def lay_points(points: Points, dataset: RegionDataset) -> Boreholes:
    """Find the node and the class of every point.

    The class is read by :func:`gravmap.mapping.scoring.borehole_classes.read_classes`. The node is the nearest one,
    whose class the network predicts.

    Parameters
    ----------
    points : Points
        From :func:`gravmap.geology.points.read_points`.
    dataset : RegionDataset
        What the network is scored on.

    Raises
    ------
    InputError
        None of them can be scored, or the field mixes names, codes and ages.
    """
    row, column = nearest_nodes(points, dataset)
    reading = read_classes(points, dataset)
    read = np.array([reading.classes.get(value, -1) for value in points.values], np.int64)
    bedrock = {int(entry["index"]) for entry in dataset.classes}
    label = np.where(np.isin(read, list(bedrock)), read, 0).astype(np.uint8)
    inside = (row >= 0) & (column >= 0)
    with_gravity = inside & dataset.field_valid[row, column]
    scored = with_gravity & (label > 0)
    blank = np.array([not value for value in points.values])
    unread = inside & (read < 0) & ~blank
    unknown = Counter(value for value, other in zip(points.values, unread, strict=True) if other)
    found = Boreholes(
        row[scored].astype(np.int64),
        column[scored].astype(np.int64),
        label[scored],
        len(points.values) + points.unplaced,
        int(np.count_nonzero(~inside)),
        points.unplaced,
        int(np.count_nonzero(inside & ~with_gravity & (label > 0))),
        int(np.count_nonzero(inside & (read == COVER))),
        int(np.count_nonzero(inside & blank)),
        dict(unknown.most_common()),
        int(np.count_nonzero(inside & (read == UNUSABLE))),
        reading.what,
    )
    if not scored.any():
        west, south, east, north = dataset.field_nodes_wsen
        names = ", ".join(str(entry["name"]) for entry in dataset.classes)
        raise InputError(
            f"None of the {found.read} points of {points.path} can be scored: {describe_left_out(found.account())}.",
            f"Points must lie in {west:g}-{east:g}E {south:g}-{north:g}N, and {points.field} must be one of: {names}"
            "; or a class index, a code of the map's legend (--legend), or an age.",
        )
    return found


def describe_left_out(account: Mapping[str, Any]) -> str:
    """Why points are not scored, in words; empty when all are."""
    unknown = account["unknown_class"]
    reasons = [
        f"{account[key]} {words}"
        for key, words in (
            ("outside", "outside the area"),
            ("unplaced", "without a position"),
            ("without_gravity", "where gravity is not known"),
            ("in_cover", "that ended in cover"),
            ("unnamed", "without a class"),
            ("unusable", "whose code or age has no class"),
        )
        if account.get(key)
    ]
    if unknown:
        named = ", ".join(list(unknown)[:MOST_NAMED]) + (", ..." if len(unknown) > MOST_NAMED else "")
        reasons.append(f"{sum(unknown.values())} with a class that the legend does not have ({named})")
    return "; ".join(reasons)


def nearest_nodes(points: Points, dataset: RegionDataset) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and column of the node nearest to each point; -1 beyond half a step from the outermost."""
    nodes = dataset.node_lon
    half = (nodes[-1] - nodes[0]) / (len(nodes) - 1) / 2
    lon = turn_longitudes(points.lon, float(nodes[0] - half), float(nodes[-1] + half))
    return _nearest(points.lat, dataset.node_lat), _nearest(lon, nodes)


@dataclass(frozen=True)
class DepthPoints:
    """Points that reach the basement under mapped cover, and why the others are left out.

    Attributes
    ----------
    row, column : ndarray, shape (n,), int64
        Of the nearest node.
    depth_km : ndarray, shape (n,), float64
        Depth of the basement, which is the thickness of the cover.
    counts : dict of str to int
        ``read``, ``scored`` and, for each reason, those left out.
    """

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    depth_km: NDArray[np.float64]
    counts: dict[str, int]


def depth_points(points: Points, dataset: RegionDataset, surface: NDArray[np.uint8]) -> DepthPoints:
    """Find the node of every point with a depth.

    Parameters
    ----------
    points : Points
        With `depth_m`.
    dataset : RegionDataset
        Nodes of the field.
    surface : (ny, nx) uint8
        Mapped class at the nodes; 0 cover, 255 not usable.

    Raises
    ------
    InputError
        None of them can be scored.
    """
    assert points.depth_m is not None
    row, column = nearest_nodes(points, dataset)
    left = np.ones(len(row), np.bool_)
    counts = {"read": len(row) + points.unplaced, "scored": 0, "unplaced": points.unplaced}
    mapped = surface[row, column]
    for reason, out in (
        ("outside", (row < 0) | (column < 0)),
        ("without_depth", np.isnan(points.depth_m)),
        ("without_gravity", ~dataset.field_valid[row, column]),
        ("unmapped", mapped == UNUSABLE),
        ("on_outcrop", mapped != COVER),
    ):
        counts[reason] = int((left & out).sum())
        left &= ~out
    counts["scored"] = int(left.sum())
    if not counts["scored"]:
        raise InputError(
            f"None of the {counts['read']} points of {points.path} can be scored by its {points.depth_field}: "
            f"{describe_depths_left_out(counts)}.",
            "Points must lie on mapped cover, inside the fields, with a depth of the basement in metres.",
        )
    return DepthPoints(row[left].astype(np.int64), column[left].astype(np.int64), points.depth_m[left] / 1000, counts)


def describe_depths_left_out(counts: Mapping[str, int]) -> str:
    """Why points are not scored by their depth, in words; empty when all are."""
    words = {
        "outside": "outside the area",
        "unplaced": "without a position",
        "without_depth": "without a depth",
        "without_gravity": "where gravity is not known",
        "unmapped": "where nothing is mapped",
        "on_outcrop": "on mapped outcrop",
    }
    return "; ".join(f"{counts[key]} {text}" for key, text in words.items() if counts[key])


def _nearest(at: NDArray[np.float64], nodes: NDArray[np.float64]) -> NDArray[np.intp]:
    """Number of the nearest of evenly spaced nodes; -1 beyond half a step from the outermost."""
    step = (nodes[-1] - nodes[0]) / (len(nodes) - 1)
    number = np.floor((at - nodes[0]) / step + 0.5).astype(np.intp)
    return np.where((number >= 0) & (number < len(nodes)), number, -1)
