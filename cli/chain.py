"""Running gravmap's own commands one after another, shown as a user would type them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from .session import Session


def run(session: Session, root: Path, words: Sequence[str]) -> None:
    """Run one command in the workspace `root`, as loud as the session."""
    from .main import gravmap

    where = ["-w", str(root)]
    session.say(f"\n$ {shlex.join(['gravmap', *where, *words])}")
    loudness = ["-q"] if session.verbosity < 0 or session.json else ["-v"] * session.verbosity
    gravmap.main([*where, *words, *loudness], standalone_mode=False)
