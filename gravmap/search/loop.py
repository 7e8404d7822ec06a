"""Architecture search: train a supernet, decode its architecture parameters, and keep the best candidate."""

from __future__ import annotations

import functools
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import nn
from typing_extensions import TypedDict

from gravmap.errors import InputError
from gravmap.files import write_json, write_text
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.evaluation import metrics
from gravmap.learning.training.checkpoint import versions
from gravmap.learning.training.curves import history_csv
from gravmap.learning.training.distributed import Group
from gravmap.learning.training.launch import restart_when_killed, run_in_processes
from gravmap.network.architecture import Architecture
from gravmap.network.cost import as_markdown, cost_by_part
from gravmap.network.precision import autocast
from gravmap.progress import Progress, describe_time, silent
from gravmap.records import Count, Ge, Le, Len, RunSplit, read_record, record
from gravmap.search.config import SearchConfig
from gravmap.search.cost_table import CostTable
from gravmap.search.decoding import candidates
from gravmap.search.figures import draw_architecture, draw_entropies
from gravmap.search.space import SearchSpace
from gravmap.search.state import SearchState
from gravmap.search.steps import Batch, downsample_targets, ohem_loss
from gravmap.search.supernet import recalibrate

COST_IMAGE_PX = 1024
"""Image size of reported multiply-adds, pixels per side."""


@functools.cache
def cost_table(space: SearchSpace, in_channels: int, classes: int) -> CostTable:
    """Costs of the architectures of a space for a 1024 x 1024 image."""
    return CostTable(space, in_channels, classes, COST_IMAGE_PX)


def architecture_cost(architecture: Architecture, table: CostTable) -> dict[str, float]:
    """Parameters and GMAC of the network of an architecture."""
    return {"parameters": table.parameters(architecture), "gmac": table.macs(architecture) / 1e9}


def score_candidates(
    state: SearchState, candidates: list[tuple[str, Architecture]], progress: Progress = silent
) -> list[dict[str, Any]]:
    """Score candidates with the supernet's weights, on the half of the training data for the architecture.

    The processes of a group score a part of the candidates each.

    Parameters
    ----------
    state : SearchState
        After its last epoch.
    candidates : list of (str, Architecture)
        The decoding rule and its architecture.
    progress : Progress
        Called with the number of finished candidates, as counted by this process.

    Returns
    -------
    list of dict
        One per candidate, best first (of equals the earlier): `rule`, `fwiou`, `loss` and `pa` (None if no crop has a
        label), `parameters`, `gmac` and `architecture`.
    """
    config, group = state.config, state.group
    fields = [batch[0] for batch in state.batches(state.weights_sampler, config.calibration_batches)]
    scoring_batches = state.batches(state.scoring_sampler, config.score_batches)
    table = cost_table(config.space, state.inputs.width, len(state.dataset.classes))
    found = []
    for number in range(group.rank, len(candidates), group.size):
        rule, architecture = candidates[number]
        progress(number, len(candidates), "candidates")
        with autocast(state.precision, state.device):
            network = recalibrate(state.supernet, architecture, fields)
        scored = _score(state, network, scoring_batches)
        cost = architecture_cost(architecture, table)
        found.append((number, {"rule": rule, **scored, **cost, "architecture": architecture.to_dict()}))
    scored_by_all = [each for part in group.gather(found) for each in part]
    rows = [row for _, row in sorted(scored_by_all, key=lambda each: each[0])]
    progress(len(candidates), len(candidates), "candidates")
    return sorted(rows, key=lambda row: (0.0, 0.0) if row["fwiou"] is None else (-row["fwiou"], row["loss"]))


