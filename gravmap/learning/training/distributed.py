"""Several processes on one run: joining them, and what they share.

`gravmap.learning.training.launch` starts N processes on this machine. Under torchrun or `srun` they are there already,
and `joined` makes the group from the variables these set, so several machines work too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from gravmap.errors import DeviceError

if TYPE_CHECKING:
    pass

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
