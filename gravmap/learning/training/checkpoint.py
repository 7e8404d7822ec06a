"""A trained network in two files: weights as safetensors, everything else as JSON. No pickle.

Of a pair `<stem>.safetensors` + `<stem>.json` the weights are written first; the JSON holds their SHA-256. Each file is
replaced atomically, and the weights have a copy of the JSON in their header, so a process killed between the two leaves
a pair that can still be read, as the newer one. `model.json` of a complete run also holds the SHA-256 of the files that
were measured on the network (:func:`record_files`); :func:`check_recorded` compares them where they are read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gravmap import __version__
from gravmap.errors import InputError, OptionError
from gravmap.files import atomic_path, set_default_mode, sha256, write_json
from gravmap.learning.data.channels import InputChannels
from gravmap.outputs import no_permission
from gravmap.records import ModelRecord, check_record, parse_record, read_model, read_record

FORMAT = 2
"""Version of the layout; other versions are refused. 2: inputs are a list of channel records."""

MODEL, LAST = "model", "last"

SIDECAR_ONLY = ("weights_sha256", "files")
"""Keys of the JSON that its copy in the header of the weights lacks."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelSpec:
    """Description of a trained network: what `predict` needs besides the weights, and the provenance.

    Attributes
    ----------
    model : str
        Name of the network.
    architecture : dict
        Architecture record, see `gravmap.network.build_from_dict`.
    inputs : list of dict
        How fields become the network's input, channel by channel (`InputChannels.to_list`).
    classes : list of dict
        Index, name, colour and age; logit k is that of the k-th class.
    tile_size_px : int
        Pixels across a window.
    scales_deg : list of float
        Sizes of the training windows, degrees.
    field_recipe : dict
        How the gravity field was made; `predict` refuses a field that was made in another way.
    split : dict
        Name, fold, folds, block_deg, buffer_deg and seed of the split.
    seed : int
        Seed of weights and crops.
    recipe : dict
        Configuration of the training (`TrainConfig`); the pre-trained weights, if any, are under ``init``.
    versions : dict
        Versions of gravmap and of the packages its results depend on.
    sources : list of dict
        Input files with their SHA-256.
    scores : dict
        Scores on the tuning blocks and, after the final evaluation, on the test blocks.
    legend_toml : str
        Legend that the labels were made with.
    region_wsen : list of float
        Training region, degrees.
    area_sha256 : str
        SHA-256 of the training data (:meth:`gravmap.learning.RegionDataset.fingerprint`), and of the tile files if
        crops were cut from them.
    taught_on : dict
        Simulated crusts the network was trained on: ``on`` "crusts", their prior (name, sha256, text), seeds, shape
        and channels. Empty if it was trained on a region.

    Examples
    --------
    >>> from gravmap.learning.training.checkpoint import ModelSpec
    >>> spec = ModelSpec(
    ...     model="unet",
    ...     architecture={"kind": "unet", "widths": [16, 32, 64, 128, 256]},
    ...     inputs=[{"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 9.5}],
    ...     classes=[{"index": 1, "name": "granite"}, {"index": 2, "name": "basalt"}],
    ...     tile_size_px=256, scales_deg=[5.0], field_recipe={}, split={}, seed=0,
    ... )
    >>> spec.channels
    ['residual_10km']
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
        """The input channels, which turn fields into the network's input."""
        return InputChannels.from_list(self.inputs)

    @property
    def precision(self) -> str:
        """Precision that the network was trained in, "float32" or "bfloat16"."""
        found = str(self.recipe.get("precision", "float32"))
        # Runs of earlier versions recorded "auto" as it was given.
        return {"auto": "bfloat16" if self.recipe.get("device") == "cuda" else "float32"}.get(found, found)

    @property
    def channels(self) -> list[str]:
        """Names of the input channels, as `train --input` takes them."""
        return self.input.names


