"""From the logits of windows to the probabilities of cells, a block at a time and the same for any size of block."""

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
class Blended:
    """What the networks say of a rectangle of cells.

    Attributes
    ----------
    probability : (K, h, w) float32
        Calibrated; the mean over the runs. NaN where no window reaches.
    agreement : (h, w) float32
        Share of the windows that name the likeliest class.
    spread : (h, w) float32
        Standard deviation between the runs of the likeliest class's probability.
    """

    probability: NDArray[np.float32]
    agreement: NDArray[np.float32]
    spread: NDArray[np.float32]


def blocks(shape: tuple[int, int], size: int = BLOCK_CELLS) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of squares that fill a map, from the north-west on."""
    for row in range(0, shape[0], size):
        for column in range(0, shape[1], size):
            yield slice(row, min(row + size, shape[0])), slice(column, min(column + size, shape[1]))


class Blender:
    """Blends the windows that touch a block.

    Logits of one scale are weighted by their windows' Hann weights, averaged over the scales that reach a cell,
    divided by the run's temperature (where it follows the distance to outcrop, the one there), and become
    probabilities; these are averaged over the runs.

    Parameters
    ----------
    plan : Plan
        Cells and passes.
    folder : Path
        The map's folder, with the files of all passes.
    temperatures : sequence of float or DistanceTemperature
        For each run.
    distance_km : callable, optional
        Given rows and columns of a rectangle, the distance of its cells to mapped outcrop, (h, w); asked where a run's
        temperatures follow it.
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
        self._cells = {each.name: window_cells(np.array(each.wsen), grid.lat_deg, grid.lon_deg) for each in plan.passes}

    def block(self, rows: slice, columns: slice) -> Blended:
        """The cells of a rectangle."""
        shape = (self._plan.classes, rows.stop - rows.start, columns.stop - columns.start)
        mean, squares = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        votes = np.zeros(shape, np.float32)
        for run, passes in groupby(self._plan.passes, key=lambda each: each.run):
            probability = softmax(self._logits(list(passes), rows, columns, votes) / self._divisor(run, rows, columns))
            # Welford's way to mean and spread: nothing is lost where runs agree.
            away = probability - mean
            mean += away / np.float32(run + 1)
            squares += away * (probability - mean)
        runs = len(self._temperatures)
        known = np.isfinite(mean[0])
        best = np.where(known, mean, 0).argmax(axis=0)[None]
        agreement = np.take_along_axis(votes, best, axis=0)[0] / np.float32(runs)
        variance = np.take_along_axis(squares, best, axis=0)[0] / np.float32(runs)
        unknown = np.float32(np.nan)
        return Blended(
            mean,
            np.where(known, agreement, unknown).astype(np.float32),
            np.where(known, np.sqrt(np.maximum(variance, 0)), unknown).astype(np.float32),
        )

    def _divisor(self, run: int, rows: slice, columns: slice) -> NDArray[np.float32]:
        """What a run's logits are divided by, a number or (h, w)."""
        temperature = self._temperatures[run]
        if not isinstance(temperature, DistanceTemperature):
            return np.asarray(temperature, np.float32)
        if self._distance_km is None:
            raise ValueError("temperatures follow the distance to outcrop, and nobody says it")
        return temperature.at(self._distance_km(rows, columns)).astype(np.float32)

    def _logits(
        self, passes: list[InferenceJob], rows: slice, columns: slice, votes: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """One run's logits (K, h, w); its windows' votes are added, one in all for every cell."""
        total = np.zeros_like(votes)
        named = np.zeros_like(votes)
        reached = np.zeros(votes.shape[1:], np.float32)
        for _, of_scale in groupby(passes, key=lambda each: each.scale_deg):
            blended, voted = self._scale(list(of_scale), rows, columns, votes.shape)
            here = np.isfinite(blended[0])
            total[:, here] += blended[:, here]
            named[:, here] += voted[:, here]
            reached += here
        votes += np.where(reached > 0, named / np.maximum(reached, 1), 0)
        return normalise(total, reached)

    def _scale(
        self, passes: list[InferenceJob], rows: slice, columns: slice, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Blended logits of one scale and the share of its windows for every class, (K, h, w) each."""
        blended = BlendedLogits(shape[0], (shape[1], shape[2]))
        voted = np.zeros(shape, np.float32)
        grid = self._plan.grid
        for each in passes:
            window_rows, window_columns = self._cells[each.name]
            tall, wide = _common(rows, window_rows), _common(columns, window_columns)
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
            logits = np.array(np.load(self._folder / each.logits_file, mmap_mode="r")[inside])
            hann = window_weight(np.array(each.wsen), grid.lat_deg[tall], grid.lon_deg[wide])
            blended.add(logits, hann, *here)
            if self._plan.flips:
                images = np.array(np.load(self._folder / each.votes_file, mmap_mode="r")[inside])
            else:
                images = logits.argmax(axis=0)[None]
            for image in images:
                for index in range(shape[0]):
                    voted[(index, *here)] += np.where(image == index, hann / np.float32(len(images)), 0)
        voted /= np.where(blended.weight > 0, blended.weight, 1)
        return blended.mean(), voted


def _common(one: slice, other: slice) -> slice | None:
    start, stop = max(one.start, other.start), min(one.stop, other.stop)
    return slice(start, stop) if start < stop else None


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities (K, h, w) of logits; summed class by class, so that a cell's value does not hang on the block."""
    exponent = np.exp(logits - logits.max(axis=0))
    total = np.zeros_like(exponent[0])
    for part in exponent:
        total += part
    probability: NDArray[np.float32] = (exponent / total).astype(np.float32)
    return probability
