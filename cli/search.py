"""`gravmap search`: search for a network's operators, widths and paths on the training blocks of the tile set."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gravmap.errors import DeviceError, InputError, OptionError
from gravmap.files import remove_folder
from gravmap.outputs import check_outputs
from gravmap.records import read_record
from gravmap.workspace import check_name

from .options import (
    DURATION,
    Command,
    device_option,
    dry_run_option,
    given_on_command_line,
    option,
    option_group,
    overwrite_option,
    refuse_contradiction,
    run_name,
    seed_option,
    window_option,
)
from .search_report import SMALL, print_comparison, print_plan, print_random, print_result, print_start
from .session import Session, command_options
from .train_data import open_region, region_dataset

if TYPE_CHECKING:
    from gravmap.learning import RegionDataset
    from gravmap.search.config import SearchConfig

RANDOM = 5
"""Random architectures to compare with, where --random does not give another number."""

MOST_PX = 1024
"""Pixels per window side without --size: a supernet at twice that takes four times the memory."""

RESUMABLE = {"time_limit_s", "device", "gpus", "random", "compare", "compare_epochs", "compare_steps", "compare_seeds"}
"""What may change when a search is resumed; everything else is the search's own."""

CONFIG_NAMES = {"steps_per_epoch": "steps"}
"""Options whose attribute of SearchConfig has another name."""


@dataclass(frozen=True)
class SearchOptions:
    """The options of `gravmap search` as parsed; None is an option that was not given.

    Attributes
    ----------
    given : mapping of str to str
        Names of the options on the command line, and how they are written.
    """

    given: Mapping[str, str]
    gpus: int | None
    device: str
    depth: int
    thin: bool
    pretrain_epochs: int
    epochs: int
    steps_per_epoch: int
    batch_size: int
    tile_size_px: int | None
    windows_deg: tuple[float, ...]
    inputs: str | None
    split: str
    fold: int
    flops_weight: float
    architecture_lr: float
    time_limit_s: float | None
    random: int | None
    compare: bool
    compare_epochs: int
    compare_steps: int
    compare_seeds: int
    name: str | None
    resume: bool
    seed: int
    dry_run: bool
    overwrite: bool

    @property
    def config_values(self) -> dict[str, Any]:
        """The options that are attributes of SearchConfig, but for those not given."""
        from gravmap.search.config import SearchConfig

        known = {field.name for field in dataclasses.fields(SearchConfig)} - {"inputs", "device"}
        named = {CONFIG_NAMES.get(name, name): value for name, value in vars(self).items()}
        return {name: value for name, value in named.items() if name in known and value is not None}


