"""Is a searched architecture better than one drawn at random? Both are trained alike and scored alike."""

from __future__ import annotations

import json
import shutil
import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gravmap.errors import InputError, OptionError
from gravmap.files import atomic_folder, read_json, write_json, write_text
from gravmap.lattice import TEST, TUNE, UNUSABLE
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.training.config import TrainConfig
from gravmap.learning.training.distributed import Group
from gravmap.learning.training.trainer import Trainer
from gravmap.network.architecture import Architecture
from gravmap.network.operators import OPERATORS
from gravmap.network.registry import read_architecture
from gravmap.progress import Progress, silent
from gravmap.search.config import SearchConfig
from gravmap.search.cost_table import CostTable
from gravmap.search.halves import training_view
from gravmap.search.search import ARCHITECTURE, cost_of, cost_table, read_search
from gravmap.search.space import SCALES, SupernetSpace

TOLERANCE = 0.1
"""Of the budget, either way."""
TRIES = 20_000
"""At most, for each one asked for."""


def random_architectures(
    space: SupernetSpace,
    n: int,
    budget_parameters: int,
    rng: np.random.Generator,
    in_channels: int,
    classes: int,
) -> list[Architecture]:
    """Draw architectures of about as many parameters as another.

    Operators and widths are drawn map by map, and each branch's path among all of it, everything alike; what does not
    hold together (a stretch of skips alone) or misses the budget by more than 10 % is drawn anew.

    Parameters
    ----------
    space : SupernetSpace
        What may be chosen.
    n : int
        How many, all different.
    budget_parameters : int
        Parameters of the whole GGMNet.
    rng : numpy.random.Generator
        The same state gives the same architectures.
    in_channels, classes : int
        Of the GGMNet.

    Raises
    ------
    OptionError
        The budget cannot be met; the message says what the draws came to.
    """
    costs = CostTable(space, in_channels, classes)
    found: dict[Architecture, None] = {}
    least, most = np.inf, 0.0
    for _ in range(n):
        for _ in range(TRIES):
            architecture = draw_architecture(space, rng)
            parameters = costs.parameters(architecture)
            least, most = min(least, parameters), max(most, parameters)
            if abs(parameters - budget_parameters) <= TOLERANCE * budget_parameters and architecture not in found:
                found[architecture] = None
                break
        else:
            raise OptionError(
                f"Only {len(found)} of {n} random architectures have {budget_parameters / 1e6:.2f} million parameters "
                f"(within 10 %): {TRIES} more draws had {least / 1e6:.2f} to {most / 1e6:.2f} million.",
                "Ask for fewer, or for a budget nearer the middle of what is drawn.",
            )
    return list(found)


def draw_architecture(space: SupernetSpace, rng: np.random.Generator) -> Architecture:
    """Draw one architecture, whatever it costs."""
    shape = (len(SCALES), space.depth)
    while True:
        paths = tuple(all_paths[rng.integers(len(all_paths))] for all_paths in map(space.paths, SCALES))
        ops = rng.integers(len(OPERATORS), size=shape)
        chis = rng.integers(len(space.chis), size=shape)
        try:
            return space.architecture(
                paths, [[OPERATORS[i] for i in row] for row in ops], [[space.chis[i] for i in row] for row in chis]
            )
        except OptionError:
            continue  # a stretch of skips alone


RANDOM, COMPARE, SEARCHED = "random", "compare", "searched"
MEASURES = ("fwiou", "pa", "mpa", "miou")


@dataclass(frozen=True)
class Schedule:
    """How every architecture of a comparison is trained.

    Attributes
    ----------
    epochs, steps, batch_size : int
        Of each training: Adam, its rate falling as half a cosine.
    seeds : int
        Trainings of each architecture: seeds 0, 1, ...
    device : str
        "cpu" or "cuda".
    """

    epochs: int = 30
    steps: int = 100
    batch_size: int = 4
    seeds: int = 3
    device: str = "cpu"


