"""Precision in which a network computes: float32, or bfloat16 under autocast.

Weights, loss and all that is computed from the logits are float32. With autocast, convolutions and most other
operations of the network itself are bfloat16. On a GPU, maps and scores are computed in the precision of the training,
on a CPU always in float32.

GPUs before Ampere only emulate bfloat16, and cuDNN has no convolutions for it there: float32 takes its place. In
float32 a GPU multiplies in TF32 (numbers rounded to 10 bits of mantissa, sums in float32) in convolutions, and in
float32 in other matrix products, among them those of the deformable convolutions.
"""

from __future__ import annotations

import functools
import logging

import torch
from torch import nn

PRECISIONS = ("auto", "float32", "bfloat16")

log = logging.getLogger(__name__)


def choose_precision(precision: str, device: str | torch.device) -> str:
    """Choose the precision of a network on a device, and set what float32 is there (TF32 in convolutions alone).

    Parameters
    ----------
    precision : str
        "float32", "bfloat16" or "auto", which is bfloat16 on a GPU and float32 on a CPU.
    device : str or torch.device
        Device of the network.

    Returns
    -------
    str
        "float32" or "bfloat16"; never bfloat16 on a GPU that only emulates it.

    Examples
    --------
    >>> from gravmap.network.precision import choose_precision
    >>> choose_precision("auto", "cpu"), choose_precision("bfloat16", "cpu")
    ('float32', 'bfloat16')
    """
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        # The first is torch's default, but a program that uses gravmap may have changed it.
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cuda.matmul.allow_tf32 = False
    if precision == "float32" or (precision == "auto" and not on_gpu):
        return "float32"
    if on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        if precision == "bfloat16":
            _warn_of_emulation()
        return "float32"
    return "bfloat16"


@functools.cache
def _warn_of_emulation() -> None:
    """Warn once in a process."""
    log.warning("This GPU has no bfloat16 (it is older than Ampere): float32 is used instead.")


def set_scoring_precision(network: nn.Module, trained: str, device: str | torch.device) -> None:
    """Set the precision of a network's scores and maps on a device, given that of its training.

    It is the attribute `scoring_precision` of the network, "float32" or "bfloat16", which the loop over windows reads
    (:func:`gravmap.learning.evaluation.mosaic.iter_window_logits`), so that a score describes what a map shows.
    """
    found = choose_precision(trained, device) if torch.device(device).type == "cuda" else "float32"
    network.scoring_precision = found  # type: ignore[assignment]


def scoring_precision(network: nn.Module) -> str:
    """Return what :func:`set_scoring_precision` set; float32 if it was not called."""
    return str(getattr(network, "scoring_precision", "float32"))


def autocast(precision: str, device: str | torch.device) -> torch.autocast:
    """Return the context in which a network computes in a precision, "float32" or "bfloat16"."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16")
