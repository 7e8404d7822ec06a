"""Architectures drawn at random under a budget: what a search must beat to have been worth it.

References
----------
Li and Talwalkar 2020, Random search and reproducibility for neural architecture search, arXiv:1902.07638.
"""

from __future__ import annotations

import numpy as np

from gravmap.errors import OptionError
from gravmap.network.architecture import Architecture
from gravmap.network.operators import OPERATORS
from gravmap.network.search_cost import CostTable
from gravmap.network.search_space import SCALES, SupernetSpace

TOLERANCE = 0.1
"""Of the budget, either way."""
TRIES = 20_000
"""At most, for each one asked for."""


def random_architectures(
    space: SupernetSpace,
    n: int,
    budget_parameters: int,
    rng: np.random.Generator,
    in_channels: int,
    classes: int,
) -> list[Architecture]:
    """Draw architectures of about as many parameters as another.

    Operators and widths are drawn map by map, and each branch's path among all of it, everything alike; what does not
    hold together (a stretch of skips alone) or misses the budget by more than 10 % is drawn anew.

    Parameters
    ----------
    space : SupernetSpace
        What may be chosen.
    n : int
        How many, all different.
    budget_parameters : int
        Parameters of the whole GGMNet.
    rng : numpy.random.Generator
        The same state gives the same architectures.
    in_channels, classes : int
        Of the GGMNet.

    Raises
    ------
    OptionError
        The budget cannot be met; the message says what the draws came to.
    """
    costs = CostTable(space, in_channels, classes)
    found: dict[Architecture, None] = {}
    least, most = np.inf, 0.0
    for _ in range(n):
        for _ in range(TRIES):
            architecture = draw_architecture(space, rng)
            parameters = costs.parameters(architecture)
            least, most = min(least, parameters), max(most, parameters)
            if abs(parameters - budget_parameters) <= TOLERANCE * budget_parameters and architecture not in found:
                found[architecture] = None
                break
        else:
            raise OptionError(
                f"Only {len(found)} of {n} random architectures have {budget_parameters / 1e6:.2f} million parameters "
                f"(within 10 %): {TRIES} more draws had {least / 1e6:.2f} to {most / 1e6:.2f} million.",
                "Ask for fewer, or for a budget nearer the middle of what is drawn.",
            )
    return list(found)


def draw_architecture(space: SupernetSpace, rng: np.random.Generator) -> Architecture:
    """Draw one architecture, whatever it costs."""
    shape = (len(SCALES), space.depth)
    while True:
        paths = tuple(all_paths[rng.integers(len(all_paths))] for all_paths in map(space.paths, SCALES))
        ops = rng.integers(len(OPERATORS), size=shape)
        chis = rng.integers(len(space.chis), size=shape)
        try:
            return space.architecture(
                paths, [[OPERATORS[i] for i in row] for row in ops], [[space.chis[i] for i in row] for row in chis]
            )
        except OptionError:
            continue  # a stretch of skips alone
