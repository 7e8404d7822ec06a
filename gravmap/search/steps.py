"""The two steps of a search: one teaches the supernet's weights, the other chooses its operators, widths and paths.

Neither leaves a trace in what the other moves. A step asks for gradients of its own parameters alone, and while the
architecture is chosen normalisation uses the batch's statistics without keeping them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gravmap.errors import GravmapError
from gravmap.learning.training.loss import loss_terms
from gravmap.search.supernet import Supernet, frozen_batch_norm_statistics

EIGHTH = 8
"""The supernet's scores are at 1/8 of the crop's size."""

WARM_UP = ("largest", "smallest", "random", "random")
"""Widths that run in a step of the first phase."""

TEACHING = ("sampled", "largest", "smallest")
"""Widths that run in a step that teaches weights in the second."""

Batch = tuple[Tensor, Tensor, Tensor]
Terms = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def downsample_targets(target: Tensor) -> Tensor:
    """Targets or a mask (N, H, W) at 1/8 of the size: the pixel nearest to the middle of each cell of 8 x 8."""
    return target[..., EIGHTH // 2 :: EIGHTH, EIGHTH // 2 :: EIGHTH]


def bootstrapped_terms(class_weight: Tensor, topk_share: float, small_weight: float) -> Terms:
    """The loss of logits (N, K, h, w), targets and mask of small bodies (N, h, w): numerator and denominator."""

    def terms(logits: Tensor, target: Tensor, small: Tensor) -> tuple[Tensor, Tensor]:
        return loss_terms(logits, target, small, class_weight, topk_share=topk_share, small_weight=small_weight)

    return terms


def heads_loss(outputs: Sequence[Tensor], batch: Batch, terms: Terms) -> Tensor:
    """Sum of the losses of all heads, whose logits (N, K, h, w) are at 1/8; 0 where the batch has no label."""
    _, target, small = batch
    target, small = downsample_targets(target), downsample_targets(small)
    height, width = target.shape[-2:]
    total = outputs[0].new_zeros((), dtype=torch.float32)
    for logits in outputs:
        numerator, denominator = terms(logits[..., :height, :width], target, small)
        total = total + numerator / denominator.clamp_min(torch.finfo(torch.float32).tiny)
    return total


def weight_step(
    supernet: Supernet,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    widths: Sequence[str],
    terms: Terms,
    clip: float,
    half: bool,
) -> float:
    """Move the weights by the sum of the losses at several widths; gives the loss of the first."""
    weights = supernet.weight_parameters()
    optimizer.zero_grad(set_to_none=True)
    losses = []
    with moving(weights, supernet):
        for each in widths:
            loss = heads_loss(_scores(supernet, batch, each, half), batch, terms)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
    _step(optimizer, weights, clip, sum(losses), "weights")
    optimizer.zero_grad(set_to_none=True)
    return float(losses[0])


def choose(
    supernet: Supernet,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    terms: Terms,
    half: bool,
    cost: Callable[[], Tensor] | None = None,
) -> float:
    """Move the architecture's parameters, first order; gives the loss without the cost.

    Parameters
    ----------
    supernet
        In training mode; its weights and running statistics stay as they are.
    optimiser
        Of the architecture's parameters.
    batch
        Of the half that chooses.
    terms, half
        The loss; whether the network runs in bfloat16.
    cost : callable, optional
        What is added to the loss: the weighted expected multiply-adds.
    """
    parameters = supernet.architecture_parameters()
    optimizer.zero_grad(set_to_none=True)
    with moving(parameters, supernet), frozen_batch_norm_statistics(supernet):
        loss = heads_loss(_scores(supernet, batch, "sampled", half), batch, terms)
        whole = loss if cost is None else loss + cost()
        whole.backward()  # type: ignore[no-untyped-call]
    _step(optimizer, parameters, math.inf, whole.detach(), "architecture")
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


@contextmanager
def moving(parameters: Sequence[nn.Parameter], network: nn.Module) -> Iterator[None]:
    """Ask for gradients of these parameters of a network alone."""
    wanted = {id(parameter) for parameter in parameters}
    still = [each for each in network.parameters() if each.requires_grad and id(each) not in wanted]
    for each in still:
        each.requires_grad_(False)
    try:
        yield
    finally:
        for each in still:
            each.requires_grad_(True)


def _scores(supernet: Supernet, batch: Batch, widths: str, half: bool) -> list[Tensor]:
    with torch.autocast(batch[0].device.type, torch.bfloat16, enabled=half):
        outputs: list[Tensor] = supernet(batch[0], widths=widths)
    return outputs


def _step(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], clip: float, loss: Any, of: str
) -> None:
    """Let the optimiser move, unless nothing taught; a gradient that is no number is an error."""
    norm = nn.utils.clip_grad_norm_(parameters, clip)
    if not math.isfinite(float(norm)) or not math.isfinite(float(loss)):
        raise GravmapError(
            f"The loss of the search, or its gradient, is no finite number ({of}).",
            "Search anew under another --name with another --seed or a larger --batch-size.",
        )
    optimizer.step()
