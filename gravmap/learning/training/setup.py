"""What a training run is set up from: its data, input channels and network."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gravmap.errors import GravmapError, out_of_memory
from gravmap.lattice import mask_name
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.data.outcrop_context import CONTEXT, context_names, measured_names
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.training.checkpoint import ModelSpec, versions
from gravmap.learning.training.config import TrainConfig
from gravmap.learning.training.distributed import Group
from gravmap.learning.training.loss import class_counts
from gravmap.learning.training.warm_start import refuse_incompatible, with_new_layers
from gravmap.network.precision import choose_precision

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Data of a run and how the network reads them.

    Attributes
    ----------
    splits : DatasetSplits
        Datasets to train, tune and test on; with the outcrop channels if the configuration asks for them.
    inputs : InputChannels
        Turns fields into the network's input.
    tile_size_px : int
        Pixels across a window.
    scales_deg : list of float
        Sizes of the training windows, degrees.
    class_cells : ndarray, shape (K,)
        Labelled training cells of each class.
    fingerprint : str
        SHA-256 of the data as given, and of the tile files if crops are cut from them.
    """

    splits: DatasetSplits
    inputs: InputChannels
    tile_size_px: int
    scales_deg: list[float]
    class_cells: NDArray[np.float64]
    fingerprint: str

    @classmethod
    def prepare(cls, data: RegionDataset | DatasetSplits, config: TrainConfig) -> TrainingData:
        """Choose the input channels and add the outcrop channels to the data.

        Raises
        ------
        InputError, OptionError
            As :func:`choose_inputs`; or the region has no outcrop to hide.
        """
        given = DatasetSplits.of(data)
        splits = given.with_outcrop(config.cuts, config.seed) if config.context else given
        return cls(
            splits=splits,
            inputs=choose_inputs(splits, config),
            tile_size_px=config.tile_size_px or int(splits.meta["tile_size_px"]),
            scales_deg=sorted(set(config.scales_deg or splits.scales_deg)),
            class_cells=np.sum([class_counts(dataset) for dataset in splits.train], axis=0),
            fingerprint=given.fingerprint(),
        )

    @property
    def classes(self) -> list[dict[str, Any]]:
        """Index, name, colour and age of each class."""
        return self.splits.classes

    @property
    def unlabelled_classes(self) -> list[str]:
        """Names of the classes without a training label."""
        return [str(each["name"]) for each, count in zip(self.classes, self.class_cells, strict=True) if not count]

    def thickness_weight(self, config: TrainConfig) -> float:
        """Weight of the loss of the thickness of the cover; 0 where it is not known or nothing starts from outcrop."""
        known = self.splits.knows_thickness and self.inputs.outcrop_planes is not None
        return config.thickness_weight if known else 0.0

    def model_spec(self, config: TrainConfig, architecture: dict[str, Any], scores: dict[str, Any]) -> ModelSpec:
        """Return the description that is saved beside the weights, with the precision that "auto" was."""
        meta, tiles = self.splits.meta, self.splits.tiles
        used = replace(config, precision=choose_precision(config.precision, config.device))
        return ModelSpec(
            model=config.model,
            architecture=architecture,
            inputs=self.inputs.to_list(),
            classes=self.classes,
            tile_size_px=self.tile_size_px,
            scales_deg=self.scales_deg,
            field_recipe=dict(meta.get("field_recipe", {})),
            split=dict(meta.get("split", {})),
            seed=config.seed,
            recipe=json.loads(used.to_json()),
            versions=versions(),
            sources=[*meta.get("sources", []), *([tiles.record] if tiles is not None else [])],
            scores=scores,
            legend_toml=str(meta.get("legend_toml", "")),
            region_wsen=[] if self.splits.simulated else [float(side) for side in meta.get("region_wsen", [])],
            area_sha256=self.fingerprint,
            taught_on=self.splits.record,
        )


