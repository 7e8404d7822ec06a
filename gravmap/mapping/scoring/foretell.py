"""What scoring runs would take: nodes, windows and time, before any network is asked."""

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
from gravmap.mapping.scoring.opened_run import OpenedRun
from gravmap.network.cost import seconds_per_pass


@dataclass(frozen=True)
class Foretold:
    """What scoring a run would take.

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
        Windows that its network would be asked about, all told; 0 where all was asked before.
    size_px : int
        Pixels across a window.
    seconds : float
        That the passes take on the device, as measured with one of them.
    null_models : list of str
        Keys of those that would be made.
    left_out : dict of str to str
        Those that cannot be, each with the reason.
    importance_left_out : str or None
        Why it cannot be told what the fields are worth, where that is asked.
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


def foretell_run(folder: Path, tiles: Path, options: EvaluateOptions | None = None) -> Foretold:
    """Say what :func:`gravmap.mapping.scoring.evaluate.evaluate_run` would take; writes nothing.

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
    run = OpenedRun.of(folder, tiles, options.points, options.by_area)
    area, wanted = run.area, run.wanted
    topography = None
    if options.topography is not None:
        topography = topography_at_nodes(options.topography, area.node_lat, area.node_lon)
    reading = load_node_predictor(folder, options.device)

    def windows(nodes: Any) -> int:
        return len(windows_over(nodes, area, reading.scale_deg)) if nodes.any() else 0

    passes = windows(missing_class_maps(folder, area, wanted, file=FILE))
    made: list[str] = []
    missing: dict[str, str] = {}
    if options.baselines:
        foreign = shift_input(area, draw_offsets(area, 1, run.seed)[0])
        passes += windows(missing_class_maps(folder, foreign, wanted, file=FOREIGN_FILE))
        missing = unavailable_null_models(area, topography)
        made = [key for key in NULL_MODELS if key not in missing]
    tuned = labelled_mask(area, TUNE)
    if options.importance:
        passes += count_maps(reading.inputs) * windows(tuned)
    seconds = 0.0
    if passes:
        seconds = passes * seconds_per_pass(reading.network, reading.inputs.width, reading.tile_size_px, options.device)
    return Foretold(
        run=folder.name,
        model=run.model["model"],
        split=str(run.model["split"].get("name", "blocks")),
        fold=run.fold,
        seed=run.seed,
        setup=shared_settings(run.model),
        nodes=int(np.count_nonzero(run.ground.counted)),
        boreholes=None if run.holes is None else int(run.holes.label.size),
        window_deg=reading.scale_deg,
        windows=windows(wanted),
        passes=passes,
        size_px=reading.tile_size_px,
        seconds=seconds,
        null_models=made,
        left_out=missing,
        importance_left_out=NO_TUNING if options.importance and not tuned.any() else None,
    )


def groups_foretold(runs: Sequence[Foretold]) -> list[list[str]]:
    """Names of the runs that would be summarised together."""
    return [
        [each["run"] for each in group] for group in group_runs([{"run": run.run, "setup": run.setup} for run in runs])
    ]
