"""`gravmap evaluate`: honest scores of finished runs, protocol by protocol."""

from __future__ import annotations

from pathlib import Path

import click

from .evaluate_report import tell_scores
from .options import device_option
from .session import Session, command_options


@click.command(
    "evaluate",
    epilog="""\b
Examples:
  gravmap evaluate --baselines
  gravmap evaluate demo --points wells.csv --class-field lith""",
)
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option("--baselines", is_flag=True, help="Also score what needs no network, on the same nodes: null models.")
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
@command_options()
def command(
    session: Session,
    runs: tuple[str, ...],
    baselines: bool,
    points: Path | None,
    class_field: str | None,
    area_weighted: bool,
    importance: bool,
    device: str,
) -> None:
    """Score runs on the test blocks that were kept from them, every node of the gravity grid once.

    RUN is a name under runs/ (default: every finished run). Runs that differ in fold and seed alone form a group, with
    mean and spread. Scores stand by protocol: a row comes only from runs trained under it. Writes evaluation.json,
    confusion.png and distance.png (accuracy against distance to the nearest outcrop that training saw) into runs/NAME.
    What a network said is kept there (evaluation.npz): a second call is quick.
    """
    if (points is None) != (class_field is None):
        raise click.UsageError("--points and --class-field go together: the file, and its field that names the class.")
    from gravmap.errors import InputError
    from gravmap.geology.points import read_points
    from gravmap.mapping.predictor import choose_device
    from gravmap.mapping.scoring.evaluate import Evaluated, EvaluateOptions, evaluate_run, finished_runs
    from gravmap.mapping.scoring.protocols import protocols
    from gravmap.tiling import read_index

    place = session.workspace
    folders = [place.run(name) for name in dict.fromkeys(runs)] if runs else finished_runs(place.runs)
    if not folders:
        raise InputError(f"No finished run in {place.runs}.", "`gravmap train` makes one.")
    index = read_index(place.tiles)
    holes = None if points is None else read_points(points, str(class_field))
    options = EvaluateOptions(baselines, holes, area_weighted, importance, str(choose_device(device)))
    scored: list[Evaluated] = []
    refused: dict[str, InputError] = {}
    for folder in folders:
        try:
            with session.progress(f"evaluate {folder.name}") as progress:
                scored.append(evaluate_run(folder, place.tiles, options, progress))
        except InputError as error:
            # A run that was asked for by name must be scored; of all runs some may be of another time.
            if runs:
                raise
            refused[folder.name] = error
    if not scored and len({why.message for why in refused.values()}) == 1:
        raise next(iter(refused.values()))
    for name, why in refused.items():
        session.warn(f"{name} is left out: {why}")
    if not scored:
        raise InputError(
            f"None of the {len(folders)} runs in {place.runs} can be scored.", "The warnings above say why."
        )
    found = protocols(scored, index)
    tell_scores(session, found, [each.record for each in scored], folders)
    session.result(
        {"protocols": found, "left_out": [{"run": name, "why": why.message} for name, why in refused.items()]}
    )
