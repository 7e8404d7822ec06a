"""Assemble the layers of a block of the map: class, probabilities, uncertainty, evidence, thickness of the cover."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from gravmap.geology.areas import row_cell_areas_km2
from gravmap.geology.labels import LabelFile, Labels
from gravmap.lattice import COVER, EARTH_RADIUS_KM, UNUSABLE, spacing_yx_km
from gravmap.learning.calibration.applicability import AreaOfApplicability
from gravmap.learning.calibration.class_offsets import predict_class
from gravmap.learning.data.dataset import to_label
from gravmap.learning.data.outcrop_context import DISTANCE, context_names, distance_km_from_channel
from gravmap.mapping.blend import Blender, blocks
from gravmap.mapping.clip import Clip
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
    NULL_MODEL,
    OUTCROP,
    PROBABILITY,
    SECOND,
    SPREAD,
    UNMAPPED,
    Block,
    UncertaintyBand,
)
from gravmap.mapping.map_grid import MapGrid
from gravmap.mapping.outcrop_file import margin_yx_deg
from gravmap.mapping.plan import Plan
from gravmap.mapping.predictor import Predictor


def classify_evidence(
    mapped: NDArray[np.uint8] | None,
    near: NDArray[np.bool_],
    dissimilarity: NDArray[np.float32] | None,
    predicted: NDArray[np.bool_],
    unmapped: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Classify the evidence for the class of each cell of a block.

    A cell gets the first category that applies: unmapped, mapped outcrop, near mapped outcrop, under cover inside the
    area of applicability, extrapolated. Cells under cover whose dissimilarity is unknown are extrapolated.

    Parameters
    ----------
    mapped : (h, w) uint8, optional
        Mapped class; 0 cover, 255 not usable. None without labels.
    near : (h, w) bool
        Cells near mapped outcrop (:func:`near_outcrop`).
    dissimilarity : (h, w) float32, optional
        Dissimilarity index in units of its threshold
        (:meth:`~gravmap.learning.calibration.AreaOfApplicability.relative_dissimilarity_index`); NaN unknown.
    predicted : (h, w) bool
        Cells with a predicted class.
    unmapped : (h, w) bool, optional
        Cells of the map that no geological map covers, predicted or not (:func:`is_unmapped`). None without labels:
        then every predicted cell counts as covered.

    Returns
    -------
    (h, w) uint8
        OUTCROP, NEAR, COVERED, EXTRAPOLATED or UNMAPPED of :mod:`gravmap.mapping.layers`; 255 for other cells.

    Examples
    --------
    >>> import numpy as np
    >>> from gravmap.mapping.assemble import classify_evidence
    >>> mapped = np.array([[3, 0, 0, 0]], np.uint8)
    >>> near = np.array([[True, True, False, False]])
    >>> dissimilarity = np.array([[2.0, 2.0, 0.8, 1.4]], np.float32)
    >>> classify_evidence(mapped, near, dissimilarity, np.ones((1, 4), bool), np.zeros((1, 4), bool))
    array([[1, 2, 3, 4]], dtype=uint8)
    """
    evidence = np.where(predicted, np.uint8(EXTRAPOLATED), np.uint8(NODATA))
    if dissimilarity is not None:
        # NaN compares as false.
        evidence[predicted & (dissimilarity <= 1)] = COVERED
    evidence[predicted & near] = NEAR
    if mapped is not None:
        evidence[is_outcrop(mapped)] = OUTCROP
    if unmapped is not None:
        evidence[unmapped] = UNMAPPED
    return evidence


