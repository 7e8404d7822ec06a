"""Scores under cover: where hidden nodes lie, and a network beside the null models on the same cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.lattice import TEST, TUNE
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.data.outcrop_context import DISTANCE, context_names, distance_km_from_channel, is_context
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.evaluation import baselines
from gravmap.learning.evaluation.held_out_predictions import HeldOutPredictions
from gravmap.learning.evaluation.metrics import confusion, scores

Values = NDArray[np.float64]
Strata = Mapping[str, tuple[Values, Mapping[str, tuple[float, float]]]]
"""What nodes are sorted by: their values in kilometres, and the strata."""

BY_DISTANCE = {"under 10 km": (0.0, 10.0), "10 to 30 km": (10.0, 30.0), "over 30 km": (30.0, np.inf)}
"""Kilometres from mapped outcrop: from, which is in the stratum before, to, which is in."""

BY_COVER = {"under 0.5 km": (0.0, 0.5), "0.5 to 2 km": (0.5, 2.0), "over 2 km": (2.0, np.inf)}
"""Kilometres of cover; ends as in :data:`BY_DISTANCE`."""


def inside(values: Values, stratum: tuple[float, float]) -> NDArray[np.bool_]:
    """Which values lie in a stratum; 0 lies in the first."""
    above, most = stratum
    found: NDArray[np.bool_] = (values <= most) & ((values > above) | (above == 0))
    return found


def distance_km(area: RegionDataset) -> Values:
    """Distance of each node to mapped outcrop, out of the context; (ny, nx)."""
    return distance_km_from_channel(area.fields[area.channels.index(DISTANCE)])


def strata_of(grounds: DatasetSplits, held: HeldOutPredictions) -> Strata:
    """What held-out nodes may be sorted by.

    Parameters
    ----------
    grounds : DatasetSplits
        Any.
    held : HeldOutPredictions
        Of these grounds.

    Returns
    -------
    dict
        ``distance``, where the grounds have outcrop as context, and ``cover``, where its thickness is known: kilometres
        at each of the n nodes, and the strata they are sorted into.
    """
    found: dict[str, tuple[Values, Mapping[str, tuple[float, float]]]] = {}
    if any(map(is_context, grounds.first.channels)):
        found["distance"] = _at_nodes(grounds, held, distance_km), BY_DISTANCE
    if grounds.cover_m:
        known = {id(area): values for area, values in zip((*grounds.tune, *grounds.test), grounds.cover_m, strict=True)}
        found["cover"] = _at_nodes(grounds, held, lambda area: known[id(area)] / 1000.0), BY_COVER
    return found


def _at_nodes(
    grounds: DatasetSplits, held: HeldOutPredictions, values: Callable[[RegionDataset], NDArray[np.floating]]
) -> Values:
    """Values of each ground's grid at its held-out nodes."""
    found = np.zeros(len(held.target))
    for number, (area, _) in enumerate(grounds.held_out(TUNE, TEST)):
        here = held.place[:, 0] == number
        if here.any():
            found[here] = np.asarray(values(area), np.float64).ravel()[held.place[here, 1]]
    return found


NETWORK, NEAREST, DIFFUSION, FOREIGN = "network", "nearest_outcrop", "label_diffusion", "foreign_gravity"
LIKELIEST = "network_likeliest"
NULLS = (NEAREST, DIFFUSION)

EVERYWHERE = {"all": (0.0, np.inf)}

MEASURES = ("pa", "mpa", "fwiou")


