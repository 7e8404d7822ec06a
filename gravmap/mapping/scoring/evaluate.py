"""Score finished runs on their test blocks, every native node once, and write the scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.files import sha256, write_checksummed_json
from gravmap.geology.points import Points
from gravmap.gravity.topography import topography_at_nodes
from gravmap.lattice import COVER, TEST, TUNE
from gravmap.learning.calibration.temperature import read_calibration, window_sizes_key
from gravmap.learning.calibration.thickness import ThicknessInterval, thickness_scores
from gravmap.learning.data.dataset import IGNORE, to_target
from gravmap.learning.evaluation.comparison import SHIFTED_INPUT, TITLES, ScoredNodes, compare_with_null_models
from gravmap.learning.evaluation.figures import draw_confusion, draw_distance
from gravmap.learning.evaluation.held_out import node_logits, scoring_scale
from gravmap.learning.evaluation.importance import draw_offsets, permutation_importance, shift_input
from gravmap.learning.evaluation.metrics import confusion, scores, scores_by_distance
from gravmap.learning.evaluation.node_predictor import FILE as PREDICTED
from gravmap.learning.evaluation.node_predictor import UNLABELLED, load_node_predictor, predict_class_map
from gravmap.learning.evaluation.null_models import labelled_mask, null_maps, unavailable_null_models
from gravmap.learning.evaluation.run_groups import shared_settings
from gravmap.learning.training.checkpoint import load_model
from gravmap.mapping.compatibility import check_fields
from gravmap.mapping.outcrop_file import FieldsWithOutcrop
from gravmap.mapping.scoring.boreholes import NO_THICKNESS, Boreholes, depth_points, lay_points
from gravmap.mapping.scoring.evaluation_nodes import EvaluationNodes, with_nulls_beside
from gravmap.mapping.scoring.finished_run import FinishedRun, dataset_of_network
from gravmap.mapping.scoring.hidden_outcrop import class_of_outputs
from gravmap.network.outcrop_start import AllOutputs, has_thickness
from gravmap.progress import Progress, silent
from gravmap.records import read_model
from gravmap.tiling.training_arrays import read_index

FORMAT = 1
FILE, CONFUSION, DISTANCE = "evaluation.json", "confusion.png", "distance.png"
FOREIGN_FILE = "evaluation-foreign.npz"
OUTPUTS = (FILE, CONFUSION, DISTANCE, PREDICTED, FOREIGN_FILE)
NO_TUNING = "no bedrock is mapped in its tuning blocks"


@dataclass(frozen=True)
class EvaluateOptions:
    """What is scored, and how.

    Attributes
    ----------
    baselines : bool
        Also the null models, on the same nodes.
    topography : Path, optional
        A grid of heights over the region, for the null model that reads nothing else.
    points : Points, optional
        Boreholes, from :func:`gravmap.geology.points.read_points`.
    by_area : bool
        Count the area of a node on the ellipsoid, in km², instead of the node; boreholes and intervals stay as they
        are.
    importance : bool
        Also the permutation importance of each field, measured on the tuning blocks.
    device : str
        Where the network runs.
    null_models : tuple of str, optional
        With `baselines`: keys of :data:`gravmap.learning.evaluation.null_models.NULL_MODELS`; by default all
        that can be made.
    pictures : bool
        Draw ``confusion.png`` and ``distance.png``.
    """

    baselines: bool = False
    topography: Path | None = None
    points: Points | None = None
    by_area: bool = False
    importance: bool = False
    device: str = "cpu"
    null_models: tuple[str, ...] | None = None
    pictures: bool = True


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


def evaluate_run(
    folder: Path, tiles: Path, options: EvaluateOptions | None = None, progress: Progress = silent
) -> Evaluated:
    """Score a run on the test blocks of its own fold.

    Writes ``evaluation.json``, ``confusion.png`` and ``distance.png`` into its folder, and ``evaluation.npz``: the
    classes that the network gave, so that it runs once.

    Parameters
    ----------
    folder : Path
        The run.
    tiles : Path
        The tile set it was trained on.
    options : EvaluateOptions, optional
        By default the network alone, node by node.
    progress : Progress
        Called after each window.

    Returns
    -------
    Evaluated
        Its record has `scores` and `confusion` (:func:`gravmap.learning.evaluation.metrics.scores`), `distance`
        (:func:`gravmap.learning.evaluation.distance_bins.by_distance`), `calibration`, and, depending on the
        options, `baselines`, `gravity_adds` (:func:`gravmap.learning.evaluation.comparison.against_nulls`), `points`
        and `importance`.

    Raises
    ------
    InputError
        The run is not finished, its tile set has changed or has other classes, its test blocks hold no labelled node,
        no point can be scored, or the grid of heights cannot be read or does not cover the region.
    """
    options = options or EvaluateOptions()
    run = FinishedRun.open(folder, tiles, options.points, options.by_area)
    model, dataset, nodes, boreholes, seed = run.model, run.dataset, run.nodes, run.boreholes, run.seed
    topography = None
    if options.topography is not None:
        topography = topography_at_nodes(options.topography, dataset.node_lat, dataset.node_lon)
    wanted = run.wanted
    named = predict_class_map(folder, dataset, wanted, device=options.device, progress=progress)
    nulls = None
    if options.baselines:
        foreign = shift_input(dataset, draw_offsets(dataset, 1, seed)[0])
        nulls = null_maps(dataset, TEST, seed=seed, which=options.null_models, topography=topography) | {
            SHIFTED_INPUT: predict_class_map(
                folder, foreign, wanted, file=FOREIGN_FILE, device=options.device, progress=progress
            )
        }
    compared = nodes.compared(named, nulls or {}, dataset)
    record = {
        "format": FORMAT,
        "run": folder.name,
        "model": model["model"],
        "seed": seed,
        "fold": run.fold,
        "split": model["split"],
        "setup": shared_settings(model),
        "model_sha256": model["weights_sha256"],
        "area_sha256": model["area_sha256"],
        "window_deg": scoring_scale(model["scales_deg"]),
        "counted_by": nodes.total,
        **nodes.score(named),
        "distance": nodes.scores_by_distance(named, nulls),
        "tune_fwiou": (model.get("scores", {}).get("tune") or {}).get("fwiou"),
        "calibration": _calibration(folder),
    }
    if nulls is not None:
        record["baselines"] = {name: nodes.score(values)["scores"] for name, values in nulls.items()}
        record["baselines_left_out"] = unavailable_null_models(dataset, topography)
        if topography is not None:
            unknown = int(np.isnan(topography[nodes.counted]).sum())
            record["topography"] = {"file": str(options.topography), "unknown_nodes": unknown}
        record["gravity_adds"] = compare_with_null_models([compared])
    if options.points is not None:
        record["points"] = {"file": str(options.points.path)}
        if boreholes is not None:
            record["points"] |= {
                "class_field": options.points.field,
                "class_reading": boreholes.reading,
                **boreholes.account(),
                **_score_points(boreholes, nodes, named, nulls),
            }
        if options.points.depth_m is not None:  # a network of a region has no thickness: it is not known there
            record["points"]["depth"] = {"field": options.points.depth_field, "left_out": NO_THICKNESS}
    if options.importance and not labelled_mask(dataset, TUNE).any():
        record["importance_left_out"] = NO_TUNING
    elif options.importance:
        rows = permutation_importance(
            load_node_predictor(folder, options.device), dataset, TUNE, seed=seed, progress=progress
        )
        record["importance"] = [row.to_dict() for row in rows]
    if options.pictures:
        _draw(folder, record, nodes)
    written = (PREDICTED, *((CONFUSION, DISTANCE) if options.pictures else ()))
    record["files"] = {name: sha256(folder / name) for name in written if (folder / name).exists()}
    return Evaluated(write_checksummed_json(folder / FILE, record), compared)


def evaluate_at_points(
    folder: Path, tiles: Path, options: EvaluateOptions, progress: Progress = silent
) -> dict[str, Any]:
    """Score a network trained on simulated crusts at boreholes under the mapped cover of a region.

    No part of the region was held out from it, so there are no test blocks: boreholes are all that can be scored. Its
    outcrop context is all that is mapped, as in a map. Nothing is written.

    Parameters
    ----------
    folder : Path
        The run.
    tiles : Path
        The tile set of the region.
    options : EvaluateOptions
        With `points`, which have a class or a depth.
    progress : Progress
        Called after each window.

    Returns
    -------
    dict
        ``run``, ``model``, ``window_deg`` and ``points``: ``file``; with classes those of `evaluate_run`, without null
        models, and ``not_under_cover``; with depths ``depth``: ``field``, ``counts`` and the scores of
        :func:`gravmap.learning.calibration.thickness.thickness_scores`, or ``left_out``, why there are none.

    Raises
    ------
    InputError
        The region does not fit the network, or no point can be scored.
    """
    points = options.points
    assert points is not None
    network, spec = load_model(folder, options.device)
    model = read_model(folder)
    dataset = dataset_of_network(model, tiles, folder.name)
    with FieldsWithOutcrop(tiles / read_index(tiles)["sources"]["fields"]["path"]) as fields:
        # Residuals that the file lacks are read from the one beside it.
        check_fields(fields, spec, [name for name in spec.input.measured if name not in fields.dataset])
    surface, _ = dataset.node_truth()
    holes = lay_points(points, dataset) if points.field else None
    thickness = has_thickness(network)
    depths = depth_points(points, dataset, surface) if points.depth_m is not None and thickness else None
    wanted = np.zeros(surface.shape, np.bool_)
    found: dict[str, Any] = {"file": str(points.path)}
    if holes is not None:
        covered = surface[holes.row, holes.column] == COVER
        found |= {
            "class_field": points.field,
            "class_reading": holes.reading,
            **holes.account(),
            "not_under_cover": int((~covered).sum()),
        }
        found["scored"] = int(covered.sum())
        holes = replace(holes, row=holes.row[covered], column=holes.column[covered], label=holes.label[covered])
        wanted[holes.row, holes.column] = True
    if depths is not None:
        wanted[depths.row, depths.column] = True
    scale = scoring_scale(spec.scales_deg)
    record = {"run": folder.name, "model": spec.model, "window_deg": scale, "points": found}
    if points.depth_m is not None and not thickness:
        found["depth"] = {"field": points.depth_field, "left_out": NO_THICKNESS}
    if not wanted.any():
        return record
    outputs = node_logits(
        AllOutputs(network), dataset, wanted, inputs=spec.input, tile_size_px=spec.tile_size_px, scale_deg=scale,
        device=options.device, progress=progress,
    )  # fmt: skip
    calibration, classes = read_calibration(folder), len(spec.classes)
    if holes is not None and len(holes.label):
        named = to_target(class_of_outputs(outputs, dataset, spec, calibration)[holes.row, holes.column])
        names = [str(each["name"]) for each in spec.classes]
        found["scores"] = scores(confusion(to_target(holes.label), named, classes), names)
    if depths is not None:
        interval = ThicknessInterval() if calibration is None else calibration.thickness
        quantiles_km = interval.apply(outputs[classes:, depths.row, depths.column].T)
        found["depth"] = {
            "field": points.depth_field,
            "counts": depths.counts,
            **thickness_scores(quantiles_km, depths.depth_km)["all"],
        }
    return record


def _score_points(
    boreholes: Boreholes,
    nodes: EvaluationNodes,
    named: NDArray[np.uint8],
    nulls: Mapping[str, NDArray[np.uint8]] | None,
) -> dict[str, Any]:
    """Scores at boreholes, each counted once, and by their distance to outcrop."""
    at = boreholes.row, boreholes.column
    truth = np.where(named[at] == UNLABELLED, IGNORE, to_target(boreholes.label))
    maps = {name: each[at] for name, each in (nulls or {}).items()}

    def score(values: NDArray[np.uint8]) -> dict[str, Any]:
        return scores(confusion(truth, to_target(values), len(nodes.names)), nodes.names)

    def table(values: NDArray[np.uint8]) -> list[dict[str, Any]]:
        return scores_by_distance(truth, to_target(values), nodes.distance_km[at], nodes.names)

    found: dict[str, Any] = {"scores": score(named[at])}
    beside = None
    if nulls is not None:
        found["baselines"] = {name: score(each) for name, each in maps.items()}
        beside = {name: table(each) for name, each in maps.items()}
    return {**found, "distance": with_nulls_beside(table(named[at]), beside)}


def _calibration(folder: Path) -> dict[str, Any] | None:
    """Temperature and reliability on the test blocks, from ``calibration.json``; None where it was not measured."""
    found = read_calibration(folder)
    if found is None or not found.record.get("test", {}).get("nodes"):
        return None
    test, scales = found.record["test"], found.record["default_scales"]
    measures = ("ece", "classwise_ece", "nll", "brier")
    return {
        "scales": scales,
        "temperature": found.temperatures[window_sizes_key(scales)],
        "by_distance": found.record.get("by_distance", {}).get(window_sizes_key(scales)),
        "nodes": test["nodes"],
        **{when: {key: test[when][key] for key in measures} for when in ("before", "after")},
    }


def _draw(folder: Path, record: Mapping[str, Any], nodes: EvaluationNodes) -> None:
    unit = "nodes" if nodes.km2 is None else "km²"
    split = record["split"]
    where = f"fold {record['fold']} of the split {split.get('name', 'blocks')}"
    pa, fwiou = (100 * record["scores"][key] for key in ("pa", "fwiou"))
    title = f"{folder.name}: {record['model']}, {where}\naccuracy {pa:.1f} %, FWIoU {fwiou:.1f} %"
    draw_confusion(np.array(record["confusion"]), nodes.names, folder / CONFUSION, title, unit)
    table = [
        {**row, "baselines": {TITLES[name]: value for name, value in row.get("baselines", {}).items()}}
        for row in record["distance"]
    ]
    draw_distance(table, folder / DISTANCE, title, f"network ({record['model']})", unit)
