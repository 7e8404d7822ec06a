"""A run's network as a predictor of classes at the nodes of a dataset, with a cache of its class maps."""

from __future__ import annotations

import json
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gravmap.errors import InputError
from gravmap.files import atomic_path
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import RegionDataset, to_label
from gravmap.learning.evaluation.held_out import node_logits, scoring_scale
from gravmap.learning.evaluation.null_models import Labels
from gravmap.learning.training.checkpoint import load_model
from gravmap.progress import Progress, silent
from gravmap.records import parse_record, read_model

log = logging.getLogger(__name__)

FORMAT = 1
FILE = "evaluation.npz"
UNLABELLED = 0


@dataclass(frozen=True)
class NodePredictor:
    """A network with everything needed to predict the nodes of a dataset.

    Attributes
    ----------
    network : nn.Module
        (N, C, H, W) -> (N, K, H, W).
    inputs : InputChannels
        Maps fields to the network's input.
    tile_size_px : int
        Pixels across a window.
    scale_deg : float
        Side of a window, degrees.
    device : str or torch.device
        Device of the network.
    batch_size : int
        Windows per forward pass.
    """

    network: nn.Module
    inputs: InputChannels
    tile_size_px: int
    scale_deg: float
    device: str | torch.device = "cpu"
    batch_size: int = 1

    def predict(self, dataset: RegionDataset, mask: NDArray[np.bool_], progress: Progress = silent) -> Labels:
        """Classes 1..K at the selected nodes of a dataset, 0 elsewhere and where no window reaches; (ny, nx)."""
        logits = node_logits(
            self.network,
            dataset,
            mask,
            inputs=self.inputs,
            tile_size_px=self.tile_size_px,
            scale_deg=self.scale_deg,
            device=self.device,
            batch_size=self.batch_size,
            progress=progress,
        )
        reached = mask & np.isfinite(logits[0])
        return np.where(reached, to_label(np.where(reached, logits, 0).argmax(0)), UNLABELLED).astype(np.uint8)


def load_node_predictor(run_folder: Path, device: str | torch.device = "cpu") -> NodePredictor:
    """The predictor of a run, with the window size that all scores are computed with."""
    network, spec = load_model(run_folder, device)
    return NodePredictor(network, spec.input, spec.tile_size_px, scoring_scale(spec.scales_deg), device)


def predict_class_map(
    run_folder: Path,
    dataset: RegionDataset,
    mask: NDArray[np.bool_],
    *,
    file: str = FILE,
    device: str | torch.device = "cpu",
    progress: Progress = silent,
) -> NDArray[np.uint8]:
    """Classes that a run's network predicts at the selected nodes of a dataset; cached in the run's folder.

    Predictions are read from the cache as long as weights, dataset and window size are the same. Otherwise, or when it
    lacks a selected node, the network is run and the file is written again.

    Parameters
    ----------
    run_folder : Path
        Holds ``model.json``.
    dataset : RegionDataset
        Has the fields that the network was trained on.
    mask : (ny, nx) bool
        Nodes to predict.
    file : str
        Name of the cache file; use another one for each dataset.
    device, progress
        As in :func:`gravmap.learning.evaluation.mosaic.predict_logits`.

    Returns
    -------
    (ny, nx) uint8
        Labels 1..K; :data:`UNLABELLED` where no window reaches. Nodes that are not selected may have one too.
    """
    key = _cache_key(run_folder, dataset)
    classes, cached = _read_cache(run_folder / file, key, mask.shape)
    if not (mask & ~cached).any():
        return classes
    mask = mask | cached
    # Nodes that are not selected lack some of their windows, and stay unlabelled.
    classes = load_node_predictor(run_folder, device).predict(dataset, mask, progress)
    with atomic_path(run_folder / file) as temporary:
        np.savez_compressed(temporary, key=np.array(json.dumps(key)), classes=classes, asked=mask)
    return classes


def missing_class_maps(
    run_folder: Path, dataset: RegionDataset, mask: NDArray[np.bool_], *, file: str = FILE
) -> NDArray[np.bool_]:
    """The nodes that :func:`predict_class_map` would run the network for; none if all are cached."""
    _, cached = _read_cache(run_folder / file, _cache_key(run_folder, dataset), mask.shape)
    return mask | cached if (mask & ~cached).any() else np.zeros_like(mask)


def _cache_key(run_folder: Path, dataset: RegionDataset) -> dict[str, Any]:
    """Everything that a prediction depends on."""
    model = read_model(run_folder, complete=True)
    return {
        "format": FORMAT,
        "model_sha256": model["weights_sha256"],
        "area_sha256": dataset.fingerprint(),
        "scale_deg": scoring_scale(model["scales_deg"]),
    }


def _read_cache(path: Path, key: dict[str, Any], shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Cached classes and their mask; nothing is cached if the file has another key or cannot be read."""
    nothing = np.full(shape, UNLABELLED, np.uint8), np.zeros(shape, bool)
    try:
        with np.load(path, allow_pickle=False) as stored:
            if parse_record(str(stored["key"]), dict[str, Any], str(path)) != key:
                return nothing
            classes, cached = stored["classes"], stored["asked"]
    except FileNotFoundError:
        return nothing
    except (InputError, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        log.info("%s cannot be read; the network is run again.", path)
        return nothing
    if classes.shape != shape or cached.shape != shape or classes.dtype != np.uint8 or cached.dtype != np.bool_:
        return nothing
    return classes, cached
