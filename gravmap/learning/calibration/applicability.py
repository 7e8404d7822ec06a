"""Area of applicability (Meyer and Pebesma 2021): where gravity is similar to the training data."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from typing_extensions import TypedDict

from gravmap.errors import InputError
from gravmap.files import atomic_path, set_default_mode
from gravmap.lattice import TRAIN, mask_name, spacing_yx_km
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import IGNORE, RegionDataset, to_target
from gravmap.learning.data.local_statistics import WINDOWS_KM, local_statistics
from gravmap.learning.data.outcrop_context import is_context
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.training.checkpoint import MODEL, check_recorded
from gravmap.records import Len, Positive, parse_record, read_model, record

log = logging.getLogger(__name__)

MAX_TRAINING_NODES = 5000
"""Larger training sets are subsampled: prediction compares every node with all of these."""

BLOCK_DEG, BUFFER_DEG = 2.5, 0.25
"""Blocks of the threshold's cross-validation if the split has none: the defaults of `gravmap split`."""

MIN_BLOCKS = 4

MAX_DATASETS = 25
"""Of more training datasets a subset is used: each takes a fraction of a second."""

Values = NDArray[np.float64]


def fit_area_of_applicability(
    data: RegionDataset | DatasetSplits, inputs: InputChannels, seed: int = 0, max_nodes: int = MAX_TRAINING_NODES
) -> AreaOfApplicability | None:
    """Compute the area of applicability of a network from its training data.

    Features (:func:`gravmap.learning.data.local_statistics.local_statistics`) of the fields that the network reads are
    taken at the nodes with a training label and standardised there. They are not weighted: a network has no single
    importance of an input. The dissimilarity index (DI) is the distance to the nearest training node divided by the
    mean distance between training nodes. Its threshold is the upper whisker (third quartile plus 1.5 interquartile
    ranges, at most the maximum) of the cross-validated DI of the training nodes: without their own block and a buffer
    around it or, of several datasets, without their own dataset.

    Parameters
    ----------
    data : RegionDataset or DatasetSplits
        Fields, labels and roles; of many training datasets, :data:`MAX_DATASETS` evenly spaced ones are used.
    inputs : InputChannels
        Which fields the network reads; those of the outcrop context are left out.
    seed : int
        Random seed of the sample.
    max_nodes : int
        Size of the sample, spread evenly over the region.

    Returns
    -------
    AreaOfApplicability or None
        None if there are fewer than two training nodes, or if their features do not differ.

    References
    ----------
    Meyer and Pebesma (2021), doi:10.1111/2041-210X.13650.
    """
    # Outcrop context is left out: the distance to outcrop is reported separately.
    inputs = InputChannels(tuple(each for each in inputs.channels if not is_context(each.name)))
    datasets = DatasetSplits.of(data).train
    datasets = datasets[:: math.ceil(len(datasets) / MAX_DATASETS)]
    fields = [_with_gaps(np.where(dataset.field_valid, inputs.select(dataset), np.nan), inputs) for dataset in datasets]
    nodes = [_training_nodes(dataset, seed, max(max_nodes // len(datasets), 2)) for dataset in datasets]
    if sum(len(row) for row, _ in nodes) < 2:
        return None
    samples = [values[:, row, column] for values, (row, column) in zip(fields, nodes, strict=True)]
    field_means: Values = np.asarray(np.nanmean(np.concatenate(samples, axis=1), axis=1, dtype=np.float64))
    fields = [_without_gaps(values, inputs.fields, field_means) for values in fields]
    features = np.concatenate(
        [
            local_statistics(values - field_means[:, None, None], dataset.node_lat, dataset.node_lon)[:, row, column].T
            for dataset, values, (row, column) in zip(datasets, fields, nodes, strict=True)
        ]
    )
    mean, std = features.mean(axis=0), _standard_deviations(features, len(inputs.fields))
    training_features = ((features - mean) / std).astype(np.float32)
    mean_distance = _mean_distance(training_features)
    if len(datasets) == 1:
        (dataset,), ((row, column),) = datasets, nodes
        index = _distances_between_blocks(
            training_features, dataset.node_lat[row], dataset.node_lon[column], dataset.meta.get("split", {})
        )
    else:
        index = _distances_between_datasets(
            training_features, np.repeat(np.arange(len(datasets)), [len(row) for row, _ in nodes])
        )
    if not mean_distance or not index.size:
        return None
    quarter, three_quarters = np.percentile(index / mean_distance, (25, 75))
    threshold = min(float(2.5 * three_quarters - 1.5 * quarter), float(index.max() / mean_distance))
    if not threshold > 0:
        return None
    return AreaOfApplicability(
        inputs.fields,
        field_means,
        mean,
        std,
        training_features,
        mean_distance,
        threshold,
        max(spacing for dataset in datasets for spacing in spacing_yx_km(dataset.node_lat, dataset.node_lon)),
    )


def _with_gaps(values: NDArray[np.floating], inputs: InputChannels) -> NDArray[np.float32]:
    """Fields (F, ny, nx) with NaN where a masked layer is missing, as they are read from a file."""
    values = values.astype(np.float32)
    for name in inputs.fields:
        if mask_name(name) in inputs.fields:
            place, mask = inputs.fields.index(name), inputs.fields.index(mask_name(name))
            values[place][values[mask] == 0] = np.nan
    return values


def _without_gaps(values: NDArray[np.float32], names: Sequence[str], means: NDArray[np.float64]) -> NDArray[np.float32]:
    """Fields (F, ny, nx) with the mean of a masked layer where it is missing; its mask, a field too, says where."""
    filled = list(values)
    for place, name in enumerate(names):
        if mask_name(name) in names:
            filled[place] = np.where(np.isnan(values[place]), np.float32(means[place]), values[place])
    return np.stack(filled)


def _training_nodes(dataset: RegionDataset, seed: int, most: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of at most so many nodes with a training label, one per cell of about equal area."""
    labels, role = dataset.node_truth()
    row, column = np.nonzero(
        (to_target(labels) != IGNORE) & (role == TRAIN)
    )  # there is no label where the field is unknown
    if len(row) <= most:
        return row, column
    order = np.random.default_rng(seed).permutation(len(row))
    row, column = row[order], column[order]
    lat, lon = dataset.node_lat[row], dataset.node_lon[column]
    fine, coarse = 0.0, 360.0  # cell sides with too many nodes, and with few enough
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
    """Index of the first point in each cell of approximately equal area."""
    band = np.floor(lat / side_deg)
    across = np.floor(lon * np.cos(np.radians((band + 0.5) * side_deg)) / side_deg)
    _, first = np.unique(band * 1e7 + across, return_index=True)
    return first


def _standard_deviations(features: Values, fields: int) -> Values:
    """Standard deviation of each feature; infinite, so that it has no influence, if it is close to zero."""
    std = features.std(axis=0)
    # The first feature of a field is its value. Local statistics of a window of one node vary by rounding error only.
    least = 1e-4 * std.reshape(fields, -1)[:, :1]
    least = np.broadcast_to(np.maximum(least, 1e-12), (fields, features.shape[1] // fields)).ravel()
    result: Values = np.where(std > least, std, np.inf)
    return result


def _mean_distance(training_features: NDArray[np.float32]) -> float:
    total = sum(
        float(cdist(training_features[first : first + 500], training_features).sum())
        for first in range(0, len(training_features), 500)
    )
    return total / (len(training_features) * (len(training_features) - 1))


def _distances_between_blocks(
    training_features: NDArray[np.float32], lat: Values, lon: Values, split: dict[str, Any]
) -> Values:
    """Distance of each training node to the nearest one outside its block and the buffer around that."""
    height, width = split.get("block_deg") or (BLOCK_DEG, BLOCK_DEG)
    buffer = float(split.get("buffer_deg", BUFFER_DEG))
    west, _, _, north = split.get("region_wsen") or (lon.min(), lat.min(), lon.max(), lat.max())
    for _ in range(8):
        block_row, block_column = np.floor((north - lat) / height), np.floor((lon - west) / width)
        blocks = np.unique(np.stack([block_row, block_column], axis=1), axis=0)
        if len(blocks) >= MIN_BLOCKS:
            break
        height, width, buffer = height / 2, width / 2, buffer / 2
    found = []
    for down, right in blocks:
        inside = (block_row == down) & (block_column == right)
        top, left = north - down * height + buffer, west + right * width - buffer
        tall = (lat <= top) & (lat >= top - height - 2 * buffer)
        others = ~(tall & (lon >= left) & (lon <= left + width + 2 * buffer))
        if others.any():
            distance, _ = cKDTree(training_features[others]).query(training_features[inside])
            found.append(np.atleast_1d(distance))
    return np.concatenate(found) if found else np.zeros(0)


def _distances_between_datasets(training_features: NDArray[np.float32], number: NDArray[np.intp]) -> Values:
    """Distance of each training node to the nearest one of another dataset."""
    found = []
    for each in np.unique(number):
        if not (number == each).all():
            distance, _ = cKDTree(training_features[number != each]).query(training_features[number == each])
            found.append(np.atleast_1d(distance))
    return np.concatenate(found) if found else np.zeros(0)


FORMAT = 1
FILE = "reach.safetensors"
_REMEDY = "Restore it, train again, or remove the file: then maps have no area of applicability."


@dataclass(frozen=True)
class AreaOfApplicability:
    """Training data of a network in feature space, with the threshold of the dissimilarity index (DI).

    Names follow the R packages CAST and waywiser.

    Attributes
    ----------
    fields : tuple of str
        Names of the F fields, in the order of `InputChannels.fields`.
    field_means : (F,) float64
        Mean of each field over the training nodes; subtracted before features are computed.
    feature_means, feature_stds : (P,) float64
        Of each feature over the training nodes.
    training_features : (n, P) float32
        Standardised features of training nodes.
    mean_training_distance : float
        Mean distance between two of these.
    threshold : float
        The DI beyond which the network extrapolates.
    spacing_km : float
        The larger node spacing of the training data.

    Examples
    --------
    >>> import numpy as np
    >>> lat, lon = np.linspace(46, 42, 41), np.linspace(80, 84, 41)
    >>> field = np.random.default_rng(0).normal(0, 5, (1, 41, 41)).astype(np.float32)
    >>> features = local_statistics(field, lat, lon).reshape(-1, 41 * 41).T
    >>> mean, std = features.mean(0), features.std(0)
    >>> applicability = AreaOfApplicability(
    ...     ("residual_10km",), np.zeros(1), mean, std, ((features - mean) / std).astype("f4")[::7], 4.0, 0.5, 11.1
    ... )
    >>> bool(np.nanmedian(applicability.relative_dissimilarity_index(field, lat, lon)) < 1)
    True
    >>> bool(np.nanmedian(applicability.relative_dissimilarity_index(20 * field, lat, lon)) > 1)
    True
    """

    fields: tuple[str, ...]
    field_means: NDArray[np.float64]
    feature_means: NDArray[np.float64]
    feature_stds: NDArray[np.float64]
    training_features: NDArray[np.float32]
    mean_training_distance: float
    threshold: float
    spacing_km: float

    @staticmethod
    def margin_km(spacing_km: float) -> float:
        """Radius around a node that :meth:`relative_dissimilarity_index` depends on, for the grid's larger spacing."""
        return max(WINDOWS_KM) / 2 + 2 * spacing_km

    def relative_dissimilarity_index(
        self, fields: NDArray[np.float32], lat: NDArray[np.float64], lon: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Dissimilarity index divided by its threshold: nodes above 1 are outside the area of applicability.

        Parameters
        ----------
        fields : (F, ny, nx) float32
            In the order of :attr:`fields`, in their units, NaN where unknown.
        lat, lon : (ny,), (nx,) float64
            Nodes, degrees; evenly spaced, `lat` descending.

        Returns
        -------
        (ny, nx) float32
            NaN where a field is unknown, but for layers with a mask: there, their mean is taken. A part of a grid gives
            the same values as the whole, :meth:`margin_km` from its edge.
        """
        if len(fields) != len(self.fields):
            raise ValueError(f"got {len(fields)} fields, expected {', '.join(self.fields)}")
        fields = _without_gaps(fields, self.fields, self.field_means)
        features = local_statistics(fields - self.field_means[:, None, None], lat, lon)
        result = np.full(features.shape[1:], np.nan, np.float32)
        known = np.isfinite(features).all(axis=0)
        if known.any():
            table = (features[:, known].T - self.feature_means) / self.feature_stds
            distance, _ = cKDTree(self.training_features).query(table)
            result[known] = distance / (self.mean_training_distance * self.threshold)
        return result


def write_area_of_applicability(run_folder: Path, applicability: AreaOfApplicability, dataset_sha256: str) -> None:
    """Write ``reach.safetensors`` atomically.

    Parameters
    ----------
    run_folder : Path
        The run's folder.
    applicability : AreaOfApplicability
        From :func:`fit_area_of_applicability`.
    dataset_sha256 : str
        Fingerprint of the training data, as in ``model.json``.
    """
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(getattr(applicability, each)) for name, each in _ARRAYS.items()}
    header = {"format": FORMAT, "area_sha256": dataset_sha256, "fields": list(applicability.fields)}
    header |= {name: getattr(applicability, each) for name, each in _NUMBERS.items()}
    with atomic_path(run_folder / FILE) as temporary:
        save_file(arrays, temporary, metadata={"gravmap": json.dumps(header)})
        set_default_mode(temporary)


@record
class ReachRecord(TypedDict):
    """Numbers in the header of ``reach.safetensors``."""

    format: int
    area_sha256: str
    fields: Annotated[list[str], Len(1)]
    mean_distance: Positive
    threshold: Positive
    spacing_km: Positive


# Names in the file, and attributes.
_ARRAYS = {"centres": "field_means", "mean": "feature_means", "spread": "feature_stds", "points": "training_features"}
_NUMBERS = {"mean_distance": "mean_training_distance", "threshold": "threshold", "spacing_km": "spacing_km"}


def read_area_of_applicability(run_folder: Path) -> AreaOfApplicability | None:
    """Read ``reach.safetensors`` of a run.

    Parameters
    ----------
    run_folder : Path
        The run's folder, with ``model.json``.

    Returns
    -------
    AreaOfApplicability or None
        None if there is no such file, or if it was computed from other training data than those of the network in the
        folder (with a warning).

    Raises
    ------
    InputError
        The file is damaged or was changed, or has another format.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read_area_of_applicability(Path(folder)) is None
    True
    """
    from safetensors import SafetensorError, safe_open

    path = run_folder / FILE
    if not check_recorded(path, _REMEDY):
        return None
    try:
        with safe_open(path, framework="np") as stored:
            text = (stored.metadata() or {})["gravmap"]
            arrays = [stored.get_tensor(name) for name in _ARRAYS]
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}.", _REMEDY) from None
    header = parse_record(text, ReachRecord, f"The header of {path}", _REMEDY)
    if header["format"] != FORMAT:
        raise InputError(
            f"{path} has format {header['format']}; this version of gravmap reads {FORMAT}.",
            "Use the gravmap version that wrote it, or train again.",
        )
    field_means, mean, std, points = arrays
    if (
        field_means.shape != (len(header["fields"]),)
        or points.ndim != 2
        or not len(points)
        or not mean.shape == std.shape == points.shape[1:]
        or not all(array.dtype.kind == "f" and np.isfinite(array).all() for array in arrays)
        or not (std > 0).all()
    ):
        raise InputError(f"{path} is damaged: its arrays do not fit together, or are not finite.", _REMEDY)
    applicability = AreaOfApplicability(
        tuple(header["fields"]),
        field_means,
        mean,
        std,
        points,
        header["mean_distance"],
        header["threshold"],
        header["spacing_km"],
    )
    dataset_sha256 = read_model(run_folder).get("area_sha256", "")
    if header["area_sha256"] != dataset_sha256:
        log.warning("%s was computed from another tile set than that of %s.json; it is ignored.", path, MODEL)
        return None
    return applicability
