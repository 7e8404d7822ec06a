"""Start several processes on this machine with torch's elastic launch, and restart them when one is killed.

Workers read every dataset from an ``.npz`` file and need no raster package, except to read crops from tiles.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from gravmap import errors
from gravmap.errors import GravmapError, out_of_memory
from gravmap.files import write_json
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.training.distributed import Group, leave, process_group
from gravmap.learning.training.watch import RESUME, PeerError
from gravmap.progress import Progress, silent
from gravmap.records import parse_record, read_record

if TYPE_CHECKING:
    from gravmap.learning.data.dataset import RegionDataset
    from gravmap.learning.training.config import TrainConfig

log = logging.getLogger(__name__)

Result = TypeVar("Result")

MAX_RESTARTS = 3
"""Restarts without a completed epoch in between."""

_LESS_MEMORY = (
    "--micro-batch N (train) accumulates gradients over N crops at a time; "
    "search needs a smaller --batch-size or --size."
)


def launch(
    data: RegionDataset | DatasetSplits,
    run_dir: Path,
    config: TrainConfig,
    processes: int,
    progress: Progress = silent,
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """Train with several processes on this machine.

    A process that a signal killed (out of memory, for example) is not an error: all processes are restarted and resume
    after the last complete epoch.

    Parameters
    ----------
    data, run_dir, config, progress, resume
        As in :func:`gravmap.learning.training.run.train`.
    processes : int
        Number of processes.

    Returns
    -------
    dict
        As :func:`gravmap.learning.training.run.train`.

    Raises
    ------
    GravmapError
        The error of the first process that failed, after all others were ended; or processes were killed repeatedly.
    KeyboardInterrupt
        The run was interrupted; all processes are ended.
    """
    with tempfile.TemporaryDirectory(prefix="gravmap-") as scratch:
        splits = DatasetSplits.of(data)
        splits.save(Path(scratch))

        def start(resume: bool) -> dict[str, Any]:
            arguments = (Path(scratch), splits.tiles, run_dir, config, resume)
            return run_in_processes(_train, arguments, config.device, processes, progress)

        return restart_when_killed(start, run_dir, resume)


def _train(
    group: Group, progress: Progress, data_dir: Path, tiles: Any, run_dir: Path, config: TrainConfig, resume: bool
) -> dict[str, Any]:
    """Train in one of the processes that :func:`launch` starts."""
    from gravmap.learning.training.run import train

    data = replace(DatasetSplits.load(data_dir), tiles=tiles)
    return train(data, run_dir, config, progress, group=group, resume=resume)


class KilledError(GravmapError):
    """A signal that gravmap did not send ended a process."""


def restart_when_killed(start: Callable[[bool], Result], run_dir: Path, resume: bool) -> Result:
    """Call `start` until no signal ends one of its processes.

    Parameters
    ----------
    start : callable
        Starts the processes of a run, which resumes after its last complete epoch if the argument is true.
    run_dir : Path
        Folder of the run: ``last.json`` changes with every complete epoch.
    resume : bool
        Whether the first start resumes the run.

    Raises
    ------
    GravmapError
        Processes were killed repeatedly without a completed epoch in between.
    """
    last = run_dir / "last.json"
    before = _state_of(last)
    restarts = 0
    while True:
        started = _state_of(last)
        try:
            return start(resume)
        except KilledError as killed:
            saved = _state_of(last)
            restarts = 1 if saved != started else restarts + 1
            what = killed.message.removesuffix(".")
            if restarts > MAX_RESTARTS:
                raise GravmapError(
                    f"{what}, {restarts} times without a completed epoch in between.",
                    "The system may be out of memory; see its log.",
                ) from None
            resume = resume or saved != before
            log.warning("%s; %s.", what, "resuming after the last complete epoch" if resume else "restarting")


def _state_of(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def run_in_processes(
    function: Callable[..., Result],
    arguments: tuple[Any, ...],
    device: str,
    processes: int,
    progress: Progress = silent,
    *,
    resume: str = RESUME,
) -> Result:
    """Call a function in several processes on this machine that form a group.

    Parameters
    ----------
    function : callable
        Of a module. It gets the :class:`Group`, a progress callback and `arguments`.
    arguments : tuple
        Are pickled.
    device : str
        "cpu", or "cuda" for one GPU per process.
    processes : int
        Number of processes.
    progress : Progress
        Receives the reports of the first process, several times a second.
    resume : str
        For messages: how a user resumes what was stopped.

    Returns
    -------
    Result
        Of the first process.

    Raises
    ------
    KilledError
        A signal ended a process.
    GravmapError
        The error of the first process that failed. In each case all other processes are ended.
    KeyboardInterrupt
        The run was interrupted; all processes are ended.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # gravmap reports failures itself; the launcher would print its own tables as well.
    for name in ("torch.distributed.elastic", "torch.multiprocessing"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    handlers = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    }
    multiprocessing.set_forkserver_preload(["torch._dynamo", "gravmap.learning.training.run", function.__module__])
    with tempfile.TemporaryDirectory(prefix="gravmap-") as scratch:
        folder = Path(scratch)
        launching = elastic_launch(
            LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=processes,
                run_id=uuid.uuid4().hex,
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                local_addr="localhost",
                # The launcher would also restart processes that fail with an error, so gravmap restarts them itself.
                max_restarts=0,
                monitor_interval=0.1,
                # Workers fork from one clean process that has imported torch; importing takes seconds each.
                start_method="forkserver",
                logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs")),
            ),
            _worker,
        )
        try:
            with _relay_progress(folder / "progress.json", progress):
                results = launching(folder, device, processes, resume, function, arguments)
        except ChildFailedError as failure:
            cause, consequence = _first_errors(folder)
            if cause is not None:
                raise cause from None
            for rank, failed in failure.failures.items():
                if failed.exitcode == -signal.SIGINT:
                    raise KeyboardInterrupt from None
                if failed.exitcode == -signal.SIGABRT:  # by the process itself; it would do so again
                    raise GravmapError(
                        f"Process {rank} aborted (SIGABRT).", f"What it printed says why. {resume}"
                    ) from None
                if failed.exitcode < 0:
                    name = signal.Signals(-failed.exitcode).name
                    raise KilledError(
                        f"Process {rank} was ended by {name}.",
                        f"The system may be out of memory; see its log. {resume}",
                    ) from None
            raise consequence or failure from None
        except SignalException as ended:
            raise KeyboardInterrupt(str(ended)) from None
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        result: Result = results[0]
        return result


