"""A block of finished map: classes, probabilities, what is mapped there, and what each cell rests on."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from gravmap.geology import LabelFile, Labels
from gravmap.lattice import COVER, EARTH_RADIUS_KM, UNUSABLE
from gravmap.learning.calibration.class_offsets import decide
from gravmap.learning.data.dataset import to_label
from gravmap.mapping.blend import Blender
from gravmap.mapping.layers import (
    AGREEMENT,
    BANDS,
    COVERED,
    DISSIMILARITY,
    ENTROPY,
    EXTRAPOLATED,
    MARGIN,
    NEAR,
    NODATA,
    OUTCROP,
    SECOND,
    SPREAD,
    Block,
    UncertaintyBand,
)
from gravmap.mapping.outcrop_file import margin_yx_deg
from gravmap.mapping.plan import Plan
from gravmap.mapping.predictor import Predictor


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
        In units of its threshold (:meth:`gravmap.learning.calibration.applicability.Reach.dissimilarity`); NaN unknown.
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


class Assembler:
    """Makes the blocks of a map.

    Parameters
    ----------
    predictor : Predictor
        Networks and fields.
    plan : Plan
        Cells.
    blender : Blender
        Has the logits of all windows.
    labels : LabelFile, optional
        The mapped geology.
    everywhere : bool
        Show the networks' class on the outcrop too.
    near_km : float
        How far from outcrop counts as near it.
    """

    def __init__(
        self,
        predictor: Predictor,
        plan: Plan,
        blender: Blender,
        labels: LabelFile | None,
        *,
        everywhere: bool,
        near_km: float,
    ) -> None:
        self._predictor, self._plan, self._blender, self._labels = predictor, plan, blender, labels
        self._everywhere, self._near_km = everywhere, near_km
        self._reaches = [member.reach for member in predictor.members if member.reach is not None]

    @property
    def bands(self) -> tuple[UncertaintyBand, ...]:
        """The measures that blocks of this map have."""
        absent = ([SPREAD] if len(self._predictor.members) == 1 else []) + ([] if self._reaches else [DISSIMILARITY])
        return tuple(band for band in BANDS if band not in absent)

    def block(self, rows: slice, columns: slice) -> Block:
        """The cells of a rectangle."""
        lat, lon = self._plan.grid.lat_deg[rows], self._plan.grid.lon_deg[columns]
        wanted = np.ones((lat.size, lon.size), np.bool_)
        if self._plan.clip is not None:
            wanted = self._plan.clip.holds(lat, lon)
        blended = self._blender.block(rows, columns)
        predicted = np.isfinite(blended.probability[0]) & self._known(lat, lon) & wanted
        probability = np.where(predicted, blended.probability, np.float32(np.nan))
        uncertainty = measures(probability) | {AGREEMENT.name: blended.agreement, SPREAD.name: blended.spread}
        shown = decide(np.where(predicted, probability, 0), self._predictor.class_offsets)
        lithology = np.where(predicted, to_label(shown), NODATA)
        mapped, near = None, np.zeros_like(predicted)
        if self._labels is not None:
            near = near_outcrop(
                self._labels.read_around(lat, lon, margin_yx_deg(lat, self._near_km)), lat, lon, self._near_km
            )
            if not self._everywhere:
                mapped = np.where(wanted, self._labels.sample(lat, lon), np.uint8(NODATA)).astype(np.uint8)
                lithology = np.where(is_outcrop(mapped), mapped, lithology)
        dissimilarity = self._dissimilarity(lat, lon) if self._reaches else None
        if dissimilarity is not None:
            uncertainty[DISSIMILARITY.name] = dissimilarity
        blind = np.float32(np.nan)
        return Block(
            rows.start,
            columns.start,
            lithology.astype(np.uint8),
            probability,
            {band.name: np.where(predicted, uncertainty[band.name], blind) for band in self.bands},
            evidence_of(mapped, near, dissimilarity, predicted),
        )

    def _known(self, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether every field is known at the node nearest to each cell."""
        fields = self._predictor.fields
        row, column = fields.nearest(lat, lon)
        rows, columns = _span(row), _span(column)
        known = np.all(np.isfinite(fields.read(self._predictor.names, rows, columns)), axis=0)
        near: NDArray[np.bool_] = np.asarray(known)[(row - rows.start)[:, None], (column - columns.start)[None, :]]
        return near

    def _dissimilarity(self, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.float32]:
        """Of several networks the largest: a place is like the training ground when it is so for each."""
        fields = self._predictor.fields
        row, column = fields.nearest(lat, lon)
        found = np.full((lat.size, lon.size), -np.inf, np.float32)
        for reach in self._reaches:
            margin_y, margin_x = margin_yx_deg(lat, reach.margin_km)
            # Two nodes at least either way, so that there is a spacing.
            (top, bottom), (left, right) = fields.nearest(
                np.array([lat.max() + margin_y, lat.min() - margin_y]),
                np.array([lon.min() - margin_x, lon.max() + margin_x]),
            )
            rows, columns = slice(int(top), int(bottom) + 1), slice(int(left), int(right) + 1)
            part = reach.dissimilarity(fields.read(reach.fields, rows, columns), fields.lat[rows], fields.lon[columns])
            found = np.maximum(found, part[(row - rows.start)[:, None], (column - columns.start)[None, :]])
        return found


def measures(probability: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Entropy, margin and second class of probabilities (K, h, w), by the names of their bands; NaN where unknown."""
    classes = len(probability)
    known = np.isfinite(probability[0])
    filled = np.where(known, probability, np.float32(1 / classes))
    entropy = np.zeros(known.shape, np.float32)
    for part in filled:  # class by class: a cell's value does not hang on the block it is in
        entropy -= part * np.log(np.where(part > 0, part, 1)).astype(np.float32)
    best = filled.argmax(axis=0)[None]
    first = np.take_along_axis(filled, best, axis=0)[0]
    rest = filled.copy()
    np.put_along_axis(rest, best, -1, axis=0)
    second = rest.argmax(axis=0)
    found = {
        ENTROPY.name: np.clip(entropy / np.float32(math.log(classes)) if classes > 1 else entropy, 0, 1),
        MARGIN.name: first - rest.max(axis=0) if classes > 1 else first,
        SECOND.name: to_label(second).astype(np.float32),
    }
    return {name: np.where(known, values, np.nan).astype(np.float32) for name, values in found.items()}


def _span(index: NDArray[np.int64]) -> slice:
    return slice(int(index.min()), int(index.max()) + 1)
