"""A block of finished map: what the networks say of it, what is mapped there, and what both rest on."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gravmap.geology import LabelFile
from gravmap.learning.decision import decide
from gravmap.learning.target import to_label
from gravmap.mapping.blend import Blender
from gravmap.mapping.evidence import evidence_of, is_outcrop, near_outcrop
from gravmap.mapping.layers import (
    AGREEMENT,
    BANDS,
    DISSIMILARITY,
    ENTROPY,
    MARGIN,
    NODATA,
    SECOND,
    SPREAD,
    Block,
    UncertaintyBand,
)
from gravmap.mapping.outcrop import margin_yx_deg
from gravmap.mapping.plan import Plan
from gravmap.mapping.predictor import Predictor


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
                self._labels.around(lat, lon, margin_yx_deg(lat, self._near_km)), lat, lon, self._near_km
            )
            if not self._everywhere:
                mapped = np.where(wanted, self._labels.at(lat, lon), np.uint8(NODATA)).astype(np.uint8)
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
