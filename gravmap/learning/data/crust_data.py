"""Simulated crusts as datasets: the bedrock under cover is known there, so networks are trained and scored on it.

The input is gravity and the surface map; the target is the bedrock where that map shows cover. Fields are kept as
float32, though float16 would do for residuals: 100 crusts of 240 x 360 cells with 18 fields are 0.6 GB, and a crop
needs no conversion.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import OptionError
from gravmap.files import atomic_path
from gravmap.lattice import TEST, TRAIN, TUNE, UNUSABLE
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.data.outcrop_context import add_context, outcrop_context
from gravmap.learning.data.splits import CRUSTS, DatasetSplits
from gravmap.progress import Progress, silent
from gravmap.units import describe_angle

TEST_SEEDS = range(8)
"""Crusts that no network is trained on: all are scored on the same, whatever the number and seed of theirs."""

FIRST_SEED = 1000
"""Training crusts have the seeds from here on, tuning crusts those after the last of them."""

MOST_TUNING = 32
"""Tuning crusts decide the class offsets of rare classes (`class_offsets.py`); eight are too few (docs/results.md)."""

PX_PER_DEG = 30
"""Pixels of 2 arc-minutes, the cells of a crust; a network downsamples them itself."""

LARGEST_CROP_PX = 240
STEP_PX = 16
"""Crops are whole multiples of this: networks halve them up to four times."""

CONTEXT_VERSION = 1
"""Raised whenever the same outcrop gives another context than before: cached contexts are then made again."""

Arrays = dict[str, Any]


def crust_seeds(count: int) -> dict[str, list[int]]:
    """The seeds of training, tuning and test crusts.

    Parameters
    ----------
    count : int
        Training crusts. A tenth as many, 2 to 32, are for tuning, a fifth as many, 2 to 8, for the test.
    """
    tune, test = min(max(count // 10, 2), MOST_TUNING), min(max(count // 5, 2), len(TEST_SEEDS))
    after = FIRST_SEED + count
    return {
        "train": list(range(FIRST_SEED, after)),
        "tune": list(range(after, after + tune)),
        "test": list(TEST_SEEDS[:test]),
    }


def crop_px(height_deg: float, width_deg: float) -> int:
    """Pixels across the crops that crusts of this size hold: 240 (8 degrees), or fewer where crusts are smaller."""
    fits = int(min(height_deg, width_deg) * PX_PER_DEG + 1e-6) // STEP_PX * STEP_PX
    return min(max(fits, STEP_PX), LARGEST_CROP_PX)


def crust_dataset(
    arrays: Arrays, role: int, scales_deg: Sequence[float] | None = None, cache: Path | None = None
) -> RegionDataset:
    """One crust as a dataset.

    Parameters
    ----------
    arrays : dict
        Those of a :class:`RegionDataset` (`gravmap.synthetic.crust_arrays`), on cells around the field's nodes:
        ``labels`` is the surface map, 0 under cover. Also ``truth`` (ny, nx) uint8, the bedrock below the cover, 1..K,
        and ``cover_m`` (ny, nx) float32, the thickness of the cover, metres.
    role : int
        TRAIN, TUNE or TEST, of the whole crust.
    scales_deg : sequence of float, optional
        Sides of windows, degrees; crops are half as wide, and lie within the crust. By default one, whose crops have
        :func:`crop_px` pixels.
    cache : Path, optional
        A folder in which contexts are cached.

    Returns
    -------
    RegionDataset
        With outcrop as context. Its labels are the bedrock under cover, 255 on outcrop; its windows are the whole
        crust.

    Raises
    ------
    OptionError
        Crops of a window are larger than the crust.
    InputError
        The crust has no outcrop, or outcrop of one class only.
    """
    surface, truth = arrays["labels"], arrays["truth"]
    west, south, east, north = (float(side) for side in arrays["label_bounds_wsen"])
    crop = crop_px(north - south, east - west)
    scales = list(scales_deg or [2 * crop / PX_PER_DEG])
    if max(scales) / 2 > min(north - south, east - west) + 1e-9:
        raise OptionError(
            f"Crops of half of {describe_angle(max(scales))} do not fit into crusts of "
            f"{north - south:.3g} x {east - west:.3g} degrees.",
            "Choose a smaller --window, or a larger --shape.",
        )
    dataset = RegionDataset.from_arrays(
        {
            **arrays,
            "labels": np.where(surface == 0, truth, UNUSABLE).astype(np.uint8),
            "role": np.full(surface.shape, role, np.uint8),
            "windows": np.array([[west, south, east, north]] * len(scales)),
            "window_scale_deg": np.array(scales, float),
            "window_role": np.full(len(scales), role, np.uint8),
            "meta": {**arrays["meta"], "tile_size_px": 2 * crop, "split": {"name": CRUSTS}},
        }
    )
    known = surface[dataset.label_rows(dataset.node_lat)[:, None], dataset.label_columns(dataset.node_lon)[None, :]]
    return add_context(dataset, _context(dataset, known, cache))


def crust_splits(
    pool: Callable[[Sequence[int], Progress], Iterable[Arrays]],
    seeds: dict[str, list[int]],
    record: dict[str, Any],
    *,
    scales_deg: Sequence[float] | None = None,
    cache: Path | None = None,
    progress: Progress = silent,
) -> DatasetSplits:
    """Crusts to train, tune and test on.

    Parameters
    ----------
    pool : callable
        Called with seeds and a progress callback; returns the arrays of each crust in the same order, as
        :func:`crust_dataset` takes them.
    seeds : dict of str to list of int
        Of ``train``, ``tune`` and ``test``, as :func:`crust_seeds` gives them.
    record : dict
        JSON-able: the prior of the crusts; saved with the weights.
    scales_deg, cache
        As in :func:`crust_dataset`.
    progress : Progress
        Called after each crust, and after each context.
    """
    every = [(seed, role) for name, role in _ROLES.items() for seed in seeds[name]]
    made = []

    def making(done: int, total: int, note: str = "") -> None:
        progress(done, 2 * total, note)  # the other half is the contexts

    arrays = list(pool([seed for seed, _ in every], making))[::-1]
    for number, (_, role) in enumerate(every, 1):
        crust = arrays.pop()  # popped, or every field would be in memory twice
        made.append(crust_dataset(crust, role, scales_deg, cache))
        progress(len(every) + number, 2 * len(every), "outcrop as context")
    first, second = len(seeds["train"]), len(seeds["train"]) + len(seeds["tune"])
    described = {"on": CRUSTS, **record, "seeds": seeds}
    return DatasetSplits(tuple(made[:first]), tuple(made[first:second]), tuple(made[second:]), record=described)


def _context(dataset: RegionDataset, known: NDArray[np.uint8], cache: Path | None) -> NDArray[np.float32]:
    """The fields of context, read from the cache if they are there."""
    if cache is None:
        return outcrop_context(known, dataset.node_lat, dataset.node_lon, len(dataset.classes))
    key = hashlib.sha256(known.tobytes())
    key.update(f"{CONTEXT_VERSION} {known.shape} {dataset.field_nodes_wsen.tolist()} {len(dataset.classes)}".encode())
    path = cache / f"context-{key.hexdigest()[:24]}.npy"
    shape = (len(dataset.classes) + 2, *known.shape)
    try:
        cached: NDArray[np.float32] = np.load(path, allow_pickle=False)
        if cached.shape == shape and cached.dtype == np.float32:
            return cached
    except (OSError, ValueError, EOFError):
        pass  # missing or damaged: made again
    made = outcrop_context(known, dataset.node_lat, dataset.node_lon, len(dataset.classes))
    with atomic_path(path) as temporary:
        np.save(temporary, made)
    return made


_ROLES = {"train": TRAIN, "tune": TUNE, "test": TEST}
