"""Weighted bootstrapped cross-entropy (OHEM, online hard example mining): only the hardest pixels of an image count.

References
----------
Wu, Shen and van den Hengel (2016), arXiv:1605.06885: bootstrapping. Yang et al. (2019), DeeperLab,
arXiv:1902.05093: the weight of small instances.
"""

from __future__ import annotations

import functools
import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gravmap.lattice import TRAIN
from gravmap.learning.data.dataset import IGNORE, RegionDataset, to_target
from gravmap.network.outcrop_start import THICKNESS_QUANTILES

OHEM_KEEP_FRACTION = 0.15
"""Fraction of an image's pixels that enter the loss."""

SMALL_WEIGHT = 3.0
"""Weight of pixels in small bodies."""

TOPK_BASES = ("valid", "all")
CLASS_WEIGHTS = ("enet", "inverse", "sqrt", "effective", "none")
BETA = 0.99999
"""Beta of the effective number of samples (Cui et al. 2019)."""


class Criterion(Protocol):
    """The loss of a run, see :func:`make_criterion`."""

    def __call__(
        self, logits: Tensor, target: Tensor, small: Tensor, *, topk_share: float, added: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute numerator and denominator, as :func:`loss_terms`."""


def make_criterion(class_weight: Tensor, *, topk_base: str, small_weight: float) -> Criterion:
    """Return the loss of a run; training batches and tuning maps both use it.

    Parameters
    ----------
    class_weight, topk_base, small_weight
        As in :func:`loss_terms`.
    """
    return functools.partial(loss_terms, class_weight=class_weight, topk_base=topk_base, small_weight=small_weight)


def class_counts(dataset: RegionDataset) -> NDArray[np.float64]:
    """Count the labelled training cells of each class on the native label grid; shape (K,)."""
    target = to_target(dataset.labels[dataset.role == TRAIN])
    return np.bincount(target[target != IGNORE], minlength=len(dataset.classes)).astype(np.float64)


def class_weights(counts: NDArray[np.float64], kind: str = "enet") -> NDArray[np.float64]:
    """Compute the weight of each class: mean 1 over the classes that occur, 0 for the others.

    Parameters
    ----------
    counts : ndarray, shape (K,)
        Cells of each class; p is their fraction of all cells.
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


def pinball_km(quantiles_km: Tensor, thickness_km: Tensor) -> Tensor:
    """Compute the mean pinball loss of quantiles of a thickness; a proper score: smallest for the true quantiles.

    For a quantile q at level p and the true thickness y it is p (y - q) if y > q, else (1 - p) (q - y).

    Parameters
    ----------
    quantiles_km : Tensor, shape (N, 3, H, W)
        At the levels :data:`gravmap.network.outcrop_start.THICKNESS_QUANTILES`; any floating type.
    thickness_km : Tensor, shape (N, H, W)
        True thickness.

    Returns
    -------
    Tensor, shape (N, H, W), float32
        Mean over the levels, km.

    References
    ----------
    Koenker and Bassett (1978), Regression quantiles, Econometrica 46, 33-50; Gneiting and Raftery (2007), Strictly
    proper scoring rules, prediction, and estimation, J. Am. Stat. Assoc. 102, 359-378.
    """
    with torch.autocast(quantiles_km.device.type, enabled=False):
        levels = quantiles_km.new_tensor(THICKNESS_QUANTILES, dtype=torch.float32)[:, None, None]
        below = thickness_km.float()[:, None] - quantiles_km.float()
        return (levels * below + functional.relu(-below)).mean(1)


def loss_terms(
    logits: Tensor,
    target: Tensor,
    small: Tensor,
    class_weight: Tensor,
    *,
    topk_share: float = OHEM_KEEP_FRACTION,
    topk_base: str = "valid",
    small_weight: float = SMALL_WEIGHT,
    added: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute numerator and denominator of the loss.

    They are returned apart, so that those of micro-batches and processes can be summed before they are divided.

    For image b with valid pixels V_b: l_i = c_{y_i} CE_i + added_i, K_b = ceil(topk_share |V_b|), S_b = the K_b
    largest l_i (ties kept), a_i = `small_weight` in small bodies, else 1::

        loss = sum_b sum_{i in S_b} a_i l_i / sum_b sum_{i in S_b} a_i

    Parameters
    ----------
    logits : Tensor, shape (N, K, H, W)
        Any floating type; the loss is computed in float32.
    target : Tensor, shape (N, H, W), int64
        Class, or IGNORE.
    small : Tensor, shape (N, H, W), bool
        Whether a pixel lies in a small body.
    class_weight : Tensor, shape (K,), float32
        c; moved to the device of the logits.
    topk_share : float
        OHEM keep fraction, 0 < fraction <= 1.
    topk_base : str
        What the fraction refers to: the "valid" pixels, or "all" N pixels of the image,
        K_b = min(ceil(topk_share N), |V_b|). Under "all", an image with few valid pixels keeps all of them.
    small_weight : float
        Weight of pixels in small bodies; it does not affect the ranking.
    added : Tensor, shape (N, H, W), float32, optional
        A further loss of each pixel, such as that of the thickness of the cover.

    Returns
    -------
    numerator : Tensor, scalar
        Has the gradient; zero (with zero gradients) if every pixel is ignored.
    denominator : Tensor, scalar
        Without gradient.
    """
    with torch.autocast(logits.device.type, enabled=False):
        losses = functional.cross_entropy(
            logits.float(), target, weight=class_weight.to(logits.device), ignore_index=IGNORE, reduction="none"
        )  # (N, H, W)
    valid = target != IGNORE
    if added is not None:
        losses = losses + torch.where(valid, added, 0.0)
    with torch.no_grad():
        # Ignored pixels have loss 0; as -inf they are never among the hardest.
        ranked = losses.detach().masked_fill(~valid, -math.inf).flatten(1)  # (N, H * W)
        keep = torch.zeros_like(valid)
        for image, count in enumerate(valid.flatten(1).sum(1).tolist()):
            if count:
                base = count if topk_base == "valid" else ranked.shape[1]
                kept = min(math.ceil(topk_share * base), count)
                hardest = ranked[image].topk(kept, sorted=False).values
                keep[image] = (ranked[image] >= hardest.min()).view_as(keep[image])
        weight = torch.where(small, small_weight, 1.0) * keep
    return (losses * weight).sum(), weight.sum()
