"""The gravity room: any gravity file -> one canonical grid -> observed, regional and residual fields."""

from gravmap.gravity.continuation import apply_symbol, upward_continue

__all__ = ["apply_symbol", "upward_continue"]
