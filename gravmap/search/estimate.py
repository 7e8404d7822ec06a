"""What a search will take, before it begins: parameters, memory and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gravmap.learning.data.dataset import RegionDataset
from gravmap.network.cost import count_parameters
from gravmap.search.config import SearchConfig
from gravmap.search.state import SearchState
from gravmap.search.steps import TEACHING, WARM_UP
from gravmap.search.supernet import Supernet

GPU_FLOPS = 1e13
GPU_START_S = 1e-5
"""A GPU as the estimate has it: so many operations a second in the end, and so long to start each kernel."""

FORWARD_AND_BACK = 3
"""A pass with gradients of the weights costs so many passes forward; one of the maps alone costs one fewer."""


@dataclass(frozen=True)
class SearchCost:
    """What a search takes.

    Attributes
    ----------
    parameters : int
        Of the supernet.
    memory_bytes : int
        Weights, their gradients and momentum, and the maps of one pass at the largest widths, in float32.
    warm_up_macs, search_macs : float
        Multiply-adds of a step of either phase, both ways.
    warm_up_kernels, search_kernels : int
        Operations that a step of either phase starts.
    """

    parameters: int
    memory_bytes: int
    warm_up_macs: float
    search_macs: float
    warm_up_kernels: int
    search_kernels: int

    def gpu_seconds(self, config: SearchConfig) -> float:
        """An estimate, not measured: the longer of computing and of starting kernels."""
        total = 0.0
        for epochs, macs, kernels in (
            (config.pretrain_epochs, self.warm_up_macs, self.warm_up_kernels),
            (config.epochs, self.search_macs, self.search_kernels),
        ):
            total += epochs * config.steps * max(2 * macs / GPU_FLOPS, kernels * GPU_START_S)
        return total


def estimate_search_cost(config: SearchConfig, in_channels: int, classes: int, crop_px: int) -> SearchCost:
    """Count what a search takes; nothing is computed.

    Parameters
    ----------
    config : SearchConfig
        How to search.
    in_channels, classes : int
        Of the supernet.
    crop_px : int
        Pixels across a crop.
    """
    with torch.device("meta"):
        supernet = Supernet(config.space, in_channels, classes)
        crops = torch.empty(config.batch_size, in_channels, crop_px, crop_px)
    macs, kernels, maps = {}, {}, 0
    for widths in ("largest", "smallest", "random"):
        held = _Held({each.untyped_storage()._cdata for each in supernet.parameters()})
        with _Operations() as operations, held.counting():
            supernet(crops, widths=widths)
        macs[widths], kernels[widths] = operations.macs, operations.count
        maps = max(maps, held.bytes)
    macs["sampled"], kernels["sampled"] = macs["random"], kernels["random"]
    parameters = count_parameters(supernet)
    back = FORWARD_AND_BACK
    return SearchCost(
        parameters=parameters,
        memory_bytes=3 * 4 * parameters + maps,
        warm_up_macs=back * sum(macs[each] for each in WARM_UP),
        search_macs=back * sum(macs[each] for each in TEACHING) + (back - 1) * macs["sampled"],
        warm_up_kernels=back * sum(kernels[each] for each in WARM_UP),
        search_kernels=back * sum(kernels[each] for each in TEACHING) + (back - 1) * kernels["sampled"],
    )


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations, and the multiply-adds of convolutions."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count, self.macs = 0, 0.0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        self.count += 1
        if func is torch.ops.aten.convolution.default:
            weight = args[1]
            self.macs += made.numel() * weight[0].numel()  # weight: (C_out, C_in, k, k)
        return made


class _Held:
    """Adds up the maps that a pass keeps for its way back, each once, but for the weights."""

    def __init__(self, weights: set[int]) -> None:
        self._known, self._kept, self.bytes = weights, list[Tensor](), 0

    def counting(self) -> AbstractContextManager[None]:
        return torch.autograd.graph.saved_tensors_hooks(self._keep, lambda kept: kept)

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self._kept.append(tensor)  # so that no other takes its address
            self.bytes += storage.nbytes()
        return tensor


def time_search(dataset: RegionDataset, config: SearchConfig) -> float:
    """Seconds that all steps of a search take here, tried on one step of each phase of a throwaway supernet."""
    state = SearchState(dataset, config)
    seconds = 0.0
    for epochs in (config.pretrain_epochs, config.epochs):
        state.begin_epoch()
        began = time.monotonic()
        state.step(0, 0.0)
        if state.device.type == "cuda":
            torch.cuda.synchronize()
        seconds += epochs * config.steps * (time.monotonic() - began)
        state.end_warm_up()
    return seconds
