"""`gravmap search`: find operators, widths and paths for a network on the tile set's own training ground."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gravmap.errors import DeviceError, InputError, OptionError
from gravmap.files import read_json, refuse_existing

from .options import ANGLE, DURATION, dry_run_option, overwrite_option, run_name, seed_option
from .search_report import tell_comparison, tell_plan, tell_random, tell_result, tell_start
from .session import Session, command_options
from .train_ground import open_region, region_ground

if TYPE_CHECKING:
    from gravmap.learning import RegionDataset
    from gravmap.search import SearchConfig

RANDOM = 5
"""So many architectures stand beside the searched one where nobody says how many."""

MOST_PX = 1024
"""Pixels a window where nobody says: a supernet at twice that takes four times the memory."""

RESUMABLE = {"time_limit_s", "device", "gpus", "random", "compare", "compare_epochs", "compare_steps", "compare_seeds"}
"""What may be said anew when a search goes on; everything else is the search's own."""


@click.command(
    "search",
    epilog="""\b
Examples:
  gravmap search --name mine --random 5 --compare
  gravmap search --device cpu --thin --depth 5 --size 128 --steps 20 --pretrain-epochs 2 --epochs 4
  gravmap search --resume --name mine --compare
  gravmap train --architecture runs/mine/architecture.json""",
)
@click.option(
    "--gpus", type=click.IntRange(0, 1), metavar="N", help="1, or 0 for the CPU: a search runs on one device."
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where to search (default: cuda).")
@click.option("--depth", type=click.IntRange(min=3), default=22, show_default=True, help="Cells per branch.")
@click.option("--thin", is_flag=True, help="With the narrow encoder and head of ggmnet-tiny, for a CPU.")
@click.option(
    "--pretrain-epochs",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Epochs in which weights are taught alone.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="Epochs after these, in which weights and architecture take turns.",
)
@click.option("--steps", type=click.IntRange(min=1), default=400, show_default=True, help="Steps per epoch.")
@click.option("--batch-size", type=click.IntRange(min=2), default=4, show_default=True, help="Crops per step.")
@click.option(
    "--size",
    "tile_size_px",
    type=click.IntRange(min=32),
    help="Pixels a window; crops are half as wide (default: the tile set's, at most 1024).",
)
@click.option(
    "--scales", type=ANGLE, multiple=True, metavar="ANGLE", help="Only windows of this side; may be repeated."
)
@click.option(
    "--input", "inputs", metavar="NAME,...", help="What the network reads, as of `gravmap train` (default: residual)."
)
@click.option("--split", default="blocks", show_default=True, help="Which split of the tile set.")
@click.option(
    "--fold", type=click.IntRange(min=0), default=0, show_default=True, help="Which of its folds is held out."
)
@click.option(
    "--flops-weight",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Weight of the multiply-adds, as a share of the largest network's, beside the loss.",
)
@click.option(
    "--architecture-lr",
    type=click.FloatRange(min=0, min_open=True),
    default=3e-4,
    show_default=True,
    help="Rate of operators, widths and paths; a short search decides little without a higher one.",
)
@click.option("--time-limit", "time_limit_s", type=DURATION, metavar="TIME", help="Stop in good order: 40s, 15min, 2h.")
@click.option(
    "--random",
    type=click.IntRange(min=1),
    metavar="N",
    help="Draw N architectures of as many parameters at random, into runs/NAME/random.",
)
@click.option(
    "--compare",
    is_flag=True,
    help=f"Train the searched architecture and random ones (--random, else {RANDOM}) alike, and say which is better.",
)
@click.option(
    "--compare-epochs", type=click.IntRange(min=1), default=30, show_default=True, help="Epochs of each such training."
)
@click.option(
    "--compare-steps", type=click.IntRange(min=1), default=100, show_default=True, help="Steps of each such epoch."
)
@click.option(
    "--compare-seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Trainings of each architecture."
)
@click.option("--name", help="Folder under runs/ (default: search and the time).")
@click.option("--resume", is_flag=True, help="Go on with the search --name (default: the newest).")
@seed_option
@dry_run_option
@overwrite_option
@command_options()
def command(session: Session, dry_run: bool, overwrite: bool, resume: bool, **options: Any) -> None:
    """Search for a network's operators, widths and paths on the tile set's own training ground.

    One half of the training blocks teaches a network that holds every choice, the other half chooses; held-out labels
    are not looked at. Writes runs/NAME: architecture.json, which `gravmap train --architecture` takes, its picture and
    its table, search.json (every candidate and its score), metrics.csv, entropies.png, and last.safetensors with
    last.json to go on from. Whether a search was worth it is told by --random and --compare: architectures nobody
    searched for, trained alike and scored on the tuning blocks. It takes hours on a GPU; -n says how many.
    """
    if (options["device"] == "cpu" and options["gpus"]) or (options["device"] == "cuda" and options["gpus"] == 0):
        raise click.UsageError("--gpus and --device contradict each other.")
    place = session.workspace
    began: dict[str, Any] = {}
    if resume:
        run_dir, began = _search_to_resume(place.runs, options["name"])
        options |= _options_of(run_dir.name, began)
        if options["gpus"] is None:
            options["device"] = options["device"] or began["options"]["device"]
    else:
        run_dir = place.runs / run_name(options["name"], "search")
        refuse_existing(run_dir, overwrite or dry_run)
    device = _device(options, dry_run)
    area = _ground(session, options)
    config = _configure(options, area, device or "cuda", began)
    if dry_run:
        return tell_plan(session, area, config, run_dir, measured=device is not None)

    from gravmap.search import search

    wanted = options["random"] is not None or options["compare"]
    if not began.get("finished") or not (wanted or began.get("complete")):
        # Files of an old run beside those of a new one would be read as one.
        for old in (run_dir,) if not resume else (run_dir / "random", run_dir / "compare"):
            shutil.rmtree(old, ignore_errors=True)
        for name in ("compare.json", "compare.md"):
            (run_dir / name).unlink(missing_ok=True)
        tell_start(session, area, config, run_dir)
        with session.progress("Searching") as progress:
            found = search(area, run_dir, config, progress, resume=resume)
        tell_result(session, run_dir, found)
    elif not wanted:
        raise InputError(
            f"The search {run_dir.name} is complete.", "--random N and --compare say whether it was worth it."
        )
    else:
        found = began
    _beside(session, area, run_dir, options, config, found)


def _beside(
    session: Session,
    area: RegionDataset,
    run_dir: Path,
    options: dict[str, Any],
    config: SearchConfig,
    found: dict[str, Any],
) -> None:
    """Draw random architectures, and train them beside the searched one, where that was asked for."""
    from gravmap.search.comparison import RANDOM as DRAWN
    from gravmap.search.comparison import ComparisonConfig, compare_with_random, write_random_architectures

    told: dict[str, Any] = {"run": str(run_dir), **found}
    have = list((run_dir / DRAWN).glob("*.json"))
    if options["random"] is not None or (options["compare"] and not have):
        drawn = write_random_architectures(run_dir, options["random"] or RANDOM)
        tell_random(session, drawn, found)
        told["random"] = [str(path) for path in drawn]
    if options["compare"]:
        schedule = ComparisonConfig(
            options["compare_epochs"],
            options["compare_steps"],
            config.batch_size,
            options["compare_seeds"],
            config.device,
        )
        with session.progress("Comparing") as progress:
            told["comparison"] = compare_with_random(area, run_dir, schedule, progress)
        tell_comparison(session, run_dir, told["comparison"])
    session.result(told)


def _device(options: dict[str, Any], dry_run: bool) -> str | None:
    """Where to search; None in a dry run without the GPU that was asked for."""
    import torch

    from gravmap.learning.training.distributed import choose_device

    try:
        return choose_device(options["gpus"], options["device"], min(torch.cuda.device_count(), 1))[0]
    except DeviceError as error:
        if dry_run:
            return None
        hint = "--device cpu --thin --depth 5 --size 128 --steps 20 --pretrain-epochs 2 --epochs 4 is one for a CPU."
        raise DeviceError(error.message, hint) from None


def _ground(session: Session, options: dict[str, Any]) -> RegionDataset:
    """The tile set's region; the names of its channels in `options` are written out on the way."""
    said = options | {"from_tiles": False}
    open_region(session, said)
    area = region_ground(session.workspace, said, may_leak=False)
    options["inputs"] = said["inputs"]
    return area


def _configure(options: dict[str, Any], area: RegionDataset, device: str, began: dict[str, Any]) -> SearchConfig:
    """The search as asked for; one that goes on has all from when it began, but for its time and its device."""
    from gravmap.search import SearchConfig

    if began:
        config = SearchConfig.from_json(json.dumps(began["options"]))
        return dataclasses.replace(config, device=device, time_limit_s=options["time_limit_s"])
    known = {item.name for item in dataclasses.fields(SearchConfig)}
    said = {name: value for name, value in options.items() if name in known and value is not None}
    said |= {"device": device, "scales_deg": list(options["scales"]) or None}
    said.setdefault("tile_size_px", min(int(area.meta["tile_size_px"]), MOST_PX))
    return SearchConfig(**said)


def _search_to_resume(runs: Path, name: str | None) -> tuple[Path, dict[str, Any]]:
    """The named search, or the one that was written last, and what its record says."""
    found = [runs / name / "search.json"] if name else list(runs.glob("*/search.json"))
    states = sorted((path for path in found if path.exists()), key=lambda path: path.stat().st_mtime)
    if not states:
        raise InputError(
            f"There is no search {name!r} in {runs}." if name else f"No search in {runs} can be resumed.",
            "`gravmap search` starts one.",
        )
    run_dir = states[-1].parent
    if not (run_dir / "last.json").exists():
        raise InputError(
            f"The search {run_dir.name} was stopped before its first epoch was done.",
            f"`gravmap search --name {run_dir.name} --overwrite` starts it anew.",
        )
    record: dict[str, Any] = read_json(states[-1], "gravmap search")
    return run_dir, record


def _options_of(name: str, record: dict[str, Any]) -> dict[str, Any]:
    """Where a search learns, as it began; refuse to change what makes its course."""
    from gravmap.learning.data.channels import expand, fields_read

    began = {
        **record["options"],
        "inputs": ",".join(record["inputs"]),
        "split": record["split"].get("name", "blocks"),
        "fold": record["split"].get("fold", 0),
        "scales": tuple(record["options"]["scales_deg"] or ()),
    }
    context = click.get_current_context()
    for parameter in context.command.params:
        option = str(parameter.name)
        said = context.params.get(option)
        if option not in began or option in RESUMABLE:
            continue
        if context.get_parameter_source(option) is not click.core.ParameterSource.COMMANDLINE:
            continue
        if option == "inputs":
            said = ",".join(expand(str(said), fields_read(record["inputs"])[0]))
        if said != began[option]:
            raise OptionError(
                f"{name} began with another {parameter.opts[0]}: {began[option]}.",
                "Leave it out, or search anew under another --name.",
            )
    return {option: began[option] for option in ("inputs", "split", "fold")}
