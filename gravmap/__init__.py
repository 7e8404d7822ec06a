"""gravmap: lithology maps of bedrock under cover from Bouguer gravity and geological maps.

The steps are packages, which import each other in this order: :mod:`gravmap.gravity`, :mod:`gravmap.geology`,
:mod:`gravmap.tiling`, :mod:`gravmap.network`, :mod:`gravmap.learning`, :mod:`gravmap.search`, :mod:`gravmap.mapping`.
Importing `gravmap` itself loads none of them.
"""

__version__ = "0.1.0"
