"""Downloads: a named source -> verified files in ``data/raw``, and what is there of them."""

from gravmap.download.fetch import fetch
from gravmap.download.present import Fetched, fetched, fetched_gravity, fetched_maps, provenance
from gravmap.download.sources import Source, SourceFile, find_source, known_sources

__all__ = [
    "Fetched",
    "Source",
    "SourceFile",
    "fetch",
    "fetched",
    "fetched_gravity",
    "fetched_maps",
    "find_source",
    "known_sources",
    "provenance",
]
