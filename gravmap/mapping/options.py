"""What may be chosen about a map, and how its files and its record tell what was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gravmap.files import sha256
from gravmap.learning.calibration.by_distance import DistanceTemperature
from gravmap.mapping.plan import Plan
from gravmap.mapping.predictor import Predictor
from gravmap.units import format_angle

NEAR_KM = 25.0
"""From here on outcrop is no longer near; about the distance at which null models lose their hold."""


Verdicts = Sequence[Mapping[str, Any]]
"""Whether a region is like the crusts of a prior: of each ``prior`` (``name``, ``sha256``), ``state``, ``headline`` and
``advice``, a sentence and several, and what the page tells of them."""


@dataclass(frozen=True)
class Options:
    """What may be chosen about a map, besides its place.

    Attributes
    ----------
    scales_deg : tuple of float, optional
        Window sizes; by default those the networks were trained on, on a CPU without the smallest.
    resolution_deg : float, optional
        Cell size; by default the nodes of the gravity grid.
    everywhere : bool
        Show the networks' class on the outcrop too.
    flips : bool
        See every window in four mirror images, and average the logits.
    near_km : float
        How far from outcrop a cell still counts as near it.
    crs : str, optional
        Coordinate system of the files when it is not EPSG:4326.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    processes : int
        Share the windows among so many processes; with ``cuda`` one for each GPU.
    batch_size : int
        Windows at a time; changes memory and speed, not the result.
    """

    scales_deg: tuple[float, ...] | None = None
    resolution_deg: float | None = None
    everywhere: bool = False
    flips: bool = False
    near_km: float = NEAR_KM
    crs: str | None = None
    device: str = "auto"
    processes: int = 1
    batch_size: int = 1


def content(labels: Path | None, options: Options) -> str:
    """What a map shows, in words."""
    if labels is None or options.everywhere:
        return "bedrock class predicted everywhere"
    return "outcrop as mapped, bedrock class predicted under cover"


def tags(plan: Plan, predictor: Predictor, labels: Path | None, options: Options) -> dict[str, str]:
    """What a map's rasters say of themselves."""
    return {
        "GRAVMAP_CONTENT": content(labels, options),
        "GRAVMAP_MODEL_SHA256": ", ".join(sha256(member.folder / "model.safetensors") for member in predictor.members),
        "GRAVMAP_SCALES": ", ".join(map(format_angle, plan.windows)),
        "GRAVMAP_UPSAMPLING": f"{plan.grid.upsampling:.3g}",
    }


def settings(
    name: str,
    plan: Plan,
    options: Options,
    labels: Path | None,
    predictor: Predictor,
    verdicts: Verdicts,
) -> dict[str, Any]:
    """Every option with its value, as the map's record has it."""
    return {
        "region": name,
        "bounds_wsen": plan.region.bounds_wsen,
        "clip": None if plan.clip is None else str(plan.clip.path),
        "runs": [str(member.folder) for member in predictor.members],
        "content": content(labels, options),
        "everywhere": options.everywhere,
        "starts_from_outcrop": [member.spec.input.reads_outcrop for member in predictor.members],
        "scales": [format_angle(scale) for scale in plan.windows],
        "windows": len(plan.passes),
        "flips": plan.flips,
        "temperatures": [member.temperature(list(plan.windows)) for member in predictor.members],
        "temperatures_by_distance": [
            each.to_dict() if isinstance(each, DistanceTemperature) else None
            for each in (member.divisor(list(plan.windows)) for member in predictor.members)
        ],
        "calibrated": [member.calibration is not None for member in predictor.members],
        "class_offsets": predictor.class_offsets,
        "near_km": options.near_km,
        "cells": plan.grid.shape,
        "cell_deg": plan.grid.spacing_deg,
        "upsampling": plan.grid.upsampling,
        "crs": options.crs or "EPSG:4326",
        "device": plan.device,
        "processes": options.processes,
        "batch_size": options.batch_size,
        **({"prior_verdicts": [dict(each) for each in verdicts]} if verdicts else {}),
    }
