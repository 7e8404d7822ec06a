"""What gravity adds: a network beside the null models, on the same nodes, block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.learning.comparison import paired_bootstrap
from gravmap.learning.metrics import confusion, scores
from gravmap.learning.null_models import NULL_MODELS

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
