"""A trained network in words and numbers, for the record: read from its files alone, without torch."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from gravmap.errors import InputError
from gravmap.files import sha256
from gravmap.records import read_model

WEIGHTS, SIDECAR = "model.safetensors", "model.json"
MADE_BY = "gravmap train"

# What batch normalisation counts while it learns is stored with the weights, but nobody calls it a parameter.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

_TORCH_TYPES = {
    "F64": "torch.float64",
    "F32": "torch.float32",
    "F16": "torch.float16",
    "BF16": "torch.bfloat16",
    "I64": "torch.int64",
    "I32": "torch.int32",
    "I16": "torch.int16",
    "I8": "torch.int8",
    "U8": "torch.uint8",
    "BOOL": "torch.bool",
}

# Of model.json: all that describes input, output and training of the network; not its confusion matrices.
_KEPT = ("model", "architecture", "inputs", "classes", "tile_size_px", "scales_deg", "field_recipe", "split", "seed")


def describe_run(run_folder: Path) -> dict[str, Any]:
    """Describe the network of a training run.

    Parameters
    ----------
    run_folder : Path
        Holds ``model.safetensors`` and ``model.json``.

    Returns
    -------
    dict
        JSON-able: name, SHA-256 and size of the weights, parameters, and what shaped its input and training.

    Raises
    ------
    InputError
        A file is missing or damaged.
    """
    weights = run_folder / WEIGHTS
    sidecar = read_model(run_folder)
    header = read_header(weights)
    scores = sidecar.get("scores", {})
    return {
        "name": run_folder.resolve().name,
        "sha256": sha256(weights),
        "bytes": weights.stat().st_size,
        "parameters": count_parameters(header),
        **{key: sidecar.get(key) for key in _KEPT},
        "recipe": sidecar.get("recipe", {}),
        "versions": sidecar.get("versions", {}),
        "trained_on": [entry for entry in sidecar.get("sources", []) if entry.get("role") in ("fields", "labels")],
        "area_sha256": sidecar.get("area_sha256", ""),
        "scores": {role: _brief(values) for role, values in scores.items() if isinstance(values, dict)},
    }


def read_header(weights: Path) -> dict[str, Any]:
    """The header of a safetensors file: names, types and shapes of its tensors, and ``__metadata__``.

    Raises
    ------
    InputError
        The file is missing, or no safetensors file.
    """
    try:
        with weights.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if not 0 < size < weights.stat().st_size:
                raise ValueError("its header is longer than the file")
            header: dict[str, Any] = json.loads(stream.read(size))
    except FileNotFoundError:
        raise InputError(f"{weights} is missing.", f"`{MADE_BY}` makes it.") from None
    except ValueError as error:
        raise InputError(f"{weights} is not a safetensors file: {error}.", f"`{MADE_BY}` makes it anew.") from None
    return header


def count_parameters(header: dict[str, Any]) -> int:
    """How many weights a network has, from the header of its file."""
    shapes = [
        entry["shape"]
        for name, entry in header.items()
        if name != "__metadata__" and not name.endswith(_STATISTICS) and entry["dtype"].startswith(("F", "BF"))
    ]
    return sum(math.prod(shape) for shape in shapes)


def _brief(scores: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in scores.items() if isinstance(value, (int, float))}


def tensors_sha256(weights: Path) -> str:
    """The checksum of a safetensors file's tensors alone, as :mod:`gravmap.learning.training.checkpoint` takes it.

    Over names, types, shapes and values in the order of the names; a header that was rewritten does not change it.
    """
    header = read_header(weights)
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    digest = hashlib.sha256()
    with weights.open("rb") as stream:
        start = 8 + int.from_bytes(stream.read(8), "little")
        for name, entry in sorted(tensors.items()):
            begin, end = entry["data_offsets"]
            digest.update(f"{name} {_TORCH_TYPES[entry['dtype']]} {tuple(entry['shape'])}".encode())
            stream.seek(start + begin)
            digest.update(stream.read(end - begin))
    return digest.hexdigest()
