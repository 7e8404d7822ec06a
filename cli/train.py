"""`gravmap train`: train a network on the tile set's native grids or on simulated crusts, and score it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gravmap.files import remove_folder, write_text

from . import complete
from .options import (
    DURATION,
    Command,
    device_option,
    dry_run_option,
    given_on_command_line,
    option,
    option_group,
    overwrite_option,
    seed_option,
    window_option,
)
from .session import Session, command_options
from .train_data import crust_datasets, open_region, region_dataset
from .train_report import print_cpu_default, print_plan, print_result, print_start
from .train_setup import TrainOptions, is_same_run, new_setup, resumed_setup, stopped_run

if TYPE_CHECKING:
    from gravmap.learning import RegionDataset
    from gravmap.learning.data.splits import DatasetSplits
    from gravmap.progress import Progress
    from gravmap.workspace import Workspace


@click.command(
    "train",
    cls=Command,
    short_help="Train or fine-tune a segmentation network.",
    epilog="""\b
Examples:
  gravmap train --gpus 4
  gravmap train --gpus 0 --time-limit 30min
  gravmap train --recipe paper --gpus 4
  gravmap train --device cpu --on crusts --count 60
  gravmap train --context outcrop --init crusts-central-asia
  gravmap train --resume""",
)
@option_group(
    "Data",
    option(
        "--on",
        type=click.Choice(["region", "crusts"]),
        default="region",
        show_default=True,
        help="Training data: the tile set of the region, or simulated crusts, whose bedrock is known under cover too.",
    ),
    option(
        "--input",
        "inputs",
        metavar="NAME,...",
        help="Input channels: residual (default), multi (residual,bouguer,scale), rgb (the residual as colours), "
        "fields of fields.nc, scale.",
    ),
    option(
        "--context",
        type=click.Choice(["outcrop", "none"]),
        help="outcrop: mapped outcrop is an input, and the network learns what gravity adds to label diffusion from it "
        "(default: none on a region, outcrop on crusts).",
    ),
    option(
        "--cover-masks",
        type=click.IntRange(min=1),
        metavar="N",
        old_names=["--cuts"],
        help="With --context outcrop on a region: synthetic cover masks in use at a time; each epoch replaces one "
        "(default: 8).",
    ),
    option("--split", metavar="NAME", help="Split of the tile set (default: blocks; in the recipe paper random)."),
    option(
        "--fold",
        type=click.IntRange(min=0),
        metavar="N",
        default=0,
        show_default=True,
        help="Fold of the split to hold out (cross-validation).",
    ),
    option(
        "--allow-leak",
        is_flag=True,
        help="Train even if the labels of more than 0.1 % of the held-out bedrock are seen in training.",
    ),
    window_option("Use only windows of this size; may be repeated (default: all sizes of the tile set)."),
    option(
        "--size",
        "tile_size_px",
        type=click.IntRange(min=16),
        metavar="PIXELS",
        help="Pixels per window side; crops are half as wide (default: the tile set's).",
    ),
    option(
        "--from-tiles",
        is_flag=True,
        help="Let the data loader cut crops from the tile files, for tiles you edited, not from the grids they were "
        "made of.",
    ),
)
@option_group(
    "Simulated crusts",
    option(
        "--prior",
        metavar="NAME|FILE",
        shell_complete=complete.priors,
        default="central-asia",
        show_default=True,
        help="The prior that crusts are sampled from: central-asia, wide, or a TOML file.",
    ),
    option(
        "--count",
        type=click.IntRange(min=1),
        metavar="N",
        default=100,
        show_default=True,
        help="Crusts in the training set.",
    ),
    option(
        "--shape",
        type=click.IntRange(min=32),
        nargs=2,
        metavar="ROWS COLS",
        default=(240, 360),
        show_default=True,
        help="Cells of 2 arc-minutes of each crust.",
    ),
)
@option_group(
    "Network",
    option(
        "--model",
        metavar="NAME",
        shell_complete=complete.networks,
        excludes=("architecture", "init"),
        help="ggmnet (default), ggmnet-small, ggmnet-tiny, unet, smp:ARCH:ENCODER; ggmnet-a to -e (ablation), "
        "ggmnet-16 to -24 (depth); hrnetv1-w32, bisenet-resnet18, deeplabv3plus-resnet50. On crusts ggmnet-grid.",
    ),
    option(
        "--architecture",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        excludes=("model", "init"),
        metavar="FILE",
        help="A network of your own, as JSON or TOML, instead of --model.",
    ),
    option(
        "--init",
        metavar="RUN",
        shell_complete=complete.runs,
        excludes=("model", "architecture"),
        help="Fine-tune: start from the weights of this run, or of the shipped crusts-central-asia, with the same "
        "channels and classes.",
    ),
)
@option_group(
    "Optimisation",
    option(
        "--recipe",
        metavar="NAME|FILE",
        shell_complete=complete.recipes,
        help="Hyperparameters: default, paper (RGB input, random windows, which leak), cpu (default on a CPU, without "
        "--model and --size: ggmnet-small at the grid's resolution, 2h), crusts (default on crusts), or a TOML file.",
    ),
    option("--epochs", type=click.IntRange(min=1), metavar="N", help="Most epochs (default: the recipe's, 600)."),
    option(
        "--steps-per-epoch",
        type=click.IntRange(min=1),
        metavar="N",
        old_names=["--steps"],
        help="Optimiser steps per epoch (default: windows / batch size).",
    ),
    option(
        "--batch-size",
        type=click.IntRange(min=1),
        metavar="N",
        help="Global batch size: crops per step over all GPUs (default: the recipe's, 16; paper 4 per GPU).",
    ),
    option(
        "--micro-batch",
        type=click.IntRange(min=1),
        metavar="N",
        help="Micro-batch size: crops per GPU in one forward pass; gradient accumulation over micro-batches keeps the "
        "global batch size (default: the batch, halved where memory is short).",
    ),
    option(
        "--lr",
        type=click.FloatRange(min=0, min_open=True),
        metavar="RATE",
        help="Peak learning rate (default: the recipe's, 0.001).",
    ),
    option(
        "--patience",
        type=click.IntRange(min=1),
        metavar="EPOCHS",
        help="Early-stopping patience: epochs without a better tuning score before training stops; with Adam and SGD, "
        "epochs of SGD.",
    ),
    seed_option,
)
@option_group(
    "Runtime",
    option(
        "--gpus", type=click.IntRange(min=0), metavar="N", help="GPUs to train on (default: all); 0 trains on the CPU."
    ),
    device_option(
        "auto and cuda: all GPUs, or --gpus N of them. Without a GPU the command stops with status 5, because a CPU is "
        "far slower: --device cpu (or --gpus 0) trains there.",
    ),
    option(
        "--precision",
        type=click.Choice(["auto", "float32", "bfloat16"]),
        help="Precision of the network (default: auto, bfloat16 on a GPU that computes in it: Ampere and later).",
    ),
    option("--compile", is_flag=True, default=None, help="Compile the network first (torch.compile)."),
    option(
        "--time-limit",
        "time_limit_s",
        type=DURATION,
        metavar="TIME",
        help="Train and score in at most this time: 40s, 15min, 2h. Refused where not one step and its scores fit.",
    ),
)
@option_group(
    "Output",
    option("--name", metavar="NAME", help="Folder of the run in runs/ (default: the model and the time)."),
    option("--resume", is_flag=True, help="Resume the run --name (default: the newest) from its last checkpoint."),
    option("--tensorboard", is_flag=True, default=None, help="Also write runs/NAME/tensorboard."),
    dry_run_option,
    overwrite_option,
)
@command_options()
def command(session: Session, **options: Any) -> None:
    """Train a network to predict bedrock classes from gravity, on the windows of data/tiles or on simulated crusts.

    Labels in held-out blocks are not used in training: the tuning blocks select the best checkpoint, the test blocks
    are scored once, at the end. On crusts (cached in data/crusts) the network is trained on the bedrock under cover,
    and scored on test crusts beside the baselines. The optimiser is Adam, then SGD; with --time-limit, under 60
    epochs, or on crusts, Adam alone with a cosine learning rate schedule. --init fine-tunes a pretrained network.

    Writes runs/NAME: model.safetensors, model.json, last.safetensors and last.json (the checkpoint to resume from),
    metrics.csv, curves.png, scores.json, calibration.json and reliability.png (calibration of the probabilities),
    reach.safetensors (the area of applicability: where the network extrapolates); runs/latest names the newest run.
    Under torchrun or srun it joins the process group (distributed data parallel). The same command resumes a run that
    was stopped.
    """
    run_training(session, TrainOptions(given=given_on_command_line(), **options))


def run_training(session: Session, options: TrainOptions) -> None:
    """Train, and print the scores."""
    options.check()
    place = session.workspace
    setup = resumed_setup(place, options) if options.resume else new_setup(place, options)
    run_dir = setup.run_dir

    import torch

    from gravmap.learning.data.splits import DatasetSplits
    from gravmap.learning.training.distributed import choose_device, group_variables, process_group
    from gravmap.learning.training.launch import launch
    from gravmap.learning.training.run import estimate_cost, train
    from gravmap.learning.training.state import check_resumable

    variables, elsewhere = group_variables(os.environ), False
    if variables is not None:
        device, processes = "cpu" if options.on_cpu else "cuda", int(variables["WORLD_SIZE"])
        if variables["RANK"] != "0":
            session.verbosity, session.json = -1, False
    else:
        found = torch.cuda.device_count()
        # The plan of a training on another machine can be read here, without its time.
        elsewhere = options.dry_run and not options.on_cpu and found < (options.gpus or 0)
        device, processes = choose_device(options.gpus, options.device, options.gpus or 0 if elsewhere else found)
    stopped = False
    inputs_of_run = [options.architecture, *(Path(name) for name in (options.recipe, options.prior) if name)]
    if options.init:
        inputs_of_run.append(place.run(options.init))
    if variables is None or variables["RANK"] == "0":  # before what takes long; all processes share one lock
        session.writing([], [] if options.resume else inputs_of_run, True, options.dry_run, folders=[run_dir])
        stopped = not options.resume and stopped_run(run_dir, options.overwrite)
    dataset: RegionDataset | DatasetSplits
    inputs = None
    if setup.crusts is not None:
        dataset, inputs = crust_datasets(session, setup.crusts, setup.inputs, setup.windows_deg, options.dry_run)
    else:
        tiles = open_region(session, setup.from_tiles)
        dataset, inputs = region_dataset(
            session,
            setup.inputs,
            setup.split,
            setup.fold,
            leak_accepted_by=setup.leak_accepted_by,
            init=setup.values.get("init"),
            dry_run=options.dry_run,
        )
        if tiles is not None:
            dataset = DatasetSplits.from_tiles(dataset, tiles)
    config = setup.configure(dataset, inputs, device, processes)
    if stopped:
        stopped = is_same_run(run_dir, config)
    if options.resume or stopped:
        check_resumable(run_dir, DatasetSplits.of(dataset), config)
    cost = None
    # The processes of a group measure together.
    measured = config.time_limit_s is not None or (device == "cpu" and session.verbosity >= 0)
    if (options.dry_run and not elsewhere) or (measured and variables is None and processes == 1):
        cost = estimate_cost(dataset, config, processes)
        cost.check_time_limit(config.time_limit_s)  # before an old run of this name is removed
    if config.recipe == "cpu" and options.recipe is None and not options.resume:
        print_cpu_default(session, config)
    if options.dry_run:
        return print_plan(session, dataset, config, run_dir, processes, cost)
    if stopped:
        session.say(f"{run_dir} was stopped with the same options: it is resumed after its last whole epoch.")

    with process_group(device) as group:
        name, resume = group.broadcast((str(run_dir), options.resume or stopped))
        run_dir = Path(name)
        if not group.rank and not resume:
            # Files of an old run beside those of a new one would be read as one.
            remove_folder(run_dir)
        print_start(session, dataset, config, run_dir, processes, cost)
        with session.progress("Training") as listener, _naming_latest(place, run_dir, listener, group.rank) as progress:
            how: dict[str, Any] = {"resume": resume}
            if variables is None and processes > 1:
                result = launch(dataset, run_dir, config, processes, progress, **how)
            else:
                result = train(dataset, run_dir, config, progress, group=group, cost=cost, **how)
    print_result(session, run_dir, result)


@contextmanager
def _naming_latest(place: Workspace, run_dir: Path, listener: Progress, rank: int) -> Iterator[Progress]:
    """Context manager that makes a run the newest one as soon as it has a network of its own; yields a listener.

    That is before `scores.json`, which marks a complete run: a kill leaves no complete run that is not the newest. A
    resumed run that fails before its next network changes nothing.
    """
    model = run_dir / "model.json"
    before = _changed(model)
    named = bool(rank)

    def name_it(done: bool) -> None:
        nonlocal named
        if not named and (changed := _changed(model)) is not None and (done or changed != before):
            write_text(place.latest, run_dir.name + "\n")
            named = True

    def progress(done: int, total: int, note: str = "") -> None:
        name_it(done >= total)
        listener(done, total, note)

    try:
        yield progress
    finally:
        # A run that was interrupted after its first score has a network that can be used.
        name_it(False)


def _changed(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None
