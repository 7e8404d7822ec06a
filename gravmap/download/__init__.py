"""Downloads: a named source -> verified files in ``data/raw``, and what is there of them.

Examples
--------
>>> from pathlib import Path
>>> from gravmap.download import fetch, fetched, find_source
>>> grid = fetch(find_source("wgm2012"), Path("data/raw")).main  # doctest: +SKIP
>>> [item.source.name for item in fetched(Path("data/raw"))]  # doctest: +SKIP
['wgm2012']
"""

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