def hidden_scores(
    grounds: DatasetSplits,
    held: HeldOutPredictions,
    named: NDArray[np.int64],
    role: int,
    foreign: NDArray[np.int64] | None = None,
    likeliest: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Scores by distance from outcrop, over all crusts of a role together, and crust by crust.

    Parameters
    ----------
    grounds : DatasetSplits
        With outcrop as context.
    held : HeldOutPredictions
        Of these grounds.
    named : (n,) int64
        Classes 0..K-1 that the network names at the nodes of `held` that have the role.
    role : int
        TUNE or TEST.
    foreign : (n,) int64, optional
        What the same network names there when it reads another crust's gravity.
    likeliest : (n,) int64, optional
        Its likeliest classes, where those it names are others (:mod:`gravmap.learning.calibration.class_offsets`).

    Returns
    -------
    dict
        ``strata``: name to ``nodes`` and, for every predictor, ``pa``, ``mpa`` and ``fwiou`` (None where there is no
        node). ``gain``: the network less the better null model, measure by measure. ``cover``: as ``strata``, by
        kilometres of cover, where these are known. ``crusts``: over all cells of each crust the same measures of every
        predictor.
    """
    mine = held.role == role
    truth, place = held.target[mine], held.place[mine]
    said = {NETWORK: named, **{null: np.zeros_like(truth) for null in NULLS}}
    if foreign is not None:
        said[FOREIGN] = foreign
    if likeliest is not None:
        said[LIKELIEST] = likeliest
    lying = strata_of(grounds, held)
    for number, area in _asked(grounds):
        here = place[:, 0] == number
        if here.any():
            nodes = place[here, 1]
            for null, classes in null_classes(area).items():
                said[null][here] = classes.ravel()[nodes]
    names = [str(each["name"]) for each in grounds.classes]
    tables: dict[str, Any] = {"strata": {}}
    for kind, (values, strata) in lying.items():
        table = tables["strata"] if kind == "distance" else tables.setdefault(kind, {})
        for name, stratum in {**(EVERYWHERE if kind == "distance" else {}), **strata}.items():
            chosen = inside(values[mine], stratum)
            table[name] = {"nodes": int(chosen.sum())} | {
                each: _measured(truth[chosen], classes[chosen], names) for each, classes in said.items()
            }
    crusts = [
        {each: _measured(truth[here], values[here], names) for each, values in said.items()}
        for here in (place[:, 0] == number for number in np.unique(place[:, 0]))
    ]
    return {**tables, "gain": {name: _gain(row) for name, row in tables["strata"].items()}, "crusts": crusts}


def with_other_gravity(grounds: DatasetSplits, role: int) -> DatasetSplits:
    """The crusts of a role with each other's gravity under their own outcrop, the next one's each time."""
    areas = [area for area, _ in grounds.held_out(role)]
    moved = tuple(
        replace(area, fields=np.where(_outcrop_planes(area)[:, None, None], area.fields, other.fields))
        for area, other in zip(areas, [*areas[1:], *areas[:1]], strict=True)
    )
    return DatasetSplits(moved, moved, moved, record=grounds.record)


def null_classes(area: RegionDataset) -> dict[str, NDArray[np.int64]]:
    """What the null models name at each node, 0..K-1, out of the context; (ny, nx)."""
    *chances, _, known = context_names(len(area.classes))
    first = area.channels.index(chances[0])
    spread = area.fields[first : first + len(chances)].argmax(axis=0)
    mapped = np.where(area.fields[area.channels.index(known)] > 0, spread + 1, 0).astype(np.uint8)
    nearest = baselines.nearest_outcrop(mapped, area.node_lat, area.node_lon)
    return {NEAREST: nearest.astype(np.int64) - 1, DIFFUSION: spread.astype(np.int64)}


def _asked(grounds: DatasetSplits) -> Iterator[tuple[int, RegionDataset]]:
    """DatasetSplits as `HeldOutPredictions.place` numbers them."""
    yield from enumerate(area for area, _ in grounds.held_out(TUNE, TEST))


def _outcrop_planes(area: RegionDataset) -> NDArray[np.bool_]:
    return np.array([is_context(name) for name in area.channels])


def _measured(truth: NDArray[np.int64], named: NDArray[np.int64], names: list[str]) -> dict[str, float | None]:
    found = scores(confusion(truth, named, len(names)), names)
    return {measure: found[measure] for measure in MEASURES}


def _gain(row: dict[str, Any]) -> dict[str, float] | None:
    """The network less the better of the null models, each measure by itself; None where there is no node."""
    if not row["nodes"]:
        return None
    return {measure: row[NETWORK][measure] - max(row[null][measure] for null in NULLS) for measure in MEASURES}
