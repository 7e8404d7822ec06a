"""Paired comparison of two maps on the same nodes: block bootstrap of the difference of their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.learning.calibration.applicability import BLOCK_DEG
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.learning.evaluation.null_models import NULL_MODELS

CONFIDENCE = 0.95

MEASURES = {
    "pa": "accuracy",
    "mpa": "mean accuracy",
    "miou": "mean overlap (mIoU)",
    "fwiou": "weighted overlap (FWIoU)",
    "kappa": "kappa",
    "macro_f1": "F1",
}
"""Measures that two maps can be compared by, with their names in a sentence."""


@dataclass(frozen=True)
class Difference:
    """Difference of the scores of two maps, as a fraction.

    Attributes
    ----------
    mean : float
        Score of the first minus score of the second, on all blocks.
    low, high : float or None
        Ends of the 95 % bootstrap interval; None for a single block.
    blocks : int
        Number of blocks.
    measure : str
        Key of :data:`MEASURES`.
    """

    mean: float
    low: float | None
    high: float | None
    blocks: int
    measure: str

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def sentence(self, one: str, other: str) -> str:
        """The difference as a sentence.

        Parameters
        ----------
        one, other : str
            Names of the two maps in the sentence.

        Examples
        --------
        >>> Difference(0.031, 0.005, 0.059, 12, "pa").sentence("gravity", "nearest outcrop")
        'gravity adds 3.1 points of accuracy over nearest outcrop (95 % interval +0.5 to +5.9, 12 blocks)'
        """
        points = f"{100 * abs(self.mean):.1f} points of {MEASURES[self.measure]}"
        text = f"{one} adds {points} over {other}" if self.mean >= 0 else f"{one} loses {points} to {other}"
        if self.low is None or self.high is None:
            return f"{text} (one block: no interval)"
        ends = f"{100 * self.low:+.1f} to {100 * self.high:+.1f}"
        text += f" ({100 * CONFIDENCE:.0f} % interval {ends}, {self.blocks} blocks)"
        return text if self.significant else f"{text}: not significant"


def paired_bootstrap(
    truth: NDArray[np.integer],
    one: NDArray[np.integer],
    other: NDArray[np.integer],
    block_of_node: NDArray[np.integer],
    measure: str = "fwiou",
    draws: int = 2000,
    seed: int = 0,
) -> Difference:
    """Compare two maps on the same nodes by a block bootstrap.

    Blocks of nodes are resampled with replacement, because neighbouring nodes are not independent.

    Parameters
    ----------
    truth, one, other : (n,) int
        True classes and those of two maps, 0..K-1 as the network counts them
        (:func:`gravmap.learning.data.dataset.to_target`).
    block_of_node : (n,) int
        The block of each node; see :func:`block_numbers`.
    measure : str
        Key of :data:`MEASURES`.
    draws : int
        Number of bootstrap samples.
    seed : int
        Random seed.

    Returns
    -------
    Difference
        With a percentile interval.

    Raises
    ------
    ValueError
        Shapes differ, there is no node, or the measure is unknown.

    References
    ----------
    Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapter 13; blocks: Lahiri (2003).

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.tile([0, 1], 30)
    >>> all_zero, block = np.zeros_like(truth), np.repeat(np.arange(6), 10)
    >>> found = paired_bootstrap(truth, truth, all_zero, block, measure="pa", draws=100)
    >>> found.mean, found.blocks, found.significant
    (0.5, 6, True)
    """
    if not truth.shape == one.shape == other.shape == block_of_node.shape or not truth.size:
        raise ValueError("truth, both maps and the blocks must have the same shape and not be empty")
    if measure not in MEASURES:
        raise ValueError(f"unknown measure {measure!r}; choose from {', '.join(MEASURES)}")
    classes = int(max(truth.max(), one.max(), other.max())) + 1
    _, block = np.unique(block_of_node.ravel(), return_inverse=True)
    blocks = int(block.max()) + 1
    per_block = [
        np.stack([confusion(truth.ravel()[block == b], each.ravel()[block == b], classes) for b in range(blocks)])
        for each in (one, other)
    ]
    whole = _score(per_block[0].sum(0), measure) - _score(per_block[1].sum(0), measure)
    if blocks == 1:
        return Difference(whole, None, None, 1, measure)
    counts = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), size=draws)
    ours, theirs = (np.tensordot(counts, each, axes=1) for each in per_block)  # (draws, K, K)
    found = np.array([_score(a, measure) - _score(b, measure) for a, b in zip(ours, theirs, strict=True)])
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.nanpercentile(found, (tail, 100 - tail))
    return Difference(whole, float(low), float(high), blocks, measure)


def block_numbers(dataset: RegionDataset) -> NDArray[np.int64]:
    """The block of the split that each node of a dataset belongs to; (ny, nx).

    If the split has no blocks (random windows), blocks of 2.5 degrees are used.
    """
    split = dataset.meta.get("split", {})
    height, width = split.get("block_deg") or (BLOCK_DEG, BLOCK_DEG)
    west, _, _, north = split.get("region_wsen") or dataset.label_bounds_wsen
    # A point on the edge of two blocks belongs to the southern or the eastern one, as cells do.
    row = np.floor((north - dataset.node_lat) / height + 1e-9).astype(np.int64)
    column = np.floor((dataset.node_lon - west) / width + 1e-9).astype(np.int64)
    row, column = row - row.min(), column - column.min()
    numbers: NDArray[np.int64] = row[:, None] * (int(column.max()) + 1) + column[None, :]
    return numbers


def _score(matrix: NDArray[np.int64], measure: str) -> float:
    value = scores(matrix)[measure]
    return float("nan") if value is None else float(value)


SHIFTED_INPUT = "foreign_gravity"
"""Key of the null model that is the network itself with shifted gravity."""

TITLES = {key: model.title for key, model in NULL_MODELS.items()} | {SHIFTED_INPUT: "the network with shifted gravity"}
"""Names of null models in a table."""

_PHRASES = {key: model.phrase for key, model in NULL_MODELS.items()} | {
    SHIFTED_INPUT: "the same network with shifted gravity"
}
_COMPARED_MEASURES = ("pa", "mpa", "fwiou")
_MARGIN = 0.01
_REFERENCES = ("nearest_outcrop", SHIFTED_INPUT)


@dataclass(frozen=True)
class ScoredNodes:
    """Classes of a run's network and of the null models at the nodes the run is scored on.

    Attributes
    ----------
    truth, predicted : (n,) int64
        Classes 0..K-1.
    nulls : dict of str to (n,) int64
        Classes of each null model.
    block : (n,) int64
        The block of each node; the same block has the same number in every run.
    """

    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    nulls: Mapping[str, NDArray[np.int64]]
    block: NDArray[np.int64]


def compare_with_null_models(runs: Sequence[ScoredNodes], seed: int = 0) -> list[dict[str, Any]]:
    """Compare networks with nearest outcrop, with themselves on shifted gravity, and the best null model by FWIoU.

    Several runs are pooled. A block on which several seeds were scored is resampled with the nodes of all of them.

    Parameters
    ----------
    runs : sequence of ScoredNodes
        Runs of one group.
    seed : int
        Random seed of the bootstrap.

    Returns
    -------
    list of dict
        For each of these null models, the best one last, and for accuracy, mean accuracy and FWIoU: `null`, `measure`,
        `mean`, `low`, `high` (95 % interval; None for one block), `blocks`, and a `sentence`.
    """
    common = [name for name in runs[0].nulls if all(name in run.nulls for run in runs)]
    if not common:
        return []
    truth, predicted, block = (
        np.concatenate([getattr(run, part) for run in runs]) for part in ("truth", "predicted", "block")
    )
    nulls = {name: np.concatenate([run.nulls[name] for run in runs]) for name in common}
    classes = 1 + int(max(each.max() for each in (truth, predicted, *nulls.values())))
    fwiou = {name: float(scores(confusion(truth, each, classes))["fwiou"]) for name, each in nulls.items()}
    best = max(fwiou, key=lambda name: fwiou[name])
    result = []
    for name in [*(each for each in _REFERENCES if each in nulls and each != best), best]:
        for measure in _COMPARED_MEASURES:
            found = paired_bootstrap(truth, predicted, nulls[name], block, measure, seed=seed)
            result.append(
                {
                    "null": name,
                    "measure": measure,
                    "mean": found.mean,
                    "low": found.low,
                    "high": found.high,
                    "blocks": found.blocks,
                    "sentence": found.sentence("the network", _PHRASES[name]),
                }
            )
    return result


def no_better_than(ours: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Which trivial null models a network does not beat: the most frequent class, and itself with shifted gravity.

    Parameters
    ----------
    ours : mapping
        Scores of the network.
    baselines : mapping of str to mapping
        Scores of null models, by key.

    Returns
    -------
    list of str
        Phrases for those that it is less than one point ahead of in accuracy, mean accuracy and FWIoU. So small a gain
        is of no use, even if it is significant.

    Examples
    --------
    >>> constant = {"pa": 0.417, "mpa": 0.111, "fwiou": 0.174}
    >>> no_better_than({"pa": 0.418, "mpa": 0.112, "fwiou": 0.178}, {"majority": constant})
    ['predicting the most frequent class everywhere']
    """
    return [
        _PHRASES[name]
        for name in ("majority", SHIFTED_INPUT)
        if name in baselines
        and all((ours[measure] or 0) - (baselines[name][measure] or 0) < _MARGIN for measure in _COMPARED_MEASURES)
    ]
