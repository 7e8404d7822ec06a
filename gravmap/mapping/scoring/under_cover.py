"""Score maps where the truth under cover is known (a synthetic crust), by distance to outcrop, beside null models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.lattice import UNUSABLE, spacing_yx_km
from gravmap.learning.data.dataset import RegionDataset, known_labels, to_target
from gravmap.learning.data.outcrop_context import distance_to_outcrop_km
from gravmap.learning.evaluation import baselines
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.learning.evaluation.null_models import NULL_MODELS, QUICK, null_maps
from gravmap.learning.evaluation.under_cover import BY_DISTANCE, EVERYWHERE, in_stratum

Labels = NDArray[np.uint8]

COVER = 0
NETWORK = "network, gravity only"
ALL, FAR = "all", "over 30 km"
STRATA = {**EVERYWHERE, **BY_DISTANCE}
"""Kilometres from known outcrop; beyond 30 of them no null model has anything to go by."""

MEASURES = {
    "pa": "PA: cells named right",
    "mpa": "MPA: the same class by class, averaged",
    "fwiou": "FWIoU: overlap, weighted by how common a class is",
}


@dataclass(frozen=True)
class UnderCover:
    """Scores under cover, and the maps they belong to.

    Attributes
    ----------
    scores : dict of str to dict
        Predictor to {stratum of `STRATA`: the scores of :func:`gravmap.learning.evaluation.metrics.scores`}.
    maps : dict of str to (ny, nx) uint8 array
        Predictor to its map, north up.
    cells : dict of str to int
        Covered cells that were scored, by stratum.
    """

    scores: dict[str, dict[str, dict[str, Any]]]
    maps: dict[str, Labels]
    cells: dict[str, int]

    def table(self) -> list[str]:
        """Lines of a table: PA, MPA and FWIoU in percent, under all cover and by distance to known outcrop."""
        lines = [
            _line("Under cover, by distance to outcrop", STRATA),
            _line("cells", (str(self.cells[stratum]) for stratum in STRATA)),
        ]
        for measure, title in MEASURES.items():
            lines.append(f"{title}, percent")
            for name, row in self.scores.items():
                lines.append(_line(f"  {name}", (_percent(row[stratum][measure]) for stratum in STRATA)))
        return lines


def score_maps(
    maps: Mapping[str, Labels],
    truth: Labels,
    surface: Labels,
    known: Labels,
    lat_deg: NDArray[np.float64],
    lon_deg: NDArray[np.float64],
    names: Sequence[str],
) -> UnderCover:
    """Score maps on the cells whose bedrock is hidden.

    Parameters
    ----------
    maps : mapping of str to (ny, nx) uint8
        Predictor to the classes it names, 1..K, north up.
    truth : (ny, nx) uint8
        Bedrock below the cover, 1..K.
    surface : (ny, nx) uint8
        What the geological map shows; 0 under cover.
    known : (ny, nx) uint8
        The outcrop that predictors saw, 1..K; 0 elsewhere. Distances are to this.
    lat_deg, lon_deg : (ny,), (nx,) float
        Cell centres, degrees, north up.
    names : sequence of str
        Of the K classes.

    Raises
    ------
    InputError
        The grids differ, or nothing is covered.
    """
    for what, grid in {"truth": truth, **maps}.items():
        if grid.shape != surface.shape:
            raise InputError(
                f"{what} has {grid.shape} cells, the geological map {surface.shape}.",
                "All must lie on the nodes of the same crust.",
            )
    hidden = surface == COVER
    if not hidden.any():
        raise InputError("Nothing is under cover here.", "Make a crust with a larger cover fraction.")
    away = distance_to_outcrop_km(known, lat_deg, lon_deg)
    strata = {name: hidden & in_stratum(away, ends) for name, ends in STRATA.items()}
    rows = {
        name: {stratum: _scores(values, truth, where, names) for stratum, where in strata.items()}
        for name, values in maps.items()
    }
    return UnderCover(rows, dict(maps), {name: int(where.sum()) for name, where in strata.items()})


def score_under_cover(area: RegionDataset, mapped: Labels, truth: Labels) -> UnderCover:
    """Score the map of a network that reads gravity alone, and the null models, on the cells whose bedrock is hidden.

    Every predictor has seen the same labels: the outcrop that training sees of `area`.

    Parameters
    ----------
    area : RegionDataset
        What the network was trained on.
    mapped : (ny, nx) uint8
        The network's classes at the nodes of `area`, north up.
    truth : (ny, nx) uint8
        Bedrock below the cover at the same nodes, 1..K.

    Raises
    ------
    InputError
        The grids differ, or nothing is covered.
    """
    surface, _ = area.node_truth()
    nulls = {NULL_MODELS[key].title: values for key, values in null_maps(area, None, which=QUICK).items()}
    names = [str(entry["name"]) for entry in area.classes]
    known = known_labels(area)
    return score_maps({NETWORK: mapped, **nulls}, truth, surface, known, area.node_lat, area.node_lon, names)


def score_from_outcrop(
    maps: Mapping[str, Labels],
    truth: Labels,
    surface: Labels,
    lat_deg: NDArray[np.float64],
    lon_deg: NDArray[np.float64],
    names: Sequence[str],
) -> UnderCover:
    """Score maps of networks that start from mapped outcrop, after the null models that need nothing else.

    Every predictor sees all outcrop that `surface` shows.

    Parameters
    ----------
    maps, truth, surface, lat_deg, lon_deg, names
        As in :func:`score_maps`.

    Raises
    ------
    InputError
        The grids differ, nothing is covered, or there is no outcrop.
    """
    known = np.where(surface == UNUSABLE, COVER, surface).astype(np.uint8)
    spacing = spacing_yx_km(lat_deg, lon_deg)
    nulls = {
        NULL_MODELS["nearest_outcrop"].title: baselines.nearest_outcrop(known, lat_deg, lon_deg),
        NULL_MODELS["label_diffusion"].title: baselines.label_diffusion(known, spacing),
    }
    return score_maps({**nulls, **maps}, truth, surface, known, lat_deg, lon_deg, names)


def _scores(mapped: Labels, truth: Labels, where: NDArray[np.bool_], names: Sequence[str]) -> dict[str, Any]:
    return scores(confusion(to_target(truth[where]), to_target(mapped[where]), len(names)), list(names))


def _line(label: str, cells: Iterable[str]) -> str:
    return f"{label:<38}" + "".join(f"{cell:>14}" for cell in cells)


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}"