@torch.no_grad()
def _score(state: SearchState, network: nn.Module, batches: list[Batch]) -> dict[str, Any]:
    """Loss and scores of the fused head at 1/8."""
    classes = len(state.dataset.classes)
    terms = ohem_loss(state.class_weight, topk_share=1.0, small_weight=1.0)
    sums = torch.zeros(2, dtype=torch.float64)
    matrix = torch.zeros(classes, classes, dtype=torch.int64)
    for values, target, small in batches:
        with autocast(state.precision, state.device):
            fused = network(values)[-1]
        truth, small = downsample_targets(target), downsample_targets(small)
        logits = fused[..., : truth.shape[-2], : truth.shape[-1]].float()
        sums += torch.stack(terms(logits, truth, small)).cpu()
        matrix += torch.from_numpy(metrics.confusion(truth.cpu().numpy(), logits.argmax(1).cpu().numpy(), classes))
    measures = metrics.scores(matrix.numpy())
    loss = float(sums[0] / sums[1]) if float(sums[1]) else None
    return {"loss": loss, "fwiou": measures["fwiou"], "pa": measures["pa"]}


log = logging.getLogger(__name__)

ARCHITECTURE = "architecture.json"
RECORD = "search.json"
"""Marks a run's folder as a search, and records whether it is finished."""

SCORING_STEPS = 12
"""Part of a time limit, in steps, reserved for scoring the candidates; each runs one path of the supernet."""


