"""How far a network's probabilities can be believed: temperatures per set of window sizes, and what they change.

One for all ground, and for networks that start from mapped outcrop one that follows the distance to it.

Written at the end of training as ``calibration.json`` beside the weights; `predict` divides logits by it.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from gravmap.errors import InputError
from gravmap.files import read_json, write_json
from gravmap.lattice import TEST, TUNE
from gravmap.learning.calibration.by_distance import (
    COLDEST,
    HOTTEST,
    DistanceTemperature,
    evenly,
    fit_distance_temperature,
)
from gravmap.learning.calibration.reliability import log_softmax, reliability
from gravmap.learning.evaluation.held_out import HeldOutPredictions
from gravmap.learning.evaluation.under_cover import Strata, in_stratum
from gravmap.learning.training.checkpoint import MODEL
from gravmap.units import format_angle

log = logging.getLogger(__name__)

FORMAT = 1
FILE = "calibration.json"

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
        Names of scales (:func:`window_sizes_key`) to the number that logits, averaged over these scales, are divided by.
    scales : tuple of float
        Sides of windows that were looked at, degrees.
    record : dict
        All of ``calibration.json``.
    by_distance : dict of str to DistanceTemperature
        The same names to what takes the number's place where it follows the distance to mapped outcrop; empty where
        it does not.
    offsets : tuple of float, optional
        Class offsets, added to the log probability of each class before one is shown; see
        :mod:`gravmap.learning.calibration.class_offsets`.
    """

    temperatures: Mapping[str, float]
    scales: tuple[float, ...]
    record: Mapping[str, Any]
    by_distance: Mapping[str, DistanceTemperature] = field(default_factory=dict)
    offsets: tuple[float, ...] | None = None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Calibration:
        """Take up what ``calibration.json`` holds.

        Raises
        ------
        KeyError, TypeError, ValueError, AttributeError
            It is damaged.
        """
        temperatures = {str(key): float(value) for key, value in record["temperatures"].items()}
        scales = tuple(float(scale) for scale in record["scales"])
        if window_sizes_key(scales) not in temperatures or not all(0 < value < 1e6 for value in temperatures.values()):
            raise ValueError("temperatures that make no sense")
        by_distance = {
            str(key): DistanceTemperature.from_dict(each) for key, each in record.get("by_distance", {}).items()
        }
        offsets = tuple(float(each) for each in record["offsets"]) if "offsets" in record else None
        if offsets is not None and not all(map(math.isfinite, offsets)):
            raise ValueError("offsets that make no sense")
        return cls(temperatures, scales, record, by_distance, offsets)

    def temperature(self, scales_deg: Sequence[float]) -> float:
        """The temperature of logits averaged over windows of these sizes.

        Where this very set was not looked at: that of those of its sizes that were, and where none was, of all that
        were, with a warning.

        Parameters
        ----------
        scales_deg : sequence of float
            Sides of the windows, degrees.
        """
        return self.temperatures[self._key(scales_deg)]

    def divisor(self, scales_deg: Sequence[float]) -> float | DistanceTemperature:
        """What logits averaged over windows of these sizes are divided by, everywhere or by distance to outcrop."""
        key = self._key(scales_deg)
        return self.by_distance.get(key, self.temperatures[key])

    def _key(self, scales_deg: Sequence[float]) -> str:
        key = window_sizes_key(scales_deg)
        if key not in self.temperatures:
            measured = {window_sizes_key([scale]) for scale in self.scales}
            known = window_sizes_key([scale for scale in scales_deg if window_sizes_key([scale]) in measured])
            other = known if known in self.temperatures else window_sizes_key(self.scales)
            told = [name.replace("+", " and ") for name in (key, other)]
            log.warning("The run measured no temperature for windows of %s; that of %s is taken.", *told)
            key = other
        return key


def window_sizes_key(scales_deg: Sequence[float]) -> str:
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
        found = Calibration.from_record(record)
        belongs = record["model_sha256"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {error}.", "Train anew, or take the file away: T is 1 then.") from None
    if belongs != weights_sha256(run_folder):
        log.warning("%s belongs to other weights than %s.safetensors beside it; it is not used.", path, MODEL)
        return None
    return found


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

    def loss(log_temperature: float) -> float:
        return log_loss(logits, target, weight, math.exp(log_temperature)) / float(weight.sum())

    limits = (math.log(COLDEST), math.log(HOTTEST))
    return math.exp(float(minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-4}).x))


