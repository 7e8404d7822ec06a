"""What a run begins with: the channels its network reads, the network itself, and perhaps another run's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from gravmap.errors import InputError, OptionError
from gravmap.learning.calibration.temperature import weights_sha256
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.outcrop_context import CONTEXT, context_names, measured_names
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.sampling.tiles import Tiles
from gravmap.learning.training.checkpoint import load_model
from gravmap.learning.training.config import TrainConfig


def choose_inputs(grounds: DatasetSplits, config: TrainConfig) -> InputChannels:
    """The channels of a run: those asked for, and the outcrop's after them where it is the context.

    On crusts gravity is divided by fixed numbers, so that the network works on any ground. A run that goes on from
    another keeps that one's numbers: its weights presume them.

    Raises
    ------
    InputError
        The ground lacks a field; or the other run learnt from gravity of another kind or from another level.
    OptionError
        A name stands twice, no field is among them, or one has no fixed spread; or the other run knows other channels
        or classes.
    """
    measured = measured_names(config.inputs or grounds.first.channels)
    names = measured + (context_names(len(grounds.classes)) if config.context == CONTEXT else [])
    if config.init is None:
        return InputChannels.fit(grounds.first, names, fixed=grounds.simulated)
    inputs = InputChannels.from_list(config.init["inputs"])
    _refuse_other("channels", inputs.names, names, config.init["run"])
    theirs, ours = (
        [f"{each['index']} {each['name']}" for each in classes] for classes in (config.init["classes"], grounds.classes)
    )
    _refuse_other("classes", theirs, ours, config.init["run"])
    _refuse_other_field(config.init, grounds.meta.get("field_recipe", {}))
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
    from gravmap.network import build, build_from_dict, describe
    from gravmap.network.outcrop_start import OutcropStartArchitecture, with_outcrop_start

    shape = {"in_channels": inputs.width, "classes": len(class_cells)}
    described, planes = config.architecture, inputs.outcrop_planes
    if planes is not None:
        described = described or describe(config.model)
        if described.get("kind") != OutcropStartArchitecture.KIND:
            described = with_outcrop_start(described, planes)
    network: Any = build_from_dict(described, **shape) if described else build(config.model, **shape)
    if hasattr(network, "set_prior"):
        network.set_prior((class_cells / max(class_cells.sum(), 1.0)).tolist())
    made: nn.Module = network
    return made


@dataclass(frozen=True)
class WarmStart:
    """What another run decides of one that begins with its weights.

    Attributes
    ----------
    init : dict
        For :class:`TrainConfig`: whose weights, how their input is made, and what they were taught on.
    model : str
    architecture : dict
        The network.
    context : str or None
        Whether it starts from outcrop.
    measured : list of str
        The channels it reads beside the context's.
    tile_size_px : int
    scales_deg : list of float
        The windows it was taught on.
    """

    init: dict[str, Any]
    model: str
    architecture: dict[str, Any]
    context: str | None
    measured: list[str]
    tile_size_px: int
    scales_deg: list[float]

    def windows_for(self, scales_deg: Sequence[float]) -> tuple[list[float], int]:
        """The windows of a ground, of the sizes it has, on which pixels are as large as the network knows them.

        Returns
        -------
        list of float
            The same sizes where the ground has all of them; else the largest that is none larger than the network's
            largest, or the smallest there is.
        int
            Pixels across a window.
        """
        have = sorted(set(scales_deg))
        if all(any(abs(scale - each) < 1e-6 for each in have) for scale in self.scales_deg):
            return self.scales_deg, self.tile_size_px
        largest = max(self.scales_deg)
        chosen = max([scale for scale in have if scale <= largest + 1e-6], default=have[0])
        return [chosen], 2 * max(round(self.tile_size_px * chosen / largest / 2), 8)


def load_pretrained(folder: Path) -> WarmStart:
    """Read what a run decides of another that begins with its weights.

    Parameters
    ----------
    folder : Path
        Of the run: ``model.safetensors`` and ``model.json``.

    Raises
    ------
    InputError
        A file is missing or damaged.
    """
    _, spec = load_model(folder)
    init = {
        "run": folder.name,
        "folder": str(folder.resolve()),
        "weights_sha256": weights_sha256(folder),
        "inputs": spec.inputs,
        "classes": spec.classes,
        "field_recipe": spec.field_recipe,
        "taught_on": spec.taught_on,
    }
    measured = measured_names(spec.channels)
    context = CONTEXT if spec.input.reads_outcrop else None
    return WarmStart(init, spec.model, spec.architecture, context, measured, spec.tile_size_px, spec.scales_deg)


def load_weights(network: nn.Module, init: dict[str, Any]) -> None:
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


def _refuse_other(what: str, theirs: list[str], ours: list[str], run: str) -> None:
    if theirs != ours:
        raise OptionError(
            f"{run} was trained with other {what}: {', '.join(theirs)}; here they are {', '.join(ours)}.",
            "Weights can only be taken over with the same channels and classes, in the same order.",
        )


SAME_FIELD = ("quantity", "unit", "input_height_m")
"""What must be alike of two fields for a name of theirs to mean the same part of the spectrum; spacing may differ."""


def _refuse_other_field(init: dict[str, Any], ours: dict[str, Any]) -> None:
    theirs = init["field_recipe"]
    unlike = [key for key in SAME_FIELD if theirs.get(key) != ours.get(key)]
    if unlike:
        words = "; ".join(f"{key} {theirs.get(key)} there and {ours.get(key)} here" for key in unlike)
        raise InputError(
            f"{init['run']} was trained on another field than this: {words}. Heights count from a field's own level.",
            "Train without --init, or on crusts as this field shows them.",
        )


def fingerprint_of(grounds: DatasetSplits, tiles: Tiles | None) -> str:
    """Hash of all that crops are cut from: the grounds as given, and the tiles where they are read."""
    found = grounds.fingerprint()
    if tiles is None:
        return found
    return hashlib.sha256(f"{found} {tiles.record['sha256']}".encode()).hexdigest()
