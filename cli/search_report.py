"""What `gravmap search` says: before it begins, when it has found something, and what that is worth."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gravmap.progress import describe_time

from .session import Session

if TYPE_CHECKING:
    from gravmap.learning import RegionDataset
    from gravmap.search import SearchConfig

LONG_S = 3600.0

NAMES = {"alpha": "operators", "ratio": "widths", "beta": "paths"}

RULES = {
    "downs": "the likeliest places to go down",
    "viterbi": "the likeliest path",
    "log-odds": "the path of the best odds",
    "sample": "a path drawn by chance",
}


def _describe(area: RegionDataset, config: SearchConfig) -> str:
    read = ", ".join(config.inputs or area.channels)
    where = "the CPU" if config.device == "cpu" else "a GPU"
    size = config.tile_size_px or area.meta["tile_size_px"]
    cost = f" Multiply-adds weigh {config.flops_weight:g}." if config.flops_weight else ""
    return (
        f"Search over {config.depth} cells a branch{' (thin)' if config.thin else ''} on {where}: {read}; "
        f"{size} pixels a window, {len(area.classes)} classes. {config.pretrain_epochs} epochs of weights alone, then "
        f"{config.epochs} of both, {config.steps} steps each, {config.batch_size} crops a step.{cost}"
    )


def _halves(area: RegionDataset, config: SearchConfig) -> str:
    from gravmap.search.data_split import split_for_search

    record = split_for_search(area, config.seed).record
    teaching, choosing = (sum(record["cells"][half].values()) for half in ("weights", "choice"))
    letters = "".join(record["half_of_block"])
    lacking = [
        f"{name} ({'the half that chooses' if half == 'choice' else 'the half that teaches'})"
        for half, counts in record["cells"].items()
        for name, count in counts.items()
        if not count and any(other[name] for other in record["cells"].values())
    ]
    told = (
        f"The training ground in two halves: {letters.count('A')} blocks with {teaching} labelled cells teach the "
        f"weights, {letters.count('B')} with {choosing} choose."
    )
    return told + (f" Missing in one half: {', '.join(lacking)}." if lacking else "")


def tell_start(session: Session, area: RegionDataset, config: SearchConfig, run_dir: Path) -> None:
    session.say(_describe(area, config))
    session.say(_halves(area, config))
    if config.device == "cpu" and session.verbosity >= 0:
        session.say(_measured(area, config)[0])
    session.say(f"Writing {run_dir}.")


def _measured(area: RegionDataset, config: SearchConfig) -> tuple[str, float]:
    """How long it will take, tried out here: in words, and in seconds."""
    from gravmap.search.estimate import time_search

    seconds = time_search(area, config)
    told = f"A step of each kind was tried here: about {describe_time(seconds)} in all"
    if config.time_limit_s and config.time_limit_s < seconds:
        return f"{told}, cut short after {describe_time(config.time_limit_s)}.", config.time_limit_s
    advice = "--thin --depth 5 --size 128 --steps 20 --pretrain-epochs 2 --epochs 4"
    return f"{told}." + (f" Shorter: {advice}." if seconds > LONG_S and config.device == "cpu" else ""), seconds


def tell_plan(session: Session, area: RegionDataset, config: SearchConfig, run_dir: Path, measured: bool) -> None:
    """Say what a search would take; `measured` where its device is here."""
    from gravmap.learning.data.channels import InputChannels
    from gravmap.search.estimate import estimate_search_cost

    inputs = InputChannels.fit(area, config.inputs)
    plan = estimate_search_cost(config, inputs.width, len(area.classes), (config.tile_size_px or 0) // 2)
    session.say(_describe(area, config))
    session.say(_halves(area, config))
    session.say(
        f"The supernet has {plan.parameters / 1e6:.1f} million parameters; with gradients, momentum and the maps of "
        f"{config.batch_size} crops it takes about {plan.memory_bytes / 1e9:.1f} GB (float32)."
    )
    result: dict[str, Any] = {
        "would_write": str(run_dir),
        "config": dataclasses.asdict(config),
        "parameters": plan.parameters,
        "memory_bytes": plan.memory_bytes,
    }
    if measured:
        told, seconds = _measured(area, config)
        session.say(told)
        result["seconds"] = round(seconds, 1)
    if config.device == "cuda" and not measured:
        session.say("No GPU is seen here: `gravmap search` would end with status 5.")
    if config.device == "cpu" or not measured:
        result["gpu_seconds_estimated"] = round(plan.gpu_seconds(config))
        session.say(
            f"On a GPU: an ESTIMATE, not measured, of {describe_time(plan.gpu_seconds(config))}, from 10 TFLOP/s and "
            "10 us to start each kernel."
        )
    session.say(f"Would write {run_dir}.")
    session.result(result)


def tell_result(session: Session, run_dir: Path, found: dict[str, Any]) -> None:
    last = found["entropies"][-1]
    decided = ", ".join(
        f"{words} {100 * last[f'entropy_{name}'] / last[f'entropy_{name}_uniform']:.1f} %"
        for name, words in NAMES.items()
    )
    score = found["score"]
    told = "no label in any crop" if score["fwiou"] is None else f"FWIoU {score['fwiou']:.3f}"
    session.say(
        f"Of {len(found['candidates'])} candidates the best with the shared weights: {RULES[found['rule']]} "
        f"({told}, on the half that chooses); {found['parameters'] / 1e6:.2f} million parameters, "
        f"{found['gmac']:.1f} GMAC at {found['costed_px']} x {found['costed_px']}."
    )
    session.say(
        f"Entropy left, of what it is where nothing is decided: {decided}. Near 100 % the choice is close to a random "
        "draw; --random N --compare says whether it was worth it."
    )
    session.say(f"Wrote {run_dir}; `gravmap train --architecture {run_dir / 'architecture.json'}` takes it.")


def tell_random(session: Session, drawn: list[Path], found: dict[str, Any]) -> None:
    session.say(
        f"Drew {len(drawn)} random architectures of {found['parameters'] / 1e6:.2f} million parameters (within 10 %): "
        f"{drawn[0].parent}."
    )


def tell_comparison(session: Session, run_dir: Path, outcome: dict[str, Any]) -> None:
    schedule = outcome["schedule"]
    session.say(
        f"Each trained from scratch on all training ground, {schedule['epochs']} epochs of {schedule['steps']} steps, "
        f"{schedule['seeds']} time(s); scores on the tuning blocks after the last epoch, percent:"
    )
    session.say(f"  {'':<12}{'parameters':>12}{'GMAC':>8}{'FWIoU':>14}{'accuracy':>14}{'mIoU':>14}")
    for row in outcome["architectures"]:
        scores = "".join(f"{_percent(row['scores'][name]):>14}" for name in ("fwiou", "pa", "miou"))
        session.say(f"  {row['name']:<12}{row['parameters'] / 1e6:>10.2f} M{row['gmac']:>8.1f}{scores}")
    session.say(outcome["told"])
    session.say(f"Wrote {run_dir / 'compare.json'} and compare.md.")


def _percent(spread: dict[str, Any]) -> str:
    told = f"{100 * spread['mean']:.1f}"
    return told if spread["sd"] is None else f"{told} +- {100 * spread['sd']:.1f}"