def draw_random(run_dir: Path, count: int) -> list[Path]:
    """Draw architectures at random with as many parameters as the searched one has, within 10 %.

    Parameters
    ----------
    run_dir : Path
        Of a finished search. Its seed fixes the draws; ``random/`` in it is replaced.
    count : int
        How many.

    Raises
    ------
    InputError
        The search is not finished.
    OptionError
        No architecture of that depth has so many parameters.
    """
    found = read_search(run_dir)
    space = SearchConfig.from_json(json.dumps(found["options"])).space
    rng = np.random.default_rng(np.random.SeedSequence((found["seed"], 1)))
    drawn = random_architectures(space, count, found["parameters"], rng, found["in_channels"], len(found["classes"]))
    with atomic_folder(run_dir / RANDOM) as folder:
        for number, architecture in enumerate(drawn):
            write_json(folder / f"{number:02d}.json", architecture.to_dict())
    return sorted((run_dir / RANDOM).glob("*.json"))


def compare(area: RegionDataset, run_dir: Path, schedule: Schedule, progress: Progress = silent) -> dict[str, Any]:
    """Train the searched architecture and the random ones beside it; say whether the search gained anything.

    Writes ``compare.json`` and ``compare.md`` into `run_dir`, and each training's curve and score under ``compare/``.
    What was trained before, on the same ground with the same schedule, is not trained again; what was stopped goes on.

    Parameters
    ----------
    area : RegionDataset
        All of it; test labels are taken away here.
    run_dir : Path
        Of a finished search with random architectures beside it.
    schedule : Schedule
        Of each training.
    progress : Progress
        Told the steps of all trainings.

    Returns
    -------
    dict
        What ``compare.json`` holds: `architectures` with `scores` (mean, spread and each seed's), `random` (mean,
        spread, least, greatest of their means), `seed_spread` and `verdict`.

    Raises
    ------
    InputError
        The search is not finished or was made on other ground, there are no random architectures, or no tuning block
        has a label.
    """
    found = read_search(run_dir)
    if training_view(area).fingerprint() != found["area_sha256"]:
        raise InputError(
            f"The training ground is not the one that {run_dir.name} was searched on.",
            "Search anew under another --name, or bring the old tile set back.",
        )
    ground = without_test_labels(area)
    if not ((ground.labels > 0) & (ground.labels < UNUSABLE) & (ground.role == TUNE)).any():
        raise InputError("The tuning blocks hold no label: nothing to compare on.", "Choose another --fold.")
    paths = sorted((run_dir / RANDOM).glob("*.json"))
    if not paths:
        raise InputError(f"{run_dir / RANDOM} holds no architecture to compare with.", "--random N draws some.")
    contenders = {SEARCHED: run_dir / ARCHITECTURE} | {f"{RANDOM}-{path.stem}": path for path in paths}
    space = SearchConfig.from_json(json.dumps(found["options"])).space
    table = cost_table(space, found["in_channels"], len(found["classes"]))
    rows = []
    trials = len(contenders) * schedule.seeds
    each = schedule.epochs * schedule.steps
    for number, (name, path) in enumerate(contenders.items()):
        record = read_architecture(path)
        runs = []
        for seed in range(schedule.seeds):
            before = (number * schedule.seeds + seed) * each
            tell = _within(progress, before, trials * each, f"{name}, seed {seed}")
            config = _config(found, record, name, seed, schedule)
            runs.append(_trial(ground, run_dir / COMPARE / f"{name}-seed{seed}", config, tell))
        cost = cost_of(Architecture.from_dict(record), table)
        rows.append({"name": name, **cost, "scores": {measure: _spread(runs, measure) for measure in MEASURES}})
    outcome = {**_verdict(rows), "schedule": asdict(schedule), "scored_on": "tuning blocks", "architectures": rows}
    write_json(run_dir / "compare.json", outcome)
    write_text(run_dir / "compare.md", comparison_table(outcome))
    return outcome


def without_test_labels(area: RegionDataset) -> RegionDataset:
    """The area as it would be had nobody mapped its test blocks."""
    return replace(area, labels=np.where(area.role == TEST, np.uint8(UNUSABLE), area.labels))