def calibrate(held: HeldOutPredictions, default_deg: Sequence[float], strata: Strata | None = None) -> dict[str, Any]:
    """Fit temperatures on the tuning nodes; measure reliability before and after on these and on the test nodes.

    Parameters
    ----------
    held : HeldOutPredictions
        What the network says of held-out ground, for every size of window that was looked at.
    default_deg : sequence of float
        The sizes a map is made with unless others are asked for: what the reliability is told of.
    strata : dict, optional
        From :func:`gravmap.learning.evaluation.under_cover.held_out_strata`: with ``distance`` temperatures follow it, too.

    Returns
    -------
    dict
        JSON-able: `temperatures`, `scales`, `default_scales`, `notes` (in plain words, what could not be measured), and
        `tune` and `test`, each `nodes` and `before` and `after` of
        :func:`gravmap.learning.calibration.reliability.reliability` (None
        where there is no node). With strata also `by_distance` (names of scales to knots), and in `tune` and `test`
        `one` (with the one temperature, where `after` is with those by distance) and `strata`: kind to name to the
        same again.
    """
    strata = strata or {}
    scales = sorted(held.logits)
    tune = held.role == TUNE
    notes = []
    if (nodes := int(tune.sum())) < FEWEST_NODES:
        notes.append(
            f"{nodes} labelled nodes in the tuning blocks, {FEWEST_NODES} are needed: no temperature was fitted, "
            "probabilities are the network's own."
        )
    temperatures: dict[str, float] = {}
    by_distance: dict[str, DistanceTemperature] = {}
    for chosen in _combinations(scales, default_deg):
        key, temperature = window_sizes_key(chosen), 1.0
        if nodes >= FEWEST_NODES:
            temperature = fit_temperature(held.mean_logits(chosen, TUNE), held.target[tune], held.weight[tune])
            if temperature < COLDEST * 1.01:
                # Without an error there is nothing to measure confidence by, and any would be believed.
                notes.append(f"{key}: next to no error in the tuning blocks to measure confidence by; taken as it is.")
                temperature = 1.0
            elif temperature > HOTTEST / 1.01:
                notes.append(f"{key}: on the tuning blocks the network is hardly better than a guess.")
            elif "distance" in strata:
                found, note = _follow_distance(held, chosen, strata["distance"][0][tune], temperature)
                notes += [f"{key}: {note}"] if note else []
                by_distance |= {key: found} if found else {}
        temperatures[key] = temperature
    default = window_sizes_key(default_deg)
    return {
        "temperatures": temperatures,
        "scales": scales,
        "default_scales": sorted(default_deg),
        "notes": notes,
        **({"by_distance": {key: each.to_dict() for key, each in by_distance.items()}} if by_distance else {}),
        "tune": _told(held, default_deg, TUNE, temperatures[default], by_distance.get(default), strata),
        "test": _told(held, default_deg, TEST, temperatures[default], by_distance.get(default), strata),
    }


def _follow_distance(
    held: HeldOutPredictions, scales_deg: Sequence[float], distance_km: NDArray[np.float64], temperature: float
) -> tuple[DistanceTemperature | None, str]:
    """Temperatures by distance, or why there are none.

    They have more freedom than one temperature, and held-out ground is few pieces. So they are kept only where, fitted
    without each piece of tuning ground in turn, they are likelier there than one temperature fitted without it.
    """
    mine = held.role == TUNE
    logits, target, weight = held.mean_logits(scales_deg, TUNE), held.target[mine], held.weight[mine]
    kept = evenly(len(target))
    logits, target, weight, distance_km = logits[kept], target[kept], weight[kept], distance_km[kept]
    found = fit_distance_temperature(logits, target, weight, distance_km, temperature)
    if found is None:
        return None, "too few nodes at different distances to mapped outcrop for more than one temperature."
    if min(found.temperature) < COLDEST * 1.01:
        return None, "next to no error at some distance to mapped outcrop; one temperature serves all ground."
    ground = held.place[mine, 0][kept]
    pieces = np.unique(ground)
    gain = 0.0
    for piece in pieces if len(pieces) > 1 else ():
        away, here = ground != piece, ground == piece
        one = fit_temperature(logits[away], target[away], weight[away])
        other = fit_distance_temperature(logits[away], target[away], weight[away], distance_km[away], one)
        if other is not None:
            gain += log_loss(logits[here], target[here], weight[here], one)
            gain -= log_loss(logits[here], target[here], weight[here], other.at(distance_km[here]))
    if len(pieces) > 1 and gain <= 0:
        return None, "temperatures by distance did no better than one on the tuning ground they were not fitted on."
    return found, ""


def log_loss(
    logits: NDArray[np.float32],
    target: NDArray[np.int64],
    weight: NDArray[np.float64],
    temperature: float | NDArray[np.float64],
) -> float:
    """Sum of - w ln p of the true classes, at one temperature or one for each place."""
    told = log_softmax(logits, temperature)[np.arange(len(target)), target]
    return float(-(weight * told).sum())


def _combinations(scales: list[float], default_deg: Sequence[float]) -> list[tuple[float, ...]]:
    """The sets of window sizes to measure a temperature for."""
    if len(scales) > MOST_COMBINED:
        wanted = [*((scale,) for scale in scales), tuple(sorted(default_deg)), tuple(scales)]
        return list(dict.fromkeys(wanted))
    return [each for count in range(1, len(scales) + 1) for each in itertools.combinations(scales, count)]


def _told(
    held: HeldOutPredictions,
    scales_deg: Sequence[float],
    role: int,
    temperature: float,
    by_distance: DistanceTemperature | None,
    strata: Strata,
) -> dict[str, Any]:
    """Reliability of one role's nodes, all together and stratum by stratum."""
    mine = held.role == role
    logits, target, weight = held.mean_logits(scales_deg, role), held.target[mine], held.weight[mine]
    ways: dict[str, float | NDArray[np.float64]] = {"before": 1.0, "after": temperature}
    if by_distance is not None:
        ways |= {"one": temperature, "after": by_distance.at(strata["distance"][0][mine])}
    said = {when: log_softmax(logits, divisor) for when, divisor in ways.items()}

    def measured(chosen: NDArray[np.bool_], drawn: bool = True) -> dict[str, Any]:
        found: dict[str, Any] = {"nodes": int(chosen.sum())}
        for when, each in said.items():
            found[when] = reliability(each[chosen], target[chosen], weight[chosen]) if chosen.any() else None
            if found[when] and not (drawn and when in ("before", "after")):
                del found[when]["bins"]  # for pictures alone
        return found

    found = measured(np.ones(len(target), np.bool_))
    if strata:
        found["strata"] = {
            kind: {
                name: measured(in_stratum(values[mine], stratum), kind == "distance") for name, stratum in named.items()
            }
            for kind, (values, named) in strata.items()
        }
    return found


def write_calibration(run_folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``calibration.json`` for the weights that lie in a run's folder."""
    write_json(run_folder / FILE, {"format": FORMAT, "model_sha256": weights_sha256(run_folder), **record})
