"""Synthetic cover masks: outcrop hidden in training, so that a network learns to predict bedrock under cover."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.lattice import BUFFER, TRAIN, UNUSABLE
from gravmap.learning.data.dataset import RegionDataset, known_labels
from gravmap.learning.data.outcrop_context import with_context

Targets = Literal["hidden", "all"]

LEAST_HIDDEN, MOST_HIDDEN = 0.1, 0.9
"""Fraction of the outcrop that a mask may hide; others are drawn again."""

TRIES = 100
COVER = 0


def shifted_cover(cover: NDArray[np.bool_], offset_yx: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask shifted to another place: the value at (i, j) is that of (i + dy, j + dx).

    Beyond its edges the mask continues as its mirror image. Shifts of up to twice its length give every position in
    all four orientations.

    Parameters
    ----------
    cover : (ny, nx) bool
        The mask.
    offset_yx : (int, int)
        Cells down and to the right.
    """
    rows, columns = (_mirrored(count, by) for count, by in zip(cover.shape, offset_yx, strict=True))
    return cover[rows[:, None], columns[None, :]]


def draw_cover_mask(dataset: RegionDataset, seed: int, number: int) -> NDArray[np.bool_]:
    """Where outcrop is hidden, (Ny, Nx) of the labels: the map's own cover, shifted at random.

    Parameters
    ----------
    dataset : RegionDataset
        Its labels are 0 where covered.
    seed, number : int
        Which mask; the same numbers give the same mask.

    Raises
    ------
    InputError
        The map has no training outcrop or no cover, or no shift hides a fraction of the outcrop from 0.1 to 0.9 and
        leaves two classes.
    """
    mapped = (dataset.labels > COVER) & (dataset.labels != UNUSABLE) & (dataset.role == TRAIN)
    if not mapped.any():
        raise InputError("The map has no training outcrop here.", "Check the labels and the split.")
    cover = dataset.labels == COVER
    if not cover.any():
        raise InputError(
            "The map has no cover, so there is no shape to hide its outcrop with.",
            "Choose a window that holds cover, or train without --context.",
        )
    known = known_labels(dataset)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, number))))
    for _ in range(TRIES):
        down, right = (int(rng.integers(2 * count)) for count in cover.shape)
        mask = shifted_cover(cover, (down, right))
        left = _visible(dataset, known, mask)
        fraction = (mapped & mask).sum() / mapped.sum()
        if LEAST_HIDDEN <= fraction <= MOST_HIDDEN and len(np.unique(left[left > 0])) > 1:
            return mask
    raise InputError(
        "The map's cover hides nearly none or nearly all of its outcrop, wherever it is shifted.",
        "Choose a window with more cover, or with more outcrop of at least two classes.",
    )


def mask_dataset(dataset: RegionDataset, mask: NDArray[np.bool_], targets: Targets = "hidden") -> RegionDataset:
    """A dataset whose outcrop is hidden under a mask: the rest is its context, the hidden labels its targets.

    Parameters
    ----------
    dataset : RegionDataset
        Without context.
    mask : (Ny, Nx) bool
        Where its outcrop is hidden (:func:`draw_cover_mask`).
    targets : {"hidden", "all"}
        Train on hidden labels alone, or also on those that the context shows.

    Returns
    -------
    RegionDataset
        With context. With hidden targets, training cells outside the mask have the role BUFFER.

    Raises
    ------
    InputError
        No outcrop is left visible, or of one class only.
    """
    masked = with_context(dataset, _visible(dataset, known_labels(dataset), mask))
    if targets == "all":
        return masked
    return replace(masked, role=np.where((masked.role == TRAIN) & ~mask, BUFFER, masked.role).astype(np.uint8))


def _visible(dataset: RegionDataset, known: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Known classes at nodes, (ny, nx), without the nodes whose label cell is hidden."""
    rows, columns = dataset.label_rows(dataset.node_lat), dataset.label_columns(dataset.node_lon)
    return np.where(mask[rows[:, None], columns[None, :]], 0, known).astype(np.uint8)


def _mirrored(count: int, by: int) -> NDArray[np.int64]:
    """Cells 0..count-1 shifted along a line that continues as its mirror image, the last cell twice."""
    place = (np.arange(count) + by) % (2 * count)
    return np.minimum(place, 2 * count - 1 - place)


CUTS = 8
"""Masks in use at a time: each holds the fields of context at every node in memory."""


@dataclass(frozen=True)
class CoverMaskedDatasets:
    """A region under many cover masks. Those in use depend on the epoch alone, so a resumed run has the same.

    Attributes
    ----------
    dataset : RegionDataset
        The region, without context.
    count : int
        Masks in use at a time. With every epoch the oldest is replaced by a new one.
    seed : int
        Of all masks.
    """

    dataset: RegionDataset
    count: int
    seed: int

    def numbers(self, epoch: int) -> range:
        """Numbers of the masks in use in an epoch."""
        return range(epoch, epoch + self.count)

    def make(self, number: int) -> RegionDataset:
        """The region under one mask; see :func:`mask_dataset`.

        Raises
        ------
        InputError
            The map has no training outcrop or no cover.
        """
        return mask_dataset(self.dataset, draw_cover_mask(self.dataset, self.seed, number))
