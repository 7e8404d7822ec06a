"""How far a network's probabilities can be believed: one temperature per set of window sizes, and what it changes.

Written at the end of training as ``calibration.json`` beside the weights; `predict` divides logits by it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gravmap.errors import InputError
from gravmap.files import read_json
from gravmap.learning.checkpoint import MODEL
from gravmap.units import format_angle

log = logging.getLogger(__name__)

FORMAT = 1
FILE = "calibration.json"


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
            known = [scale for scale in scales_deg if scales_key([scale]) in map(scales_key, _alone(self.scales))]
            other = scales_key(known or self.scales)
            if other not in self.temperatures:
                other = scales_key(self.scales)
            log.warning(
                "The run measured no temperature for windows of %s; that of %s is taken.",
                key.replace("+", " and "),
                other.replace("+", " and "),
            )
            key = other
        return self.temperatures[key]


def scales_key(scales_deg: Sequence[float]) -> str:
    """The name of a set of window sizes: "5deg+10deg"."""
    return "+".join(format_angle(scale) for scale in sorted(set(scales_deg)))


def _alone(scales: Sequence[float]) -> list[list[float]]:
    return [[scale] for scale in scales]


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