def choose_inputs(splits: DatasetSplits, config: TrainConfig) -> InputChannels:
    """Choose the input channels: those of the configuration, then those of the outcrop context.

    On simulated crusts, gravity is divided by fixed numbers, so that the network works in any region. A fine-tuned
    network keeps the numbers of the run it starts from, because its weights depend on them; layers that it did not read
    are added.

    Raises
    ------
    InputError
        A field is missing from the data; or the pre-trained network used another kind of gravity or another level.
    OptionError
        A name is repeated, no field is among the names, or a field has no fixed scale; or the pre-trained network has
        other channels or classes.
    """
    masks = [mask_name(layer) for layer in splits.first.layers]
    measured = measured_names(config.inputs or [name for name in splits.first.channels if name not in masks])
    names = measured + (context_names(len(splits.classes)) if config.context == CONTEXT else [])
    if config.init is None:
        return InputChannels.fit(splits.first, names, fixed=splits.simulated)
    trained = InputChannels.from_list(config.init["inputs"])
    meta = splits.meta
    recipe, legend_toml = meta.get("field_recipe", {}), str(meta.get("legend_toml", ""))
    refuse_incompatible(
        config.init, trained.names, names, splits.classes, recipe, legend_toml, simulated=splits.simulated
    )
    return trained if trained.names == names else with_new_layers(config.init, InputChannels.fit(splits.first, names))


def make_network(
    inputs: InputChannels, config: TrainConfig, class_cells: NDArray[np.float64], thickness: bool = False
) -> nn.Module:
    """Build the network of a run with random weights; with outcrop context, one that starts from the outcrop.

    Parameters
    ----------
    inputs : InputChannels
        Input channels.
    config : TrainConfig
        Name or architecture of the network.
    class_cells : ndarray, shape (K,)
        Labelled training cells of each class, from which the bias of the classifier is set.
    thickness : bool
        With outcrop context: whether it also outputs the thickness of the cover.
    """
    from gravmap.network import build
    from gravmap.network.outcrop_start import OutcropStartArchitecture, with_outcrop_start
    from gravmap.network.registry import build_from_dict, describe

    shape = {"in_channels": inputs.width, "classes": len(class_cells)}
    described, planes = config.architecture, inputs.outcrop_planes
    if planes is not None:
        described = described or describe(config.model)
        body = described["body"] if described.get("kind") == OutcropStartArchitecture.KIND else described
        described = with_outcrop_start(body, planes, thickness)
    network: Any = build_from_dict(described, **shape) if described else build(config.model, **shape)
    if hasattr(network, "set_prior"):
        network.set_prior((class_cells / max(class_cells.sum(), 1.0)).tolist())
    made: nn.Module = network
    return made


def compile_network(
    network: nn.Module, group: Group, attempt: Callable[[Callable[[Tensor], Tensor]], object]
) -> Callable[[Tensor], Tensor]:
    """Compile a network; where that fails in one process, no process uses the compiled one, and a warning says so.

    Parameters
    ----------
    network : nn.Module
        The network, with synchronised batch normalisation if it is to have that.
    group : Group
        The processes that train together.
    attempt : callable
        Runs a forward and a backward pass through the function that it is given, as in training. Gradients and
        running statistics are restored.

    Returns
    -------
    callable
        The compiled network, which shares the weights; or `network`.
    """
    if group.size > 1:
        # Without the exchanges of batch normalisation: a machine may lack a compiler while the others have one.
        small = torch.compile(torch.neg)
        if _fails(group, lambda: small(torch.ones(8, device=group.device))):
            return network
    compiled: Callable[[Tensor], Tensor] = torch.compile(network)
    buffers = [buffer.clone() for buffer in network.buffers()]
    failed = _fails(group, lambda: attempt(compiled))
    network.zero_grad(set_to_none=True)
    for buffer, value in zip(network.buffers(), buffers, strict=True):
        buffer.copy_(value)
    return network if failed else compiled


def _fails(group: Group, attempt: Callable[[], object]) -> bool:
    """Return whether `attempt` fails in any process; the first one warns."""
    failed = torch.zeros(group.size, device=group.device)
    reason = ""
    try:
        attempt()
    except GravmapError:
        raise
    except Exception as error:
        # Memory that lacks is no failure of the compiler, and found again, and dealt with, in training.
        if out_of_memory(error) is None:
            failed[group.rank] = 1
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    group.sum(failed)
    if failed.any() and int(failed.argmax()) == group.rank:
        log.warning("The network cannot be compiled, and is used as it is (--compile): %s", reason)
    return bool(failed.any())
