"""Gradient accumulation: a batch in micro-batches that fit into memory, its gradients summed over all processes.

Every process runs its micro-batches. During the backward pass of the last one the gradients are summed over all
processes (:class:`GradientSum`); then the processes exchange their loss terms and whether one of them ran out of
memory. If one did, all processes discard the step, halve the micro-batch and repeat it. A process that ran out of
memory takes part in every exchange, so it does not block the others.

Synchronised batch normalisation is the exception: it exchanges statistics inside the network. There the micro-batch is
found before it is switched on (:meth:`GradientAccumulation.synchronise_batch_norm`), and a process that runs out of
memory later ends the run.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gravmap.errors import DeviceError, OptionError, out_of_memory
from gravmap.learning.training.config import TrainConfig
from gravmap.learning.training.distributed import Group

log = logging.getLogger(__name__)

MARGIN = 4
"""Copies of the parameters that a step needs beside its passes: Adam's two moments and a temporary of its step, and the
gradients on their way between the processes."""

BUCKET_BYTES = 2**23
"""Gradients that are exchanged together, at least. Fewer bytes overlap more, but each exchange has a latency."""

Backward = Callable[[list[int]], tuple[Tensor, Tensor]]
"""Runs forward and backward, once, on the samples of a micro-batch, and adds their gradients to the parameters'.

Returns numerator and denominator of the loss (2,), float64, and the confusion matrix (K, K)."""


@dataclass(frozen=True)
class StepResult:
    """Outcome of the forward and backward passes of a step.

    Attributes
    ----------
    loss, weight : float
        Numerator and denominator of the loss, summed over all processes.
    elapsed_s : float
        Seconds on the clock of the first process after the passes.
    confusion : Tensor, shape (K, K), int64
        True class by predicted class, of this process alone, on a sample of the pixels.
    """

    loss: float
    weight: float
    elapsed_s: float
    confusion: Tensor


class GradientSum:
    """Sums the gradients over all processes while the backward pass computes further ones.

    A backward pass computes the gradients from the last layer to the first. They are divided into buckets in that
    order, and a bucket is summed as soon as its gradients are complete. Each process sums all buckets, always in the
    same order, and whether or not its backward pass succeeded. That is why this is not torch's DistributedDataParallel:
    there, a process that fails in the backward pass leaves the others waiting.

    A process alone has no buckets.

    Parameters
    ----------
    parameters : iterable of nn.Parameter
        Of one dtype, in the order of the forward pass; they get hooks.
    group : Group
        The processes that train together. A parameter has a gradient in all of them or in none.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], group: Group) -> None:
        self._group = group
        self._buckets: list[_Bucket] = []
        bucket: list[nn.Parameter] = []
        summed = [each for each in parameters if each.requires_grad] if group.size > 1 else []
        for parameter in reversed(summed):
            bucket.append(parameter)
            complete = functools.partial(self._complete, len(self._buckets))
            parameter.register_post_accumulate_grad_hook(complete)  # type: ignore[no-untyped-call]
            if sum(each.nbytes for each in bucket) >= BUCKET_BYTES or parameter is summed[0]:
                self._buckets.append(_Bucket.of(bucket))
                bucket = []
        self._reset()

    def start(self) -> None:
        """Sum each bucket from now on as soon as it is complete: the next backward pass is the last of a step."""
        self._started = True

    def finish(self) -> None:
        """Sum what is left, and wait until the gradients are the sums.

        A gradient that this process lacks counts as zero, and stays None.

        Raises
        ------
        PeerError, DeviceError
            As in :meth:`Group.sum`.
        """
        while len(self._waits) < len(self._buckets):
            self._launch()
        for wait in self._waits:
            wait()
        self._reset()

    def _reset(self) -> None:
        self._started = False
        self._missing = [len(bucket.parameters) for bucket in self._buckets]
        self._waits: list[Callable[[], None]] = []  # of the buckets whose sum is launched

    def _complete(self, number: int, parameter: Tensor) -> None:
        """Note that a parameter of a bucket has its gradient."""
        if self._started:
            self._missing[number] -= 1
            # In the same order in all processes, or they would add different buckets.
            while len(self._waits) < len(self._buckets) and not self._missing[len(self._waits)]:
                self._launch()

    def _launch(self) -> None:
        """Start to sum the next bucket."""
        bucket = self._buckets[len(self._waits)]
        bucket.fill()
        self._waits.append(self._group.start_sum(bucket.flat))


