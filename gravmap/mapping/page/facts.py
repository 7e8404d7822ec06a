"""What a report says, gathered from the map's files, its record and the runs behind it; nothing is made up here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gravmap.errors import InputError
from gravmap.files import read_json
from gravmap.learning.calibration.temperature import read_calibration
from gravmap.learning.data.outcrop_context import in_short
from gravmap.learning.evaluation.null_models import NULL_MODELS, null_scores
from gravmap.learning.taught import on_crusts
from gravmap.mapping.page.ground import Ground
from gravmap.mapping.page.sheet import Sheet
from gravmap.mapping.scoring.finished_run import dataset_of_run


@dataclass(frozen=True)
class RunFacts:
    """A training run as its folder tells it.

    Attributes
    ----------
    name : str
        Of the folder.
    model : dict
        ``model.json``.
    test : dict
        Scores on the ground kept for the last; empty where there are none.
    calibration : dict
        ``calibration.json`` where it belongs to these weights, else empty.
    used : bool
        Whether the map was made with it; others stand beside it for comparison.
    """

    name: str
    model: dict[str, Any]
    test: dict[str, Any]
    calibration: dict[str, Any]
    used: bool

    @property
    def split(self) -> dict[str, Any]:
        """What was held out."""
        return dict(self.model.get("split", {}))

    @property
    def kind(self) -> str:
        """``blocks``, ``strict`` or ``random``; ``crusts`` where it was taught and scored on these."""
        return str(self.split.get("kind", self.split.get("name", "")))

    @property
    def taught_on(self) -> dict[str, Any]:
        """What it was taught on, where that is no region: simulated crusts."""
        return dict(self.model.get("taught_on") or {})

    @property
    def simulated(self) -> bool:
        """Whether it was taught, and scored, on simulated crusts alone."""
        return on_crusts(self.taught_on)

    @property
    def begun_on(self) -> dict[str, Any]:
        """What the run whose weights it began with was taught on; empty without such."""
        init = self.model.get("recipe", {}).get("init") or {}
        return dict(init.get("taught_on") or {})

    @property
    def channels(self) -> list[str]:
        """Fields that the network reads, in its own order; mapped outcrop in one word."""
        return in_short(str(each.get("field") or each.get("kind")) for each in self.model.get("inputs", []))


@dataclass(frozen=True)
class Protocol:
    """Runs that were scored in one way, on one piece of ground.

    Attributes
    ----------
    split : dict
        Name, kind, fold, folds, block_deg, buffer_deg, leak ...
    runs : list of RunFacts
        Trained and scored under it.
    nulls : dict of str to dict
        Null model to scores on the same ground.
    no_nulls : str
        Why there are none; empty where there are.
    """

    split: dict[str, Any]
    runs: list[RunFacts]
    nulls: dict[str, dict[str, Any]] = field(default_factory=dict)
    no_nulls: str = ""

    @property
    def kind(self) -> str:
        """``blocks``, ``strict`` or ``random``."""
        return self.runs[0].kind


@dataclass(frozen=True)
class Facts:
    """All that a page is written from.

    Attributes
    ----------
    title : str
        The region's name.
    sheet : Sheet
        The layers, small enough to draw.
    ground : Ground
        Square kilometres by class and evidence.
    record : dict
        ``provenance.json``; empty where it is missing.
    runs : list of RunFacts
        Those the map was made with first.
    protocols : list of Protocol
        Scores, by how they were taken.
    """

    title: str
    sheet: Sheet
    ground: Ground
    record: dict[str, Any]
    runs: list[RunFacts]
    protocols: list[Protocol]

    @property
    def settings(self) -> dict[str, Any]:
        """What was chosen when the map was made."""
        found = self.record.get("settings", self.record.get("configuration", {}))
        return dict(found) if isinstance(found, dict) else {}

    @property
    def simulated(self) -> list[RunFacts]:
        """Networks behind this map that were taught on simulated crusts."""
        return [run for run in self.runs if run.used and run.simulated]

    @property
    def honest(self) -> Protocol | None:
        """The scores that say something of ground never seen: those on held-out blocks, of a run behind this map."""
        held = [each for each in self.protocols if each.kind != "random" and any(run.used for run in each.runs)]
        return held[0] if held else None


def read_run(folder: Path, used: bool) -> RunFacts:
    """Read what a run's folder says.

    Raises
    ------
    InputError
        ``model.json`` is missing or damaged.
    """
    model = read_json(folder / "model.json", "gravmap train")
    scored = folder / "scores.json"
    test = read_json(scored, "gravmap train").get("test", {}) if scored.exists() else {}
    found = read_calibration(folder)
    return RunFacts(folder.name, model, test if test.get("pa") is not None else {}, _plain(found), used)


def _plain(calibration: Any) -> dict[str, Any]:
    return {} if calibration is None else dict(calibration.record)


def protocols_of(runs: Sequence[RunFacts], tiles: Path | None) -> list[Protocol]:
    """Sort scored runs by the ground they were scored on, and score null models on the same ground.

    Parameters
    ----------
    runs : sequence of RunFacts
        Those without scores are left out, and those scored on simulated crusts, which are nobody's ground.
    tiles : Path, optional
        The tile set they were trained on; without it, or where it has changed, there are no null models.
    """
    sorted_runs: dict[str, list[RunFacts]] = {}
    for run in runs:
        if run.test and not run.simulated:
            sorted_runs.setdefault(json.dumps(run.split, sort_keys=True), []).append(run)
    return [Protocol(group[0].split, group, *_nulls(group[0], tiles)) for group in sorted_runs.values()]


def _nulls(run: RunFacts, tiles: Path | None) -> tuple[dict[str, dict[str, Any]], str]:
    if tiles is None:
        return {}, "The tile set is not at hand, so null models were not scored beside the network."
    try:
        area = dataset_of_run(run.model, tiles)
        return {NULL_MODELS[key].title: row for key, row in null_scores(area).items()}, ""
    except InputError as error:
        return {}, f"Null models were not scored: {error.message}"
