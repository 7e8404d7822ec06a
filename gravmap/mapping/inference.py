"""Run trained networks on windows, in one process or several; the logits of each window are written to a file."""

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

from gravmap.errors import GravmapError
from gravmap.files import sha256
from gravmap.gravity.field_reader import FieldReader
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.evaluation.mosaic import iter_window_logits
from gravmap.mapping.outcrop_file import OutcropFile
from gravmap.mapping.plan import FLIPS, WINDOWS_FOLDER, InferenceJob
from gravmap.mapping.predictor import Predictor
from gravmap.network.outcrop_start import AllOutputs

JobCallback = Callable[[str, tuple[str, ...]], None]
"""Called with the name of each finished job and the SHA-256 of its files."""


@dataclass(frozen=True)
class InferenceTask:
    """Inference jobs, and everything a process needs to run them.

    Attributes
    ----------
    fields : Path
        ``data/fields.nc``.
    runs : tuple of Path
        Folders of the runs; a job refers to them by index.
    jobs : tuple of InferenceJob
        The jobs to run.
    lat, lon : (ny,), (nx,) float64
        Centres of the map's cells, degrees, `lat` descending.
    folder : Path
        The map's folder; the files are written into its folder ``windows``.
    flips : bool
        Test-time augmentation: predict each window in its four flips.
    batch_size : int
        Windows per batch.
    outcrop : OutcropFile, optional
        Outcrop context, for networks that read it.
    """

    fields: Path
    runs: tuple[Path, ...]
    jobs: tuple[InferenceJob, ...]
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    folder: Path
    flips: bool = False
    batch_size: int = 1
    outcrop: OutcropFile | None = None

    def shard(self, rank: int, size: int) -> InferenceTask:
        """Return the part of the task for process `rank` of `size`: every `size`-th job."""
        return replace(self, jobs=self.jobs[rank::size])


def run_inference(task: InferenceTask, predictor: Predictor, finished: JobCallback) -> None:
    """Run the jobs of a task in this process, and write the logits of each window, with its quantiles of thickness.

    Parameters
    ----------
    task : InferenceTask
        The jobs.
    predictor : Predictor
        Opened with the task's fields and runs.
    finished : callable
        Called after each job.
    """
    (task.folder / WINDOWS_FOLDER).mkdir(exist_ok=True)
    for job, cells in _logits(task, predictor):
        sums = []
        if task.flips:
            classes = len(predictor.members[job.run].spec.classes)
            votes = np.stack([image[:classes].argmax(axis=0) for image in cells]).astype(np.uint8)
            sums.append(_write(task.folder / job.votes_file, votes))
        mean = sum(cells[1:], cells[0]) / np.float32(len(cells))
        sums.insert(0, _write(task.folder / job.logits_file, mean))
        finished(job.name, tuple(sums))


def _logits(task: InferenceTask, predictor: Predictor) -> Iterator[tuple[InferenceJob, list[NDArray[np.float32]]]]:
    """Yield each job with its logits (K, rows, columns) at the map's cells, one array per flip, flipped back.

    With quantiles of the thickness of the cover they are (K + 3, rows, columns).
    """
    flips: Sequence[tuple[int, ...]] = FLIPS if task.flips else FLIPS[:1]
    fields = predictor.fields
    for run, group in groupby(task.jobs, key=lambda job: job.run):
        jobs, member = list(group), predictor.members[run]
        outputs = iter_window_logits(
            AllOutputs(member.network),
            functools.partial(_read_nodes, fields, member.spec.input),
            fields.shape,
            fields.nodes_wsen,
            np.array([job.bounds_wsen for job in jobs]),
            member.spec.tile_size_px,
            task.lat,
            task.lon,
            inputs=member.spec.input,
            device=predictor.device,
            batch_size=task.batch_size,
            flips=flips,
        )
        yield from zip(jobs, outputs, strict=True)


def _read_nodes(fields: FieldReader, inputs: InputChannels, rows: slice, columns: slice) -> Tensor:
    """Read fields (F, h, w) at these nodes only; where unknown, what training has there (`InputChannels.fills`)."""
    values = fields.read(inputs.fields, rows, columns)
    fills = np.array(inputs.fills, np.float32)[:, None, None]
    return torch.from_numpy(np.where(np.isfinite(values), values, fills))


def _write(path: Path, values: NDArray[Any]) -> str:
    """Write an array atomically and return the SHA-256 of its file."""
    temporary = path.with_name(f"{path.name}.part")
    with temporary.open("wb") as stream:
        np.save(stream, values, allow_pickle=False)
    checksum = sha256(temporary)
    os.replace(temporary, path)
    return checksum


log = logging.getLogger(__name__)

RESUME_HINT = "Finished windows are kept: the same command resumes the run."


def run_inference_in_processes(task: InferenceTask, device: str, processes: int, finished: JobCallback) -> None:
    """Run the jobs of a task as :func:`run_inference` does, distributed over processes on this machine.

    Parameters
    ----------
    task : InferenceTask
        The jobs; process n runs every `processes`-th job from the n-th on.
    device : str
        ``cpu``, or ``cuda`` for one GPU per process.
    processes : int
        Number of processes.
    finished : callable
        Called after each job, in this process.

    Raises
    ------
    GravmapError
        The error of the first process that failed, or a process was killed; the other processes are then terminated.
    """
    # A fork server that has only imported torch: a fork of this process could use neither CUDA nor the threads of its
    # parent, and with "spawn" each process would spend seconds on imports.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gravmap.mapping.inference"])
    pipes, workers = {}, []
    for rank in range(processes):
        receiver, sender = context.Pipe(duplex=False)
        place = f"cuda:{rank}" if device == "cuda" else device
        arguments = (task.shard(rank, processes), place, processes, sender)
        worker = context.Process(target=_run_worker, args=arguments, daemon=True, name=f"predict-{rank}")
        worker.start()
        sender.close()
        pipes[receiver] = worker
        workers.append(worker)
    try:
        while pipes:
            for ready in wait(list(pipes)):
                assert isinstance(ready, Connection)
                try:
                    kind, message = ready.recv()
                except EOFError:
                    worker = pipes.pop(ready)
                    worker.join()
                    _check_exit(worker)
                    continue
                if kind == "error":
                    raise message
                finished(*message)
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
            worker.join()


def _check_exit(worker: Any) -> None:
    if worker.exitcode < 0:
        name = signal.Signals(-worker.exitcode).name
        raise GravmapError(
            f"The process {worker.name} was killed by {name}, possibly because memory ran out.", RESUME_HINT
        )
    if worker.exitcode:
        raise GravmapError(f"The process {worker.name} ended with status {worker.exitcode}.", RESUME_HINT)


def _run_worker(task: InferenceTask, device: str, processes: int, sender: Connection) -> None:
    """Run a part of the jobs in a child process and report each one through the pipe."""
    # Ctrl-C reaches every process of a terminal; only the parent handles it, and terminates the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()  # the fork server, which ends when the main process does
    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // processes)))

    def finished(name: str, sums: tuple[str, ...]) -> None:
        if os.getppid() != parent:
            os._exit(1)  # the main process was killed: nothing would record further results
        sender.send(("finished", (name, sums)))

    try:
        with Predictor(task.fields, task.runs, device, task.outcrop) as predictor:
            run_inference(task, predictor, finished)
    except BaseException as error:
        sender.send(("error", _picklable(error)))


def _picklable(error: BaseException) -> BaseException:
    """Return the error, or one with the same message that can be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}\n{''.join(traceback.format_exception(error))}")
    return error
