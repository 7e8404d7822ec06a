"""The strict split: blocks are held out with every window that touches them, so that training sees no gravity there.

Under :mod:`gravmap.tiling.blocks` training windows overlap held-out blocks and see their gravity; only the labels are
hidden. Here such windows are not used for training at all. That loses windows, the large ones first; so the blocks are
larger, those of a fold are adjacent, and one or two of their neighbours serve for tuning instead of a whole fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.lattice import BUFFER, COVER, TEST, TRAIN, TUNE, UNUSABLE
from gravmap.regions import Region
from gravmap.tiling.blocks import (
    BUFFER_DEG,
    FOLDS,
    BlockSplit,
    check_block_options,
    check_labelled,
    count_blocks,
    may_halve,
    smaller_note,
)
from gravmap.tiling.label_statistics import count_classes
from gravmap.units import describe_angle

STRICT_BLOCK_DEG = 5.0
# Weight of the fraction of training windows lost, mean over the scales and folds, relative to the sum of squares that
# measures how unevenly the classes are distributed over the folds.
_WEIGHT_OF_WINDOWS = 6.0
_EDGE_DEG = 1e-9
_IMPOSSIBLE = 1e6


@dataclass(frozen=True)
class StrictSplit(BlockSplit):
    """Blocks held out whole, together with every window that touches one.

    Attributes
    ----------
    tuning : tuple of tuple of int
        Per fold its tuning blocks, numbered row by row from the north-west.
    """

    name: str = "strict"
    tuning: tuple[tuple[int, ...], ...] = ()

    kind: ClassVar[str] = "strict"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able description, from which :meth:`from_dict` makes the split again."""
        return {**super().to_dict(), "tuning_blocks": [list(blocks) for blocks in self.tuning]}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Make the split from the dictionary of :meth:`to_dict`; errors as :meth:`BlockSplit.from_dict`."""
        plain = super().from_dict(stored)
        tuning = tuple(tuple(blocks) for blocks in stored["tuning_blocks"])
        if len(tuning) != plain.folds:
            raise ValueError(f"it has tuning blocks for {len(tuning)} of {plain.folds} folds")
        if any(not 0 <= block < plain.fold_of.size for blocks in tuning for block in blocks):
            raise ValueError("tuning_blocks names a block that does not exist")
        return replace(plain, tuning=tuning)

    def block_roles(self, fold: int) -> NDArray[np.uint8]:
        """The role of every block in one fold, shape (rows, columns): 0 train, 1 tune, 2 test."""
        of_block = np.where(self.fold_of == fold, np.uint8(TEST), np.uint8(TRAIN))
        of_block.ravel()[list(self.tuning[fold])] = TUNE
        return of_block

    def window_roles(self, fold: int, boxes_wsen: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The role of every window, shape (n,): 0 train where it touches no held-out block, else 3."""
        held_out = self.block_roles(fold).ravel() != TRAIN
        meets = touching(boxes_wsen, self.region, self.fold_of.shape, self.buffer_deg)[:, held_out].any(axis=1)
        return np.where(meets, np.uint8(BUFFER), np.uint8(TRAIN))

    def columns(self, boxes_wsen: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """Columns of ``index.parquet``: the role of each window in each fold."""
        return {f"{self.name}_role_fold{fold}": self.window_roles(fold, boxes_wsen) for fold in range(self.folds)}


def touching(
    boxes_wsen: NDArray[np.float64], region: Region, shape: tuple[int, ...], buffer_deg: float
) -> NDArray[np.bool_]:
    """Which windows overlap which blocks grown by the buffer, shape (windows, blocks)."""
    rows, columns = shape
    north = region.north - np.arange(rows) * region.height_deg / rows
    west = region.west + np.arange(columns) * region.width_deg / columns
    south, east = north - region.height_deg / rows, west + region.width_deg / columns
    grown = buffer_deg - _EDGE_DEG
    overlap_lat = (boxes_wsen[:, 1, None] < north + grown) & (boxes_wsen[:, 3, None] > south - grown)
    overlap_lon = (boxes_wsen[:, 0, None] < east + grown) & (boxes_wsen[:, 2, None] > west - grown)
    both: NDArray[np.bool_] = overlap_lat[:, :, None] & overlap_lon[:, None, :]
    return both.reshape(len(boxes_wsen), -1)


def split_strict(
    labels: NDArray[np.uint8],
    bounds_wsen: tuple[float, float, float, float],
    region: Region,
    boxes_wsen: NDArray[np.float64],
    *,
    block_deg: float | None = None,
    folds: int = FOLDS,
    buffer_deg: float = BUFFER_DEG,
    seed: int = 0,
    name: str = "strict",
) -> StrictSplit:
    """Hold out blocks together with every window that touches them or their buffer.

    Every block with bedrock is a test block in one fold. Blocks are assigned so that each fold has the same fraction
    of every class and as many windows as possible touch no held-out block, all scales with the same weight; so the
    blocks of a fold become adjacent. Then each fold gets tuning blocks, a third as many as test blocks: those with
    enough bedrock that lose the fewest windows, and no two folds the same training windows; a note names those
    that share them because there are too few.

    Parameters
    ----------
    labels : ndarray, shape (rows, columns), uint8
        North-up; 1, 2, ... are bedrock.
    bounds_wsen : tuple of float
        Outer edges of the labels, degrees.
    region : Region
        The region to divide.
    boxes_wsen : ndarray, shape (n, 4), float64
        West, south, east, north of the windows, degrees.
    block_deg : float, optional
        Side of a block. By default 5 degrees, halved until there are two blocks with labels per fold and every fold
        keeps training windows with bedrock.
    folds, buffer_deg, seed, name
        As in :func:`gravmap.tiling.blocks.split_blocks`.

    Raises
    ------
    OptionError
        Fewer than 3 folds, or an invalid size of block or buffer.
    InputError
        Fewer blocks with labels than folds, or a fold in which every window with bedrock touches a held-out block.
    """
    check_block_options(folds, block_deg, buffer_deg)
    side = STRICT_BLOCK_DEG if block_deg is None else block_deg
    usable = count_classes(labels, bounds_wsen, boxes_wsen)[:, COVER + 1 : UNUSABLE].any(axis=1)
    scale = np.round(boxes_wsen[usable, 2] - boxes_wsen[usable, 0], 6)
    weight = 1 / np.unique(scale, return_counts=True)[1][np.unique(scale, return_inverse=True)[1]]
    while True:
        shape, counts = count_blocks(labels, bounds_wsen, region, side)
        labelled = np.flatnonzero(counts.sum(axis=1))
        touch = touching(boxes_wsen[usable], region, shape, buffer_deg)
        split = None
        if len(labelled) >= folds:
            fold_of = np.full(len(counts), -1, dtype=np.int64)
            fold_of[labelled] = _assign_adjacent(counts[labelled], touch[:, labelled], weight, folds, seed)
            tuning = _choose_tuning_blocks(fold_of, folds, counts, touch, weight)
            split = StrictSplit(
                region, fold_of.reshape(shape), folds, float(buffer_deg), seed, name=name, tuning=tuning
            )
        enough = len(labelled) >= 2 * folds and split is not None and not _empty_folds(split, boxes_wsen[usable])
        if block_deg is not None or enough or not may_halve(side, buffer_deg):
            break
        side /= 2
    check_labelled(len(labelled), folds, side)
    assert split is not None
    empty = _empty_folds(split, boxes_wsen[usable])
    if empty:
        raise InputError(
            f"Split {name}: in fold {', '.join(map(str, empty))} every window with bedrock touches a held-out block "
            f"of {describe_angle(side)} or its buffer; nothing is left to learn from.",
            "Give a smaller --block or --buffer, smaller windows (--window), more --folds, or use --split blocks.",
        )
    notes = smaller_note(region, block_deg, side, STRICT_BLOCK_DEG) + _same_windows_note(split, boxes_wsen[usable])
    return replace(split, notes=tuple(notes))


def _same_windows_note(split: StrictSplit, boxes_wsen: NDArray[np.float64]) -> list[str]:
    """A note on the folds that train on the same windows."""
    groups: dict[bytes, list[str]] = {}
    for fold in range(split.folds):
        groups.setdefault(split.window_roles(fold, boxes_wsen).tobytes(), []).append(str(fold))
    same = "; ".join(" and ".join(group) for group in groups.values() if len(group) > 1)
    return [f"Folds {same} train on the same windows: there are too few (--window, --block)."] if same else []


def _empty_folds(split: StrictSplit, boxes_wsen: NDArray[np.float64]) -> list[int]:
    """Folds that keep none of the windows."""
    return [fold for fold in range(split.folds) if (split.window_roles(fold, boxes_wsen) != TRAIN).all()]


def _assign_adjacent(
    counts: NDArray[np.int64], touch: NDArray[np.bool_], weight: NDArray[np.float64], folds: int, seed: int
) -> NDArray[np.int64]:
    """Assign blocks to folds: equal fractions of every class, and few windows that touch the blocks of one fold.

    The cost is the sum over folds and classes of (fraction of the class in the fold - 1/folds)², the same weight for
    the fold's fraction of all bedrock, six times the mean over folds of the fraction of windows lost, and ten for every
    class that is in one fold alone, whose training then has none. It is minimized from random starts by moving single
    blocks and swapping pairs.

    Parameters
    ----------
    counts : ndarray, shape (blocks, classes), int
        Cells.
    touch : ndarray, shape (windows, blocks), bool
        Which windows are lost when a block is held out.
    weight : ndarray, shape (windows,), float
        Weight of each window.
    folds, seed : int
        Number of folds; seed of the search.

    Returns
    -------
    ndarray, shape (blocks,), int
    """
    present = counts.sum(axis=0) > 0
    fraction = counts[:, present] / counts[:, present].sum(axis=0)
    # All bedrock together weighs as much as all classes: a fold of rare classes alone would hold hardly any test cells.
    whole = np.sqrt(fraction.shape[1]) * counts.sum(axis=1, keepdims=True) / counts.sum()
    fraction = np.hstack([fraction, whole])
    even = np.append(np.full(fraction.shape[1] - 1, 1 / folds), np.sqrt(fraction.shape[1] - 1) / folds)
    blocks, touched = len(fraction), touch.astype(np.int32)
    weight = weight / max(weight.sum(), 1e-300)
    rng = np.random.default_rng(seed)

    def cost(held_out: NDArray[np.float64], over: NDArray[np.int32]) -> float:
        lost = float((weight @ (over > 0)).mean()) if len(weight) else 0.0
        alone = np.count_nonzero(held_out[:, :-1] > 1 - 1e-9)
        return float(((held_out - even) ** 2).sum()) + _WEIGHT_OF_WINDOWS * lost + 10 * alone

    best, best_cost = np.zeros(blocks, dtype=np.int64), np.inf
    for _ in range(max(1, min(12, 1000 // blocks))):
        fold_of = rng.permutation(np.arange(blocks) % folds)
        held_out = np.zeros((folds, fraction.shape[1]))
        np.add.at(held_out, fold_of, fraction)
        over = np.stack([touched[:, fold_of == fold].sum(axis=1) for fold in range(folds)], axis=1).astype(np.int32)
        now = cost(held_out, over)
        for _ in range(min(1500, 40 * blocks)):
            first, second = rng.integers(blocks, size=2)
            moved = rng.random() < 0.5
            a, b = fold_of[first], int(rng.integers(folds)) if moved else fold_of[second]
            if a == b or (moved and np.count_nonzero(fold_of == a) == 1):
                continue
            change = fraction[first] if moved else fraction[first] - fraction[second]
            off = touched[:, first] if moved else touched[:, first] - touched[:, second]
            trial, trial_over = held_out.copy(), over.copy()
            trial[a] -= change
            trial[b] += change
            trial_over[:, a] -= off
            trial_over[:, b] += off
            trial_cost = cost(trial, trial_over)
            if trial_cost < now:
                held_out, over, now = trial, trial_over, trial_cost
                fold_of[first] = b
                if not moved:
                    fold_of[second] = a
        if now < best_cost:
            best, best_cost = fold_of.copy(), now
    return best


def _choose_tuning_blocks(
    fold_of: NDArray[np.int64],
    folds: int,
    counts: NDArray[np.int64],
    touch: NDArray[np.bool_],
    weight: NDArray[np.float64],
) -> tuple[tuple[int, ...], ...]:
    """Choose tuning blocks so that no two folds train on the same windows.

    Two adjacent blocks, each the test block of one fold and the tuning block of the other, would be one training set
    with test and tuning data swapped. Of all choices without that, the one with the best-ranked blocks is taken. Where
    the windows are too few for it, the folds differ in the blocks that they hold out, if they can.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import

    best = tuple(_tuning_options(fold, fold_of, counts, touch, weight, True)[0] for fold in range(folds))
    # Few labels make a poor tuning block: such blocks only where the folds would be the same without them.
    for enough_labels, by_windows in ((True, True), (True, False), (False, False)):
        options = [_tuning_options(fold, fold_of, counts, touch, weight, enough_labels) for fold in range(folds)]
        keys: dict[bytes, int] = {}
        rank = np.full((folds, max(folds, sum(map(len, options)))), _IMPOSSIBLE)
        chosen: dict[tuple[int, int], tuple[int, ...]] = {}
        for fold, choices in enumerate(options):
            for place, blocks in enumerate(choices):
                held_out = fold_of == fold
                held_out[list(blocks)] = True
                lost = touch[:, held_out].any(axis=1)
                if lost.all():  # nothing left to train on
                    continue
                key = keys.setdefault((lost if by_windows else held_out).tobytes(), len(keys))
                if place < rank[fold, key]:
                    rank[fold, key], chosen[fold, key] = place, blocks
        rows, columns = linear_sum_assignment(rank)
        if (rank[rows, columns] < _IMPOSSIBLE).all():
            return tuple(chosen[fold, key] for fold, key in zip(rows.tolist(), columns.tolist(), strict=True))
    return best


def _tuning_options(
    fold: int,
    fold_of: NDArray[np.int64],
    counts: NDArray[np.int64],
    touch: NDArray[np.bool_],
    weight: NDArray[np.float64],
    enough_labels: bool,
) -> list[tuple[int, ...]]:
    """Choices of a third as many blocks of other folds as `fold` tests on (at least one), the best first.

    The best has much bedrock and loses few windows; the choices differ in the last block.
    """
    tested = np.flatnonzero(fold_of == fold)
    others = np.flatnonzero((fold_of >= 0) & (fold_of != fold))
    cells = counts.sum(axis=1)
    candidates = (others[cells[others] >= 0.5 * cells[others].mean()] if enough_labels else others).tolist()
    lost = touch[:, tested].any(axis=1)

    def cost(block: int) -> tuple[float, int, int, int]:
        return (
            round(float(weight @ (lost | touch[:, block])), 9),
            -int(np.count_nonzero(counts[block])),
            -int(cells[block]),
            block,
        )

    chosen: list[int] = []
    for _ in range(min(max(1, round(len(tested) / 3)), len(candidates)) - 1):
        chosen.append(min((block for block in candidates if block not in chosen), key=cost))
        lost = lost | touch[:, chosen[-1]]
    return [(*chosen, block) for block in sorted(set(candidates) - set(chosen), key=cost)]
