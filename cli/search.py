"""`gravmap search`: search for a network's operators, widths and paths on the training blocks of the tile set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gravmap.errors import DeviceError, InputError
from gravmap.files import remove_folder

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
from .search_setup import SearchOptions, configure, refuse_existing, resumed_options, search_to_resume
from .session import Session, command_options
from .train_data import open_region, region_dataset

if TYPE_CHECKING:
    from gravmap.learning import RegionDataset
    from gravmap.learning.training.distributed import Group
    from gravmap.search.config import SearchConfig

RANDOM = 5
"""Random architectures to compare with, where --random does not give another number."""


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
        help="Global batch size: crops per step over all GPUs.",
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
        "--gpus",
        type=click.IntRange(min=0),
        metavar="N",
        help="GPUs of this machine to search on (default: 1); 0 searches on the CPU.",
    ),
    device_option(
        "auto and cuda: a GPU, or --gpus N of them. Without one the command stops with status 5, because a CPU is far "
        "slower: --device cpu (or --gpus 0) searches there.",
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
    on the tuning blocks. A search takes hours on a GPU; -n estimates how many. Under torchrun or srun it joins the
    process group.
    """
    run_search(session, SearchOptions(given=given_on_command_line(), **options))


def run_search(session: Session, options: SearchOptions) -> None:
    """Search, and compare with random architectures where the options request it."""
    refuse_contradiction(options.gpus, options.device)

    from gravmap.learning.training.distributed import group_variables, process_group

    variables = group_variables(os.environ)
    if variables is not None and variables["RANK"] != "0":
        session.verbosity, session.json = -1, False
    first = variables is None or variables["RANK"] == "0"
    place = session.workspace
    stored: dict[str, Any] = {}
    if options.resume:
        run_dir, stored = search_to_resume(place.runs, options.name)
        options = resumed_options(run_dir.name, options, stored)
    else:
        run_dir = place.runs / run_name(options.name, "search")
        if first:
            refuse_existing(run_dir, options.overwrite)
    if first:  # all processes share one lock
        session.writing([], [], True, options.dry_run, folders=[run_dir])
    device, processes = _device(options, variables)
    open_region(session, from_tiles=False)
    dataset, inputs = region_dataset(session, options.inputs, options.split, options.fold, dry_run=options.dry_run)
    config = configure(options, dataset, inputs, device or "cuda", stored)
    if options.dry_run:
        return print_plan(session, dataset, config, run_dir, processes, measured=device is not None)

    import torch

    from gravmap.learning.training.distributed import Group
    from gravmap.search.loop import launch_search, search
    from gravmap.search.state import local_batch

    local_batch(config, Group(size=processes, device=torch.device(config.device)))  # before an old search is removed
    comparing = options.random is not None or options.compare
    searching = not stored.get("finished") or not (comparing or stored.get("complete"))
    if not searching and not comparing:
        raise InputError(
            f"The search {run_dir.name} is complete.", "--random N and --compare test whether it gained anything."
        )
    with process_group(config.device) as group:
        run_dir = Path(group.broadcast(str(run_dir)))
        launched = processes if variables is None else 1
        found = stored
        if searching:
            if not group.rank:
                _remove_old(run_dir, options.resume)
                print_start(session, dataset, config, run_dir, processes)
            with session.progress("Searching") as progress:
                if launched > 1:
                    found = launch_search(dataset, run_dir, config, launched, progress, resume=options.resume)
                else:
                    found = search(dataset, run_dir, config, progress, group=group, resume=options.resume)
            print_result(session, run_dir, found)
        result = {"run": str(run_dir), **found}
        if comparing:
            result |= _compare(session, dataset, run_dir, options, config, found, group, launched)
    session.result(result)


def _remove_old(run_dir: Path, resume: bool) -> None:
    """Remove files of an old run: beside those of a new one they would be read as one."""
    for old in (run_dir,) if not resume else (run_dir / "random", run_dir / "compare"):
        remove_folder(old)
    for name in ("compare.json", "compare.md"):
        (run_dir / name).unlink(missing_ok=True)


def _compare(
    session: Session,
    dataset: RegionDataset,
    run_dir: Path,
    options: SearchOptions,
    config: SearchConfig,
    found: dict[str, Any],
    group: Group,
    launched: int,
) -> dict[str, Any]:
    """Sample random architectures and train them beside the searched one, where the options request it.

    Parameters
    ----------
    group : Group
        Processes that call this function.
    launched : int
        Processes to start here instead, if it is more than 1.
    """
    from gravmap.search.comparison import RANDOM as FOLDER
    from gravmap.search.comparison import (
        ComparisonConfig,
        compare_with_random,
        launch_comparison,
        write_random_architectures,
    )

    result: dict[str, Any] = {}
    if not group.rank and (options.random is not None or not list((run_dir / FOLDER).glob("*.json"))):
        sampled = write_random_architectures(run_dir, options.random or RANDOM)
        print_random(session, sampled, found)
        result["random"] = [str(path) for path in sampled]
    group.broadcast(None)  # wait until they are written
    if options.compare:
        schedule = ComparisonConfig(
            options.compare_epochs, options.compare_steps, config.batch_size, options.compare_seeds, config.device
        )
        with session.progress("Comparing") as progress:
            if launched > 1:
                outcome = launch_comparison(dataset, run_dir, schedule, launched, progress)
            else:
                outcome = compare_with_random(dataset, run_dir, schedule, progress, group)
        result["comparison"] = outcome
        print_comparison(session, run_dir, outcome)
    return result


def _device(options: SearchOptions, group: Mapping[str, str] | None) -> tuple[str | None, int]:
    """Where to search, None in a dry run without the GPUs that would be used; and the number of processes."""
    import torch

    from gravmap.learning.training.distributed import choose_device

    if group is not None:
        return "cpu" if options.device == "cpu" or options.gpus == 0 else "cuda", int(group["WORLD_SIZE"])
    found = torch.cuda.device_count()
    try:
        return choose_device(options.gpus, options.device, min(found, 1) if options.gpus is None else found)
    except DeviceError as error:
        if options.dry_run:
            return None, max(options.gpus or 1, 1)
        hint = error.hint if found else f"A search for a CPU: {SMALL}."
        raise DeviceError(error.message, hint) from None
