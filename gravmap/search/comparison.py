"""Comparison of a searched architecture with random ones of the same size, trained and scored alike."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from typing_extensions import TypedDict

from gravmap.errors import InputError, OptionError
from gravmap.files import atomic_folder, write_json, write_text
from gravmap.lattice import TEST, TUNE, UNUSABLE
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.training.config import TrainConfig
from gravmap.learning.training.distributed import Group
from gravmap.learning.training.launch import run_in_processes
from gravmap.learning.training.trainer import Trainer
from gravmap.network.architecture import Architecture
from gravmap.network.operators import OPERATORS
from gravmap.network.registry import read_architecture
from gravmap.progress import Progress, silent
from gravmap.records import read_record, record
from gravmap.search.config import SearchConfig
from gravmap.search.cost_table import CostTable
from gravmap.search.data_split import without_held_out_labels
from gravmap.search.loop import ARCHITECTURE, architecture_cost, cost_table, read_search
from gravmap.search.space import SCALES, SearchSpace

TOLERANCE = 0.1
"""Relative tolerance of the number of parameters."""
MAX_DRAWS = 20_000
"""Maximum number of draws per accepted architecture."""


def random_architectures(
    space: SearchSpace,
    n: int,
    budget_parameters: int,
    rng: np.random.Generator,
    in_channels: int,
    classes: int,
) -> list[Architecture]:
    """Sample architectures with about as many parameters as another.

    Operators and widths of each map, and the path of each branch, are sampled uniformly; samples that are invalid (a
    stretch of skips alone) or miss the budget by more than 10 % are rejected.

    Parameters
    ----------
    space : SearchSpace
        The search space.
    n : int
        Number of different architectures.
    budget_parameters : int
        Parameters of the whole GGMNet.
    rng : numpy.random.Generator
        Random generator.
    in_channels, classes : int
        Of the GGMNet.

    Raises
    ------
    OptionError
        The budget cannot be met; the message gives the range of the samples.
    """
    costs = CostTable(space, in_channels, classes)
    found: dict[Architecture, None] = {}
    minimum, most = np.inf, 0.0
    for _ in range(n):
        for _ in range(MAX_DRAWS):
            architecture = random_architecture(space, rng)
            parameters = costs.parameters(architecture)
            minimum, most = min(minimum, parameters), max(most, parameters)
            if abs(parameters - budget_parameters) <= TOLERANCE * budget_parameters and architecture not in found:
                found[architecture] = None
                break
        else:
            raise OptionError(
                f"Only {len(found)} of {n} random architectures have {budget_parameters / 1e6:.2f} million parameters "
                f"(within 10 %): {MAX_DRAWS} more draws had {minimum / 1e6:.2f} to {most / 1e6:.2f} million.",
                "Use a smaller --random, or a search whose result is nearer the middle of this range.",
            )
    return list(found)


def random_architecture(space: SearchSpace, rng: np.random.Generator) -> Architecture:
    """Sample one architecture uniformly."""
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
            continue  # a stretch of skips only


RANDOM, COMPARE, SEARCHED = "random", "compare", "searched"
MEASURES = ("fwiou", "pa", "mpa", "miou")


@dataclass(frozen=True)
class ComparisonConfig:
    """How every architecture of a comparison is trained.

    Attributes
    ----------
    epochs, steps, batch_size : int
        Of each training: Adam with a cosine learning rate schedule.
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


