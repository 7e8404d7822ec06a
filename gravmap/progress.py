"""How the library tells how far it is, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then with the steps done, the steps in all, and a short note."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Take one report."""


def silent(done: int, total: int, note: str = "") -> None:
    """Ignore every report: the default listener."""
