"""Score finished runs on the ground they were kept from, every native node once, and write what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.files import read_json, write_json
from gravmap.geology.areas import row_cell_areas_km2
from gravmap.geology.points import Points
from gravmap.learning.area import TEST, TUNE, Area
from gravmap.learning.baselines import distance_to_outcrop_km
from gravmap.learning.calibration import read_calibration, scales_key
from gravmap.learning.class_map import UNNAMED, class_map, reading_of
from gravmap.learning.comparison import block_numbers
from gravmap.learning.distance_bins import by_distance
from gravmap.learning.evaluation import scoring_scale
from gravmap.learning.importance import draw_offsets, permutation_importance, read_elsewhere
from gravmap.learning.metrics import confusion, scores
from gravmap.learning.null_comparison import FOREIGN, TITLES, ScoredNodes, against_nulls
from gravmap.learning.null_models import known_labels, left_out, null_maps
from gravmap.learning.score_figures import draw_confusion, draw_distance
from gravmap.learning.score_groups import setup_of
from gravmap.learning.target import IGNORE, to_target
from gravmap.mapping.scoring.boreholes import Boreholes, lay_points
from gravmap.mapping.scoring.run_ground import ground_of_run
from gravmap.progress import Progress, silent

FORMAT = 1
FILE, CONFUSION, DISTANCE = "evaluation.json", "confusion.png", "distance.png"
FOREIGN_FILE = "evaluation-foreign.npz"


@dataclass(frozen=True)
class EvaluateOptions:
    """What is scored, and how.

    Attributes
    ----------
    baselines : bool
        Also the null models, on the same nodes.
    points : Points, optional
        Boreholes, from :func:`gravmap.geology.points.read_points`.
    by_area : bool
        Count the ground of a node on the ellipsoid, in km², instead of the node; boreholes and intervals stay as they
        are.
    importance : bool
        Also what each field is worth to the network, measured on the tuning blocks.
    device : str
        Where the network runs.
    """

    baselines: bool = False
    points: Points | None = None
    by_area: bool = False
    importance: bool = False
    device: str = "cpu"


@dataclass(frozen=True)
class Evaluated:
    """A scored run.

    Attributes
    ----------
    record : dict
        What its ``evaluation.json`` holds.
    nodes : ScoredNodes
        Node by node, to compare runs and null models.
    """

    record: dict[str, Any]
    nodes: ScoredNodes


def finished_runs(runs: Path) -> list[Path]:
    """Folders of a workspace's runs that were trained to their end, by name."""
    return sorted(path.parent for path in runs.glob("*/scores.json") if (path.parent / "model.json").exists())


