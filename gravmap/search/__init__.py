"""Architecture search: a supernet over operators, widths and paths, decoded into GGMNet architectures."""

from gravmap.search.comparison import (
    ComparisonConfig,
    compare_with_random,
    random_architectures,
    write_random_architectures,
)
from gravmap.search.config import SearchConfig
from gravmap.search.data_split import SearchSplit, split_for_search, without_held_out_labels
from gravmap.search.decoding import candidates, decode
from gravmap.search.estimate import SearchCost, estimate_search_cost, time_search
from gravmap.search.figures import draw_architecture
from gravmap.search.loop import read_search, search
from gravmap.search.space import ArchitectureLogits, SearchSpace
from gravmap.search.supernet import Supernet, recalibrate

__all__ = [
    "ArchitectureLogits",
    "ComparisonConfig",
    "SearchConfig",
    "SearchCost",
    "SearchSpace",
    "SearchSplit",
    "Supernet",
    "candidates",
    "compare_with_random",
    "decode",
    "draw_architecture",
    "estimate_search_cost",
    "random_architectures",
    "read_search",
    "recalibrate",
    "search",
    "split_for_search",
    "time_search",
    "without_held_out_labels",
    "write_random_architectures",
]
