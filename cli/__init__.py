"""The command line of gravmap: parse options, call the library, print the result.

Commands import the library inside their functions, so that ``gravmap --help`` stays quick.
"""

from .main import gravmap

__all__ = ["gravmap"]