def search(
    dataset: RegionDataset,
    run_dir: Path,
    config: SearchConfig,
    progress: Progress = silent,
    *,
    group: Group | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Search for an architecture.

    In the first phase only the weights of the supernet are trained, at the largest, the smallest and random widths. In
    the second phase weights and architecture parameters are trained in turn, on one half of the training cells each.
    Finally several decoding rules give candidate architectures, and the one with the best score with the shared weights
    is kept.

    Writes into `run_dir`: `architecture.json`, `search.json`, `metrics.csv`, `entropies.png`, `architecture.png`,
    `architecture.md` and the full state after the last epoch, `last.safetensors` and `last.json`.

    Parameters
    ----------
    dataset : RegionDataset
        Labels of tuning and test blocks are not used.
    run_dir : Path
        Folder of the search, created if missing.
    config : SearchConfig
        Configuration of the search.
    progress : Progress
        Called with the number of finished steps and a status line.
    group : Group, optional
        Processes that search together, all with a call of this function; the first one writes. By default a single
        process on `config.device`.
    resume : bool
        Resume after the last whole epoch, also with another number of processes; on a CPU with the same number the
        result is that of an uninterrupted search.

    Returns
    -------
    dict
        Content of `search.json`.

    Raises
    ------
    InputError
        One half of the training data has no usable window; or the search cannot be resumed.
    OptionError
        The batch cannot be divided among the processes.
    GravmapError
        The loss is no longer finite.

    Examples
    --------
    The smallest search, on a tile set in ``data/tiles``; a real one has the default depth and hundreds of steps:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from gravmap.learning import RegionDataset
    >>> from gravmap.search import SearchConfig, search
    >>> from gravmap.tiling import load_arrays
    >>> dataset = RegionDataset.from_arrays(load_arrays(Path("data/tiles")))
    >>> config = SearchConfig(
    ...     depth=3, chis=(1, 2), thin=True, tile_size_px=64, batch_size=2, steps=1, pretrain_epochs=1, epochs=1,
    ...     device="cpu",
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = search(dataset, Path(folder), config)
    >>> found["finished"]
    True
    """
    state = SearchState(dataset, config, group)
    if resume:
        state.restore(run_dir)
    if state.group.rank == 0:
        write_json(run_dir / RECORD, {"finished": False, **_metadata(state)})
    if state.group.size > 1 and not state.group.synchronises_batch_norm and state.group.rank == 0:
        log.warning(
            "Each of the %d CPU processes normalises its own crops (batch normalisation is synchronised on GPUs only), "
            "so the search is not the one that another number of processes would make.",
            state.group.size,
        )
    _run_epochs(state, run_dir, progress)
    return _finish(state, run_dir, progress)


def launch_search(
    dataset: RegionDataset,
    run_dir: Path,
    config: SearchConfig,
    processes: int,
    progress: Progress = silent,
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """Search with several processes on this machine, one per GPU.

    If a signal ends one of them, all are restarted and resume after the last complete epoch.

    Parameters
    ----------
    dataset, run_dir, config, progress, resume
        As in :func:`search`.
    processes : int
        Number of processes.

    Returns
    -------
    dict
        As :func:`search`.

    Raises
    ------
    GravmapError
        The error of the first process that failed, after all others were ended; or processes were killed repeatedly.
    """
    with tempfile.TemporaryDirectory(prefix="gravmap-") as scratch:
        path = Path(scratch, "data.npz")
        dataset.save(path)

        def start(resume: bool) -> dict[str, Any]:
            return run_in_processes(_search, (path, run_dir, config, resume), config.device, processes, progress)

        return restart_when_killed(start, run_dir, resume)


def _search(
    group: Group, progress: Progress, data: Path, run_dir: Path, config: SearchConfig, resume: bool
) -> dict[str, Any]:
    """Search in one of the processes that :func:`launch_search` starts."""
    return search(RegionDataset.load(data), run_dir, config, progress, group=group, resume=resume)


def _run_epochs(state: SearchState, run_dir: Path, progress: Progress) -> None:
    """Run all epochs, or as many as the time limit allows."""
    config, group = state.config, state.group
    total = config.total_epochs * config.steps
    clock, limit = time.monotonic(), config.time_limit_s
    elapsed = 0.0  # on the clock of the first process: all must take the same steps at the same temperature
    before, steps = state.epoch, 0
    pretrain_fraction = config.pretrain_epochs / config.total_epochs
    while not state.done:
        started = time.monotonic()
        state.start_epoch()
        losses: list[tuple[float, float | None]] = []
        out_of_time = False
        for index in range(config.steps):
            group.at(f"epoch {state.epoch + 1}, step {index + 1}", step=True)
            progress_of_phase = (state.epoch - state.pretrain_epochs_done + index / config.steps) / config.epochs
            if limit is not None and not state.pretraining:
                progress_of_phase = max(progress_of_phase, elapsed / limit)
            losses.append(state.step(index, progress_of_phase))
            steps += 1
            elapsed = group.broadcast(time.monotonic() - clock)
            left_s = elapsed / steps * (total - before * config.steps - steps)
            if limit is not None:
                left_s = min(left_s, max(limit - elapsed, 0))
                time_budget = (
                    limit * pretrain_fraction if state.pretraining else limit - SCORING_STEPS * elapsed / steps
                )
                out_of_time = elapsed > time_budget
            done = min(before * config.steps + steps, total)
            progress(done, total, f"{_status_line(state, losses)} about {describe_time(max(left_s, 0))} left")
            if out_of_time:
                break
        pretraining = state.pretraining
        group.at(f"the end of epoch {state.epoch + 1}")
        state.end_epoch(losses, time.monotonic() - started)
        if out_of_time and pretraining:
            state.end_pretraining()
        if group.rank == 0:
            state.save(run_dir)
            write_text(run_dir / "metrics.csv", history_csv(state.history))
        if out_of_time and not pretraining:
            log.info("Time limit reached after %d epochs.", state.epoch)
            break
    group.at("the scores of the candidates")


def _status_line(state: SearchState, losses: list[tuple[float, float | None]]) -> str:
    """Epoch and losses as text."""
    config = state.config
    weights_loss, architecture_loss = losses[-1]
    epoch = f"epoch {state.epoch + 1}/{config.total_epochs} {'weights only' if state.pretraining else 'search'}"
    return f"{epoch} loss {weights_loss:.3f}" + (
        "" if architecture_loss is None else f", architecture {architecture_loss:.3f}"
    )


def _finish(state: SearchState, run_dir: Path, progress: Progress) -> dict[str, Any]:
    """Decode and score the candidates, and write the result."""
    config = state.config
    rng = np.random.default_rng(np.random.SeedSequence((config.seed, config.total_epochs)))
    decoded = candidates(state.supernet.architecture_logits(), state.supernet.space, rng, config.sampled_paths)
    found = score_candidates(state, state.group.broadcast(decoded), progress)
    best = found[0]
    record = {
        "finished": True,
        "complete": state.done,
        **_metadata(state),
        "rule": best["rule"],
        "score": {"fwiou": best["fwiou"], "loss": best["loss"], "pa": best["pa"]},
        "parameters": best["parameters"],
        "gmac": best["gmac"],
        "costed_px": COST_IMAGE_PX,
        "architecture": best["architecture"],
        "candidates": found,
        "entropies": [
            {name: value for name, value in row.items() if _is_entropy_column(name)} for row in state.history
        ],
        "seconds": round(sum(row["seconds"] for row in state.history), 1),
    }
    if state.group.rank:
        return record
    architecture = Architecture.from_dict(best["architecture"])
    draw_entropies(state.history, run_dir / "entropies.png", run_dir.name)
    shape = {"in_channels": state.inputs.width, "classes": len(state.dataset.classes), "size": COST_IMAGE_PX}
    draw_architecture(architecture, run_dir / "architecture.png", title=run_dir.name, **shape)
    write_text(run_dir / "architecture.md", as_markdown(cost_by_part(architecture, **shape)))
    write_json(run_dir / ARCHITECTURE, best["architecture"])
    write_json(run_dir / RECORD, record)
    return record


def _metadata(state: SearchState) -> dict[str, Any]:
    """Description of a search before its result."""
    return {
        "options": json.loads(state.config.to_json()),
        "seed": state.config.seed,
        "precision": state.precision,
        "inputs": state.inputs.names,
        "in_channels": state.inputs.width,
        "tile_size_px": state.tile_size_px,
        "classes": [str(each["name"]) for each in state.dataset.classes],
        "split": state.dataset.meta.get("split", {}),
        "area_sha256": state.fingerprint,
        "halves": state.split.record,
        "versions": versions(),
    }


@record
class SearchRecord(TypedDict, total=False):
    """Content of ``search.json``; the result is missing while the search runs."""

    finished: bool
    complete: bool
    options: dict[str, Any]
    seed: Count
    precision: str
    inputs: Annotated[list[str], Len(1)]
    in_channels: Annotated[int, Ge(1), Le(4096)]
    tile_size_px: Annotated[int, Ge(1), Le(1 << 16)]
    classes: Annotated[list[str], Len(1, 254)]
    split: RunSplit
    area_sha256: str
    rule: str
    score: dict[str, float | None]
    parameters: Annotated[int, Ge(1)]
    gmac: float
    costed_px: Annotated[int, Ge(1)]
    architecture: dict[str, Any]
    candidates: list[dict[str, Any]]
    entropies: Annotated[list[dict[str, float | str | None]], Len(1)]
    seconds: float


_SETTINGS = ("options", "seed", "inputs", "in_channels", "tile_size_px", "classes", "split", "area_sha256")
_RESULT = ("rule", "score", "parameters", "gmac", "costed_px", "architecture", "candidates", "entropies")


def read_search_record(run_dir: Path) -> dict[str, Any]:
    """Read `search.json` of a search, finished or not.

    Raises
    ------
    InputError
        It is missing or damaged.
    """
    path = run_dir / RECORD
    found: dict[str, Any] = {**read_record(path, SearchRecord, "gravmap search")}
    needed = (*_SETTINGS, *(_RESULT if found.get("finished") else ()))
    if lacking := [key for key in needed if key not in found]:
        raise InputError(f"{path} lacks {', '.join(lacking)}.", "Start a new search with another --name.")
    return found


def read_search(run_dir: Path) -> dict[str, Any]:
    """Read the result of a finished search, its `search.json`.

    Raises
    ------
    InputError
        There is no search in the folder, or it is not finished.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read_search(Path(folder))
    Traceback (most recent call last):
    ...
    gravmap.errors.InputError: ...search.json is missing.
    `gravmap search` makes it.
    """
    record = read_search_record(run_dir)
    if not record.get("finished"):
        raise InputError(
            f"The search {run_dir.name} is not finished.",
            f"Resume it with `gravmap search --resume --name {run_dir.name}`.",
        )
    return record


def _is_entropy_column(name: str) -> bool:
    return name in ("epoch", "phase") or name.startswith("entropy_")
