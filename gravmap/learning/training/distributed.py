"""Distributed training: the process group and its collective operations.

`gravmap.learning.training.launch` starts N processes on this machine. torchrun and `srun` start the processes
themselves, on one machine or several; :func:`process_group` then reads the environment variables that they set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from gravmap.errors import DeviceError

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID")


@dataclass(frozen=True)
class Group:
    """The processes that train one network, from the point of view of one of them.

    Attributes
    ----------
    rank, size : int
        Number of this process, and number of processes.
    device : torch.device
        Device of this process.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_tensors(self, tensors: list[Tensor]) -> None:
        """Sum tensors of one dtype over all processes, in place and in one exchange."""
        if self.size > 1 and tensors:
            flat = self.sum(torch.cat([tensor.flatten() for tensor in tensors]))
            parts = torch.split(flat, [tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def sum_array(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sum an array over all processes."""
        return self.sum(torch.from_numpy(array).to(self.device)).cpu().numpy() if self.size > 1 else array

    def broadcast(self, value: Any) -> Any:
        """Return the first process's value in every process."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def average_buffers(self, network: nn.Module) -> None:
        """Average the running statistics over all processes; they differ unless batch norm is synchronised."""
        if self.size > 1:
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.sum(buffer.clone()) / self.size)


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
    """Return the five variables of a group that torchrun or SLURM's `srun` started, or None."""
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
def process_group(kind: str) -> Iterator[Group]:
    """Join the process group that the environment variables describe; without them, a group of one process.

    Parameters
    ----------
    kind : str
        "cpu" (gloo) or "cuda" (nccl).

    Yields
    ------
    Group
        Destroyed when the block ends.

    Raises
    ------
    DeviceError
        This machine has fewer GPUs than processes.
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
                f"Process {local} of this machine has no GPU: {torch.cuda.device_count()} CUDA device(s) were found.",
                f"Start {torch.cuda.device_count()} processes per machine.",
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo", rank=rank, world_size=size)
    try:
        yield Group(rank, size, device)
    finally:
        dist.destroy_process_group()