@dataclass(frozen=True)
class _Bucket:
    """Gradients that are exchanged together.

    Attributes
    ----------
    parameters : list of nn.Parameter
    flat : Tensor, shape (N,)
        Their gradients.
    views : list of Tensor
        Of `flat`, a view for each parameter, of its shape and strides.
    """

    parameters: list[nn.Parameter]
    flat: Tensor
    views: list[Tensor]

    @classmethod
    def of(cls, parameters: list[nn.Parameter]) -> _Bucket:
        """Allocate the bucket of some parameters."""
        flat = parameters[0].new_empty(sum(each.numel() for each in parameters), requires_grad=False)
        parts = torch.split(flat, [each.numel() for each in parameters])
        views = [
            part.as_strided(each.shape, each.stride(), part.storage_offset())
            for part, each in zip(parts, parameters, strict=True)
        ]
        return cls(parameters, flat, views)

    def fill(self) -> None:
        """Move the gradients of the parameters here; zeros for those that are None."""
        gradients, views = [], []
        for parameter, view in zip(self.parameters, self.views, strict=True):
            if parameter.grad is None:
                view.zero_()
            else:
                gradients.append(parameter.grad)
                views.append(view)
                parameter.grad = view
        if gradients:
            torch._foreach_copy_(views, gradients)


