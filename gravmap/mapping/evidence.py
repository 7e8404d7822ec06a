"""What the class of a cell rests on: outcrop, outcrop near by, gravity like that of the training ground, or neither."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from gravmap.geology import Labels
from gravmap.geology.legend import COVER, UNUSABLE
from gravmap.learning.baselines import EARTH_RADIUS_KM
from gravmap.mapping.layers import COVERED, EXTRAPOLATED, NEAR, NODATA, OUTCROP


def evidence_of(
    mapped: NDArray[np.uint8] | None,
    near: NDArray[np.bool_],
    dissimilarity: NDArray[np.float32] | None,
    predicted: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """The evidence of a block: of outcrop, near outcrop, like the training ground and unlike it the first that holds.

    A likeness that is not shown is none: where the dissimilarity is unknown, or nobody measured it, a cell under cover
    counts as extrapolated.

    Parameters
    ----------
    mapped : (h, w) uint8, optional
        The map's class index; 0 cover, 255 not usable. None where there is no map.
    near : (h, w) bool
        Cells near mapped outcrop, as of :func:`near_outcrop`.
    dissimilarity : (h, w) float32, optional
        In units of its threshold (:meth:`gravmap.learning.applicability.Reach.dissimilarity`); NaN unknown.
    predicted : (h, w) bool
        Cells for which the network named a class.

    Returns
    -------
    (h, w) uint8
        OUTCROP, NEAR, COVERED, EXTRAPOLATED of :mod:`gravmap.mapping.layers`; 255 where neither map nor network say
        anything.
    """
    evidence = np.where(predicted, np.uint8(EXTRAPOLATED), np.uint8(NODATA))
    if dissimilarity is not None:
        # NaN compares as false.
        evidence[predicted & (dissimilarity <= 1)] = COVERED
    evidence[predicted & near] = NEAR
    if mapped is not None:
        evidence[is_outcrop(mapped)] = OUTCROP
    return evidence


def is_outcrop(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where labels name a bedrock class; same shape, bool."""
    found: NDArray[np.bool_] = (labels != COVER) & (labels != UNUSABLE)
    return found


def near_outcrop(
    labels: Labels, lat: NDArray[np.float64], lon: NDArray[np.float64], near_km: float
) -> NDArray[np.bool_]:
    """Which cells of a block lie within a distance of mapped outcrop, inside the block or around it.

    Counted on the mean sphere from the centre of a cell to the centre of the nearest outcrop cell; a cell whose centre
    lies in outcrop is near. Only the labels within the distance of the block are looked at, so blocks of a map may be
    asked for one after another.

    Parameters
    ----------
    labels : Labels
        The mapped geology; its outcrop is what is neither 0 nor 255.
    lat, lon : (h,), (w,) float64
        Centres of the block's cells, degrees.
    near_km : float
        The distance, km.

    Returns
    -------
    (h, w) bool
        False everywhere where no outcrop is near, as where the labels do not reach.
    """
    outcrop, label_lat, label_lon = _around(labels, lat, lon, near_km)
    near = np.zeros((lat.size, lon.size), np.bool_)
    if not outcrop.any():
        return near
    near |= _inside(outcrop, label_lat, label_lon, lat, lon)
    # The nearest outcrop cell to a point outside is one with a side to something else: the rest need not be searched.
    inner = binary_erosion(outcrop, border_value=0)
    row, column = np.nonzero(outcrop & ~inner)
    tree = cKDTree(_unit_vectors(label_lat[row], label_lon[column]))
    asked = np.nonzero(~near)
    # Chord of the great-circle distance, a hair longer: a distance of exactly near_km is near.
    chord = 2 * math.sin(min(near_km / EARTH_RADIUS_KM, math.pi) / 2) * (1 + 1e-9)
    away, _ = tree.query(_unit_vectors(lat[asked[0]], lon[asked[1]]), distance_upper_bound=chord)
    near[asked] = np.isfinite(away)
    return near


def _around(
    labels: Labels, lat: NDArray[np.float64], lon: NDArray[np.float64], near_km: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Outcrop of the labels under a block and within a distance of it, and the centres of these cells."""
    west, south, east, north = labels.bounds_wsen
    rows, columns = labels.values.shape
    centre_lat = north - (np.arange(rows) + 0.5) * (north - south) / rows
    centre_lon = west + (np.arange(columns) + 0.5) * (east - west) / columns
    # One cell more, so that a cell cut off at the rim of what is looked at is none of the block's neighbours.
    reach = near_km / EARTH_RADIUS_KM
    margin_lat = math.degrees(reach) + (north - south) / rows
    polar = math.radians(min(max(abs(float(lat.min())), abs(float(lat.max()))) + margin_lat, 90.0))
    # How far a circle on the sphere reaches in longitude; a circle around a pole reaches everywhere.
    widest = math.sin(reach) / max(math.cos(polar), 1e-12)
    margin_lon = (math.degrees(math.asin(widest)) if widest < 1 else 360.0) + (east - west) / columns
    tall = (centre_lat >= lat.min() - margin_lat) & (centre_lat <= lat.max() + margin_lat)
    wide = (centre_lon >= lon.min() - margin_lon) & (centre_lon <= lon.max() + margin_lon)
    cut = labels.values[np.ix_(tall, wide)]
    return is_outcrop(cut), centre_lat[tall], centre_lon[wide]


def _inside(
    outcrop: NDArray[np.bool_],
    label_lat: NDArray[np.float64],
    label_lon: NDArray[np.float64],
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Whether the cell's centre lies in an outcrop cell."""
    row, row_in = _nearest(label_lat, lat)
    column, column_in = _nearest(label_lon, lon)
    inside: NDArray[np.bool_] = outcrop[np.ix_(row, column)] & row_in[:, None] & column_in[None, :]
    return inside


def _nearest(centres: NDArray[np.float64], at: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Number of the evenly spaced cell that a coordinate lies in, and whether it lies in any."""
    if len(centres) == 1:
        return np.zeros(len(at), np.intp), np.zeros(len(at), np.bool_)
    position = (at - centres[0]) / (centres[1] - centres[0])
    inside: NDArray[np.bool_] = (position >= -0.5) & (position <= len(centres) - 0.5)
    return np.clip(np.rint(position), 0, len(centres) - 1).astype(np.intp), inside


def _unit_vectors(lat_deg: NDArray[np.float64], lon_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    lat, lon = np.radians(lat_deg), np.radians(lon_deg)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