@click.command(
    "search",
    cls=Command,
    short_help="Search for a network architecture on the tile set.",
    epilog="""\b
Examples:
  gravmap search --name mine --random 5 --compare
  gravmap search --device cpu --thin --depth 5 --size 128 --time-limit 20min
  gravmap search --resume --name mine --compare
  gravmap train --architecture runs/mine/architecture.json""",
)
@option_group(
    "Data",
    option(
        "--input",
        "inputs",
        metavar="NAME,...",
        help="Input channels, as of `gravmap train` (default: residual).",
    ),
    option("--split", metavar="NAME", default="blocks", show_default=True, help="Split of the tile set."),
    option(
        "--fold",
        type=click.IntRange(min=0),
        metavar="N",
        default=0,
        show_default=True,
        help="Fold of the split to hold out (cross-validation).",
    ),
    window_option("Use only windows of this size; may be repeated (default: all sizes of the tile set)."),
    option(
        "--size",
        "tile_size_px",
        type=click.IntRange(min=32),
        metavar="PIXELS",
        help="Pixels per window side; crops are half as wide (default: the tile set's, at most 1024).",
    ),
)
@option_group(
    "Network",
    option("--depth", type=click.IntRange(min=3), metavar="N", default=22, show_default=True, help="Cells per branch."),
    option("--thin", is_flag=True, help="Use the narrow encoder and head of ggmnet-tiny, for a CPU."),
)
@option_group(
    "Optimisation",
    option(
        "--pretrain-epochs",
        type=click.IntRange(min=1),
        metavar="N",
        default=20,
        show_default=True,
        help="Epochs that train the weights only.",
    ),
    option(
        "--epochs",
        type=click.IntRange(min=1),
        metavar="N",
        default=30,
        show_default=True,
        help="Epochs after these, that train weights and architecture in turn.",
    ),
    option(
        "--steps-per-epoch",
        type=click.IntRange(min=1),
        metavar="N",
        default=400,
        show_default=True,
        old_names=["--steps"],
        help="Optimiser steps per epoch.",
    ),
    option(
        "--batch-size",
        type=click.IntRange(min=2),
        metavar="N",
        default=4,
        show_default=True,
        help="Batch size: crops per step.",
    ),
    option(
        "--architecture-lr",
        type=click.FloatRange(min=0, min_open=True),
        metavar="RATE",
        default=3e-4,
        show_default=True,
        help="Learning rate of operators, widths and paths; a short search needs a higher one.",
    ),
    option(
        "--flops-weight",
        type=click.FloatRange(min=0),
        metavar="WEIGHT",
        default=0.0,
        show_default=True,
        help="Weight in the loss of the multiply-adds, as a fraction of the largest network's.",
    ),
    seed_option,
)
@option_group(
    "Comparison",
    option(
        "--random",
        type=click.IntRange(min=1),
        metavar="N",
        help="Sample N random architectures with as many parameters, into runs/NAME/random.",
    ),
    option(
        "--compare",
        is_flag=True,
        help=f"Train the searched architecture and random ones (--random, else {RANDOM}) alike, and compare scores.",
    ),
    option(
        "--compare-epochs",
        type=click.IntRange(min=1),
        metavar="N",
        default=30,
        show_default=True,
        help="Epochs of each such training.",
    ),
    option(
        "--compare-steps",
        type=click.IntRange(min=1),
        metavar="N",
        default=100,
        show_default=True,
        help="Optimiser steps per epoch of each such training.",
    ),
    option(
        "--compare-seeds",
        type=click.IntRange(min=1),
        metavar="N",
        default=3,
        show_default=True,
        help="Trainings of each architecture, with different seeds.",
    ),
)
@option_group(
    "Runtime",
    option(
        "--gpus", type=click.IntRange(0, 1), metavar="N", help="1, or 0 for the CPU: a search uses a single device."
    ),
    device_option(
        "auto and cuda: a GPU. Without one the command stops with status 5, because a CPU is far slower: --device cpu "
        "(or --gpus 0) searches there.",
    ),
    option(
        "--time-limit",
        "time_limit_s",
        type=DURATION,
        metavar="TIME",
        help="Stop the search after this time, and choose: 40s, 15min, 2h.",
    ),
)
@option_group(
    "Output",
    option("--name", metavar="NAME", help="Folder of the search in runs/ (default: search and the time)."),
    option("--resume", is_flag=True, help="Resume the search --name (default: the newest) from its last checkpoint."),
    dry_run_option,
    overwrite_option,
)
@command_options()
def command(session: Session, **options: Any) -> None:
    """Search for a network's operators, widths and paths on the training blocks of the tile set.

    One half of the training blocks trains the weights of a supernet that holds every choice, the other half trains the
    choice (differentiable architecture search); held-out labels are not used. Writes runs/NAME: architecture.json,
    which `gravmap train --architecture` takes, its picture and its table, search.json (every candidate and its score),
    metrics.csv, entropies.png, and last.safetensors with last.json, the checkpoint to resume from.

    --random and --compare test whether the search gained anything: random architectures are trained alike, and scored
    on the tuning blocks. A search takes hours on a GPU; -n estimates how many.
    """
    run_search(session, SearchOptions(given=given_on_command_line(), **options))


def run_search(session: Session, options: SearchOptions) -> None:
    """Search, and compare with random architectures where the options request it."""
    refuse_contradiction(options.gpus, options.device)
    place = session.workspace
    stored: dict[str, Any] = {}
    if options.resume:
        run_dir, stored = _search_to_resume(place.runs, options.name)
        options = _resumed_options(run_dir.name, options, stored)
    else:
        run_dir = place.runs / run_name(options.name, "search")
        _refuse_existing(run_dir, options.overwrite)
    session.writing([], [], True, options.dry_run, folders=[run_dir])
    device = _device(options)
    open_region(session, from_tiles=False)
    dataset, inputs = region_dataset(session, options.inputs, options.split, options.fold, dry_run=options.dry_run)
    config = _configure(options, dataset, inputs, device or "cuda", stored)
    if options.dry_run:
        return print_plan(session, dataset, config, run_dir, measured=device is not None)

    from gravmap.search import search

    comparing = options.random is not None or options.compare
    if not stored.get("finished") or not (comparing or stored.get("complete")):
        # Files of an old run beside those of a new one would be read as one.
        for old in (run_dir,) if not options.resume else (run_dir / "random", run_dir / "compare"):
            remove_folder(old)
        for name in ("compare.json", "compare.md"):
            (run_dir / name).unlink(missing_ok=True)
        print_start(session, dataset, config, run_dir)
        with session.progress("Searching") as progress:
            found = search(dataset, run_dir, config, progress, resume=options.resume)
        print_result(session, run_dir, found)
    elif not comparing:
        raise InputError(
            f"The search {run_dir.name} is complete.", "--random N and --compare test whether it gained anything."
        )
    else:
        found = stored
    _compare(session, dataset, run_dir, options, config, found)


