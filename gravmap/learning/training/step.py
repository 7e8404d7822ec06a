"""One step of training: the gradient of a batch, over parts of it and over all processes, in the memory there is.

Every process takes its crops in parts and adds up gradients; then all processes tell each other their sums, and
whether one of them ran out of memory. If one did, all throw the step away, halve their parts, and take the same
step again: none waits for another, since nothing is exchanged before every process has said how it fared.
The exception is synchronised batch normalisation, which exchanges statistics inside the network: there memory
is tried out before it is switched on (:meth:`Stepper.find_parts`), and a process that runs out later ends.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gravmap.errors import DeviceError, GravmapError, OptionError, out_of_memory_message
from gravmap.learning.data.dataset import IGNORE
from gravmap.learning.sampling.sampler import Sampler
from gravmap.learning.training.config import TrainConfig
from gravmap.learning.training.distributed import Group
from gravmap.learning.training.loss import loss_terms

log = logging.getLogger(__name__)

COUNTED_PX = 256
"""Training accuracy is counted on about so many pixels a side."""


class NonFiniteLoss(GravmapError):
    """Loss or gradient is no finite number."""


@dataclass(frozen=True)
class StepResult:
    """What a step found, over all processes.

    Attributes
    ----------
    loss, weight : float
        Numerator and denominator of the loss.
    elapsed_s : float
        Seconds on the clock of the first process.
    confusion : Tensor, shape (K, K), int64
        True class by predicted class, in this process alone; on a sample of the crops' pixels.
    """

    loss: float
    weight: float
    elapsed_s: float
    confusion: Tensor


class Stepper:
    """Takes the gradient of batches.

    Parameters
    ----------
    network : nn.Module
        On the group's device. Its normalisation is synchronised on several GPUs.
    sampler : Sampler
        Of the crops.
    class_weight : Tensor, shape (K,)
        Of the loss.
    config : TrainConfig
        Batch, loss, precision.
    group : Group
        The processes.

    Attributes
    ----------
    local : int
        Crops of a batch that fall to this process.
    parts : int
        In how many parts they are taken.

    Raises
    ------
    OptionError
        The batch cannot be divided among the processes, or leaves one crop alone.
    """

    def __init__(
        self, network: nn.Module, sampler: Sampler, class_weight: Tensor, config: TrainConfig, group: Group
    ) -> None:
        self.network, self.sampler, self.class_weight = network, sampler, class_weight
        self.config, self.group = config, group
        synchronised = group.size > 1 and group.device.type == "cuda"
        self._least = 1 if synchronised or config.freeze_statistics else 2
        self.local, self.parts = _shares(config, group.size, self._least)
        if config.channels_last:
            network.to(memory_format=torch.channels_last)
        self._call: Any = network
        self._exchanging = False
        if synchronised:
            self.find_parts()
            nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
            self._exchanging = True
        if config.compile:
            # The compiled network shares the weights of `network`, whose names stay what they are.
            self._call = torch.compile(network)

    @property
    def at_once(self) -> int:
        """Crops a process takes at once."""
        return math.ceil(self.local / self.parts)

    def numbers(self, index: int) -> list[int]:
        """Numbers of this process's samples in a step of an epoch."""
        first = index * self.config.batch_size + self.group.rank * self.local
        return list(range(first, first + self.local))

    def gradients(self, epoch: int, index: int, share: float, elapsed_s: float, only: int | None = None) -> StepResult:
        """Leave the gradient of a step's loss in the parameters.

        It is that of the sum of all numerators over the sum of all denominators, whatever the number of parts
        and processes.

        Parameters
        ----------
        epoch, index : int
            Which step.
        share : float
            Share of pixels that teach.
        elapsed_s : float
            Seconds on this process's clock.
        only : int, optional
            Take only so many of the parts, to time them.

        Raises
        ------
        NonFiniteLoss
            Loss or gradient is no finite number, in any process.
        DeviceError
            The smallest parts do not fit into memory.
        """
        group = self.group
        while True:
            found = self._attempt(epoch, np.array_split(self.numbers(index), self.parts)[:only], share)
            terms = torch.zeros(4, dtype=torch.float64, device=group.device)
            if found is None:
                terms[3] = 1
            else:
                terms[:2] = found[0]
            terms[2] = elapsed_s if group.rank == 0 else 0.0
            loss, weight, elapsed_s, short = group.sum(terms).tolist()
            if found is not None:
                if not short:
                    break
                self._undo(found[2])  # another process ran out
            self.halve()
        if not math.isfinite(loss):
            raise self._not_finite("loss", epoch, index)
        if weight:
            held = [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]
            group.sum_tensors(held)
            torch._foreach_mul_(held, 1 / weight)
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip or math.inf)
            if not math.isfinite(float(norm)):
                raise self._not_finite("gradient", epoch, index)
        return StepResult(loss, weight, elapsed_s, found[1])

    def halve(self) -> None:
        """Take crops in twice as many parts from now on.

        Raises
        ------
        DeviceError
            They are as small as they can be.
        """
        parts = min(2 * self.parts, self.local // self._least)
        if parts <= self.parts:
            pixels = self.sampler.crop_px
            raise DeviceError(
                f"Memory is too small for {self.at_once} crops of {pixels} x {pixels} pixels, the fewest a step takes.",
                "Choose a smaller --size or a smaller --model.",
            )
        before, self.parts = self.at_once, parts
        if self.group.rank == 0:
            log.warning("Out of memory with %d crops at once; going on with %d.", before, self.at_once)

    def take_at_once(self, crops: int) -> None:
        """Take no more than so many crops at once: what memory was found to hold before."""
        self.parts = max(self.parts, min(math.ceil(self.local / crops), self.local // self._least))

    def find_parts(self) -> None:
        """Find in how many parts a batch fits into memory, by trying one; all processes come to the same."""
        short = torch.ones(1, device=self.group.device)
        while short:
            found = self._attempt(0, [np.asarray(self.numbers(0)[: self.at_once])], self.config.topk_share)
            short = self.group.sum(torch.full((1,), float(found is None), device=self.group.device))
            if short:
                self.halve()
            elif found is not None:
                self._undo(found[2])

    def _attempt(
        self, epoch: int, chunks: list[NDArray[np.int64]], share: float
    ) -> tuple[Tensor, Tensor, list[Tensor]] | None:
        """Gradients of samples, summed over chunks; None, and everything as before, where memory ran out.

        Gives numerator and denominator, the confusion matrix, and the running statistics as they were.
        """
        self.network.zero_grad(set_to_none=True)
        before = [buffer.clone() for buffer in self.network.buffers()]
        try:
            terms, confusion = self._teach(epoch, [chunk.tolist() for chunk in chunks], share)
        except (RuntimeError, MemoryError) as error:
            if out_of_memory_message(error) is None:
                raise
            if self._exchanging:
                raise out_of_memory(self.at_once) from None
        else:
            return terms, confusion, before
        # Outside the handler, so that nothing of the failed pass is held any more.
        self._undo(before)
        if self.group.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _teach(self, epoch: int, chunks: list[list[int]], share: float) -> tuple[Tensor, Tensor]:
        config, device = self.config, self.group.device
        classes = len(self.class_weight)
        terms = torch.zeros(2, dtype=torch.float64, device=device)
        confusion = torch.zeros(classes, classes, dtype=torch.int64, device=device)
        for chunk in chunks:
            values, target, small = self.sampler.batch(epoch, chunk)
            if config.channels_last:
                values = values.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.half):
                logits = self._call(values)
            numerator, denominator = loss_terms(
                logits,
                target,
                small,
                self.class_weight,
                topk_share=share,
                topk_base=config.topk_base,
                small_weight=config.small_weight,
            )
            numerator.backward()  # type: ignore[no-untyped-call]
            terms[0] += numerator.detach()
            terms[1] += denominator
            confusion += _confusion(logits.detach(), target, classes)
        return terms, confusion

    def _undo(self, before: list[Tensor]) -> None:
        self.network.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, value in zip(self.network.buffers(), before, strict=True):
                buffer.copy_(value)

    def _not_finite(self, what: str, epoch: int, index: int) -> NonFiniteLoss:
        return NonFiniteLoss(
            f"The {what} is no finite number in epoch {epoch + 1}, step {index + 1}.",
            "Its crops are in nonfinite_batch.safetensors. Lower --lr; `--resume` goes on from the last whole epoch.",
        )


def out_of_memory(at_once: int) -> DeviceError:
    """The error of a process that cannot take the step again."""
    return DeviceError(
        f"The GPU's memory is too small for {at_once} crops at once.",
        f"--resume --micro-batch {max(at_once // 2, 1)} goes on from the last whole epoch with fewer.",
    )


def _shares(config: TrainConfig, size: int, least: int) -> tuple[int, int]:
    """Crops per process and step, and in how many parts they are taken."""
    local, rest = divmod(config.batch_size, size)
    if rest:
        raise OptionError(
            f"A batch of {config.batch_size} cannot be divided among {size} processes.",
            f"Choose a --batch-size that {size} divides.",
        )
    parts = math.ceil(local / min(config.micro_batch or local, max(local, 1))) if local else 1
    if local // parts < least:
        raise OptionError(
            "A batch of one crop per process has no spread for batch normalisation to work with.",
            "Choose --batch-size and --micro-batch so that a process takes at least two crops at once.",
        )
    return local, parts


def _confusion(logits: Tensor, target: Tensor, classes: int) -> Tensor:
    """True by predicted class, (K, K), on every n-th pixel of the crops."""
    apart = max(1, target.shape[-1] // COUNTED_PX)
    predicted = logits[..., ::apart, ::apart].argmax(1)
    truth = target[..., ::apart, ::apart]
    # Ignored pixels are counted in a place of their own.
    pairs = torch.where(truth == IGNORE, classes * classes, truth * classes + predicted)
    return torch.bincount(pairs.flatten(), minlength=classes * classes + 1)[:-1].view(classes, classes)
