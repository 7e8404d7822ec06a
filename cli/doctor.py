"""`gravmap doctor`: what is here, what is missing."""

from __future__ import annotations

import click

from .session import Session, command_options


@click.command("doctor", epilog="Example: gravmap doctor")
@command_options()
def command(session: Session) -> None:
    """Say what is installed, which devices are seen, which paths are live, and what is missing."""
    from gravmap.doctor import examine

    found = examine(session.workspace)
    for line in found.lines():
        session.say(line)
    session.result(found.to_dict())
