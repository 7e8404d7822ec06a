"""Progress reports of the library through a callback; used by every package, so it has a module of its own."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Callback that receives the number of steps done, their total, and a short note."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Receive one report."""


def silent(done: int, total: int, note: str = "") -> None:
    """Ignore all reports: the default callback."""


def describe_time(seconds: float) -> str:
    """A duration as text: "40 s", "12 min", "3.5 h", "41 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds >= 72 * 3600:
        return f"{seconds / 86400:.0f} days"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
