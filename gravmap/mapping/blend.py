"""Blend the logits of overlapping windows into class probabilities, block by block; the block size has no effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gravmap.learning.calibration.by_distance import DistanceTemperature
from gravmap.learning.evaluation.mosaic import BlendedLogits, normalise, window_cells, window_weight
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
    """

    probability: NDArray[np.float32]
    agreement: NDArray[np.float32]
    spread: NDArray[np.float32]


def blocks(shape: tuple[int, int], size: int = BLOCK_CELLS) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of square blocks that cover a map, from the north-west corner."""
    for row in range(0, shape[0], size):
        for column in range(0, shape[1], size):
            yield slice(row, min(row + size, shape[0])), slice(column, min(column + size, shape[1]))


class Blender:
    """Blends the windows that overlap a block.

    For each run, the logits of the windows of one size are averaged with Hann weights, then over the window sizes,
    divided by the run's temperature (a number, or a function of the distance to mapped outcrop) and converted to
    probabilities with a softmax. The probabilities are averaged over the runs.

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
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        temperatures: Sequence[float | DistanceTemperature],
        distance_km: Callable[[slice, slice], NDArray[np.floating]] | None = None,
    ) -> None:
        self._plan, self._folder, self._temperatures = plan, folder, tuple(temperatures)
        self._distance_km = distance_km
        grid = plan.grid
        self._cells = {
            job.name: window_cells(np.array(job.bounds_wsen), grid.lat_deg, grid.lon_deg) for job in plan.jobs
        }

    def block(self, rows: slice, columns: slice) -> BlendedBlock:
        """Return the predictions at a rectangle of cells."""
        shape = (self._plan.classes, rows.stop - rows.start, columns.stop - columns.start)
        mean, squares = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        votes = np.zeros(shape, np.float32)
        for run, jobs in groupby(self._plan.jobs, key=lambda job: job.run):
            probability = softmax(self._logits(list(jobs), rows, columns, votes) / self._divisor(run, rows, columns))
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
        )

    def _divisor(self, run: int, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Return the temperature of a run: a number, or (h, w)."""
        temperature = self._temperatures[run]
        if not isinstance(temperature, DistanceTemperature):
            return np.asarray(temperature, np.float32)
        if self._distance_km is None:
            raise ValueError("a temperature depends on the distance to outcrop: distance_km is required")
        return temperature.at(self._distance_km(rows, columns)).astype(np.float32)

    def _logits(
        self, jobs: list[InferenceJob], rows: slice, columns: slice, votes: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the blended logits (K, h, w) of one run; add its votes, which sum to one at each cell, to `votes`."""
        total = np.zeros_like(votes)
        named = np.zeros_like(votes)
        reached = np.zeros(votes.shape[1:], np.float32)
        for _, of_scale in groupby(jobs, key=lambda job: job.scale_deg):
            blended, voted = self._blend_scale(list(of_scale), rows, columns, votes.shape)
            here = np.isfinite(blended[0])
            total[:, here] += blended[:, here]
            named[:, here] += voted[:, here]
            reached += here
        votes += np.where(reached > 0, named / np.maximum(reached, 1), 0)
        return normalise(total, reached)

    def _blend_scale(
        self, jobs: list[InferenceJob], rows: slice, columns: slice, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the blended logits of one window size and the fraction of its windows for each class, (K, h, w)."""
        blended = BlendedLogits(shape[0], (shape[1], shape[2]))
        voted = np.zeros(shape, np.float32)
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
                images = logits.argmax(axis=0)[None]
            for image in images:
                for index in range(shape[0]):
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
