"""Gravity grids: reading, upward continuation, regional-residual separation and derivatives."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gravmap.gravity.continuation import apply_filter as apply_filter
    from gravmap.gravity.continuation import upward_continue as upward_continue
    from gravmap.gravity.derivatives import field_derivatives as field_derivatives
    from gravmap.gravity.field_reader import FieldReader as FieldReader
    from gravmap.gravity.field_reader import fields_region as fields_region
    from gravmap.gravity.fields import residual_fields as residual_fields
    from gravmap.gravity.fields_file import field_recipe as field_recipe
    from gravmap.gravity.fields_file import field_sources as field_sources
    from gravmap.gravity.fields_file import open_fields as open_fields
    from gravmap.gravity.fields_file import write_fields as write_fields
    from gravmap.gravity.grid import crop as crop
    from gravmap.gravity.grid import extent as extent
    from gravmap.gravity.grid import open_grid as open_grid
    from gravmap.gravity.grid import spacing_deg as spacing_deg

# Imported on first use: reading a file of fields needs none of the scipy modules that the operator does.
_MODULES = {
    "FieldReader": "field_reader",
    "fields_region": "field_reader",
    "apply_filter": "continuation",
    "crop": "grid",
    "extent": "grid",
    "field_derivatives": "derivatives",
    "field_recipe": "fields_file",
    "field_sources": "fields_file",
    "open_fields": "fields_file",
    "open_grid": "grid",
    "residual_fields": "fields",
    "spacing_deg": "grid",
    "upward_continue": "continuation",
    "write_fields": "fields_file",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
