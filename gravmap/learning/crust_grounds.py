"""Simulated crusts as grounds: what lies under cover is known there, so that is what is taught and scored.

Of each crust a network sees gravity and what its surface map shows; it is asked for the bedrock where that map shows
cover. Fields are kept as float32, though float16 would do for residuals: 100 crusts of 240 x 360 cells with 18 fields
are 0.6 GB, and a crop costs no conversion.
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
"""Crusts that nothing is ever taught on: all networks are scored on the same, whatever their number and seed."""

FIRST_SEED = 1000
"""Training crusts have the seeds from here on, tuning crusts those after the last of them."""

MOST_TUNING = 32
"""Tuning crusts decide what a map shows of rare classes (`decision.py`); eight are too few (docs/results.md)."""

PX_PER_DEG = 30
"""Pixels of 2 arc-minutes, the cells of a crust: a network brings them together itself as it likes."""

LARGEST_CROP_PX = 240
STEP_PX = 16
"""Crops are whole multiples of this: networks halve them up to four times."""

CONTEXT_VERSION = 1
"""Raised whenever the same outcrop gives another context than before: what is kept is made anew."""

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
    """One crust as a ground.

    Parameters
    ----------
    arrays : dict
        What an area takes (`gravmap.synthetic.crust_arrays`), on cells around the field's nodes: ``labels`` is the
        surface map, 0 under cover. Beside it ``truth`` (ny, nx) uint8, the bedrock below the cover, 1..K.
    role : int
        TRAIN, TUNE or TEST, of the whole crust.
    scales_deg : sequence of float, optional
        Sides of windows, degrees; crops are half as wide, and lie within the crust. By default one, whose crops have
        :func:`crop_px` pixels.
    cache : Path, optional
        A folder in which contexts are kept.

    Returns
    -------
    Area
        With outcrop as context. Its labels are the truth under cover, 255 on outcrop; its windows are the whole crust.

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
    area = RegionDataset.from_arrays(
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
    known = surface[area.label_rows(area.node_lat)[:, None], area.label_columns(area.node_lon)[None, :]]
    return add_context(area, _context(area, known, cache))


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
        Given seeds and who is told of them, makes their arrays in the same order: what :func:`crust_dataset` takes, and
        ``cover_m`` (ny, nx) float32, the thickness of the cover in metres.
    seeds : dict of str to list of int
        Of ``train``, ``tune`` and ``test``, as :func:`crust_seeds` gives them.
    record : dict
        JSON-able: what the crusts were drawn from; kept with the weights.
    scales_deg, cache
        As in :func:`crust_dataset`.
    progress : Progress
        Told the crusts made and the contexts spread out.
    """
    every = [(seed, role) for name, role in _ROLES.items() for seed in seeds[name]]
    made, cover_m = [], []

    def making(done: int, total: int, note: str = "") -> None:
        progress(done, 2 * total, note)  # the other half is the contexts

    arrays = list(pool([seed for seed, _ in every], making))[::-1]
    for number, (_, role) in enumerate(every, 1):
        crust = arrays.pop()  # popped, or every field would be held twice
        made.append(crust_dataset(crust, role, scales_deg, cache))
        if role != TRAIN:
            cover_m.append(crust["cover_m"])
        progress(len(every) + number, 2 * len(every), "their outcrop spread out")
    first, second = len(seeds["train"]), len(seeds["train"]) + len(seeds["tune"])
    said = {"on": CRUSTS, **record, "seeds": seeds}
    return DatasetSplits(
        tuple(made[:first]), tuple(made[first:second]), tuple(made[second:]), record=said, cover_m=tuple(cover_m)
    )


def _context(area: RegionDataset, known: NDArray[np.uint8], cache: Path | None) -> NDArray[np.float32]:
    """The context's planes, read where they are kept."""
    if cache is None:
        return outcrop_context(known, area.node_lat, area.node_lon, len(area.classes))
    key = hashlib.sha256(known.tobytes())
    key.update(f"{CONTEXT_VERSION} {known.shape} {area.field_nodes_wsen.tolist()} {len(area.classes)}".encode())
    path = cache / f"context-{key.hexdigest()[:24]}.npy"
    wanted = (len(area.classes) + 2, *known.shape)
    try:
        kept: NDArray[np.float32] = np.load(path, allow_pickle=False)
        if kept.shape == wanted and kept.dtype == np.float32:
            return kept
    except (OSError, ValueError, EOFError):
        pass  # not there, or damaged: made anew
    made = outcrop_context(known, area.node_lat, area.node_lon, len(area.classes))
    with atomic_path(path) as temporary:
        np.save(temporary, made)
    return made


_ROLES = {"train": TRAIN, "tune": TUNE, "test": TEST}
