"""Temperature scaling: logits are divided by a number for each set of window sizes, constant or by outcrop distance.

Written at the end of training as ``calibration.json`` beside the weights; `predict` divides logits by it.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NotRequired

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from typing_extensions import TypedDict

from gravmap.errors import InputError
from gravmap.files import write_json
from gravmap.lattice import TEST, TUNE
from gravmap.learning.calibration.by_distance import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    DistanceTemperature,
    TemperatureByDistance,
    fit_distance_temperature,
    subsample_evenly,
)
from gravmap.learning.calibration.reliability import MeasuredStratum, log_softmax, reliability_measures
from gravmap.learning.calibration.thickness import ThicknessInterval, ThicknessIntervalRecord
from gravmap.learning.evaluation.held_out import HeldOutPredictions
from gravmap.learning.evaluation.under_cover import Strata, in_stratum
from gravmap.learning.training.checkpoint import MODEL, check_recorded
from gravmap.records import Len, Positive, read_model, read_record, record
from gravmap.units import format_angle

log = logging.getLogger(__name__)

_REMEDY = "Restore it, train again, or remove the file: then T = 1, and probabilities are not calibrated."

FORMAT = 1
FILE = "calibration.json"

MIN_NODES = 50
"""Fewer labelled tuning nodes are not enough to fit a temperature."""

MAX_COMBINED_SCALES = 5
"""With more window sizes than this not every combination gets a temperature (there are 2^n)."""


@record
class CalibrationRecord(TypedDict):
    """Content of ``calibration.json``."""

    format: int
    model_sha256: str
    temperatures: dict[str, Positive]
    scales: Annotated[list[Positive], Len(1)]
    default_scales: NotRequired[list[Positive]]
    notes: NotRequired[list[str]]
    by_distance: NotRequired[dict[str, TemperatureByDistance]]
    offsets: NotRequired[list[float]]
    thickness: NotRequired[ThicknessIntervalRecord]
    tune: NotRequired[MeasuredStratum | None]
    test: NotRequired[MeasuredStratum | None]


@dataclass(frozen=True)
class Calibration:
    """The temperatures of a run.

    Attributes
    ----------
    temperatures : dict of str to float
        Key of a set of window sizes (:func:`window_sizes_key`) to the temperature of logits averaged over these sizes.
    scales : tuple of float
        Window sizes for which a temperature was fitted, degrees.
    record : dict
        Content of ``calibration.json``.
    by_distance : dict of str to DistanceTemperature
        The same keys to temperatures that depend on the distance to mapped outcrop; empty if they do not.
    offsets : tuple of float, optional
        Class offsets, added to the log probability of each class before the argmax; see
        :mod:`gravmap.learning.calibration.class_offsets`.
    thickness : ThicknessInterval
        Factors of the interval of the thickness of the cover; 1 where there is none.

    Examples
    --------
    >>> calibration = Calibration.from_record({"temperatures": {"5deg": 1.3}, "scales": [5.0]})
    >>> calibration.temperature([5.0]), calibration.divisor([5.0]), calibration.offsets
    (1.3, 1.3, None)
    """

    temperatures: Mapping[str, float]
    scales: tuple[float, ...]
    record: Mapping[str, Any]
    by_distance: Mapping[str, DistanceTemperature] = field(default_factory=dict)
    offsets: tuple[float, ...] | None = None
    thickness: ThicknessInterval = field(default_factory=ThicknessInterval)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Calibration:
        """Parse the content of ``calibration.json``.

        Raises
        ------
        KeyError, TypeError, ValueError, AttributeError
            It is damaged.
        """
        temperatures = {str(key): float(value) for key, value in record["temperatures"].items()}
        scales = tuple(float(scale) for scale in record["scales"])
        if window_sizes_key(scales) not in temperatures or not all(0 < value < 1e6 for value in temperatures.values()):
            raise ValueError("temperatures must be positive, below 1e6, and include the default window sizes")
        if any(len(each["km"]) != len(each["temperature"]) for each in record.get("by_distance", {}).values()):
            raise ValueError("by_distance must have as many temperatures as distances")
        by_distance = {
            str(key): DistanceTemperature.from_dict(each) for key, each in record.get("by_distance", {}).items()
        }
        offsets = tuple(float(each) for each in record["offsets"]) if "offsets" in record else None
        if offsets is not None and not all(map(math.isfinite, offsets)):
            raise ValueError("class offsets must be finite")
        thickness = ThicknessInterval(**record.get("thickness", {}))
        return cls(temperatures, scales, record, by_distance, offsets, thickness)

    def temperature(self, scales_deg: Sequence[float]) -> float:
        """The temperature of logits averaged over windows of these sizes.

        If none was fitted for this set of sizes, that of its subset with fitted temperatures is used, or else that of
        all sizes; a warning is logged.

        Parameters
        ----------
        scales_deg : sequence of float
            Sides of the windows, degrees.
        """
        return self.temperatures[self._key(scales_deg)]

    def divisor(self, scales_deg: Sequence[float]) -> float | DistanceTemperature:
        """Divisor of logits averaged over windows of these sizes: a number, or a function of outcrop distance."""
        key = self._key(scales_deg)
        return self.by_distance.get(key, self.temperatures[key])

    def _key(self, scales_deg: Sequence[float]) -> str:
        key = window_sizes_key(scales_deg)
        if key not in self.temperatures:
            measured = {window_sizes_key([scale]) for scale in self.scales}
            known = window_sizes_key([scale for scale in scales_deg if window_sizes_key([scale]) in measured])
            other = known if known in self.temperatures else window_sizes_key(self.scales)
            names = [name.replace("+", " and ") for name in (key, other)]
            log.warning("No temperature was fitted for windows of %s; that of %s is used.", *names)
            key = other
        return key


def window_sizes_key(scales_deg: Sequence[float]) -> str:
    """Key of a set of window sizes.

    Examples
    --------
    >>> window_sizes_key([10.0, 5.0])
    '5deg+10deg'
    """
    return "+".join(format_angle(scale) for scale in sorted(set(scales_deg)))


def read_calibration(run_folder: Path) -> Calibration | None:
    """Read ``calibration.json`` of a run.

    Parameters
    ----------
    run_folder : Path
        The run's folder, with ``model.json``.

    Returns
    -------
    Calibration or None
        None if there is no such file, or if it was fitted to other weights than those in the folder (with a warning):
        probabilities are then not calibrated.

    Raises
    ------
    InputError
        The file is damaged or was changed, or has another format.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = write_json(Path(folder, "model.json"), {"weights_sha256": "0" * 64})
    ...     write_calibration(Path(folder), {"temperatures": {"5deg": 1.3}, "scales": [5.0]})
    ...     read_calibration(Path(folder)).temperature([5.0])
    1.3
    """
    path = run_folder / FILE
    if not check_recorded(path, _REMEDY):
        return None
    hint = _REMEDY
    record = read_record(path, CalibrationRecord, hint=hint)
    if record["format"] != FORMAT:
        raise InputError(
            f"{path} has format {record['format']}; this version of gravmap reads {FORMAT}.",
            "Use the gravmap version that wrote it, or train again.",
        )
    try:
        found = Calibration.from_record(record)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}.", hint) from None
    weights_of_record = record["model_sha256"]
    if weights_of_record != weights_sha256(run_folder):
        log.warning("%s was fitted to other weights than those of %s.safetensors; it is ignored.", path, MODEL)
        return None
    return found


def weights_sha256(run_folder: Path) -> str:
    """SHA-256 of the weights, as recorded in ``model.json``."""
    return str(read_model(run_folder).get("weights_sha256", ""))


def fit_temperature(logits: NDArray[np.float32], target: NDArray[np.int64], weight: NDArray[np.float64]) -> float:
    """Fit the temperature T by maximum likelihood of softmax(logits / T).

    Parameters
    ----------
    logits : (n, K) float32
        Logits of the network.
    target : (n,) int64
        True classes, 0..K-1.
    weight : (n,) float64
        Weight of each node.

    Returns
    -------
    float
        Between :data:`MIN_TEMPERATURE` and :data:`MAX_TEMPERATURE`. The log loss is convex in 1/T: the minimum is
        unique.

    References
    ----------
    Guo et al. (2017), arXiv:1706.04599.

    Examples
    --------
    A confidence of 0.9 in predictions of which three in four are correct is lowered to 0.75:

    >>> import numpy as np
    >>> logits = np.tile(np.log([[0.9, 0.1]]), (4, 1)).astype(np.float32)
    >>> fit_temperature(logits, np.array([0, 0, 0, 1]), np.ones(4))
    2.0000...
    """

    def loss(log_temperature: float) -> float:
        return log_loss(logits, target, weight, math.exp(log_temperature)) / float(weight.sum())

    bounds = (math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))
    return math.exp(float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4}).x))


def calibrate(
    held_out: HeldOutPredictions, default_deg: Sequence[float], strata: Strata | None = None
) -> dict[str, Any]:
    """Fit temperatures on the tuning nodes; measure reliability before and after on tuning and test nodes.

    Parameters
    ----------
    held_out : HeldOutPredictions
        Predictions for all window sizes.
    default_deg : sequence of float
        Window sizes of a map by default; reliability is measured for these.
    strata : dict, optional
        From :func:`gravmap.learning.evaluation.under_cover.held_out_strata`; with ``distance``, temperatures by
        distance are fitted too.

    Returns
    -------
    dict
        JSON-able: `temperatures`, `scales`, `default_scales`, `notes` (what could not be fitted, and why), and `tune`
        and `test`, each with `nodes` and `before` and `after` of
        :func:`gravmap.learning.calibration.reliability.reliability_measures` (None if there is no node). With strata
        also `by_distance` (key to knots), and in `tune` and `test` `one` (with the single temperature, where `after` is
        with those by distance) and `strata`: kind to name to the same again.
    """
    strata = strata or {}
    scales = sorted(held_out.logits)
    tune = held_out.role == TUNE
    notes = []
    if (nodes := int(tune.sum())) < MIN_NODES:
        notes.append(
            f"{nodes} labelled nodes in the tuning blocks, at least {MIN_NODES} are needed: no temperature was fitted, "
            "probabilities are not calibrated."
        )
    temperatures: dict[str, float] = {}
    by_distance: dict[str, DistanceTemperature] = {}
    for chosen in _combinations(scales, default_deg):
        key, temperature = window_sizes_key(chosen), 1.0
        if nodes >= MIN_NODES:
            temperature = fit_temperature(
                held_out.mean_logits(chosen, TUNE), held_out.target[tune], held_out.weight[tune]
            )
            if temperature < MIN_TEMPERATURE * 1.01:
                # Without errors the likelihood has no maximum: any confidence would fit.
                notes.append(f"{key}: almost no error in the tuning blocks, so no temperature can be fitted; T = 1.")
                temperature = 1.0
            elif temperature > MAX_TEMPERATURE / 1.01:
                notes.append(f"{key}: on the tuning blocks the network is hardly better than a guess.")
            elif "distance" in strata:
                found, note = _fit_distance_temperature(held_out, chosen, strata["distance"][0][tune], temperature)
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
        "tune": _reliability_record(
            held_out, default_deg, TUNE, temperatures[default], by_distance.get(default), strata
        ),
        "test": _reliability_record(
            held_out, default_deg, TEST, temperatures[default], by_distance.get(default), strata
        ),
    }


def _fit_distance_temperature(
    held_out: HeldOutPredictions, scales_deg: Sequence[float], distance_km: NDArray[np.float64], temperature: float
) -> tuple[DistanceTemperature | None, str]:
    """Temperatures by distance, or the reason why there are none.

    They have more parameters than one temperature, and the tuning data are few datasets. They are kept only if they
    have a higher likelihood than one temperature in leave-one-dataset-out cross-validation.
    """
    selected = held_out.role == TUNE
    logits, target, weight = (
        held_out.mean_logits(scales_deg, TUNE),
        held_out.target[selected],
        held_out.weight[selected],
    )
    kept = subsample_evenly(len(target))
    logits, target, weight, distance_km = logits[kept], target[kept], weight[kept], distance_km[kept]
    found = fit_distance_temperature(logits, target, weight, distance_km, temperature)
    if found is None:
        return None, "too few nodes at different distances to mapped outcrop for more than one temperature."
    if min(found.temperature) < MIN_TEMPERATURE * 1.01:
        return None, "almost no error at some distance to mapped outcrop; one temperature is used at all distances."
    dataset = held_out.place[selected, 0][kept]
    datasets = np.unique(dataset)
    gain = 0.0
    for one_dataset in datasets if len(datasets) > 1 else ():
        fitted, left_out = dataset != one_dataset, dataset == one_dataset
        one = fit_temperature(logits[fitted], target[fitted], weight[fitted])
        other = fit_distance_temperature(logits[fitted], target[fitted], weight[fitted], distance_km[fitted], one)
        if other is not None:
            gain += log_loss(logits[left_out], target[left_out], weight[left_out], one)
            gain -= log_loss(logits[left_out], target[left_out], weight[left_out], other.at(distance_km[left_out]))
    if len(datasets) > 1 and gain <= 0:
        return None, "temperatures by distance did not improve on one in cross-validation over the tuning datasets."
    return found, ""


def log_loss(
    logits: NDArray[np.float32],
    target: NDArray[np.int64],
    weight: NDArray[np.float64],
    temperature: float | NDArray[np.float64],
) -> float:
    """Sum of - w ln p of the true classes, for one temperature or one for each node."""
    true_log_probability = log_softmax(logits, temperature)[np.arange(len(target)), target]
    return float(-(weight * true_log_probability).sum())


def _combinations(scales: list[float], default_deg: Sequence[float]) -> list[tuple[float, ...]]:
    """The sets of window sizes to fit a temperature for."""
    if len(scales) > MAX_COMBINED_SCALES:
        wanted = [*((scale,) for scale in scales), tuple(sorted(default_deg)), tuple(scales)]
        return list(dict.fromkeys(wanted))
    return [each for count in range(1, len(scales) + 1) for each in itertools.combinations(scales, count)]


def _reliability_record(
    held_out: HeldOutPredictions,
    scales_deg: Sequence[float],
    role: int,
    temperature: float,
    by_distance: DistanceTemperature | None,
    strata: Strata,
) -> dict[str, Any]:
    """Reliability at one role's nodes, all together and for each stratum."""
    selected = held_out.role == role
    logits, target, weight = (
        held_out.mean_logits(scales_deg, role),
        held_out.target[selected],
        held_out.weight[selected],
    )
    divisors: dict[str, float | NDArray[np.float64]] = {"before": 1.0, "after": temperature}
    if by_distance is not None:
        divisors |= {"one": temperature, "after": by_distance.at(strata["distance"][0][selected])}
    log_probability = {when: log_softmax(logits, divisor) for when, divisor in divisors.items()}

    def measured(chosen: NDArray[np.bool_], with_bins: bool = True) -> dict[str, Any]:
        found: dict[str, Any] = {"nodes": int(chosen.sum())}
        for when, each in log_probability.items():
            found[when] = reliability_measures(each[chosen], target[chosen], weight[chosen]) if chosen.any() else None
            if found[when] and not (with_bins and when in ("before", "after")):
                del found[when]["bins"]  # only needed for figures
        return found

    found = measured(np.ones(len(target), np.bool_))
    if strata:
        found["strata"] = {
            kind: {
                name: measured(in_stratum(values[selected], stratum), kind == "distance")
                for name, stratum in named.items()
            }
            for kind, (values, named) in strata.items()
        }
    return found


def write_calibration(run_folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``calibration.json`` for the weights in a run's folder."""
    write_json(run_folder / FILE, {"format": FORMAT, "model_sha256": weights_sha256(run_folder), **record})
