"""How much a channel says of the place: longitude and latitude predicted from it alone, on held-out blocks.

A network given such a channel can learn where it is instead of what rock is there (Meyer et al. 2019,
doi:10.1016/j.ecolmodel.2019.108815, on longitude and latitude as predictors).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gravmap.gravity.field_reader import FieldReader
from gravmap.tiling.blocks import FOLDS

BLOCK_DEG = 2.5
LEAST_BLOCKS = 4 * FOLDS
BINS = 64
LEAST_NODES = 200
WARN_R2 = 0.5
"""From here on a channel is called a fingerprint of the place."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class LocationR2:
    """Coefficients of determination of the place, from one channel alone.

    Attributes
    ----------
    channel : str
        Its name.
    lon, lat : float or None
        R2 of longitude and latitude on held-out blocks: 1 where the channel gives them exactly, 0 where it is as good
        as their mean, below where worse. None with too few nodes, or a constant.
    """

    channel: str
    lon: float | None
    lat: float | None

    @property
    def predicts(self) -> str:
        """What the channel predicts: "longitude", "latitude", both or none, as a phrase."""
        parts = [("longitude", self.lon), ("latitude", self.lat)]
        return " and ".join(name for name, r2 in parts if r2 is not None and r2 > WARN_R2)


def location_r2(fields: Path | str, seed: int = 0) -> list[LocationR2]:
    """R2 of the place for every channel of a file of fields.

    Longitude and latitude are predicted by their mean over the training nodes of the same 1/64 of the values
    (a regressogram), in five folds of blocks of 2.5 degrees, of smaller ones in a small region.

    Parameters
    ----------
    fields : Path
        ``fields.nc``.
    seed : int
        Random seed of the folds.

    Raises
    ------
    InputError
        The file is missing or was not written by gravmap.

    Examples
    --------
    >>> from gravmap.tiling.location import location_r2
    >>> [each.predicts for each in location_r2("data/fields.nc") if each.channel == "residual_10km"]
    ['']
    """
    with FieldReader(fields) as reader:
        fold = _folds(reader.lat, reader.lon, seed)
        lat, lon = np.meshgrid(reader.lat, reader.lon, indexing="ij")
        found = []
        for name in reader.names:
            if name.startswith("edge_error_"):
                continue
            values = reader.read([name])[0].astype(np.float64)
            known = np.isfinite(values)
            if known.sum() < LEAST_NODES or np.ptp(values[known]) == 0:
                found.append(LocationR2(name, None, None))
                continue
            r2 = [_r2(values[known], target[known], fold[known]) for target in (lon, lat)]
            found.append(LocationR2(name, *r2))
        return found


def _folds(lat: Values, lon: Values, seed: int) -> NDArray[np.int64]:
    """Fold of every node, (ny, nx): blocks are assigned at random, equally many to each fold."""
    side = BLOCK_DEG
    while True:
        row, column = (np.floor((axis - axis.min()) / side).astype(np.int64) for axis in (lat, lon))
        count = (int(row.max()) + 1) * (int(column.max()) + 1)
        if count >= LEAST_BLOCKS or side < 3 * abs(float(lat[1] - lat[0])):
            break
        side /= 2
    assigned = np.random.default_rng(seed).permutation(count) % FOLDS
    return np.asarray(assigned[row[:, None] * (int(column.max()) + 1) + column[None, :]])


def _r2(values: Values, target: Values, fold: NDArray[np.int64]) -> float | None:
    """R2 of a target predicted from values, over the nodes of all folds, each predicted from the others.

    None for a constant target, and for nodes of one fold only, as a small layer may have.
    """
    if np.unique(fold).size < 2:
        return None
    residual = np.zeros(target.shape)
    for number in range(FOLDS):
        out = fold == number
        if not out.any():
            continue
        edges = np.quantile(values[~out], np.linspace(0, 1, BINS + 1)[1:-1])
        place, place_out = np.searchsorted(edges, values[~out]), np.searchsorted(edges, values[out])
        total, counts = (np.bincount(place, weights, BINS) for weights in (target[~out], None))
        mean = np.where(counts > 0, total / np.maximum(counts, 1), target[~out].mean())
        residual[out] = target[out] - mean[place_out]
    spread = float(((target - target.mean()) ** 2).sum())
    return 1 - float((residual**2).sum()) / spread if spread > 0 else None
