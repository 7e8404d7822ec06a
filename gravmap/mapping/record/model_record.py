"""A trained network in words and numbers, for the record: read from its files alone, without torch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import TypedDict

from gravmap.errors import InputError
from gravmap.files import sha256
from gravmap.records import Count, Len, check_record, parse_record, read_model, record

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
            size, whole = int.from_bytes(stream.read(8), "little"), weights.stat().st_size
            if not 0 < size < min(whole, _MAX_HEADER_BYTES):
                raise InputError(f"{weights} is not a safetensors file: its header is longer than the file.", _AGAIN)
            text = stream.read(size).decode("utf-8", errors="replace")
    except FileNotFoundError:
        raise InputError(f"{weights} is missing.", f"`{MADE_BY}` makes it.") from None
    except OSError as error:
        raise InputError(f"{weights} cannot be read: {error.strerror}.", "Check the permissions.") from None
    header = parse_record(text, dict[str, dict[str, Any]], f"The header of {weights}", _AGAIN)
    for name, entry in header.items():
        if name == "__metadata__":
            check_record(entry, dict[str, str], f"The header of {weights}", _AGAIN)
            continue
        tensor = check_record(entry, TensorRecord, f"The header of {weights}: {name}", _AGAIN)
        begin, end = tensor["data_offsets"]
        if tensor["dtype"] not in _TORCH_TYPES or not begin <= end <= whole - 8 - size:
            raise InputError(f"The header of {weights}: {name} has an unknown type or lies beyond the file.", _AGAIN)
    return header


def read_metadata(weights: Path) -> dict[str, Any]:
    """The record in the header of a safetensors file of gravmap.

    Raises
    ------
    InputError
        As :func:`read_header`, or it holds no such record.
    """
    text = read_header(weights).get("__metadata__", {}).get("gravmap", "")
    return parse_record(text, dict[str, Any], f"The record in {weights}", _AGAIN)


@record
class TensorRecord(TypedDict):
    """A tensor in the header of a safetensors file."""

    dtype: str
    shape: list[Count]
    data_offsets: Annotated[list[Count], Len(2, 2)]


_MAX_HEADER_BYTES = 1 << 26
_AGAIN = f"`{MADE_BY}` makes it anew."


def count_parameters(header: dict[str, Any]) -> int:
    """How many weights a network has, from the header of its file."""
    shapes = [
        entry["shape"]
        for name, entry in header.items()
        if name != "__metadata__" and not name.endswith(_STATISTICS) and entry["dtype"].startswith(("F", "BF"))
    ]
    return sum(math.prod(shape) for shape in shapes)


def _brief(scores: Mapping[str, Any]) -> dict[str, Any]:
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