def write_random_architectures(run_dir: Path, count: int) -> list[Path]:
    """Write random architectures with as many parameters as the searched one, within 10 %.

    Parameters
    ----------
    run_dir : Path
        Of a finished search. Its seed fixes the samples; ``random/`` in it is replaced.
    count : int
        Number of architectures.

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
    architectures = random_architectures(
        space, count, found["parameters"], rng, found["in_channels"], len(found["classes"])
    )
    with atomic_folder(run_dir / RANDOM) as folder:
        for number, architecture in enumerate(architectures):
            write_json(folder / f"{number:02d}.json", architecture.to_dict())
    return sorted((run_dir / RANDOM).glob("*.json"))


def launch_comparison(
    dataset: RegionDataset, run_dir: Path, schedule: ComparisonConfig, processes: int, progress: Progress = silent
) -> dict[str, Any]:
    """Do what :func:`compare_with_random` does with several processes on this machine, one per GPU."""
    with tempfile.TemporaryDirectory(prefix="gravmap-") as scratch:
        path = Path(scratch, "data.npz")
        dataset.save(path)
        return run_in_processes(_compare, (path, run_dir, schedule), schedule.device, processes, progress)


def _compare(group: Group, progress: Progress, data: Path, run_dir: Path, schedule: ComparisonConfig) -> dict[str, Any]:
    """Compare in one of the processes that :func:`launch_comparison` starts."""
    return compare_with_random(RegionDataset.load(data), run_dir, schedule, progress, group)


def compare_with_random(
    dataset: RegionDataset,
    run_dir: Path,
    schedule: ComparisonConfig,
    progress: Progress = silent,
    group: Group | None = None,
) -> dict[str, Any]:
    """Train the searched and the random architectures, and compare their scores.

    Writes ``compare.json`` and ``compare.md`` into `run_dir`, and each training's curve and score under ``compare/``.
    Finished trainings on the same data with the same configuration are reused; interrupted ones are resumed.

    Parameters
    ----------
    dataset : RegionDataset
        Whole dataset; test labels are removed here.
    run_dir : Path
        Of a finished search with random architectures.
    schedule : ComparisonConfig
        Of each training.
    progress : Progress
        Called with the number of finished steps of all trainings.
    group : Group, optional
        Processes that share the trainings, each of which is that of a single process; all call this function. By
        default a single process on `schedule.device`.

    Returns
    -------
    dict
        Content of ``compare.json``: `architectures` with `scores` (mean, standard deviation and each seed's), `random`
        (mean, standard deviation, minimum, maximum of their means), `seed_spread` and `verdict`.

    Raises
    ------
    InputError
        The search is not finished or was made with other data, there are no random architectures, or no tuning block
        has a label.
    """
    group = group or Group(device=torch.device(schedule.device))
    found = read_search(run_dir)
    if without_held_out_labels(dataset).fingerprint() != found["area_sha256"]:
        raise InputError(
            f"The training data differ from those that {run_dir.name} was searched with.",
            "Start a new search with another --name, or restore the old tile set.",
        )
    data = without_test_labels(dataset)
    if not ((data.labels > 0) & (data.labels < UNUSABLE) & (data.role == TUNE)).any():
        raise InputError("The tuning blocks contain no label to compare on.", "Choose another --fold.")
    paths = sorted((run_dir / RANDOM).glob("*.json"))
    if not paths:
        raise InputError(f"{run_dir / RANDOM} contains no architecture to compare with.", "Draw some with --random N.")
    architectures = {SEARCHED: run_dir / ARCHITECTURE} | {f"{RANDOM}-{path.stem}": path for path in paths}
    space = SearchConfig.from_json(json.dumps(found["options"])).space
    table = cost_table(space, found["in_channels"], len(found["classes"]))
    records = {name: read_architecture(path) for name, path in architectures.items()}
    trials = [(name, seed) for name in records for seed in range(schedule.seeds)]
    each = schedule.epochs * schedule.steps
    scores: list[dict[str, Any]] = []
    for first in range(0, len(trials), group.size):
        group.at(f"trainings {first + 1} to {first + group.size} of {len(trials)}")
        mine = None
        for name, seed in trials[first + group.rank :][:1]:
            report = _total_progress(progress, first * each, len(trials) * each, group.size, f"{name}, seed {seed}")
            config = _config(found, records[name], name, seed, schedule)
            mine = _train_and_score(data, run_dir / COMPARE / f"{name}-seed{seed}", config, report, group.device)
        scores += [one for one in group.gather(mine) if one is not None]
    rows = []
    for number, (name, entry) in enumerate(records.items()):
        runs = scores[number * schedule.seeds :][: schedule.seeds]
        cost = architecture_cost(Architecture.from_dict(entry), table)
        rows.append({"name": name, **cost, "scores": {measure: _statistics(runs, measure) for measure in MEASURES}})
    outcome = {**_summarise(rows), "schedule": asdict(schedule), "scored_on": "tuning blocks", "architectures": rows}
    if group.rank:
        return outcome
    write_json(run_dir / "compare.json", outcome)
    write_text(run_dir / "compare.md", comparison_table(outcome))
    return outcome


def without_test_labels(dataset: RegionDataset) -> RegionDataset:
    """The dataset without the labels of its test blocks."""
    return replace(dataset, labels=np.where(dataset.role == TEST, np.uint8(UNUSABLE), dataset.labels))


def comparison_table(outcome: dict[str, Any]) -> str:
    """A comparison as Markdown: one row per architecture, then the conclusion."""
    seeds = outcome["schedule"]["seeds"]
    deviation = f" ± std of {seeds} seeds" if seeds > 1 else ""
    lines = [
        f"| architecture | parameters | GMAC | FWIoU{deviation} | accuracy | mean accuracy | mIoU |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in outcome["architectures"]:
        cells = " | ".join(_format_percent(row["scores"][measure]) for measure in MEASURES)
        lines.append(f"| {row['name']} | {row['parameters'] / 1e6:.2f} M | {row['gmac']:.1f} | {cells} |")
    return "\n".join([*lines, "", outcome["told"], ""])


def _total_progress(progress: Progress, before: int, whole: int, at_once: int, which: str) -> Progress:
    """Progress callback of one training that reports the progress of all, of which some run at once."""

    def report(done: int, total: int, note: str = "") -> None:
        progress(min(before + done * at_once, whole), whole, f"{which}: {note.partition(' about ')[0]}")

    return report


def _config(
    found: dict[str, Any], architecture: dict[str, Any], name: str, seed: int, schedule: ComparisonConfig
) -> TrainConfig:
    """Configuration of one training: crops as large as the search's, scored after the first and the last epoch."""
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


@record
class Trial(TypedDict):
    """Content of ``trial.json``: the scores of one training of a comparison, and what they depend on."""

    key: dict[str, Any]
    scores: dict[str, float | None]


def _train_and_score(
    data: RegionDataset, folder: Path, config: TrainConfig, progress: Progress, device: torch.device
) -> dict[str, Any]:
    """Scores on the tuning blocks after the last epoch of a training."""
    record_path, made_by = folder / "trial.json", "gravmap search --compare"
    key = {"config": json.loads(config.to_json()), "area_sha256": data.fingerprint()}
    if record_path.exists():
        kept = read_record(record_path, Trial, made_by)
        if kept["key"] == key and set(MEASURES) <= set(kept["scores"]):
            return dict(kept["scores"])
    last = folder / "last.json"
    resumed = last.exists() and read_record(last, dict[str, Any], made_by).get("config") == key["config"]
    if not resumed:
        shutil.rmtree(folder, ignore_errors=True)
    trainer = Trainer(data, folder, config, Group(device=device))
    trainer.fit(progress, resume=resumed)
    history = trainer.state.history
    scores = {measure: history[-1][f"tune_{measure}"] for measure in MEASURES}
    write_json(record_path, {"scores": scores, "seconds": sum(each["seconds"] for each in history), "key": key})
    # Only curve and score are kept; weights of twenty trainings would be gigabytes.
    for path in (*folder.glob("*.safetensors"), last, folder / "model.json"):
        path.unlink(missing_ok=True)
    return scores


def _statistics(runs: list[dict[str, Any]], measure: str) -> dict[str, Any]:
    values = [float(run[measure]) for run in runs]
    return {
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "each": values,
    }


def _summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Position of the searched architecture's FWIoU among those of the random ones."""
    searched = rows[0]["scores"]["fwiou"]["mean"]
    others = [row["scores"]["fwiou"]["mean"] for row in rows[1:]]
    seed_stds = [row["scores"]["fwiou"]["sd"] for row in rows if row["scores"]["fwiou"]["sd"] is not None]
    seed_std = statistics.fmean([each**2 for each in seed_stds]) ** 0.5 if seed_stds else None
    random = {
        "mean": statistics.fmean(others),
        "sd": statistics.stdev(others) if len(others) > 1 else None,
        "least": min(others),
        "greatest": max(others),
    }
    verdict = "above" if searched > random["greatest"] else "below" if searched < random["least"] else "inside"
    where = {"inside": "inside the range of", "above": "above all", "below": "below all"}[verdict]
    better = sum(other > searched for other in others)
    text = (
        f"FWIoU of the searched architecture {100 * searched:.1f} %, {where} the {len(others)} random ones "
        f"({100 * random['least']:.1f} to {100 * random['greatest']:.1f} %, mean {100 * random['mean']:.1f} %); "
        f"{better} of them {'is' if better == 1 else 'are'} better."
    )
    if seed_std is None:
        text += " One training each: the variation between seeds is unknown."
    else:
        text += f" Between seeds, an architecture's FWIoU varies by {100 * seed_std:.1f} points (standard deviation)."
    return {"verdict": verdict, "told": text, "searched": searched, "random": random, "seed_spread": seed_std}


def _format_percent(values: dict[str, Any]) -> str:
    text = f"{100 * values['mean']:.1f}"
    return text if values["sd"] is None else f"{text} ± {100 * values['sd']:.1f}"
