"""``python -m gravmap_cli``."""

from .main import gravmap

gravmap()
