"""Dealing blocks of ground to folds, so that every fold sees every class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def deal(counts: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """Deal blocks to folds so that each fold holds an equal share of every class.

    The cost is the sum over folds and classes of (share of the class in the fold - 1/folds)², plus a
    large amount for every class that a fold's training blocks lack altogether. It is brought down
    from many random beginnings, by moving single blocks and swapping pairs.

    Parameters
    ----------
    counts : ndarray, shape (blocks, classes), int
        Cells.
    folds, seed : int
        Number of folds; seed of the search.

    Returns
    -------
    ndarray, shape (blocks,), int
        Fold of each block.
    """
    present = counts.sum(axis=0) > 0
    share = counts[:, present] / counts[:, present].sum(axis=0)
    blocks = len(share)
    rng = np.random.default_rng(seed)
    best, best_cost = np.zeros(blocks, dtype=np.int64), np.inf
    for _ in range(max(1, min(8, 4000 // blocks))):
        fold_of = rng.permutation(np.arange(blocks) % folds)
        held = np.zeros((folds, share.shape[1]))
        np.add.at(held, fold_of, share)
        cost = _cost(held)
        for _ in range(min(1500, 20 * blocks)):
            first, second = rng.integers(blocks, size=2)
            a, b = fold_of[first], fold_of[second]
            if rng.random() < 0.5:  # move one block
                b, change = int(rng.integers(folds)), share[first]
                moved = True
            else:
                change, moved = share[first] - share[second], False
            if a == b:
                continue
            trial = held.copy()
            trial[a] -= change
            trial[b] += change
            trial_cost = _cost(trial)
            if trial_cost < cost and not (moved and np.count_nonzero(fold_of == a) == 1):
                held, cost = trial, trial_cost
                fold_of[first] = b
                if not moved:
                    fold_of[second] = a
        if cost < best_cost:
            best, best_cost = fold_of.copy(), cost
    return best


def _cost(held: NDArray[np.float64]) -> float:
    """Imbalance of the classes' shares per fold, shape (folds, classes)."""
    learned = 1 - held - np.roll(held, -1, axis=0)
    return float(((held - 1 / len(held)) ** 2).sum() + 10 * np.count_nonzero(learned < 1e-9))


def unlearned(counts: NDArray[np.int64], fold_of: NDArray[np.int64], folds: int) -> list[str]:
    """Say which classes some fold cannot learn, because all their blocks are held out there."""
    lost = []
    for index in np.flatnonzero(counts.sum(axis=0)):
        owners = set(fold_of[counts[:, index] > 0].tolist())
        if any(owners <= {fold, (fold + 1) % folds} for fold in range(folds)):
            lost.append(str(index + 1))
    return [f"Class {', '.join(lost)}: so few blocks that a fold has none to learn it from."] if lost else []
