"""`gravmap train`: teach a network on the tile set's native grids or on crusts, and score it on held-out ground."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gravmap.errors import InputError, OptionError
from gravmap.files import read_json, refuse_existing, write_text
from gravmap.workspace import require

from .options import ANGLE, DURATION, dry_run_option, overwrite_option, run_name, seed_option
from .session import Session, command_options
from .train_ground import (
    COUNT,
    CRUSTS,
    PRIOR,
    SHAPE,
    chosen_defaults,
    crusts_ground,
    open_region,
    refuse_options,
    region_ground,
    taught_crusts,
)
from .train_report import tell_plan, tell_result, tell_start

if TYPE_CHECKING:
    from gravmap.learning import RegionDataset, TrainConfig
    from gravmap.learning.data.splits import DatasetSplits

# What may be said anew when a run goes on; everything else is the run's own.
RESUMABLE = {
    "epochs", "time_limit_s", "micro_batch", "patience", "precision", "compile", "tensorboard", "gpus", "device",
}  # fmt: skip


@click.command(
    "train",
    epilog="""\b
Examples:
  gravmap train --gpus 4
  gravmap train --device cpu --model ggmnet-small --size 256 --time-limit 15min
  gravmap train --device cpu --on crusts --count 60
  gravmap train --context outcrop --init crusts-central-asia
  gravmap train --resume""",
)
@click.option("--gpus", type=click.IntRange(min=0), metavar="N", help="GPUs to train on (default: all); 0 is the CPU.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where to train (default: cuda).")
@click.option(
    "--on",
    type=click.Choice(["region", "crusts"]),
    default="region",
    show_default=True,
    help="Where to learn: the tile set's region, or simulated crusts, whose bedrock is known under cover too.",
)
@click.option(
    "--prior",
    metavar="NAME|FILE",
    default=PRIOR,
    show_default=True,
    help="What crusts are drawn from: central-asia, wide, or a TOML file.",
)
@click.option(
    "--count", type=click.IntRange(min=1), metavar="N", default=COUNT, show_default=True, help="Crusts to learn from."
)
@click.option(
    "--shape",
    type=click.IntRange(min=32),
    nargs=2,
    metavar="ROWS COLS",
    default=SHAPE,
    show_default="240 360",
    help="Cells of 2 arc-minutes of each crust.",
)
@click.option(
    "--context",
    type=click.Choice(["outcrop", "none"]),
    help="Start from mapped outcrop, and learn what gravity adds (default: none on a region, outcrop on crusts).",
)
@click.option(
    "--cuts",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --context on a region: covers cut into its outcrop at a time, one new each epoch (default: 8).",
)
@click.option(
    "--init",
    metavar="RUN",
    help="Begin with the weights of this run, or of the shipped crusts-central-asia: same channels and classes.",
)
@click.option(
    "--model",
    help="ggmnet (default), ggmnet-small, ggmnet-tiny, unet, smp:ARCH:ENCODER; ggmnet-a to -e (ablation), "
    "ggmnet-16 to -24 (depth); hrnetv1-w32, bisenet-resnet18, deeplabv3plus-resnet50. On crusts residual-unet.",
)
@click.option(
    "--architecture",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A network of your own, as JSON or TOML, instead of --model.",
)
@click.option(
    "--input",
    "inputs",
    metavar="NAME,...",
    help="What to learn from: residual (default), multi (residual,bouguer,scale), rgb (the residual as colours), "
    "fields of fields.nc, scale.",
)
@click.option("--split", default="blocks", show_default=True, help="Which split of the tile set.")
@click.option(
    "--fold", type=click.IntRange(min=0), default=0, show_default=True, help="Which of its folds is held out."
)
@click.option("--allow-leak", is_flag=True, help="Train though labels of over 0.1 % of the held-out bedrock are seen.")
@click.option(
    "--from-tiles",
    is_flag=True,
    help="Cut crops from the tile files, for tiles you edited; not from the grids they were made of.",
)
@click.option("--size", "tile_size_px", type=click.IntRange(min=16), help="Pixels a window (default: the tile set's).")
@click.option(
    "--scales", type=ANGLE, multiple=True, metavar="ANGLE", help="Only windows of this side; may be repeated."
)
@click.option("--recipe", help="default, paper, crusts (default on crusts), or a .toml file that says how.")
@click.option("--epochs", type=click.IntRange(min=1), help="At most so many (default: the recipe's, 600).")
@click.option("--steps", type=click.IntRange(min=1), help="Steps per epoch (default: windows / batch).")
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Crops per step over all GPUs (default: the recipe's, 16)."
)
@click.option(
    "--micro-batch", type=click.IntRange(min=1), help="Crops per GPU at once; the rest of a step's is added up."
)
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), help="Highest rate (default: the recipe's, 0.001).")
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    metavar="EPOCHS",
    help="Stop after so many without a better score; with two optimisers, of the second.",
)
@click.option("--time-limit", "time_limit_s", type=DURATION, metavar="TIME", help="Stop in good order: 40s, 15min, 2h.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    help="Of the network (default: auto, bfloat16 on a GPU).",
)
@click.option("--compile", is_flag=True, default=None, help="Compile the network first (torch.compile).")
@click.option("--tensorboard", is_flag=True, default=None, help="Write runs/NAME/tensorboard, too.")
@click.option("--name", help="Folder under runs/ (default: the model and the time).")
@click.option("--resume", is_flag=True, help="Go on with the run --name (default: the newest) after its last epoch.")
@seed_option
@dry_run_option
@overwrite_option
@command_options()
def command(session: Session, allow_leak: bool, dry_run: bool, overwrite: bool, **options: Any) -> None:
    """Train a network to name the bedrock from the field, on every window of data/tiles, or on simulated crusts.

    Labels in held-out blocks are never learnt from: the tuning blocks choose the weights that are kept, the test
    blocks are scored once, at the end. On crusts (kept in data/crusts) it is asked for the bedrock under cover, and
    scored on crusts it never saw, beside the null models. Adam, then SGD; with --time-limit, under 60 epochs, or on
    crusts, Adam alone with a falling rate. Writes runs/NAME: model.safetensors, model.json, last.safetensors,
    last.json, metrics.csv, curves.png, scores.json, calibration.json and reliability.png (how far probabilities can be
    believed), reach.safetensors (where the network extrapolates); runs/latest names the newest run. Under torchrun or
    srun it joins the group.
    """
    if (options["device"] == "cpu" and options["gpus"]) or (options["device"] == "cuda" and options["gpus"] == 0):
        raise click.UsageError("--gpus and --device contradict each other.")
    place = session.workspace
    if options["resume"]:
        run_dir = _run_to_resume(place.runs, options["name"])
        options |= _options_of(run_dir)
    else:
        refuse_options(options["on"], options["context"])
        options |= chosen_defaults(place, options)
        run_dir = place.runs / run_name(options["name"], options["model"] or options["on"])

    import torch

    from gravmap.learning.data.splits import DatasetSplits
    from gravmap.learning.training.distributed import choose_device, group_variables, process_group
    from gravmap.learning.training.launch import launch
    from gravmap.learning.training.trainer import train

    grouped = group_variables(os.environ) is not None
    if grouped:
        device, processes = "cpu" if options["device"] == "cpu" or options["gpus"] == 0 else "cuda", 1
    else:
        device, processes = choose_device(options["gpus"], options["device"], torch.cuda.device_count())
    if not options["resume"] and not grouped:
        refuse_existing(run_dir, overwrite or dry_run)  # before what takes long
    ground: RegionDataset | DatasetSplits
    if options["on"] == CRUSTS:
        ground = crusts_ground(session, options, dry_run)
    else:
        tiles = open_region(session, options)
        ground = region_ground(place, options, allow_leak or options["resume"])
        if tiles is not None:
            ground = DatasetSplits.from_tiles(ground, tiles)
    config = _configure(options, ground, device)
    if dry_run:
        return tell_plan(session, ground, config, run_dir, processes)

    with process_group(device) as group:
        run_dir = Path(group.broadcast(str(run_dir)))
        if group.rank:
            session.verbosity, session.json = -1, False
        else:
            _make_room(run_dir, overwrite, options["resume"])
        tell_start(session, ground, config, run_dir, processes if not grouped else group.size)
        try:
            with session.progress("Training") as progress:
                how: dict[str, Any] = {"resume": options["resume"]}
                if processes > 1:
                    result = launch(ground, run_dir, config, processes, progress, **how)
                else:
                    result = train(ground, run_dir, config, progress, group=group, **how)
        finally:
            # A run that was broken off after its first score has a network that can be used.
            if not group.rank and (run_dir / "model.json").exists():
                write_text(place.runs / "latest", run_dir.name + "\n")
    tell_result(session, run_dir, result)


def _run_to_resume(runs: Path, name: str | None) -> Path:
    """The named run, or the one whose state was written last."""
    if name is not None:
        return require(runs / name / "last.json", "gravmap train").parent
    # A search leaves a state of its own kind.
    states = [path for path in runs.glob("*/last.json") if not (path.parent / "search.json").exists()]
    states.sort(key=lambda path: path.stat().st_mtime)
    if not states:
        raise InputError(f"No run in {runs} can be resumed.", "`gravmap train` starts one.")
    return states[-1].parent


def _options_of(run_dir: Path) -> dict[str, Any]:
    """The options a run began with, but for those said anew; refuse to change what makes its curve.

    `began` among them is the whole configuration.
    """
    from gravmap.learning import TrainConfig
    from gravmap.learning.data.outcrop_context import measured_names

    context = click.get_current_context()
    stored = read_json(run_dir / "last.json", "gravmap train")
    crusts = stored.get("taught_on", {})
    began = {
        **stored["config"],
        "on": "region",
        **(taught_crusts(crusts) if crusts else {}),
        "inputs": ",".join(measured_names(stored["inputs"])),
        "split": stored["split"].get("name", "blocks"),
        "fold": stored["split"].get("fold", 0),
        "scales": tuple(stored["config"]["scales_deg"] or ()),
    }
    taken: dict[str, Any] = {"began": TrainConfig.from_json(json.dumps(stored["config"]))}
    for parameter in context.command.params:
        name = str(parameter.name)
        if name not in began:
            continue
        said = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if said and name not in RESUMABLE and not _same_option(name, context.params[name], began[name]):
            raise OptionError(
                f"{run_dir.name} began with another {parameter.opts[0]}: {_shown(began[name])}.",
                "Leave it out, or train anew under another --name.",
            )
        if not said and name != "device":
            taken[name] = began[name]
    return taken


def _same_option(name: str, said: Any, began: Any) -> bool:
    """Whether an option says what the run began with, in whatever words."""
    if name == "inputs":
        from gravmap.learning.data.channels import expand, fields_read

        said = ",".join(expand(said, fields_read(began.split(","))[0]))
    elif name == "architecture":
        from gravmap.network import read_architecture

        said = read_architecture(said)
    elif name == "context":
        said = None if said == "none" else said
    elif name == "init":
        began = (began or {}).get("run")
        said = Path(said).name
    elif name == "prior":
        from gravmap.synthetic import load_prior

        said, began = load_prior(said).sha256, began["sha256"]
    return bool(said == began)


def _shown(value: Any) -> Any:
    """A value that a run began with, as one says it on the command line."""
    if value is None:
        return "none"
    return value.get("run") or value.get("name") or value.get("kind") if isinstance(value, dict) else value


def _configure(options: dict[str, Any], ground: RegionDataset | DatasetSplits, device: str) -> TrainConfig:
    from gravmap.learning import TrainConfig, make_config
    from gravmap.learning.data.splits import DatasetSplits
    from gravmap.learning.training.curves import require_tensorboard
    from gravmap.network import describe, read_architecture

    if isinstance(options["architecture"], Path):
        if options["model"] is not None:
            raise click.UsageError("--model and --architecture exclude each other.")
        options |= {"model": options["architecture"].stem, "architecture": read_architecture(options["architecture"])}
    elif options["architecture"] is None and options["model"] is not None:
        describe(options["model"])
    begun = options.get("begun")
    if begun is not None and not options["scales"]:
        scales, size = begun.windows_for(DatasetSplits.of(ground).scales_deg)
        options |= {"scales": tuple(scales), "tile_size_px": options["tile_size_px"] or size}
    known = {item.name for item in dataclasses.fields(TrainConfig)}
    said = {name: value for name, value in options.items() if name in known and value is not None}
    said |= {"device": device, "scales_deg": list(options["scales"]) or None}
    # A run that goes on has its whole recipe from when it began.
    began: TrainConfig | None = options.get("began")
    config = dataclasses.replace(began, **said) if began else make_config(**said)
    if config.tensorboard:
        require_tensorboard()
    if device == "cpu" and config.micro_batch is None:
        # A large crop takes gigabytes in a large network: on a CPU no more than two million pixels at once.
        crop_px = (config.tile_size_px or int(ground.meta["tile_size_px"])) // 2
        at_once = min(max(2, 2**21 // crop_px**2), config.batch_size)
        config = dataclasses.replace(config, micro_batch=at_once if at_once < config.batch_size else None)
    return config


def _make_room(run_dir: Path, overwrite: bool, resume: bool) -> None:
    if not resume:
        refuse_existing(run_dir, overwrite)
        # Files of an old run beside those of a new one would be read as one.
        shutil.rmtree(run_dir, ignore_errors=True)
