"""The command line of gravmap: parse, call the library, say what came out.

Commands import the library inside their functions, so that ``gravmap --help`` stays quick.
"""

from .main import gravmap

__all__ = ["gravmap"]
