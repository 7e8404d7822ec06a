"""The paper's split: 15 % of the windows at random, though nearly all of their area lies in training windows too.

Liu et al. 2024 score on windows drawn at random from overlapping ones. The split is kept for comparison;
:mod:`gravmap.tiling.blocks` and :mod:`gravmap.tiling.strict_split` do not leak, and :mod:`gravmap.tiling.leak`
measures how much a split leaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError, OptionError
from gravmap.lattice import BUFFER, TEST, TRAIN, TUNE

RANDOM_FRACTION = 0.15
# Windows with less bedrock than this are not used, like the paper's 61 of 536.
EFFECTIVE_OUTCROP = 0.10


@dataclass(frozen=True)
class RandomSplit:
    """Windows held out at random: training sees every label outside them, and nearly every one inside.

    Attributes
    ----------
    roles_of_window : ndarray, shape (folds, n), uint8
        0 train, 1 tune, 2 test, 3 not used.
    fraction : float
        Fraction of the effective windows that a fold holds out.
    seed : int
        Seed of the shuffle.
    name : str
        Name of the split in the tile set.
    notes : tuple of str
        Always empty.
    """

    roles_of_window: NDArray[np.uint8]
    fraction: float
    seed: int
    name: str = "random"
    notes: tuple[str, ...] = ()

    kind: ClassVar[str] = "random"

    @property
    def folds(self) -> int:
        """Number of folds."""
        return len(self.roles_of_window)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able description for :meth:`from_dict`; the roles as one digit per window, a line per fold."""
        digits = ["".join(map(str, roles)) for roles in self.roles_of_window.tolist()]
        return {
            "name": self.name,
            "kind": self.kind,
            "folds": self.folds,
            "share": self.fraction,
            "seed": self.seed,
            "roles_of_window": digits,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> RandomSplit:
        """Make the split from the dictionary of :meth:`to_dict`.

        Raises
        ------
        KeyError, ValueError
            A key is missing, or the roles are none.
        """
        lines = stored["roles_of_window"]
        if len({len(line) for line in lines}) != 1 or set("".join(lines)) - set("0123"):
            raise ValueError("roles_of_window is not a digit from 0 to 3 for every window and fold")
        roles = np.array([[int(digit) for digit in line] for line in lines], dtype=np.uint8)
        return cls(roles, stored["share"], stored["seed"], name=stored["name"])

    def roles(
        self, fold: int, shape: tuple[int, int], bounds_wsen: tuple[float, float, float, float]
    ) -> NDArray[np.uint8]:
        """The role of every cell, shape `shape`: all train, because windows are held out, not cells."""
        return np.full(shape, TRAIN, dtype=np.uint8)

    def window_roles(self, fold: int, boxes_wsen: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The role of every window in one fold, shape (n,): 0 train, 1 tune, 2 test, 3 not used.

        Raises
        ------
        OptionError
            The split has no such fold.
        InputError
            Another number of windows than the split was made for.
        """
        if not 0 <= fold < self.folds:
            raise OptionError(f"The split {self.name} has no fold {fold}.", f"It has the folds 0 to {self.folds - 1}.")
        if len(boxes_wsen) != self.roles_of_window.shape[1]:
            raise InputError(
                f"The split {self.name} was made for {self.roles_of_window.shape[1]} windows, not {len(boxes_wsen)}.",
                "`gravmap tile --overwrite` makes it again.",
            )
        return np.array(self.roles_of_window[fold], dtype=np.uint8)

    def columns(self, boxes_wsen: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """Columns of ``index.parquet``: the role of each window in each fold."""
        return {f"{self.name}_role_fold{fold}": self.window_roles(fold, boxes_wsen) for fold in range(self.folds)}


def split_random(
    outcrop_fraction: NDArray[np.float64],
    *,
    folds: int = 5,
    seed: int = 0,
    fraction: float = RANDOM_FRACTION,
    name: str = "random",
) -> RandomSplit:
    """The paper's split: hold out a random fraction of the windows with enough bedrock.

    The effective windows are shuffled once. Fold k holds out the k-th part, so that no window is held out twice
    while folds × fraction is at most 1 (six folds of 15 %); further folds start over. The other windows (85 %, as in
    the paper) are for training. The first third of a part is for tuning and the rest for testing, so that weights are
    not chosen by the test score.

    Parameters
    ----------
    outcrop_fraction : ndarray, shape (n,), float
        Fraction of bedrock in each window; windows under 10 % are used neither for training nor for scores.
    folds : int
        Number of folds.
    seed : int
        Seed of the shuffle.
    fraction : float
        Fraction of the effective windows that a fold holds out.
    name : str
        Name of the split in the tile set.

    Raises
    ------
    OptionError
        Fewer than one fold, or a fraction that is not between 0 and 1.
    InputError
        So few windows with bedrock that none would be held out, or none left for training.
    """
    if folds < 1 or not 0 < fraction < 1:
        raise OptionError(
            f"{folds} folds with a fraction of {fraction:g} are not a valid split.",
            "Give at least one fold, and a fraction between 0 and 1.",
        )
    effective = np.flatnonzero(np.asarray(outcrop_fraction) >= EFFECTIVE_OUTCROP)
    held_out = round(fraction * len(effective))
    if not 0 < held_out < len(effective):
        raise InputError(
            f"{len(effective)} windows hold at least 10 % bedrock, too few to hold {100 * fraction:g} % of them out.",
            "Make more windows (--window, --stride), use a map with more bedrock, or --split blocks.",
        )
    order = np.random.default_rng(seed).permutation(effective)
    roles = np.full((folds, len(outcrop_fraction)), BUFFER, dtype=np.uint8)
    for fold in range(folds):
        taken = order[(fold * held_out + np.arange(held_out)) % len(order)]
        roles[fold, effective] = TRAIN
        roles[fold, taken] = TEST
        roles[fold, taken[: held_out // 3]] = TUNE
    return RandomSplit(roles, fraction, seed, name)