def evaluate_run(
    folder: Path, tiles: Path, options: EvaluateOptions | None = None, progress: Progress = silent
) -> Evaluated:
    """Score a run on the test blocks of its own fold.

    Writes ``evaluation.json``, ``confusion.png`` and ``distance.png`` into its folder, and ``evaluation.npz``: what the
    network said, so that it is asked once.

    Parameters
    ----------
    folder : Path
        The run.
    tiles : Path
        The tile set it was trained on.
    options : EvaluateOptions, optional
        By default the network alone, node by node.
    progress : Progress
        Told the windows done.

    Returns
    -------
    Evaluated
        Its record has `scores` and `confusion` (:func:`gravmap.learning.metrics.scores`), `distance`
        (:func:`gravmap.learning.distance_bins.by_distance`), `calibration`, and, where asked for, `baselines`,
        `gravity_adds` (:func:`gravmap.learning.null_comparison.against_nulls`), `points` and `importance`.

    Raises
    ------
    InputError
        The run is not finished, its tile set has changed or has other classes, its test blocks hold no labelled node,
        or no point can be scored.
    """
    options = options or EvaluateOptions()
    if not (folder / "scores.json").exists():
        raise InputError(
            f"The run {folder.name} is not finished: {folder / 'scores.json'} is missing.",
            f"`gravmap train --resume --name {folder.name}` goes on with it.",
        )
    model = read_json(folder / "model.json", "gravmap train")
    area = ground_of_run(model, tiles, folder.name)
    ground = _Ground.of(area, options.by_area, folder.name)
    holes = None if options.points is None else lay_points(options.points, area)
    wanted = ground.counted.copy()
    if holes is not None:
        wanted[holes.row, holes.column] = True
    named = class_map(folder, area, wanted, device=options.device, progress=progress)
    seed = int(model.get("seed", 0))
    nulls = None
    if options.baselines:
        foreign = read_elsewhere(area, draw_offsets(area, 1, seed)[0])
        nulls = null_maps(area, TEST, seed=seed) | {
            FOREIGN: class_map(folder, foreign, wanted, file=FOREIGN_FILE, device=options.device, progress=progress)
        }
    nodes = ground.nodes(named, nulls or {}, area)
    record = {
        "format": FORMAT,
        "run": folder.name,
        "model": model["model"],
        "seed": seed,
        "fold": int(model["split"].get("fold", 0)),
        "split": model["split"],
        "setup": setup_of(model),
        "model_sha256": model["weights_sha256"],
        "area_sha256": model["area_sha256"],
        "window_deg": scoring_scale(model["scales_deg"]),
        "counted_by": ground.total,
        **ground.score(named),
        "distance": ground.by_distance(named, nulls),
        "tune_fwiou": (model.get("scores", {}).get("tune") or {}).get("fwiou"),
        "calibration": _calibration(folder),
    }
    if nulls is not None:
        record["baselines"] = {name: ground.score(values)["scores"] for name, values in nulls.items()}
        record["baselines_left_out"] = left_out(area)
        record["gravity_adds"] = against_nulls([nodes])
    if holes is not None and options.points is not None:
        record["points"] = {
            "file": str(options.points.path),
            "class_field": options.points.field,
            **holes.account(),
            **_score_points(holes, ground, named, nulls),
        }
    if options.importance:
        rows = permutation_importance(reading_of(folder, options.device), area, TUNE, seed=seed, progress=progress)
        record["importance"] = [row.to_dict() for row in rows]
    write_json(folder / FILE, record)
    _draw(folder, record, ground)
    return Evaluated(record, nodes)


@dataclass(frozen=True)
class _Ground:
    """The nodes a run is scored on.

    Attributes
    ----------
    names : list of str
        Of the classes.
    truth : (ny, nx) int64
        Targets; IGNORE at all but the labelled nodes of the test blocks.
    distance_km : (ny, nx) float64
        To the nearest outcrop that training saw.
    km2 : (ny, nx) float64 or None
        Ground of a node; None where nodes count alike.
    """

    names: list[str]
    truth: NDArray[np.int64]
    distance_km: NDArray[np.float64]
    km2: NDArray[np.float64] | None

    @classmethod
    def of(cls, area: Area, by_area: bool, run: str) -> _Ground:
        labels, roles = area.node_truth()
        truth = np.where(roles == TEST, to_target(labels), IGNORE)
        if (truth == IGNORE).all():
            split = area.meta.get("split", {})
            raise InputError(
                f"The run {run} cannot be scored: no labelled node lies in the test blocks of fold"
                f" {split.get('fold', 0)} of the split {split.get('name', 'blocks')}.",
                "Train another --fold, or draw another split: `gravmap split --add blocks --name NAME`.",
            )
        distance = distance_to_outcrop_km(known_labels(area), area.node_lat, area.node_lon)
        names = [str(each["name"]) for each in area.classes]
        return cls(names, truth, distance, node_areas_km2(area) if by_area else None)

    @property
    def counted(self) -> NDArray[np.bool_]:
        return np.asarray(self.truth != IGNORE)

    @property
    def total(self) -> str:
        return "places" if self.km2 is None else "km2"

    def score(self, named: NDArray[np.uint8]) -> dict[str, Any]:
        """Scores and confusion matrix of a map."""
        truth = np.where(named == UNNAMED, IGNORE, self.truth)
        matrix = confusion(truth, to_target(named), len(self.names), self.km2)
        return {"scores": scores(matrix, self.names, self.total), "confusion": matrix.tolist()}

    def nodes(self, named: NDArray[np.uint8], nulls: Mapping[str, NDArray[np.uint8]], area: Area) -> ScoredNodes:
        """Node by node what is compared."""
        counted = self.counted & (named != UNNAMED)
        return ScoredNodes(
            self.truth[counted],
            to_target(named[counted]),
            {name: to_target(values[counted]) for name, values in nulls.items()},
            block_numbers(area)[counted],
        )

    def by_distance(
        self, named: NDArray[np.uint8], nulls: Mapping[str, NDArray[np.uint8]] | None
    ) -> list[dict[str, Any]]:
        """Scores by distance to outcrop; of null models the accuracy alone."""
        counted = self.counted & (named != UNNAMED)
        weight = None if self.km2 is None else self.km2[counted]

        def table(values: NDArray[np.uint8]) -> list[dict[str, Any]]:
            target = to_target(values[counted])
            return by_distance(self.truth[counted], target, self.distance_km[counted], self.names, weight, self.total)

        return _beside(table(named), None if nulls is None else {name: table(each) for name, each in nulls.items()})


