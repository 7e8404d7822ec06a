"""Score a map where the truth under cover is known (a synthetic crust), beside what costs no network at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.learning import baselines
from gravmap.learning.area import Area
from gravmap.learning.metrics import confusion, scores
from gravmap.learning.null_models import NULL_MODELS, QUICK, known_labels, null_maps
from gravmap.learning.target import to_target

COVER = 0
NETWORK = "network, gravity only"
FAR_KM = 30.0  # beyond this distance from known outcrop no null model has anything to go by


@dataclass(frozen=True)
class UnderCover:
    """Scores under cover, and the maps they belong to.

    Attributes
    ----------
    scores : dict of str to dict
        Predictor to {"all": .., "far": ..}, each the scores of :func:`gravmap.learning.metrics.scores`.
    maps : dict of str to (ny, nx) uint8 array
        Predictor to its map, north up.
    cells : int
        Covered cells that were scored; `far_cells` of them lie farther than `FAR_KM` from known outcrop.
    """

    scores: dict[str, dict[str, dict[str, Any]]]
    maps: dict[str, NDArray[np.uint8]]
    cells: int
    far_cells: int

    def table(self) -> list[str]:
        """Lines of a table: PA, MPA and FWIoU in percent, under all cover and far from outcrop."""
        head = f"{'under cover, percent':<34}{'PA':>6}{'MPA':>7}{'FWIoU':>7}   {'PA':>6}{'MPA':>7}{'FWIoU':>7}"
        over = f"{'':<34}{f'all {self.cells} cells':>20}   {f'{self.far_cells} cells > {FAR_KM:g} km':>20}"
        lines = [over, head]
        for name, row in self.scores.items():
            cells = [
                "   ".join(
                    "".join(
                        f"{_percent(row[part][key]):>{width}}" for key, width in (("pa", 6), ("mpa", 7), ("fwiou", 7))
                    )
                    for part in ("all", "far")
                )
            ]
            lines.append(f"{name:<34}{cells[0]}")
        return lines


def score_under_cover(area: Area, mapped: NDArray[np.uint8], truth: NDArray[np.uint8]) -> UnderCover:
    """Score a network's map and the null models on the cells whose bedrock is hidden.

    Every predictor has seen the same labels: the outcrop that training sees of `area`.

    Parameters
    ----------
    area : Area
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
    if not surface.shape == mapped.shape == truth.shape:
        raise InputError(
            f"The map has {mapped.shape} cells, the truth {truth.shape}, the training area {surface.shape}.",
            "All three must lie on the nodes of the same crust.",
        )
    hidden = surface == COVER
    if not hidden.any():
        raise InputError("Nothing is under cover here.", "Make a crust with a larger cover share.")
    maps = {NETWORK: mapped}
    maps |= {NULL_MODELS[key].title: values for key, values in null_maps(area, None, which=QUICK).items()}
    known, lat, lon = known_labels(area), area.node_lat, area.node_lon
    far = hidden & (baselines.distance_to_outcrop_km(known, lat, lon) > FAR_KM)
    names = [entry["name"] for entry in area.classes]
    rows = {
        name: {part: _scores(values, truth, where, names) for part, where in (("all", hidden), ("far", far))}
        for name, values in maps.items()
    }
    return UnderCover(rows, maps, int(hidden.sum()), int(far.sum()))


def _scores(
    mapped: NDArray[np.uint8], truth: NDArray[np.uint8], where: NDArray[np.bool_], names: list[str]
) -> dict[str, Any]:
    return scores(confusion(to_target(truth[where]), to_target(mapped[where]), len(names)), names)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
