"""`gravmap run`: the steps from what a workspace holds to the map of a region."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import complete
from .options import Command, chosen_region, dry_run_option, map_name, option, region_options
from .session import Session, command_options

if TYPE_CHECKING:
    import xarray as xr

    from gravmap.regions import Region
    from gravmap.workspace import Workspace

HEIGHT = "10km"
DEFAULT_REGION = "liu2024"
"""What `gravmap residual` takes of a grid that covers it."""


@dataclass(frozen=True)
class Step:
    """A command that is left to run.

    Attributes
    ----------
    words : list of str
        Its name and options.
    why : str
        The reason, as a sentence.
    """

    words: list[str]
    why: str


@click.command(
    "run",
    cls=Command,
    short_help="Run the steps that are left to the map of a region.",
    epilog="""\b
Examples:
  gravmap run --region junggar
  gravmap run --region tarim --gravity my.nc --map my.gpkg --legend my.toml
  gravmap run --region junggar --train""",
)
@region_options
@option(
    "--gravity",
    type=click.Path(path_type=Path),
    metavar="GRID",
    help="The gravity grid (default: WGM2012, which `gravmap fetch` downloads).",
)
@option(
    "--map",
    "geology",
    type=click.Path(path_type=Path),
    metavar="MAP",
    help="The geological map (default: those that `gravmap fetch` downloads).",
)
@option(
    "--legend",
    metavar="NAME|FILE",
    help="The legend of MAP: a shipped one or a TOML file.",
    shell_complete=complete.legends,
)
@option(
    "--train",
    is_flag=True,
    help="Train a network on the outcrop of the region first, from the shipped one, and score it on held-out blocks.",
)
@dry_run_option
@command_options()
def command(
    session: Session,
    region: str | None,
    bbox: tuple[float, ...] | None,
    gravity: Path | None,
    geology: Path | None,
    legend: str | None,
    train: bool,
    dry_run: bool,
) -> None:
    """Run the steps that are left from what is there to the map of a region.

    Looks at the workspace, and runs what is missing of fetch, residual, rasterize and predict (with --train also of
    tile, train and evaluate), each printed before it runs. What is there is kept, so that the same command goes on
    where one stopped. It stops where you have to decide: where the legend of a map is not known, or a file does not
    fit.

    Without --train the newest run makes the map, or else the network shipped with gravmap. Every other option has the
    default of the command that is run; run that command by itself to choose.
    """
    place = session.workspace
    box = chosen_region(session, region, bbox)
    if box is None:
        raise click.UsageError("Name a region: --region NAME (junggar, tarim ...) or --bbox W S E N.")
    if legend is not None and geology is None:
        raise click.UsageError("--legend is the legend of a map: add --map MAP.")
    where = ["--region", region] if region is not None else ["--bbox", *(f"{side:.12g}" for side in bbox or ())]
    name = map_name(region, bbox)
    steps = _steps(place, box, where, name, gravity, geology, legend, train)
    target = place.maps / name
    if not steps:
        session.say(f"{target / 'report.html'} is there. `gravmap predict --overwrite` makes the map anew.")
    for number, step in enumerate(steps, 1):
        session.say(f"{'' if dry_run or number == 1 else chr(10)}Step {number} of {len(steps)}: {step.why}")
        if dry_run:
            session.say(f"  gravmap {shlex.join(step.words)}")
        else:
            session.run(place.root, step.words)
    if steps and not dry_run:
        session.say(f"\nOpen {target / 'report.html'}.")
    session.result({"steps": [step.words for step in steps], "map": str(target)})


def _steps(
    place: Workspace,
    box: Region,
    where: list[str],
    name: str,
    gravity: Path | None,
    geology: Path | None,
    legend: str | None,
    train: bool,
) -> list[Step]:
    """The commands that are left.

    Raises
    ------
    InputError
        The fields do not cover the region, a file that was given is missing, or another than was used.
    OptionError
        The legend of the map was not given.
    """
    from gravmap.download.present import fetched
    from gravmap.errors import InputError, OptionError
    from gravmap.gravity.field_reader import FieldReader, fields_region
    from gravmap.gravity.grid import extent, open_grid
    from gravmap.mapping.compatibility import check_recipe
    from gravmap.mapping.record.data_sources import field_file_sources, label_file_sources
    from gravmap.records import read_model
    from gravmap.regions import find_region
    from gravmap.workspace import SHIPPED

    network = place.run(SHIPPED if train or not place.latest.exists() else None)
    trained = dict(read_model(network)["field_recipe"])
    steps: list[Step] = []
    for path in (gravity, geology):
        if path is not None and not path.exists():
            raise InputError(f"{path} is missing.", "Give the path of the file.")
    if place.fields.exists():
        if gravity is not None:
            _check_source(place.fields, field_file_sources(place.fields), gravity, "--gravity", "gravmap residual")
        covered = fields_region(place.fields)
        if not covered.contains(box, 0.05):
            raise InputError(
                f"{place.fields} covers {covered}, not {box}.",
                "Map a region inside it, or make the fields of another: `gravmap residual --overwrite`, with --region.",
            )
        with FieldReader(place.fields) as fields:
            check_recipe(fields.recipe, trained, place.fields)
    else:
        if gravity is None and not fetched(place.raw, "gravity"):
            steps.append(Step(["fetch", "wgm2012"], "no gravity is here: download the grid of WGM2012."))
        source, why = [], "continue the gravity upward, keep the residual."
        if gravity is not None:
            grid = open_grid(gravity)
            if not (own := extent(grid)).contains(box, 0.05):
                raise InputError(*box.beyond(own, str(gravity)))
            source = [str(gravity)]
            if resolution := _resolution(grid, trained, gravity, network):
                source += ["--resolution", resolution]
                why = f"resample the gravity as {network.name} reads it, {why}"
        part = [] if find_region(DEFAULT_REGION, place.regions).contains(box) else where
        steps.append(Step(["residual", *source, "--height", HEIGHT, *part], why))
    if place.labels.exists():
        if geology is not None:
            _check_source(place.labels, label_file_sources(place.labels), geology, "--map", "gravmap rasterize")
    else:
        if geology is not None and legend is None:
            raise OptionError(
                f"What the codes of {geology.name} mean is not known.",
                f"Give its --legend. `gravmap legend draft {geology} --field FIELD` writes a first one; review it, then"
                " run this again.",
            )
        if geology is None and not fetched(place.raw, "geology"):
            from gravmap.download.sources import known_sources

            names = [source.name for source in known_sources().values() if source.kind == "geology"]
            steps.append(Step(["fetch", *names], "no geological map is here: download those of the USGS."))
        drawn = [] if geology is None else [str(geology), "--legend", str(legend)]
        steps.append(Step(["rasterize", *drawn], "turn the geological map into classes."))
    run = place.runs / f"run-{name}"
    if train and not (run / "scores.json").exists():
        if not (place.tiles / "index.json").exists():
            steps.append(Step(["tile", "--index-only"], "hold out blocks of outcrop, to score the network on."))
        steps.append(
            Step(
                ["train", "--name", run.name, "--context", "outcrop", "--init", SHIPPED, "--device", "auto"],
                "train a network on the outcrop, from the shipped one.",
            )
        )
    if train and not (run / "evaluation.json").exists():
        why = "score it on the held-out blocks, beside methods without it."
        steps.append(Step(["evaluate", run.name, "--baselines"], why))
    mapped = (place.maps / name / "report.html").exists()
    if steps or not mapped:  # a map of what is made anew would be of something else
        maker = "the newest run" if train or place.latest.exists() else "the network shipped with gravmap"
        again = ["--overwrite"] if mapped else []
        chosen = ["--run", run.name] if train else []
        steps.append(Step(["predict", *where, *chosen, *again], f"predict the bedrock under cover with {maker}."))
    return steps


def _resolution(grid: xr.DataArray, trained: Mapping[str, Any], path: Path, network: Path) -> str:
    """The spacing to resample a grid to so that a network can read it; empty if it has that spacing.

    Raises
    ------
    InputError
        The grid lies at another height, or is finer.
    """
    from gravmap.errors import InputError
    from gravmap.gravity.grid import spacing_deg
    from gravmap.units import describe_angle, format_angle, format_length

    level, needed_level = float(grid.attrs["height_m"]), float(trained.get("input_height_m") or 0)
    step = max(spacing_deg(grid))
    needed_step = max(trained.get("spacing_deg") or [step])
    if abs(level - needed_level) > 1 or step < 0.99 * needed_step:
        raise InputError(
            f"{path} lies at a height of {format_length(level)}, with a node every {describe_angle(step)};"
            f" {network.name} reads gravity at {format_length(needed_level)}, every {describe_angle(needed_step)}.",
            f"Train a network on this grid, step by step: `gravmap residual {path} --height {HEIGHT}`, `gravmap"
            " rasterize MAP --legend LEGEND`, `gravmap tile`, `gravmap train`, `gravmap predict`; or give a grid of"
            " that height and spacing.",
        )
    return format_angle(round(needed_step, 8)) if step > 1.01 * needed_step else ""


def _check_source(
    made: Path, sources: Sequence[Mapping[str, Any]], given: Path, option_name: str, command: str
) -> None:
    """Refuse a file that is not the one that an existing file was made from: it would not be read."""
    from gravmap.errors import InputError
    from gravmap.mapping.record.data_sources import file_name

    recorded = {name for each in sources if (name := file_name(each))}
    if recorded and given.name not in recorded:
        raise InputError(
            f"{made} is there, and was not made from {given}: {option_name} would not be read.",
            f"Leave {option_name} out, or make {made.name} of it first: `{command} {given} ... --overwrite`.",
        )
