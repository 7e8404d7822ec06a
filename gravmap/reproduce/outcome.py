"""Results of the runs: the scores that `gravmap train` computed, and baselines on the same nodes."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.evaluation.null_models import NULL_MODELS, null_scores, unavailable_null_models
from gravmap.mapping.page.facts import Protocol, protocols_of, read_run
from gravmap.network.cost import count_parameters
from gravmap.network.registry import build_from_dict
from gravmap.records import ScoresRecord, read_record
from gravmap.reproduce.plan import PROTOCOLS, Plan, PlannedRun
from gravmap.workspace import Workspace


@dataclass(frozen=True)
class Trained:
    """A planned run and its results.

    Attributes
    ----------
    run : PlannedRun
        The plan of the run.
    folder : Path
        Folder of the run, which may not exist yet.
    parameters : int or None
        Number of trainable parameters; None if the network cannot be built here.
    test : dict
        Scores on the test split; empty if the run was not trained or not scored.
    history : list of dict
        One row per epoch: epoch, loss, tune_fwiou ...; numbers or None.
    seconds : float
        Duration of training.
    """

    run: PlannedRun
    folder: Path
    parameters: int | None
    test: dict[str, Any]
    history: list[dict[str, float | None]]
    seconds: float

    @property
    def done(self) -> bool:
        """Whether training is finished."""
        return (self.folder / "scores.json").exists()


@dataclass(frozen=True)
class Outcome:
    """Results of all runs of a plan.

    Attributes
    ----------
    plan : Plan
        The plan of runs.
    trained : list of Trained
        One for every planned run.
    protocols : dict of str to Protocol
        Scored runs and baselines by split, without splits that have no scored run.
    """

    plan: Plan
    trained: list[Trained]
    protocols: dict[str, Protocol]

    def of(self, network: str, protocol: str) -> Trained | None:
        """The first run of a network under a split; None if none was planned."""
        return next(iter(self.seeds_of(network, protocol)), None)

    def seeds_of(self, network: str, protocol: str) -> list[Trained]:
        """All runs of a network under a split, which differ in their seed."""
        return [each for each in self.trained if (each.run.network, each.run.protocol) == (network, protocol)]


def gather(place: Workspace, plan: Plan, in_channels: int, classes: int) -> Outcome:
    """Read the results of the runs of a plan.

    Parameters
    ----------
    place : Workspace
        Workspace of the runs.
    plan : Plan
        The plan of runs.
    in_channels, classes : int
        Input channels and classes of the networks, to count their parameters.

    Raises
    ------
    InputError
        The files of a run are damaged.
    """
    trained = [_read(place.runs / run.name, run, in_channels, classes) for run in plan.runs]
    protocols = {}
    for name in PROTOCOLS:
        folders = [each.folder for each in trained if each.run.protocol == name and each.test]
        found = protocols_of([read_run(folder, used=True) for folder in folders], place.tiles)
        if found:
            protocols[name] = found[0]
    return Outcome(plan, trained, protocols)


def with_learned_baselines(outcome: Outcome, protocol: str, dataset: RegionDataset) -> Outcome:
    """Add the baselines that are fitted (random forests ...), which take too long for the report of a map.

    Parameters
    ----------
    outcome : Outcome
        Results with the quick baselines; a split without baselines is not changed.
    protocol : str
        The split.
    dataset : RegionDataset
        Dataset with the roles of that split.
    """
    found = outcome.protocols.get(protocol)
    if found is None or not found.baselines:
        return outcome
    unavailable = unavailable_null_models(dataset)
    more = [key for key, model in NULL_MODELS.items() if key not in unavailable and model.title not in found.baselines]
    baselines = found.baselines | {NULL_MODELS[key].title: row for key, row in null_scores(dataset, which=more).items()}
    ordered = {model.title: baselines[model.title] for model in NULL_MODELS.values() if model.title in baselines}
    return replace(outcome, protocols={**outcome.protocols, protocol: replace(found, baselines=ordered)})


def _read(folder: Path, run: PlannedRun, in_channels: int, classes: int) -> Trained:
    parameters = None
    if run.architecture:
        # Not on the "meta" device, which needs no memory: some networks of segmentation_models_pytorch fail there.
        parameters = count_parameters(build_from_dict(run.architecture, in_channels, classes))
    if not (folder / "scores.json").exists():
        return Trained(run, folder, parameters, {}, [], 0.0)
    result = read_record(folder / "scores.json", ScoresRecord, "gravmap train")
    test: dict[str, Any] = {**(result.get("test") or {})}
    scored = test if test.get("pa") is not None else {}
    return Trained(run, folder, parameters, scored, _history(folder / "metrics.csv"), result.get("seconds", 0.0))


def _history(path: Path) -> list[dict[str, float | None]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [
            {name: float(value) if value else None for name, value in row.items() if name != "phase"}
            for row in csv.DictReader(stream)
        ]
