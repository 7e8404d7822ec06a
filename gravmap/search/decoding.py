"""Decode architecture logits into architectures: three rules for the paths, and sampled paths.

Beta are probabilities of the transitions *into* a map, so a path is followed backwards from the end of a branch, and
its probability is the product along it. Three rules decode different paths from the same beta (docs/method/search.md);
which candidate is kept is decided by a score on data, not here.

Operators and widths are the argmax of each map; of equals the first in the list. A stretch between two changes of scale
may not consist of skips alone: the map where it costs least then takes its best operator other than `skip`.
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
"""Log scores of paths closer than this count as equal, so that rounding has no influence."""


def decode(logits: ArchitectureLogits, space: SearchSpace, rule: str) -> Architecture:
    """Decode the architecture with the highest logits.

    Parameters
    ----------
    logits : ArchitectureLogits
        Logits of a space of the same depth.
    space : SearchSpace
        The search space.
    rule : str
        Rule for the paths, see `best_paths`.

    Raises
    ------
    OptionError
        The rule is unknown, or the logits belong to another space.

    Examples
    --------
    >>> from gravmap.search.space import SearchSpace
    >>> shape = 3, 3
    >>> logits = ArchitectureLogits(np.zeros((*shape, 5)) + np.eye(5)[1], np.zeros((*shape, 2)), np.zeros((*shape, 4)))
    >>> architecture = decode(logits, SearchSpace(depth=3), "viterbi")
    >>> architecture.paths, architecture.ops[0]
    (((), (2,), (0, 1)), ('conv', 'conv', 'conv'))
    """
    return architecture_on(best_paths(logits, space, rule), logits, space)


def candidates(
    logits: ArchitectureLogits, space: SearchSpace, rng: np.random.Generator, samples: int = 20
) -> list[tuple[str, Architecture]]:
    """Candidate architectures: one by each rule, then those of sampled paths; each only once.

    Returns
    -------
    list of (str, Architecture)
        The rule ("downs", "viterbi", "log-odds", "sample") and its architecture; of equals the first is kept.
    """
    paths = [(rule, best_paths(logits, space, rule)) for rule in RULES]
    paths += [("sample", sampled) for sampled in sample_paths(logits, space, samples, rng)]
    found: dict[Architecture, str] = {}
    for rule, three in paths:
        found.setdefault(architecture_on(three, logits, space), rule)
    return [(rule, architecture) for architecture, rule in found.items()]


def best_paths(logits: ArchitectureLogits, space: SearchSpace, rule: str) -> Numbers:
    """The best path of each branch; of equals the one that goes down first.

    Parameters
    ----------
    logits : ArchitectureLogits
        Its beta are decoded.
    space : SearchSpace
        The search space.
    rule : str
        "downs": the greatest product of the probabilities of its downward transitions only (FasterSeg's rule), among
        those that have an alternative. "viterbi": the greatest product of all probabilities, the most probable path.
        "log-odds": the greatest product of all odds p / (1 - p); transitions without an alternative do not count.

    Raises
    ------
    OptionError
        The rule is unknown, or the logits belong to another space.
    """
    if rule not in RULES:
        raise OptionError(f"Unknown rule {rule!r} for paths.", f"Choose one of {', '.join(RULES)}.")
    _check(logits, space)
    logs = logits.log_beta
    if rule == "downs":
        return tuple(
            _first_maximum(_paths_with_choices(space, branch), lambda path: _log_probability_of_downs(path, logs))
            for branch in SCALES
        )
    if rule == "log-odds":
        with np.errstate(invalid="ignore"):
            logs = logs - logs[..., ::-1]
        logs[~np.isfinite(logs)] = 0.0  # the only way in
    return tuple(
        _first_maximum(space.paths(branch), lambda path: _log_probability_along(path, logs)) for branch in SCALES
    )


def sample_paths(logits: ArchitectureLogits, space: SearchSpace, n: int, rng: np.random.Generator) -> list[Numbers]:
    """Sample n times the paths of the three branches, backwards from their ends with the probabilities beta."""
    _check(logits, space)
    down = np.exp(logits.log_beta[..., DOWN])
    samples = []
    for _ in range(n):
        paths = []
        for branch in SCALES:
            scale, path = branch, []
            for cell in reversed(range(space.depth)):
                if rng.random() < down[scale, cell]:
                    path.append(cell)
                    scale -= 1
            paths.append(tuple(reversed(path)))
        samples.append(tuple(paths))
    return samples


def architecture_on(paths: Numbers, logits: ArchitectureLogits, space: SearchSpace) -> Architecture:
    """The architecture on these paths, with the operators and widths of the highest logits."""
    _check(logits, space)
    alpha = np.nan_to_num(logits.alpha, nan=0.0)  # the map that does not exist is on no path
    ops = alpha.argmax(-1)  # (3, depth)
    for path in paths:
        for scale, (first, end) in enumerate(pairwise((0, *path, space.depth))):
            if first < end and (ops[scale, first:end] == SKIP).all():
                _replace_a_skip(ops[scale, first:end], alpha[scale, first:end])
    chis = np.nan_to_num(logits.ratio, nan=0.0).argmax(-1)
    return space.architecture(
        paths, [[OPERATORS[i] for i in row] for row in ops], [[space.chis[i] for i in row] for row in chis]
    )


def _replace_a_skip(ops: NDArray[np.intp], alpha: NDArray[np.float64]) -> None:
    """In a stretch of skips, replace the one that loses least by its best other operator."""
    others = np.delete(alpha, SKIP, axis=1)
    loss = alpha[:, SKIP] - others.max(1)  # log odds of the skip against the best other operator
    cell = int(loss.argmin())
    best = int(others[cell].argmax())
    ops[cell] = best + (best >= SKIP)


def _paths_with_choices(space: SearchSpace, branch: int) -> list[tuple[int, ...]]:
    """Paths whose downward transitions all have an alternative."""
    return [
        path
        for path in space.paths(branch)
        if all(cell >= space.first_choice(scale) for scale, cell in enumerate(path, start=1))
    ]


def _log_probability_of_downs(path: tuple[int, ...], logs: NDArray[np.float64]) -> float:
    return float(sum(logs[scale, cell, DOWN] for scale, cell in enumerate(path, start=1)))


def _log_probability_along(path: tuple[int, ...], logs: NDArray[np.float64]) -> float:
    """Sum of the logs of all transitions along a path."""
    total = 0.0
    for scale, (first, end) in enumerate(pairwise((0, *path, logs.shape[1]))):
        transitions = [DOWN if scale and cell == first else KEEP for cell in range(first, end)]
        total += sum(
            logs[scale, cell, transition] for cell, transition in zip(range(first, end), transitions, strict=True)
        )
    return total


def _first_maximum(paths: Sequence[tuple[int, ...]], score: Callable[[tuple[int, ...]], float]) -> tuple[int, ...]:
    scores = [score(path) for path in paths]
    threshold = max(scores) - TIE
    return next(path for path, reached in zip(paths, scores, strict=True) if reached >= threshold)


def _check(logits: ArchitectureLogits, space: SearchSpace) -> None:
    """Raise an error for logits of another space and for logits that are not finite."""
    if logits.depth != space.depth or logits.ratio.shape[-1] != len(space.chis):
        raise OptionError(
            f"Architecture logits of {logits.depth} cells and {logits.ratio.shape[-1]} widths do not fit a search "
            f"space of {space.depth} cells and {len(space.chis)} widths."
        )
    for scale in SCALES:
        for cell in range(space.first_map(scale), space.depth):
            known = [logits.alpha[scale, cell], logits.ratio[scale, cell]]
            if len(space.transitions(scale, cell)) == 2:
                known.append(logits.beta[scale, cell])
            if not all(np.isfinite(row).all() for row in known):
                raise OptionError(
                    f"The search has diverged: architecture logits after cell {cell} at 1/{8 << scale} are not finite.",
                    "Search again with a lower learning rate or another seed.",
                )
