"""The content of a report, read from the files of a map, its provenance and its training runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window
from typing_extensions import TypedDict

from gravmap.errors import InputError
from gravmap.learning.calibration.temperature import read_calibration
from gravmap.learning.data.outcrop_context import CONTEXT, in_short
from gravmap.learning.data.splits import CRUSTS
from gravmap.learning.evaluation.comparison import TITLES
from gravmap.learning.evaluation.null_models import null_scores
from gravmap.mapping.files.projection import cell_areas_km2
from gravmap.mapping.layers import NODATA, OUTCROP, UNDER_COVER, UNMAPPED
from gravmap.mapping.page.sheet import Sheet, read_sheet
from gravmap.mapping.page.words import region_title
from gravmap.mapping.record.provenance import Provenance
from gravmap.mapping.scoring.finished_run import dataset_of_run
from gravmap.records import ModelRecord, ScoresRecord, read_model, read_record, record

_STRIP_ROWS = 512


@record
class Evaluation(TypedDict, total=False):
    """What is read of ``evaluation.json``."""

    model_sha256: str
    counted_by: str
    baselines: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class RunFacts:
    """A training run, read from its folder.

    Attributes
    ----------
    name : str
        Name of the folder.
    model : dict
        Content of ``model.json``.
    test : dict
        Scores on the test split; empty without scores.
    calibration : dict
        Content of ``calibration.json`` if it belongs to these weights, else empty.
    used : bool
        Whether the map was made with it; other runs are listed for comparison.
    evaluated : dict of str to dict
        Scores of the null models in its ``evaluation.json``, by key; empty without them.
    not_evaluated : str
        Reason why an ``evaluation.json`` is left out.
    """

    name: str
    model: ModelRecord
    test: dict[str, Any]
    calibration: dict[str, Any]
    used: bool
    evaluated: dict[str, dict[str, Any]] = field(default_factory=dict)
    not_evaluated: str = ""

    @property
    def split(self) -> dict[str, Any]:
        """Record of the split."""
        return dict(self.model.get("split", {}))

    @property
    def kind(self) -> str:
        """``blocks``, ``strict`` or ``random``; ``crusts`` if it was trained and scored on simulated crusts."""
        return str(self.split.get("kind", self.split.get("name", "")))

    @property
    def trained_on(self) -> dict[str, Any]:
        """Record of the simulated crusts it was trained on; empty if it was trained on a region."""
        return dict(self.model.get("taught_on") or {})

    @property
    def simulated(self) -> bool:
        """Whether it was trained and scored on simulated crusts only."""
        return trained_on_crusts(self.trained_on)

    @property
    def pretrained_on(self) -> dict[str, Any]:
        """Record of the training data of the run that it was fine-tuned from; empty without one."""
        init = self.model.get("recipe", {}).get("init")
        return {**init.get("taught_on", {})} if init else {}

    @property
    def channels(self) -> list[str]:
        """Input channels in order; those of outcrop context as one."""
        return in_short(str(each.get("field") or each.get("kind")) for each in self.model.get("inputs", []))


def trained_on_crusts(trained_on: Mapping[str, Any]) -> bool:
    """Whether a model's ``taught_on`` names simulated crusts."""
    return trained_on.get("on") == CRUSTS


@dataclass(frozen=True)
class Protocol:
    """Runs that were scored under one split of one region.

    Attributes
    ----------
    split : dict
        Name, kind, fold, folds, block_deg, buffer_deg, leak ...
    runs : list of RunFacts
        Runs trained and scored under it.
    baselines : dict of str to dict
        Scores of the null models on the same nodes, by title; after `gravmap evaluate --baselines` all of its.
    no_baselines : str
        Reason why there are no baselines, or why those of an evaluation are left out.
    """

    split: dict[str, Any]
    runs: list[RunFacts]
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)
    no_baselines: str = ""

    @property
    def kind(self) -> str:
        """``blocks``, ``strict`` or ``random``."""
        return self.runs[0].kind

    @property
    def leak(self) -> float | None:
        """Fraction of the held-out bedrock whose labels training sees; None if it was not measured."""
        by_fold = self.split.get("leak_of_fold")
        if isinstance(by_fold, list):
            return float(by_fold[int(self.split.get("fold", 0))])
        found = self.split.get("leak")
        return None if found is None else float(found)


