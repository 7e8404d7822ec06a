"""Cost of a network: parameters, multiply-adds (MAC), memory and time of a forward pass."""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gravmap.network.architecture import Architecture
from gravmap.network.deform import TAPS, DeformConv3x3, Implementation
from gravmap.network.ggmnet import GGMNet
from gravmap.network.precision import autocast, scoring_precision
from gravmap.network.window_pass import WHOLE_FROM_PX, window_logits


def count_parameters(network: nn.Module) -> int:
    """Count the trainable parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def count_macs(network: nn.Module, in_channels: int, size: int = 1024) -> int:
    """Count the multiply-adds of the convolutions in a forward pass of one size x size image.

    A deformable convolution counts as an ordinary one plus the convolution of its offsets; bilinear sampling,
    normalisation and activations are not counted, as usual. With a network built under ``torch.device("meta")``
    nothing is computed.
    """
    return sum(macs_by_layer(network, in_channels, size).values())


def macs_by_layer(network: nn.Module, in_channels: int, size: int = 1024) -> dict[str, int]:
    """Count as `count_macs`, per convolution, by module name."""
    macs: dict[str, int] = {}

    def adds_to(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def add(layer: nn.Module, _: Any, out: Tensor) -> None:
            weight = layer.weight
            assert isinstance(weight, Tensor)
            # weight: (C_out, C_in / groups, k, k)
            macs[name] = macs.get(name, 0) + out.numel() * math.prod(weight.shape[1:])

        return add

    handles = [
        layer.register_forward_hook(adds_to(name))
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | DeformConv3x3)
    ]
    device = next(network.parameters()).device
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.empty(1, in_channels, size, size, device=device))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return macs


def peak_bytes(
    network: nn.Module,
    in_channels: int,
    size: int,
    batch: int = 1,
    *,
    precision: str = "float32",
    deformable: Implementation = "native",
    loss: Callable[[Tensor], Tensor] | None = None,
) -> int:
    """Estimate the peak memory of a pass: weights and activations, without gradients unless a loss is given.

    Nothing is computed: the pass runs on meta tensors. Temporary memory inside an operator is not counted, except the
    unrolled input of torchvision's deformable convolution.

    Parameters
    ----------
    network : nn.Module
        The network, on any device.
    in_channels, size, batch : int
        Shape of the input: (batch, in_channels, size, size).
    precision : str
        "float32" or "bfloat16".
    deformable : str
        Implementation of deformable convolutions: "native" or "torchvision".
    loss : callable, optional
        Computes the loss of logits (N, K, H, W). Then forward and backward pass of a training step are estimated, with
        gradients and the copies of the parameters that Adam keeps.
    """
    weights: int = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    shapes = copy.deepcopy(network).to("meta").eval()  # in training, batch normalisation keeps the same tensors
    for layer in shapes.modules():
        if isinstance(layer, DeformConv3x3):
            layer.impl = deformable
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    shapes.to(dtype)  # as autocast computes, but for the few operations that it leaves in float32
    with torch.set_grad_enabled(loss is not None), _MemoryTracker() as tracker:
        logits = shapes(torch.empty(batch, in_channels, size, size, dtype=dtype, device="meta"))
        if loss is None:
            return int(weights + tracker.peak)
        loss(logits).backward()  # type: ignore[no-untyped-call]
    # The gradients are among the tracked tensors; Adam keeps two moments.
    return int(3 * weights + tracker.peak)


PROBE_PX = 256
"""Width of the image that the pass of a window is timed with, where it passes as one image."""


def seconds_per_pass(network: nn.Module, in_channels: int, size: int, device: str | torch.device) -> float:
    """Measure the seconds that a window of size x size pixels takes (on a smaller one, scaled by area).

    Parameters
    ----------
    network : nn.Module
        The network, on `device` and in evaluation mode.
    in_channels, size : int
        Shape of the input: (1, in_channels, size, size).
    device : str or torch.device
        Device to measure.
    """
    probe = size if size < WHOLE_FROM_PX else PROBE_PX
    forward = functools.partial(window_logits, network) if size < WHOLE_FROM_PX else network
    sample = torch.zeros(1, in_channels, probe, probe, device=device)
    with torch.inference_mode(), autocast(scoring_precision(network), device):
        forward(sample)  # warm-up: the first pass also selects kernels
        start = time.perf_counter()
        forward(sample)
        if sample.is_cuda:
            torch.cuda.synchronize()
    return (time.perf_counter() - start) * (size / probe) ** 2


class _MemoryTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tracks the total size of all live storages, after every operator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak: int = 0
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]
        gone = [key for key, (storage, _) in self._storages.items() if storage.expired()]  # type: ignore[no-untyped-call]
        for key in gone:
            del self._storages[key]
        live = sum(size for _, size in self._storages.values())
        self.peak = max(self.peak, live + _unrolled_bytes(func, args))
        return made


def _unrolled_bytes(func: Any, args: Sequence[Any]) -> int:
    """Memory that torchvision's deformable convolution needs within a call: nine values per value of the input."""
    names = ("torchvision::deform_conv2d", "torchvision::_deform_conv2d_backward")
    if func.name() not in names:
        return 0
    x: Tensor = args[names.index(func.name())]  # after the gradient in the backward pass
    return TAPS * x.numel() * x.element_size()


