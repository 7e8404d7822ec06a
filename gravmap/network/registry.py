"""Build networks by name or from an architecture record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gravmap.errors import DeviceError, OptionError
from gravmap.network.architecture import Architecture
from gravmap.network.bisenet import BiSeNet, BiSeNetArchitecture
from gravmap.network.ggmnet import GGMNet
from gravmap.network.hrnet import HRNet, HRNetArchitecture
from gravmap.network.interface import SegmentationNetwork, classifier_of
from gravmap.network.outcrop_start import OutcropStart, OutcropStartArchitecture
from gravmap.network.presets import PRESETS
from gravmap.network.residual_unet import ResidualUNet, ResidualUNetArchitecture
from gravmap.network.smp import SmpArchitecture, SmpNetwork
from gravmap.network.unet import UNet, UNetArchitecture
from gravmap.records import read_record

_OTHERS: dict[str, Callable[[], Any]] = {
    "unet": UNetArchitecture,
    "residual-unet": ResidualUNetArchitecture,
    "hrnetv1-w32": HRNetArchitecture,
    "bisenet-resnet18": BiSeNetArchitecture,
}

MODELS = (*PRESETS, *_OTHERS)
"""Names of the networks that need no extra package; `smp:ARCH:ENCODER` and `ALIASES` are further names.

