"""Training processes that fail at a chosen step, for tests of what the others and the user then see."""

import os
import signal
import time
from dataclasses import dataclass

from gravmap.learning.training import launch
from gravmap.learning.training.distributed import STEP_TIMEOUT
from gravmap.learning.training.trainer import Trainer


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
