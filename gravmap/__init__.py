"""gravmap: bedrock under cover, read from Bouguer gravity and the geological map around it.

Data walks through six rooms in one direction: :mod:`gravmap.gravity`, :mod:`gravmap.geology`,
:mod:`gravmap.tiling`, :mod:`gravmap.network`, :mod:`gravmap.learning`, :mod:`gravmap.mapping`.
Importing this package loads none of them.
"""

__version__ = "0.1.0"
