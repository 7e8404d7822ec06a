"""How the library tells how far it is, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then with the steps done, the steps in all, and a short note."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Take one report."""


def silent(done: int, total: int, note: str = "") -> None:
    """Ignore every report: the default listener."""


def describe_time(seconds: float) -> str:
    """A duration for people: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
