"""`gravmap crust`: a simulated piece of crust whose bedrock is known."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from . import complete
from .options import Command, option, output_option, overwrite_option, seed_option
from .session import Session, command_options


@click.command(
    "crust",
    cls=Command,
    short_help="Simulate a crust whose bedrock under cover is known.",
    epilog="Example: gravmap crust --prior wide --seed 3",
)
@option(
    "--prior",
    "prior_name",
    metavar="NAME|FILE",
    shell_complete=complete.priors,
    default="central-asia",
    show_default=True,
    help="The prior to sample from: central-asia, wide, or a TOML file of your own.",
)
@seed_option
@option(
    "--shape",
    type=click.IntRange(min=16),
    nargs=2,
    metavar="ROWS COLS",
    default=(240, 360),
    show_default=True,
    help="Cells of 2 arc-minutes.",
)
@output_option("Folder to write to (default: crusts/PRIOR-SEED in the workspace).", "DIR")
@overwrite_option
@command_options()
def command(
    session: Session, prior_name: str, seed: int, shape: tuple[int, int], output: Path | None, overwrite: bool
) -> None:
    """Simulate a piece of crust whose bedrock under cover is known.

    Samples densities, belts, granites, basins, cover and Moho from a prior, and writes what a user of real data has
    (gravity.nc, map.gpkg), what is unknown of a real crust (truth.tif, crust.json), the prior (prior.toml, to be
    copied and edited) and a picture with a section (crust.png). `gravmap train --on crusts` trains on many of these.
    """
    from gravmap.errors import InputError
    from gravmap.files import write_text
    from gravmap.regions import Region
    from gravmap.synthetic import draw_crust, load_prior
    from gravmap.synthetic.facts import crust_facts
    from gravmap.synthetic.files import FILES, write_crust
    from gravmap.synthetic.picture import draw_crust_picture

    prior = load_prior(prior_name)
    folder = output or session.workspace.root / "crusts" / f"{prior.name}-{seed}"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a folder is needed.", "Name a folder with -o.")
    names = (*FILES.values(), f"{FILES['truth']}.aux.xml", "prior.toml", "crust.png")
    session.writing([folder / name for name in names], [Path(prior_name)], overwrite, lock=folder)
    start = time.perf_counter()
    crust = draw_crust(prior, seed, shape, components=True)
    took = time.perf_counter() - start
    facts = crust_facts(crust)
    cells = f"{shape[0]} x {shape[1]} cells of 2 arc-minutes, {Region(*crust.bounds_wsen)}"
    session.say(f"A crust of the prior {prior.name} ({prior.title}), seed {seed}:")
    session.say(f"  {cells}, simulated in {took:.1f} s")
    numbers = _in_words(crust, facts)
    for line in numbers:
        session.say(f"  {line}")
    session.say("")
    wide = max(len(entry.name) for entry in facts.classes)
    session.say(f"  {'bedrock':<{wide + 3}}{'all':>8}{'mapped':>9}{'hidden':>9}{'kg/m3':>9}")
    for entry in facts.classes:
        weight = f"{entry.density:9.0f}" if entry.share else f"{'-':>9}"
        shares = f"{entry.share:7.1f}%{entry.mapped:8.1f}%{entry.hidden:8.1f}%"
        session.say(f"  {entry.index:>2} {entry.name:<{wide}}{shares}{weight}")
    files = write_crust(crust, folder)
    files["prior"], files["picture"] = folder / "prior.toml", folder / "crust.png"
    write_text(files["prior"], prior.text)
    draw_crust_picture(
        crust,
        files["picture"],
        title=f"A simulated crust: prior {prior.name}, seed {seed}",
        more=". ".join(numbers) + ". It is not a real place.",
    )
    session.say("")
    for path in files.values():
        session.say(f"  {path}")
    session.say("")
    session.say(f"Look at {files['picture']} first. To continue as with real data, in an empty folder:")
    session.say(f"  gravmap residual {files['gravity'].absolute()} --height 10km")
    session.say(f"  gravmap rasterize {files['map'].absolute()} --legend crust")
    result: dict[str, Any] = {
        "prior": prior.name,
        "prior_sha256": prior.sha256,
        "seed": seed,
        "files": {name: str(path) for name, path in files.items()},
        "facts": facts.to_dict(),
    }
    session.result(result)


def _in_words(crust: Any, facts: Any) -> list[str]:
    """Describe the crust in three lines."""
    setting = crust.setting
    outcrop = f"half of it farther than {facts.outcrop_distance_km:.0f} km from outcrop"
    cover = f"Cover hides {facts.cover_percent:.0f} %"
    if 0 < facts.cover_percent < 100:
        cover += f", {facts.cover_mean_km:.1f} km thick on average, {outcrop}"
    return [
        cover,
        f"Median width of belts {setting.belt_width_km:.0f} km, mean depth of the Moho {setting.moho_depth_km:.0f} km",
        f"Bouguer anomaly {facts.bouguer_std_mgal:.0f} mGal std, residual 10 km {facts.residual_std_mgal:.1f}, noise"
        f" {setting.noise_mgal:.1f}; low-pass filter with half amplitude at {setting.low_pass_km:.0f} km",
    ]
