"""The end of a run: the best weights scored on the test blocks, once; how far they can be believed, and where."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.files import write_json
from gravmap.lattice import TEST, TUNE
from gravmap.learning.calibration.applicability import fit_area_of_applicability, write_area_of_applicability
from gravmap.learning.calibration.by_distance import DistanceTemperature
from gravmap.learning.calibration.class_offsets import fit_class_offsets
from gravmap.learning.calibration.reliability import draw_reliability
from gravmap.learning.calibration.temperature import Calibration, calibrate, window_sizes_key, write_calibration
from gravmap.learning.evaluation.held_out import HeldOutPredictions, default_scales, scoring_scale
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.learning.evaluation.under_cover import held_out_strata, scores_under_cover, with_other_gravity
from gravmap.learning.training.checkpoint import load_model, save_model
from gravmap.learning.training.curves import draw_curves
from gravmap.learning.training.run import Run
from gravmap.progress import Progress, silent

log = logging.getLogger(__name__)

Kilometres = NDArray[np.float64]


def finish(run: Run, progress: Progress = silent) -> dict[str, Any]:
    """Score the best weights on the test blocks, once, and write what came out.

    Writes the model with its scores, `curves.png`, `calibration.json`, `reliability.png`, `reach.safetensors` and, last
    of all, `scores.json`, which says that the run is complete.

    Parameters
    ----------
    run : Run
        After its last epoch; every process calls this.
    progress : Progress
        Told that the steps are done, and how far the windows over held-out ground are.

    Returns
    -------
    dict
        What `scores.json` holds.
    """
    run.group.agree(None)  # the first process has written the model by now
    network, spec = load_model(run.run_dir, run.group.device)
    run.network.load_state_dict(network.state_dict())
    steps = run.config.epochs * run.steps

    def tell(done: int, total: int, note: str = "") -> None:
        progress(steps, steps, f"the best weights on held-out ground: {done} of {total} windows")

    held = run.held_out(tell)
    strata = held_out_strata(run.grounds, held)
    record = calibrate(held, default_scales(run.scales_deg, run.group.device.type), strata)
    distance_km = strata["distance"][0] if "distance" in strata else None
    if run.grounds.simulated:
        record["offsets"] = _offsets(held, record, distance_km)
    test = _test_scores(run, held, record, distance_km)
    result = {
        "tune": spec.scores["tune"],
        "test": test,
        "calibration": _in_short(record),
        "best_epoch": run.best[1],
        "epochs": run.epoch,
        "split": run.grounds.meta.get("split", {}),
        "seconds": round(sum(row["seconds"] for row in run.history), 1),
    }
    if run.group.rank == 0:
        _write(run, result, record)
    return result


def _offsets(held: HeldOutPredictions, record: dict[str, Any], distance_km: Kilometres | None) -> list[float]:
    """What is added to the log chance of each class before one is shown, fitted on the tuning ground."""
    scales, mine = record["default_scales"], held.role == TUNE
    calibrated = held.mean_logits(scales, TUNE) / _divisor(record, scales, distance_km, mine)
    return [round(float(each), 4) for each in fit_class_offsets(calibrated, held.target[mine])]


def _divisor(
    record: dict[str, Any], scales: Sequence[float], distance_km: Kilometres | None, mine: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """What calibration divides logits (n, K) of some nodes by: one number, or one for each node, (n, 1)."""
    divisor = Calibration.from_record(record).divisor(scales)
    if not isinstance(divisor, DistanceTemperature):
        return np.asarray(divisor, np.float32)
    assert distance_km is not None  # without distances no curve was fitted
    return divisor.at(distance_km[mine]).astype(np.float32)[:, None]


def _test_scores(
    run: Run, held: HeldOutPredictions, record: dict[str, Any], distance_km: Kilometres | None
) -> dict[str, Any]:
    """Scores on the test ground, of windows of the one size that all runs are scored with."""
    mine, scale = held.role == TEST, scoring_scale(run.scales_deg)
    logits = held.logits[scale][mine]
    # Offsets are of calibrated chances: as many logits more as these were divided by.
    added = _divisor(record, [scale], distance_km, mine) * np.array(record.get("offsets", 0), np.float32)
    named = (logits + added).argmax(axis=1)
    names = [str(each["name"]) for each in run.classes]
    matrix = confusion(held.target[mine], named, len(names))
    found = {**scores(matrix, names), "confusion": matrix.tolist()}
    if run.grounds.simulated:
        # The control: the same network, fed with the gravity of another crust.
        foreign = run.ask(with_other_gravity(run.grounds, TEST), [scale]).logits[scale] + added
        found["under_cover"] = scores_under_cover(
            run.grounds, held, named, TEST, foreign.argmax(axis=1), likeliest=logits.argmax(axis=1)
        )
    return found


def _in_short(record: dict[str, Any]) -> dict[str, Any]:
    """Temperatures and expected calibration errors of the default map; None where there was no node.

    With outcrop as context also of the test ground, stratum by stratum: nodes, error and coverage before and after.
    """
    key = window_sizes_key(record["default_scales"])
    short: dict[str, Any] = {"scales": record["default_scales"], "temperature": record["temperatures"][key]}
    if "by_distance" in record:
        short["by_distance"] = record["by_distance"].get(key)
    for name in ("tune", "test"):
        for when in ("before", "after"):
            measured = record[name][when]
            short[f"{name}_ece_{when}"] = None if measured is None else measured["ece"]
    if "strata" in record["test"]:
        short["test_strata"] = {
            kind: {name: _row(row) for name, row in {"all": record["test"], **rows}.items()}
            for kind, rows in record["test"]["strata"].items()
        }
    return short


def _row(measured: dict[str, Any]) -> dict[str, Any]:
    """Nodes; calibration error, coverage, classes in a set and log loss of each way, None where there is no node."""
    ways = {when: measured[when] for when in ("before", "one", "after") if when in measured}
    return {"nodes": measured["nodes"]} | {
        when: each and {key: each[key] for key in ("ece", "coverage", "set_size", "nll")} for when, each in ways.items()
    }


def _write(run: Run, result: dict[str, Any], record: dict[str, Any]) -> None:
    folder = run.run_dir
    save_model(folder, run.network, run.spec({"tune": result["tune"], "test": result["test"]}))
    draw_curves(run.history, folder / "curves.png", f"{folder.name}: {run.config.model}")
    for note in record["notes"]:
        log.warning("%s", note)
    write_calibration(folder, {**record, "split": result["split"]})
    draw_reliability(record, folder / "reliability.png", f"{folder.name}: {run.config.model}")
    reach = fit_area_of_applicability(run.grounds, run.inputs, run.config.seed)
    if reach is None:
        log.warning("No training label lies at a node: where the network extrapolates is not known.")
    else:
        write_area_of_applicability(folder, reach, run.fingerprint)
    write_json(folder / "scores.json", result)