Examples
--------
>>> from gravmap.network.registry import MODELS
>>> "ggmnet-tiny" in MODELS
True
"""

ALIASES = {"deeplabv3plus-resnet50": "smp:deeplabv3plus:resnet50"}
"""Other names of networks of segmentation-models-pytorch: DeepLabV3+ of Chen et al. 2018, arXiv:1802.02611."""

_KINDS: dict[str, tuple[Callable[[Mapping[str, Any]], Any], Callable[..., SegmentationNetwork]]] = {
    Architecture.KIND: (Architecture.from_dict, GGMNet),
    UNetArchitecture.KIND: (UNetArchitecture.from_dict, UNet),
    ResidualUNetArchitecture.KIND: (ResidualUNetArchitecture.from_dict, ResidualUNet),
    HRNetArchitecture.KIND: (HRNetArchitecture.from_dict, HRNet),
    BiSeNetArchitecture.KIND: (BiSeNetArchitecture.from_dict, BiSeNet),
    SmpArchitecture.KIND: (SmpArchitecture.from_dict, SmpNetwork),
    OutcropStartArchitecture.KIND: (lambda record: _outcrop_start(record), lambda *shape: _with_body(*shape)),
}


def build(name: str = "ggmnet", *, in_channels: int = 1, classes: int = 10) -> nn.Module:
    """Build a network by name, with random weights.

    Parameters
    ----------
    name : str
        One of `MODELS`, or ``smp:ARCH:ENCODER`` (``smp:unet:resnet34``) where segmentation-models-pytorch is installed.
    in_channels : int
        Channels of the input (see `gravmap.learning.data.channels`).
    classes : int
        Number of bedrock classes; cover is not a class.

    Returns
    -------
    torch.nn.Module
        Maps (N, in_channels, H, W) to logits (N, classes, H, W), for any H, W >= 1 pixel. Its `architecture` is a
        frozen dataclass whose `to_dict()` returns the record that `build_from_dict` takes, and its `classifier` is
        the layer that computes the class scores (`gravmap.network.interface.SegmentationNetwork`). Weights are drawn
        from torch's global random state; none are downloaded.

    Raises
    ------
    OptionError
        `name` is unknown, its extra is not installed, or a number is below 1.

    Examples
    --------
    >>> import torch
    >>> from gravmap.network import build
    >>> network = build("ggmnet-tiny", in_channels=2, classes=5).eval()
    >>> logits = network(torch.zeros(1, 2, 30, 40))
    >>> logits.shape
    torch.Size([1, 5, 30, 40])
    >>> network.classifier.out_channels
    5
    """
    return build_from_dict(describe(name), in_channels, classes)


def describe(name: str) -> dict[str, Any]:
    """Return the architecture record of a name, without building the network.

    Parameters
    ----------
    name : str
        As in :func:`build`.

    Returns
    -------
    dict
        JSON-able; what :func:`build_from_dict` takes.

    Raises
    ------
    OptionError
        `name` is unknown.

    Examples
    --------
    >>> from gravmap.network.registry import describe
    >>> describe("unet")
    {'kind': 'unet', 'widths': [16, 32, 64, 128, 256]}
    """
    name = ALIASES.get(name, name)
    if name.startswith("smp:"):
        return SmpArchitecture.named(name).to_dict()
    known = {**PRESETS, **_OTHERS}
    if name not in known:
        near = get_close_matches(name, [*MODELS, *ALIASES], n=3)
        guess = f"Did you mean {' or '.join(near)}? " if near else ""
        raise OptionError(
            f"There is no model named {name!r}.",
            f"{guess}Known names: {', '.join([*MODELS, *ALIASES])} and smp:ARCH:ENCODER.",
        )
    described: dict[str, Any] = known[name]().to_dict()
    return described


def build_from_dict(architecture: Mapping[str, Any], in_channels: int, classes: int) -> nn.Module:
    """Build a network from its architecture record, with random weights.

    Parameters
    ----------
    architecture : mapping
        What :func:`describe`, :func:`read_architecture` or `network.architecture.to_dict()` returns.
    in_channels, classes : int
        Channels of the input and number of classes.

    Returns
    -------
    torch.nn.Module
        As :func:`build`.

    Raises
    ------
    OptionError
        The kind is unknown, the record is inconsistent, or the network of this kind has no `classifier`.

    Examples
    --------
    >>> from gravmap.network.registry import build_from_dict
    >>> network = build_from_dict({"kind": "unet", "widths": [4, 8]}, in_channels=1, classes=3)
    >>> again = build_from_dict(network.architecture.to_dict(), in_channels=1, classes=3)
    >>> again.load_state_dict(network.state_dict())
    <All keys matched successfully>
    """
    read, make = _kind(architecture)
    if in_channels < 1 or classes < 1:
        raise OptionError(
            f"A network cannot have {in_channels} input channels and {classes} classes.", "Both are at least 1."
        )
    described = read(architecture)
    _refuse_huge(architecture, in_channels, classes)
    network = make(described, in_channels, classes)
    assert isinstance(network, nn.Module)
    classifier_of(network, classes + getattr(described, "extra_outputs", 0))
    return network


MAX_PARAMETERS = 500_000_000
"""Most parameters of a network; HRNet-W64 has 114 million, and training needs about 16 bytes for each."""


def outline(architecture: Mapping[str, Any], in_channels: int, classes: int) -> dict[str, Tensor] | None:
    """Return the parameters and buffers of a network without their memory (on torch's meta device), by name.

    Returns
    -------
    dict or None
        None for networks of segmentation-models-pytorch, which compute with their weights when they are built.

    Raises
    ------
    OptionError
        As :func:`build_from_dict`.
    """
    read, make = _kind(architecture)
    described = read(architecture)
    body = getattr(described, "body", None)
    if SmpArchitecture.KIND in (architecture["kind"], body and body.get("kind")):
        return None
    try:
        with torch.device("meta"):
            # The body of an outcrop start is built without its own check: there is one for the whole.
            made: Any = (
                OutcropStart(
                    described, _bare(body, in_channels, classes + described.extra_outputs), in_channels, classes
                )
                if body
                else make(described, in_channels, classes)
            )
    except (RuntimeError, OverflowError, ValueError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise OptionError(f"The network's architecture is invalid: {first}", "Correct the record.") from None
    found: dict[str, Tensor] = made.state_dict()
    return found


def _bare(architecture: Mapping[str, Any], in_channels: int, classes: int) -> nn.Module:
    read, make = _kind(architecture)
    network = make(read(architecture), in_channels, classes)
    assert isinstance(network, nn.Module)
    return network


def _refuse_huge(architecture: Mapping[str, Any], in_channels: int, classes: int) -> None:
    """Raise DeviceError before the memory of a network is allocated that no computer here has."""
    parameters = outline(architecture, in_channels, classes)
    count = sum(each.numel() for each in parameters.values()) if parameters else 0
    if count > MAX_PARAMETERS:
        raise DeviceError(
            f"The network's architecture has {count / 1e6:,.0f} million parameters; at most"
            f" {MAX_PARAMETERS / 1e6:,.0f} million are supported.",
            "Reduce its widths.",
        )


def check_parameters(
    architecture: Mapping[str, Any], tensors: Mapping[str, Tensor], in_channels: int, classes: int
) -> None:
    """Check that stored tensors are those of a network, by name, shape and type, before it is built.

    Raises
    ------
    ValueError
        With the first difference.
    OptionError
        As :func:`build_from_dict`.
    """
    expected = outline(architecture, in_channels, classes)
    if expected is None:
        return
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors or name not in expected:
            raise ValueError(f"the tensor {name} {'is missing' if name in expected else 'is not part of it'}.")
        found, wanted = tensors[name], expected[name]
        # The weights of the shipped network are stored as float16.
        same_kind = found.dtype == wanted.dtype or (found.is_floating_point() and wanted.is_floating_point())
        if found.shape != wanted.shape or not same_kind:
            described = [f"{str(each.dtype).removeprefix('torch.')} {list(each.shape)}" for each in (found, wanted)]
            raise ValueError(f"the tensor {name} is {described[0]}, not {described[1]}.")


def read_architecture(path: Path) -> dict[str, Any]:
    """Read an architecture record from a JSON or TOML file and check it.

    Parameters
    ----------
    path : Path
        TOML if the name ends in ``.toml``, else JSON. Of the ``model.json`` of a run its `architecture` is read.

    Returns
    -------
    dict
        What :func:`build_from_dict` takes.

    Raises
    ------
    InputError
        The file is missing, or it is not valid JSON or TOML.
    OptionError
        The record is inconsistent; the message names the key.

    Examples
    --------
    >>> import json, tempfile
    >>> from pathlib import Path
    >>> from gravmap.network.registry import read_architecture
    >>> path = Path(tempfile.mkdtemp()) / "network.json"
    >>> _ = path.write_text(json.dumps({"kind": "unet", "widths": [4, 8]}))
    >>> read_architecture(path)
    {'kind': 'unet', 'widths': [4, 8]}
    """
    record = read_record(path, dict[str, Any], hint=_HOW)
    if isinstance(record.get("architecture"), dict):
        record = record["architecture"]
    try:
        described: dict[str, Any] = _kind(record)[0](record).to_dict()
        body = described.get("body", described)
        _refuse_huge(body, 1, 2)
    except (OptionError, DeviceError) as error:
        raise type(error)(f"{path}: {error.message}", error.hint) from None
    return described


def _outcrop_start(record: Mapping[str, Any]) -> OutcropStartArchitecture:
    """Read the record of a network that starts from outcrop, and check that of its body."""
    architecture = OutcropStartArchitecture.from_dict(record)
    body = _kind(architecture.body)[0](architecture.body).to_dict()
    return replace(architecture, body=body)


def _with_body(architecture: OutcropStartArchitecture, in_channels: int, classes: int) -> OutcropStart:
    body = build_from_dict(architecture.body, in_channels, classes + architecture.extra_outputs)
    return OutcropStart(architecture, body, in_channels, classes)


def _kind(record: Mapping[str, Any]) -> tuple[Callable[[Mapping[str, Any]], Any], Callable[..., SegmentationNetwork]]:
    """Return the functions that read a record of this kind and build its network."""
    kind = record.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise OptionError(
            f"Unknown kind of architecture: {kind!r}.",
            f"Known kinds: {', '.join(_KINDS)}. If the record was written by a newer gravmap, upgrade.",
        )
    return _KINDS[kind]


_HOW = "`json.dump(network.architecture.to_dict(), file)` writes one; `gravmap train` writes it into model.json."
