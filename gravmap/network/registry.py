"""Networks by name, and from the record of their architecture."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import nn

from gravmap.errors import InputError, OptionError
from gravmap.network.architecture import Architecture
from gravmap.network.bisenet import BiSeNet, BiSeNetArchitecture
from gravmap.network.ggmnet import GGMNet
from gravmap.network.hrnet import HRNet, HRNetArchitecture
from gravmap.network.outcrop_start import OutcropStart, OutcropStartArchitecture
from gravmap.network.presets import PRESETS
from gravmap.network.residual_unet import ResidualUNet, ResidualUNetArchitecture
from gravmap.network.smp import SmpArchitecture, SmpNetwork
from gravmap.network.unet import UNet, UNetArchitecture

_OTHERS: dict[str, Callable[[], Any]] = {
    "unet": UNetArchitecture,
    "residual-unet": ResidualUNetArchitecture,
    "hrnetv1-w32": HRNetArchitecture,
    "bisenet-resnet18": BiSeNetArchitecture,
}

MODELS = (*PRESETS, *_OTHERS)
"""Every name that needs no extra; besides these there are `smp:ARCH:ENCODER` and `ALIASES`."""

ALIASES = {"deeplabv3plus-resnet50": "smp:deeplabv3plus:resnet50"}
"""Names of networks that segmentation-models-pytorch has as they are: those of Chen et al. 2018, arXiv:1802.02611."""

_KINDS: dict[str, tuple[Callable[[Mapping[str, Any]], Any], Callable[..., nn.Module]]] = {
    Architecture.KIND: (Architecture.from_dict, GGMNet),
    UNetArchitecture.KIND: (UNetArchitecture.from_dict, UNet),
    ResidualUNetArchitecture.KIND: (ResidualUNetArchitecture.from_dict, ResidualUNet),
    HRNetArchitecture.KIND: (HRNetArchitecture.from_dict, HRNet),
    BiSeNetArchitecture.KIND: (BiSeNetArchitecture.from_dict, BiSeNet),
    SmpArchitecture.KIND: (SmpArchitecture.from_dict, SmpNetwork),
    OutcropStartArchitecture.KIND: (lambda record: _outcrop_start(record), lambda *shape: _with_body(*shape)),
}


def build(name: str = "ggmnet", *, in_channels: int = 1, classes: int = 10) -> nn.Module:
    """Make a network by name, with fresh weights.

    Parameters
    ----------
    name : str
        One of `MODELS`, or ``smp:ARCH:ENCODER`` (``smp:unet:resnet34``) where segmentation-models-pytorch is installed.
    in_channels : int
        Planes of the input (see `gravmap.learning.data.channels`).
    classes : int
        Classes to tell apart (the cover is not one).

    Returns
    -------
    torch.nn.Module
        Takes (N, in_channels, H, W), gives logits (N, classes, H, W), for any H, W >= 1 pixel. Its `architecture`
        is a frozen dataclass whose `to_dict()` is all that `build_from_dict` needs. Weights come from torch's
        global random state; none are downloaded.

    Raises
    ------
    OptionError
        `name` is not known, its extra is not installed, or a number is below 1.
    """
    return build_from_dict(describe(name), in_channels, classes)


def describe(name: str) -> dict[str, Any]:
    """Give the record of the architecture that has this name, without building it.

    Raises
    ------
    OptionError
        `name` is not known.
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
            f"{guess}There are {', '.join([*MODELS, *ALIASES])} and smp:ARCH:ENCODER.",
        )
    described: dict[str, Any] = known[name]().to_dict()
    return described


def build_from_dict(architecture: Mapping[str, Any], in_channels: int, classes: int) -> nn.Module:
    """Make the network that `module.architecture.to_dict()` describes (of any kind), with fresh weights.

    Raises
    ------
    OptionError
        The description is of no known kind, or does not hold together.
    """
    read, make = _kind(architecture)
    if in_channels < 1 or classes < 1:
        raise OptionError(f"A network with {in_channels} input channels and {classes} classes has no use.")
    return make(read(architecture), in_channels, classes)


def read_architecture(path: Path) -> dict[str, Any]:
    """Read an architecture from a JSON or TOML file, checked: what a network's `architecture.to_dict()` gives.

    Parameters
    ----------
    path : Path
        TOML where the name ends in ``.toml``, else JSON. A ``model.json`` of a run serves, too: its `architecture` is
        taken.

    Returns
    -------
    dict
        What :func:`build_from_dict` takes.

    Raises
    ------
    InputError
        No such file, or it is neither.
    OptionError
        The record does not hold together; the message names the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
        record = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except FileNotFoundError:
        raise InputError(f"{path} is missing.", _HOW) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"{path} is no readable {'TOML' if path.suffix == '.toml' else 'JSON'}: {error}.", _HOW
        ) from None
    if isinstance(record, dict) and isinstance(record.get("architecture"), dict):
        record = record["architecture"]
    if not isinstance(record, dict):
        raise InputError(f"{path} holds no record of an architecture.", _HOW)
    try:
        described: dict[str, Any] = _kind(record)[0](record).to_dict()
    except OptionError as error:
        raise OptionError(f"{path}: {error.message}", error.hint) from None
    return described


def _outcrop_start(record: Mapping[str, Any]) -> OutcropStartArchitecture:
    """Read the record of a network that starts from outcrop; its body's is checked as any."""
    architecture = OutcropStartArchitecture.from_dict(record)
    body = _kind(architecture.body)[0](architecture.body).to_dict()
    return replace(architecture, body=body)


def _with_body(architecture: OutcropStartArchitecture, in_channels: int, classes: int) -> OutcropStart:
    return OutcropStart(architecture, build_from_dict(architecture.body, in_channels, classes), in_channels, classes)


def _kind(record: Mapping[str, Any]) -> tuple[Callable[[Mapping[str, Any]], Any], Callable[..., nn.Module]]:
    """What reads and what makes an architecture of this kind."""
    kind = record.get("kind")
    if kind not in _KINDS:
        raise OptionError(
            f"The architecture's kind is {kind!r}, which this version does not know.",
            f"Known kinds are {', '.join(_KINDS)}; was it written by a newer gravmap?",
        )
    return _KINDS[kind]


_HOW = "`json.dump(network.architecture.to_dict(), file)` writes one; so does `train`, as architecture in model.json."
