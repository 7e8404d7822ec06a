"""The arrays that networks are trained on: region datasets, their splits, input channels and simulated crusts."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gravmap.learning.data.channels import InputChannels as InputChannels
    from gravmap.learning.data.dataset import RegionDataset as RegionDataset
    from gravmap.learning.data.label_diffusion import class_probabilities as class_probabilities
    from gravmap.learning.data.outcrop_context import with_context as with_context
    from gravmap.learning.data.splits import DatasetSplits as DatasetSplits

# Loaded when first used: modules of `evaluation`, which `splits` uses, import modules of this package. A function
# with the name of its module (outcrop_context) cannot be exported this way.
_HOME = {
    "InputChannels": "channels",
    "RegionDataset": "dataset",
    "class_probabilities": "label_diffusion",
    "with_context": "outcrop_context",
    "DatasetSplits": "splits",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
