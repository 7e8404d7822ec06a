r"""What an architecture search may choose from: operators, widths and paths, hung on the maps of a grid.

A map (s, l) is what a branch has at scale s (0, 1, 2 for 1/8, 1/16, 1/32) after its cell l; (0, -1) is the encoder's
output. It is made from (s, l - 1) by a cell that keeps the size, or from (s - 1, l - 1) by one that halves it::

    l      -1   0   1   2   3
    1/8     o - o - o - o - o     branch 0 ends here
              \   \   \   \
    1/16        o - o - o - o     branch 1
                  \   \   \
    1/32            o - o - o     branch 2

The operator and the width belong to the map that a cell gives out, so one path through the grid is one branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import OptionError
from gravmap.network.architecture import Architecture, Numbers
from gravmap.network.operators import OPERATORS

SCALES = (0, 1, 2)
KEEP, DOWN = 0, 1
"""Where beta has which way into a map: from its own scale, from the finer one."""


@dataclass(frozen=True)
class SearchSpace:
    """Every architecture of one depth.

    Parameters
    ----------
    depth : int
        Cells per branch, at least 3 (so that both ways down can be chosen, and not only be left over).
    chis : tuple of int
        Expansion ratios to choose from, rising: a map has chi * 8 * 2^scale channels.
    encoder, head, arm_norm
        As of the architecture; not searched.

    Raises
    ------
    OptionError
        Too shallow, or no rising ratios.
    """

    depth: int = 22
    chis: tuple[int, ...] = (2, 4, 6, 8)
    encoder: tuple[int, ...] = (48, 96, 96)
    head: tuple[int, ...] = (64, 32, 16)
    arm_norm: str = "batch"

    def __post_init__(self) -> None:
        if self.depth < 3:
            raise OptionError(
                f"A search over {self.depth} cells per branch has no paths to choose from.", "Take 3 cells or more."
            )
        if len(self.chis) < 2 or self.chis[0] < 1 or list(self.chis) != sorted(set(self.chis)):
            raise OptionError(f"The expansion ratios {list(self.chis)} are not two or more rising whole numbers.")
        self.architecture(((), (0,), (0, 1)), [["conv"] * self.depth] * 3, [[self.chis[0]] * self.depth] * 3)

    def first_map(self, scale: int) -> int:
        """After which cell the first map of a scale stands: a branch halves its map at most once per cell."""
        return max(0, scale - 1)

    def first_choice(self, scale: int) -> int:
        """After which cell a map can first be reached both ways (scales 1 and 2)."""
        return scale

    def ways(self, scale: int, cell: int) -> tuple[int, ...]:
        """By which ways the map (scale, cell) can be reached: KEEP, DOWN, both, or none where there is no such map."""
        if not self.first_map(scale) <= cell < self.depth:
            return ()
        if scale == 0:
            return (KEEP,)
        return (KEEP, DOWN) if cell >= self.first_choice(scale) else (DOWN,)

    def width(self, scale: int, chi: int) -> int:
        """Channels of a map."""
        return chi * (8 << scale)

    def widths(self, scale: int) -> tuple[int, ...]:
        """All the channels a map of a scale may have."""
        return tuple(self.width(scale, chi) for chi in self.chis)

    def widths_before(self, scale: int, cell: int, way: int) -> tuple[int, ...]:
        """All the channels of what the cell reads that gives (scale, cell)."""
        return (self.encoder[-1],) if cell == 0 else self.widths(scale - way)

    def paths(self, branch: int) -> list[tuple[int, ...]]:
        """Every path of a branch, as the cells that halve; those that go down early come first."""
        return list(combinations(range(self.depth), branch))

    def architecture(self, paths: Numbers, ops: Sequence[Sequence[str]], chis: Sequence[Sequence[int]]) -> Architecture:
        """Put an architecture together from paths, and operators and ratios map by map (``ops[scale][cell]``)."""
        scales = [[sum(down <= cell for down in path) for cell in range(self.depth)] for path in paths]
        return Architecture(
            self.depth,
            paths,
            tuple(tuple(ops[scale][cell] for cell, scale in enumerate(row)) for row in scales),
            tuple(tuple(int(chis[scale][cell]) for cell, scale in enumerate(row)) for row in scales),
            encoder=self.encoder,
            head=self.head,
            arm_norm=self.arm_norm,
        )

    def check(self, architecture: Architecture) -> None:
        """Refuse an architecture that is not of this space.

        Raises
        ------
        OptionError
            Says what differs.
        """
        a = architecture
        faults = [
            (a.depth != self.depth, f"it has {a.depth} cells per branch, not {self.depth}"),
            ([len(path) for path in a.paths] != list(SCALES), "its branches do not end at 1/8, 1/16 and 1/32"),
            (not {chi for row in a.chis for chi in row} <= set(self.chis), f"its ratios are not all of {self.chis}"),
            (a.encoder != self.encoder, f"its encoder is {a.encoder}, not {self.encoder}"),
            (not a.cell_residual, "its cells have no identity around them"),
        ]
        if told := [what for wrong, what in faults if wrong]:
            raise OptionError(f"The architecture is not one of this search: {'; '.join(told)}.")


@dataclass(frozen=True)
class ArchitectureLogits:
    """What a search prefers, as plain logits per map; NaN where there is no such map or nothing to choose.

    Parameters
    ----------
    alpha : ndarray, shape (3, depth, 5)
        Operators, in the order of `operators.OPERATORS`.
    beta : ndarray, shape (3, depth, 2)
        Ways into the map: KEEP, DOWN.
    ratio : ndarray, shape (3, depth, ratios)
        Widths, in the order of the space's `chis`.
    """

    alpha: NDArray[np.float64]
    beta: NDArray[np.float64]
    ratio: NDArray[np.float64]

    def __post_init__(self) -> None:
        depth = self.alpha.shape[1] if self.alpha.ndim == 3 else 0
        shapes = (3, depth, len(OPERATORS)), (3, depth, 2), (3, depth, self.ratio.shape[-1])
        if (self.alpha.shape, self.beta.shape, self.ratio.shape) != shapes:
            raise OptionError(
                f"ArchitectureLogits of shapes {self.alpha.shape}, {self.beta.shape} and {self.ratio.shape} do not belong "
                "together."
            )

    @property
    def depth(self) -> int:
        """Cells per branch."""
        return int(self.alpha.shape[1])

    @cached_property
    def log_beta(self) -> NDArray[np.float64]:
        """Log probability of each way into a map, (3, depth, 2); 0 for the only way, -inf for one that is not."""
        logs = np.full(self.beta.shape, -np.inf)
        for scale in SCALES:
            for cell in range(max(0, scale - 1), self.depth):
                row = self.beta[scale, cell]
                if scale and cell >= scale:
                    logs[scale, cell] = row - np.logaddexp(row[KEEP], row[DOWN])
                else:
                    logs[scale, cell, DOWN if scale else KEEP] = 0.0
        return logs
