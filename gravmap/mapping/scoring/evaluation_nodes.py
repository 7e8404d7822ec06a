"""The nodes a run is scored on, and how a map of them is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.geology.areas import row_cell_areas_km2
from gravmap.lattice import TEST
from gravmap.learning.data.dataset import IGNORE, RegionDataset, known_labels, to_target
from gravmap.learning.data.outcrop_context import distance_to_outcrop_km
from gravmap.learning.evaluation.comparison import ScoredNodes, block_numbers
from gravmap.learning.evaluation.metrics import confusion, scores, scores_by_distance
from gravmap.learning.evaluation.node_predictor import UNLABELLED


@dataclass(frozen=True)
class EvaluationNodes:
    """The labelled nodes of the test blocks.

    Attributes
    ----------
    names : list of str
        Of the classes.
    truth : (ny, nx) int64
        Targets; IGNORE at all but the labelled nodes of the test blocks.
    distance_km : (ny, nx) float64
        To the nearest outcrop that training saw.
    km2 : (ny, nx) float64 or None
        Area that a node stands for; None where nodes count alike.
    """

    names: list[str]
    truth: NDArray[np.int64]
    distance_km: NDArray[np.float64]
    km2: NDArray[np.float64] | None

    @classmethod
    def of(cls, dataset: RegionDataset, by_area: bool, run: str) -> EvaluationNodes:
        """From the dataset of a run; an InputError names the run where no node of its test blocks is labelled."""
        labels, roles = dataset.node_truth()
        truth = np.where(roles == TEST, to_target(labels), IGNORE)
        if (truth == IGNORE).all():
            split = dataset.meta.get("split", {})
            raise InputError(
                f"The run {run} cannot be scored: no labelled node lies in the test blocks of fold"
                f" {split.get('fold', 0)} of the split {split.get('name', 'blocks')}.",
                "Train another --fold, or make another split: `gravmap split --add blocks --name NAME`.",
            )
        distance = distance_to_outcrop_km(known_labels(dataset), dataset.node_lat, dataset.node_lon)
        names = [str(each["name"]) for each in dataset.classes]
        return cls(names, truth, distance, node_areas_km2(dataset) if by_area else None)

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Where they are; (ny, nx)."""
        return np.asarray(self.truth != IGNORE)

    @property
    def total(self) -> str:
        """What is counted: places or km2."""
        return "places" if self.km2 is None else "km2"

    def score(self, named: NDArray[np.uint8]) -> dict[str, Any]:
        """Scores and confusion matrix of a map."""
        truth = np.where(named == UNLABELLED, IGNORE, self.truth)
        matrix = confusion(truth, to_target(named), len(self.names), self.km2)
        return {"scores": scores(matrix, self.names, self.total), "confusion": matrix.tolist()}

    def compared(
        self, named: NDArray[np.uint8], nulls: Mapping[str, NDArray[np.uint8]], dataset: RegionDataset
    ) -> ScoredNodes:
        """Classes of a network and of null models, node by node, for a paired comparison."""
        counted = self.counted & (named != UNLABELLED)
        return ScoredNodes(
            self.truth[counted],
            to_target(named[counted]),
            {name: to_target(values[counted]) for name, values in nulls.items()},
            block_numbers(dataset)[counted],
        )

    def scores_by_distance(
        self, named: NDArray[np.uint8], nulls: Mapping[str, NDArray[np.uint8]] | None
    ) -> list[dict[str, Any]]:
        """Scores by distance to outcrop; of null models the accuracy alone."""
        counted = self.counted & (named != UNLABELLED)
        weight = None if self.km2 is None else self.km2[counted]

        def table(values: NDArray[np.uint8]) -> list[dict[str, Any]]:
            target = to_target(values[counted])
            return scores_by_distance(
                self.truth[counted], target, self.distance_km[counted], self.names, weight, self.total
            )

        return with_nulls_beside(
            table(named), None if nulls is None else {name: table(each) for name, each in nulls.items()}
        )


def node_areas_km2(dataset: RegionDataset) -> NDArray[np.float64]:
    """Area that each node stands for, on the WGS 84 ellipsoid; (ny, nx) km²."""
    west, south, east, north = dataset.field_nodes_wsen
    rows, columns = dataset.field_valid.shape
    tall, wide = (north - south) / (rows - 1), (east - west) / (columns - 1)
    of_row = row_cell_areas_km2(south - tall / 2, north + tall / 2, rows, wide)
    return np.repeat(of_row[:, None], columns, axis=1)


def with_nulls_beside(
    table: list[dict[str, Any]], nulls: Mapping[str, Sequence[Mapping[str, Any]]] | None
) -> list[dict[str, Any]]:
    """A table of the network with the accuracy of null models in the same bins."""
    if nulls is None:
        return table
    return [
        {**row, "baselines": {name: other[number]["pa"] for name, other in nulls.items()}}
        for number, row in enumerate(table)
    ]
