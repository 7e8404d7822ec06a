"""Weighted bootstrapped cross-entropy: per image, only the worst pixels teach.

References
----------
Wu, Shen and van den Hengel (2016), arXiv:1605.06885: bootstrapping. Yang et al. (2019), DeeperLab,
arXiv:1902.05093: the weight of small instances.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gravmap.lattice import TRAIN
from gravmap.learning.data.dataset import IGNORE, RegionDataset, to_target

OHEM_KEEP_FRACTION = 0.15
SMALL_WEIGHT = 3.0
TOPK_BASES = ("valid", "all")
CLASS_WEIGHTS = ("enet", "inverse", "sqrt", "effective", "none")
BETA = 0.99999
"""Of the effective number of cells."""


def class_counts(area: RegionDataset) -> NDArray[np.float64]:
    """Labelled native cells of each class that may be learnt from, each cell once: (K,)."""
    target = to_target(area.labels[area.role == TRAIN])
    return np.bincount(target[target != IGNORE], minlength=len(area.classes)).astype(np.float64)


def class_weights(counts: NDArray[np.float64], kind: str = "enet") -> NDArray[np.float64]:
    """Weight of each class, mean 1 over the classes that occur (0 for the others).

    Parameters
    ----------
    counts : ndarray, shape (K,)
        Cells of each class; p is their share.
    kind : str
        "enet": 1 / ln(1.02 + p), bounded. "inverse": 1 / p (scaled to mean 1, median-frequency balancing is the
        same). "sqrt": 1 / sqrt(p). "effective": 1 / (1 - 0.99999^n), n the count. "none": 1.

    Returns
    -------
    ndarray, shape (K,), float64

    References
    ----------
    Paszke et al. (2016), arXiv:1606.02147 (enet); Cui et al. (2019), arXiv:1901.05555 (effective).
    """
    present = counts > 0
    n = np.where(present, counts, 1.0)
    p = n / max(counts.sum(), 1.0)
    by_kind = {
        "enet": 1 / np.log(1.02 + p),
        "inverse": 1 / p,
        "sqrt": 1 / np.sqrt(p),
        "effective": 1 / -np.expm1(n * np.log(BETA)),
        "none": np.ones_like(p),
    }
    weights = np.where(present, by_kind[kind], 0.0)
    mean: float = weights[present].mean() if present.any() else 1.0
    scaled: NDArray[np.float64] = weights / mean
    return scaled


def loss_terms(
    logits: Tensor,
    target: Tensor,
    small: Tensor,
    class_weight: Tensor,
    *,
    topk_share: float = OHEM_KEEP_FRACTION,
    topk_base: str = "valid",
    small_weight: float = SMALL_WEIGHT,
) -> tuple[Tensor, Tensor]:
    """Numerator and denominator of the loss, so that those of micro-batches and processes can be added up.

    For image b with valid pixels V_b: l_i = c_{y_i} CE_i, K_b = ceil(topk_share |V_b|), S_b = the K_b
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
    topk_share : float
        Share of an image's pixels that teach, 0 < share <= 1.
    topk_base : str
        Share of what: of the "valid" pixels, or of "all" N of the image, K_b = min(ceil(topk_share N), |V_b|).
        Under "all" an image with few valid pixels has none that are left out.
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
                base = count if topk_base == "valid" else ranked.shape[1]
                kept = min(math.ceil(topk_share * base), count)
                worst = ranked[image].topk(kept, sorted=False).values
                keep[image] = (ranked[image] >= worst.min()).view_as(keep[image])
        weight = torch.where(small, small_weight, 1.0) * keep
    return (losses * weight).sum(), weight.sum()


def bootstrapped_cross_entropy(
    logits: Tensor,
    target: Tensor,
    small: Tensor,
    class_weight: Tensor,
    *,
    topk_share: float = OHEM_KEEP_FRACTION,
    topk_base: str = "valid",
    small_weight: float = SMALL_WEIGHT,
) -> Tensor:
    """The loss of :func:`loss_terms` over the images at hand: numerator / denominator, or 0 when all is ignored."""
    numerator, denominator = loss_terms(
        logits, target, small, class_weight, topk_share=topk_share, topk_base=topk_base, small_weight=small_weight
    )
    return numerator / denominator.clamp_min(torch.finfo(torch.float32).tiny)
