"""`gravmap evaluate`: honest scores of finished runs, protocol by protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from .evaluate_report import tell_plan, tell_scores
from .options import device_option, dry_run_option
from .session import Session, command_options

if TYPE_CHECKING:
    from gravmap.mapping.scoring.evaluate import Evaluated

T = TypeVar("T")


@click.command(
    "evaluate",
    epilog="""\b
Examples:
  gravmap evaluate --baselines
  gravmap evaluate --baselines --topography ETOPO_2022_v1_60s_N90W180_surface.nc
  gravmap evaluate demo --points wells.csv --class-field lith""",
)
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option("--baselines", is_flag=True, help="Also score what needs no network, on the same nodes: null models.")
@click.option(
    "--topography",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="With --baselines: a grid of heights over the area, for a null model that reads topography alone.",
)
@click.option(
    "--points",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Boreholes to score at: CSV with lon and lat, or any vector file, in any coordinate system.",
)
@click.option("--class-field", metavar="FIELD", help="What names a borehole's bedrock: a class by name, or its index.")
@click.option("--area-weighted", is_flag=True, help="Count the ground of a node on the ellipsoid, not the node.")
@click.option("--importance", is_flag=True, help="Also what each field is worth to the network, on the tuning blocks.")
@device_option
@dry_run_option
@command_options()
def command(
    session: Session,
    runs: tuple[str, ...],
    baselines: bool,
    topography: Path | None,
    points: Path | None,
    class_field: str | None,
    area_weighted: bool,
    importance: bool,
    device: str,
    dry_run: bool,
) -> None:
    """Score runs on the test blocks that were kept from them, every node of the gravity grid once.

    RUN is a name under runs/ (default: every finished run). Runs that differ in fold and seed alone form a group, with
    mean and spread, and a picture, runs/group-NAME.png. Scores stand by protocol: a row comes only from runs trained
    under it. Writes evaluation.json, confusion.png and distance.png (accuracy against distance to the nearest outcrop
    that training saw) into runs/NAME. What a network said is kept there (evaluation.npz): a second call is quick.
    """
    if topography is not None and not baselines:
        raise click.UsageError("--topography is for a null model: give --baselines as well.")
    if (points is None) != (class_field is None):
        raise click.UsageError("--points and --class-field go together: the file, and its field that names the class.")
    from gravmap.errors import InputError
    from gravmap.geology.points import read_points
    from gravmap.mapping.predictor import resolve_device
    from gravmap.mapping.scoring.estimate import estimate_run, estimated_groups
    from gravmap.mapping.scoring.evaluate import EvaluateOptions, evaluate_run
    from gravmap.mapping.scoring.finished_run import finished_runs
    from gravmap.mapping.scoring.protocols import draw_groups, protocols
    from gravmap.tiling import read_index

    place = session.workspace
    folders = [place.run(name) for name in dict.fromkeys(runs)] if runs else finished_runs(place.runs)
    if not folders:
        raise InputError(f"No finished run in {place.runs}.", "`gravmap train` makes one.")
    index = read_index(place.tiles)
    holes = None if points is None else read_points(points, str(class_field))
    options = EvaluateOptions(baselines, topography, holes, area_weighted, importance, str(resolve_device(device)))
    if dry_run:
        estimates, refused = _of_each(
            session, folders, bool(runs), lambda folder: estimate_run(folder, place.tiles, options)
        )
        groups = estimated_groups(estimates)
        tell_plan(session, estimates, groups, options, place.runs)
        session.result({"runs": [each.to_dict() for each in estimates], "groups": groups, "left_out": refused})
        return

    def score(folder: Path) -> Evaluated:
        with session.progress(f"evaluate {folder.name}") as progress:
            return evaluate_run(folder, place.tiles, options, progress)

    scored, refused = _of_each(session, folders, bool(runs), score)
    records = [each.record for each in scored]
    found = protocols(scored, index)
    pictures = draw_groups(found, records, place.runs)
    tell_scores(session, found, records, folders, pictures)
    session.result({"protocols": found, "left_out": refused})


def _of_each(
    session: Session, folders: Sequence[Path], by_name: bool, ask: Callable[[Path], T]
) -> tuple[list[T], list[dict[str, str]]]:
    """What is asked of each run, and the runs that refuse.

    A run that was called by name must answer; of all runs some may be of another time.
    """
    from gravmap.errors import InputError

    answers: list[T] = []
    refused: dict[str, InputError] = {}
    for folder in folders:
        try:
            answers.append(ask(folder))
        except InputError as error:
            if by_name:
                raise
            refused[folder.name] = error
    if not answers and len({why.message for why in refused.values()}) == 1:
        raise next(iter(refused.values()))
    for name, why in refused.items():
        session.warn(f"{name} is left out: {why}")
    if not answers:
        raise InputError(
            f"None of the {len(folders)} runs in {folders[0].parent} can be scored.", "The warnings above say why."
        )
    return answers, [{"run": name, "why": why.message} for name, why in refused.items()]
