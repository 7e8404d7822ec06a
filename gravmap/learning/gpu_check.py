"""What `gravmap doctor` finds out about GPUs by computing on them; it runs in a process of its own.

A driver that is too old, a torchvision built for another torch or GPU, and memory that another program holds only show
when something is computed.
"""

from __future__ import annotations

import gc
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gravmap.errors import out_of_memory
from gravmap.learning.training.config import TrainConfig
from gravmap.learning.training.loss import make_criterion
from gravmap.network import build
from gravmap.network.deform import backend, deform_conv3x3
from gravmap.network.precision import autocast, choose_precision

CROPS_PX = (2048, 1536, 1024, 768, 512, 384, 256, 128)
"""Widths of crops that are tried."""

CROPS = 2
"""Crops of a micro-batch: the fewest with batch normalisation in one process."""

_CLASSES = 10


def check(kind: str = "cuda", model: str = "ggmnet", crops_px: tuple[int, ...] = CROPS_PX) -> dict[str, Any]:
    """Describe the CUDA devices, and compute on each.

    Parameters
    ----------
    kind : str
        Type of the device to compute on; tests have "cpu" alone.
    model : str
        Network of the training step.
    crops_px : tuple of int
        Widths of crops to try, in descending order.

    Returns
    -------
    dict
        `threads`; `cuda`, `driver` and `nccl` (versions, or None); `gpus`, as :func:`check_gpu`; `no_gpu` (why there is
        none, or None); `deformable` ("torchvision" or "own"); and `error` (why torchvision cannot be imported, or
        None).
    """
    count, driver = torch.cuda.device_count(), driver_version()
    nccl = error = None
    if torch.distributed.is_nccl_available():
        nccl = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    try:
        import torchvision  # noqa: F401
    except Exception as problem:
        error = f"torchvision cannot be imported with this torch: {_first_line(problem)}"
    deformable = "torchvision" if count and backend("cuda") == "torchvision" else "own"
    return {
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "driver": driver,
        "nccl": nccl,
        "gpus": [check_gpu(torch.device(kind, index), deformable, model, crops_px) for index in range(count)],
        "no_gpu": None if count else _why_none(driver),
        "deformable": deformable,
        "error": error,
    }


def check_gpu(device: torch.device, deformable: str, model: str, crops_px: tuple[int, ...]) -> dict[str, Any]:
    """Describe a GPU, run torchvision's kernel on it if that is in use, and find the largest crop that fits.

    Returns
    -------
    dict
        `name`, `capability` ("8.0"), `memory_gib`, `free_gib`, `precision` of training, `crop_px` (the largest width of
        which a training step fits, or None), `deformable_runs` (whether torchvision's kernel does; None if it is not in
        use), and `fault` (what fails and what to do, or None).
    """
    card = torch.cuda.get_device_properties(device.index)
    found: dict[str, Any] = {
        "name": card.name,
        "capability": f"{card.major}.{card.minor}",
        "memory_gib": round(card.total_memory / 2**30, 1),
        "free_gib": None,
        "precision": None,
        "crop_px": None,
        "deformable_runs": None,
        "fault": None,
    }
    which = f"GPU {device.index} ({card.name})"
    try:
        found["free_gib"] = round(torch.cuda.mem_get_info(device.index)[0] / 2**30, 1)
        if deformable == "torchvision":
            found["deformable_runs"] = False
            run_torchvision(device)
            found["deformable_runs"] = True
        found["precision"] = precision = choose_precision("auto", device)
        found["crop_px"] = largest_crop(lambda width: train_step(device, model, width, precision), crops_px)
    except Exception as error:
        found["fault"] = f"{which}: {_first_line(error)}. {_REINSTALL}"
    else:
        if found["crop_px"] is None:
            found["fault"] = (
                f"{which}: a training step of {model} does not fit into its {found['free_gib']} GiB of free memory. "
                "End other programs that use it (nvidia-smi), or choose a smaller --model"
            )
    return found


_REINSTALL = "Reinstall torch and torchvision for this GPU and its driver: https://pytorch.org/get-started/locally/"


def driver_version() -> str | None:
    """Return the version of the NVIDIA driver; None where there is none."""
    if shutil.which("nvidia-smi"):
        words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        lines = done.stdout.split()
        if not done.returncode and lines:
            return lines[0]
    loaded = Path("/proc/driver/nvidia/version")
    if loaded.exists():
        # "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 ..."
        words = loaded.read_text(encoding="utf-8").splitlines()[0].split()
        return next((word for word in words if word[0].isdigit() and "." in word), None)
    return None


def run_torchvision(device: torch.device) -> None:
    """Run torchvision's deformable convolution once, forward and backward, and compare it with gravmap's own.

    Raises
    ------
    RuntimeError
        It fails, or differs.
    """
    from torchvision.ops import deform_conv2d

    generator = torch.Generator().manual_seed(0)
    x, offset, weight = (
        torch.randn(shape, generator=generator).to(device) for shape in [(1, 4, 8, 8), (1, 18, 8, 8), (4, 4, 3, 3)]
    )
    weight.requires_grad_()
    try:
        found = deform_conv2d(x, offset, weight, padding=1)
        found.sum().backward()
    except Exception as error:
        raise RuntimeError(f"torchvision's deformable convolution does not run: {_first_line(error)}") from error
    # float32 may be TF32 here.
    if not torch.allclose(found, deform_conv3x3(x, offset, weight), rtol=1e-2, atol=1e-2):
        raise RuntimeError("torchvision's deformable convolution gives other values than gravmap's own")


def largest_crop(step: Callable[[int], None], crops_px: tuple[int, ...] = CROPS_PX) -> int | None:
    """Return the first of the widths with which `step` does not run out of memory; None if there is none."""
    for width in crops_px:
        try:
            step(width)
        except (RuntimeError, MemoryError) as error:
            if out_of_memory(error) is None:
                raise
        else:
            return width
        finally:
            gc.collect()
            torch.cuda.empty_cache()
    return None


def train_step(device: torch.device, model: str, width: int, precision: str) -> None:
    """Take a training step of a network with a micro-batch of noise, as training does."""
    config = TrainConfig()
    network = build(model, in_channels=1, classes=_CLASSES).to(device)
    optimizer = torch.optim.Adam(network.parameters())
    fields = torch.randn(CROPS, 1, width, width, device=device)
    target = torch.randint(0, _CLASSES, (CROPS, width, width), device=device)
    weight = torch.ones(_CLASSES, device=device)
    criterion = make_criterion(weight, topk_base=config.topk_base, small_weight=config.small_weight)
    with autocast(precision, device):
        logits = network(fields)
    small = torch.zeros_like(target, dtype=torch.bool)
    loss, _ = criterion(logits, target, small, topk_share=1.0)  # all pixels, as in the first step
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    float(loss.detach())  # waits for the GPU


def _why_none(driver: str | None) -> str:
    """Why torch finds no CUDA device, and what to do."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if driver is None:
        return "no NVIDIA driver is installed"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except Exception as error:
        return f"driver {driver}: {_first_line(error)}"
    return f"driver {driver}, but no device is visible (CUDA_VISIBLE_DEVICES)"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
