"""The options of a map, and how its rasters and its record store them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gravmap.files import sha256
from gravmap.learning.calibration.by_distance import DistanceTemperature
from gravmap.mapping.layers import UNMAPPED_TAG
from gravmap.mapping.plan import Plan
from gravmap.mapping.predictor import Predictor
from gravmap.network.precision import scoring_precision
from gravmap.units import format_angle

NEAR_KM = 25.0
"""Default distance to mapped outcrop within which a cell counts as near it; beyond it the baselines lose accuracy."""


@dataclass(frozen=True)
class Checks:
    """What was found out about networks that were not trained on the region they map.

    Attributes
    ----------
    prior_verdicts : sequence of mapping
        Whether the region is like the simulated crusts of a prior, one for each: ``prior`` (``name``, ``sha256``),
        ``state``, ``headline`` (a sentence), ``advice`` (several) and the quantities compared.
    hidden_outcrop : sequence of mapping
        Scores at the region's own outcrop, hidden block by block, one for each network
        (:func:`gravmap.mapping.scoring.hidden_outcrop.score_hidden_outcrop`).
    """

    prior_verdicts: Sequence[Mapping[str, Any]] = ()
    hidden_outcrop: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Options:
    """Options of :func:`gravmap.mapping.predict`.

    Attributes
    ----------
    scales_deg : tuple of float, optional
        Window sizes, degrees; by default those that the networks were trained on, on a CPU only those of at least 2
        degrees.
    resolution_deg : float, optional
        Cell size, degrees; by default the cells are the nodes of the gravity grid.
    everywhere : bool
        Show the predicted class on mapped outcrop too.
    fill_unmapped : bool
        Predict ground that is neither outcrop nor cover on the geological map, too; by default it is left blank.
    flips : bool
        Test-time augmentation: average the logits of each window over its four flips.
    near_km : float
        Distance to mapped outcrop within which a cell counts as near it, km.
    crs : str, optional
        Coordinate system of the files; by default EPSG:4326.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    processes : int
        Number of processes that the windows are distributed over; with ``cuda`` one per GPU.
    batch_size : int
        Windows per batch; changes memory and speed, and the result by rounding at most.
    explore : bool
        Write ``explore.html``, a map to explore in a browser (needs ``gravmap[explore]``).

    Examples
    --------
    >>> from gravmap.mapping import Options
    >>> options = Options(scales_deg=(5.0, 10.0), flips=True, crs="EPSG:32645")
    >>> options.near_km, options.batch_size
    (25.0, 1)
    """

    scales_deg: tuple[float, ...] | None = None
    resolution_deg: float | None = None
    everywhere: bool = False
    fill_unmapped: bool = False
    flips: bool = False
    near_km: float = NEAR_KM
    crs: str | None = None
    device: str = "auto"
    processes: int = 1
    batch_size: int = 1
    explore: bool = False


def content(labels: Path | None, options: Options) -> str:
    """Describe what the classes of a map are."""
    if labels is None:
        return "bedrock class predicted everywhere"
    shown = "outcrop as mapped, bedrock class predicted under cover"
    if options.everywhere:
        shown = "bedrock class predicted everywhere on the geological map"
    return f"{shown}, and where there is no geological map" if options.fill_unmapped else shown


def tags(plan: Plan, predictor: Predictor, labels: Path | None, options: Options) -> dict[str, str]:
    """Return the GeoTIFF tags of a map's rasters."""
    return {
        "GRAVMAP_CONTENT": content(labels, options),
        **({} if labels is None else {UNMAPPED_TAG: "predicted" if options.fill_unmapped else "blank"}),
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
    checks: Checks,
) -> dict[str, Any]:
    """Return every option with its value, as ``provenance.json`` stores them under ``settings``."""
    return {
        "region": name,
        "bounds_wsen": plan.region.bounds_wsen,
        "clip": None if plan.clip is None else str(plan.clip.path),
        "runs": [str(member.folder) for member in predictor.members],
        "content": content(labels, options),
        "everywhere": options.everywhere,
        "fill_unmapped": options.fill_unmapped,
        "starts_from_outcrop": [member.spec.input.reads_outcrop for member in predictor.members],
        "scales": [format_angle(scale) for scale in plan.windows],
        "windows": len(plan.jobs),
        "flips": plan.flips,
        "temperatures": [member.temperature(list(plan.windows)) for member in predictor.members],
        "temperatures_by_distance": [
            each.to_dict() if isinstance(each, DistanceTemperature) else None
            for each in (member.divisor(list(plan.windows)) for member in predictor.members)
        ],
        "calibrated": [member.calibration is not None for member in predictor.members],
        "class_offsets": predictor.class_offsets,
        "thickness_intervals": [
            None if interval is None else dict(interval.to_dict())
            for interval in (member.thickness_interval for member in predictor.members)
        ],
        "near_km": options.near_km,
        "cells": plan.grid.shape,
        "cell_deg": plan.grid.spacing_deg,
        "upsampling": plan.grid.upsampling,
        "crs": options.crs or "EPSG:4326",
        "device": plan.device,
        "precision": [scoring_precision(member.network) for member in predictor.members],
        "processes": options.processes,
        "batch_size": options.batch_size,
        **{
            name: [dict(each) for each in found]
            for name in ("prior_verdicts", "hidden_outcrop")
            if (found := getattr(checks, name))
        },
    }
