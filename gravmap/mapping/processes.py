"""Several processes that share the windows of a map, one for each device; they exchange nothing but what is done."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import traceback
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from gravmap.errors import DeviceError, GravmapError
from gravmap.mapping.predictor import Predictor
from gravmap.mapping.windows import Finished, Work, make_passes

log = logging.getLogger(__name__)

_AGAIN = "What is finished is kept: the same command goes on where it stopped."


def make_passes_together(work: Work, device: str, processes: int, finished: Finished) -> None:
    """Share passes out among processes on this machine; what :func:`gravmap.mapping.windows.make_passes` does.

    Parameters
    ----------
    work : Work
        What is to be done; process n takes every `processes`-th pass from the n-th on.
    device : str
        ``cpu``, or ``cuda`` for one GPU each.
    processes : int
        How many.
    finished : callable
        Told each pass that is written, in this process.

    Raises
    ------
    GravmapError
        What the first failing process raised, or that one was ended; the others are ended then.
    """
    # Forked from a clean process that has imported torch and no more: one forked from this one could use neither CUDA
    # nor the threads of its parent, and importing takes seconds each.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gravmap.mapping.windows"])
    pipes, workers = {}, []
    for rank in range(processes):
        receiver, sender = context.Pipe(duplex=False)
        place = f"cuda:{rank}" if device == "cuda" else device
        arguments = (work.share(rank, processes), place, processes, sender)
        worker = context.Process(target=_work, args=arguments, daemon=True, name=f"predict-{rank}")
        worker.start()
        sender.close()
        pipes[receiver] = worker
        workers.append(worker)
    try:
        while pipes:
            for ready in wait(list(pipes)):
                assert isinstance(ready, Connection)
                try:
                    kind, told = ready.recv()
                except EOFError:
                    worker = pipes.pop(ready)
                    worker.join()
                    _check_end(worker)
                    continue
                if kind == "error":
                    raise told
                finished(*told)
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
            worker.join()


def _check_end(worker: Any) -> None:
    if worker.exitcode < 0:
        name = signal.Signals(-worker.exitcode).name
        raise GravmapError(f"The process {worker.name} was ended by {name}; is memory short?", _AGAIN)
    if worker.exitcode:
        raise GravmapError(f"The process {worker.name} ended with status {worker.exitcode}.", _AGAIN)


def _work(work: Work, device: str, processes: int, sender: Connection) -> None:
    """One of the processes."""
    # Ctrl-C reaches every process of a terminal; the parent alone acts on it and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()  # the clean process, which ends with the one that asked
    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // processes)))

    def finished(name: str, sums: tuple[str, ...]) -> None:
        if os.getppid() != parent:
            os._exit(1)  # the parent was killed: nobody would take note of what is made
        sender.send(("finished", (name, sums)))

    try:
        with Predictor(work.fields, work.runs, device, work.outcrop) as predictor:
            make_passes(work, predictor, finished)
    except BaseException as error:
        sender.send(("error", _portable(error)))


def _portable(error: BaseException) -> BaseException:
    """The error, or one that says the same and can pass between processes."""
    if isinstance(error, torch.OutOfMemoryError):
        return out_of_memory(error)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}\n{''.join(traceback.format_exception(error))}")
    return error


def out_of_memory(error: torch.OutOfMemoryError) -> DeviceError:
    """The GPU's want of memory, in plain words."""
    return DeviceError(
        f"The GPU's memory is too small: {str(error).splitlines()[0]}",
        f"Ask for a smaller --batch-size, or --device cpu. {_AGAIN}",
    )
