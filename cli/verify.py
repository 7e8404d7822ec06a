"""`gravmap verify`: compare files with what was recorded of them."""

from __future__ import annotations

from pathlib import Path

import click

from .options import Command
from .session import Session, command_options

_MARKS = {"as recorded": "ok", "unlisted": "new"}


@click.command(
    "verify",
    cls=Command,
    short_help="Check files against their recorded hashes.",
    epilog="""\b
Examples:
  gravmap verify maps/junggar
  gravmap verify""",
)
@click.argument("folders", metavar="[DIR]...", nargs=-1, type=click.Path(path_type=Path))
@command_options()
def command(session: Session, folders: tuple[Path, ...]) -> None:
    """Hash a map, its inputs and its network again, and compare them with what was recorded.

    DIR is the folder of a map, a training run or a tile set, or a workspace: then everything in it is checked, the
    files of layers included (default: this workspace). The rasters of a map are also compared with each other: grid,
    classes, cells and areas. What is as recorded is counted, and listed with -v. Nothing is written. Status 3 where
    something differs. An input that no longer exists
    cannot be checked; this is reported, and is not an error.
    """
    from gravmap.errors import InputError
    from gravmap.mapping import verify

    checked = []
    for folder in folders or (session.workspace.root,):
        with session.progress(f"verify {folder}") as progress:
            checked += verify(folder, progress)
    for one in checked:
        agreeing = one.count("as recorded")
        session.say(f"{one.folder}: {one.kind} {one.title}")
        for finding in one.findings:
            if finding.state == "as recorded" and session.verbosity < 1:
                continue
            mark = finding.state.upper() if finding.bad else _MARKS.get(finding.state, finding.state)
            session.say(f"  {mark:<9} {finding.what}{': ' if finding.detail else ''}{finding.detail}")
        if session.verbosity < 1:
            session.say(f"  ok        {agreeing} as recorded" + (" (-v lists them)" if agreeing else ""))
    gone = sum(one.count("gone") for one in checked)
    bad = [one for one in checked if one.bad]
    session.result({"sound": not bad, "checked": [one.to_dict() for one in checked]})
    if bad:
        count = sum(len(one.bad) for one in bad)
        names = ", ".join(str(one.folder) for one in bad)
        raise InputError(
            f"{count} thing{'s differ' if count > 1 else ' differs'} from what was recorded, in {names}.",
            "Restore what was changed, or run the command in its record again with --overwrite.",
        )
    number = sum(one.count("as recorded") for one in checked)
    left = f" {gone} input{'s are' if gone > 1 else ' is'} gone and could not be checked." if gone else ""
    session.say(f"All {number} checks agree with what was recorded.{left}")