@dataclass(frozen=True)
class ClassAreas:
    """Areas on the WGS 84 ellipsoid.

    Attributes
    ----------
    km2 : (256, 256) float64
        Square kilometres by class index and evidence value; all in column 255 if the map has no evidence.
    has_evidence : bool
        Whether the map has evidence.
    """

    km2: NDArray[np.float64]
    has_evidence: bool

    def of_class(self, index: int, *evidence: int) -> float:
        """Area of a class, in total or for the given evidence values."""
        row = self.km2[index]
        return float(row[list(evidence)].sum() if evidence else row.sum())

    def of_evidence(self, *evidence: int) -> float:
        """Area of all classes, in total or for the given evidence values."""
        classes = self.km2[:NODATA]
        return float(classes[:, list(evidence)].sum() if evidence else classes.sum())

    @property
    def mapped_km2(self) -> float:
        """Area of outcrop and of cover, of which percentages of cover and of evidence are parts."""
        return self.of_evidence(OUTCROP, *UNDER_COVER) if self.has_evidence else self.of_evidence()

    @property
    def covered(self) -> float | None:
        """Fraction of the mapped area that is under cover; None without evidence or area."""
        whole = self.mapped_km2
        return self.of_evidence(*UNDER_COVER) / whole if self.has_evidence and whole else None

    @property
    def unmapped_km2(self) -> float:
        """Area that no geological map covers, with or without a class."""
        return float(self.km2[:, UNMAPPED].sum())

    @property
    def nodata_km2(self) -> float:
        """Area without a class, but for unmapped ground that is left blank."""
        return float(self.km2[NODATA].sum() - self.km2[NODATA, UNMAPPED])


