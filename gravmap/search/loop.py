"""Architecture search: which operators, widths and paths suit the training data of a region."""

from __future__ import annotations

import functools
import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gravmap.errors import InputError
from gravmap.files import read_json, write_json, write_text
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.evaluation import metrics
from gravmap.learning.training.checkpoint import versions
from gravmap.learning.training.curves import history_csv
from gravmap.network.architecture import Architecture
from gravmap.network.cost import as_markdown, cost_by_part
from gravmap.progress import Progress, describe_time, silent
from gravmap.search.config import SearchConfig
from gravmap.search.cost_table import CostTable
from gravmap.search.decoding import candidates
from gravmap.search.figures import draw_architecture, draw_entropies
from gravmap.search.space import SearchSpace
from gravmap.search.state import SearchState
from gravmap.search.steps import Batch, bootstrapped_terms, downsample_targets
from gravmap.search.supernet import recalibrate

COSTED_PX = 1024
"""Multiply-adds are those of one image of so many pixels a side."""


@functools.cache
def cost_table(space: SearchSpace, in_channels: int, classes: int) -> CostTable:
    """What architectures of a space cost on one 1024 x 1024 image."""
    return CostTable(space, in_channels, classes, COSTED_PX)


def cost_of(architecture: Architecture, table: CostTable) -> dict[str, float]:
    """Parameters, and GMAC, of the network an architecture makes."""
    return {"parameters": table.parameters(architecture), "gmac": table.macs(architecture) / 1e9}


def score_candidates(
    state: SearchState, candidates: list[tuple[str, Architecture]], progress: Progress = silent
) -> list[dict[str, Any]]:
    """Score candidates with the supernet's weights, on the half that chooses.

    Parameters
    ----------
    state : SearchState
        After its last epoch.
    candidates : list of (str, Architecture)
        The rule each came from, and what it gave.
    progress : Progress
        Told the candidates done.

    Returns
    -------
    list of dict
        One per candidate, best first (of equals the earlier): `rule`, `fwiou`, `loss` and `pa` (None where no crop has
        a label), `parameters`, `gmac` and `architecture`.
    """
    config = state.config
    fields = [batch[0] for batch in state.batches(state.teaching, config.calibration_batches)]
    asked = state.batches(state.asked, config.score_batches)
    table = cost_table(config.space, state.inputs.width, len(state.dataset.classes))
    found = []
    for number, (rule, architecture) in enumerate(candidates):
        progress(number, len(candidates), "candidates")
        with torch.autocast(state.device.type, torch.bfloat16, enabled=config.half):
            network = recalibrate(state.supernet, architecture, fields)
        scored = _score(state, network, asked)
        found.append({"rule": rule, **scored, **cost_of(architecture, table), "architecture": architecture.to_dict()})
    progress(len(candidates), len(candidates), "candidates")
    return sorted(found, key=lambda row: (0.0, 0.0) if row["fwiou"] is None else (-row["fwiou"], row["loss"]))


@torch.no_grad()
def _score(state: SearchState, network: nn.Module, asked: list[Batch]) -> dict[str, Any]:
    """Loss and scores of the fused head at 1/8."""
    classes = len(state.dataset.classes)
    terms = bootstrapped_terms(state.class_weight, topk_share=1.0, small_weight=1.0)
    sums = torch.zeros(2, dtype=torch.float64)
    matrix = torch.zeros(classes, classes, dtype=torch.int64)
    for values, target, small in asked:
        with torch.autocast(state.device.type, torch.bfloat16, enabled=state.config.half):
            fused = network(values)[-1]
        truth, small = downsample_targets(target), downsample_targets(small)
        logits = fused[..., : truth.shape[-2], : truth.shape[-1]].float()
        sums += torch.stack(terms(logits, truth, small)).cpu()
        matrix += torch.from_numpy(metrics.confusion(truth.cpu().numpy(), logits.argmax(1).cpu().numpy(), classes))
    told = metrics.scores(matrix.numpy())
    loss = float(sums[0] / sums[1]) if float(sums[1]) else None
    return {"loss": loss, "fwiou": told["fwiou"], "pa": told["pa"]}


log = logging.getLogger(__name__)

ARCHITECTURE = "architecture.json"
RECORD = "search.json"
"""In a run's folder it says that the run is a search, and whether it is finished."""

ENDING_STEPS = 12
"""So many steps' time is kept of a time limit for scoring the candidates: each runs one path of the supernet's."""


