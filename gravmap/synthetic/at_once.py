"""Many things of one kind made at the same time, in processes of their own."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, TypeVar

from gravmap.errors import GravmapError
from gravmap.progress import Progress, silent

Made = TypeVar("Made", covariant=True)


class Wanted(Protocol[Made]):
    """What is to be made: it can be pickled, and knows how."""

    def make(self) -> Made:
        """Make it, and keep it where there is a place for that."""

    def read(self) -> Made | None:
        """What is kept of it; None when nothing whole is."""


def all_of(wanted: Sequence[Wanted[Made]], processes: int, progress: Progress = silent) -> list[Made]:
    """Read what is kept, and make the rest at the same time.

    Parameters
    ----------
    wanted : sequence
        What to read or make.
    processes : int
        How many are made at the same time; 1 makes them here, one after the other.
    progress : callable
        Told what is there, and after everyone that is made.

    Returns
    -------
    list
        In the order of `wanted`.

    Raises
    ------
    GravmapError
        A process was ended from outside.
    """
    found = {index: kept for index, one in enumerate(wanted) if (kept := one.read()) is not None}
    missing = [index for index in range(len(wanted)) if index not in found]
    progress(len(found), len(wanted), "crusts")
    for number, made in _made_at_once([wanted[index] for index in missing], processes):
        found[missing[number]] = made
        progress(len(found), len(wanted), "crusts")
    return [found[index] for index in range(len(wanted))]


def _made_at_once(wanted: Sequence[Wanted[Made]], processes: int) -> Iterator[tuple[int, Made]]:
    """Make all of them, and give each with its number as soon as it is there."""
    if processes <= 1 or len(wanted) <= 1:
        for index, one in enumerate(wanted):
            yield index, one.make()
        return
    # Forked from a clean process: one forked from this one would inherit the threads of its parent.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(sorted({type(one).__module__ for one in wanted}))
    executor = ProcessPoolExecutor(min(processes, len(wanted)), mp_context=context, initializer=_leave_ctrl_c)
    try:
        running = {executor.submit(one.make): index for index, one in enumerate(wanted)}
        for finished in as_completed(running):
            yield running[finished], finished.result()
    except BrokenProcessPool:
        raise GravmapError(
            "A process that made crusts was ended; is memory short?",
            "Take fewer processes. With a cache, crusts that were finished are kept.",
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _leave_ctrl_c() -> None:
    """Ctrl-C reaches every process of a terminal; the parent alone acts on it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
