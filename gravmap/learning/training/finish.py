"""The final evaluation of a run: scores on the test blocks, calibration and area of applicability."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.files import json_text, sha256, write_text
from gravmap.lattice import TEST, TUNE
from gravmap.learning.calibration.applicability import fit_area_of_applicability, write_area_of_applicability
from gravmap.learning.calibration.by_distance import DistanceTemperature
from gravmap.learning.calibration.class_offsets import fit_class_offsets
from gravmap.learning.calibration.reliability import draw_reliability
from gravmap.learning.calibration.temperature import Calibration, calibrate, window_sizes_key, write_calibration
from gravmap.learning.calibration.thickness import fit_thickness_interval, thickness_scores
from gravmap.learning.evaluation.held_out import HeldOutPredictions, default_scales, scoring_scale
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.learning.evaluation.under_cover import Strata, held_out_strata, scores_under_cover, with_other_gravity
from gravmap.learning.evaluation.window_scores import score_windows
from gravmap.learning.training.checkpoint import load_model, record_files, save_model
from gravmap.learning.training.config import TrainConfig
from gravmap.learning.training.curves import draw_curves
from gravmap.learning.training.scorer import Scorer
from gravmap.learning.training.state import TrainingState
from gravmap.network.precision import scoring_precision
from gravmap.progress import Progress, silent

log = logging.getLogger(__name__)

MEASURED = ("calibration.json", "reach.safetensors", "metrics.csv", "curves.png", "reliability.png")
"""Files of a complete run whose checksums are recorded in model.json, beside that of scores.json."""

Kilometres = NDArray[np.float64]


def finish(
    scorer: Scorer,
    state: TrainingState,
    config: TrainConfig,
    run_dir: Path,
    progress: Progress = silent,
    *,
    pictures: bool = True,
) -> dict[str, Any]:
    """Score the best weights on the test blocks, once, and write the results.

    Writes the model with its scores, `curves.png`, `calibration.json`, `reliability.png`, `reach.safetensors` and, last
    of all, `scores.json`, whose presence marks a complete run.

    Parameters
    ----------
    scorer : Scorer
        Of the run, after its last epoch; every process calls this function.
    state : TrainingState
        History and best epoch.
    config : TrainConfig
        Configuration of the run.
    run_dir : Path
        Folder of the run.
    progress : Progress
        Called with the windows predicted on held-out blocks.
    pictures : bool
        Draw `curves.png` and `reliability.png`.

    Returns
    -------
    dict
        The content of `scores.json`.
    """
    data, group = scorer.data, scorer.group
    group.broadcast(None)  # wait until the first process has written the model
    network, spec = load_model(run_dir, group.device)
    scorer.network.load_state_dict(network.state_dict())

    windows = scorer.final_windows
    progress(0, windows, "predicting held-out blocks with the best weights")

    def report(done: int, total: int, note: str = "") -> None:
        progress(done, windows, f"predicting held-out blocks with the best weights: {done} of {windows} windows")

    held_out = scorer.predict_held_out(report)
    strata = held_out_strata(data.splits, held_out)
    record = calibrate(held_out, default_scales(data.scales_deg, group.device.type), strata)
    distance_km = strata["distance"][0] if "distance" in strata else None
    if data.splits.simulated:
        record["offsets"] = _class_offsets(held_out, record, distance_km)
    if held_out.cover_km:
        tuning = held_out.role == TUNE
        quantiles_km = held_out.mean_cover_km(record["default_scales"], TUNE)
        record["thickness"] = fit_thickness_interval(quantiles_km, strata["cover"][0][tuning]).to_dict()
    result = {
        "tune": spec.scores["tune"],
        "test": _test_scores(scorer, held_out, record, strata, report),
        "calibration": _summary(record),
        "best_epoch": state.best[1],
        "epochs": state.epoch,
        "precision": scoring_precision(scorer.network),
        "split": data.splits.meta.get("split", {}),
        "seconds": round(sum(row["seconds"] for row in state.history), 1),
    }
    if group.rank == 0:
        spec = data.model_spec(config, spec.architecture, {"tune": result["tune"], "test": result["test"]})
        save_model(run_dir, scorer.network, spec)
        for note in record["notes"]:
            log.warning("%s", note)
        write_calibration(run_dir, {**record, "split": result["split"]})
        if pictures:
            title = f"{run_dir.name}: {config.model}"
            draw_curves(state.history, run_dir / "curves.png", title)
            draw_reliability(record, run_dir / "reliability.png", title)
        applicability = fit_area_of_applicability(data.splits, data.inputs, config.seed)
        if applicability is None:
            log.warning("No node has a training label: the area of applicability cannot be computed.")
        else:
            write_area_of_applicability(run_dir, applicability, data.fingerprint)
        text = json_text(result)
        written = {name: sha256(run_dir / name) for name in MEASURED if (run_dir / name).exists()}
        # Before scores.json, which marks a complete run: of a run killed between the two, training is resumed.
        record_files(run_dir, {**written, "scores.json": hashlib.sha256(text.encode()).hexdigest()})
        write_text(run_dir / "scores.json", text)
    return result


def _class_offsets(held_out: HeldOutPredictions, record: dict[str, Any], distance_km: Kilometres | None) -> list[float]:
    """Fit the class offsets (logit adjustment) on the tuning nodes."""
    scales, tuning = record["default_scales"], held_out.role == TUNE
    calibrated = held_out.mean_logits(scales, TUNE) / _divisor(record, scales, distance_km, tuning)
    return [round(float(each), 4) for each in fit_class_offsets(calibrated, held_out.target[tuning])]


def _divisor(
    record: dict[str, Any], scales: Sequence[float], distance_km: Kilometres | None, nodes: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return what calibration divides logits (n, K) of some nodes by: one temperature, or one per node (n, 1)."""
    divisor = Calibration.from_record(record).divisor(scales)
    if not isinstance(divisor, DistanceTemperature):
        return np.asarray(divisor, np.float32)
    assert distance_km is not None  # without distances no temperature by distance was fitted
    return divisor.at(distance_km[nodes]).astype(np.float32)[:, None]


