"""Whether one map is better than another on the same nodes, block by block, and whether chance may have it so."""

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
"""Measures that two maps can be compared by, and their names in a sentence."""


@dataclass(frozen=True)
class Difference:
    """How much better one map scores than another, as shares of one.

    Attributes
    ----------
    mean : float
        Score of the one less that of the other, on all blocks.
    low, high : float or None
        Ends of the interval that holds 95 % of the draws; None of a single block, which cannot tell.
    blocks : int
        Blocks that were drawn from.
    measure : str
        Key of :data:`MEASURES`.
    """

    mean: float
    low: float | None
    high: float | None
    blocks: int
    measure: str

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def sentence(self, one: str, other: str) -> str:
        """Say it: ``gravity adds 3.1 points of accuracy over nearest outcrop (95 % interval 0.5 to 5.9, 12 blocks)``.

        Parameters
        ----------
        one, other : str
            What made the maps, as in a sentence.
        """
        points = f"{100 * abs(self.mean):.1f} points of {MEASURES[self.measure]}"
        said = f"{one} adds {points} over {other}" if self.mean >= 0 else f"{one} loses {points} to {other}"
        if self.low is None or self.high is None:
            return f"{said} (one block: no interval)"
        ends = f"{100 * self.low:+.1f} to {100 * self.high:+.1f}"
        said += f" ({100 * CONFIDENCE:.0f} % interval {ends}, {self.blocks} blocks)"
        return said if self.certain else f"{said}: it may be chance"


def paired_bootstrap(
    truth: NDArray[np.integer],
    one: NDArray[np.integer],
    other: NDArray[np.integer],
    block_of_node: NDArray[np.integer],
    measure: str = "fwiou",
    draws: int = 2000,
    seed: int = 0,
) -> Difference:
    """Compare two maps on the same nodes by drawing blocks of nodes with replacement.

    Parameters
    ----------
    truth, one, other : (n,) int
        True classes and those of two maps, 0..K-1 as the network counts them
        (:func:`gravmap.learning.data.dataset.to_target`).
    block_of_node : (n,) int
        The block that each node lies in; see :func:`block_numbers`.
    measure : str
        Key of :data:`MEASURES`.
    draws : int
        How often the blocks are drawn.
    seed : int
        Of the draws.

    Returns
    -------
    Difference
        The interval is that of percentiles.

    Raises
    ------
    ValueError
        Shapes differ, nothing is there, or no such measure.

    References
    ----------
    Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapter 13; blocks: Lahiri (2003).
    """
    if not truth.shape == one.shape == other.shape == block_of_node.shape or not truth.size:
        raise ValueError("truth, both maps and the blocks must be of one shape, and not empty")
    if measure not in MEASURES:
        raise ValueError(f"{measure} is none of {', '.join(MEASURES)}")
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
    drawn = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), size=draws)
    ours, theirs = (np.tensordot(drawn, each, axes=1) for each in per_block)  # (draws, K, K)
    found = np.array([_score(a, measure) - _score(b, measure) for a, b in zip(ours, theirs, strict=True)])
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.nanpercentile(found, (tail, 100 - tail))
    return Difference(whole, float(low), float(high), blocks, measure)


def block_numbers(area: RegionDataset) -> NDArray[np.int64]:
    """The block of the split that each node of an area lies in; (ny, nx).

    Where the split has no blocks (random windows): blocks of 2.5 degrees.
    """
    split = area.meta.get("split", {})
    height, width = split.get("block_deg") or (BLOCK_DEG, BLOCK_DEG)
    west, _, _, north = split.get("region_wsen") or area.label_bounds_wsen
    # A point between two blocks is in the southern, or the eastern, one, as with cells.
    row = np.floor((north - area.node_lat) / height + 1e-9).astype(np.int64)
    column = np.floor((area.node_lon - west) / width + 1e-9).astype(np.int64)
    row, column = row - row.min(), column - column.min()
    numbers: NDArray[np.int64] = row[:, None] * (int(column.max()) + 1) + column[None, :]
    return numbers


def _score(matrix: NDArray[np.int64], measure: str) -> float:
    value = scores(matrix)[measure]
    return float("nan") if value is None else float(value)


FOREIGN = "foreign_gravity"
"""The network itself, reading another place's gravity."""

TITLES = {key: model.title for key, model in NULL_MODELS.items()} | {FOREIGN: "the network on foreign gravity"}
"""Names of null models in a table."""

_TOLD = {key: model.told for key, model in NULL_MODELS.items()} | {FOREIGN: "the same network on foreign gravity"}
_MEASURES = ("pa", "mpa", "fwiou")
_ALWAYS = ("nearest_outcrop", FOREIGN)


@dataclass(frozen=True)
class ScoredNodes:
    """What a run's network and the null models say of the nodes it is scored on.

    Attributes
    ----------
    truth, named : (n,) int64
        Classes 0..K-1.
    nulls : dict of str to (n,) int64
        The same of each null model.
    block : (n,) int64
        The block of ground a node lies in: the same number for the same ground in every run.
    """

    truth: NDArray[np.int64]
    named: NDArray[np.int64]
    nulls: Mapping[str, NDArray[np.int64]]
    block: NDArray[np.int64]


def against_nulls(runs: Sequence[ScoredNodes], seed: int = 0) -> list[dict[str, Any]]:
    """Compare networks with nearest outcrop, with themselves on foreign gravity, and with the best null model.

    Several runs are taken together. A block that several seeds were scored on is drawn with the nodes of all of them.

    Parameters
    ----------
    runs : sequence of ScoredNodes
        Of one group.
    seed : int
        Of the bootstrap.

    Returns
    -------
    list of dict
        For each of these null models and of accuracy, mean accuracy and FWIoU: `null`, `measure`, `mean`, `low`,
        `high` (95 % interval; None of one block), `blocks`, and a `sentence`.
    """
    shared = [name for name in runs[0].nulls if all(name in run.nulls for run in runs)]
    if not shared:
        return []
    truth, named, block = (np.concatenate([getattr(run, part) for run in runs]) for part in ("truth", "named", "block"))
    nulls = {name: np.concatenate([run.nulls[name] for run in runs]) for name in shared}
    classes = 1 + int(max(each.max() for each in (truth, named, *nulls.values())))
    fwiou = {name: float(scores(confusion(truth, each, classes))["fwiou"]) for name, each in nulls.items()}
    best = max(fwiou, key=lambda name: fwiou[name])
    result = []
    for name in dict.fromkeys([*(each for each in _ALWAYS if each in nulls), best]):
        for measure in _MEASURES:
            found = paired_bootstrap(truth, named, nulls[name], block, measure, seed=seed)
            result.append(
                {
                    "null": name,
                    "measure": measure,
                    "mean": found.mean,
                    "low": found.low,
                    "high": found.high,
                    "blocks": found.blocks,
                    "sentence": found.sentence("the network", _TOLD[name]),
                }
            )
    return result
