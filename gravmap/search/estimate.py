"""Cost of an architecture search before it starts: parameters, memory and time."""

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
from gravmap.search.steps import PRETRAIN_WIDTHS, SEARCH_WIDTHS
from gravmap.search.supernet import Supernet

GPU_FLOPS = 1e13
GPU_START_S = 1e-5
"""Assumed GPU: sustained operations per second, and seconds to launch a kernel."""

FORWARD_AND_BACK = 3
"""Forward and backward pass cost this many forward passes with gradients of the weights, one fewer without them."""


@dataclass(frozen=True)
class SearchCost:
    """Cost of a search.

    Attributes
    ----------
    parameters : int
        Of the supernet.
    memory_bytes : int
        Weights, gradients and momentum, and the feature maps of one pass at the largest widths, in float32.
    pretrain_macs, search_macs : float
        Multiply-adds of a step of each phase, forward and backward.
    pretrain_kernels, search_kernels : int
        Operations that a step of each phase launches.
    """

    parameters: int
    memory_bytes: int
    pretrain_macs: float
    search_macs: float
    pretrain_kernels: int
    search_kernels: int

    def gpu_seconds(self, config: SearchConfig) -> float:
        """Estimated, not measured: the larger of computing time and launching time."""
        total = 0.0
        for epochs, macs, kernels in (
            (config.pretrain_epochs, self.pretrain_macs, self.pretrain_kernels),
            (config.epochs, self.search_macs, self.search_kernels),
        ):
            total += epochs * config.steps * max(2 * macs / GPU_FLOPS, kernels * GPU_START_S)
        return total


def estimate_search_cost(config: SearchConfig, in_channels: int, classes: int, crop_px: int) -> SearchCost:
    """Count the cost of a search on the meta device; nothing is computed.

    Parameters
    ----------
    config : SearchConfig
        Configuration of the search.
    in_channels, classes : int
        Of the supernet.
    crop_px : int
        Pixels across a crop.

    Examples
    --------
    It takes seconds::

        cost = estimate_search_cost(SearchConfig(), in_channels=1, classes=10, crop_px=512)
        cost.memory_bytes / 2**30, cost.gpu_seconds(SearchConfig()) / 3600
    """
    with torch.device("meta"):
        supernet = Supernet(config.space, in_channels, classes)
        crops = torch.empty(config.batch_size, in_channels, crop_px, crop_px)
    macs, kernels, maps = {}, {}, 0
    for widths in ("largest", "smallest", "random"):
        saved = _SavedTensors({each.untyped_storage()._cdata for each in supernet.parameters()})
        with _OperationCounter() as operations, saved.counting():
            supernet(crops, widths=widths)
        macs[widths], kernels[widths] = operations.macs, operations.count
        maps = max(maps, saved.bytes)
    macs["sampled"], kernels["sampled"] = macs["random"], kernels["random"]
    parameters = count_parameters(supernet)
    passes = FORWARD_AND_BACK
    return SearchCost(
        parameters=parameters,
        memory_bytes=3 * 4 * parameters + maps,
        pretrain_macs=passes * sum(macs[each] for each in PRETRAIN_WIDTHS),
        search_macs=passes * sum(macs[each] for each in SEARCH_WIDTHS) + (passes - 1) * macs["sampled"],
        pretrain_kernels=passes * sum(kernels[each] for each in PRETRAIN_WIDTHS),
        search_kernels=passes * sum(kernels[each] for each in SEARCH_WIDTHS) + (passes - 1) * kernels["sampled"],
    )


class _OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations, and the multiply-adds of convolutions."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count, self.macs = 0, 0.0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        self.count += 1
        if func is torch.ops.aten.convolution.default:
            weight = args[1]
            self.macs += output.numel() * weight[0].numel()  # weight: (C_out, C_in, k, k)
        return output


class _SavedTensors:
    """Sums the size of tensors saved for the backward pass, each storage once, without the weights."""

    def __init__(self, weights: set[int]) -> None:
        self._known, self._kept, self.bytes = weights, list[Tensor](), 0

    def counting(self) -> AbstractContextManager[None]:
        return torch.autograd.graph.saved_tensors_hooks(self._keep, lambda kept: kept)

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self._kept.append(tensor)  # keeps the address from being reused
            self.bytes += storage.nbytes()
        return tensor


def time_search(dataset: RegionDataset, config: SearchConfig) -> float:
    """Seconds that all steps of a search take on this device, measured on one step of each phase."""
    state = SearchState(dataset, config)
    seconds = 0.0
    for epochs in (config.pretrain_epochs, config.epochs):
        state.start_epoch()
        started = time.monotonic()
        state.step(0, 0.0)
        if state.device.type == "cuda":
            torch.cuda.synchronize()
        seconds += epochs * config.steps * (time.monotonic() - started)
        state.end_pretraining()
    return seconds