def versions() -> dict[str, str]:
    """Return the versions of gravmap and of the packages its results depend on."""
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
        Created if missing.
    network : nn.Module
        Its state dict is saved; it may be on any device.
    spec : ModelSpec
        Description of the network.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from gravmap.learning.training.checkpoint import ModelSpec
    >>> from gravmap.learning.training.checkpoint import save_model
    >>> from gravmap.network.registry import build_from_dict
    >>> network = build_from_dict({"kind": "unet", "widths": [4, 8]}, in_channels=1, classes=2)
    >>> folder = Path(tempfile.mkdtemp())
    >>> save_model(folder, network, ModelSpec(
    ...     model="small-unet",
    ...     architecture=network.architecture.to_dict(),
    ...     inputs=[{"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 9.5}],
    ...     classes=[{"index": 1, "name": "granite"}, {"index": 2, "name": "basalt"}],
    ...     tile_size_px=64, scales_deg=[5.0], field_recipe={}, split={}, seed=0,
    ... ))
    >>> sorted(path.name for path in folder.iterdir())
    ['model.json', 'model.safetensors']
    """
    write_pair(folder, MODEL, network.state_dict(), asdict(spec))


def load_model(folder: Path, device: str | torch.device = "cpu") -> tuple[nn.Module, ModelSpec]:
    """Load a trained network from its two files.

    Parameters
    ----------
    folder : Path
        Holds `model.safetensors` and `model.json`.
    device : str or torch.device
        Device of the network.

    Returns
    -------
    network : nn.Module
        In evaluation mode.
    spec : ModelSpec
        Its description.

    Raises
    ------
    InputError
        A file is missing, damaged or of another layout, or does not fit the architecture.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from gravmap.learning import load_model
    >>> from gravmap.learning.training.checkpoint import ModelSpec
    >>> from gravmap.learning.training.checkpoint import save_model
    >>> from gravmap.network.registry import build_from_dict
    >>> network = build_from_dict({"kind": "unet", "widths": [4, 8]}, in_channels=1, classes=2)
    >>> folder = Path(tempfile.mkdtemp())
    >>> save_model(folder, network, ModelSpec(
    ...     model="small-unet",
    ...     architecture=network.architecture.to_dict(),
    ...     inputs=[{"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 9.5}],
    ...     classes=[{"index": 1, "name": "granite"}, {"index": 2, "name": "basalt"}],
    ...     tile_size_px=64, scales_deg=[5.0], field_recipe={}, split={}, seed=0,
    ... ))
    >>> again, spec = load_model(folder)
    >>> [each["name"] for each in spec.classes]
    ['granite', 'basalt']
    """
    from gravmap.network.precision import set_scoring_precision
    from gravmap.network.registry import build_from_dict, check_parameters

    tensors, stored = read_pair(folder, MODEL)
    path = folder / f"{MODEL}.json"
    record = check_record(stored, ModelRecord, str(path), _HINT)
    known = {item.name for item in fields(ModelSpec)}
    try:
        spec = ModelSpec(**{name: value for name, value in record.items() if name in known})  # type: ignore[arg-type]
        shape = {"in_channels": spec.input.width, "classes": len(spec.classes)}
        check_parameters(spec.architecture, tensors, **shape)
        network: nn.Module = build_from_dict(spec.architecture, **shape)
        network.load_state_dict(tensors)
    except (TypeError, KeyError, ValueError, RuntimeError, OptionError) as error:
        first = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise InputError(f"{path} does not describe the network beside it: {first}", _HINT) from None
    if [entry["index"] for entry in record["classes"]] != list(range(1, len(spec.classes) + 1)):
        raise InputError(f"{path}: the classes are not numbered 1, 2, 3 ... in this order.", _HINT)
    refuse_not_finite(tensors, folder / f"{MODEL}.safetensors")
    network = network.to(device).eval()
    set_scoring_precision(network, spec.precision, device)
    return network, spec


def refuse_not_finite(tensors: dict[str, Tensor], path: Path) -> None:
    """Raise InputError if a tensor holds NaN or infinity; `path` is the file that it was read from."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path} holds values that are not finite, in {name}.", _HINT)


def write_pair(folder: Path, stem: str, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Write tensors and a JSON-able record as `<stem>.safetensors` and `<stem>.json`, each atomically."""
    from safetensors.torch import save_file  # here, so that benchmarks/training.py runs without safetensors

    # Shared tensors are copied: safetensors refuses two names for one memory.
    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    record = {name: value for name, value in record.items() if name not in SIDECAR_ONLY}
    record = json.loads(json.dumps({**record, "format": FORMAT, "tensors_sha256": _digest(plain)}))
    record |= {"description_sha256": _description_sha256(record)}
    weights = folder / f"{stem}.safetensors"
    with atomic_path(weights) as temporary:
        save_file(plain, temporary, metadata={"gravmap": json.dumps(record)})
        set_default_mode(temporary)  # safetensors lets its owner alone read it
    write_json(folder / f"{stem}.json", {**record, "weights_sha256": sha256(weights)})


def read_pair(folder: Path, stem: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read and check what :func:`write_pair` wrote.

    Raises
    ------
    InputError
        A file is missing, damaged, changed, not written by gravmap, or of another layout.
    """
    from safetensors import SafetensorError, safe_open

    weights, sidecar = folder / f"{stem}.safetensors", folder / f"{stem}.json"
    for path in (weights, sidecar):
        if not path.exists():
            raise InputError(f"{path} is missing.", _HINT)
        if not os.access(path, os.R_OK):
            raise no_permission(path)  # safetensors says that there is no such file
    try:
        with safe_open(weights, framework="pt") as stored:
            text = (stored.metadata() or {})["gravmap"]
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{weights} is damaged: {error}.", _HINT) from None
    header = parse_record(text, dict[str, Any], f"the header of {weights}", _HINT)
    record = read_record(sidecar, dict[str, Any], "gravmap train")
    named, version = record.get("weights_sha256"), header.get("format")
    if not isinstance(named, str) or not isinstance(version, int):
        missing = f"{sidecar} has no weights_sha256" if not isinstance(named, str) else f"{weights} has no format"
        raise InputError(f"{missing}.", _HINT)
    if version != FORMAT:
        versions = header.get("versions")
        written = versions.get("gravmap") if isinstance(versions, dict) else "of another version"
        raise InputError(
            f"{sidecar} was written by gravmap {written} in layout {version}; this gravmap reads layout {FORMAT} only.",
            "Upgrade gravmap." if version > FORMAT else "Train anew, or use the version of gravmap that wrote it.",
        )
    if sha256(weights) == named:
        own = {name: value for name, value in record.items() if name not in SIDECAR_ONLY}
        if changed := sorted(name for name in {*own, *header} if not _same(own.get(name), header.get(name))):
            raise InputError(
                f"{sidecar} was changed: {', '.join(changed)} differs from the copy of it inside {weights.name}.",
                "Restore it, or train again with `gravmap train`.",
            )
        return tensors, record
    # Either the bytes are damaged, or the process was killed between the two files: see the digests in the header.
    # Headers of earlier versions of gravmap have no digest of themselves.
    described = _description_sha256(header)
    if _digest(tensors) != header.get("tensors_sha256") or header.get("description_sha256", described) != described:
        raise InputError(f"{weights} is damaged: its SHA-256 is not the one in {sidecar.name}.", _HINT)
    return tensors, header


def record_files(folder: Path, checksums: Mapping[str, str]) -> None:
    """Record in ``model.json`` the SHA-256 of the files that belong to the network, by name."""
    sidecar = folder / f"{MODEL}.json"
    record = read_record(sidecar, dict[str, Any], "gravmap train")
    write_json(sidecar, {**record, "files": dict(checksums)})


def check_recorded(path: Path, hint: str) -> bool:
    """Compare a file of a run with its checksum in ``model.json``.

    Parameters
    ----------
    path : Path
        The file, in the folder of the run.
    hint : str
        For the message.

    Returns
    -------
    bool
        Whether the file is there. If ``model.json`` records one that is missing, a warning is logged.

    Raises
    ------
    InputError
        The file was changed. Runs of earlier versions of gravmap have no checksums, and pass.
    """
    sidecar = path.parent / f"{MODEL}.json"
    files = read_model(path.parent).get("files", {}) if sidecar.exists() else {}
    recorded = files.get(path.name)
    if not path.exists():
        if recorded is not None:
            log.warning("%s is missing; %s records it.", path, sidecar.name)
        return False
    if recorded not in (None, sha256(path)):
        raise InputError(f"{path} was changed: its SHA-256 is not the one in {sidecar.name}.", hint)
    return True


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, without the prefix."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _description_sha256(record: Mapping[str, Any]) -> str:
    """Compute the SHA-256 over a record, without that checksum."""
    rest = {name: value for name, value in record.items() if name != "description_sha256"}
    return hashlib.sha256(_canonical(rest).encode()).hexdigest()


def _same(one: Any, other: Any) -> bool:
    return _canonical(one) == _canonical(other)  # as text, since NaN is not equal to itself


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _digest(tensors: dict[str, Tensor]) -> str:
    """Compute the SHA-256 over names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


_HINT = "Train again with `gravmap train`."
