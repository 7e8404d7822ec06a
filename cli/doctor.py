"""`gravmap doctor`: what is here, what is missing; and whether the region is like the crusts of a prior."""

from __future__ import annotations

from pathlib import Path

import click

from .options import chosen_region, overwrite_option, region_options, usable_cores
from .session import Session, command_options

OF_PRIORS = ("count", "region", "bbox", "output", "overwrite")


@click.command("doctor", epilog="Example: gravmap doctor --prior central-asia")
@click.option(
    "--prior",
    "prior_name",
    metavar="NAME|FILE",
    help="Is the region inside this prior (central-asia, wide, or a TOML file)? Look at that instead.",
)
@click.option(
    "--count", type=click.IntRange(min=12), default=32, show_default=True, help="Simulated crusts to hold it against."
)
@region_options
@click.option("-o", "--output", metavar="FILE", help="The picture (default: data/prior-NAME.png in the workspace).")
@overwrite_option
@command_options()
def command(
    session: Session,
    prior_name: str | None,
    count: int,
    region: str | None,
    bbox: tuple[float, ...] | None,
    output: str | None,
    overwrite: bool,
) -> None:
    """Say what is installed, which devices are seen, which paths are live, and what is missing.

    With --prior: hold the workspace's gravity and map against simulated crusts of a prior (spreads, spectrum, cover,
    distance to outcrop, label diffusion, classes) and say plainly whether the region is inside, at the edge or
    outside: what that means for a network taught on such crusts, and what to do.
    """
    if prior_name is None:
        _refuse_alone()
        from gravmap.doctor import examine

        found = examine(session.workspace)
        for line in found.lines():
            session.say(line)
        session.result(found.to_dict())
        return
    _check_prior(session, prior_name, count, region, bbox, output, overwrite)


def _check_prior(
    session: Session,
    prior_name: str,
    count: int,
    region: str | None,
    bbox: tuple[float, ...] | None,
    output: str | None,
    overwrite: bool,
) -> None:
    from gravmap.files import refuse_existing
    from gravmap.prior_check import draw_verdict, prior_verdict
    from gravmap.synthetic import load_prior

    place = session.workspace
    prior = load_prior(prior_name)
    chosen = chosen_region(session, region, bbox)
    picture = Path(output) if output else place.root / "data" / f"prior-{prior.name}.png"
    refuse_existing(picture, overwrite)
    with session.progress("Holding the region against crusts") as progress:
        verdict = prior_verdict(
            place.fields,
            place.labels,
            prior,
            region=chosen,
            count=count,
            processes=usable_cores(),
            cache=place.crusts,
            progress=progress,
        )
    for line in verdict.lines():
        session.say(line)
    where = f"{chosen.west:g} to {chosen.east:g} E, {chosen.south:g} to {chosen.north:g} N" if chosen else "all fields"
    draw_verdict(verdict, picture, title=f"Is the region inside the prior? {region or where}, {place.fields}")
    session.say("")
    session.say(f"Picture: {picture}")
    session.result({**verdict.to_dict(), "picture": str(picture)})


def _refuse_alone() -> None:
    """Refuse options that say nothing without a prior.

    Raises
    ------
    click.UsageError
        One was given.
    """
    asked = click.get_current_context()
    for name in OF_PRIORS:
        if asked.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = next(each for each in asked.command.params if each.name == name)
            raise click.UsageError(f"{option.opts[-1]} is for --prior.")
