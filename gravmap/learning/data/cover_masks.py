"""Synthetic cover masks: outcrop hidden on purpose, so that a network learns what lies under cover."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.lattice import BUFFER, TRAIN, UNUSABLE
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.data.outcrop_context import with_context
from gravmap.learning.evaluation.null_models import known_labels

Teaches = Literal["hidden", "all"]

LEAST_HIDDEN, MOST_HIDDEN = 0.1, 0.9
"""Share of the outcrop that a cut hides; others are drawn anew."""

TRIES = 100
COVER = 0


def shifted_cover(cover: NDArray[np.bool_], offset_yx: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask as it is at another place: at (i, j) stands what was at (i + dy, j + dx).

    Beyond its rim the mask goes on as its mirror image, without a seam. Moved by up to twice its length it stands there
    in each of the four ways to mirror it.

    Parameters
    ----------
    cover : (ny, nx) bool
        The mask.
    offset_yx : (int, int)
        Cells down and to the right.
    """
    rows, columns = (_mirrored(count, by) for count, by in zip(cover.shape, offset_yx, strict=True))
    return cover[rows[:, None], columns[None, :]]


def draw_cover_mask(area: RegionDataset, seed: int, number: int) -> NDArray[np.bool_]:
    """Where outcrop is hidden, (Ny, Nx) of the labels: the map's cover at another place, the same for the same numbers.

    Parameters
    ----------
    area : RegionDataset
        Its labels are 0 where covered.
    seed, number : int
        Which cut.

    Raises
    ------
    InputError
        The map has no outcrop to learn from, or no cover, or no place for it hides some of the outcrop of two classes
        and leaves some of two.
    """
    mapped = (area.labels > COVER) & (area.labels != UNUSABLE) & (area.role == TRAIN)
    if not mapped.any():
        raise InputError("The map has no outcrop to learn from here.", "Check the labels and the split.")
    cover = area.labels == COVER
    if not cover.any():
        raise InputError(
            "The map has no cover, so there is no shape to hide its outcrop with.",
            "Take a window with covered ground in it, or train without --context.",
        )
    known = known_labels(area)
    drawing = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, number))))
    for _ in range(TRIES):
        down, right = (int(drawing.integers(2 * count)) for count in cover.shape)
        cut = shifted_cover(cover, (down, right))
        left = _left(area, known, cut)
        share = (mapped & cut).sum() / mapped.sum()
        if LEAST_HIDDEN <= share <= MOST_HIDDEN and len(np.unique(left[left > 0])) > 1:
            return cut
    raise InputError(
        "The map's cover, moved elsewhere, hides nearly none or nearly all of its outcrop wherever it is put.",
        "Take a window with more outcrop, or more cover, of two classes at least.",
    )


def mask_dataset(area: RegionDataset, cut: NDArray[np.bool_], teaches: Teaches = "hidden") -> RegionDataset:
    """The ground of one cut: the same gravity, the context of the outcrop that is left, and what was hidden as targets.

    Parameters
    ----------
    area : RegionDataset
        Without context.
    cut : (Ny, Nx) bool
        Where its outcrop is hidden (:func:`draw_cover_mask`).
    teaches : {"hidden", "all"}
        What is asked for: hidden labels alone, or also those that the context shows.

    Returns
    -------
    Area
        With context; training cells outside the cut have the role BUFFER unless they teach, too.

    Raises
    ------
    InputError
        What is left is no outcrop, or of one class.
    """
    ground = with_context(area, _left(area, known_labels(area), cut))
    if teaches == "all":
        return ground
    return replace(ground, role=np.where((ground.role == TRAIN) & ~cut, BUFFER, ground.role).astype(np.uint8))


def _left(area: RegionDataset, known: NDArray[np.uint8], cut: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """What is known at nodes, (ny, nx), less the nodes whose label cell is hidden."""
    rows, columns = area.label_rows(area.node_lat), area.label_columns(area.node_lon)
    return np.where(cut[rows[:, None], columns[None, :]], 0, known).astype(np.uint8)


def _mirrored(count: int, by: int) -> NDArray[np.int64]:
    """Cells 0..count-1 moved along a line that goes on as its mirror image, the last cell twice."""
    place = (np.arange(count) + by) % (2 * count)
    return np.minimum(place, 2 * count - 1 - place)


CUTS = 8
"""So many are in use at a time: each holds the context's planes at every node in memory."""


@dataclass(frozen=True)
class CoverMaskedDatasets:
    """The cuts of a region. Which are in use depends on the epoch alone, so a run that goes on has the same.

    Attributes
    ----------
    area : RegionDataset
        The region, without context.
    count : int
        Cuts in use at a time. With every epoch the oldest gives way to a new one.
    seed : int
        Of all cuts.
    """

    area: RegionDataset
    count: int
    seed: int

    def numbers(self, epoch: int) -> range:
        """Which cuts are in use in an epoch."""
        return range(epoch, epoch + self.count)

    def make(self, number: int) -> RegionDataset:
        """The ground of one cut: the region's gravity, the context of what outcrop is left, what is hidden as targets.

        Raises
        ------
        InputError
            The map has no outcrop or no cover to learn from.
        """
        return mask_dataset(self.area, draw_cover_mask(self.area, self.seed, number))
