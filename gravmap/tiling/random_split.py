"""The paper's split: 15 % of the windows at random, though nearly all of their ground lies in other windows too.

Liu et al. 2024 score on windows drawn at random from overlapping ones. The split is kept for comparison;
:mod:`gravmap.tiling.blocks` and :mod:`gravmap.tiling.strict_split` do not leak, and
:mod:`gravmap.tiling.leak` measures how much each of them does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError, OptionError
from gravmap.lattice import BUFFER, TEST, TRAIN, TUNE

RANDOM_SHARE = 0.15
# Windows with less bedrock than this are set apart, as the paper's 61 of 536 were.
EFFECTIVE_OUTCROP = 0.10


@dataclass(frozen=True)
class RandomSplit:
    """Windows held out at random; every cell outside them may be learned from, and nearly every one inside.

    Attributes
    ----------
    roles_of_window : ndarray, shape (folds, n), uint8
        0 train, 1 tune, 2 test, 3 set apart.
    share : float
        Share of the effective windows that a fold holds out.
    seed : int
        What they were shuffled with.
    name : str
        What the tile set calls the split.
    notes : tuple of str
        Nothing is ever changed.
    """

    roles_of_window: NDArray[np.uint8]
    share: float
    seed: int
    name: str = "random"
    notes: tuple[str, ...] = ()

    kind: ClassVar[str] = "random"

    @property
    def folds(self) -> int:
        """Number of folds."""
        return len(self.roles_of_window)

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`from_dict` rebuilds the split from; the roles as one digit per window, a line per fold."""
        digits = ["".join(map(str, roles)) for roles in self.roles_of_window.tolist()]
        return {
            "name": self.name,
            "kind": self.kind,
            "folds": self.folds,
            "share": self.share,
            "seed": self.seed,
            "roles_of_window": digits,
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> RandomSplit:
        """The split that :meth:`to_dict` described."""
        roles = np.array([[int(digit) for digit in line] for line in stored["roles_of_window"]], dtype=np.uint8)
        return cls(roles, stored["share"], stored["seed"], name=stored["name"])

    def roles(
        self, fold: int, shape: tuple[int, int], bounds_wsen: tuple[float, float, float, float]
    ) -> NDArray[np.uint8]:
        """The role of every cell, shape `shape`: all train, because whole windows are held out and no cells."""
        return np.full(shape, TRAIN, dtype=np.uint8)

    def window_roles(self, fold: int, boxes_wsen: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The role of every window in one fold, shape (n,): 0 train, 1 tune, 2 test, 3 set apart.

        Raises
        ------
        OptionError
            No such fold.
        InputError
            Another number of windows than the split was drawn for.
        """
        if not 0 <= fold < self.folds:
            raise OptionError(f"The split {self.name} has no fold {fold}.", f"It has the folds 0 to {self.folds - 1}.")
        if len(boxes_wsen) != self.roles_of_window.shape[1]:
            raise InputError(
                f"The split {self.name} was drawn for {self.roles_of_window.shape[1]} windows, not {len(boxes_wsen)}.",
                "`gravmap tile --overwrite` draws it anew.",
            )
        return np.array(self.roles_of_window[fold], dtype=np.uint8)

    def columns(self, boxes_wsen: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """What ``index.parquet`` says of the windows: their role in each fold."""
        return {f"{self.name}_role_fold{fold}": self.window_roles(fold, boxes_wsen) for fold in range(self.folds)}


def split_random(
    outcrop_share: NDArray[np.float64],
    *,
    folds: int = 5,
    seed: int = 0,
    share: float = RANDOM_SHARE,
    name: str = "random",
) -> RandomSplit:
    """The paper's split: a random share of the windows with enough bedrock is held out.

    The effective windows are shuffled once. Fold k holds out the k-th run of `share` of them, so that no
    window is held out twice while folds × share is at most 1 (six folds of 15 %); further folds begin the
    round anew. What is held out is never learned from (85 % are, as in the paper); its first third is tuned
    on and the rest scored, so that the choice of the weights does not see the score.

    Parameters
    ----------
    outcrop_share : ndarray, shape (n,), float
        Bedrock share of each window; windows under 10 % are set apart, neither learned from nor scored.
    folds : int
        Number of folds.
    seed : int
        Of the shuffle.
    share : float
        Share of the effective windows that a fold holds out.
    name : str
        What the tile set calls the split.

    Raises
    ------
    OptionError
        No fold, or a share that leaves nothing on one side.
    InputError
        So few windows with bedrock that none would be held out, or none left to learn from.
    """
    if folds < 1 or not 0 < share < 1:
        raise OptionError(
            f"{folds} folds of a share of {share:g} are no split.", "At least one fold, and a share between 0 and 1."
        )
    effective = np.flatnonzero(np.asarray(outcrop_share) >= EFFECTIVE_OUTCROP)
    held_out = round(share * len(effective))
    if not 0 < held_out < len(effective):
        raise InputError(
            f"{len(effective)} windows hold at least 10 % bedrock, too few to hold {100 * share:g} % of them out.",
            "Make more windows (--window, --stride), bring a map with more bedrock, or take --split blocks.",
        )
    order = np.random.default_rng(seed).permutation(effective)
    roles = np.full((folds, len(outcrop_share)), BUFFER, dtype=np.uint8)
    for fold in range(folds):
        taken = order[(fold * held_out + np.arange(held_out)) % len(order)]
        roles[fold, effective] = TRAIN
        roles[fold, taken] = TEST
        roles[fold, taken[: held_out // 3]] = TUNE
    return RandomSplit(roles, share, seed, name)