def _test_scores(
    scorer: Scorer,
    held_out: HeldOutPredictions,
    record: dict[str, Any],
    strata: Strata,
    progress: Progress,
) -> dict[str, Any]:
    """Score the test nodes, with windows of the one size that all runs are scored with."""
    data, test = scorer.data, held_out.role == TEST
    distance_km = strata["distance"][0] if "distance" in strata else None
    scale = scoring_scale(data.scales_deg)
    logits = held_out.logits[scale][test]
    # Offsets belong to calibrated logits: they are multiplied by what these were divided by.
    offsets = _divisor(record, [scale], distance_km, test) * np.array(record.get("offsets", 0), np.float32)
    predicted = (logits + offsets).argmax(axis=1)
    names = [str(each["name"]) for each in data.classes]
    matrix = confusion(held_out.target[test], predicted, len(names))
    found = {**scores(matrix, names), "confusion": matrix.tolist()}
    if not data.splits.simulated:
        windows = score_windows(
            scorer.network,
            data.splits.first,
            TEST,
            inputs=data.inputs,
            tile_size_px=data.tile_size_px,
            device=scorer.group.device,
            group=scorer.group,
        )
        if windows is not None:
            found["by_window"] = windows
    if data.splits.simulated:
        # Control: the same network with the gravity of another crust.
        def report(done: int, total: int, note: str = "") -> None:
            progress(scorer.final_windows - total + done, scorer.final_windows, note)

        shifted = scorer.predict(with_other_gravity(data.splits, TEST), [scale], report).logits[scale] + offsets
        found["under_cover"] = scores_under_cover(
            data.splits, held_out, predicted, TEST, shifted.argmax(axis=1), likeliest=logits.argmax(axis=1)
        )
    if held_out.cover_km:
        of_test = {kind: (values[test], by_name) for kind, (values, by_name) in strata.items()}
        quantiles_km = Calibration.from_record(record).thickness.apply(held_out.cover_km[scale][test])
        found["thickness"] = thickness_scores(quantiles_km, of_test["cover"][0], of_test)
    return found


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    """Return temperatures and expected calibration errors of the default map; None without nodes.

    With outcrop context also those of the test nodes by stratum: nodes, error and coverage before and after.
    """
    key = window_sizes_key(record["default_scales"])
    summary: dict[str, Any] = {"scales": record["default_scales"], "temperature": record["temperatures"][key]}
    if "by_distance" in record:
        summary["by_distance"] = record["by_distance"].get(key)
    for name in ("tune", "test"):
        for when in ("before", "after"):
            measured = record[name][when]
            summary[f"{name}_ece_{when}"] = None if measured is None else measured["ece"]
    if "strata" in record["test"]:
        summary["test_strata"] = {
            kind: {name: _stratum(row) for name, row in {"all": record["test"], **rows}.items()}
            for kind, rows in record["test"]["strata"].items()
        }
    return summary


def _stratum(measured: dict[str, Any]) -> dict[str, Any]:
    """Return nodes; calibration error, coverage, set size and log loss of each method, None without nodes."""
    methods = {when: measured[when] for when in ("before", "one", "after") if when in measured}
    return {"nodes": measured["nodes"]} | {
        when: each and {key: each[key] for key in ("ece", "coverage", "set_size", "nll")}
        for when, each in methods.items()
    }
