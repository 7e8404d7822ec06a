"""Scores under cover: strata of held-out nodes, and a network beside the null models at the same nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.lattice import TEST, TUNE
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.data.outcrop_context import DISTANCE, context_names, distance_km_from_channel, is_context
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.evaluation import baselines
from gravmap.learning.evaluation.held_out import HeldOutPredictions
from gravmap.learning.evaluation.metrics import confusion, scores

Values = NDArray[np.float64]
Strata = Mapping[str, tuple[Values, Mapping[str, tuple[float, float]]]]
"""For each kind of stratum: values of all nodes, km, and the bounds of the strata by name."""

BY_DISTANCE = {"under 10 km": (0.0, 10.0), "10 to 30 km": (10.0, 30.0), "over 30 km": (30.0, np.inf)}
"""Distance to mapped outcrop, km: lower bound (exclusive) and upper bound (inclusive)."""

BY_COVER = {"under 0.5 km": (0.0, 0.5), "0.5 to 2 km": (0.5, 2.0), "over 2 km": (2.0, np.inf)}
"""Thickness of the cover, km; bounds as in :data:`BY_DISTANCE`."""


def in_stratum(values: Values, stratum: tuple[float, float]) -> NDArray[np.bool_]:
    """Mask of the values in a stratum, (low, high]; 0 is in the first stratum.

    Examples
    --------
    >>> import numpy as np
    >>> in_stratum(np.array([0.0, 10.0, 10.5]), BY_DISTANCE["under 10 km"]).tolist()
    [True, True, False]
    """
    above, most = stratum
    found: NDArray[np.bool_] = (values <= most) & ((values > above) | (above == 0))
    return found


def distance_km(dataset: RegionDataset) -> Values:
    """Distance of each node to mapped outcrop, from the outcrop context; (ny, nx)."""
    return distance_km_from_channel(dataset.fields[dataset.channels.index(DISTANCE)])


def held_out_strata(splits: DatasetSplits, held_out: HeldOutPredictions) -> Strata:
    """Values by which held-out nodes can be stratified.

    Parameters
    ----------
    splits : DatasetSplits
        Training, tuning and test datasets.
    held_out : HeldOutPredictions
        Predictions for these splits.

    Returns
    -------
    dict
        ``distance``, if the datasets have outcrop context, and ``cover``, if its thickness is known: kilometres at each
        of the n nodes, and the strata.
    """
    found: dict[str, tuple[Values, Mapping[str, tuple[float, float]]]] = {}
    if any(map(is_context, splits.first.channels)):
        found["distance"] = _at_held_out_nodes(splits, held_out, distance_km), BY_DISTANCE
    if splits.knows_thickness:
        found["cover"] = _at_held_out_nodes(splits, held_out, _cover_km), BY_COVER
    return found


def _cover_km(dataset: RegionDataset) -> NDArray[np.floating]:
    found = dataset.node_cover_km()
    assert found is not None  # where the thickness is known
    return found


def _at_held_out_nodes(
    splits: DatasetSplits, held_out: HeldOutPredictions, values: Callable[[RegionDataset], NDArray[np.floating]]
) -> Values:
    """Values of each dataset's grid at its held-out nodes."""
    found = np.zeros(len(held_out.target))
    for number, (dataset, _) in enumerate(splits.held_out(TUNE, TEST)):
        rows = held_out.place[:, 0] == number
        if rows.any():
            found[rows] = np.asarray(values(dataset), np.float64).ravel()[held_out.place[rows, 1]]
    return found


NETWORK, NEAREST, DIFFUSION, SHIFTED_INPUT = "network", "nearest_outcrop", "label_diffusion", "foreign_gravity"
LIKELIEST = "network_likeliest"
NULLS = (NEAREST, DIFFUSION)

EVERYWHERE = {"all": (0.0, np.inf)}

MEASURES = ("pa", "mpa", "fwiou")


