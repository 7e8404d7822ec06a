"""Steps of an architecture search: of the weights, and of the architecture parameters.

Each kind computes gradients of its own parameters only, and in steps of the architecture batch normalisation uses the
batch's statistics without storing them. The processes of a group have a part of the batch each. They sum the divisors
of the losses in every pass, and the gradients once per step, so that a step is that of one process with the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gravmap.errors import GravmapError
from gravmap.learning.training.distributed import ALONE, Group
from gravmap.learning.training.gradient_accumulation import GradientSum
from gravmap.learning.training.loss import loss_terms
from gravmap.network.precision import autocast
from gravmap.search.supernet import Supernet, frozen_batch_norm_statistics

EIGHTH = 8
"""The logits of the supernet are at 1/8 of the resolution of the crop."""

PRETRAIN_WIDTHS = ("largest", "smallest", "random", "random")
"""Widths of the forward passes of a weight step in the first phase."""

SEARCH_WIDTHS = ("sampled", "largest", "smallest")
"""Widths of the forward passes of a weight step in the second phase."""

Batch = tuple[Tensor, Tensor, Tensor]
Terms = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def downsample_targets(target: Tensor) -> Tensor:
    """Targets or a mask (N, H, W) at 1/8 of the size: the pixel nearest to the centre of each 8 x 8 cell."""
    return target[..., EIGHTH // 2 :: EIGHTH, EIGHTH // 2 :: EIGHTH]


def ohem_loss(class_weight: Tensor, topk_share: float, small_weight: float) -> Terms:
    """Loss function of logits (N, K, h, w), targets and mask of small bodies (N, h, w): numerator and denominator."""

    def terms(logits: Tensor, target: Tensor, small: Tensor) -> tuple[Tensor, Tensor]:
        return loss_terms(logits, target, small, class_weight, topk_share=topk_share, small_weight=small_weight)

    return terms


def heads_loss(outputs: Sequence[Tensor], batch: Batch, terms: Terms, group: Group = ALONE) -> Tensor:
    """Sum of the losses of all heads, with logits (N, K, h, w) at 1/8; 0 if the batch has no label.

    In a group it is this process's part of the sum: its numerators, divided by the denominators of all processes.
    """
    _, target, small = batch
    target, small = downsample_targets(target), downsample_targets(small)
    height, width = target.shape[-2:]
    numerators, denominators = zip(
        *(terms(logits[..., :height, :width], target, small) for logits in outputs), strict=True
    )
    divisors = group.sum(torch.stack(denominators)).clamp_min(torch.finfo(torch.float32).tiny)
    total = outputs[0].new_zeros((), dtype=torch.float32)
    for numerator, divisor in zip(numerators, divisors, strict=True):
        total = total + numerator / divisor
    return total


def weight_step(
    supernet: Supernet,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    widths: Sequence[str],
    terms: Terms,
    clip: float,
    precision: str,
    gradients: GradientSum,
    group: Group = ALONE,
) -> float:
    """Update the weights with the sum of the losses at several widths; returns the loss of the first.

    Parameters
    ----------
    supernet
        In training mode; its architecture parameters are not changed.
    optimizer
        Of the weights.
    batch
        This process's part of a batch of the half for the weights.
    widths
        Of the forward passes.
    terms, precision
        The loss; "float32" or "bfloat16".
    clip
        Maximum norm of the gradient.
    gradients, group
        Sum of the weights' gradients over the processes of the group.
    """
    weights = supernet.weight_parameters()
    optimizer.zero_grad(set_to_none=True)
    losses = []
    with only_requires_grad(weights, supernet):
        for number, each in enumerate(widths, 1):
            loss = heads_loss(_scores(supernet, batch, each, precision), batch, terms, group)
            if number == len(widths):
                gradients.start()
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
    gradients.finish()
    of_widths = group.sum(torch.stack(losses))
    _step(optimizer, weights, clip, of_widths.sum(), "weights")
    optimizer.zero_grad(set_to_none=True)
    return float(of_widths[0])


def architecture_step(
    supernet: Supernet,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    terms: Terms,
    precision: str,
    gradients: GradientSum,
    group: Group = ALONE,
    cost: Callable[[], Tensor] | None = None,
) -> float:
    """Update the architecture parameters (first-order approximation); returns the loss without the cost.

    Parameters
    ----------
    supernet
        In training mode; its weights and running statistics are not changed.
    optimizer
        Of the architecture parameters.
    batch
        This process's part of a batch of the half for the architecture.
    terms, precision
        The loss; "float32" or "bfloat16".
    gradients, group
        Sum of the architecture parameters' gradients over the processes of the group.
    cost : callable, optional
        Added to the loss: the weighted expected multiply-adds.
    """
    parameters = supernet.architecture_parameters()
    optimizer.zero_grad(set_to_none=True)
    with only_requires_grad(parameters, supernet), frozen_batch_norm_statistics(supernet):
        loss = heads_loss(_scores(supernet, batch, "sampled", precision), batch, terms, group)
        # The sum over the processes has the cost once.
        whole = loss if cost is None else loss + cost() / group.size
        gradients.start()
        whole.backward()  # type: ignore[no-untyped-call]
    gradients.finish()
    loss, whole = group.sum(torch.stack((loss.detach(), whole.detach())))
    _step(optimizer, parameters, math.inf, whole, "architecture")
    optimizer.zero_grad(set_to_none=True)
    return float(loss)


@contextmanager
def only_requires_grad(parameters: Sequence[nn.Parameter], network: nn.Module) -> Iterator[None]:
    """Compute gradients of these parameters of a network only."""
    kept = {id(parameter) for parameter in parameters}
    frozen = [each for each in network.parameters() if each.requires_grad and id(each) not in kept]
    for each in frozen:
        each.requires_grad_(False)
    try:
        yield
    finally:
        for each in frozen:
            each.requires_grad_(True)


def _scores(supernet: Supernet, batch: Batch, widths: str, precision: str) -> list[Tensor]:
    with autocast(precision, batch[0].device):
        outputs: list[Tensor] = supernet(batch[0], widths=widths)
    return outputs


def _step(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], clip: float, loss: Tensor, of: str
) -> None:
    """Take an optimizer step; raise an error if the gradient is not finite."""
    norm = nn.utils.clip_grad_norm_(parameters, clip)
    if not math.isfinite(float(norm)) or not math.isfinite(float(loss)):
        raise GravmapError(
            f"The loss of the search or its gradient is not finite ({of}).",
            "Start a new search with another --name and --seed or a larger --batch-size.",
        )
    optimizer.step()
