"""The gravity room: any gravity file -> one canonical grid -> observed, regional and residual fields."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gravmap.gravity.continuation import apply_filter as apply_filter
    from gravmap.gravity.continuation import upward_continue as upward_continue
    from gravmap.gravity.field_reader import FieldReader as FieldReader
    from gravmap.gravity.field_reader import fields_region as fields_region
    from gravmap.gravity.fields import field_recipe as field_recipe
    from gravmap.gravity.fields import field_sources as field_sources
    from gravmap.gravity.fields import open_fields as open_fields
    from gravmap.gravity.fields import residual_fields as residual_fields
    from gravmap.gravity.fields import write_fields as write_fields
    from gravmap.gravity.grid import crop as crop
    from gravmap.gravity.grid import extent as extent
    from gravmap.gravity.grid import open_grid as open_grid
    from gravmap.gravity.grid import spacing_deg as spacing_deg

# Loaded on first use, so that importing the package loads neither xarray nor scipy.
_HOME = {
    "apply_filter": "continuation",
    "upward_continue": "continuation",
    "FieldReader": "field_reader",
    "fields_region": "field_reader",
    "field_recipe": "fields",
    "field_sources": "fields",
    "open_fields": "fields",
    "residual_fields": "fields",
    "write_fields": "fields",
    "crop": "grid",
    "extent": "grid",
    "open_grid": "grid",
    "spacing_deg": "grid",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