def scores_under_cover(
    splits: DatasetSplits,
    held_out: HeldOutPredictions,
    predicted: NDArray[np.int64],
    role: int,
    shifted: NDArray[np.int64] | None = None,
    likeliest: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Scores by distance from outcrop, pooled over all simulated crusts of a role, and for each crust.

    Parameters
    ----------
    splits : DatasetSplits
        Datasets with outcrop context.
    held_out : HeldOutPredictions
        Predictions for these splits.
    predicted : (n,) int64
        Classes 0..K-1 of the network at the nodes of `held_out` that have the role.
    role : int
        TUNE or TEST.
    shifted : (n,) int64, optional
        Classes of the same network with another crust's gravity.
    likeliest : (n,) int64, optional
        Its most probable classes, if `predicted` is with class offsets
        (:mod:`gravmap.learning.calibration.class_offsets`).

    Returns
    -------
    dict
        ``strata``: for each name ``nodes`` and, for every predictor, ``pa``, ``mpa`` and ``fwiou`` (None if there is no
        node). ``gain``: the network minus the better null model, for each measure. ``cover``: as ``strata``, by
        kilometres of cover, if known. ``crusts``: for each crust the same measures of every predictor, over all its
        nodes.
    """
    selected = held_out.role == role
    truth, place = held_out.target[selected], held_out.place[selected]
    predictions = {NETWORK: predicted, **{null: np.zeros_like(truth) for null in NULLS}}
    if shifted is not None:
        predictions[SHIFTED_INPUT] = shifted
    if likeliest is not None:
        predictions[LIKELIEST] = likeliest
    strata_of_nodes = held_out_strata(splits, held_out)
    for number, dataset in enumerate(dataset for dataset, _ in splits.held_out(TUNE, TEST)):
        rows = place[:, 0] == number
        if rows.any():
            nodes = place[rows, 1]
            for null, classes in null_predictions(dataset).items():
                predictions[null][rows] = classes.ravel()[nodes]
    names = [str(each["name"]) for each in splits.classes]
    tables: dict[str, Any] = {"strata": {}}
    for kind, (values, strata) in strata_of_nodes.items():
        table = tables["strata"] if kind == "distance" else tables.setdefault(kind, {})
        for name, stratum in {**(EVERYWHERE if kind == "distance" else {}), **strata}.items():
            chosen = in_stratum(values[selected], stratum)
            table[name] = {"nodes": int(chosen.sum())} | {
                each: _scores_of(truth[chosen], classes[chosen], names) for each, classes in predictions.items()
            }
    crusts = [
        {each: _scores_of(truth[rows], values[rows], names) for each, values in predictions.items()}
        for rows in (place[:, 0] == number for number in np.unique(place[:, 0]))
    ]
    return {**tables, "gain": {name: _gain(row) for name, row in tables["strata"].items()}, "crusts": crusts}


def with_other_gravity(splits: DatasetSplits, role: int) -> DatasetSplits:
    """The datasets of a role with their own outcrop and the gravity of the next dataset."""
    datasets = [dataset for dataset, _ in splits.held_out(role)]
    moved = tuple(
        replace(dataset, fields=np.where(_is_outcrop_channel(dataset)[:, None, None], dataset.fields, other.fields))
        for dataset, other in zip(datasets, [*datasets[1:], *datasets[:1]], strict=True)
    )
    return DatasetSplits(moved, moved, moved, record=splits.record)


def null_predictions(dataset: RegionDataset) -> dict[str, NDArray[np.int64]]:
    """Classes 0..K-1 of the null models at each node, from the outcrop context; (ny, nx)."""
    *probabilities, _, known = context_names(len(dataset.classes))
    first = dataset.channels.index(probabilities[0])
    diffused = dataset.fields[first : first + len(probabilities)].argmax(axis=0)
    mapped = np.where(dataset.fields[dataset.channels.index(known)] > 0, diffused + 1, 0).astype(np.uint8)
    nearest = baselines.nearest_outcrop(mapped, dataset.node_lat, dataset.node_lon)
    return {NEAREST: nearest.astype(np.int64) - 1, DIFFUSION: diffused.astype(np.int64)}


def _is_outcrop_channel(dataset: RegionDataset) -> NDArray[np.bool_]:
    return np.array([is_context(name) for name in dataset.channels])


def _scores_of(truth: NDArray[np.int64], predicted: NDArray[np.int64], names: list[str]) -> dict[str, float | None]:
    found = scores(confusion(truth, predicted, len(names)), names)
    return {measure: found[measure] for measure in MEASURES}


def _gain(row: dict[str, Any]) -> dict[str, float] | None:
    """The network minus the better null model, for each measure; None if there is no node."""
    if not row["nodes"]:
        return None
    return {measure: row[NETWORK][measure] - max(row[null][measure] for null in NULLS) for measure in MEASURES}
