"""A region as many grounds: each with another cover cut into its outcrop, redrawn over the epochs."""

from __future__ import annotations

from dataclasses import dataclass

from gravmap.learning.area import Area
from gravmap.learning.cuts import cut_area, draw_cut

CUTS = 8
"""So many are in use at a time: each holds the context's planes at every node in memory."""


@dataclass(frozen=True)
class CutGrounds:
    """The cuts of a region. Which are in use depends on the epoch alone, so a run that goes on has the same.

    Attributes
    ----------
    area : Area
        The region, without context.
    count : int
        Cuts in use at a time. With every epoch the oldest gives way to a new one.
    seed : int
        Of all cuts.
    """

    area: Area
    count: int
    seed: int

    def numbers(self, epoch: int) -> range:
        """Which cuts are in use in an epoch."""
        return range(epoch, epoch + self.count)

    def make(self, number: int) -> Area:
        """The ground of one cut: the region's gravity, the context of what outcrop is left, what is hidden as targets.

        Raises
        ------
        InputError
            The map has no outcrop or no cover to learn from.
        """
        return cut_area(self.area, draw_cut(self.area, self.seed, number))
