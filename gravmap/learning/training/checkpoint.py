"""A trained network in two files: weights as safetensors, everything else as JSON. No pickle.

A file pair `<stem>.safetensors` + `<stem>.json` is written weights first; the JSON names the weights'
SHA-256. Each file is replaced whole, and the weights carry a copy of the JSON in their header, so a kill
between the two leaves a pair that is still read, as the newer one.
"""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gravmap import __version__
from gravmap.errors import InputError
from gravmap.files import atomic_path, sha256, write_json
from gravmap.learning.data.channels import InputChannels

FORMAT = 2
"""Version of the pair's layout; any other is refused. 2: inputs are a list of channel records."""

MODEL, LAST = "model", "last"


@dataclass(frozen=True)
class ModelSpec:
    """What `predict` must know besides the weights: whatever shaped the input, and where it came from.

    Attributes
    ----------
    model : str
        Name under which the network was built.
    architecture : dict
        What `gravmap.network.build_from_dict` rebuilds it from.
    inputs : list of dict
        What turns fields into the network's input, channel by channel (`InputChannels.to_list`).
    classes : list of dict
        Index, name, colour, age; logit k belongs to the k-th.
    tile_size_px : int
        Pixels across a window.
    scales_deg : list of float
        Sides of the windows seen in training, degrees.
    field_recipe : dict
        How the field was made; another recipe is refused.
    split : dict
        Name, fold, folds, block_deg, buffer_deg, seed of what was held out.
    seed : int
        Of weights and crops.
    recipe : dict
        The training's configuration.
    versions : dict
        Of gravmap and what it runs on.
    sources : list of dict
        Input files with their SHA-256.
    scores : dict
        On the tuning and, once finished, on the test blocks.
    legend_toml : str
        The legend the labels were made with.
    region_wsen : list of float
        Where the network was trained, degrees.
    area_sha256 : str
        Of the arrays it was taught on (:meth:`gravmap.learning.Area.fingerprint`), and the tiles where they were read.
    taught_on : dict
        What the ground was where it is no region: ``on`` "crusts", their prior (name, sha256, text), seeds, shape and
        channels. Empty where it was a region. Whose weights it began with stands in ``recipe["init"]``.
    """

    model: str
    architecture: dict[str, Any]
    inputs: list[dict[str, Any]]
    classes: list[dict[str, Any]]
    tile_size_px: int
    scales_deg: list[float]
    field_recipe: dict[str, Any]
    split: dict[str, Any]
    seed: int
    recipe: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    scores: dict[str, Any] = field(default_factory=dict)
    legend_toml: str = ""
    region_wsen: list[float] = field(default_factory=list)
    area_sha256: str = ""
    taught_on: dict[str, Any] = field(default_factory=dict)

    @property
    def input(self) -> InputChannels:
        """What turns fields into the network's input."""
        return InputChannels.from_list(self.inputs)

    @property
    def channels(self) -> list[str]:
        """The input's channels by name, as `train --input` takes them."""
        return self.input.names


def versions() -> dict[str, str]:
    """Versions of gravmap and of what its numbers depend on."""
    return {
        "gravmap": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def save_model(folder: Path, network: nn.Module, spec: ModelSpec) -> None:
    """Write `model.safetensors` and `model.json` into `folder`.

    Parameters
    ----------
    folder : Path
        Made when missing.
    network : nn.Module
        Its state is saved from whatever device it is on.
    spec : ModelSpec
        Everything else.
    """
    write_pair(folder, MODEL, network.state_dict(), asdict(spec))


def load_model(folder: Path, device: str | torch.device = "cpu") -> tuple[nn.Module, ModelSpec]:
    """Rebuild a trained network from its two files alone.

    Parameters
    ----------
    folder : Path
        Holds `model.safetensors` and `model.json`.
    device : str or torch.device
        Where the network is put.

    Returns
    -------
    network : nn.Module
        In evaluation mode.
    spec : ModelSpec
        What shaped its input.

    Raises
    ------
    InputError
        A file is missing or damaged, of another layout, or does not fit the architecture.
    """
    from gravmap.network import build_from_dict

    tensors, record = read_pair(folder, MODEL)
    known = {item.name for item in fields(ModelSpec)}
    try:
        spec = ModelSpec(**{name: value for name, value in record.items() if name in known})
        network: nn.Module = build_from_dict(spec.architecture, in_channels=spec.input.width, classes=len(spec.classes))
        network.load_state_dict(tensors)
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{folder / MODEL}.json does not describe the network beside it: {first}", _ANEW) from None
    return network.to(device).eval(), spec


def write_pair(folder: Path, stem: str, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Write tensors and a JSON-able record as `<stem>.safetensors` and `<stem>.json`, each whole or not at all."""
    from safetensors.torch import save_file  # here: a bare PyTorch machine measures steps without it

    # Shared weights are written out one by one: safetensors refuses two names for one memory.
    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    record = {**record, "format": FORMAT, "tensors_sha256": _digest(plain)}
    weights = folder / f"{stem}.safetensors"
    with atomic_path(weights) as temporary:
        save_file(plain, temporary, metadata={"gravmap": json.dumps(record)})
    write_json(folder / f"{stem}.json", {**record, "weights_sha256": sha256(weights)})


def read_pair(folder: Path, stem: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write_pair` wrote, checked.

    Raises
    ------
    InputError
        A file is missing, damaged, not ours, or of another layout.
    """
    from safetensors import SafetensorError, safe_open

    weights, sidecar = folder / f"{stem}.safetensors", folder / f"{stem}.json"
    for path in (weights, sidecar):
        if not path.exists():
            raise InputError(f"{path} is missing.", _ANEW)
    try:
        with safe_open(weights, framework="pt") as stored:
            header = json.loads((stored.metadata() or {})["gravmap"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
        record = json.loads(sidecar.read_text(encoding="utf-8"))
        named, version = record["weights_sha256"], int(header["format"])
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{weights} or {sidecar.name} beside it is damaged: {error}.", _ANEW) from None
    if version != FORMAT:
        written = header.get("versions", {}).get("gravmap", "of another version")
        raise InputError(
            f"{sidecar} was written by gravmap {written} in layout {version}; this gravmap reads layout {FORMAT} only.",
            "Upgrade gravmap." if version > FORMAT else "Train anew, or use the gravmap that wrote it.",
        )
    if sha256(weights) == named:
        return tensors, record
    # Either the bytes are damaged, or a kill fell between the two files; the digest in the header tells.
    if _digest(tensors) != header["tensors_sha256"]:
        raise InputError(f"{weights} is damaged: its SHA-256 is not the one in {sidecar.name}.", _ANEW)
    return tensors, header


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of the tensors whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


_ANEW = "`gravmap train` makes it anew."
