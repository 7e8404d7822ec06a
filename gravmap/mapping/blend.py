"""Blend the logits of overlapping windows into class probabilities, block by block; the block size has no effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gravmap.learning.calibration.by_distance import DistanceTemperature
from gravmap.learning.calibration.thickness import ThicknessInterval
from gravmap.learning.evaluation.mosaic import BlendedLogits, normalise, window_cells, window_weight
from gravmap.mapping.layers import THICKNESS_BANDS
from gravmap.mapping.plan import InferenceJob, Plan

BLOCK_CELLS = 512


@dataclass(frozen=True)
class BlendedBlock:
    """Predictions at a rectangle of cells.

    Attributes
    ----------
    probability : (K, h, w) float32
        Calibrated probabilities, the mean over the runs; NaN where there is no window.
    agreement : (h, w) float32
        Weighted fraction of the windows whose own most probable class is that of the cell.
    spread : (h, w) float32
        Standard deviation, over the runs, of the probability of the cell's most probable class.
    cover_km : (3, h, w) float32, optional
        Median and calibrated 10 and 90 % quantiles of the thickness of the cover, in the order of
        :data:`gravmap.mapping.layers.THICKNESS_BANDS`, the mean over the runs that output it; NaN where there is no
        window. None if no run does.
    """

    probability: NDArray[np.float32]
    agreement: NDArray[np.float32]
    spread: NDArray[np.float32]
    cover_km: NDArray[np.float32] | None = None


def blocks(shape: tuple[int, int], size: int = BLOCK_CELLS) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of square blocks that cover a map, from the north-west corner."""
    for row in range(0, shape[0], size):
        for column in range(0, shape[1], size):
            yield slice(row, min(row + size, shape[0])), slice(column, min(column + size, shape[1]))