@dataclass(frozen=True)
class Facts:
    """The content of a report.

    Attributes
    ----------
    title : str
        Name of the region.
    sheet : Sheet
        The layers of the map at reduced resolution.
    areas : ClassAreas
        Square kilometres by class and evidence.
    record : dict
        Content of ``provenance.json``; empty if it is missing.
    runs : list of RunFacts
        Training runs; those that the map was made with come first.
    protocols : list of Protocol
        Scores by split.
    """

    title: str
    sheet: Sheet
    areas: ClassAreas
    record: dict[str, Any]
    runs: list[RunFacts]
    protocols: list[Protocol]

    @property
    def without_geology(self) -> bool:
        """Whether the map was made without a geological map, so that outcrop and cover are not known."""
        inputs = self.record.get("inputs", {})
        return bool(inputs) and "labels" not in inputs and self.sheet.everywhere

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the prediction."""
        found = self.record.get("settings", self.record.get("configuration", {}))
        return dict(found) if isinstance(found, dict) else {}

    @property
    def used(self) -> list[RunFacts]:
        """Runs that the map was made with."""
        return [run for run in self.runs if run.used]

    @property
    def simulated(self) -> list[RunFacts]:
        """Runs that the map was made with and that were trained on simulated crusts."""
        return [run for run in self.used if run.simulated]

    @property
    def held_out(self) -> Protocol | None:
        """Scores on held-out blocks of a run that the map was made with; random windows do not count as held out."""
        found = [each for each in self.protocols if each.kind != "random" and any(run.used for run in each.runs)]
        return found[0] if found else None


def gather(
    folder: Path, *, runs: Sequence[Path], tiles: Path | None, compared: Sequence[Path] = (), title: str = ""
) -> Facts:
    """Read the content of a report from the files of a map and its training runs.

    Parameters
    ----------
    folder : Path
        A finished map: ``lithology.tif`` and, if available, ``evidence.tif``, ``uncertainty.tif``,
        ``cover_thickness.tif`` and ``provenance.json``. Each missing part is replaced by a line that names it.
    runs : sequence of Path
        Folders of the runs that the map was made with.
    tiles : Path, optional
        The tile set of the runs, to score baselines on the same nodes.
    compared : sequence of Path
        Further runs whose scores are shown for comparison, such as one trained under the paper's random split.
    title : str
        Name of the region; by default that in provenance.json, or the name of the folder.

    Raises
    ------
    InputError
        ``lithology.tif``, or ``model.json`` of a run, is missing or damaged.
    """
    found = [read_run(run, used=True) for run in runs] + [read_run(run, used=False) for run in compared]
    provenance = folder / "provenance.json"
    record: dict[str, Any] = {**read_record(provenance, Provenance, "gravmap predict")} if provenance.exists() else {}
    name = title or str(record.get("settings", {}).get("region") or folder.resolve().name)
    return Facts(
        region_title(name), read_sheet(folder), measure_areas(folder), record, found, protocols_of(found, tiles)
    )


def read_run(folder: Path, used: bool) -> RunFacts:
    """Read a training run from its folder.

    Raises
    ------
    InputError
        ``model.json`` is missing or damaged.
    """
    model = read_model(folder)
    scored = folder / "scores.json"
    found = read_record(scored, ScoresRecord, "gravmap train").get("test") if scored.exists() else None
    test: dict[str, Any] = {**(found or {})}
    calibration = read_calibration(folder)
    return RunFacts(
        folder.name,
        model,
        test if test.get("pa") is not None else {},
        {} if calibration is None else dict(calibration.record),
        used,
        *_evaluated(folder, model),
    )


def _evaluated(folder: Path, model: ModelRecord) -> tuple[dict[str, dict[str, Any]], str]:
    """Scores of the null models that `gravmap evaluate --baselines` left with a run; or why they are not used."""
    path = folder / "evaluation.json"
    if not path.exists():
        return {}, ""
    try:
        found = read_record(path, Evaluation, "gravmap evaluate")
    except InputError as error:
        return {}, error.message
    if found.get("model_sha256") != model.get("weights_sha256"):
        return {}, f"evaluation.json of {folder.name} was made with other weights than the network has now."
    if found.get("counted_by") != "places":
        return {}, f"evaluation.json of {folder.name} counts areas, so it is left out."
    return found.get("baselines", {}), ""


def protocols_of(runs: Sequence[RunFacts], tiles: Path | None) -> list[Protocol]:
    """Group scored runs by the split they were scored on, and score baselines on the same nodes.

    Parameters
    ----------
    runs : sequence of RunFacts
        Runs; those without scores and those scored on simulated crusts are left out.
    tiles : Path, optional
        The tile set they were trained on; without it, or if it has changed, there are no baselines.
    """
    by_split: dict[str, list[RunFacts]] = {}
    for run in runs:
        if run.test and not run.simulated:
            by_split.setdefault(json.dumps(run.split, sort_keys=True), []).append(run)
    return [Protocol(group[0].split, group, *_baselines(group[0], tiles)) for group in by_split.values()]


def _baselines(run: RunFacts, tiles: Path | None) -> tuple[dict[str, dict[str, Any]], str]:
    """All null models where `gravmap evaluate --baselines` scored them beside the network, else the quick ones."""
    if run.evaluated:
        return {TITLES[key]: row for key, row in run.evaluated.items() if key in TITLES}, ""
    if tiles is None:
        why = "The tile set was not found, so baselines were not scored beside the network."
        return {}, f"{why} {run.not_evaluated}".strip()
    try:
        dataset = dataset_of_run(run.model, tiles)
        return {TITLES[key]: row for key, row in null_scores(dataset).items()}, run.not_evaluated
    except InputError as error:
        return {}, f"Baselines were not scored: {error.message} {run.not_evaluated}".strip()


def measure_areas(folder: Path) -> ClassAreas:
    """Sum cell areas of a map by class (``lithology.tif``) and evidence (``evidence.tif``), a strip of rows at a time.

    Parameters
    ----------
    folder : Path
        The finished map; ``evidence.tif`` has the same cells, or is missing.
    """
    evidence_path = folder / "evidence.tif"
    km2 = np.zeros(256 * 256)
    with rasterio.open(folder / "lithology.tif") as classes:
        evidence = rasterio.open(evidence_path) if evidence_path.exists() else None
        try:
            for row in range(0, classes.height, _STRIP_ROWS):
                window = Window(0, row, classes.width, min(_STRIP_ROWS, classes.height - row))
                values = classes.read(1, window=window).astype(np.int64)
                kind = NODATA if evidence is None else evidence.read(1, window=window).astype(np.int64)
                area = np.broadcast_to(cell_areas_km2(classes.crs, classes.transform, window), values.shape)
                km2 += np.bincount((values * 256 + kind).ravel(), weights=area.ravel(), minlength=km2.size)
        finally:
            if evidence is not None:
                evidence.close()
    return ClassAreas(km2.reshape(256, 256), evidence is not None)


def field_words(name: str) -> str:
    """Description of a field, for text."""
    if name.startswith("residual_"):
        height = name.removeprefix("residual_")
        if height.endswith("km"):
            height = height.removesuffix("km") + " km"
        return f"residual gravity: Bouguer less its upward continuation by {height}"
    known = {"bouguer": "Bouguer gravity", CONTEXT: "the outcrop mapped around"}
    return known.get(name, name.replace("_", " "))
