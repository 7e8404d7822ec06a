"""Starting several processes on one run, through torch's elastic launch, and starting them again when one dies.

Workers read every dataset from one ``.npz`` and need no raster package, except to read crops from tiles.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gravmap import errors
from gravmap.errors import DeviceError, GravmapError
from gravmap.files import write_json
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.training.distributed import joined
from gravmap.progress import Progress, silent

if TYPE_CHECKING:
    from gravmap.learning.data.dataset import RegionDataset
    from gravmap.learning.training.config import TrainConfig

log = logging.getLogger(__name__)

DEATHS = 3
"""So many deaths of processes without an epoch in between are borne."""


def launch(
    ground: RegionDataset | DatasetSplits,
    run_dir: Path,
    config: TrainConfig,
    processes: int,
    progress: Progress = silent,
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """Train with `processes` processes on this machine; what :func:`gravmap.learning.training.trainer.train` returns.

    Raises
    ------
    GravmapError
        What the first failing process raised, and all others are ended; or processes died again and again. One
        that a signal ended (for want of memory, say) is no failure: all go on from the last whole epoch.
    KeyboardInterrupt
        The run was interrupted; all processes are ended.
    """
    last = run_dir / "last.json"
    before = _state_of(last)
    with tempfile.TemporaryDirectory(prefix="gravmap-") as scratch:
        packed = Path(scratch)
        splits = DatasetSplits.of(ground)
        splits.save(packed)
        deaths = 0
        while True:
            began = _state_of(last)
            try:
                return _launch_once(packed, run_dir, config, processes, progress, resume, splits.tiles)
            except _DiedError as died:
                saved = _state_of(last)
                deaths = 1 if saved != began else deaths + 1
                if deaths > DEATHS:
                    raise GravmapError(
                        f"{died} {deaths} times without an epoch in between.", "Is memory short? See the system's log."
                    ) from None
                resume = resume or saved != before
                log.warning("%s; %s.", died, "going on after the last whole epoch" if resume else "starting again")


class _DiedError(Exception):
    """A process was ended by a signal, and not by one of ours."""


def _state_of(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _launch_once(
    packed: Path,
    run_dir: Path,
    config: TrainConfig,
    processes: int,
    progress: Progress,
    resume: bool,
    tiles: Any,
) -> dict[str, Any]:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Failures are told by us, in plain words; the launcher would print tables of its own beside them.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    handlers = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    }
    multiprocessing.set_forkserver_preload(["torch._dynamo", "gravmap.learning.training.trainer"])
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
                # Restarts are ours: the launcher's would repeat what fails for a reason, too.
                max_restarts=0,
                monitor_interval=0.1,
                # Workers fork from one clean process that has imported torch; importing takes seconds each.
                start_method="forkserver",
                logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs")),
            ),
            _work,
        )
        try:
            with _relayed(folder / "progress.json", progress):
                results = launching(str(folder), str(packed), str(run_dir), config.to_json(), processes, resume, tiles)
        except ChildFailedError as failure:
            error = _first_error(folder)
            if isinstance(error, GravmapError):
                raise error from None
            for rank, failed in failure.failures.items():
                if failed.exitcode < 0:
                    told = signal.Signals(-failed.exitcode).name
                    raise _DiedError(f"Training process {rank} was ended by {told}") from None
            raise error or failure from None
        except SignalException as ended:
            raise KeyboardInterrupt(str(ended)) from None
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        result: dict[str, Any] = results[0]
        return result


def _work(
    scratch: str,
    packed: str,
    run_dir: str,
    config_json: str,
    processes: int,
    resume: bool,
    tiles: Any,
) -> dict[str, Any]:
    """One of the processes that :func:`launch` starts."""
    from gravmap.learning.training.config import TrainConfig
    from gravmap.learning.training.trainer import train

    # Ctrl-C reaches every process of a terminal; the parent alone acts on it and ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    folder, rank = Path(scratch), int(os.environ["RANK"])
    config = TrainConfig.from_json(config_json)
    try:
        with joined(config.device) as group:
            splits = replace(DatasetSplits.load(Path(packed)), tiles=tiles)
            telling = _telling(folder, rank)
            return train(splits, Path(run_dir), config, telling, group=group, resume=resume)
    except Exception as error:
        if not isinstance(error, GravmapError):
            # Often only the loss of a neighbour: the launcher is to see that one first.
            time.sleep(1.0)
        write_json(folder / f"error-{rank}.json", _describe(error))
        raise SystemExit(1) from None


def _telling(folder: Path, rank: int) -> Progress:
    """A listener that leaves word for the parent process."""

    def listener(done: int, total: int, note: str = "") -> None:
        write_json(folder / "progress.json", [done, total, note])

    return listener if rank == 0 else silent


@contextmanager
def _relayed(path: Path, progress: Progress) -> Iterator[None]:
    """Pass on what a worker leaves at `path`, until the block ends."""
    finished = threading.Event()

    def relay() -> None:
        last = ""
        while True:
            ended = finished.wait(0.2)
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            if text and text != last:
                progress(*json.loads(text))
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
    if isinstance(error, torch.OutOfMemoryError):
        error = DeviceError(
            "The GPU's memory is too small for this batch.", "--micro-batch N takes the batch in parts of N per GPU."
        )
    if isinstance(error, GravmapError):
        return {"type": type(error).__name__, "message": error.message, "hint": error.hint}
    return {"type": None, "message": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}


def _first_error(folder: Path) -> Exception | None:
    """Why the workers ended: one of our errors if any has one, for the others only lost their neighbour."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("error-*.json"))]
    for told in found:
        if told["type"] is not None:
            kind: type[GravmapError] = getattr(errors, told["type"], GravmapError)
            return kind(told["message"], told["hint"])
    if found:
        return RuntimeError(f"{found[0]['message']}\n{found[0]['traceback']}")
    return None
