"""Where a network knows gravity like this, and where it extrapolates: the area of applicability.

Meyer and Pebesma (2021), doi 10.1111/2041-210X.13650. Written at the end of training as ``reach.safetensors``.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gravmap.errors import InputError
from gravmap.files import atomic_path, read_json
from gravmap.learning.checkpoint import MODEL
from gravmap.learning.local_statistics import WINDOWS_KM, local_statistics

log = logging.getLogger(__name__)

FORMAT = 1
FILE = "reach.safetensors"


@dataclass(frozen=True)
class Reach:
    """What a network's training ground looks like, and how far from it counts as far.

    Attributes
    ----------
    fields : tuple of str
        Names of the F fields, in the order of `InputChannels.fields`.
    centres : (F,) float64
        Middle of each field on the training ground; taken away before anything else.
    mean, spread : (P,) float64
        Of each feature over the training nodes.
    points : (n, P) float32
        Standardised features of training nodes.
    mean_distance : float
        Between two of these.
    threshold : float
        The dissimilarity index beyond which the network extrapolates.
    spacing_km : float
        The larger spacing of the nodes it was measured on.
    """

    fields: tuple[str, ...]
    centres: NDArray[np.float64]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    points: NDArray[np.float32]
    mean_distance: float
    threshold: float
    spacing_km: float

    @property
    def margin_km(self) -> float:
        """How much field around a place :meth:`dissimilarity` looks at."""
        return max(WINDOWS_KM) / 2 + 2 * self.spacing_km

    def dissimilarity(
        self, fields: NDArray[np.float32], lat: NDArray[np.float64], lon: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Dissimilarity index over its threshold: above 1 the network extrapolates.

        Parameters
        ----------
        fields : (F, ny, nx) float32
            In the order of :attr:`fields`, in their units, NaN where unknown.
        lat, lon : (ny,), (nx,) float64
            Nodes, degrees; evenly spaced, `lat` descending.

        Returns
        -------
        (ny, nx) float32
            NaN where a field is unknown. A part of a grid gives what the whole does, :attr:`margin_km` inside its rim.
        """
        if len(fields) != len(self.fields):
            raise ValueError(f"{len(fields)} fields, but the training ground was measured in {', '.join(self.fields)}")
        features = local_statistics(fields - self.centres[:, None, None], lat, lon)
        result = np.full(features.shape[1:], np.nan, np.float32)
        known = np.isfinite(features).all(axis=0)
        if known.any():
            table = (features[:, known].T - self.mean) / self.spread
            away, _ = cKDTree(self.points).query(table)
            result[known] = away / (self.mean_distance * self.threshold)
        return result


def write_reach(run_folder: Path, reach: Reach, area_sha256: str) -> None:
    """Write ``reach.safetensors``, whole or not at all; no pickle in it.

    Parameters
    ----------
    run_folder : Path
        The run's folder.
    reach : Reach
        From :func:`gravmap.learning.training_ground.measure_reach`.
    area_sha256 : str
        Of what the network was taught on, as in ``model.json``.
    """
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(getattr(reach, name)) for name in _ARRAYS}
    header = {"format": FORMAT, "area_sha256": area_sha256, "fields": list(reach.fields)}
    header |= {name: getattr(reach, name) for name in _NUMBERS}
    with atomic_path(run_folder / FILE) as temporary:
        save_file(arrays, temporary, metadata={"gravmap": json.dumps(header)})


_ARRAYS = ("centres", "mean", "spread", "points")
_NUMBERS = ("mean_distance", "threshold", "spacing_km")


def read_reach(run_folder: Path) -> Reach | None:
    """Read ``reach.safetensors`` of a run.

    Returns
    -------
    Reach or None
        None where there is none, or where it was measured on another tile set than the one the network in the folder
        was taught on (with a warning).

    Raises
    ------
    InputError
        The file is damaged, or of another format.
    """
    from safetensors import SafetensorError, safe_open

    path = run_folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="np") as stored:
            header = json.loads((stored.metadata() or {})["gravmap"])
            if header["format"] != FORMAT:
                raise InputError(
                    f"{path} is of format {header['format']}; this gravmap reads {FORMAT}.",
                    "Use the gravmap that wrote it, or train anew.",
                )
            centres, mean, spread, points = (stored.get_tensor(name) for name in _ARRAYS)
        mean_distance, threshold, spacing_km = (float(header[name]) for name in _NUMBERS)
        reach = Reach(tuple(header["fields"]), centres, mean, spread, points, mean_distance, threshold, spacing_km)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}.", "Train anew, or take the file away.") from None
    taught = read_json(run_folder / f"{MODEL}.json", "gravmap train").get("area_sha256", "")
    if header["area_sha256"] != taught:
        log.warning("%s was measured on another tile set than %s.json names; it is not used.", path, MODEL)
        return None
    return reach
