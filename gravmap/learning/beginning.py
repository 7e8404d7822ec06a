"""What a run begins with: the channels its network reads, the network itself, and perhaps another run's weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from gravmap.errors import InputError, OptionError
from gravmap.learning.calibration import weights_sha256
from gravmap.learning.channels import InputChannels
from gravmap.learning.checkpoint import ModelSpec, load_model
from gravmap.learning.config import TrainConfig
from gravmap.learning.grounds import Grounds
from gravmap.learning.outcrop import CONTEXT, context_names, is_context, split_names


def choose_inputs(grounds: Grounds, config: TrainConfig) -> InputChannels:
    """The channels of a run: those asked for, and the outcrop's after them where it is the context.

    On crusts gravity is divided by fixed numbers, so that the network works on any ground. A run that goes on from
    another keeps that one's numbers: its weights presume them.

    Raises
    ------
    InputError
        The ground lacks a field; or the other run knows other fields or classes.
    OptionError
        A name stands twice, no field is among them, or one has no fixed spread.
    """
    measured, _ = split_names(config.inputs or grounds.first.channels)
    names = measured + (context_names(len(grounds.classes)) if config.context == CONTEXT else [])
    if config.init is None:
        return InputChannels.fit(grounds.first, names, fixed=grounds.simulated)
    inputs = InputChannels.from_list(config.init["inputs"])
    _refuse_other("channels", inputs.names, names, config.init["run"])
    theirs, ours = (
        [f"{each['index']} {each['name']}" for each in classes] for classes in (config.init["classes"], grounds.classes)
    )
    _refuse_other("classes", theirs, ours, config.init["run"])
    return inputs


def make_network(inputs: InputChannels, config: TrainConfig, class_cells: NDArray[np.float64]) -> nn.Module:
    """A network with fresh weights; with outcrop as context, one that starts from it.

    Parameters
    ----------
    inputs : InputChannels
        What it reads.
    config : TrainConfig
        Which network.
    class_cells : ndarray, shape (K,)
        Labelled training cells of each class.
    """
    from gravmap.network import build_from_dict, describe
    from gravmap.network.outcrop_start import OutcropStartArchitecture, around

    described = config.architecture or describe(config.model)
    planes = inputs.outcrop_planes
    if planes is not None and described.get("kind") != OutcropStartArchitecture.KIND:
        described = around(described, planes)
    network: Any = build_from_dict(described, in_channels=inputs.width, classes=len(class_cells))
    if hasattr(network, "set_prior"):
        network.set_prior((class_cells / max(class_cells.sum(), 1.0)).tolist())
    made: nn.Module = network
    return made


def begin_from(config: TrainConfig, folder: Path) -> TrainConfig:
    """The configuration of a run that begins with another's weights: its network, context and channels.

    Parameters
    ----------
    config : TrainConfig
        Of the new run.
    folder : Path
        Of the other run: ``model.safetensors`` and ``model.json``.

    Raises
    ------
    InputError
        A file is missing or damaged.
    """
    _, spec = load_model(folder)
    return replace(
        config,
        model=spec.model,
        architecture=spec.architecture,
        context=CONTEXT if any(map(is_context, spec.channels)) else None,
        inputs=split_names(spec.channels)[0],
        init=_record(spec, folder),
    )


def take_weights(network: nn.Module, init: dict[str, Any]) -> None:
    """Give a network the weights that its run begins with.

    Raises
    ------
    InputError
        The other run is gone, or has other weights by now.
    """
    folder = Path(init["folder"])
    other, _ = load_model(folder)
    if weights_sha256(folder) != init["weights_sha256"]:
        raise InputError(f"{folder} has other weights than when this run began.", "Train anew: --init.")
    network.load_state_dict(other.state_dict())


def _record(spec: ModelSpec, folder: Path) -> dict[str, Any]:
    return {
        "run": folder.name,
        "folder": str(folder.resolve()),
        "weights_sha256": weights_sha256(folder),
        "inputs": spec.inputs,
        "classes": spec.classes,
        "taught_on": spec.taught_on,
    }


def _refuse_other(what: str, theirs: list[str], ours: list[str], run: str) -> None:
    if theirs != ours:
        raise OptionError(
            f"{run} was trained with other {what}: {', '.join(theirs)}; here they are {', '.join(ours)}.",
            "Weights can only be taken over with the same channels and classes, in the same order.",
        )
