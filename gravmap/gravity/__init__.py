"""Gravity grids: reading, upward continuation, regional-residual separation and derivatives."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gravmap.gravity.continuation import upward_continue as upward_continue
    from gravmap.gravity.derivatives import field_derivatives as field_derivatives
    from gravmap.gravity.fields import residual_fields as residual_fields
    from gravmap.gravity.fields_file import open_fields as open_fields
    from gravmap.gravity.fields_file import write_fields as write_fields
    from gravmap.gravity.grid import open_grid as open_grid

# Imported on first use: reading a file of fields needs none of the scipy modules that the operator does.
_MODULES = {
    "field_derivatives": "derivatives",
    "open_fields": "fields_file",
    "open_grid": "grid",
    "residual_fields": "fields",
    "upward_continue": "continuation",
    "write_fields": "fields_file",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__  # for tab completion, and for the API reference
