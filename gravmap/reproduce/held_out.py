"""Predictions on the test nodes, for confidence intervals of differences; those of GGMNet in windows, for figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from gravmap.lattice import TEST, UNUSABLE
from gravmap.learning.data.channels import fields_read
from gravmap.learning.data.dataset import RegionDataset, to_label, to_target
from gravmap.learning.evaluation.comparison import Difference, block_numbers, paired_bootstrap
from gravmap.learning.evaluation.held_out import node_logits, scoring_scale
from gravmap.learning.evaluation.mosaic import predict_logits, window_cells
from gravmap.learning.evaluation.null_models import NULL_MODELS, held_out_mask, null_maps
from gravmap.learning.training.checkpoint import ModelSpec, load_model
from gravmap.progress import Progress, silent
from gravmap.reproduce.outcome import Trained
from gravmap.reproduce.plan import REFERENCE
from gravmap.tiling import load_arrays
from gravmap.tiling.tile_files import read_windows
from gravmap.tiling.training_arrays import read_index
from gravmap.workspace import Workspace

NEAREST = NULL_MODELS["nearest_outcrop"].title


SHOWN_WINDOWS = 4
"""Most held-out windows of Figure 5."""


@dataclass(frozen=True)
class WindowMaps:
    """What GGMNet predicts in some windows of the tile set, each one image of the network as in training.

    Attributes
    ----------
    boxes_wsen : (n, 4) float64
        The windows, degrees.
    classes : (ny, nx) uint8
        Predicted classes at the nodes inside a window, :data:`gravmap.lattice.UNUSABLE` elsewhere. Where windows
        overlap, their logits are blended as in a map.
    """

    boxes_wsen: NDArray[np.float64]
    classes: NDArray[np.uint8]


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
    held_out, little_bedrock : WindowMaps, optional
        GGMNet in the held-out windows of Figure 5, and in the paper's test windows, those with bedrock on less than a
        tenth of their area; None if it was not trained under this split.
    """

    dataset: RegionDataset
    labels: NDArray[np.uint8]
    scored: NDArray[np.bool_]
    maps: dict[str, NDArray[np.uint8]]
    held_out: WindowMaps | None = None
    little_bedrock: WindowMaps | None = None

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
    windows: list[WindowMaps] = []
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
        if each.run.network == REFERENCE:
            shown = choose_windows(_held_out_boxes(place, dataset, scoring_scale(spec.scales_deg)), dataset, scored)
            windows = [
                _predict_windows(network, spec, dataset, boxes, device) for boxes in (shown, _little_bedrock(place))
            ]
    progress(len(trained), len(trained))
    return HeldOutMaps(dataset, labels, scored, maps, *windows)


def choose_windows(
    boxes_wsen: NDArray[np.float64], dataset: RegionDataset, scored: NDArray[np.bool_], most: int = SHOWN_WINDOWS
) -> NDArray[np.float64]:
    """Choose windows with many scored nodes, each the one with most of those that no earlier one contains.

    Parameters
    ----------
    boxes_wsen : (n, 4) float64
        Windows to choose from, degrees.
    dataset : RegionDataset
        Gives the coordinates of the nodes.
    scored : (ny, nx) bool
        The scored nodes.
    most : int
        Number of windows, at most.

    Returns
    -------
    (m, 4) float64
        Fewer where no window has further scored nodes.
    """
    left = scored.copy()
    chosen: list[int] = []
    cells = [window_cells(box, dataset.node_lat, dataset.node_lon) for box in boxes_wsen]
    while len(chosen) < most and cells:
        counts = [np.count_nonzero(left[each]) for each in cells]
        best = int(np.argmax(counts))
        if not counts[best]:
            break
        chosen.append(best)
        left[cells[best]] = False
    return np.asarray(boxes_wsen, dtype=np.float64)[chosen].reshape(-1, 4)


def _held_out_boxes(place: Workspace, dataset: RegionDataset, scale_deg: float) -> NDArray[np.float64]:
    """The windows that hold test nodes: under a split by windows those held out, else all of the size of the scores."""
    held_out = dataset.window_role == TEST
    if held_out.any():
        of_size = held_out & np.isclose(dataset.window_scale_deg, scale_deg)
        windows: NDArray[np.float64] = dataset.windows[of_size if of_size.any() else held_out]
        return windows
    boxes, sides_deg, _ = _window_table(place)
    return boxes[np.isclose(sides_deg, scale_deg)]


def _little_bedrock(place: Workspace) -> NDArray[np.float64]:
    """The paper's test windows: bedrock on less than a tenth of their area."""
    boxes, _, effective = _window_table(place)
    return boxes[~effective]


def _window_table(place: Workspace) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Boxes (n, 4) and sides in degrees of all windows of the tile set, and whether each has enough bedrock."""
    table = read_windows(place.tiles, read_index(place.tiles))
    names = ("west", "south", "east", "north", "scale_deg", "effective")
    west, south, east, north, scale, effective = (table[name].to_numpy() for name in names)
    boxes = np.column_stack([west, south, east, north]).astype(np.float64)
    return boxes, scale.astype(np.float64), effective.astype(np.bool_)


def _predict_windows(
    network: nn.Module, spec: ModelSpec, dataset: RegionDataset, boxes_wsen: NDArray[np.float64], device: str
) -> WindowMaps:
    classes = np.full(dataset.field_valid.shape, UNUSABLE, np.uint8)
    if len(boxes_wsen):
        logits = predict_logits(
            network,
            spec.input.select(dataset),
            dataset.field_nodes_wsen,
            boxes_wsen,
            spec.tile_size_px,
            dataset.node_lat,
            dataset.node_lon,
            inputs=spec.input,
            device=device,
        )
        reached = np.isfinite(logits[0]) & dataset.field_valid
        classes[reached] = to_label(logits[:, reached].argmax(0))
    return WindowMaps(boxes_wsen, classes)