def _worker(
    folder: Path,
    device: str,
    processes: int,
    resume: str,
    function: Callable[..., Result],
    arguments: tuple[Any, ...],
) -> Result:
    """Run one of the processes that :func:`run_in_processes` starts."""
    # Ctrl-C reaches every process of a terminal, and the parent says so; those that ignored it would be waited for.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // processes)))
    rank = int(os.environ["RANK"])

    def report(error: Exception) -> None:
        write_json(folder / f"error-{rank}.json", _describe(error))

    try:
        with process_group(device, report, resume) as group:
            return function(group, _report_progress(folder, rank), *arguments)
    except Exception as error:
        report(error)
        leave(1)
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    """End this process when the one that launched it has ended, which may have been killed."""
    parent = multiprocessing.parent_process()  # not that of the system, which is the fork server
    assert parent is not None
    parent.join()
    os._exit(1)


def _report_progress(folder: Path, rank: int) -> Progress:
    """Return a callback that writes the progress to a file for the parent process; only rank 0 does."""

    def listener(done: int, total: int, note: str = "") -> None:
        write_json(folder / "progress.json", [done, total, note])

    return listener if rank == 0 else silent


@contextmanager
def _relay_progress(path: Path, progress: Progress) -> Iterator[None]:
    """Report the progress that a worker writes to `path`, until the block ends."""
    finished = threading.Event()

    def relay() -> None:
        last = ""
        while True:
            ended = finished.wait(0.2)
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            if text and text != last:
                done, total, note = parse_record(text, tuple[int, int, str], str(path))
                progress(done, total, note)
                last = text
            if ended:
                return

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def _describe(error: Exception) -> dict[str, Any]:
    error = out_of_memory(error, _LESS_MEMORY) or error
    if isinstance(error, GravmapError):
        return {"type": type(error).__name__, "message": error.message, "hint": error.hint}
    return {"type": None, "message": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}


def _first_errors(folder: Path) -> tuple[Exception | None, Exception | None]:
    """Return the first error that is not a consequence of another process's end, and the first that is."""
    found = sorted(folder.glob("error-*.json"), key=lambda path: path.stat().st_mtime_ns)
    records = [read_record(path, dict[str, str | None]) for path in found]
    first = [
        next((_as_error(each) for each in records if (each["type"] == PeerError.__name__) is consequence), None)
        for consequence in (False, True)
    ]
    return first[0], first[1]


def _as_error(record: dict[str, str | None]) -> Exception:
    """Return the error that :func:`_describe` described."""
    if record["type"] is None:
        return RuntimeError(f"{record['message']}\n{record['traceback']}")
    kind: type[GravmapError] = getattr(errors, record["type"], GravmapError)
    return kind(str(record["message"]), record["hint"])
