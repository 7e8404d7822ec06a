"""A network under the cover of crusts it never saw, beside the null models on the same cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.learning import baselines
from gravmap.learning.area import TEST, TUNE, Area
from gravmap.learning.grounds import Grounds
from gravmap.learning.held_out import HeldOut
from gravmap.learning.hidden_ground import inside, strata_of
from gravmap.learning.metrics import confusion, scores
from gravmap.learning.outcrop import context_names, is_context

NETWORK, NEAREST, DIFFUSION, FOREIGN = "network", "nearest_outcrop", "label_diffusion", "foreign_gravity"
LIKELIEST = "network_likeliest"
NULLS = (NEAREST, DIFFUSION)

EVERYWHERE = {"all": (0.0, np.inf)}

MEASURES = ("pa", "mpa", "fwiou")


def hidden_scores(
    grounds: Grounds,
    held: HeldOut,
    named: NDArray[np.int64],
    role: int,
    foreign: NDArray[np.int64] | None = None,
    likeliest: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Scores by distance from outcrop, over all crusts of a role together, and crust by crust.

    Parameters
    ----------
    grounds : Grounds
        With outcrop as context.
    held : HeldOut
        Of these grounds.
    named : (n,) int64
        Classes 0..K-1 that the network names at the nodes of `held` that have the role.
    role : int
        TUNE or TEST.
    foreign : (n,) int64, optional
        What the same network names there when it reads another crust's gravity.
    likeliest : (n,) int64, optional
        Its likeliest classes, where those it names are others (:mod:`gravmap.learning.decision`).

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


def with_foreign_gravity(grounds: Grounds, role: int) -> Grounds:
    """The crusts of a role with each other's gravity under their own outcrop, the next one's each time."""
    areas = [area for area, _ in grounds.held(role)]
    moved = tuple(
        replace(area, fields=np.where(_outcrop_planes(area)[:, None, None], area.fields, other.fields))
        for area, other in zip(areas, [*areas[1:], *areas[:1]], strict=True)
    )
    return Grounds(moved, moved, moved, record=grounds.record)


def null_classes(area: Area) -> dict[str, NDArray[np.int64]]:
    """What the null models name at each node, 0..K-1, out of the context; (ny, nx)."""
    *chances, _, known = context_names(len(area.classes))
    first = area.channels.index(chances[0])
    spread = area.fields[first : first + len(chances)].argmax(axis=0)
    mapped = np.where(area.fields[area.channels.index(known)] > 0, spread + 1, 0).astype(np.uint8)
    nearest = baselines.nearest_outcrop(mapped, area.node_lat, area.node_lon)
    return {NEAREST: nearest.astype(np.int64) - 1, DIFFUSION: spread.astype(np.int64)}


def _asked(grounds: Grounds) -> Iterator[tuple[int, Area]]:
    """Grounds as `HeldOut.place` numbers them."""
    yield from enumerate(area for area, _ in grounds.held(TUNE, TEST))


def _outcrop_planes(area: Area) -> NDArray[np.bool_]:
    return np.array([is_context(name) for name in area.channels])


def _measured(truth: NDArray[np.int64], named: NDArray[np.int64], names: list[str]) -> dict[str, float | None]:
    found = scores(confusion(truth, named, len(names)), names)
    return {measure: found[measure] for measure in MEASURES}


def _gain(row: dict[str, Any]) -> dict[str, float] | None:
    """The network less the better of the null models, each measure by itself; None where there is no node."""
    if not row["nodes"]:
        return None
    return {measure: row[NETWORK][measure] - max(row[null][measure] for null in NULLS) for measure in MEASURES}
