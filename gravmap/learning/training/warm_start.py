"""Warm start: fine-tune the weights of an earlier run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gravmap.classes import NamedClasses, table_name
from gravmap.errors import InputError, OptionError
from gravmap.learning.calibration.temperature import weights_sha256
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.outcrop_context import CONTEXT, measured_names
from gravmap.learning.training.checkpoint import load_model
from gravmap.records import PretrainedRecord, check_record


@dataclass(frozen=True)
class WarmStart:
    """What the run whose weights are fine-tuned decides of the new one.

    Attributes
    ----------
    init : dict
        For `TrainConfig.init`: which weights, how their input is made, and what they were trained on.
    model : str
        Name of the network.
    architecture : dict
        Its architecture record.
    context : str or None
        "outcrop" if the network starts from the outcrop.
    measured : list of str
        Input channels, without those of the context.
    tile_size_px : int
        Pixels across a training window.
    scales_deg : list of float
        Sizes of the training windows, degrees.
    """

    init: PretrainedRecord
    model: str
    architecture: dict[str, Any]
    context: str | None
    measured: list[str]
    tile_size_px: int
    scales_deg: list[float]

    def windows_for(self, scales_deg: Sequence[float]) -> tuple[list[float], int]:
        """Choose windows of a dataset so that its pixels are as large as those the network was trained on.

        Parameters
        ----------
        scales_deg : sequence of float
            Window sizes that the dataset has, degrees.

        Returns
        -------
        list of float
            The network's window sizes if the dataset has all of them; else the largest size that is not larger than
            the network's largest, or the smallest of the dataset.
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
    """Read a run whose weights are to be fine-tuned.

    Parameters
    ----------
    folder : Path
        The run's folder, with ``model.safetensors`` and ``model.json``.

    Returns
    -------
    WarmStart
        Its `init` is for `TrainConfig.init`; the rest sets the other options of the new run.

    Raises
    ------
    InputError
        A file is missing or damaged.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from gravmap.learning import TrainConfig
    >>> from gravmap.learning.training.checkpoint import ModelSpec
    >>> from gravmap.learning.training.checkpoint import save_model
    >>> from gravmap.learning.training.warm_start import load_pretrained
    >>> from gravmap.network.registry import build_from_dict
    >>> network = build_from_dict({"kind": "unet", "widths": [4, 8]}, in_channels=1, classes=2)
    >>> folder = Path(tempfile.mkdtemp()) / "basin"
    >>> save_model(folder, network, ModelSpec(
    ...     model="small-unet",
    ...     architecture=network.architecture.to_dict(),
    ...     inputs=[{"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 9.5}],
    ...     classes=[{"index": 1, "name": "granite"}, {"index": 2, "name": "basalt"}],
    ...     tile_size_px=64, scales_deg=[5.0], field_recipe={}, split={}, seed=0,
    ... ))
    >>> start = load_pretrained(folder)
    >>> config = TrainConfig(
    ...     model=start.model, architecture=start.architecture, inputs=start.measured, init=start.init, lr=1e-4
    ... )
    >>> config.init["run"]
    'basin'
    """
    _, spec = load_model(folder)
    stored = {
        "run": folder.name,
        "folder": str(folder.resolve()),
        "weights_sha256": weights_sha256(folder),
        "inputs": spec.inputs,
        "classes": spec.classes,
        "class_table": table_name(spec.legend_toml),
        "field_recipe": spec.field_recipe,
        "scales_deg": spec.scales_deg,
        "taught_on": spec.taught_on,
    }
    init = check_record(stored, PretrainedRecord, str(folder))
    measured = measured_names(spec.channels)
    context = CONTEXT if spec.input.reads_outcrop else None
    return WarmStart(init, spec.model, spec.architecture, context, measured, spec.tile_size_px, spec.scales_deg)


def load_weights(network: nn.Module, init: PretrainedRecord, inputs: InputChannels) -> None:
    """Load the pre-trained weights of `TrainConfig.init` into a network.

    Layers that the pre-trained network did not read begin with weights of zero: before the first step the output is
    that of the pre-trained network.

    Raises
    ------
    InputError
        The pre-trained run is missing, or its weights have changed.
    """
    folder = Path(init["folder"])
    other, _ = load_model(folder)
    if weights_sha256(folder) != init["weights_sha256"]:
        raise InputError(f"The weights in {folder} have changed since this run was started.", "Train anew with --init.")
    before, now = InputChannels.from_list(init["inputs"]), inputs
    planes = None
    if before.width != now.width:
        planes = [plane for name in before.names for plane in now.planes[name]]
    network.load_state_dict(_fitted(other.state_dict(), network.state_dict(), planes, now.width))


