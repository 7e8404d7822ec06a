"""The training ground of an architecture search, cut into two halves: one teaches weights, one chooses operators.

A search sees the training cells of an area and no other label (:func:`without_held_out_labels`). They are dealt by blocks of
ground to two halves, so that operators are not chosen on the very cells that the weights learnt by heart.

There is no buffer between the halves. A buffer guards a score, and nothing is scored here: where two blocks touch, the
second half is a little easier than ground unseen, for every operator and every candidate alike. What the found
architecture is worth is asked of the tuning blocks, which have a buffer of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.lattice import BUFFER, TRAIN, UNUSABLE
from gravmap.learning.data.dataset import IGNORE, RegionDataset
from gravmap.learning.sampling.crop_source import training_targets

BLOCK_DEG = 2.5
"""Side of a block where the split names none."""

BLOCKS = 8
"""Blocks are halved until so many hold something to learn."""

SMALLEST_CELLS = 4
"""A block is at least so many label cells wide."""

STARTS = 8
MISSING = 10.0
"""What a class that one half lacks costs; an uneven class costs 1 at most."""


@dataclass(frozen=True)
class SearchSplit:
    """Two areas of the same fields and windows, whose training cells are disjoint.

    Attributes
    ----------
    weights, choice : RegionDataset
        What teaches the weights, and what chooses the architecture; no other label is in them.
    record : dict
        JSON-able: `block_deg`, `seed`, `half_of_block` (rows of blocks, north first: A teaches weights, B chooses, a
        point is a block without a training label) and `cells` of each class in both.
    """

    weights: RegionDataset
    choice: RegionDataset
    record: dict[str, Any]


def without_held_out_labels(dataset: RegionDataset) -> RegionDataset:
    """The area without any label that training may not see: held-out cells and buffers are as good as unmapped.

    Parameters
    ----------
    area : RegionDataset
        With its roles.

    Returns
    -------
    Area
        The same in its training cells; elsewhere labels are 255 and nothing is a small body.
    """
    seen = dataset.role == TRAIN
    return replace(
        dataset,
        labels=np.where(seen, dataset.labels, np.uint8(UNUSABLE)),
        small=np.where(seen, dataset.small, np.uint8(0)),
    )


def split_for_search(dataset: RegionDataset, seed: int = 0) -> SearchSplit:
    """Deal the training cells of an area to two halves by blocks, so that both hold as much of every class.

    Parameters
    ----------
    area : RegionDataset
        Blocks are as large as those of its split, or smaller until eight hold something to learn.
    seed : int
        Of the search for an even deal.

    Raises
    ------
    InputError
        The training labels lie in one block, so that one half would have none.
    """
    dataset = without_held_out_labels(dataset)
    targets = training_targets(dataset)[1:-1, 1:-1]  # (Ny, Nx), without the rim
    west, south, east, north = (float(side) for side in dataset.label_bounds_wsen)
    cell_deg = max((north - south) / targets.shape[0], (east - west) / targets.shape[1])
    told = dataset.meta.get("split", {}).get("block_deg") or BLOCK_DEG
    side = float(min(told)) if isinstance(told, list | tuple) else float(told)
    while True:
        shape = max(1, round((north - south) / side)), max(1, round((east - west) / side))
        block = _block_of_cell(targets.shape, shape)
        counts = _count(targets, block, shape[0] * shape[1], len(dataset.classes))
        labelled = np.flatnonzero(counts.sum(axis=1))
        if len(labelled) >= BLOCKS or side / 2 < SMALLEST_CELLS * cell_deg:
            break
        side /= 2
    if len(labelled) < 2:
        raise InputError(
            f"The training labels lie in {len(labelled)} block(s) of {side:g} degrees; a search needs two halves.",
            "Map more ground (`gravmap rasterize`), or hold less of it out (`gravmap tile --folds`).",
        )
    in_second = np.zeros(len(counts), dtype=bool)
    in_second[labelled] = _deal(counts[labelled], seed)
    second = in_second[block]  # (Ny, Nx)
    training = dataset.role == TRAIN
    weights, choice = (
        replace(
            dataset,
            role=np.where(training & theirs, np.uint8(BUFFER), dataset.role),
            labels=np.where(theirs, np.uint8(UNUSABLE), dataset.labels),
            small=np.where(theirs, np.uint8(0), dataset.small),
        )
        for theirs in (second, ~second)
    )
    names = [str(each["name"]) for each in dataset.classes]
    letters = np.where(counts.sum(axis=1) == 0, ".", np.where(in_second, "B", "A")).reshape(shape)
    record = {
        "block_deg": [(north - south) / shape[0], (east - west) / shape[1]],
        "seed": seed,
        "half_of_block": ["".join(row) for row in letters.tolist()],
        "cells": {
            half: dict(zip(names, counts[mine].sum(axis=0).tolist(), strict=True))
            for half, mine in (("weights", ~in_second), ("choice", in_second))
        },
    }
    return SearchSplit(weights, choice, record)


def _block_of_cell(cells: tuple[int, ...], blocks: tuple[int, int]) -> NDArray[np.int64]:
    """Number of the block each cell lies in, row by row: (Ny, Nx)."""
    row, column = (np.arange(count) * parts // count for count, parts in zip(cells, blocks, strict=True))
    numbers: NDArray[np.int64] = row[:, None] * blocks[1] + column[None, :]
    return numbers


def _count(targets: NDArray[np.int16], block: NDArray[np.int64], blocks: int, classes: int) -> NDArray[np.int64]:
    """Cells of every class in every block that may be learnt from: (blocks, classes)."""
    known = targets != IGNORE
    pairs = block[known] * classes + targets[known]
    return np.bincount(pairs, minlength=blocks * classes).reshape(blocks, classes)


def _deal(counts: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Which blocks fall to the second half.

    The cost is the sum over classes, and over all of them together, of (share in one half - share in the other)², and a
    large amount for a class that one half lacks though it has two blocks. It is brought down from several random
    beginnings, by moving single blocks and swapping pairs.
    """
    present = counts.sum(axis=0) > 0
    cells = np.column_stack([counts[:, present], counts.sum(axis=1)])
    share = cells / cells.sum(axis=0)  # (blocks, classes + 1)
    may_be_even = (cells > 0).sum(axis=0) > 1
    blocks, rng = len(share), np.random.default_rng(seed)

    def cost(uneven: NDArray[np.float64]) -> float:
        return float((uneven**2).sum() + MISSING * np.count_nonzero(may_be_even & (np.abs(uneven) > 1 - 1e-9)))

    best, least = np.zeros(blocks, dtype=np.int64), np.inf
    for _ in range(STARTS):
        sign = 1 - 2 * (rng.permutation(blocks) % 2)
        uneven = sign @ share
        now = cost(uneven)
        for _ in range(min(4000, 40 * blocks)):
            first, second = rng.integers(blocks, size=2)
            turned = {int(first), int(second)} if rng.random() < 0.5 else {int(first)}
            trial_sign = sign.copy()
            trial_sign[list(turned)] *= -1
            trial = trial_sign @ share
            if abs(trial_sign.sum()) < blocks and cost(trial) < now:
                sign, now = trial_sign, cost(trial)
        if now < least:
            best, least = sign, now
    return best < 0
