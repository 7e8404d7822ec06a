"""A finished run, opened with the dataset that it is scored on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.classes import NamedClasses
from gravmap.errors import InputError
from gravmap.geology.points import Points
from gravmap.lattice import COVER, UNUSABLE
from gravmap.learning.data.dataset import RegionDataset, known_labels
from gravmap.learning.data.outcrop_context import is_context, with_context
from gravmap.mapping.scoring.boreholes import Boreholes, lay_points
from gravmap.mapping.scoring.evaluation_nodes import EvaluationNodes
from gravmap.records import ModelRecord, read_model
from gravmap.tiling import load_arrays
from gravmap.tiling.training_arrays import read_index


@dataclass(frozen=True)
class FinishedRun:
    """A run and what its scores are counted on.

    Attributes
    ----------
    folder : Path
        The run.
    model : dict
        Its ``model.json``.
    dataset : RegionDataset
        What it was trained on, with its own fold.
    nodes : EvaluationNodes
        The labelled nodes of its test blocks.
    boreholes : Boreholes or None
        Where boreholes are given with their class.
    """

    folder: Path
    model: ModelRecord
    dataset: RegionDataset
    nodes: EvaluationNodes
    boreholes: Boreholes | None

    @classmethod
    def open(cls, folder: Path, tiles: Path, points: Points | None = None, by_area: bool = False) -> FinishedRun:
        """Open a run and the tile set it was trained on.

        Raises
        ------
        InputError
            As :func:`gravmap.mapping.scoring.evaluate.evaluate_run`.
        """
        if not (folder / "scores.json").exists():
            raise InputError(
                f"The run {folder.name} is not finished: {folder / 'scores.json'} is missing.",
                f"`gravmap train --resume --name {folder.name}` resumes it.",
            )
        model = read_model(folder, complete=True)
        dataset = dataset_of_run(model, tiles, folder.name)
        nodes = EvaluationNodes.of(dataset, by_area, folder.name)
        boreholes = lay_points(points, dataset) if points is not None and points.field else None
        return cls(folder, model, dataset, nodes, boreholes)

    @property
    def seed(self) -> int:
        """Of its training."""
        return int(self.model.get("seed", 0))

    @property
    def fold(self) -> int:
        """Of its split."""
        return int(self.model["split"].get("fold", 0))

    @property
    def wanted(self) -> NDArray[np.bool_]:
        """Nodes at which its network is evaluated: of the test blocks, and under boreholes; (ny, nx)."""
        wanted = self.nodes.counted.copy()
        if self.boreholes is not None:
            wanted[self.boreholes.row, self.boreholes.column] = True
        return wanted


def finished_runs(runs: Path) -> list[Path]:
    """Folders of a workspace's runs that were trained to their end, by name."""
    return sorted(path.parent for path in runs.glob("*/scores.json") if (path.parent / "model.json").exists())


def dataset_of_run(model: Mapping[str, Any], tiles: Path, name: str = "the network") -> RegionDataset:
    """The dataset of a run: its fields, its split and its fold, from the tile set it was trained on.

    Parameters
    ----------
    model : mapping
        ``model.json`` of the run.
    tiles : Path
        The tile set.
    name : str
        What it is called in messages.

    Returns
    -------
    Area
        With the very arrays of training; for a network that starts from outcrop with what training sees of it, which
        is no part of the fingerprint.

    Raises
    ------
    InputError
        The run was trained on simulated crusts; or no tile set, one whose sources changed, without this split, with
        other classes, or another than the run's.
    """
    if model.get("taught_on"):
        raise InputError(
            f"{name} was trained on simulated crusts, so no part of a tile set was held out from it.",
            "Its scores under the cover of other crusts are in scores.json; `gravmap evaluate RUN --points FILE` scores"
            " it at boreholes.",
        )
    split = model.get("split", {})
    read = list(dict.fromkeys(str(each["field"]) for each in model.get("inputs", []) if each.get("field")))
    fields = [field for field in read if not is_context(field)]
    dataset = RegionDataset.from_arrays(
        load_arrays(
            tiles, channels=fields or None, split=str(split.get("name", "blocks")), fold=int(split.get("fold", 0))
        )
    )
    _check_classes(model, dataset, tiles, name)
    known = model.get("area_sha256")
    if known and known != _fingerprint(dataset, model):
        raise InputError(
            f"The tile set {tiles} is not the one {name} was trained on: gravity, labels or split have changed since.",
            "Bring back the old data, or train anew on the new tile set.",
        )
    return dataset if fields == read else with_context(dataset, known_labels(dataset))


def dataset_of_network(model: Mapping[str, Any], tiles: Path, name: str) -> RegionDataset:
    """The region of a tile set for a network that was trained elsewhere, with all mapped outcrop as its context.

    Parameters
    ----------
    model, tiles, name
        As in :func:`dataset_of_run`.

    Raises
    ------
    InputError
        No tile set, one without the network's fields, or with other classes.
    """
    read = list(dict.fromkeys(str(each["field"]) for each in model.get("inputs", []) if each.get("field")))
    fields = [field for field in read if not is_context(field)]
    split = str(read_index(tiles)["splits"][0]["name"])  # any: roles are not used
    dataset = RegionDataset.from_arrays(load_arrays(tiles, channels=fields or None, split=split))
    _check_classes(model, dataset, tiles, name)
    if fields == read:
        return dataset
    labels, _ = dataset.node_truth()
    return with_context(dataset, np.where(labels == UNUSABLE, np.uint8(COVER), labels))


def _fingerprint(dataset: RegionDataset, model: Mapping[str, Any]) -> str:
    """What :attr:`gravmap.learning.training.setup.TrainingData.fingerprint` was when training began."""
    found = dataset.fingerprint()
    if not model.get("recipe", {}).get("from_tiles", False):
        return found
    # Edited tiles change what was learned, not what is scored: their hash is in the run's own record.
    read = [str(each["sha256"]) for each in model.get("sources", []) if each.get("role") == "tiles"]
    return hashlib.sha256(f"{found} {read[0]}".encode()).hexdigest() if read else found


def _check_classes(model: Mapping[str, Any], dataset: RegionDataset, tiles: Path, name: str) -> None:
    trained = NamedClasses.of(model.get("classes", []), str(model.get("legend_toml", "")))
    found = NamedClasses.of(dataset.classes, str(dataset.meta.get("legend_toml", "")))
    mismatch = trained.describe_mismatch(name[:1].upper() + name[1:], str(tiles), found)
    if mismatch:
        raise InputError(mismatch, f"{trained.how_to_make(tiles=True)}; or train anew on this one.")