def _compare(
    session: Session,
    dataset: RegionDataset,
    run_dir: Path,
    options: SearchOptions,
    config: SearchConfig,
    found: dict[str, Any],
) -> None:
    """Sample random architectures and train them beside the searched one, where the options request it."""
    from gravmap.search.comparison import RANDOM as FOLDER
    from gravmap.search.comparison import ComparisonConfig, compare_with_random, write_random_architectures

    result: dict[str, Any] = {"run": str(run_dir), **found}
    existing = list((run_dir / FOLDER).glob("*.json"))
    if options.random is not None or (options.compare and not existing):
        sampled = write_random_architectures(run_dir, options.random or RANDOM)
        print_random(session, sampled, found)
        result["random"] = [str(path) for path in sampled]
    if options.compare:
        schedule = ComparisonConfig(
            options.compare_epochs, options.compare_steps, config.batch_size, options.compare_seeds, config.device
        )
        with session.progress("Comparing") as progress:
            result["comparison"] = compare_with_random(dataset, run_dir, schedule, progress)
        print_comparison(session, run_dir, result["comparison"])
    session.result(result)


def _device(options: SearchOptions) -> str | None:
    """Where to search; None in a dry run without the GPU that would be used."""
    import torch

    from gravmap.learning.training.distributed import choose_device

    try:
        return choose_device(options.gpus, options.device, min(torch.cuda.device_count(), 1))[0]
    except DeviceError as error:
        if options.dry_run:
            return None
        hint = f"A search for a CPU: {SMALL}."
        raise DeviceError(error.message, hint) from None


def _configure(
    options: SearchOptions, dataset: RegionDataset, inputs: list[str] | None, device: str, stored: dict[str, Any]
) -> SearchConfig:
    """The configuration of the search; a resumed one keeps its own, but for its time limit and device."""
    from gravmap.search.config import SearchConfig

    if stored:
        config = SearchConfig.from_json(json.dumps(stored["options"]))
        return dataclasses.replace(config, device=device, time_limit_s=options.time_limit_s)
    values = {**options.config_values, "device": device, "scales_deg": list(options.windows_deg) or None}
    if inputs is not None:
        values["inputs"] = inputs
    values.setdefault("tile_size_px", min(int(dataset.meta["tile_size_px"]), MOST_PX))
    return SearchConfig(**values)


def _refuse_existing(run_dir: Path, overwrite: bool) -> None:
    """Refuse to replace a search; one that was stopped before its first checkpoint does not count."""
    files = {path.name for path in run_dir.iterdir() if not path.name.startswith(".")} if run_dir.is_dir() else set()
    stopped = {"search.json", "last.json"} <= files and not read_record(
        run_dir / "search.json", dict[str, Any], "gravmap search"
    ).get("finished")
    if stopped and not overwrite:
        raise InputError(
            f"{run_dir} holds a search that was stopped.",
            f"`gravmap search --resume --name {run_dir.name}` resumes it; --overwrite replaces it.",
        )
    if not files <= {"search.json", "last.safetensors"}:
        check_outputs([], [], overwrite, folders=[run_dir])


def _search_to_resume(runs: Path, name: str | None) -> tuple[Path, dict[str, Any]]:
    """The named search, or the one that was written last, and its record."""
    found = [runs / check_name(name, "a run") / "search.json"] if name else list(runs.glob("*/search.json"))
    states = sorted((path for path in found if path.exists()), key=lambda path: path.stat().st_mtime)
    if not states:
        raise InputError(
            f"There is no search {name!r} in {runs}." if name else f"No search in {runs} can be resumed.",
            "`gravmap search` starts one.",
        )
    run_dir = states[-1].parent
    if not (run_dir / "last.json").exists():
        raise InputError(
            f"The search {run_dir.name} was stopped before its first checkpoint.",
            f"`gravmap search --name {run_dir.name} --overwrite` starts it again.",
        )
    from gravmap.search.loop import read_search_record

    return run_dir, read_search_record(run_dir)


def _resumed_options(name: str, options: SearchOptions, record: dict[str, Any]) -> SearchOptions:
    """The options with the data, and without --device the device, of the stored search.

    Raises
    ------
    OptionError
        An option differs from the search's own, and would change its course.
    """
    from gravmap.learning.data.channels import expand, fields_read
    from gravmap.search.config import SearchConfig

    config = SearchConfig.from_json(json.dumps(record["options"]))
    stored: dict[str, Any] = {
        **dataclasses.asdict(config),
        "inputs": ",".join(record["inputs"]),
        "split": record["split"].get("name", "blocks"),
        "fold": record["split"].get("fold", 0),
        "windows_deg": tuple(config.scales_deg or ()),
    }
    for option_name, written in options.given.items():
        key = CONFIG_NAMES.get(option_name, option_name)
        if option_name in RESUMABLE or key not in stored:
            continue
        value = getattr(options, option_name)
        if option_name == "inputs":
            value = ",".join(expand(str(value), fields_read(record["inputs"])[0]))
        if value != stored[key]:
            raise OptionError(
                f"{name} was started with another {written}: {stored[key]}.",
                "Leave it out, or start another search with --name.",
            )
    device = options.device
    if options.gpus is None and device == "auto":
        device = config.device
    return dataclasses.replace(
        options, inputs=stored["inputs"], split=stored["split"], fold=stored["fold"], device=device
    )
