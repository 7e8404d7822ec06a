"""Windows through networks, in one process or several: the logits of each go into a file of its own."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gravmap.errors import DeviceError, GravmapError
from gravmap.files import sha256
from gravmap.gravity import FieldReader
from gravmap.learning.evaluation.mosaic import iter_window_logits
from gravmap.mapping.outcrop_file import OutcropFile
from gravmap.mapping.plan import FLIPS, FOLDER, InferenceJob
from gravmap.mapping.predictor import Predictor

Finished = Callable[[str, tuple[str, ...]], None]
"""Told the name of each finished pass, and the SHA-256 of its files."""


@dataclass(frozen=True)
class Work:
    """Passes to be made, and all that a process needs to make them.

    Attributes
    ----------
    fields : Path
        ``data/fields.nc``.
    runs : tuple of Path
        The runs, by their number.
    passes : tuple of Pass
        What is to be done.
    lat, lon : (ny,), (nx,) float64
        Centres of the map's cells, degrees, `lat` descending.
    folder : Path
        The map's folder; files go into its folder ``windows``.
    flips : bool
        Whether every window is seen in four mirror images.
    batch_size : int
        Windows at a time.
    outcrop : OutcropFile, optional
        For networks that start from it.
    """

    fields: Path
    runs: tuple[Path, ...]
    passes: tuple[InferenceJob, ...]
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    folder: Path
    flips: bool = False
    batch_size: int = 1
    outcrop: OutcropFile | None = None

    def share(self, rank: int, size: int) -> Work:
        """The part of one of several processes."""
        return replace(self, passes=self.passes[rank::size])


def run_inference(work: Work, predictor: Predictor, finished: Finished) -> None:
    """Put windows through networks, and write their logits.

    Parameters
    ----------
    work : Work
        What is to be done.
    predictor : Predictor
        Made from the same fields and runs.
    finished : callable
        Told each pass that is written.
    """
    (work.folder / FOLDER).mkdir(exist_ok=True)
    for each, cells in _logits(work, predictor):
        sums = []
        if work.flips:
            votes = np.stack([image.argmax(axis=0) for image in cells]).astype(np.uint8)
            sums.append(_write(work.folder / each.votes_file, votes))
        mean = sum(cells[1:], cells[0]) / np.float32(len(cells))
        sums.insert(0, _write(work.folder / each.logits_file, mean))
        finished(each.name, tuple(sums))


def _logits(work: Work, predictor: Predictor) -> Iterator[tuple[InferenceJob, list[NDArray[np.float32]]]]:
    """Each job with its logits (K, rows, columns) at the map's cells, one array per flip, flipped back."""
    flips: Sequence[tuple[int, ...]] = FLIPS if work.flips else FLIPS[:1]
    fields = predictor.fields
    for run, group in groupby(work.passes, key=lambda each: each.run):
        jobs, member = list(group), predictor.members[run]
        outputs = iter_window_logits(
            member.network,
            functools.partial(_read_nodes, fields, member.spec.input.fields),
            fields.shape,
            fields.nodes_wsen,
            np.array([each.wsen for each in jobs]),
            member.spec.tile_size_px,
            work.lat,
            work.lon,
            inputs=member.spec.input,
            device=predictor.device,
            batch_size=work.batch_size,
            flips=flips,
        )
        yield from zip(jobs, outputs, strict=True)


def _read_nodes(fields: FieldReader, names: tuple[str, ...], rows: slice, columns: slice) -> Tensor:
    """Fields (F, h, w) at these nodes alone, read from the file; zero where unknown."""
    return torch.from_numpy(np.nan_to_num(fields.read(names, rows, columns), nan=0.0, posinf=0.0, neginf=0.0))


def _write(path: Path, values: NDArray[Any]) -> str:
    """Write an array, whole or not at all; its file's SHA-256."""
    temporary = path.with_name(f"{path.name}.part")
    with temporary.open("wb") as stream:
        np.save(stream, values, allow_pickle=False)
    checksum = sha256(temporary)
    os.replace(temporary, path)
    return checksum


log = logging.getLogger(__name__)

_AGAIN = "What is finished is kept: the same command goes on where it stopped."


def run_inference_in_processes(work: Work, device: str, processes: int, finished: Finished) -> None:
    """Share passes out among processes on this machine; what :func:`gravmap.mapping.inference.run_inference` does.

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
    context.set_forkserver_preload(["gravmap.mapping.inference"])
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
            run_inference(work, predictor, finished)
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
