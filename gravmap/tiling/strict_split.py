"""The strict split: blocks held out so that no window learned from touches them, not even with its gravity.

Under :mod:`gravmap.tiling.blocks` training windows lie over held-out blocks and see their gravity, only their labels
are hidden. Here such windows are not learned from at all. That costs windows, the large ones first; so the
blocks are larger, those of a fold lie together, and one or two neighbours are tuned on instead of a whole fold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.lattice import BUFFER as IGNORED
from gravmap.lattice import COVER, TEST, TRAIN, TUNE, UNUSABLE
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
# What one lost share of the training windows, mean over the scales and folds, weighs against the sum of squares
# that says how unevenly the classes are dealt.
_WEIGHT_OF_WINDOWS = 6.0
_EDGE_DEG = 1e-9


@dataclass(frozen=True)
class StrictSplit(BlockSplit):
    """Blocks held out whole, and with them every window that touches one.

    Attributes
    ----------
    tuning : tuple of tuple of int
        Per fold the blocks it tunes on, numbered row by row from the north-west.
    """

    name: str = "strict"
    tuning: tuple[tuple[int, ...], ...] = ()

    kind: ClassVar[str] = "strict"

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`from_dict` rebuilds the split from; plain JSON values."""
        return {**super().to_dict(), "tuning_blocks": [list(blocks) for blocks in self.tuning]}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """The split that :meth:`to_dict` described."""
        plain = super().from_dict(stored)
        tuning = tuple(tuple(blocks) for blocks in stored["tuning_blocks"])
        return replace(plain, tuning=tuning)

    def block_roles(self, fold: int) -> NDArray[np.uint8]:
        """The role of every block in one fold, shape (rows, columns): 0 train, 1 tune, 2 test."""
        of_block = np.where(self.fold_of == fold, np.uint8(TEST), np.uint8(TRAIN))
        of_block.ravel()[list(self.tuning[fold])] = TUNE
        return of_block

    def window_roles(self, fold: int, boxes_wsen: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The role of every window, shape (n,): 0 train where it keeps off every held-out block, else 3."""
        held = self.block_roles(fold).ravel() != TRAIN
        meets = touching(boxes_wsen, self.region, self.fold_of.shape, self.buffer_deg)[:, held].any(axis=1)
        return np.where(meets, np.uint8(IGNORED), np.uint8(TRAIN))

    def columns(self, boxes_wsen: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """What ``index.parquet`` says of the windows: their role in each fold."""
        return {f"{self.name}_role_fold{fold}": self.window_roles(fold, boxes_wsen) for fold in range(self.folds)}


def touching(
    boxes_wsen: NDArray[np.float64], region: Region, shape: tuple[int, ...], buffer_deg: float
) -> NDArray[np.bool_]:
    """Which windows share ground with which blocks grown by the buffer, shape (windows, blocks)."""
    rows, columns = shape
    north = region.north - np.arange(rows) * region.height_deg / rows
    west = region.west + np.arange(columns) * region.width_deg / columns
    south, east = north - region.height_deg / rows, west + region.width_deg / columns
    grown = buffer_deg - _EDGE_DEG
    tall = (boxes_wsen[:, 1, None] < north + grown) & (boxes_wsen[:, 3, None] > south - grown)
    wide = (boxes_wsen[:, 0, None] < east + grown) & (boxes_wsen[:, 2, None] > west - grown)
    both: NDArray[np.bool_] = tall[:, :, None] & wide[:, None, :]
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

    Every block with bedrock is scored in one fold. Blocks are dealt so that each fold has its share of every
    class and as many windows as possible keep off what is held out, scales counting alike; so the blocks of a
    fold come to lie side by side. Then each fold is given tuning blocks, a third as many as it scores on:
    those with enough bedrock that cost the fewest windows.

    Parameters
    ----------
    labels : ndarray, shape (rows, columns), uint8
        North-up; 1, 2, ... are bedrock.
    bounds_wsen : tuple of float
        Outer edges of the labels, degrees.
    region : Region
        What to divide.
    boxes_wsen : ndarray, shape (n, 4), float64
        West, south, east, north of the windows, degrees.
    block_deg : float, optional
        Side of a block. By default 5 degrees, halved until two blocks with labels fall to each fold and every
        fold keeps windows with bedrock to learn from.
    folds, buffer_deg, seed, name
        As in :func:`gravmap.tiling.split_blocks`.

    Raises
    ------
    OptionError
        Fewer than 3 folds, or a block or buffer that is none.
    InputError
        Fewer blocks with labels than folds, or a fold in which every window with bedrock touches a held-out block.
    """
    check_block_options(folds, block_deg, buffer_deg)
    side = STRICT_BLOCK_DEG if block_deg is None else block_deg
    teaches = count_classes(labels, bounds_wsen, boxes_wsen)[:, COVER + 1 : UNUSABLE].any(axis=1)
    scale = np.round(boxes_wsen[teaches, 2] - boxes_wsen[teaches, 0], 6)
    weight = 1 / np.unique(scale, return_counts=True)[1][np.unique(scale, return_inverse=True)[1]]
    while True:
        shape, counts = count_blocks(labels, bounds_wsen, region, side)
        labelled = np.flatnonzero(counts.sum(axis=1))
        touch = touching(boxes_wsen[teaches], region, shape, buffer_deg)
        split = None
        if len(labelled) >= folds:
            fold_of = np.full(len(counts), -1, dtype=np.int64)
            fold_of[labelled] = _deal_together(counts[labelled], touch[:, labelled], weight, folds, seed)
            tuning = tuple(_tuning_blocks(fold, fold_of, counts, touch, weight) for fold in range(folds))
            split = StrictSplit(
                region, fold_of.reshape(shape), folds, float(buffer_deg), seed, name=name, tuning=tuning
            )
        enough = len(labelled) >= 2 * folds and split is not None and not _empty_folds(split, boxes_wsen[teaches])
        if block_deg is not None or enough or not may_halve(side, buffer_deg):
            break
        side /= 2
    check_labelled(len(labelled), folds, side)
    assert split is not None
    empty = _empty_folds(split, boxes_wsen[teaches])
    if empty:
        raise InputError(
            f"Split {name}: in fold {', '.join(map(str, empty))} every window with bedrock touches a held-out block "
            f"of {describe_angle(side)} or its buffer; nothing is left to learn from.",
            "Give a smaller --block or --buffer, smaller windows (--window), more --folds, or take --split blocks.",
        )
    return replace(split, notes=tuple(smaller_note(region, block_deg, side, STRICT_BLOCK_DEG)))


def _empty_folds(split: StrictSplit, boxes_wsen: NDArray[np.float64]) -> list[int]:
    """Folds that keep none of the windows."""
    return [fold for fold in range(split.folds) if (split.window_roles(fold, boxes_wsen) != TRAIN).all()]


def _deal_together(
    counts: NDArray[np.int64], touch: NDArray[np.bool_], weight: NDArray[np.float64], folds: int, seed: int
) -> NDArray[np.int64]:
    """Deal blocks to folds: equal shares of every class, and as few windows as possible over those of one fold.

    The cost is the sum over folds and classes of (share of the class in the fold - 1/folds)², as much again for the
    fold's share of all bedrock, six times the mean over folds of the share of windows lost, and ten for every class
    that is in one fold alone, where its training has none. It is brought down from random beginnings by moving
    single blocks and swapping pairs.

    Parameters
    ----------
    counts : ndarray, shape (blocks, classes), int
        Cells.
    touch : ndarray, shape (windows, blocks), bool
        Which windows holding a block out costs.
    weight : ndarray, shape (windows,), float
        What a window counts.
    folds, seed : int
        Number of folds; seed of the search.

    Returns
    -------
    ndarray, shape (blocks,), int
    """
    present = counts.sum(axis=0) > 0
    share = counts[:, present] / counts[:, present].sum(axis=0)
    # All bedrock together weighs as much as all classes: a fold of rare classes alone would score next to nothing.
    whole = np.sqrt(share.shape[1]) * counts.sum(axis=1, keepdims=True) / counts.sum()
    share = np.hstack([share, whole])
    even = np.append(np.full(share.shape[1] - 1, 1 / folds), np.sqrt(share.shape[1] - 1) / folds)
    blocks, touched = len(share), touch.astype(np.int32)
    weight = weight / max(weight.sum(), 1e-300)
    rng = np.random.default_rng(seed)

    def cost(held: NDArray[np.float64], over: NDArray[np.int32]) -> float:
        lost = float((weight @ (over > 0)).mean()) if len(weight) else 0.0
        alone = np.count_nonzero(held[:, :-1] > 1 - 1e-9)
        return float(((held - even) ** 2).sum()) + _WEIGHT_OF_WINDOWS * lost + 10 * alone

    best, best_cost = np.zeros(blocks, dtype=np.int64), np.inf
    for _ in range(max(1, min(12, 1000 // blocks))):
        fold_of = rng.permutation(np.arange(blocks) % folds)
        held = np.zeros((folds, share.shape[1]))
        np.add.at(held, fold_of, share)
        over = np.stack([touched[:, fold_of == fold].sum(axis=1) for fold in range(folds)], axis=1).astype(np.int32)
        now = cost(held, over)
        for _ in range(min(1500, 40 * blocks)):
            first, second = rng.integers(blocks, size=2)
            moved = rng.random() < 0.5
            a, b = fold_of[first], int(rng.integers(folds)) if moved else fold_of[second]
            if a == b or (moved and np.count_nonzero(fold_of == a) == 1):
                continue
            gone = share[first] if moved else share[first] - share[second]
            off = touched[:, first] if moved else touched[:, first] - touched[:, second]
            trial, trial_over = held.copy(), over.copy()
            trial[a] -= gone
            trial[b] += gone
            trial_over[:, a] -= off
            trial_over[:, b] += off
            trial_cost = cost(trial, trial_over)
            if trial_cost < now:
                held, over, now = trial, trial_over, trial_cost
                fold_of[first] = b
                if not moved:
                    fold_of[second] = a
        if now < best_cost:
            best, best_cost = fold_of.copy(), now
    return best


def _tuning_blocks(
    fold: int,
    fold_of: NDArray[np.int64],
    counts: NDArray[np.int64],
    touch: NDArray[np.bool_],
    weight: NDArray[np.float64],
) -> tuple[int, ...]:
    """A third as many blocks of other folds as `fold` scores on (at least one): rich in bedrock, cheap in windows."""
    tested = np.flatnonzero(fold_of == fold)
    others = np.flatnonzero((fold_of >= 0) & (fold_of != fold))
    cells = counts.sum(axis=1)
    rich = others[cells[others] >= 0.5 * cells[others].mean()]
    lost = touch[:, tested].any(axis=1)
    chosen: list[int] = []
    for _ in range(min(max(1, round(len(tested) / 3)), len(rich))):
        costs = {
            block: (
                round(float(weight @ (lost | touch[:, block])), 9),
                -np.count_nonzero(counts[block]),
                -int(cells[block]),
            )
            for block in rich.tolist()
            if block not in chosen
        }
        best = min(costs, key=lambda block: (costs[block], block))
        chosen.append(best)
        lost = lost | touch[:, best]
    return tuple(chosen)
