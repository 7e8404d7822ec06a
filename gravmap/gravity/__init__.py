"""The gravity room: any gravity file -> one canonical grid -> observed, regional and residual fields."""

from gravmap.gravity.continuation import apply_symbol, upward_continue
from gravmap.gravity.fields import field_recipe, field_sources, open_fields, residual_fields, write_fields
from gravmap.gravity.grid import crop, extent, open_grid, spacing_deg

__all__ = [
    "apply_symbol",
    "crop",
    "extent",
    "field_recipe",
    "field_sources",
    "open_fields",
    "open_grid",
    "residual_fields",
    "spacing_deg",
    "upward_continue",
    "write_fields",
]
