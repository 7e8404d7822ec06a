"""Training crops: drawn at random, read from native grids or tiles, augmented and resampled."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gravmap.learning.sampling.augmentation import Augmentation as Augmentation
    from gravmap.learning.sampling.sampler import Sampler as Sampler

# Loaded when first used: modules of `evaluation`, which the sampler uses, import modules of this package.
_HOME = {"Augmentation": "augmentation", "Sampler": "sampler"}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
