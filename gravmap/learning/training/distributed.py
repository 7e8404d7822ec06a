"""Several processes: the process group and its collective operations, in training, search and prediction.

`gravmap.learning.training.launch` starts N processes on this machine. torchrun and `srun` start the processes
themselves, on one machine or several; :func:`process_group` then reads the environment variables that they set.

A process that fails leaves the group without destroying it (:func:`leave`), because with NCCL that can wait for the
other processes. A process that hangs is noticed by a :class:`Watch`, because torch's own timeout ends the process
without a message.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from gravmap.errors import DeviceError, GravmapError, out_of_memory
from gravmap.learning.training.watch import RESUME, WAIT_LIMIT_S, PeerError, Watch, flush

log = logging.getLogger(__name__)

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID")
_LESS_MEMORY = "A smaller --micro-batch (train) or --batch-size (search, predict) leaves more memory for the exchange."


@dataclass(frozen=True)
class Group:
    """The processes that share a training, a search or a prediction, from the point of view of one of them.

    Attributes
    ----------
    rank, size : int
        Number of this process, and number of processes.
    device : torch.device
        Device of this process.
    watch : Watch, optional
        Ends this process when it hangs.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    watch: Watch | None = None

    @property
    def synchronises_batch_norm(self) -> bool:
        """Whether batch normalisation exchanges statistics between processes, which torch does on GPUs only."""
        return self.size > 1 and self.device.type == "cuda"

    def at(self, place: str, *, step: bool = False) -> None:
        """Note where the process is, for messages and timeouts: "epoch 1, step 3"; and whether that is a step."""
        if self.watch is not None:
            self.watch.at(place, step)

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place.

        Raises
        ------
        PeerError
            Another process ended. So do all other operations on a group.
        DeviceError
            The exchange itself ran out of memory; it cannot be repeated.
        """
        if self.size > 1:
            with self._exchange():
                dist.all_reduce(tensor)
        return tensor

    def start_sum(self, tensor: Tensor) -> Callable[[], None]:
        """Start to sum a tensor over all processes, in place, and return a function that waits for the sum."""
        with self._exchange(waits=False):
            work = dist.all_reduce(tensor, async_op=True)

        def wait() -> None:
            with self._exchange():
                work.wait()

        return wait

    def sum_array(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sum an array over all processes."""
        return self.sum(torch.from_numpy(array).to(self.device)).cpu().numpy() if self.size > 1 else array

    def broadcast(self, value: Any) -> Any:
        """Return the first process's value in every process."""
        if self.size == 1:
            return value
        values = [value]
        with self._exchange():
            dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank, in every process."""
        values = [value] * self.size
        if self.size > 1:
            with self._exchange():
                dist.all_gather_object(values, value)
        return values

    def average_buffers(self, network: nn.Module) -> None:
        """Average the running statistics over all processes; they differ unless batch norm is synchronised."""
        buffers = [each for each in network.buffers() if each.is_floating_point()]
        if self.size > 1 and buffers:
            averages = self.sum(torch.cat([each.flatten() for each in buffers])) / self.size
            parts = torch.split(averages, [each.numel() for each in buffers])
            for buffer, average in zip(buffers, parts, strict=True):
                buffer.copy_(average.view_as(buffer))

    @contextmanager
    def _exchange(self, waits: bool = True) -> Iterator[None]:
        """Context manager of an operation that all processes take part in, and that waits for them or not."""
        try:
            with self.watch.waiting() if waits and self.watch is not None else nullcontext():
                yield
        except RuntimeError as error:
            raise out_of_memory(error, _LESS_MEMORY) or _peer_error(error, self.rank, self.watch) from error


ALONE = Group()
"""A single process on the CPU."""


def choose_device(gpus: int | None, device: str | None, found: int) -> tuple[str, int]:
    """Choose the device and the number of processes.

    Parameters
    ----------
    gpus : int, optional
        Number of GPUs requested; 0 is the CPU.
    device : str, optional
        "cpu" or "cuda".
    found : int
        Number of CUDA devices of this machine.

    Returns
    -------
    tuple of str and int
        "cpu" and 1, or "cuda" and the number of processes.

    Raises
    ------
    DeviceError
        There are fewer devices than requested, or none and the CPU was not requested.
    """
    if device == "cpu" or gpus == 0:
        return "cpu", 1
    if not found:
        requested = f" for --gpus {gpus}" if gpus else ""
        raise DeviceError(
            f"No CUDA device was found{requested} (torch {torch.__version__}).",
            "--gpus 0 or --device cpu trains on the CPU: by default a small network at the resolution of the grid.",
        )
    if gpus is not None and gpus > found:
        raise DeviceError(
            f"--gpus {gpus} was requested, but {found} CUDA device(s) were found.", f"Use --gpus {found}."
        )
    return "cuda", gpus or found


def group_variables(environment: Mapping[str, str]) -> dict[str, str] | None:
    """Return the five variables of a group that torchrun or SLURM's `srun` started, or None.

    Where `srun` starts torchrun, the processes are those of torchrun.
    """
    if all(name in environment for name in _TORCHRUN):
        return {name: environment[name] for name in _TORCHRUN}
    # A batch script without srun has a process number but is one process: it has no step of several tasks.
    if all(name in environment for name in _SLURM) and int(environment["SLURM_STEP_NUM_TASKS"]) > 1:
        rank, size, local, nodes, job = (environment[name] for name in _SLURM)
        # "r[1-2]n[07-08],r3n1": the first number of each range, up to the first comma between names.
        host = re.sub(r"\[(\d+)[^\]]*\]", r"\1", nodes).partition(",")[0]
        port = environment.get("MASTER_PORT", str(20000 + int(job) % 20000))
        values = (rank, size, local, environment.get("MASTER_ADDR", host), port)
        return dict(zip(_TORCHRUN, values, strict=True))
    return None


def visible_device(local: int, environment: Mapping[str, str]) -> int:
    """Return the index of the CUDA device of a process, among those it sees.

    Parameters
    ----------
    local : int
        Number of the process on this machine.
    environment : mapping of str to str
        Environment variables; torchrun's processes all see the same devices.

    Raises
    ------
    DeviceError
        This machine has fewer GPUs than processes.
    """
    found = torch.cuda.device_count()
    if local < found:
        return local
    # SLURM can show each task its own GPU alone (--gpus-per-task, --gpu-bind), as device 0.
    if found == 1 and "TORCHELASTIC_RUN_ID" not in environment:
        return 0
    raise DeviceError(
        f"Process {local} of this machine has no GPU: {found} CUDA device(s) were found.",
        f"Start {found} process(es) per machine." if found else "--device cpu computes on the CPU.",
    )


@contextmanager
def process_group(
    kind: str, report: Callable[[GravmapError], None] | None = None, resume: str = RESUME
) -> Iterator[Group]:
    """Join the process group that the environment variables describe; without them, a group of one process.

    Parameters
    ----------
    kind : str
        "cpu" (gloo) or "cuda" (nccl).
    report : callable, optional
        Is given the error before a process that hangs is ended; by default it is logged.
    resume : str
        For messages: how a user resumes what was stopped.

    Yields
    ------
    Group
        Destroyed when the block has ended without an error. After an error, end the process with :func:`leave`.

    Raises
    ------
    DeviceError
        This machine has fewer GPUs than processes, or the processes cannot be connected.
    PeerError
        Another process of the group ended.
    """
    variables = group_variables(os.environ)
    if variables is None:
        yield Group(device=torch.device(kind))
        return
    os.environ.update(variables)
    rank, size, local = (int(variables[name]) for name in _TORCHRUN[:3])
    device = torch.device("cpu")
    if kind == "cuda":
        device = torch.device("cuda", visible_device(local, os.environ))
        torch.cuda.set_device(device)
    watch = Watch(rank, report or (lambda error: log.error("%s", error)), resume)
    try:
        with watch.waiting():
            _connect(rank, size, device)
        yield Group(rank, size, device, watch)
    except (PeerError, dist.DistError) as error:
        time.sleep(1.0)  # so that the launcher, and the user, first see the process that failed
        if isinstance(error, PeerError):
            raise
        if out_of_memory(error) is not None:
            raise
        raise _peer_error(error, rank, watch) from error
    finally:
        watch.stop()
    dist.destroy_process_group()


def _connect(rank: int, size: int, device: torch.device) -> None:
    """Join the process group, and exchange a number before a network takes memory.

    Raises
    ------
    DeviceError
        Two processes have the same GPU, or the processes cannot be connected.
    """
    cuda = device.type == "cuda"
    try:
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            rank=rank,
            world_size=size,
            # torch ends the process without a message; the watch comes first.
            timeout=timedelta(seconds=2 * WAIT_LIMIT_S),
            device_id=device if cuda else None,  # NCCL then connects, and takes its memory, at once
        )
        joined = torch.ones(1, device=device)
        dist.all_reduce(joined)
        joined.item()
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        if "Duplicate GPU" in text:
            raise DeviceError(
                f"Process {rank} has the same GPU as another process of this machine.",
                "Start one process per GPU, or let srun show each task its own (--gpus-per-task=1).",
            ) from error
        how = "NCCL_DEBUG=INFO says more; NCCL_SOCKET_IFNAME" if cuda else "GLOO_SOCKET_IFNAME"
        raise DeviceError(
            f"Process {rank} could not be connected with the other {size - 1} at "
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}: {text[:300]}",
            f"{how} names the network interface.",
        ) from error


def leave(status: int) -> None:
    """End this process at once if an error has left it in a process group; report the error first.

    Otherwise Python's end would destroy the group, which with NCCL can wait for processes that wait for this one.

    Parameters
    ----------
    status : int
        Exit status.
    """
    if dist.is_available() and dist.is_initialized():
        flush()
        os._exit(status)


def _peer_error(error: Exception, rank: int, watch: Watch | None) -> PeerError:
    place = f" in {watch.place}" if watch is not None else ""
    resume = watch.resume if watch is not None else RESUME
    text = " ".join(str(error).split())
    return PeerError(
        f"Process {rank} lost its connection to another process{place}: {text[:200]}",
        f"The message of the other process, or the system's log, says why it ended. {resume}",
    )