HEADINGS = ("Part", "Cells", "Parameters", "GMAC")
_PARTS = {
    "encoder": "encoder",
    "refine": "attention (ARM)",
    "fuse": "fusion (FFM)",
    "head": "head",
    "classify": "classifier",
}


@dataclass(frozen=True)
class PartCost:
    """Cost of one part of a GGMNet.

    Parameters
    ----------
    part : str
        Name of the part.
    cells : int or None
        Number of cells that no earlier branch has; None for parts without cells.
    parameters, macs : int
        Number of parameters and of multiply-adds.
    """

    part: str
    cells: int | None
    parameters: int
    macs: int


def cost_by_part(
    architecture: Architecture, in_channels: int = 1, classes: int = 10, size: int = 1024
) -> list[PartCost]:
    """Count parameters and multiply-adds of each part, for one size x size image; the last row is the total.

    Cells that branches share count for the first branch. Nothing is computed (see `count_macs`).
    """
    with torch.device("meta"):
        network = GGMNet(architecture, in_channels, classes)
    macs = macs_by_layer(network, in_channels, size)
    rows = [_row(network, macs, "encoder", ["encoder"])]
    for branch, (route, shared) in enumerate(zip(network.routes, network.shared, strict=True)):
        end = 8 << architecture.scale(branch, architecture.depth - 1)
        names = [f"cells.{number}" for number in route[shared:]]
        part = f"branch to 1/{end}" + (f", from cell {shared} on" if shared else "")
        rows.append(_row(network, macs, part, names, cells=len(names)))
    rows += [_row(network, macs, part, [name]) for name, part in _PARTS.items() if name != "encoder"]
    rows = [row for row in rows if row.parameters or row.cells is not None]
    total = sum(row.cells or 0 for row in rows)
    return [*rows, PartCost("all", total, sum(row.parameters for row in rows), sum(row.macs for row in rows))]


def as_markdown(rows: Sequence[PartCost]) -> str:
    """Format the table as Markdown, with parameters in millions and multiply-adds in billions."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---|---:|---:|---:|"]
    for row in rows:
        cells = "" if row.cells is None else str(row.cells)
        lines.append(f"| {row.part} | {cells} | {row.parameters / 1e6:.3f} M | {row.macs / 1e9:.2f} |")
    return "\n".join(lines) + "\n"


def _row(network: GGMNet, macs: dict[str, int], part: str, names: Sequence[str], cells: int | None = None) -> PartCost:
    modules = dict(network.named_children()) | {f"cells.{i}": cell for i, cell in enumerate(network.cells)}
    found = [modules[name] for name in names if modules.get(name) is not None]
    counted = sum(
        number for layer, number in macs.items() if any(layer == name or layer.startswith(f"{name}.") for name in names)
    )
    return PartCost(part, cells, sum(count_parameters(module) for module in found), counted)