def with_new_layers(init: PretrainedRecord, fitted: InputChannels) -> InputChannels:
    """The channels of the pre-trained network with its numbers, and after the measured ones those it did not read.

    Parameters
    ----------
    init : dict
        `TrainConfig.init`, of the pre-trained run.
    fitted : InputChannels
        All channels of the new run, in its order, measured on its data.
    """
    known = {channel.name: channel for channel in InputChannels.from_list(init["inputs"]).channels}
    return InputChannels(tuple(known.get(channel.name, channel) for channel in fitted.channels))


def _fitted(
    theirs: dict[str, Tensor], ours: dict[str, Tensor], planes: list[int] | None = None, width: int = 0
) -> dict[str, Tensor]:
    """Weights of another network where the two differ in the outputs of thickness, the classifier's last, or in input.

    `planes` are the places of its input planes among the `width` of the new network.

    On a region the thickness is not known, and the output is left out; where the pre-trained network had none, it
    starts as at random weights.
    """
    fitted = {}
    for name, value in theirs.items():
        own = ours.get(name)
        if own is not None and own.shape[1:] == value.shape[1:] and own.shape[:1] != value.shape[:1]:
            shared = min(len(own), len(value))
            value = torch.cat((value[:shared], own[shared:]))
        reads_input = planes is not None and own is not None and own.dim() > 1 and own.shape[1] == width
        if planes is not None and own is not None and reads_input and value.shape[1] == len(planes) != width:
            wider = torch.zeros_like(own)
            wider[:, planes] = value
            value = wider
        fitted[name] = value
    return fitted


SAME_FIELD = ("quantity", "unit", "input_height_m")
"""Keys in which two fields must agree for a channel name to mean the same part of the spectrum; spacing may differ."""


def refuse_incompatible(
    init: PretrainedRecord,
    theirs: list[str],
    ours: list[str],
    classes: list[dict[str, Any]],
    field_recipe: dict[str, Any],
    legend_toml: str = "",
    *,
    simulated: bool = False,
) -> None:
    """Refuse to fine-tune weights on other channels, classes or another kind of gravity field.

    Parameters
    ----------
    init : dict
        `TrainConfig.init`, of the pre-trained run.
    theirs, ours : list of str
        Input channels of the pre-trained network and of the new run.
    classes : list of dict
        Classes of the new run.
    field_recipe : dict
        How the field of the new run was made.
    legend_toml : str
        Legend of the labels of the new run, which names its class table.
    simulated : bool
        Whether the new run is trained on simulated crusts, whose classes cannot be chosen.

    Raises
    ------
    OptionError
        Channels differ by more than layers that the new run adds.
    InputError
        Classes differ, or the gravity field differs in quantity, unit or level.
    """
    layers = set(field_recipe.get("by_channel", {})) - set(theirs)
    if theirs != [name for name in ours if name not in layers]:
        raise OptionError(
            f"{init['run']} was trained with other channels: {', '.join(theirs)}; this run has {', '.join(ours)}.",
            "Weights can only be fine-tuned with the same channels, and layers (`gravmap layer add`) beside them:"
            f" --input {','.join(measured_names(theirs))}.",
        )
    trained = NamedClasses.of(init["classes"])
    trained = replace(trained, table=init.get("class_table") or trained.table)
    mismatch = trained.describe_mismatch(
        f"The run {init['run']}", "the data of this run", NamedClasses.of(classes, legend_toml)
    )
    if mismatch:
        make = "" if simulated else f"{trained.how_to_make(tiles=True)}; or "
        raise InputError(mismatch, f"{make}{'T' if simulated else 't'}rain without --init.")
    unlike = [key for key in SAME_FIELD if init["field_recipe"].get(key) != field_recipe.get(key)]
    if unlike:
        words = "; ".join(f"{key} {init['field_recipe'].get(key)}, here {field_recipe.get(key)}" for key in unlike)
        raise InputError(
            f"{init['run']} was trained on another gravity field: {words}. Heights are relative to the level "
            "of the field.",
            "Train without --init, or on simulated crusts with the level of this field.",
        )
