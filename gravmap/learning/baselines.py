"""Null models: what a map scores without any network. A network that does not beat them has learnt nothing.

Every model takes the nodes whose class may be known (training outcrop) and names a class for every other
node. None of them sees more than the network's training does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.spatial import cKDTree

from gravmap.learning.diffusion import class_probabilities, need_outcrop

Labels = NDArray[np.uint8]

EARTH_RADIUS_KM = 6371.0


def majority(known: Labels) -> Labels:
    """The commonest known class everywhere.

    Parameters
    ----------
    known : (ny, nx) uint8
        1..K where the class is known, 0 elsewhere.

    Returns
    -------
    (ny, nx) uint8
        One class.
    """
    need_outcrop(known)
    counts = np.bincount(known[known > 0])
    return np.full(known.shape, int(counts.argmax()), np.uint8)


def nearest_outcrop(known: Labels, lat_deg: NDArray[Any], lon_deg: NDArray[Any]) -> Labels:
    """The class of the nearest known node, by distance on the sphere. No gravity at all.

    Parameters
    ----------
    known : (ny, nx) uint8
        1..K where the class is known, 0 elsewhere.
    lat_deg, lon_deg : (ny,), (nx,) float
        Node coordinates, degrees.

    Returns
    -------
    (ny, nx) uint8
        Classes 1..K.
    """
    need_outcrop(known)
    points = _on_sphere(lat_deg, lon_deg)
    mask = known.ravel() > 0
    _, index = cKDTree(points[mask]).query(points)
    classes: Labels = known.ravel()[mask][index].reshape(known.shape)
    return classes


def distance_to_outcrop_km(known: Labels, lat_deg: NDArray[Any], lon_deg: NDArray[Any]) -> NDArray[np.float64]:
    """Great-circle distance of every node to the nearest known node, km; shape (ny, nx)."""
    need_outcrop(known)
    points = _on_sphere(lat_deg, lon_deg)
    chord, _ = cKDTree(points[known.ravel() > 0]).query(points)
    distance: NDArray[np.float64] = 2 * EARTH_RADIUS_KM * np.arcsin(np.clip(chord / 2, 0, 1)).reshape(known.shape)
    return distance


def nearest_in_feature_space(
    known: Labels, fields_mgal: NDArray[np.float32], spacing_yx_km: tuple[float, float], neighbours: int = 25
) -> Labels:
    """The commonest class among the known nodes that look alike in gravity. No position at all.

    Features are each field, its horizontal gradient and its mean over 5 x 5 nodes, each scaled to unit spread.

    Parameters
    ----------
    known : (ny, nx) uint8
        1..K where the class is known, 0 elsewhere.
    fields_mgal : (C, ny, nx) float32
        Fields on the same nodes, mGal.
    spacing_yx_km : (float, float)
        Node spacing along latitude and longitude, km.
    neighbours : int
        How many look-alikes vote.

    Returns
    -------
    (ny, nx) uint8
        Classes 1..K.
    """
    need_outcrop(known)
    features = []
    for field in fields_mgal.astype(np.float64):
        along_y, along_x = np.gradient(field, *spacing_yx_km)
        features += [field, np.hypot(along_y, along_x), uniform_filter(field, 5, mode="nearest")]
    table = np.stack([feature.ravel() for feature in features], axis=1)
    table = (table - table.mean(axis=0)) / (table.std(axis=0) + 1e-12)
    mask = known.ravel() > 0
    _, index = cKDTree(table[mask]).query(table, k=min(neighbours, int(mask.sum())))
    votes = known.ravel()[mask][index.reshape(known.size, -1)]
    counts = np.stack([(votes == value).sum(axis=1) for value in range(1, int(known.max()) + 1)], axis=1)
    classes: Labels = (counts.argmax(axis=1) + 1).astype(np.uint8).reshape(known.shape)
    return classes


def label_diffusion(
    known: Labels, spacing_yx_km: tuple[float, float], guide: NDArray[np.floating] | None = None
) -> Labels:
    """The class a random walker is likeliest to meet first (harmonic functions with the outcrop as boundary).

    Parameters
    ----------
    known, spacing_yx_km, guide
        As in :func:`gravmap.learning.diffusion.class_probabilities`.

    Returns
    -------
    (ny, nx) uint8
        Classes 1..K.
    """
    need_outcrop(known)
    chances = class_probabilities(known, spacing_yx_km, int(known.max()), guide)
    classes: Labels = (chances.argmax(axis=0) + 1).astype(np.uint8)
    return classes


def spacing_yx_km(lat_deg: NDArray[Any], lon_deg: NDArray[Any]) -> tuple[float, float]:
    """Mean node spacing along latitude and, at the middle latitude, along longitude; km on the mean sphere."""
    per_degree = EARTH_RADIUS_KM * np.pi / 180
    along_lat = per_degree * abs(float(lat_deg[-1] - lat_deg[0])) / (lat_deg.size - 1)
    along_lon = per_degree * abs(float(lon_deg[-1] - lon_deg[0])) / (lon_deg.size - 1)
    return along_lat, along_lon * float(np.cos(np.radians(np.mean(lat_deg))))


def _on_sphere(lat_deg: NDArray[Any], lon_deg: NDArray[Any]) -> NDArray[np.float64]:
    """Unit vectors of all nodes, (ny * nx, 3)."""
    lat, lon = np.meshgrid(np.radians(lat_deg), np.radians(lon_deg), indexing="ij")
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
    return points.reshape(-1, 3)