def comparison_table(outcome: dict[str, Any]) -> str:
    """A comparison as Markdown: one row an architecture, the verdict below."""
    seeds = outcome["schedule"]["seeds"]
    spread = f" ± spread of {seeds} seeds" if seeds > 1 else ""
    lines = [
        f"| architecture | parameters | GMAC | FWIoU{spread} | accuracy | mean accuracy | mIoU |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in outcome["architectures"]:
        cells = " | ".join(_in_percent(row["scores"][measure]) for measure in MEASURES)
        lines.append(f"| {row['name']} | {row['parameters'] / 1e6:.2f} M | {row['gmac']:.1f} | {cells} |")
    return "\n".join([*lines, "", outcome["told"], ""])


def _within(progress: Progress, before: int, whole: int, which: str) -> Progress:
    """A listener of one training, that passes on where all of them are."""

    def tell(done: int, total: int, note: str = "") -> None:
        progress(before + done, whole, f"{which}: {note.partition(' about ')[0]}")

    return tell


def _config(
    found: dict[str, Any], architecture: dict[str, Any], name: str, seed: int, schedule: Schedule
) -> TrainConfig:
    """The training of one architecture: as large as the search's crops, scored after its first and last epoch."""
    return TrainConfig(
        recipe="search --compare",
        model=name,
        architecture=architecture,
        inputs=found["inputs"],
        device=schedule.device,
        epochs=schedule.epochs,
        steps=schedule.steps,
        batch_size=schedule.batch_size,
        seed=seed,
        tile_size_px=found["tile_size_px"],
        scales_deg=found["options"]["scales_deg"],
        schedule="cosine",
        evaluate_every=schedule.epochs,
    )


def _trial(ground: RegionDataset, folder: Path, config: TrainConfig, progress: Progress) -> dict[str, Any]:
    """Scores on the tuning blocks after the last epoch of a training."""
    told = folder / "trial.json"
    key = {"config": json.loads(config.to_json()), "area_sha256": ground.fingerprint()}
    if told.exists():
        kept: dict[str, Any] = read_json(told, "gravmap search --compare")
        if kept["key"] == key:
            return dict(kept["scores"])
    last = folder / "last.json"
    begun = last.exists() and read_json(last, "gravmap search --compare").get("config") == key["config"]
    if not begun:
        shutil.rmtree(folder, ignore_errors=True)
    trainer = Trainer(ground, folder, config, Group(device=torch.device(config.device)))
    trainer.fit(progress, resume=begun)
    row = trainer.state.history[-1]
    scores = {measure: row[f"tune_{measure}"] for measure in MEASURES}
    write_json(told, {"scores": scores, "seconds": sum(each["seconds"] for each in trainer.state.history), "key": key})
    # Curve and score are what a comparison is for; weights of twenty trainings would be gigabytes.
    for path in (*folder.glob("*.safetensors"), last, folder / "model.json"):
        path.unlink(missing_ok=True)
    return scores


def _spread(runs: list[dict[str, Any]], measure: str) -> dict[str, Any]:
    values = [float(run[measure]) for run in runs]
    return {
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "each": values,
    }


def _verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Where the searched one's FWIoU lies among the random ones'."""
    mine = rows[0]["scores"]["fwiou"]["mean"]
    others = [row["scores"]["fwiou"]["mean"] for row in rows[1:]]
    spreads = [row["scores"]["fwiou"]["sd"] for row in rows if row["scores"]["fwiou"]["sd"] is not None]
    seed_spread = statistics.fmean([each**2 for each in spreads]) ** 0.5 if spreads else None
    random = {
        "mean": statistics.fmean(others),
        "sd": statistics.stdev(others) if len(others) > 1 else None,
        "least": min(others),
        "greatest": max(others),
    }
    verdict = "above" if mine > random["greatest"] else "below" if mine < random["least"] else "inside"
    where = {"inside": "inside the range of", "above": "above all", "below": "below all"}[verdict]
    better = sum(other > mine for other in others)
    told = (
        f"FWIoU of the searched architecture {100 * mine:.1f} %, {where} the {len(others)} random ones "
        f"({100 * random['least']:.1f} to {100 * random['greatest']:.1f} %, mean {100 * random['mean']:.1f} %); "
        f"{better} of them {'is' if better == 1 else 'are'} better."
    )
    if seed_spread is None:
        told += " One training each: how much chance has to do with it is not known."
    else:
        told += f" Trained anew, an architecture's FWIoU varies by {100 * seed_spread:.1f} points (standard deviation)."
    return {"verdict": verdict, "told": told, "searched": mine, "random": random, "seed_spread": seed_spread}


def _in_percent(spread: dict[str, Any]) -> str:
    told = f"{100 * spread['mean']:.1f}"
    return told if spread["sd"] is None else f"{told} ± {100 * spread['sd']:.1f}"
