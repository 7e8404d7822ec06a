r"""The search space of an architecture search: operators, widths and paths on a grid of feature maps.

A map (s, l) is the output of cell l at scale s (0, 1, 2 for 1/8, 1/16, 1/32); (0, -1) is the encoder's output. It is
computed from (s, l - 1) by a cell that keeps the size, or from (s - 1, l - 1) by one that halves it::

    l      -1   0   1   2   3
    1/8     o - o - o - o - o     branch 0 ends here
              \   \   \   \
    1/16        o - o - o - o     branch 1
                  \   \   \
    1/32            o - o - o     branch 2

Operator and width belong to the output map of a cell, so a branch is one path through the grid.
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
"""Index in beta of the transition into a map: from its own scale, or from the finer one."""


@dataclass(frozen=True)
class SearchSpace:
    """All architectures of one depth.

    Parameters
    ----------
    depth : int
        Cells per branch, at least 3, so that both transitions have an alternative.
    chis : tuple of int
        Expansion ratios to choose from, increasing: a map has chi * 8 * 2^scale channels.
    encoder, head, arm_norm
        As in the architecture; not searched.

    Raises
    ------
    OptionError
        The depth is too small, or the ratios are not increasing.

    Examples
    --------
    >>> space = SearchSpace(depth=4, chis=(2, 4))
    >>> space.widths(scale=1), len(space.paths(branch=2))
    ((32, 64), 6)
    """

    depth: int = 22
    chis: tuple[int, ...] = (2, 4, 6, 8)
    encoder: tuple[int, ...] = (48, 96, 96)
    head: tuple[int, ...] = (64, 32, 16)
    arm_norm: str = "batch"

    def __post_init__(self) -> None:
        if self.depth < 3:
            raise OptionError(
                f"A search space of {self.depth} cells per branch has no alternative paths.", "Use at least 3 cells."
            )
        if len(self.chis) < 2 or self.chis[0] < 1 or list(self.chis) != sorted(set(self.chis)):
            raise OptionError(
                f"The expansion ratios {list(self.chis)} are not two or more increasing positive integers."
            )
        self.architecture(((), (0,), (0, 1)), [["conv"] * self.depth] * 3, [[self.chis[0]] * self.depth] * 3)

    def first_map(self, scale: int) -> int:
        """First cell with a map at a scale: a branch halves its map at most once per cell."""
        return max(0, scale - 1)

    def first_choice(self, scale: int) -> int:
        """First cell whose map can be reached by both transitions (scales 1 and 2)."""
        return scale

    def transitions(self, scale: int, cell: int) -> tuple[int, ...]:
        """Transitions into the map (scale, cell): KEEP, DOWN, both, or none if there is no such map."""
        if not self.first_map(scale) <= cell < self.depth:
            return ()
        if scale == 0:
            return (KEEP,)
        return (KEEP, DOWN) if cell >= self.first_choice(scale) else (DOWN,)

    def width(self, scale: int, chi: int) -> int:
        """Number of channels of a map."""
        return chi * (8 << scale)

    def widths(self, scale: int) -> tuple[int, ...]:
        """All numbers of channels that a map of a scale can have."""
        return tuple(self.width(scale, chi) for chi in self.chis)

    def input_widths(self, scale: int, cell: int, transition: int) -> tuple[int, ...]:
        """All numbers of channels of the input of the cell that computes (scale, cell)."""
        return (self.encoder[-1],) if cell == 0 else self.widths(scale - transition)

    def paths(self, branch: int) -> list[tuple[int, ...]]:
        """All paths of a branch, as the cells that halve; those that go down early come first."""
        return list(combinations(range(self.depth), branch))

    def architecture(self, paths: Numbers, ops: Sequence[Sequence[str]], chis: Sequence[Sequence[int]]) -> Architecture:
        """Architecture from paths, and operators and ratios of each map (``ops[scale][cell]``)."""
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
        """Raise an error if an architecture is not in this space.

        Raises
        ------
        OptionError
            The message names the differences.
        """
        a = architecture
        faults = [
            (a.depth != self.depth, f"it has {a.depth} cells per branch, not {self.depth}"),
            ([len(path) for path in a.paths] != list(SCALES), "its branches do not end at 1/8, 1/16 and 1/32"),
            (not {chi for row in a.chis for chi in row} <= set(self.chis), f"its ratios are not all of {self.chis}"),
            (a.encoder != self.encoder, f"its encoder is {a.encoder}, not {self.encoder}"),
            (not a.cell_residual, "its cells have no identity around them"),
        ]
        if differences := [what for wrong, what in faults if wrong]:
            raise OptionError(f"The architecture is not in this search space: {'; '.join(differences)}.")


@dataclass(frozen=True)
class ArchitectureLogits:
    """Architecture parameters of a supernet as arrays; NaN where there is no map or no alternative.

    Parameters
    ----------
    alpha : ndarray, shape (3, depth, 5)
        Logits of the operators, in the order of `operators.OPERATORS`.
    beta : ndarray, shape (3, depth, 2)
        Logits of the transitions into the map: KEEP, DOWN.
    ratio : ndarray, shape (3, depth, ratios)
        Logits of the widths, in the order of the space's `chis`.
    """

    alpha: NDArray[np.float64]
    beta: NDArray[np.float64]
    ratio: NDArray[np.float64]

    def __post_init__(self) -> None:
        depth = self.alpha.shape[1] if self.alpha.ndim == 3 else 0
        shapes = (3, depth, len(OPERATORS)), (3, depth, 2), (3, depth, self.ratio.shape[-1])
        if (self.alpha.shape, self.beta.shape, self.ratio.shape) != shapes:
            raise OptionError(
                f"Architecture logits of shapes {self.alpha.shape}, {self.beta.shape} and {self.ratio.shape} are "
                "inconsistent."
            )

    @property
    def depth(self) -> int:
        """Cells per branch."""
        return int(self.alpha.shape[1])

    @cached_property
    def log_beta(self) -> NDArray[np.float64]:
        """Log probability of each transition, (3, depth, 2); 0 for the only one into a map, -inf for none."""
        logs = np.full(self.beta.shape, -np.inf)
        for scale in SCALES:
            for cell in range(max(0, scale - 1), self.depth):
                row = self.beta[scale, cell]
                if scale and cell >= scale:
                    logs[scale, cell] = row - np.logaddexp(row[KEEP], row[DOWN])
                else:
                    logs[scale, cell, DOWN if scale else KEEP] = 0.0
        return logs
