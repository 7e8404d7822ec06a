"""Predictions of the networks on the test nodes, for Figure 5 and for confidence intervals of differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gravmap.lattice import TEST
from gravmap.learning.data.channels import fields_read
from gravmap.learning.data.dataset import RegionDataset, to_label, to_target
from gravmap.learning.evaluation.comparison import Difference, block_numbers, paired_bootstrap
from gravmap.learning.evaluation.held_out import node_logits, scoring_scale
from gravmap.learning.evaluation.null_models import NULL_MODELS, held_out_mask, null_maps
from gravmap.learning.training.checkpoint import load_model
from gravmap.progress import Progress, silent
from gravmap.reproduce.outcome import Trained
from gravmap.tiling import load_arrays
from gravmap.workspace import Workspace

NEAREST = NULL_MODELS["nearest_outcrop"].title


@dataclass(frozen=True)
class HeldOutMaps:
    """Class maps of the test nodes of one split.

    Attributes
    ----------
    dataset : RegionDataset
        Fields, labels and roles of that split.
    labels : (ny, nx) uint8
        Mapped classes.
    scored : (ny, nx) bool
        Nodes that are scored.
    maps : dict of str to (ny, nx) uint8 array
        Predicted classes by predictor: nearest outcrop, then the networks by their labels. Valid at scored nodes only.
    """

    dataset: RegionDataset
    labels: NDArray[np.uint8]
    scored: NDArray[np.bool_]
    maps: dict[str, NDArray[np.uint8]]

    def gain(self, name: str, measure: str, seed: int = 0) -> Difference:
        """Score of a network minus that of nearest outcrop, with a confidence interval from a bootstrap over blocks.

        Parameters
        ----------
        name : str
            Key of `maps`.
        measure : str
            Key of `gravmap.learning.evaluation.comparison.MEASURES`.
        seed : int
            Seed of the resampling.
        """
        truth, ours, nearest = (
            to_target(each[self.scored]) for each in (self.labels, self.maps[name], self.maps[NEAREST])
        )
        return paired_bootstrap(truth, ours, nearest, block_numbers(self.dataset)[self.scored], measure, seed=seed)


def predict_held_out(
    place: Workspace, trained: Sequence[Trained], *, device: str = "cpu", progress: Progress = silent
) -> HeldOutMaps:
    """Predict the test nodes with each network, as ``gravmap train`` does to score it.

    Parameters
    ----------
    place : Workspace
        Workspace of the runs.
    trained : sequence of Trained
        Finished runs under one split, at least one.
    device : str
        Device of the networks.
    progress : Progress
        Called with the number of finished networks.

    Raises
    ------
    InputError
        The files of a run or the tile set are damaged, or nothing is held out.
    """
    _, first = load_model(trained[0].folder)
    split, fold = str(first.split.get("name", "blocks")), int(first.split.get("fold", 0))
    # All runs of a reproduction have the same input channels.
    dataset = RegionDataset.from_arrays(
        load_arrays(place.tiles, channels=fields_read(first.input.names), split=split, fold=fold)
    )
    labels, _ = dataset.node_truth()
    scored = held_out_mask(dataset)
    maps = {NEAREST: null_maps(dataset, TEST, which=["nearest_outcrop"])["nearest_outcrop"]}
    for done, each in enumerate(trained):
        progress(done, len(trained), each.run.name)
        network, spec = load_model(each.folder, device)
        logits = node_logits(
            network,
            dataset,
            scored,
            inputs=spec.input,
            tile_size_px=spec.tile_size_px,
            scale_deg=scoring_scale(spec.scales_deg),
            device=device,
        )
        # Every scored node lies in a window; values elsewhere are not used.
        maps[each.run.label] = to_label(np.nan_to_num(logits).argmax(0))
    progress(len(trained), len(trained))
    return HeldOutMaps(dataset, labels, scored, maps)