def is_outcrop(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return a mask of the cells with a bedrock class."""
    mask: NDArray[np.bool_] = (labels != COVER) & (labels != UNUSABLE)
    return mask


def unmapped_fraction(labels: LabelFile, grid: MapGrid, clip: Clip | None = None) -> float:
    """Fraction of a map's area, on the ellipsoid, that is neither outcrop nor cover on the geological map.

    Parameters
    ----------
    labels : LabelFile
        Label raster; unmapped is the value 255, and what lies outside the raster.
    grid : MapGrid
        Cells of the map.
    clip : Clip, optional
        Cells outside it do not count.

    Returns
    -------
    float
        From 0 to 1; 0 if `clip` contains no cell.
    """
    _, south, _, north = grid.bounds_wsen
    of_row = row_cell_areas_km2(south, north, grid.shape[0], grid.spacing_deg[1])
    whole = unmapped = 0.0
    for rows, columns in blocks(grid.shape):
        lat, lon = grid.lat_deg[rows], grid.lon_deg[columns]
        inside = np.ones((lat.size, lon.size), np.bool_) if clip is None else clip.contains(lat, lon)
        whole += float(of_row[rows] @ inside.sum(axis=1))
        unmapped += float(of_row[rows] @ (inside & (labels.sample(lat, lon) == UNUSABLE)).sum(axis=1))
    return unmapped / whole if whole else 0.0


def near_outcrop(
    labels: Labels, lat: NDArray[np.float64], lon: NDArray[np.float64], near_km: float
) -> NDArray[np.bool_]:
    """Find the cells of a block within a distance of mapped outcrop, inside the block or around it.

    The distance is measured on the mean sphere, from the centre of the cell to the centre of the nearest outcrop cell;
    a cell whose centre lies in an outcrop cell is near. Only labels within this distance of the block are read, so
    that a map can be processed block by block.

    Parameters
    ----------
    labels : Labels
        Label raster; outcrop are the values other than 0 and 255.
    lat, lon : (h,), (w,) float64
        Centres of the block's cells, degrees.
    near_km : float
        The distance, km.

    Returns
    -------
    (h, w) bool
        False where no outcrop is near, and beyond the labels.
    """
    outcrop, label_lat, label_lon = _outcrop_around(labels, lat, lon, near_km)
    near = np.zeros((lat.size, lon.size), np.bool_)
    if not outcrop.any():
        return near
    near |= _lies_in_outcrop(outcrop, label_lat, label_lon, lat, lon)
    # The outcrop cell nearest to a point outside lies on the boundary of an outcrop: only these are searched.
    inner = binary_erosion(outcrop, border_value=0)
    row, column = np.nonzero(outcrop & ~inner)
    tree = cKDTree(_unit_vectors(label_lat[row], label_lon[column]))
    remaining = np.nonzero(~near)
    # Chord of the great-circle distance, slightly longer, so that a distance of exactly near_km counts as near.
    chord = 2 * math.sin(min(near_km / EARTH_RADIUS_KM, math.pi) / 2) * (1 + 1e-9)
    distance, _ = tree.query(_unit_vectors(lat[remaining[0]], lon[remaining[1]]), distance_upper_bound=chord)
    near[remaining] = np.isfinite(distance)
    return near


def _outcrop_around(
    labels: Labels, lat: NDArray[np.float64], lon: NDArray[np.float64], near_km: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Return the outcrop mask of the labels within a distance of a block, and the centres of its cells."""
    west, south, east, north = labels.bounds_wsen
    rows, columns = labels.values.shape
    centre_lat = north - (np.arange(rows) + 0.5) * (north - south) / rows
    centre_lon = west + (np.arange(columns) + 0.5) * (east - west) / columns
    # One cell more, because binary_erosion takes cells at the edge of the mask for boundary cells.
    angle = near_km / EARTH_RADIUS_KM
    margin_lat = math.degrees(angle) + (north - south) / rows
    polar = math.radians(min(max(abs(float(lat.min())), abs(float(lat.max()))) + margin_lat, 90.0))
    # Extent in longitude of a circle on the sphere; a circle around a pole covers all longitudes.
    widest = math.sin(angle) / max(math.cos(polar), 1e-12)
    margin_lon = (math.degrees(math.asin(widest)) if widest < 1 else 360.0) + (east - west) / columns
    tall = (centre_lat >= lat.min() - margin_lat) & (centre_lat <= lat.max() + margin_lat)
    wide = (centre_lon >= lon.min() - margin_lon) & (centre_lon <= lon.max() + margin_lon)
    cut = labels.values[np.ix_(tall, wide)]
    return is_outcrop(cut), centre_lat[tall], centre_lon[wide]


def _lies_in_outcrop(
    outcrop: NDArray[np.bool_],
    label_lat: NDArray[np.float64],
    label_lon: NDArray[np.float64],
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Return a mask of the cells whose centre lies in an outcrop cell of the labels."""
    row, row_in = _cell_index(label_lat, lat)
    column, column_in = _cell_index(label_lon, lon)
    inside: NDArray[np.bool_] = outcrop[np.ix_(row, column)] & row_in[:, None] & column_in[None, :]
    return inside


def _cell_index(centres: NDArray[np.float64], at: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the index of the evenly spaced cell that contains each coordinate, and whether one does."""
    if len(centres) == 1:
        return np.zeros(len(at), np.intp), np.zeros(len(at), np.bool_)
    position = (at - centres[0]) / (centres[1] - centres[0])
    inside: NDArray[np.bool_] = (position >= -0.5) & (position <= len(centres) - 0.5)
    return np.clip(np.rint(position), 0, len(centres) - 1).astype(np.intp), inside


def _unit_vectors(lat_deg: NDArray[np.float64], lon_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    lat, lon = np.radians(lat_deg), np.radians(lon_deg)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


class Assembler:
    """Computes the blocks of a map.

    Parameters
    ----------
    predictor : Predictor
        Networks and fields.
    plan : Plan
        Cells.
    blender : Blender
        Blends the logits of the windows; all jobs must have run.
    labels : LabelFile, optional
        Label raster of the mapped geology.
    everywhere : bool
        Show the predicted class on mapped outcrop too.
    fill_unmapped : bool
        Predict cells that no geological map covers, too.
    near_km : float
        Distance to outcrop within which a cell counts as near it.
    """

    def __init__(
        self,
        predictor: Predictor,
        plan: Plan,
        blender: Blender,
        labels: LabelFile | None,
        *,
        everywhere: bool,
        fill_unmapped: bool,
        near_km: float,
    ) -> None:
        self._predictor, self._plan, self._blender, self._labels = predictor, plan, blender, labels
        self._everywhere, self._fill_unmapped, self._near_km = everywhere, fill_unmapped, near_km
        self._applicability = [member.applicability for member in predictor.members if member.applicability is not None]

    @property
    def bands(self) -> tuple[UncertaintyBand, ...]:
        """Uncertainty bands that this map has."""
        absent = [SPREAD] if len(self._predictor.members) == 1 else []
        absent += [] if self._applicability else [DISSIMILARITY]
        return tuple(band for band in BANDS if band not in absent)

    @property
    def class_layers(self) -> tuple[str, ...]:
        """Class layers that this map has beside the lithology."""
        return (SECOND, *([NULL_MODEL] if self._predictor.fields.outcrop is not None else []))

    def block(self, rows: slice, columns: slice) -> Block:
        """Return the layers of a rectangle of cells."""
        lat, lon = self._plan.grid.lat_deg[rows], self._plan.grid.lon_deg[columns]
        inside = np.ones((lat.size, lon.size), np.bool_)
        if self._plan.clip is not None:
            inside = self._plan.clip.contains(lat, lon)
        surface = unmapped = None
        wanted = inside
        if self._labels is not None:
            surface = np.where(inside, self._labels.sample(lat, lon), np.uint8(UNUSABLE)).astype(np.uint8)
            unmapped = inside & (surface == UNUSABLE)
            wanted = inside if self._fill_unmapped else inside & ~unmapped
        blended = self._blender.block(rows, columns)
        predicted = np.isfinite(blended.probability[0]) & self._fields_known(lat, lon) & wanted
        probability = np.where(predicted, blended.probability, np.float32(np.nan))
        uncertainty = uncertainty_measures(probability) | {
            AGREEMENT.name: blended.agreement,
            SPREAD.name: blended.spread,
        }
        outcrop_km, null_class = self._from_outcrop(lat, lon)
        shown = predict_class(np.where(predicted, probability, 0), self._predictor.class_offsets)
        lithology = np.where(predicted, to_label(shown), NODATA)
        mapped, near = None, np.zeros_like(predicted)
        if self._labels is not None and surface is not None:
            near = near_outcrop(
                self._labels.read_around(lat, lon, margin_yx_deg(lat, self._near_km)), lat, lon, self._near_km
            )
            if not self._everywhere:
                mapped = surface
                lithology = np.where(is_outcrop(mapped), mapped, lithology)
                if null_class is not None:
                    null_class = np.where(is_outcrop(mapped), mapped, null_class)
        uncertainty[PROBABILITY.name] = _probability_of(lithology, probability)
        cover_m = None
        if blended.cover_km is not None:
            # Outcrop has no cover, shown as mapped or not; on unmapped ground it is not known whether there is any.
            covered = predicted if surface is None else predicted & (surface == COVER)
            cover_m = np.where(covered, 1000 * blended.cover_km, np.float32(np.nan))
        dissimilarity = self._dissimilarity(lat, lon) if self._applicability else None
        if dissimilarity is not None:
            uncertainty[DISSIMILARITY.name] = dissimilarity
        unknown = np.float32(np.nan)
        classes = {SECOND: second_class(probability)}
        if null_class is not None:
            classes[NULL_MODEL] = np.where(lithology == NODATA, NODATA, null_class).astype(np.uint8)
        gravity = [self._predictor.fields.interpolate(name, lat, lon) for name in self._predictor.gravity_names]
        return Block(
            rows.start,
            columns.start,
            lithology.astype(np.uint8),
            probability,
            {band.name: np.where(predicted, uncertainty[band.name], unknown) for band in self.bands},
            classify_evidence(mapped, near, dissimilarity, predicted, unmapped),
            cover_m,
            np.where(inside, np.stack(gravity), unknown) if gravity else None,
            None if outcrop_km is None else np.where(inside, outcrop_km, unknown),
            classes,
        )

    def _from_outcrop(
        self, lat: NDArray[np.float64], lon: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32] | None, NDArray[np.uint8] | None]:
        """Return distance to mapped outcrop and class by label diffusion, the null model; None without outcrop."""
        fields = self._predictor.fields
        if fields.outcrop is None:
            return None, None
        logs = [fields.interpolate(name, lat, lon) for name in context_names(self._plan.classes)[: self._plan.classes]]
        distance = distance_km_from_channel(fields.interpolate(DISTANCE, lat, lon))
        return distance.astype(np.float32), to_label(np.argmax(logs, axis=0))

    def _fields_known(self, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return whether every field is known at the node nearest to each cell."""
        fields = self._predictor.fields
        row, column = fields.nearest(lat, lon)
        rows, columns = _index_range(row), _index_range(column)
        if not self._predictor.required_fields:
            return np.ones((lat.size, lon.size), np.bool_)
        known = np.all(np.isfinite(fields.read(self._predictor.required_fields, rows, columns)), axis=0)
        at_cells: NDArray[np.bool_] = np.asarray(known)[(row - rows.start)[:, None], (column - columns.start)[None, :]]
        return at_cells

    def _dissimilarity(self, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the maximum over the networks: a cell must be inside the area of applicability of each."""
        fields = self._predictor.fields
        row, column = fields.nearest(lat, lon)
        maximum = np.full((lat.size, lon.size), -np.inf, np.float32)
        # Of these fields: a map may be made from a coarser grid than that of the training.
        margin_km = AreaOfApplicability.margin_km(max(spacing_yx_km(fields.lat, fields.lon)))
        for applicability in self._applicability:
            margin_y, margin_x = margin_yx_deg(lat, margin_km)
            # At least two nodes along each axis, which define the spacing.
            (top, bottom), (left, right) = fields.nearest(
                np.array([lat.max() + margin_y, lat.min() - margin_y]),
                np.array([lon.min() - margin_x, lon.max() + margin_x]),
            )
            rows, columns = slice(int(top), int(bottom) + 1), slice(int(left), int(right) + 1)
            values = fields.read(applicability.fields, rows, columns)
            at_nodes = applicability.relative_dissimilarity_index(values, fields.lat[rows], fields.lon[columns])
            maximum = np.maximum(maximum, at_nodes[(row - rows.start)[:, None], (column - columns.start)[None, :]])
        return maximum


def uncertainty_measures(probability: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Compute entropy and margin of probabilities.

    Parameters
    ----------
    probability : (K, h, w) float32
        NaN where unknown.

    Returns
    -------
    dict of str to (h, w) float32
        Band name to values; NaN where unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from gravmap.mapping.assemble import uncertainty_measures
    >>> probability = np.array([0.5, 0.25, 0.25], np.float32)[:, None, None]
    >>> {name: round(float(values[0, 0]), 3) for name, values in uncertainty_measures(probability).items()}
    {'entropy': 0.946, 'margin': 0.25}
    """
    classes = len(probability)
    known = np.isfinite(probability[0])
    filled = np.where(known, probability, np.float32(1 / classes))
    entropy = np.zeros(known.shape, np.float32)
    for part in filled:  # class by class: numpy's order of summation, and the last bit, would depend on the block
        entropy -= part * np.log(np.where(part > 0, part, 1)).astype(np.float32)
    first, rest = _likeliest_and_rest(filled)
    measures = {
        ENTROPY.name: np.clip(entropy / np.float32(math.log(classes)) if classes > 1 else entropy, 0, 1),
        MARGIN.name: first - rest.max(axis=0) if classes > 1 else first,
    }
    return {name: np.where(known, values, np.nan).astype(np.float32) for name, values in measures.items()}


def second_class(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The second likeliest class, 1..K, of probabilities (K, h, w); 255 where they are NaN, and where K is 1."""
    known = np.isfinite(probability[0]) & (len(probability) > 1)
    _, rest = _likeliest_and_rest(np.where(known, probability, np.float32(0)))
    return np.where(known, to_label(rest.argmax(axis=0)), NODATA).astype(np.uint8)


def _likeliest_and_rest(filled: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Largest probability, (h, w), and the probabilities with -1 in its place, (K, h, w)."""
    best = filled.argmax(axis=0)[None]
    rest = filled.copy()
    np.put_along_axis(rest, best, -1, axis=0)
    return np.take_along_axis(filled, best, axis=0)[0], rest


def _probability_of(classes: NDArray[np.uint8], probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probability of a class index, cell by cell; NaN where there is no class."""
    known = classes != NODATA
    band = np.where(known, classes, 1).astype(np.intp)[None] - 1
    return np.where(known, np.take_along_axis(probability, band, axis=0)[0], np.float32(np.nan))


def _index_range(index: NDArray[np.int64]) -> slice:
    return slice(int(index.min()), int(index.max()) + 1)
