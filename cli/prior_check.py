"""`gravmap prior-check`: compare the region with the simulated crusts of a prior."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from . import complete
from .options import (
    Command,
    chosen_region,
    option,
    output_option,
    overwrite_option,
    region_options,
    usable_cores,
)
from .session import Session, command_options

COUNT = 32


@dataclass(frozen=True)
class PriorCheckOptions:
    """What is compared, and where the picture goes."""

    prior: str
    count: int = COUNT
    region: str | None = None
    bbox: tuple[float, ...] | None = None
    output: Path | None = None
    overwrite: bool = False


@click.command(
    "prior-check",
    cls=Command,
    short_help="Compare the region with the simulated crusts of a prior.",
    epilog="""\b
Examples:
  gravmap prior-check
  gravmap prior-check --prior wide --region junggar""",
)
@option(
    "--prior",
    metavar="NAME|FILE",
    shell_complete=complete.priors,
    default="central-asia",
    show_default=True,
    help="The prior to compare with: central-asia, wide, or a TOML file.",
)
@option(
    "--count",
    type=click.IntRange(min=12),
    metavar="N",
    default=COUNT,
    show_default=True,
    help="Simulated crusts to compare with.",
)
@region_options
@output_option("The picture (default: data/prior-NAME.png in the workspace).")
@overwrite_option
@command_options()
def command(
    session: Session,
    prior: str,
    count: int,
    region: str | None,
    bbox: tuple[float, ...] | None,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Compare the workspace's gravity and map with simulated crusts of a prior.

    Compares standard deviations, spectrum, cover, distance to outcrop, label diffusion and classes, and reports
    whether the region is inside the prior, at its edge or outside: what that means for a network trained on such
    crusts, and what to do.
    """
    check_prior(session, PriorCheckOptions(prior, count, region, bbox, output, overwrite))


def check_prior(session: Session, options: PriorCheckOptions) -> None:
    """Compare a region with a prior, print the verdict and draw its picture."""
    from gravmap.prior_check import prior_verdict
    from gravmap.prior_check.picture import draw_verdict
    from gravmap.synthetic import load_prior

    place = session.workspace
    prior = load_prior(options.prior)
    region = chosen_region(session, options.region, options.bbox)
    picture = options.output or place.root / "data" / f"prior-{prior.name}.png"
    session.writing([picture], [place.fields, place.labels, place.legend, Path(options.prior)], options.overwrite)
    with session.progress("Comparing the region with simulated crusts") as progress:
        verdict = prior_verdict(
            place.fields,
            place.labels,
            prior,
            region=region,
            count=options.count,
            processes=usable_cores(),
            cache=place.crusts,
            progress=progress,
        )
    for line in verdict.lines():
        session.say(line)
    sides = f"{region.west:g} to {region.east:g} E, {region.south:g} to {region.north:g} N" if region else "all fields"
    title = f"Is the region inside the prior? {options.region or sides}, {place.fields}"
    draw_verdict(verdict, picture, title=title)
    session.say("")
    session.say(f"Picture: {picture}")
    session.result({**verdict.to_dict(), "picture": str(picture)})
