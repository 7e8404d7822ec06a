"""`gravmap doctor`: what is installed, and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import Command, hidden, option, output_option, overwrite_option, region_options
from .prior_check import COUNT, PriorCheckOptions, check_prior
from .session import Session, command_options

if TYPE_CHECKING:
    from gravmap.workspace import Workspace


@click.command(
    "doctor",
    cls=Command,
    short_help="Report versions, devices, and what is missing.",
    epilog="Example: gravmap doctor",
)
# `doctor --prior` was the name of `prior-check`, with these options.
@hidden(
    option("--prior", metavar="NAME|FILE"),
    option("--count", type=click.IntRange(min=12), default=COUNT),
    region_options,
    output_option(""),
    overwrite_option,
)
@command_options()
def command(
    session: Session,
    prior: str | None,
    count: int,
    region: str | None,
    bbox: tuple[float, ...] | None,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Report what is installed, which devices are found, which code paths are in use, and what is missing."""
    if prior is not None:
        session.warn("doctor --prior is deprecated: use `gravmap prior-check`.")
        check_prior(session, PriorCheckOptions(prior, count, region, bbox, output, overwrite))
        return
    _refuse_alone()
    from gravmap.doctor import examine

    found = examine(session.workspace)
    try:
        from gravmap.tiling.training_arrays import other_class_tables, stale_files
    except ImportError:  # a missing package, which is a fault of its own
        pass
    else:
        place = session.workspace
        found.faults.extend(stale_files(place.labels, place.tiles))
        found.faults.extend(other_class_tables(place.labels, _trained(place)))
    for line in found.lines():
        session.say(line)
    session.result(found.to_dict())


def _trained(place: Workspace) -> dict[str, tuple[list[Any], str, bool]]:
    """Classes and legend of the latest run and of each map; whether it is a map."""
    from gravmap.errors import InputError
    from gravmap.records import read_model, read_record

    found: dict[str, tuple[list[Any], str, bool]] = {}
    try:
        if place.latest.exists():
            run = place.run()
            model = read_model(run)
            found[f"The run {run.name}"] = model.get("classes", []), model.get("legend_toml", ""), False
    except InputError:  # `gravmap predict` says what is wrong with it
        pass
    for path in sorted(place.maps.glob("*/provenance.json")):
        try:
            models = read_record(path, dict[str, Any], "gravmap predict").get("models") or []
            classes = [{"index": int(each["index"]), "name": str(each["name"])} for each in models[0]["classes"]]
            found[f"The map {path.parent}"] = classes, "", True
        except (InputError, LookupError, TypeError, ValueError):  # `gravmap verify` says what is wrong with it
            continue
    return found


def _refuse_alone() -> None:
    """Refuse options of `prior-check` where there is no --prior.

    Raises
    ------
    click.UsageError
        One was given.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(str(parameter.name)) is click.core.ParameterSource.COMMANDLINE
        if isinstance(parameter, click.Option) and parameter.hidden and given:
            raise click.UsageError(f"{parameter.opts[-1]} is an option of `gravmap prior-check`.")
