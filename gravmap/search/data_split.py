"""Split of the training data of an architecture search: one half for the weights, the other for the architecture.

A search uses the training cells of a dataset and no other label (:func:`without_held_out_labels`). Their blocks are
assigned to two halves, so that the architecture is not chosen on the cells that the weights were fitted to.

There is no buffer between the halves. A buffer protects a score, and nothing is scored here: near the edges of blocks
the second half is a little easier than unseen data, for every operator and candidate alike. The architecture that is
found is evaluated on the tuning blocks, which have a buffer.
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
"""Side of a block if the split has none."""

MIN_BLOCKS = 8
"""Blocks are halved until this many contain a training label."""

MIN_BLOCK_CELLS = 4
"""Minimum width of a block in label cells."""

RESTARTS = 8
MISSING_CLASS_COST = 10.0
"""Cost of a class that one half lacks; an unevenly divided class costs at most 1."""


@dataclass(frozen=True)
class SearchSplit:
    """Two datasets with the same fields and windows, and disjoint training cells.

    Attributes
    ----------
    weights, architecture : RegionDataset
        Training data of the weights and of the architecture parameters; they contain no other label.
    record : dict
        JSON-able: `block_deg`, `seed`, `half_of_block` (rows of blocks, north first: A for the weights, B for the
        architecture, a point for a block without a training label) and `cells` of each class in both.
    """

    weights: RegionDataset
    architecture: RegionDataset
    record: dict[str, Any]


def without_held_out_labels(dataset: RegionDataset) -> RegionDataset:
    """The dataset without labels of held-out cells and buffers.

    Parameters
    ----------
    dataset : RegionDataset
        With its roles.

    Returns
    -------
    RegionDataset
        Unchanged in its training cells; elsewhere labels are 255 (not usable) and no cell is a small body.
    """
    training = dataset.role == TRAIN
    return replace(
        dataset,
        labels=np.where(training, dataset.labels, np.uint8(UNUSABLE)),
        small=np.where(training, dataset.small, np.uint8(0)),
    )


def split_for_search(dataset: RegionDataset, seed: int = 0) -> SearchSplit:
    """Divide the training cells of a dataset into two halves of blocks with similar class frequencies.

    Parameters
    ----------
    dataset : RegionDataset
        Blocks have the size of those of its split, or are halved until eight contain a training label.
    seed : int
        Random seed of the assignment.

    Raises
    ------
    InputError
        The training labels lie in one block, so that one half would have none.
    """
    dataset = without_held_out_labels(dataset)
    targets = training_targets(dataset)[1:-1, 1:-1]  # (Ny, Nx), without the rim
    west, south, east, north = (float(side) for side in dataset.label_bounds_wsen)
    cell_deg = max((north - south) / targets.shape[0], (east - west) / targets.shape[1])
    block_deg = dataset.meta.get("split", {}).get("block_deg") or BLOCK_DEG
    side = float(min(block_deg)) if isinstance(block_deg, list | tuple) else float(block_deg)
    while True:
        shape = max(1, round((north - south) / side)), max(1, round((east - west) / side))
        block = _block_of_cell(targets.shape, shape)
        counts = _count(targets, block, shape[0] * shape[1], len(dataset.classes))
        labelled = np.flatnonzero(counts.sum(axis=1))
        if len(labelled) >= MIN_BLOCKS or side / 2 < MIN_BLOCK_CELLS * cell_deg:
            break
        side /= 2
    if len(labelled) < 2:
        raise InputError(
            f"The training labels lie in {len(labelled)} block(s) of {side:g} degrees; a search needs two halves.",
            "Rasterize a larger map (`gravmap rasterize`), or hold out less of it (`gravmap tile --folds`).",
        )
    in_second = np.zeros(len(counts), dtype=bool)
    in_second[labelled] = _assign_blocks(counts[labelled], seed)
    second = in_second[block]  # (Ny, Nx)
    training = dataset.role == TRAIN
    weights, architecture = (
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
            part: dict(zip(names, counts[mine].sum(axis=0).tolist(), strict=True))
            for part, mine in (("weights", ~in_second), ("choice", in_second))
        },
    }
    return SearchSplit(weights, architecture, record)


def _block_of_cell(cells: tuple[int, ...], blocks: tuple[int, int]) -> NDArray[np.int64]:
    """Index of the block of each cell, row by row: (Ny, Nx)."""
    row, column = (np.arange(count) * parts // count for count, parts in zip(cells, blocks, strict=True))
    numbers: NDArray[np.int64] = row[:, None] * blocks[1] + column[None, :]
    return numbers


def _count(targets: NDArray[np.int16], block: NDArray[np.int64], blocks: int, classes: int) -> NDArray[np.int64]:
    """Number of training cells of every class in every block: (blocks, classes)."""
    known = targets != IGNORE
    pairs = block[known] * classes + targets[known]
    return np.bincount(pairs, minlength=blocks * classes).reshape(blocks, classes)


def _assign_blocks(counts: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Mask of the blocks assigned to the second half.

    The cost is the sum over classes, and over all of them together, of (fraction in one half - fraction in the other)²,
    plus a large cost for a class that one half lacks although two blocks have it. It is minimised by local search
    (moving single blocks and swapping pairs) from several random starts.
    """
    present = counts.sum(axis=0) > 0
    cells = np.column_stack([counts[:, present], counts.sum(axis=1)])
    fractions = cells / cells.sum(axis=0)  # (blocks, classes + 1)
    divisible = (cells > 0).sum(axis=0) > 1
    blocks, rng = len(fractions), np.random.default_rng(seed)

    def cost(imbalance: NDArray[np.float64]) -> float:
        return float(
            (imbalance**2).sum() + MISSING_CLASS_COST * np.count_nonzero(divisible & (np.abs(imbalance) > 1 - 1e-9))
        )

    best, least = np.zeros(blocks, dtype=np.int64), np.inf
    for _ in range(RESTARTS):
        sign = 1 - 2 * (rng.permutation(blocks) % 2)
        imbalance = sign @ fractions
        now = cost(imbalance)
        for _ in range(min(4000, 40 * blocks)):
            first, second = rng.integers(blocks, size=2)
            flipped = {int(first), int(second)} if rng.random() < 0.5 else {int(first)}
            trial_sign = sign.copy()
            trial_sign[list(flipped)] *= -1
            trial = trial_sign @ fractions
            if abs(trial_sign.sum()) < blocks and cost(trial) < now:
                sign, now = trial_sign, cost(trial)
        if now < least:
            best, least = sign, now
    return best < 0
