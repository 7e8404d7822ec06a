"""What `gravmap search` prints: before the search, its result, and the comparison with random architectures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gravmap.progress import describe_time

from .session import Session

if TYPE_CHECKING:
    from gravmap.learning import RegionDataset
    from gravmap.search.config import SearchConfig

LONG_S = 3600.0

SMALL = "--device cpu --thin --depth 5 --size 128 --steps-per-epoch 20 --pretrain-epochs 2 --epochs 4"
"""Options of a search that a CPU can do."""

NAMES = {"alpha": "operators", "ratio": "widths", "beta": "paths"}

RULES = {
    "downs": "the most probable downsampling steps",
    "viterbi": "the most probable path",
    "log-odds": "the path of the best log-odds",
    "sample": "a sampled path",
}


def _describe(dataset: RegionDataset, config: SearchConfig, processes: int) -> str:
    channels = ", ".join(config.inputs or dataset.channels)
    where = "the CPU" if config.device == "cpu" else "a GPU"
    if processes > 1:
        where = f"{processes} {'processes' if config.device == 'cpu' else 'GPUs'}"
    size = config.tile_size_px or dataset.meta["tile_size_px"]
    cost = f" Weight of the multiply-adds {config.flops_weight:g}." if config.flops_weight else ""
    return (
        f"Search over {config.depth} cells a branch{' (thin)' if config.thin else ''} on {where}: {channels}; "
        f"{size} pixels per window side, {len(dataset.classes)} classes. "
        f"{config.pretrain_epochs} epochs of weights only, then {config.epochs} of both, {config.steps} steps each, "
        f"batch size {config.batch_size}.{cost}"
    )


def _halves(dataset: RegionDataset, config: SearchConfig) -> str:
    from gravmap.search.data_split import split_for_search

    record = split_for_search(dataset, config.seed).record
    weights, choice = (sum(record["cells"][half].values()) for half in ("weights", "choice"))
    letters = "".join(record["half_of_block"])
    lacking = [
        f"{name} ({'the half that chooses' if half == 'choice' else 'the half that trains'})"
        for half, counts in record["cells"].items()
        for name, count in counts.items()
        if not count and any(other[name] for other in record["cells"].values())
    ]
    halves = (
        f"The training blocks in two halves: {letters.count('A')} with {weights} labelled cells train the weights, "
        f"{letters.count('B')} with {choice} choose the architecture."
    )
    return halves + (f" Missing in one half: {', '.join(lacking)}." if lacking else "")


def print_start(
    session: Session, dataset: RegionDataset, config: SearchConfig, run_dir: Path, processes: int = 1
) -> None:
    session.say(_describe(dataset, config, processes))
    session.say(_halves(dataset, config))
    if config.device == "cpu" and session.verbosity >= 0 and processes == 1:
        session.say(_measured(dataset, config)[0])
    session.say(f"Writing {run_dir}.")


def _measured(dataset: RegionDataset, config: SearchConfig) -> tuple[str, float]:
    """The time it takes, measured here: in words, and in seconds."""
    from gravmap.search.estimate import time_search

    seconds = time_search(dataset, config)
    estimate = f"From one step of each kind, measured here: about {describe_time(seconds)} in all"
    if config.time_limit_s and config.time_limit_s < seconds:
        return f"{estimate}, stopped after {describe_time(config.time_limit_s)}.", config.time_limit_s
    return f"{estimate}." + (f" Faster: {SMALL}." if seconds > LONG_S and config.device == "cpu" else ""), seconds


def print_plan(
    session: Session, dataset: RegionDataset, config: SearchConfig, run_dir: Path, processes: int, measured: bool
) -> None:
    """Print the cost of a search; `measured` where its device is present."""
    from gravmap.learning.data.channels import InputChannels
    from gravmap.learning.training.gradient_accumulation import crops_per_process
    from gravmap.search.estimate import estimate_search_cost

    inputs = InputChannels.fit(dataset, config.inputs)
    session.say(_describe(dataset, config, processes))
    # Of one process, with two crops at least; what the processes exchange is not counted.
    share = dataclasses.replace(config, batch_size=max(crops_per_process(config.batch_size, processes), 2))
    plan = estimate_search_cost(share, inputs.width, len(dataset.classes), (config.tile_size_px or 0) // 2)
    session.say(_halves(dataset, config))
    session.say(
        f"The supernet has {plan.parameters / 1e6:.1f} million parameters; with gradients, momentum and activations of "
        f"{share.batch_size} crops it needs about {plan.memory_bytes / 1e9:.1f} GB (float32)"
        f"{' on each GPU' if processes > 1 else ''}."
    )
    result: dict[str, Any] = {
        "would_write": str(run_dir),
        "config": dataclasses.asdict(config),
        "parameters": plan.parameters,
        "memory_bytes": plan.memory_bytes,
    }
    if measured:
        estimate, seconds = _measured(dataset, share)
        session.say(estimate)
        result["seconds"] = round(seconds, 1)
    if config.device == "cuda" and not measured:
        session.say("No GPU was found: `gravmap search` would stop with status 5.")
    if config.device == "cpu" or not measured:
        result["gpu_seconds_estimated"] = round(plan.gpu_seconds(config))
        session.say(
            f"On a GPU: an ESTIMATE, not measured, of {describe_time(plan.gpu_seconds(config))}, from 10 TFLOP/s and "
            "10 us to start each kernel."
        )
    session.say(f"Would write {run_dir}.")
    session.result(result)


def print_result(session: Session, run_dir: Path, found: dict[str, Any]) -> None:
    last = found["entropies"][-1]
    decided = ", ".join(
        f"{words} {100 * last[f'entropy_{name}'] / last[f'entropy_{name}_uniform']:.1f} %"
        for name, words in NAMES.items()
    )
    score = found["score"]
    fwiou = "no label in any crop" if score["fwiou"] is None else f"FWIoU {score['fwiou']:.3f}"
    session.say(
        f"Of {len(found['candidates'])} candidates the best with the shared weights: {RULES[found['rule']]} "
        f"({fwiou}, on the half that chooses); {found['parameters'] / 1e6:.2f} million parameters, "
        f"{found['gmac']:.1f} GMAC at {found['costed_px']} x {found['costed_px']}."
    )
    session.say(
        f"Entropy of the choices, relative to a uniform one: {decided}. Near 100 % the choice is close to random; "
        "--random N --compare tests whether the search gained anything."
    )
    session.say(f"Wrote {run_dir}; `gravmap train --architecture {run_dir / 'architecture.json'}` trains it.")


def print_random(session: Session, sampled: list[Path], found: dict[str, Any]) -> None:
    session.say(
        f"Sampled {len(sampled)} random architectures of {found['parameters'] / 1e6:.2f} million parameters "
        f"(within 10 %): {sampled[0].parent}."
    )


def print_comparison(session: Session, run_dir: Path, outcome: dict[str, Any]) -> None:
    schedule = outcome["schedule"]
    session.say(
        f"Each trained from scratch on all training blocks, {schedule['epochs']} epochs of {schedule['steps']} steps, "
        f"{schedule['seeds']} time(s); scores on the tuning blocks after the last epoch, percent:"
    )
    session.say(f"  {'':<12}{'parameters':>12}{'GMAC':>8}{'FWIoU':>14}{'accuracy':>14}{'mIoU':>14}")
    for row in outcome["architectures"]:
        scores = "".join(f"{_percent(row['scores'][name]):>14}" for name in ("fwiou", "pa", "miou"))
        session.say(f"  {row['name']:<12}{row['parameters'] / 1e6:>10.2f} M{row['gmac']:>8.1f}{scores}")
    session.say(outcome["told"])
    session.say(f"Wrote {run_dir / 'compare.json'} and compare.md.")


def _percent(score: dict[str, Any]) -> str:
    mean = f"{100 * score['mean']:.1f}"
    return mean if score["sd"] is None else f"{mean} +- {100 * score['sd']:.1f}"
