"""`gravmap evaluate`: scores of finished runs on held-out test blocks, protocol by protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from . import complete
from .evaluate_report import print_at_points, print_hidden_outcrop, print_plan, print_scores
from .options import Command, device_option, dry_run_option, option, report_device
from .residual import fields_for
from .session import Session, command_options

if TYPE_CHECKING:
    from gravmap.mapping.scoring.evaluate import Evaluated

T = TypeVar("T")


@click.command(
    "evaluate",
    cls=Command,
    short_help="Score trained networks on the held-out test blocks.",
    epilog="""\b
Examples:
  gravmap evaluate --baselines
  gravmap evaluate --baselines --topography etopo_60s.nc
  gravmap evaluate demo --points wells.csv --class-field lith
  gravmap evaluate crusts-central-asia
  gravmap evaluate demo --points wells.csv --class-field code --legend geo3al
  gravmap evaluate crusts-central-asia --points wells.csv""",
)
@click.argument("runs", metavar="[RUN]...", nargs=-1, shell_complete=complete.runs)
@option(
    "--baselines",
    is_flag=True,
    help="Also score baselines (null models), on the same nodes: methods that need no network.",
)
@option(
    "--topography",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="With --baselines: a grid of heights over the area, for a baseline that reads topography alone.",
)
@option(
    "--points",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Boreholes to score at: CSV with lon and lat, or any vector file, in any coordinate system.",
)
@option(
    "--class-field",
    metavar="FIELD",
    help="Field of a borehole's bedrock: names or indices of classes, codes of the map, or ages (Devonian, 370 Ma).",
)
@option(
    "--legend",
    metavar="NAME|FILE",
    shell_complete=complete.legends,
    help="The legend of the codes in --class-field, where they are of another map than the region's.",
)
@option(
    "--depth-column",
    metavar="FIELD",
    help="Field of a borehole's depth of the basement; metres, but where its name ends with _km or _ft; empty where it "
    "was not reached (default: depth_m, cover_m, basement_m ... where the file has one).",
)
@option("--area-weighted", is_flag=True, help="Weight nodes by their area on the ellipsoid.")
@option("--importance", is_flag=True, help="Also the permutation importance of each input field, on the tuning blocks.")
@device_option()
@dry_run_option
@command_options()
def command(
    session: Session,
    runs: tuple[str, ...],
    baselines: bool,
    topography: Path | None,
    points: Path | None,
    class_field: str | None,
    legend: str | None,
    depth_column: str | None,
    area_weighted: bool,
    importance: bool,
    device: str,
    dry_run: bool,
) -> None:
    """Score runs on their held-out test blocks, every node of the gravity grid once.

    RUN is a name under runs/ (default: every finished run). Runs that differ in fold and seed alone form a group, with
    mean and standard deviation, and a picture, runs/group-NAME.png. Scores are listed by protocol: a row comes only
    from runs trained under it. Writes evaluation.json, confusion.png and distance.png (accuracy against distance to
    the nearest training outcrop) into runs/NAME. Predictions are cached there (evaluation.npz): a second call is fast.

    A network trained on simulated crusts (RUN may be the shipped one) is scored at all mapped outcrop, which is hidden
    from it block by block; with --points at boreholes under mapped cover, by their class and by the depth of the
    basement (the gravity and the map are then read through data/tiles: `gravmap tile --index-only`). Nothing is
    written but residuals that it reads and data/fields.nc lacks, into a file beside it.
    """
    if topography is not None and not baselines:
        raise click.UsageError("--topography is for a baseline: add --baselines.")
    if points is None and (class_field or depth_column):
        raise click.UsageError("--class-field and --depth-column are fields of boreholes: add --points FILE.")
    if legend is not None and class_field is None:
        raise click.UsageError("--legend reads the codes of boreholes: add --class-field FIELD.")
    from gravmap.errors import InputError
    from gravmap.geology import load_legend
    from gravmap.geology.points import read_points
    from gravmap.mapping.predictor import resolve_device
    from gravmap.mapping.scoring.estimate import estimate_run, estimated_groups
    from gravmap.mapping.scoring.evaluate import OUTPUTS, EvaluateOptions, evaluate_at_points, evaluate_run
    from gravmap.mapping.scoring.finished_run import finished_runs
    from gravmap.mapping.scoring.protocols import draw_groups, protocols
    from gravmap.outputs import writing
    from gravmap.tiling.training_arrays import read_index

    place = session.workspace
    folders = [place.run(name) for name in dict.fromkeys(runs)] if runs else finished_runs(place.runs)
    if not folders:
        raise InputError(f"No finished run in {place.runs}.", "`gravmap train` makes one.")
    holes = None if points is None else read_points(points, class_field, depth_column)
    if holes is not None and not holes.field and holes.depth_m is None:
        raise click.UsageError(
            "--points needs the field of a class (--class-field), of a depth in metres (--depth-column), or both."
        )
    if holes is not None and legend is not None:
        holes = replace(holes, legend=load_legend(legend))
    options = EvaluateOptions(baselines, topography, holes, area_weighted, importance, str(resolve_device(device)))
    elsewhere = [folder for folder in folders if _trained_on_crusts(folder)]
    at_points: list[dict[str, Any]] = []
    hidden: list[dict[str, Any]] = []
    refused_there: list[dict[str, str]] = []
    if elsewhere:
        folders = [folder for folder in folders if folder not in elsewhere]
        names = ", ".join(folder.name for folder in elsewhere)
        where = "mapped outcrop, hidden block by block" if holes is None else f"the boreholes of {points}"
        if dry_run:
            session.say(f"Would score at {where}: {names}, trained on simulated crusts.")
        elif holes is None:
            hidden, refused_there = _of_each(
                session, elsewhere, bool(runs), lambda folder: _at_hidden_outcrop(session, folder, options.device)
            )
            print_hidden_outcrop(session, hidden)
        else:

            def at_boreholes(folder: Path) -> dict[str, Any]:
                fields_for(session, folder)
                return evaluate_at_points(folder, place.tiles, options)

            at_points, refused_there = _of_each(session, elsewhere, bool(runs), at_boreholes)
            print_at_points(session, at_points)
        given = (("--baselines", baselines and holes is not None), ("--importance", importance))
        if ignored := [name for name, wanted in given if wanted]:
            session.warn(f"{' and '.join(ignored)}: only for runs that have test blocks here.")
        if not folders:
            if not dry_run:
                report_device(session, device, options.device)
            session.result(
                {"protocols": {}, "at_points": at_points, "hidden_outcrop": hidden, "left_out": refused_there}
            )
            return
    index = read_index(place.tiles)
    if dry_run:
        estimates, refused = _of_each(
            session, folders, bool(runs), lambda folder: estimate_run(folder, place.tiles, options)
        )
        groups = estimated_groups(estimates)
        print_plan(session, estimates, groups, options, place.runs)
        session.result({"runs": [each.to_dict() for each in estimates], "groups": groups, "left_out": refused})
        return

    def score(folder: Path) -> Evaluated:
        fields_for(session, folder)
        written = [folder / name for name in OUTPUTS]
        with (
            writing(written, [topography, points], True, lock=folder),
            session.progress(f"evaluate {folder.name}") as progress,
        ):
            return evaluate_run(folder, place.tiles, options, progress)

    scored, refused = _of_each(session, folders, bool(runs), score)
    records = [each.record for each in scored]
    found = protocols(scored, index)
    pictures = draw_groups(found, records, place.runs)
    print_scores(session, found, records, folders, pictures)
    report_device(session, device, options.device)
    session.result(
        {
            "protocols": found,
            **({"at_points": at_points} if at_points else {}),
            **({"hidden_outcrop": hidden} if hidden else {}),
            "left_out": [*refused_there, *refused],
        }
    )


def _at_hidden_outcrop(session: Session, folder: Path, device: str) -> dict[str, Any]:
    """Scores of a network at the mapped outcrop of the workspace, hidden from it block by block."""
    from gravmap.gravity.field_reader import FieldReader
    from gravmap.mapping.scoring.hidden_outcrop import score_hidden_outcrop
    from gravmap.regions import Region
    from gravmap.workspace import require

    labels = require(session.workspace.labels, "gravmap rasterize")
    fields = fields_for(session, folder)
    with FieldReader(fields) as reader:
        everything = Region(*reader.nodes_wsen)
    with session.progress(f"evaluate {folder.name} at hidden outcrop") as progress:
        return score_hidden_outcrop(fields, labels, [folder], everything, device=device, progress=progress)[0]


def _trained_on_crusts(folder: Path) -> bool:
    """Whether a run was trained on simulated crusts; a folder that cannot be read is refused later."""
    from gravmap.errors import InputError
    from gravmap.mapping.page.facts import trained_on_crusts
    from gravmap.records import read_model

    try:
        return trained_on_crusts(read_model(folder).get("taught_on", {}))
    except InputError:
        return False


def _of_each(
    session: Session, folders: Sequence[Path], by_name: bool, score: Callable[[Path], T]
) -> tuple[list[T], list[dict[str, str]]]:
    """The result for each run, and the runs left out.

    A run given by name must be scored; among all runs, some may be of an older version.
    """
    from gravmap.errors import InputError

    results: list[T] = []
    refused: dict[str, InputError] = {}
    for folder in folders:
        try:
            results.append(score(folder))
        except InputError as error:
            if by_name:
                raise
            refused[folder.name] = error
    if not results and len({why.message for why in refused.values()}) == 1:
        raise next(iter(refused.values()))
    for name, why in refused.items():
        session.warn(f"{name} is left out: {why}")
    if not results:
        raise InputError(
            f"None of the {len(folders)} runs in {folders[0].parent} can be scored.", "The warnings above say why."
        )
    return results, [{"run": name, "why": why.message} for name, why in refused.items()]
