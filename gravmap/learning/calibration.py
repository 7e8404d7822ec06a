"""How far a network's probabilities can be believed: one temperature per set of window sizes, and what it changes.

Written at the end of training as ``calibration.json`` beside the weights; `predict` divides logits by it.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from gravmap.errors import InputError
from gravmap.files import read_json, write_json
from gravmap.learning.area import TEST, TUNE
from gravmap.learning.checkpoint import MODEL
from gravmap.learning.held_out import HeldOut
from gravmap.learning.reliability import log_softmax, reliability
from gravmap.units import format_angle

log = logging.getLogger(__name__)

FORMAT = 1
FILE = "calibration.json"

COLDEST, HOTTEST = 0.1, 10.0
"""Temperatures are looked for between these."""

FEWEST_NODES = 50
"""Fewer labelled tuning nodes measure no temperature."""

MOST_COMBINED = 5
"""Of more window sizes than this not every combination is measured (there are 2^n)."""


@dataclass(frozen=True)
class Calibration:
    """The temperatures of a run.

    Attributes
    ----------
    temperatures : dict of str to float
        Names of scales (:func:`scales_key`) to the number that logits, averaged over these scales, are divided by.
    scales : tuple of float
        Sides of windows that were looked at, degrees.
    record : dict
        All of ``calibration.json``.
    """

    temperatures: Mapping[str, float]
    scales: tuple[float, ...]
    record: Mapping[str, Any]

    def temperature(self, scales_deg: Sequence[float]) -> float:
        """The temperature of logits averaged over windows of these sizes.

        Where this very set was not looked at: that of those of its sizes that were, and where none was, of all that
        were, with a warning.

        Parameters
        ----------
        scales_deg : sequence of float
            Sides of the windows, degrees.
        """
        key = scales_key(scales_deg)
        if key not in self.temperatures:
            measured = {scales_key([scale]) for scale in self.scales}
            known = scales_key([scale for scale in scales_deg if scales_key([scale]) in measured])
            other = known if known in self.temperatures else scales_key(self.scales)
            told = [name.replace("+", " and ") for name in (key, other)]
            log.warning("The run measured no temperature for windows of %s; that of %s is taken.", *told)
            key = other
        return self.temperatures[key]


def scales_key(scales_deg: Sequence[float]) -> str:
    """The name of a set of window sizes: "5deg+10deg"."""
    return "+".join(format_angle(scale) for scale in sorted(set(scales_deg)))


def read_calibration(run_folder: Path) -> Calibration | None:
    """Read ``calibration.json`` of a run.

    Returns
    -------
    Calibration or None
        None where there is none, or where it belongs to other weights than those in the folder (with a warning): then
        probabilities are the network's own.

    Raises
    ------
    InputError
        The file is damaged, or of another format.
    """
    path = run_folder / FILE
    if not path.exists():
        return None
    record = read_json(path, "gravmap train")
    try:
        if record["format"] != FORMAT:
            raise InputError(
                f"{path} is of format {record['format']}; this gravmap reads {FORMAT}.",
                "Use the gravmap that wrote it, or train anew.",
            )
        temperatures = {str(key): float(value) for key, value in record["temperatures"].items()}
        scales = tuple(float(scale) for scale in record["scales"])
        if scales_key(scales) not in temperatures or not all(0 < value < 1e6 for value in temperatures.values()):
            raise ValueError("temperatures that make no sense")
        belongs = record["model_sha256"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {error}.", "Train anew, or take the file away: T is 1 then.") from None
    if belongs != weights_sha256(run_folder):
        log.warning("%s belongs to other weights than %s.safetensors beside it; it is not used.", path, MODEL)
        return None
    return Calibration(temperatures, scales, record)


def weights_sha256(run_folder: Path) -> str:
    """What ``model.json`` says of the weights beside it."""
    return str(read_json(run_folder / f"{MODEL}.json", "gravmap train").get("weights_sha256", ""))


def fit_temperature(logits: NDArray[np.float32], target: NDArray[np.int64], weight: NDArray[np.float64]) -> float:
    """The temperature T that makes softmax(logits / T) likeliest on what is known.

    Parameters
    ----------
    logits : (n, K) float32
        What the network says.
    target : (n,) int64
        True classes, 0..K-1.
    weight : (n,) float64
        How much each place counts.

    Returns
    -------
    float
        Between :data:`COLDEST` and :data:`HOTTEST`. The log loss is convex in 1/T, so its minimum is the only one.

    References
    ----------
    Guo et al. (2017), arXiv:1706.04599.
    """
    places = np.arange(len(target))

    def loss(log_temperature: float) -> float:
        told = log_softmax(logits, math.exp(log_temperature))[places, target]
        return float(-(weight * told).sum() / weight.sum())

    limits = (math.log(COLDEST), math.log(HOTTEST))
    return math.exp(float(minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-4}).x))


def calibrate(held: HeldOut, default_deg: Sequence[float]) -> dict[str, Any]:
    """Fit temperatures on the tuning nodes; measure reliability before and after on these and on the test nodes.

    Parameters
    ----------
    held : HeldOut
        What the network says of held-out ground, for every size of window that was looked at.
    default_deg : sequence of float
        The sizes a map is made with unless others are asked for: what the reliability is told of.

    Returns
    -------
    dict
        JSON-able: `temperatures`, `scales`, `default_scales`, `notes` (in plain words, what could not be measured), and
        `tune` and `test`, each `nodes` and :func:`gravmap.learning.reliability.reliability` `before` and `after` (None
        where there is no node).
    """
    scales = sorted(held.logits)
    tune = held.role == TUNE
    notes = []
    if (nodes := int(tune.sum())) < FEWEST_NODES:
        notes.append(
            f"{nodes} labelled nodes in the tuning blocks, {FEWEST_NODES} are needed: no temperature was fitted, "
            "probabilities are the network's own."
        )
    temperatures = {}
    for chosen in _combinations(scales, default_deg):
        key, temperature = scales_key(chosen), 1.0
        if nodes >= FEWEST_NODES:
            temperature = fit_temperature(held.mean_logits(chosen, TUNE), held.target[tune], held.weight[tune])
            if temperature < COLDEST * 1.01:
                # Without an error there is nothing to measure confidence by, and any would be believed.
                notes.append(f"{key}: next to no error in the tuning blocks to measure confidence by; taken as it is.")
                temperature = 1.0
            elif temperature > HOTTEST / 1.01:
                notes.append(f"{key}: on the tuning blocks the network is hardly better than a guess.")
        temperatures[key] = temperature
    return {
        "temperatures": temperatures,
        "scales": scales,
        "default_scales": sorted(default_deg),
        "notes": notes,
        "tune": _before_and_after(held, default_deg, TUNE, temperatures[scales_key(default_deg)]),
        "test": _before_and_after(held, default_deg, TEST, temperatures[scales_key(default_deg)]),
    }


def _combinations(scales: list[float], default_deg: Sequence[float]) -> list[tuple[float, ...]]:
    """The sets of window sizes to measure a temperature for."""
    if len(scales) > MOST_COMBINED:
        wanted = [*((scale,) for scale in scales), tuple(sorted(default_deg)), tuple(scales)]
        return list(dict.fromkeys(wanted))
    return [each for count in range(1, len(scales) + 1) for each in itertools.combinations(scales, count)]


def _before_and_after(held: HeldOut, scales_deg: Sequence[float], role: int, temperature: float) -> dict[str, Any]:
    mine = held.role == role
    if not mine.any():
        return {"nodes": 0, "before": None, "after": None}
    logits, target, weight = held.mean_logits(scales_deg, role), held.target[mine], held.weight[mine]
    before, after = (reliability(log_softmax(logits, divisor), target, weight) for divisor in (1.0, temperature))
    return {"nodes": int(mine.sum()), "before": before, "after": after}


def write_calibration(run_folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``calibration.json`` for the weights that lie in a run's folder."""
    write_json(run_folder / FILE, {"format": FORMAT, "model_sha256": weights_sha256(run_folder), **record})
