"""Watches a process of a group: one that hangs is ended with a message.

torch's own timeout ends a process without a message.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gravmap.errors import GravmapError, OptionError
from gravmap.progress import describe_time

STEP_TIMEOUT = "GRAVMAP_STEP_TIMEOUT"
"""Environment variable: the most seconds that a step may take after the first."""

STEP_LIMIT_S = 300.0
"""The default of :data:`STEP_TIMEOUT`; ten times the step before, if that is longer."""

WAIT_LIMIT_S = 1800.0
"""The most seconds of the first step, which may compile, and of waiting for other processes outside of steps."""

RESUME = "--resume continues after the last complete epoch."
"""What a user can do after a process has failed, in training and in a search."""


class PeerError(GravmapError):
    """Another process of the group ended or hangs: a consequence, unless no other process reports an error."""


class Watch:
    """A thread that ends this process with a message when it, or the group, makes no progress.

    A process that hangs leaves the others waiting for it. torch ends those without a message, with NCCL after a time
    that was chosen for the start of a run.

    Parameters
    ----------
    rank : int
        Number of this process.
    report : callable
        Is given the error before the process ends.
    resume : str
        For messages: how a user resumes what was stopped.

    Raises
    ------
    OptionError
        The environment variable :data:`STEP_TIMEOUT` is not a positive number.
    """

    def __init__(self, rank: int, report: Callable[[GravmapError], None], resume: str = RESUME) -> None:
        self.resume = resume
        self._rank, self._report = rank, report
        self._step_limit_s = _step_limit_s()
        self._place, self._step, self._waiting = "the start of the group", False, False
        self._seconds = 0.0
        self._step_before_s: float | None = None
        self._lock = threading.Lock()  # a tick must not undo what is noted
        self._stopped = threading.Event()
        self._main = threading.get_ident()
        threading.Thread(target=self._run, daemon=True).start()

    def at(self, place: str, step: bool) -> None:
        """Note that this process has come to `place`, and whether that is a step."""
        with self._lock:
            if self._step:
                self._step_before_s = self._seconds
            self._place, self._step, self._waiting, self._seconds = place, step, False, 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Context manager around what waits for other processes."""
        with self._lock:
            if not self._step:
                self._seconds = 0.0
            self._waiting = True
        try:
            yield
        finally:
            # CUDA computes behind Python: a step goes on waiting after the call has returned.
            self._waiting = self._step

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()

    @property
    def place(self) -> str:
        """Where this process is."""
        return self._place

    def _limit_s(self) -> float:
        """Most seconds at this place."""
        if not self._step:
            return WAIT_LIMIT_S if self._waiting else float("inf")
        if self._step_before_s is None:
            return WAIT_LIMIT_S
        limit_s = max(self._step_limit_s, 10 * self._step_before_s)
        # The process that hangs speaks first, if it still can.
        return 1.5 * limit_s if self._waiting else limit_s

    def _run(self) -> None:
        tick_s = min(1.0, self._step_limit_s / 20)
        last = time.monotonic()
        while not self._stopped.wait(tick_s):
            now = time.monotonic()
            # Of the time that the whole process was stopped (Ctrl-Z), hardly anything counts.
            with self._lock:
                self._seconds += min(now - last, 2 * tick_s)
                hangs = self._seconds > self._limit_s()
            last = now
            if hangs:
                self._report(self._error())
                flush()
                os._exit(1)

    def _error(self) -> GravmapError:
        after = describe_time(self._seconds)
        if self._waiting:
            return PeerError(
                f"Process {self._rank} has waited {after} for the other processes in {self._place}.",
                "One of them hangs, or its machine cannot be reached: look at each (py-spy, nvidia-smi). "
                f"{self.resume}",
            )
        frame = sys._current_frames().get(self._main)
        where = f", at {frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})" if frame else ""
        return GravmapError(
            f"Process {self._rank} has made no progress for {after} in {self._place}{where}.",
            f"Look at its disk and its GPU, or allow more with {STEP_TIMEOUT}=SECONDS. {self.resume}",
        )


def flush() -> None:
    """Write what is buffered, before a process ends without Python's own end."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _step_limit_s() -> float:
    text = os.environ.get(STEP_TIMEOUT, str(STEP_LIMIT_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise OptionError(f"{STEP_TIMEOUT} is {text!r}, not a number of seconds.", f"{STEP_TIMEOUT}=600, for example.")
    return seconds
