"""What a map was made of: hashes, versions, sources with their terms, the command."""

from __future__ import annotations

import importlib.metadata
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gravmap import __version__
from gravmap.files import sha256

# Packages that shape the numbers of a map.
PACKAGES = ("numpy", "scipy", "torch", "rasterio", "pyproj", "xarray")


def describe(
    *, command: str, inputs: dict[str, Path], sources: list[dict[str, Any]], settings: dict[str, Any]
) -> dict[str, Any]:
    """Describe how an output came to be.

    Parameters
    ----------
    command : str
        The command line as typed.
    inputs : dict
        Role to file, such as ``{"fields": Path("data/fields.nc")}``; each is hashed.
    sources : list of dict
        The original data: name, licence, citation, SHA-256.
    settings : dict
        What was chosen: region, scales, resolution ...

    Returns
    -------
    dict
        JSON-able.
    """
    return {
        "made_by": f"gravmap {__version__}",
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": settings,
        "inputs": {role: {"path": str(path), "sha256": sha256(path)} for role, path in inputs.items()},
        "sources": sources,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
    }
