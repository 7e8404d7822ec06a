"""What scoring runs would cost: nodes, windows and time, before any network runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gravmap.gravity.topography import topography_at_nodes
from gravmap.lattice import TUNE
from gravmap.learning.evaluation.held_out import windows_over
from gravmap.learning.evaluation.importance import count_maps, draw_offsets, shift_input
from gravmap.learning.evaluation.node_predictor import FILE, load_node_predictor, missing_class_maps
from gravmap.learning.evaluation.null_models import NULL_MODELS, labelled_mask, unavailable_null_models
from gravmap.learning.evaluation.run_groups import group_runs, shared_settings
from gravmap.mapping.scoring.evaluate import FOREIGN_FILE, NO_TUNING, EvaluateOptions
from gravmap.mapping.scoring.finished_run import FinishedRun
from gravmap.network.cost import seconds_per_pass


@dataclass(frozen=True)
class CostEstimate:
    """What scoring a run would cost.

    Attributes
    ----------
    run, model, split : str
        Its name, its network, the split it was trained on.
    fold, seed : int
        Of its training.
    setup : dict
        What it shares with the other runs of its group.
    nodes : int
        Labelled nodes of the test blocks.
    boreholes : int or None
        Of those given, the ones that can be scored.
    window_deg : float
        Side of a window.
    windows : int
        That cover the nodes.
    passes : int
        Windows that would go through its network, in total; 0 where all classes are known from before.
    size_px : int
        Pixels across a window.
    seconds : float
        That the passes take on the device, as measured with one of them.
    null_models : list of str
        Keys of those that would be made.
    left_out : dict of str to str
        Those that cannot be, each with the reason.
    importance_left_out : str or None
        Why the importance of the fields cannot be measured, where it is wanted.
    """

    run: str
    model: str
    split: str
    fold: int
    seed: int
    setup: dict[str, Any]
    nodes: int
    boreholes: int | None
    window_deg: float
    windows: int
    passes: int
    size_px: int
    seconds: float
    null_models: list[str]
    left_out: dict[str, str]
    importance_left_out: str | None

    def to_dict(self) -> dict[str, Any]:
        """All of it for JSON but the setup."""
        return {key: value for key, value in asdict(self).items() if key != "setup"}


def estimate_run(folder: Path, tiles: Path, options: EvaluateOptions | None = None) -> CostEstimate:
    """Estimate the cost of :func:`gravmap.mapping.scoring.evaluate.evaluate_run`; nothing is written.

    Parameters
    ----------
    folder, tiles, options
        As there.

    Raises
    ------
    InputError
        As there.
    """
    options = options or EvaluateOptions()
    run = FinishedRun.open(folder, tiles, options.points, options.by_area)
    dataset, wanted = run.dataset, run.wanted
    topography = None
    if options.topography is not None:
        topography = topography_at_nodes(options.topography, dataset.node_lat, dataset.node_lon)
    reading = load_node_predictor(folder, options.device)

    def windows(nodes: Any) -> int:
        return len(windows_over(nodes, dataset, reading.scale_deg)) if nodes.any() else 0

    passes = windows(missing_class_maps(folder, dataset, wanted, file=FILE))
    made: list[str] = []
    missing: dict[str, str] = {}
    if options.baselines:
        foreign = shift_input(dataset, draw_offsets(dataset, 1, run.seed)[0])
        passes += windows(missing_class_maps(folder, foreign, wanted, file=FOREIGN_FILE))
        missing = unavailable_null_models(dataset, topography)
        made = [key for key in options.null_models or NULL_MODELS if key not in missing]
    tuned = labelled_mask(dataset, TUNE)
    if options.importance:
        passes += count_maps(reading.inputs) * windows(tuned)
    seconds = 0.0
    if passes:
        seconds = passes * seconds_per_pass(reading.network, reading.inputs.width, reading.tile_size_px, options.device)
    return CostEstimate(
        run=folder.name,
        model=run.model["model"],
        split=str(run.model["split"].get("name", "blocks")),
        fold=run.fold,
        seed=run.seed,
        setup=shared_settings(run.model),
        nodes=int(np.count_nonzero(run.nodes.counted)),
        boreholes=None if run.boreholes is None else int(run.boreholes.label.size),
        window_deg=reading.scale_deg,
        windows=windows(wanted),
        passes=passes,
        size_px=reading.tile_size_px,
        seconds=seconds,
        null_models=made,
        left_out=missing,
        importance_left_out=NO_TUNING if options.importance and not tuned.any() else None,
    )


def estimated_groups(runs: Sequence[CostEstimate]) -> list[list[str]]:
    """Names of the runs that would be summarised together."""
    return [
        [each["run"] for each in group] for group in group_runs([{"run": run.run, "setup": run.setup} for run in runs])
    ]