def search(
    dataset: RegionDataset,
    run_dir: Path,
    config: SearchConfig,
    progress: Progress = silent,
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """Search for an architecture.

    First the supernet's weights are taught alone, at the largest, the smallest and random widths. Then architecture and
    weights take turns: on one half of the training cells the weights, on the other operators, widths and paths. In the
    end several rules turn the parameters into architectures, and the one that does best with the shared weights stays.

    Writes into `run_dir`: `architecture.json`, `search.json`, `metrics.csv`, `entropies.png`, `architecture.png`,
    `architecture.md` and the full state after the last epoch, `last.safetensors` and `last.json`.

    Parameters
    ----------
    area : RegionDataset
        Of it no held-out label is looked at, of tuning blocks or of test blocks.
    run_dir : Path
        The search's folder, made when missing.
    config : SearchConfig
        How to search.
    progress : Progress
        Told the steps done and a note.
    resume : bool
        Go on from the last whole epoch: on a CPU to the same architecture as an unbroken search.

    Returns
    -------
    dict
        What `search.json` holds.

    Raises
    ------
    InputError
        Half of the training ground teaches nothing; or the search cannot be resumed.
    GravmapError
        The loss is no longer a finite number.
    """
    state = SearchState(dataset, config)
    if resume:
        state.restore(run_dir)
    write_json(run_dir / RECORD, {"finished": False, **_about(state)})
    _run(state, run_dir, progress)
    return _finish(state, run_dir, progress)


def _run(state: SearchState, run_dir: Path, progress: Progress) -> None:
    """Take all epochs, or as many as the clock allows."""
    config = state.config
    total = config.epochs_in_all * config.steps
    clock, limit = time.monotonic(), config.time_limit_s
    before, steps = state.epoch, 0
    share_of_warm_up = config.pretrain_epochs / config.epochs_in_all
    while not state.done:
        began = time.monotonic()
        state.begin_epoch()
        losses: list[tuple[float, float | None]] = []
        out_of_time = False
        for index in range(config.steps):
            elapsed = time.monotonic() - clock
            share = (state.epoch - state.pretrained + index / config.steps) / config.epochs
            if limit is not None and not state.warm:
                share = max(share, elapsed / limit)
            losses.append(state.step(index, share))
            steps += 1
            elapsed = time.monotonic() - clock
            left_s = elapsed / steps * (total - before * config.steps - steps)
            if limit is not None:
                left_s = min(left_s, max(limit - elapsed, 0))
                part = limit * share_of_warm_up if state.warm else limit - ENDING_STEPS * elapsed / steps
                out_of_time = elapsed > part
            done = min(before * config.steps + steps, total)
            progress(done, total, f"{_told(state, losses)} about {describe_time(max(left_s, 0))} left")
            if out_of_time:
                break
        warm = state.warm
        state.end_epoch(losses, time.monotonic() - began)
        if out_of_time and warm:
            state.end_warm_up()
        state.save(run_dir)
        write_text(run_dir / "metrics.csv", history_csv(state.history))
        if out_of_time and not warm:
            log.info("The time limit is reached after %d epochs.", state.epoch)
            break


def _told(state: SearchState, losses: list[tuple[float, float | None]]) -> str:
    """Where the search is, in words."""
    config = state.config
    taught, chosen = losses[-1]
    epoch = f"epoch {state.epoch + 1}/{config.epochs_in_all} {'weights alone' if state.warm else 'search'}"
    return f"{epoch} loss {taught:.3f}" + ("" if chosen is None else f", on the other half {chosen:.3f}")


def _finish(state: SearchState, run_dir: Path, progress: Progress) -> dict[str, Any]:
    """Decode, score the candidates, and write what was found."""
    config = state.config
    rng = np.random.default_rng(np.random.SeedSequence((config.seed, config.epochs_in_all)))
    decoded = candidates(state.supernet.preferences(), state.supernet.space, rng, config.sampled_paths)
    found = score_candidates(state, decoded, progress)
    best = found[0]
    record = {
        "finished": True,
        "complete": state.done,
        **_about(state),
        "rule": best["rule"],
        "score": {"fwiou": best["fwiou"], "loss": best["loss"], "pa": best["pa"]},
        "parameters": best["parameters"],
        "gmac": best["gmac"],
        "costed_px": COSTED_PX,
        "architecture": best["architecture"],
        "candidates": found,
        "entropies": [{name: value for name, value in row.items() if _says_entropy(name)} for row in state.history],
        "seconds": round(sum(row["seconds"] for row in state.history), 1),
    }
    architecture = Architecture.from_dict(best["architecture"])
    draw_entropies(state.history, run_dir / "entropies.png", run_dir.name)
    shape = {"in_channels": state.inputs.width, "classes": len(state.dataset.classes), "size": COSTED_PX}
    draw_architecture(architecture, run_dir / "architecture.png", title=run_dir.name, **shape)
    write_text(run_dir / "architecture.md", as_markdown(cost_by_part(architecture, **shape)))
    write_json(run_dir / ARCHITECTURE, best["architecture"])
    write_json(run_dir / RECORD, record)
    return record


def _about(state: SearchState) -> dict[str, Any]:
    """What a search is, before anything is found."""
    return {
        "options": json.loads(state.config.to_json()),
        "seed": state.config.seed,
        "inputs": state.inputs.names,
        "in_channels": state.inputs.width,
        "tile_size_px": state.tile_size_px,
        "classes": [str(each["name"]) for each in state.dataset.classes],
        "split": state.dataset.meta.get("split", {}),
        "area_sha256": state.fingerprint,
        "halves": state.halves.record,
        "versions": versions(),
    }


def read_search(run_dir: Path) -> dict[str, Any]:
    """What a finished search found: its `search.json`.

    Raises
    ------
    InputError
        There is no search in the folder, or it is not finished.
    """
    record: dict[str, Any] = read_json(run_dir / RECORD, "gravmap search")
    if not record.get("finished"):
        raise InputError(
            f"The search {run_dir.name} is not finished.", f"`gravmap search --resume --name {run_dir.name}` goes on."
        )
    return record


def _says_entropy(name: str) -> bool:
    return name in ("epoch", "phase") or name.startswith("entropy_")
