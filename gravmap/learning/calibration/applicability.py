"""The area of applicability (Meyer and Pebesma 2021): where gravity is like the training data, and where not."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from gravmap.errors import InputError
from gravmap.files import atomic_path, read_json
from gravmap.lattice import TRAIN
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import IGNORE, RegionDataset, to_target
from gravmap.learning.data.local_statistics import WINDOWS_KM, local_statistics
from gravmap.learning.data.outcrop_context import is_context
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.evaluation.baselines import spacing_yx_km
from gravmap.learning.training.checkpoint import MODEL

log = logging.getLogger(__name__)

MOST_NODES = 5000
"""Of more training nodes a sample is taken; prediction compares every node with all of these."""

BLOCK_DEG, BUFFER_DEG = 2.5, 0.25
"""Of the threshold's cross-validation where the split says nothing: those of `gravmap split`."""

FEWEST_BLOCKS = 4

MOST_GROUNDS = 25
"""Of more training grounds than this some are measured: each takes part of a second."""

Values = NDArray[np.float64]


def fit_area_of_applicability(
    ground: RegionDataset | DatasetSplits, inputs: InputChannels, seed: int = 0, most_nodes: int = MOST_NODES
) -> AreaOfApplicability | None:
    """Measure the ground that a network was trained on, in gravity.

    Features (:func:`gravmap.learning.data.local_statistics.local_statistics`) of the fields that the network
    reads are taken
    at the nodes whose label may be learnt from, each less its mean and over its standard deviation there. None weighs
    more than another: a network has no single importance of an input. The dissimilarity index is the distance to the
    nearest training node over the mean distance between two of them. Its threshold is the upper whisker (third quartile
    and 1.5 interquartile ranges, at most the maximum) of the index of training nodes whose own block, and the buffer
    around it, is left out; of many grounds, whose own ground is left out.

    Parameters
    ----------
    ground : RegionDataset or DatasetSplits
        Fields, labels and roles; of many training grounds, :data:`MOST_GROUNDS` spread over them are measured.
    inputs : InputChannels
        Which fields the network reads; those of outcrop as context do not count.
    seed : int
        Of the sample.
    most_nodes : int
        Size of the sample, spread evenly over the ground.

    Returns
    -------
    Reach or None
        None where there is nothing to measure: no training label at a node, or all in one place.

    References
    ----------
    Meyer and Pebesma (2021), doi:10.1111/2041-210X.13650.
    """
    # What lies in the ground is alike or not in gravity; how far outcrop is, is told elsewhere.
    inputs = InputChannels(tuple(each for each in inputs.channels if not is_context(each.name)))
    datasets = DatasetSplits.of(ground).train
    datasets = datasets[:: math.ceil(len(datasets) / MOST_GROUNDS)]
    fields = [np.where(dataset.field_valid, inputs.select(dataset), np.float32(np.nan)) for dataset in datasets]
    nodes = [_training_nodes(dataset, seed, max(most_nodes // len(datasets), 2)) for dataset in datasets]
    if sum(len(row) for row, _ in nodes) < 2:
        return None
    taken = [values[:, row, column] for values, (row, column) in zip(fields, nodes, strict=True)]
    centres = np.concatenate(taken, axis=1).mean(axis=1, dtype=np.float64)
    features = np.concatenate(
        [
            local_statistics(values - centres[:, None, None], dataset.node_lat, dataset.node_lon)[:, row, column].T
            for dataset, values, (row, column) in zip(datasets, fields, nodes, strict=True)
        ]
    )
    mean, spread = features.mean(axis=0), _spread(features, len(inputs.fields))
    points = ((features - mean) / spread).astype(np.float32)
    mean_distance = _mean_distance(points)
    if len(datasets) == 1:
        (dataset,), ((row, column),) = datasets, nodes
        index = _cross_validated(points, dataset.node_lat[row], dataset.node_lon[column], dataset.meta.get("split", {}))
    else:
        index = _cross_validated_by_ground(points, np.repeat(np.arange(len(datasets)), [len(row) for row, _ in nodes]))
    if not mean_distance or not index.size:
        return None
    quarter, three_quarters = np.percentile(index / mean_distance, (25, 75))
    threshold = min(float(2.5 * three_quarters - 1.5 * quarter), float(index.max() / mean_distance))
    if not threshold > 0:
        return None
    return AreaOfApplicability(
        inputs.measured,
        centres,
        mean,
        spread,
        points,
        mean_distance,
        threshold,
        max(spacing for dataset in datasets for spacing in spacing_yx_km(dataset.node_lat, dataset.node_lon)),
    )


def _training_nodes(dataset: RegionDataset, seed: int, most: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of nodes whose label teaches; at most so many, one from each of many cells of equal area."""
    labels, role = dataset.node_truth()
    row, column = np.nonzero((to_target(labels) != IGNORE) & (role == TRAIN))  # no label where the field is unknown
    if len(row) <= most:
        return row, column
    drawn = np.random.default_rng(seed).permutation(len(row))
    row, column = row[drawn], column[drawn]
    lat, lon = dataset.node_lat[row], dataset.node_lon[column]
    fine, coarse = 0.0, 360.0  # sides of cells that leave too many nodes, and few enough
    best = np.arange(most)
    for _ in range(24):
        side = (fine + coarse) / 2
        found = _one_per_cell(lat, lon, side)
        if len(found) > most:
            fine = side
        else:
            coarse, best = side, found
    best = np.sort(best)
    return row[best], column[best]


def _one_per_cell(lat: Values, lon: Values, side_deg: float) -> NDArray[np.intp]:
    """The first of the points in each cell of about equal area."""
    band = np.floor(lat / side_deg)
    across = np.floor(lon * np.cos(np.radians((band + 0.5) * side_deg)) / side_deg)
    _, first = np.unique(band * 1e7 + across, return_index=True)
    return first


def _spread(features: Values, fields: int) -> Values:
    """Standard deviation of each feature; infinite, so that it never counts, where it is next to none."""
    spread = features.std(axis=0)
    # The first feature of a field is its value. A window no wider than a node has a deviation of rounding alone.
    least = 1e-4 * spread.reshape(fields, -1)[:, :1]
    least = np.broadcast_to(np.maximum(least, 1e-12), (fields, features.shape[1] // fields)).ravel()
    result: Values = np.where(spread > least, spread, np.inf)
    return result


def _mean_distance(points: NDArray[np.float32]) -> float:
    total = sum(float(cdist(points[first : first + 500], points).sum()) for first in range(0, len(points), 500))
    return total / (len(points) * (len(points) - 1))


def _cross_validated(points: NDArray[np.float32], lat: Values, lon: Values, split: dict[str, Any]) -> Values:
    """Distance of each point to the nearest one outside its block and the buffer around that; those that have one."""
    height, width = split.get("block_deg") or (BLOCK_DEG, BLOCK_DEG)
    buffer = float(split.get("buffer_deg", BUFFER_DEG))
    west, _, _, north = split.get("region_wsen") or (lon.min(), lat.min(), lon.max(), lat.max())
    for _ in range(8):
        block_row, block_column = np.floor((north - lat) / height), np.floor((lon - west) / width)
        blocks = np.unique(np.stack([block_row, block_column], axis=1), axis=0)
        if len(blocks) >= FEWEST_BLOCKS:
            break
        height, width, buffer = height / 2, width / 2, buffer / 2
    found = []
    for down, right in blocks:
        inside = (block_row == down) & (block_column == right)
        top, left = north - down * height + buffer, west + right * width - buffer
        tall = (lat <= top) & (lat >= top - height - 2 * buffer)
        others = ~(tall & (lon >= left) & (lon <= left + width + 2 * buffer))
        if others.any():
            away, _ = cKDTree(points[others]).query(points[inside])
            found.append(np.atleast_1d(away))
    return np.concatenate(found) if found else np.zeros(0)


def _cross_validated_by_ground(points: NDArray[np.float32], number: NDArray[np.intp]) -> Values:
    """Distance of each point to the nearest one of another ground."""
    found = []
    for each in np.unique(number):
        if not (number == each).all():
            away, _ = cKDTree(points[number != each]).query(points[number == each])
            found.append(np.atleast_1d(away))
    return np.concatenate(found) if found else np.zeros(0)


FORMAT = 1
FILE = "reach.safetensors"


@dataclass(frozen=True)
class AreaOfApplicability:
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


def write_area_of_applicability(run_folder: Path, reach: AreaOfApplicability, area_sha256: str) -> None:
    """Write ``reach.safetensors``, whole or not at all; no pickle in it.

    Parameters
    ----------
    run_folder : Path
        The run's folder.
    reach : AreaOfApplicability
        From :func:`gravmap.learning.calibration.applicability.fit_area_of_applicability`.
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


def read_area_of_applicability(run_folder: Path) -> AreaOfApplicability | None:
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
        reach = AreaOfApplicability(
            tuple(header["fields"]), centres, mean, spread, points, mean_distance, threshold, spacing_km
        )
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}.", "Train anew, or take the file away.") from None
    taught = read_json(run_folder / f"{MODEL}.json", "gravmap train").get("area_sha256", "")
    if header["area_sha256"] != taught:
        log.warning("%s was measured on another tile set than %s.json names; it is not used.", path, MODEL)
        return None
    return reach
