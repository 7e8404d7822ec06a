"""Run trained networks on windows, in one process or several; the logits of each window are written to a file."""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gravmap.errors import InputError, out_of_memory
from gravmap.files import sha256
from gravmap.gravity.field_reader import FieldReader
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.evaluation.mosaic import iter_window_logits
from gravmap.learning.training.distributed import ALONE, Group
from gravmap.learning.training.launch import run_in_processes
from gravmap.mapping.options import Options
from gravmap.mapping.outcrop_file import OutcropFile
from gravmap.mapping.plan import FLIPS, WINDOWS_FOLDER, InferenceJob, Plan
from gravmap.mapping.predictor import Predictor
from gravmap.network.outcrop_start import AllOutputs
from gravmap.progress import Progress
from gravmap.tiling.resumable_folder import ResumableFolder

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


def run_inference(task: InferenceTask, predictor: Predictor, finished: JobCallback, group: Group = ALONE) -> None:
    """Run the jobs of a task, and write the logits of each window, with its quantiles of thickness.

    Parameters
    ----------
    task : InferenceTask
        The jobs.
    predictor : Predictor
        Opened with the task's fields and runs.
    finished : callable
        Called after each job, in the first process.
    group : Group
        Processes that share the jobs, all with the same task; process n runs every `group.size`-th job from the n-th
        on. After each batch the processes exchange what they finished, so that one that ends is noticed by all.

    Raises
    ------
    DeviceError
        Not even one window fits into memory.
    PeerError
        Another process ended.
    """
    (task.folder / WINDOWS_FOLDER).mkdir(exist_ok=True)
    mine = _finished_jobs(task.shard(group.rank, group.size), predictor)
    rounds = math.ceil(len(task.jobs) / (group.size * task.batch_size))
    try:
        for number in range(rounds):
            group.at(f"windows, batch {number + 1} of {rounds}", step=True)
            for share in group.gather(list(itertools.islice(mine, task.batch_size))):
                for name, checksums in share if group.rank == 0 else ():
                    finished(name, checksums)
        group.at("the end of the windows")
    except (RuntimeError, MemoryError) as error:
        raise out_of_memory(error, f"Use a smaller --batch-size, or --device cpu. {RESUME_HINT}") or error from None


def _finished_jobs(task: InferenceTask, predictor: Predictor) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Run jobs, write their files, and yield the name of each job with the checksums of its files."""
    for job, cells in _logits(task, predictor):
        sums = []
        if task.flips:
            classes = len(predictor.members[job.run].spec.classes)
            votes = np.stack([image[:classes].argmax(axis=0) for image in cells]).astype(np.uint8)
            sums.append(_write(task.folder / job.votes_file, votes))
        mean = sum(cells[1:], cells[0]) / np.float32(len(cells))
        sums.insert(0, _write(task.folder / job.logits_file, mean))
        yield job.name, tuple(sums)


def _logits(task: InferenceTask, predictor: Predictor) -> Iterator[tuple[InferenceJob, list[NDArray[np.float32]]]]:
    """Yield each job with its logits (K, rows, columns) at the map's cells, one array per flip, flipped back.

    With quantiles of the thickness of the cover they are (K + 3, rows, columns).
    """
    flips: Sequence[tuple[int, ...]] = FLIPS if task.flips else FLIPS[:1]
    fields = predictor.fields
    for run, of_run in itertools.groupby(task.jobs, key=lambda job: job.run):
        jobs, member = list(of_run), predictor.members[run]
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


RESUME_HINT = "Finished windows are kept: the same command resumes the run."


def run_jobs(
    unfinished: ResumableFolder,
    predictor: Predictor,
    plan: Plan,
    options: Options,
    progress: Progress,
    group: Group,
) -> None:
    """Run the inference jobs that an earlier run did not finish, in this process or several.

    Parameters
    ----------
    unfinished : ResumableFolder
        Folder of the map that is being written.
    predictor : Predictor
        The networks and their fields.
    plan : Plan
        Windows and device.
    options : Options
        `batch_size`, and `processes` to start on this machine unless there is a group.
    progress : Progress
        Called with the number of finished jobs, those of the earlier run included.
    group : Group
        Processes that share the jobs; this is the first one, and the others call :func:`join_inference`.

    Raises
    ------
    GravmapError
        As :func:`run_inference`, or the error of the first process that failed.
    """
    missing = tuple(job for job in plan.jobs if job.name not in unfinished.kept)
    done, total = len(unfinished.kept), len(plan.jobs)
    progress(done, total, "windows")

    def on_finished(name: str, checksums: tuple[str, ...]) -> None:
        nonlocal done
        unfinished.finish(name, checksums)
        done += 1
        progress(done, total, "windows")

    task = InferenceTask(
        predictor.fields.path,
        tuple(member.folder for member in predictor.members),
        missing,
        plan.grid.lat_deg,
        plan.grid.lon_deg,
        unfinished.folder,
        plan.flips,
        options.batch_size,
        predictor.fields.outcrop,
    )
    processes = min(options.processes, len(missing))
    if group.size == 1 and processes > 1:
        arguments = (task, done)
        run_in_processes(_run_and_record, arguments, plan.device, processes, progress, resume=RESUME_HINT)
    else:
        group.broadcast(task)
        run_inference(task, predictor, on_finished, group)


def _run_and_record(group: Group, progress: Progress, task: InferenceTask, done: int) -> None:
    """Take part in a task, and record in its folder what is finished; that is called in the first process only."""
    finished = itertools.count(done + 1)

    def record(name: str, checksums: tuple[str, ...]) -> None:
        folder.finish(name, checksums)
        progress(next(finished), done + len(task.jobs), "windows")

    with ResumableFolder.open(task.folder, {}) as folder:
        _take_part(group, task, record)


def join_inference(group: Group) -> None:
    """Run this process's jobs of the task that the first process of a group runs with :func:`run_inference`.

    Raises
    ------
    InputError
        This process does not see the files of the first one.
    """
    task: InferenceTask = group.broadcast(None)
    _take_part(group, task, lambda name, checksums: None)


def _take_part(group: Group, task: InferenceTask, finished: JobCallback) -> None:
    if not task.folder.is_dir():
        raise InputError(
            f"{task.folder}, which the first process writes, does not exist for process {group.rank}.",
            "All processes need the same files: use a file system that all machines have, and the same -w.",
        )
    with Predictor(task.fields, task.runs, group.device.type, task.outcrop) as predictor:
        run_inference(task, predictor, finished, group)
