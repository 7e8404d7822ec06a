"""Null models: what a map scores without any network. A network that does not beat them has learnt nothing.

Every model takes the nodes whose class may be known (training outcrop) and names a class for every other
node. None of them sees more than the network's training does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.ndimage import uniform_filter
from scipy.sparse.linalg import factorized
from scipy.spatial import cKDTree

from gravmap.errors import InputError

Labels = NDArray[np.uint8]

EARTH_RADIUS_KM = 6371.0

GUIDE_STRENGTH = 1.0
"""How much label diffusion shuns steps of the fields that guide it: a typical step weakens a link by exp(-1)."""


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
    _need(known)
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
    _need(known)
    points = _on_sphere(lat_deg, lon_deg)
    mask = known.ravel() > 0
    _, index = cKDTree(points[mask]).query(points)
    classes: Labels = known.ravel()[mask][index].reshape(known.shape)
    return classes


def distance_to_outcrop_km(known: Labels, lat_deg: NDArray[Any], lon_deg: NDArray[Any]) -> NDArray[np.float64]:
    """Great-circle distance of every node to the nearest known node, km; shape (ny, nx)."""
    _need(known)
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
    _need(known)
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

    Solves one Laplace equation per class with the known nodes held at 0 or 1 and no flow through the rim
    (Grady 2006, IEEE Trans. Pattern Anal. Mach. Intell. 28, 1768, doi 10.1109/TPAMI.2006.233). With a guide the walker
    shuns steep ground: between neighbours d apart, whose C fields differ by s_c, it passes with weight ::

        exp(-GUIDE_STRENGTH mean_c (s_c / d)^2 / r_c^2) / d^2

    r_c being the root mean square of s_c / d over all neighbours; without one, with 1 / d^2.
    A direct factorisation: right for up to some hundred thousand nodes.

    Parameters
    ----------
    known : (ny, nx) uint8
        1..K where the class is known, 0 elsewhere.
    spacing_yx_km : (float, float)
        Node spacing along latitude and longitude, km.
    guide : (C, ny, nx) float, optional
        Fields on the same nodes, finite; in whatever units.

    Returns
    -------
    (ny, nx) uint8
        Classes 1..K.
    """
    _need(known)
    seed = known.ravel() > 0
    if seed.all():
        return known.copy()
    laplacian = _laplacian(known.shape, spacing_yx_km, guide)
    free = ~seed
    solve = factorized(laplacian[free][:, free].tocsc())
    coupling = -laplacian[free][:, seed]
    present = np.unique(known[known > 0])
    likelihood = np.stack([solve(coupling @ (known.ravel()[seed] == value).astype(float)) for value in present])
    classes = known.ravel().copy()
    classes[free] = present[likelihood.argmax(axis=0)]
    result: Labels = classes.reshape(known.shape)
    return result


def spacing_yx_km(lat_deg: NDArray[Any], lon_deg: NDArray[Any]) -> tuple[float, float]:
    """Mean node spacing along latitude and, at the middle latitude, along longitude; km on the mean sphere."""
    per_degree = EARTH_RADIUS_KM * np.pi / 180
    along_lat = per_degree * abs(float(lat_deg[-1] - lat_deg[0])) / (lat_deg.size - 1)
    along_lon = per_degree * abs(float(lon_deg[-1] - lon_deg[0])) / (lon_deg.size - 1)
    return along_lat, along_lon * float(np.cos(np.radians(np.mean(lat_deg))))


def _laplacian(shape: tuple[int, ...], spacing_yx_km: tuple[float, float], guide: NDArray[np.floating] | None) -> Any:
    """The graph Laplacian of a grid, each node joined to four neighbours; sparse, (ny * nx, ny * nx)."""
    number = np.arange(shape[0] * shape[1]).reshape(shape)
    joined = [(number[:-1].ravel(), number[1:].ravel()), (number[:, :-1].ravel(), number[:, 1:].ravel())]
    first, second = (np.concatenate(ends) for ends in zip(*joined, strict=True))
    spacing = np.repeat(np.asarray(spacing_yx_km, float), [one.size for one, _ in joined])
    weight = spacing**-2
    if guide is not None:
        fields = guide.reshape(len(guide), -1).astype(np.float64)
        slope = ((fields[:, second] - fields[:, first]) / spacing) ** 2
        typical = slope.mean(axis=1, keepdims=True)
        steep = np.divide(slope, typical, out=np.zeros_like(slope), where=typical > 0).mean(axis=0)
        # Never quite closed, or a ringed node would belong to nobody.
        weight *= np.maximum(np.exp(-GUIDE_STRENGTH * steep), 1e-6)
    both = (np.concatenate([first, second]), np.concatenate([second, first]))
    weights = sparse.coo_matrix((np.concatenate([weight, weight]), both), shape=(number.size, number.size)).tocsr()
    return (sparse.diags(np.asarray(weights.sum(axis=1)).ravel()) - weights).tocsr()


def _on_sphere(lat_deg: NDArray[Any], lon_deg: NDArray[Any]) -> NDArray[np.float64]:
    """Unit vectors of all nodes, (ny * nx, 3)."""
    lat, lon = np.meshgrid(np.radians(lat_deg), np.radians(lon_deg), indexing="ij")
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
    return points.reshape(-1, 3)


def _need(known: Labels) -> None:
    if not (known > 0).any():
        raise InputError(
            "No outcrop is known: a null model has nothing to start from.", "Check the labels and the split."
        )
