"""Architecture search: a supernet over operators, widths and paths, decoded into GGMNet architectures."""

from gravmap.search.config import SearchConfig
from gravmap.search.loop import search

__all__ = ["SearchConfig", "search"]