class GradientAccumulation:
    """Divides batches into micro-batches and recovers when memory runs out.

    Parameters
    ----------
    network : nn.Module
        On the device of the group.
    config : TrainConfig
        `batch_size`, `micro_batch` and `freeze_statistics`.
    group : Group
        The processes that train together.
    crop_px : int
        Width of a crop in pixels, for messages.

    Attributes
    ----------
    local_batch : int
        Crops of a batch that this process takes.
    steps : int
        Number of micro-batches they are divided into (the accumulation steps).
    micro_batch : int
        Crops per micro-batch.

    Raises
    ------
    OptionError
        The batch is not divisible by the number of processes, or a micro-batch would hold a single crop.
    """

    def __init__(self, network: nn.Module, config: TrainConfig, group: Group, crop_px: int) -> None:
        self.network, self.config, self.group, self.crop_px = network, config, group, crop_px
        self._least = 1 if self.synchronised or config.freeze_statistics else 2
        self.local_batch = crops_per_process(config.batch_size, group.size)
        self.steps = _accumulation_steps(config, self.local_batch, self._least)
        self._recoverable = True

    @property
    def synchronised(self) -> bool:
        """Whether batch normalisation exchanges statistics between processes."""
        return self.group.synchronises_batch_norm

    @property
    def micro_batch(self) -> int:
        """Crops per micro-batch."""
        return math.ceil(self.local_batch / self.steps)

    def sample_numbers(self, index: int) -> list[int]:
        """Return the numbers of this process's samples in a step of an epoch."""
        first = index * self.config.batch_size + self.group.rank * self.local_batch
        return list(range(first, first + self.local_batch))

    @functools.cached_property
    def _gradients(self) -> GradientSum:
        """Made for the first step: until then, layers and memory format can change, and parameters with them."""
        return GradientSum(self.network.parameters(), self.group)

    def run(self, backward: Backward, index: int, elapsed_s: Callable[[], float]) -> StepResult | None:
        """Run the passes of a step once, and compute its gradient: the sum over all processes, divided by `weight`.

        Parameters
        ----------
        backward : callable
            Computes the gradients of a micro-batch, see :data:`Backward`.
        index : int
            Number of the step in the epoch.
        elapsed_s : callable
            Returns the seconds on the clock of this process; called after the passes.

        Returns
        -------
        StepResult or None
            None if a process ran out of memory. The network is then as it was before, and the micro-batch is half as
            large.

        Raises
        ------
        DeviceError
            Not even the smallest micro-batch fits into memory.
        """
        gradients = self._gradients

        def run_all() -> tuple[Tensor, Tensor]:
            *micro_batches, last = (each.tolist() for each in np.array_split(self.sample_numbers(index), self.steps))
            results = [backward(samples) for samples in micro_batches]
            gradients.start()
            terms, confusions = zip(*results, backward(last), strict=True)
            return functools.reduce(torch.add, terms), functools.reduce(torch.add, confusions)

        found = self._attempt(run_all)
        gradients.finish()  # also if this process ran out of memory: the others wait for it
        terms = torch.zeros(4, dtype=torch.float64, device=self.group.device)
        if found is None:
            terms[3] = 1
        else:
            terms[:2] = found[0]
        terms[2] = elapsed_s() if self.group.rank == 0 else 0.0
        loss, weight, seconds, out_of_memory = self.group.sum(terms).tolist()
        if found is not None and not out_of_memory:
            if weight:
                complete = [each.grad for each in self.network.parameters() if each.grad is not None]
                torch._foreach_mul_(complete, 1 / weight)
            return StepResult(loss, weight, seconds, found[1])
        if found is not None:  # another process ran out of memory
            self._restore(found[2])
        self.halve_micro_batch()
        return None

    def halve_micro_batch(self) -> None:
        """Halve the micro-batch from now on.

        Raises
        ------
        DeviceError
            The micro-batch has its smallest size already.
        """
        steps = min(2 * self.steps, self.local_batch // self._least)
        if steps <= self.steps:
            raise DeviceError(
                f"Out of memory with a micro-batch of {self.micro_batch} crops of {self.crop_px} x {self.crop_px} "
                "pixels, the smallest possible.",
                "Choose a smaller --size or a smaller --model.",
            )
        before, self.steps = self.micro_batch, steps
        if self.group.rank == 0:
            log.warning(
                "Out of memory with a micro-batch of %d crops; continuing with %d (gradient accumulation).",
                before,
                self.micro_batch,
            )

    def limit_micro_batch(self, crops: int) -> None:
        """Use micro-batches of at most `crops` crops, a size that fitted into memory before."""
        self.steps = max(self.steps, min(math.ceil(self.local_batch / crops), self.local_batch // self._least))

    def find_micro_batch(self, backward: Backward) -> None:
        """Find the largest micro-batch that fits into the memory of every process, by trying one.

        The network stays as it is. Memory for the step of the optimizer is kept free meanwhile.
        """

        def try_one() -> tuple[Tensor, Tensor]:
            margin = [torch.empty_like(each) for each in self.network.parameters() for _ in range(MARGIN)]
            found = backward(self.sample_numbers(0)[: self.micro_batch])
            del margin
            return found

        failures = 1.0
        while failures:
            found = self._attempt(try_one)
            if found is not None:  # also if another process ran out of memory
                self._restore(found[2])
            failures = float(self.group.sum(torch.full((1,), float(found is None), device=self.group.device)))
            if failures:
                self.halve_micro_batch()
        torch.cuda.empty_cache()  # NCCL, cuDNN and cuBLAS allocate beside torch

    def synchronise_batch_norm(self, backward: Backward) -> None:
        """Find the micro-batch, then exchange the statistics of batch normalisation between processes from now on."""
        layers = [each for each in self.network.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
        # With running statistics a pass needs as much memory, and one crop alone, which has no variance, can be tried.
        for layer in layers:
            layer.eval()
        self.find_micro_batch(backward)
        for layer in layers:
            layer.train()
        nn.SyncBatchNorm.convert_sync_batchnorm(self.network)  # type: ignore[no-untyped-call]
        self._recoverable = False  # a process that failed within the network would leave the others waiting

    def _attempt(self, passes: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, list[Tensor]] | None:
        """Run `passes`; return its result and the buffers as they were, or None if memory ran out."""
        before = [buffer.clone() for buffer in self.network.buffers()]
        try:
            terms, confusion = passes()
        except (RuntimeError, MemoryError) as error:
            if out_of_memory(error) is None:
                raise
            if not self._recoverable:
                raise out_of_memory_error(self.micro_batch) from None
        else:
            return terms, confusion, before
        # Outside the handler: until here the traceback keeps the tensors of the failed pass alive.
        self._restore(before)
        torch.cuda.empty_cache()
        return None

    def _restore(self, buffers: list[Tensor]) -> None:
        """Drop the gradients and restore the running statistics."""
        self.network.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, value in zip(self.network.buffers(), buffers, strict=True):
                buffer.copy_(value)


def out_of_memory_error(micro_batch: int) -> DeviceError:
    """Return the error of a process that cannot repeat the step."""
    return DeviceError(
        f"Out of GPU memory with a micro-batch of {micro_batch} crops.",
        f"--resume --micro-batch {max(micro_batch // 2, 1)} resumes after the last complete epoch with a smaller one.",
    )


def crops_per_process(batch_size: int, processes: int) -> int:
    """Crops of a batch that each process takes.

    Raises
    ------
    OptionError
        The batch is not divisible by the number of processes.
    """
    local, rest = divmod(batch_size, processes)
    if rest:
        raise OptionError(
            f"A batch of {batch_size} crops cannot be divided among {processes} processes.",
            f"Choose a --batch-size that is a multiple of {processes}.",
        )
    return local


def _accumulation_steps(config: TrainConfig, local: int, least: int) -> int:
    """Number of micro-batches, of at least `least` crops, that a process divides its crops into."""
    steps = math.ceil(local / min(config.micro_batch or local, local))
    if local // steps < least:
        raise OptionError(
            "A micro-batch of one crop has no variance for batch normalisation.",
            "Choose --batch-size and --micro-batch so that each process has at least two crops per micro-batch.",
        )
    return steps
