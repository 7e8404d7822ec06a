"""Several processes on one run: starting them, joining those someone else started, and what they share.

`launch` starts N processes on this machine through torch's elastic launch. Under torchrun or `srun` the
variables are there already and `joined` makes the group from them, so several machines work too.
Workers read the area from one ``.npz`` and need no raster package.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import signal
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from gravmap import errors
from gravmap.errors import DeviceError, GravmapError
from gravmap.files import write_json
from gravmap.progress import Progress, silent

if TYPE_CHECKING:
    from gravmap.learning.area import Area
    from gravmap.learning.config import TrainConfig

log = logging.getLogger(__name__)

DEATHS = 3
"""So many deaths of processes without an epoch in between are borne."""

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID")


@dataclass(frozen=True)
class Group:
    """The processes of a run, seen from one of them.

    Attributes
    ----------
    rank, size : int
        Number of this process, and how many there are.
    device : torch.device
        Where this one computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def sum(self, tensor: Tensor) -> Tensor:
        """Add a tensor up over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_tensors(self, tensors: list[Tensor]) -> None:
        """Add tensors of one type up over all processes, in place and in one exchange."""
        if self.size > 1 and tensors:
            flat = self.sum(torch.cat([tensor.flatten() for tensor in tensors]))
            parts = torch.split(flat, [tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def sum_array(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """Add an array up over all processes."""
        return self.sum(torch.from_numpy(array).to(self.device)).cpu().numpy() if self.size > 1 else array

    def agree(self, value: Any) -> Any:
        """What the first process has, on all."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0, device=self.device)
        return held[0]

    def average_buffers(self, network: nn.Module) -> None:
        """Give all processes the mean of their running statistics; they differ where BN is not synchronised."""
        if self.size > 1:
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.sum(buffer.clone()) / self.size)


ALONE = Group()


def device_for(gpus: int | None, device: str | None, found: int) -> tuple[str, int]:
    """What to train on, and with how many processes.

    Parameters
    ----------
    gpus : int, optional
        GPUs asked for; 0 is the CPU.
    device : str, optional
        "cpu" or "cuda".
    found : int
        CUDA devices there are.

    Returns
    -------
    tuple of str and int
        "cpu" and 1, or "cuda" and the number of processes.

    Raises
    ------
    DeviceError
        Fewer devices than asked for, or none and the CPU was not asked for.
    """
    if device == "cpu" or gpus == 0:
        return "cpu", 1
    if not found:
        asked = f"--gpus {gpus} was asked for, but n" if gpus else "N"
        raise DeviceError(
            f"{asked}o CUDA device is seen (torch {torch.__version__}).",
            "--gpus 0 or --device cpu trains on the CPU: much slower, so choose a small --model and --size.",
        )
    if gpus is not None and gpus > found:
        raise DeviceError(
            f"--gpus {gpus} was asked for, but {found} CUDA device(s) are there.", f"--gpus {found} runs."
        )
    return "cuda", gpus or found


def group_variables(environment: Mapping[str, str]) -> dict[str, str] | None:
    """The five variables of a group someone else started (torchrun, or SLURM's `srun`), or None."""
    if all(name in environment for name in _TORCHRUN):
        return {name: environment[name] for name in _TORCHRUN}
    # A batch script without srun has a process number but is one process: it has no step of several tasks.
    if all(name in environment for name in _SLURM) and int(environment["SLURM_STEP_NUM_TASKS"]) > 1:
        rank, size, local, nodes, job = (environment[name] for name in _SLURM)
        first = re.match(r"([^\[,]+)(?:\[(\d+))?", nodes)
        host = "".join(part or "" for part in first.groups()) if first else "127.0.0.1"
        port = environment.get("MASTER_PORT", str(20000 + int(job) % 20000))
        values = (rank, size, local, environment.get("MASTER_ADDR", host), port)
        return dict(zip(_TORCHRUN, values, strict=True))
    return None


@contextmanager
def joined(kind: str) -> Iterator[Group]:
    """The group that the environment's variables describe; one process alone when there are none.

    Parameters
    ----------
    kind : str
        "cpu" (gloo) or "cuda" (nccl).
    """
    variables = group_variables(os.environ)
    if variables is None:
        yield Group(device=torch.device(kind))
        return
    os.environ.update(variables)
    rank, size, local = (int(variables[name]) for name in _TORCHRUN[:3])
    device = torch.device("cpu")
    if kind == "cuda":
        if local >= torch.cuda.device_count():
            raise DeviceError(
                f"Process {local} of this machine has no GPU: {torch.cuda.device_count()} CUDA device(s) are there.",
                f"Start {torch.cuda.device_count()} processes per machine.",
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo", rank=rank, world_size=size)
    try:
        yield Group(rank, size, device)
    finally:
        dist.destroy_process_group()


def launch(
    area: Area,
    run_dir: Path,
    config: TrainConfig,
    processes: int,
    progress: Progress = silent,
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """Train with `processes` processes on this machine; what :func:`gravmap.learning.trainer.train` returns.

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
        packed = Path(scratch) / "area.npz"
        area.save(packed)
        deaths = 0
        while True:
            began = _state_of(last)
            try:
                return _launch_once(packed, run_dir, config, processes, progress, resume)
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
    packed: Path, run_dir: Path, config: TrainConfig, processes: int, progress: Progress, resume: bool
) -> dict[str, Any]:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Failures are told by us, in plain words; the launcher would print tables of its own beside them.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    handlers = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    }
    multiprocessing.set_forkserver_preload(["torch._dynamo", "gravmap.learning.trainer"])
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
                results = launching(str(folder), str(packed), str(run_dir), config.to_json(), processes, resume)
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


def _work(scratch: str, packed: str, run_dir: str, config_json: str, processes: int, resume: bool) -> dict[str, Any]:
    """One of the processes that :func:`launch` starts."""
    from gravmap.learning.area import Area
    from gravmap.learning.config import TrainConfig
    from gravmap.learning.trainer import train

    # Ctrl-C reaches every process of a terminal; the parent alone acts on it and ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    folder, rank = Path(scratch), int(os.environ["RANK"])
    config = TrainConfig.from_json(config_json)
    try:
        with joined(config.device) as group:
            area = Area.load(Path(packed))
            return train(area, Path(run_dir), config, _telling(folder, rank), group=group, resume=resume)
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
