"""Processes that fail, at a chosen step of a training or at once, for tests of what the others and the user see."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from gravmap.learning.training import launch
from gravmap.learning.training.trainer import Trainer
from gravmap.learning.training.watch import STEP_TIMEOUT


@dataclass
class Fault:
    """What the process `rank` does at its training step number `step`, counted from 0: a worker for `launch`.

    `kind` is "raise", "kill", "abort", "hang" (alive, in Python) or "freeze" (stopped).
    """

    kind: str
    rank: int
    step: int
    timeout_s: float = 300.0

    def __post_init__(self):
        self.__name__ = self.__qualname__ = "fault"  # the launcher asks for the name of what it runs

    def __call__(self, *arguments):
        os.environ[STEP_TIMEOUT] = str(self.timeout_s)
        take, steps = Trainer.train_step, iter(range(10**9))

        def train_step(trainer, *arguments, **options):
            if next(steps) == self.step and trainer.group.rank == self.rank:
                self.happen()
            return take(trainer, *arguments, **options)

        Trainer.train_step = train_step
        return launch._worker(*arguments)

    def happen(self):
        if self.kind == "raise":
            raise ZeroDivisionError(f"process {self.rank} fails at step {self.step}")
        if self.kind == "hang":
            time.sleep(1000)
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "abort": signal.SIGABRT, "freeze": signal.SIGSTOP}[self.kind])


def killed_second(group, progress):
    """For `run_in_processes`: a signal ends the second process, while the first waits for it."""
    if group.rank:
        os.kill(os.getpid(), signal.SIGKILL)
    group.broadcast(None)
    group.gather(None)


def wait_for_ever(group, progress, folder):
    """For `run_in_processes`: both processes write their ids, and wait."""
    (folder / f"{group.rank}.pid").write_text(str(os.getpid()))
    time.sleep(1000)


if __name__ == "__main__":
    from toys import faults

    launch.run_in_processes(faults.wait_for_ever, (Path(sys.argv[1]),), "cpu", 2)
