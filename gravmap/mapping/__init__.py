"""Prediction of the bedrock map of a region: its files, figures and record, and the verification of that record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gravmap.mapping.clip import read_clip as read_clip
    from gravmap.mapping.options import Options as Options
    from gravmap.mapping.prediction import predict as predict
    from gravmap.mapping.record.verify import verify as verify

__all__ = ["Options", "predict", "read_clip", "verify"]

_MODULES = {
    "Options": "gravmap.mapping.options",
    "predict": "gravmap.mapping.prediction",
    "read_clip": "gravmap.mapping.clip",
    "verify": "gravmap.mapping.record.verify",
}


def __getattr__(name: str) -> Any:
    # Loaded when first used: prediction needs torch, and pictures of fields and the pages of a map do not.
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__  # for tab completion, and for the API reference
