"""Weighted bootstrapped cross-entropy: per image, only the worst pixels teach.

References
----------
Wu, Shen and van den Hengel (2016), arXiv:1605.06885: bootstrapping. Yang et al. (2019), DeeperLab,
arXiv:1902.05093: the weight of small instances. Paszke et al. (2016), ENet, arXiv:1606.02147: class weights.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gravmap.learning.area import TRAIN, Area
from gravmap.learning.target import IGNORE, to_target

HARD_SHARE = 0.15
SMALL_WEIGHT = 3.0


def class_frequencies(area: Area) -> NDArray[np.float64]:
    """Share of each class among the labelled native cells that may be learnt from, each cell once: (K,)."""
    target = to_target(area.labels[area.role == TRAIN])
    counts = np.bincount(target[target != IGNORE], minlength=len(area.classes)).astype(np.float64)
    shares: NDArray[np.float64] = counts / max(counts.sum(), 1.0)
    return shares


def class_weights(frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
    """ENet's weight 1 / ln(1.02 + p) of each class, mean 1 over the classes that occur (0 for the others)."""
    present = frequencies > 0
    weights = np.where(present, 1 / np.log(1.02 + frequencies), 0.0)
    mean: float = weights[present].mean() if present.any() else 1.0
    scaled: NDArray[np.float64] = weights / mean
    return scaled


def loss_terms(
    logits: Tensor,
    target: Tensor,
    small: Tensor,
    class_weight: Tensor,
    *,
    hard_share: float = HARD_SHARE,
    small_weight: float = SMALL_WEIGHT,
) -> tuple[Tensor, Tensor]:
    """Numerator and denominator of the loss, so that those of micro-batches and processes can be added up.

    For image b with valid pixels V_b: l_i = c_{y_i} CE_i, K_b = ceil(hard_share |V_b|), S_b = the K_b
    largest l_i (ties kept), a_i = `small_weight` in small bodies, else 1::

        loss = sum_b sum_{i in S_b} a_i l_i / sum_b sum_{i in S_b} a_i

    Parameters
    ----------
    logits : Tensor, shape (N, K, H, W)
        Of any floating type; the loss is computed in float32.
    target : Tensor, shape (N, H, W), int64
        Class, or IGNORE.
    small : Tensor, shape (N, H, W), bool
        Pixels in small bodies.
    class_weight : Tensor, shape (K,), float32
        c.
    hard_share : float
        Share of an image's valid pixels that teach, 0 < share <= 1.
    small_weight : float
        Weight of pixels in small bodies; it does not enter the ranking.

    Returns
    -------
    numerator : Tensor, scalar
        Carries the gradient; zero (with zero gradients) when every pixel is ignored.
    denominator : Tensor, scalar
        A number without gradient.
    """
    with torch.autocast(logits.device.type, enabled=False):
        losses = functional.cross_entropy(
            logits.float(), target, weight=class_weight, ignore_index=IGNORE, reduction="none"
        )  # (N, H, W)
    valid = target != IGNORE
    with torch.no_grad():
        # Ignored pixels have loss 0; as -inf they cannot be ranked among the worst.
        ranked = losses.detach().masked_fill(~valid, -math.inf).flatten(1)  # (N, H * W)
        keep = torch.zeros_like(valid)
        for image, count in enumerate(valid.flatten(1).sum(1).tolist()):
            if count:
                worst = ranked[image].topk(math.ceil(hard_share * count), sorted=False).values
                keep[image] = (ranked[image] >= worst.min()).view_as(keep[image])
        weight = torch.where(small, small_weight, 1.0) * keep
    return (losses * weight).sum(), weight.sum()


def bootstrapped_cross_entropy(
    logits: Tensor,
    target: Tensor,
    small: Tensor,
    class_weight: Tensor,
    *,
    hard_share: float = HARD_SHARE,
    small_weight: float = SMALL_WEIGHT,
) -> Tensor:
    """The loss of :func:`loss_terms` over the images at hand: numerator / denominator, or 0 when all is ignored."""
    numerator, denominator = loss_terms(
        logits, target, small, class_weight, hard_share=hard_share, small_weight=small_weight
    )
    return numerator / denominator.clamp_min(torch.finfo(torch.float32).tiny)
