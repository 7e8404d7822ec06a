"""From what a search prefers to architectures: three rules for the paths, and paths drawn.

Beta are chances of the ways *into* a map, so a path is followed backwards from a branch's end, and its chance is the
product of what it met. Three rules make three different paths of the same beta, none of them wrong (docs/method/
search.md); which one is kept is decided by a score on data, not here.

Operators and widths are those most preferred, map by map; of equals the first in the list. A branch may not do nothing
between two changes of scale: there the map where it costs least takes its best operator but `skip`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import OptionError
from gravmap.network.architecture import Architecture, Numbers
from gravmap.network.operators import OPERATORS
from gravmap.search.space import DOWN, KEEP, SCALES, ArchitectureLogits, SearchSpace

RULES = ("downs", "viterbi", "log-odds")
SKIP = OPERATORS.index("skip")
TIE = 1e-9
"""Scores of paths (logs) nearer than this are equal, so that rounding decides nothing."""


def decode(preferences: ArchitectureLogits, space: SearchSpace, rule: str) -> Architecture:
    """Make the architecture that is preferred.

    Parameters
    ----------
    preferences : ArchitectureLogits
        Logits of a space of the same depth.
    space : SearchSpace
        What may be chosen.
    rule : str
        For the paths, see `best_paths`.

    Raises
    ------
    OptionError
        There is no such rule, or the preferences are of another space.
    """
    return architecture_on(best_paths(preferences, space, rule), preferences, space)


def candidates(
    preferences: ArchitectureLogits, space: SearchSpace, rng: np.random.Generator, samples: int = 20
) -> list[tuple[str, Architecture]]:
    """List the architectures to be judged: one by each rule, then those on paths drawn; each only once.

    Returns
    -------
    list of (str, Architecture)
        The rule ("downs", "viterbi", "log-odds", "sample"), and what it gave. Of equals the first stays.
    """
    paths = [(rule, best_paths(preferences, space, rule)) for rule in RULES]
    paths += [("sample", drawn) for drawn in sample_paths(preferences, space, samples, rng)]
    found: dict[Architecture, str] = {}
    for rule, three in paths:
        found.setdefault(architecture_on(three, preferences, space), rule)
    return [(rule, architecture) for architecture, rule in found.items()]


def best_paths(preferences: ArchitectureLogits, space: SearchSpace, rule: str) -> Numbers:
    """Choose the paths of the three branches, each for itself; of equals the one that goes down first.

    Parameters
    ----------
    preferences : ArchitectureLogits
        Whose beta decide.
    space : SearchSpace
        What may be chosen.
    rule : str
        "downs": the greatest product of the chances of its ways down, whatever lies between (FasterSeg's), among those
        that could have been kept. "viterbi": the greatest product of all chances, the most likely path. "log-odds": the
        greatest product of all odds p / (1 - p); a way in that was the only one counts nothing.

    Raises
    ------
    OptionError
        There is no such rule, or the preferences are of another space.
    """
    if rule not in RULES:
        raise OptionError(f"There is no rule {rule!r} for paths.", f"Choose one of {', '.join(RULES)}.")
    _check(preferences, space)
    logs = preferences.log_beta
    if rule == "downs":
        return tuple(_first_best(_choices_alone(space, branch), lambda path: _downs(path, logs)) for branch in SCALES)
    if rule == "log-odds":
        with np.errstate(invalid="ignore"):
            logs = logs - logs[..., ::-1]
        logs[~np.isfinite(logs)] = 0.0  # the only way in
    return tuple(_first_best(space.paths(branch), lambda path: _along(path, logs)) for branch in SCALES)


def sample_paths(
    preferences: ArchitectureLogits, space: SearchSpace, n: int, rng: np.random.Generator
) -> list[Numbers]:
    """Draw n times the paths of the three branches, backwards from their ends by the chances of beta."""
    _check(preferences, space)
    down = np.exp(preferences.log_beta[..., DOWN])
    drawn = []
    for _ in range(n):
        paths = []
        for branch in SCALES:
            scale, path = branch, []
            for cell in reversed(range(space.depth)):
                if rng.random() < down[scale, cell]:
                    path.append(cell)
                    scale -= 1
            paths.append(tuple(reversed(path)))
        drawn.append(tuple(paths))
    return drawn


def architecture_on(paths: Numbers, preferences: ArchitectureLogits, space: SearchSpace) -> Architecture:
    """Make the architecture on these paths with the operators and widths that are preferred."""
    _check(preferences, space)
    alpha = np.nan_to_num(preferences.alpha, nan=0.0)  # the one map that is not there is on no path
    ops = alpha.argmax(-1)  # (3, depth)
    for path in paths:
        for scale, (first, end) in enumerate(pairwise((0, *path, space.depth))):
            if first < end and (ops[scale, first:end] == SKIP).all():
                _wake(ops[scale, first:end], alpha[scale, first:end])
    chis = np.nan_to_num(preferences.ratio, nan=0.0).argmax(-1)
    return space.architecture(
        paths, [[OPERATORS[i] for i in row] for row in ops], [[space.chis[i] for i in row] for row in chis]
    )


def _wake(ops: NDArray[np.intp], alpha: NDArray[np.float64]) -> None:
    """In a stretch of skips, give the map that loses least its best other operator; of equals the first."""
    others = np.delete(alpha, SKIP, axis=1)
    loss = alpha[:, SKIP] - others.max(1)  # log of how much likelier the skip was
    cell = int(loss.argmin())
    best = int(others[cell].argmax())
    ops[cell] = best + (best >= SKIP)


def _choices_alone(space: SearchSpace, branch: int) -> list[tuple[int, ...]]:
    """Paths that go down only where they could have kept: the only way in has chance 1, and says nothing."""
    return [
        path
        for path in space.paths(branch)
        if all(cell >= space.first_choice(scale) for scale, cell in enumerate(path, start=1))
    ]


def _downs(path: tuple[int, ...], logs: NDArray[np.float64]) -> float:
    return float(sum(logs[scale, cell, DOWN] for scale, cell in enumerate(path, start=1)))


def _along(path: tuple[int, ...], logs: NDArray[np.float64]) -> float:
    """Add up what a path meets, way by way."""
    total = 0.0
    for scale, (first, end) in enumerate(pairwise((0, *path, logs.shape[1]))):
        ways = [DOWN if scale and cell == first else KEEP for cell in range(first, end)]
        total += sum(logs[scale, cell, way] for cell, way in zip(range(first, end), ways, strict=True))
    return total


def _first_best(paths: Sequence[tuple[int, ...]], score: Callable[[tuple[int, ...]], float]) -> tuple[int, ...]:
    scores = [score(path) for path in paths]
    enough = max(scores) - TIE
    return next(path for path, reached in zip(paths, scores, strict=True) if reached >= enough)


def _check(preferences: ArchitectureLogits, space: SearchSpace) -> None:
    """Refuse preferences of another space, and those of a search that went astray."""
    if preferences.depth != space.depth or preferences.ratio.shape[-1] != len(space.chis):
        raise OptionError(
            f"ArchitectureLogits over {preferences.depth} cells and {preferences.ratio.shape[-1]} widths are not of a space "
            f"with {space.depth} and {len(space.chis)}."
        )
    for scale in SCALES:
        for cell in range(space.first_map(scale), space.depth):
            known = [preferences.alpha[scale, cell], preferences.ratio[scale, cell]]
            if len(space.ways(scale, cell)) == 2:
                known.append(preferences.beta[scale, cell])
            if not all(np.isfinite(row).all() for row in known):
                raise OptionError(
                    f"What the search prefers after cell {cell} at 1/{8 << scale} is no number: it has diverged.",
                    "Search again with a lower rate, or another seed.",
                )
