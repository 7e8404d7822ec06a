"""What a run's network names at the nodes of an area, asked once and kept beside the run."""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gravmap.files import atomic_path, read_json
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.evaluation.evaluation import scoring_scale
from gravmap.learning.evaluation.importance import Reading
from gravmap.learning.training.checkpoint import MODEL, load_model
from gravmap.progress import Progress, silent

log = logging.getLogger(__name__)

FORMAT = 1
FILE = "evaluation.npz"
UNNAMED = 0


def reading_of(run_folder: Path, device: str | torch.device = "cpu") -> Reading:
    """A run's network, and how it reads an area when it is scored: windows of the one size of all scores."""
    network, spec = load_model(run_folder, device)
    return Reading(network, spec.input, spec.tile_size_px, scoring_scale(spec.scales_deg), device)


def class_map(
    run_folder: Path,
    area: RegionDataset,
    wanted: NDArray[np.bool_],
    *,
    file: str = FILE,
    device: str | torch.device = "cpu",
    progress: Progress = silent,
) -> NDArray[np.uint8]:
    """The classes that a run's network names at the wanted nodes of an area, on the blended mosaic.

    What was said before is read from a file in the run's folder, as long as the weights, the area and the size of the
    windows are the same; else the network is asked, and the file is written.

    Parameters
    ----------
    run_folder : Path
        Holds ``model.json``.
    area : RegionDataset
        Its fields are what the network was taught on.
    wanted : (ny, nx) bool
        Nodes to name.
    file : str
        Where it is kept; another one for each area that the same run is asked about.
    device, progress
        As in :func:`gravmap.learning.evaluation.mosaic.predict_logits`.

    Returns
    -------
    (ny, nx) uint8
        Labels 1..K; :data:`UNNAMED` where no window reaches, and at most other nodes than the wanted.
    """
    key = _key(run_folder, area)
    classes, asked = _read(run_folder / file, key, wanted.shape)
    if not (wanted & ~asked).any():
        return classes
    wanted = wanted | asked
    # Other nodes than the wanted lack some of their windows, and stay unnamed.
    classes = reading_of(run_folder, device).map(area, wanted, progress)
    with atomic_path(run_folder / file) as temporary:
        np.savez_compressed(temporary, key=np.array(json.dumps(key)), classes=classes, asked=wanted)
    return classes


def missing_class_maps(
    run_folder: Path, area: RegionDataset, wanted: NDArray[np.bool_], *, file: str = FILE
) -> NDArray[np.bool_]:
    """The nodes that :func:`class_map` would ask the network about; none where all is known."""
    _, asked = _read(run_folder / file, _key(run_folder, area), wanted.shape)
    return wanted | asked if (wanted & ~asked).any() else np.zeros_like(wanted)


def _key(run_folder: Path, area: RegionDataset) -> dict[str, Any]:
    """What an answer depends on."""
    model = read_json(run_folder / f"{MODEL}.json", "gravmap train")
    return {
        "format": FORMAT,
        "model_sha256": model["weights_sha256"],
        "area_sha256": area.fingerprint(),
        "scale_deg": scoring_scale(model["scales_deg"]),
    }


def _read(path: Path, key: dict[str, Any], shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Classes and which nodes were asked for; none of them where the file is not of these weights and this area."""
    nothing = np.full(shape, UNNAMED, np.uint8), np.zeros(shape, bool)
    try:
        with np.load(path, allow_pickle=False) as stored:
            if json.loads(str(stored["key"])) != key:
                return nothing
            classes, asked = stored["classes"], stored["asked"]
    except FileNotFoundError:
        return nothing
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        log.info("%s cannot be read; the network is asked again.", path)
        return nothing
    if classes.shape != shape or asked.shape != shape or classes.dtype != np.uint8 or asked.dtype != np.bool_:
        return nothing
    return classes, asked