class Blender:
    """Blends the windows that overlap a block.

    For each run, the logits of the windows of one size are averaged with Hann weights, then over the window sizes,
    divided by the run's temperature (a number, or a function of the distance to mapped outcrop) and converted to
    probabilities with a softmax. The probabilities are averaged over the runs. Quantiles of the thickness of the cover
    are averaged in the same way, calibrated, and averaged over the runs that output them.

    Parameters
    ----------
    plan : Plan
        Cells and jobs.
    folder : Path
        The map's folder, with the files of all jobs.
    temperatures : sequence of float or DistanceTemperature
        Temperature of each run.
    distance_km : callable, optional
        Returns the distance of the cells of some rows and columns to mapped outcrop, (h, w) in km; needed if a
        temperature depends on it.
    intervals : sequence of ThicknessInterval or None, optional
        Calibration of the thickness of each run; needed for those of ``plan.thickness_runs``.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        temperatures: Sequence[float | DistanceTemperature],
        distance_km: Callable[[slice, slice], NDArray[np.floating]] | None = None,
        intervals: Sequence[ThicknessInterval | None] = (),
    ) -> None:
        self._plan, self._folder, self._temperatures = plan, folder, tuple(temperatures)
        self._distance_km, self._intervals = distance_km, tuple(intervals)
        grid = plan.grid
        self._cells = {
            job.name: window_cells(np.array(job.bounds_wsen), grid.lat_deg, grid.lon_deg) for job in plan.jobs
        }

    def block(self, rows: slice, columns: slice) -> BlendedBlock:
        """Return the predictions at a rectangle of cells."""
        shape = (self._plan.classes, rows.stop - rows.start, columns.stop - columns.start)
        mean, squares = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        votes = np.zeros(shape, np.float32)
        cover_km: list[NDArray[np.float32]] = []
        for run, jobs in groupby(self._plan.jobs, key=lambda job: job.run):
            outputs = self._outputs(run, list(jobs), rows, columns, votes)
            probability = softmax(outputs[: shape[0]] / self._divisor(run, rows, columns))
            if run in self._plan.thickness_runs:
                cover_km.append(self._calibrated(run, outputs[shape[0] :]))
            # Welford's algorithm for mean and variance: no cancellation where runs agree.
            away = probability - mean
            mean += away / np.float32(run + 1)
            squares += away * (probability - mean)
        runs = len(self._temperatures)
        known = np.isfinite(mean[0])
        best = np.where(known, mean, 0).argmax(axis=0)[None]
        agreement = np.take_along_axis(votes, best, axis=0)[0] / np.float32(runs)
        variance = np.take_along_axis(squares, best, axis=0)[0] / np.float32(runs)
        unknown = np.float32(np.nan)
        return BlendedBlock(
            mean,
            np.where(known, agreement, unknown).astype(np.float32),
            np.where(known, np.sqrt(np.maximum(variance, 0)), unknown).astype(np.float32),
            sum(cover_km[1:], cover_km[0]) / np.float32(len(cover_km)) if cover_km else None,
        )

    def _calibrated(self, run: int, quantiles_km: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrate quantiles (3, h, w) of a run; return the median, and those of 10 and 90 %."""
        interval = self._intervals[run]
        assert interval is not None  # the run outputs a thickness
        low, median, high = np.moveaxis(interval.apply(np.moveaxis(quantiles_km, 0, -1)), -1, 0)
        return np.stack((median, low, high))

    def _divisor(self, run: int, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Return the temperature of a run: a number, or (h, w)."""
        temperature = self._temperatures[run]
        if not isinstance(temperature, DistanceTemperature):
            return np.asarray(temperature, np.float32)
        if self._distance_km is None:
            raise ValueError("a temperature depends on the distance to outcrop: distance_km is required")
        return temperature.at(self._distance_km(rows, columns)).astype(np.float32)

    def _outputs(
        self, run: int, jobs: list[InferenceJob], rows: slice, columns: slice, votes: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the blended outputs of one run: logits (K, h, w), or with quantiles of thickness (K + 3, h, w).

        Its votes, which sum to one at each cell, are added to `votes`.
        """
        more = len(THICKNESS_BANDS) if run in self._plan.thickness_runs else 0
        total = np.zeros((len(votes) + more, *votes.shape[1:]), np.float32)
        named = np.zeros_like(votes)
        reached = np.zeros(votes.shape[1:], np.float32)
        for _, of_scale in groupby(jobs, key=lambda job: job.scale_deg):
            blended, voted = self._blend_scale(list(of_scale), rows, columns, total.shape)
            here = np.isfinite(blended[0])
            total[:, here] += blended[:, here]
            named[:, here] += voted[:, here]
            reached += here
        votes += np.where(reached > 0, named / np.maximum(reached, 1), 0)
        return normalise(total, reached)

    def _blend_scale(
        self, jobs: list[InferenceJob], rows: slice, columns: slice, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the blended outputs of one window size and the fraction of its windows for each class, (K, h, w)."""
        blended = BlendedLogits(shape[0], (shape[1], shape[2]))
        classes = self._plan.classes
        voted = np.zeros((classes, *shape[1:]), np.float32)
        grid = self._plan.grid
        for job in jobs:
            window_rows, window_columns = self._cells[job.name]
            tall, wide = _overlap(rows, window_rows), _overlap(columns, window_columns)
            if tall is None or wide is None:
                continue
            inside = np.s_[
                :,
                tall.start - window_rows.start : tall.stop - window_rows.start,
                wide.start - window_columns.start : wide.stop - window_columns.start,
            ]
            here = np.s_[
                tall.start - rows.start : tall.stop - rows.start, wide.start - columns.start : wide.stop - columns.start
            ]
            logits = np.array(np.load(self._folder / job.logits_file, mmap_mode="r")[inside])
            hann = window_weight(np.array(job.bounds_wsen), grid.lat_deg[tall], grid.lon_deg[wide])
            blended.add(logits, hann, *here)
            if self._plan.flips:
                images = np.array(np.load(self._folder / job.votes_file, mmap_mode="r")[inside])
            else:
                images = logits[:classes].argmax(axis=0)[None]
            for image in images:
                for index in range(classes):
                    voted[(index, *here)] += np.where(image == index, hann / np.float32(len(images)), 0)
        voted /= np.where(blended.weight > 0, blended.weight, 1)
        return blended.mean(), voted


def _overlap(one: slice, other: slice) -> slice | None:
    start, stop = max(one.start, other.start), min(one.stop, other.stop)
    return slice(start, stop) if start < stop else None


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities (K, h, w) of logits."""
    exponent = np.exp(logits - logits.max(axis=0))
    total = np.zeros_like(exponent[0])
    for part in exponent:  # class by class: numpy's order of summation, and the last bit, would depend on the block
        total += part
    probability: NDArray[np.float32] = (exponent / total).astype(np.float32)
    return probability