def node_areas_km2(area: Area) -> NDArray[np.float64]:
    """Ground that each node of an area stands for, on the WGS 84 ellipsoid; (ny, nx) km²."""
    west, south, east, north = area.field_nodes_wsen
    rows, columns = area.field_valid.shape
    tall, wide = (north - south) / (rows - 1), (east - west) / (columns - 1)
    of_row = row_cell_areas_km2(south - tall / 2, north + tall / 2, rows, wide)
    return np.repeat(of_row[:, None], columns, axis=1)


def _beside(
    table: list[dict[str, Any]], nulls: Mapping[str, Sequence[Mapping[str, Any]]] | None
) -> list[dict[str, Any]]:
    """A table of the network with the accuracy of null models in the same bins."""
    if nulls is None:
        return table
    return [
        {**row, "baselines": {name: other[number]["pa"] for name, other in nulls.items()}}
        for number, row in enumerate(table)
    ]


def _score_points(
    holes: Boreholes,
    ground: _Ground,
    named: NDArray[np.uint8],
    nulls: Mapping[str, NDArray[np.uint8]] | None,
) -> dict[str, Any]:
    """Scores at boreholes, each counted once, and by their distance to outcrop."""
    at = holes.row, holes.column
    truth = np.where(named[at] == UNNAMED, IGNORE, to_target(holes.label))
    maps = {name: each[at] for name, each in (nulls or {}).items()}

    def score(values: NDArray[np.uint8]) -> dict[str, Any]:
        return scores(confusion(truth, to_target(values), len(ground.names)), ground.names)

    def table(values: NDArray[np.uint8]) -> list[dict[str, Any]]:
        return by_distance(truth, to_target(values), ground.distance_km[at], ground.names)

    found: dict[str, Any] = {"scores": score(named[at])}
    beside = None
    if nulls is not None:
        found["baselines"] = {name: score(each) for name, each in maps.items()}
        beside = {name: table(each) for name, each in maps.items()}
    return {**found, "distance": _beside(table(named[at]), beside)}


def _calibration(folder: Path) -> dict[str, Any] | None:
    """Temperature and reliability on the test blocks, from ``calibration.json``; None where it was not measured."""
    found = read_calibration(folder)
    if found is None or not found.record.get("test", {}).get("nodes"):
        return None
    test, scales = found.record["test"], found.record["default_scales"]
    measures = ("ece", "classwise_ece", "nll", "brier")
    return {
        "scales": scales,
        "temperature": found.temperatures[scales_key(scales)],
        "nodes": test["nodes"],
        **{when: {key: test[when][key] for key in measures} for when in ("before", "after")},
    }


def _draw(folder: Path, record: Mapping[str, Any], ground: _Ground) -> None:
    unit = "nodes" if ground.km2 is None else "km²"
    split = record["split"]
    where = f"fold {record['fold']} of the split {split.get('name', 'blocks')}"
    pa, fwiou = (100 * record["scores"][key] for key in ("pa", "fwiou"))
    title = f"{folder.name}: {record['model']}, {where}\naccuracy {pa:.1f} %, FWIoU {fwiou:.1f} %"
    draw_confusion(np.array(record["confusion"]), ground.names, folder / CONFUSION, title, unit)
    table = [
        {**row, "baselines": {TITLES[name]: value for name, value in row.get("baselines", {}).items()}}
        for row in record["distance"]
    ]
    draw_distance(table, folder / DISTANCE, title, f"network ({record['model']})", unit)
