"""Crusts measured like a coarse field at a height of 10 km: training data for the gravity of real_data.py.

`gravmap train --on crusts` measures crusts as WGM2012 does: 2 arc-minutes, height 0. A field at 10 km counts heights
from there, so its residual_10km is the difference between 10 and 20 km: band_10km_20km of a crust. Here crusts have
nodes 16 arc-minutes apart (every eighth cell) and outcrop known at these nodes only, as in the region, while labels
keep their cells. Low pass and noise of the prior are those of that field. All else is as in the command.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gravmap.learning.data.crust_data import crust_seeds, crust_splits
from gravmap.learning.training.recipes import make_config
from gravmap.learning.training.run import train
from gravmap.progress import Progress, silent
from gravmap.synthetic import crust_pool, load_prior
from gravmap.synthetic.prior import Draw, Prior

LEVEL_KM = 10
HEIGHTS_KM = (10, 20, 40)
NODE_STEP = 8
"""Cells between nodes: 16 arc-minutes, close to 15."""

SHAPE = (30 * NODE_STEP + 1, 45 * NODE_STEP + 1)
"""Cells, so that the first and the last are nodes."""

BANDS = tuple(f"band_{LEVEL_KM}km_{LEVEL_KM + height}km" for height in HEIGHTS_KM)
NAMES = tuple(f"residual_{height}km" for height in HEIGHTS_KM)

# Known of that field: wavelengths over 55 km in the south and over 110 km in the north, errors of a few mGal correlated
# over tens of kilometres.
FIELD = {
    "field.low_pass_km": Draw("uniform", 80.0, 0.0, 55.0, 105.0),
    "field.noise_mgal": Draw("uniform", 4.5, 0.0, 1.0, 8.0),
    "field.noise_length_km": Draw("uniform", 35.0, 0.0, 20.0, 50.0),
}


def coarse_prior() -> Prior:
    """The prior central-asia with the low pass and the noise of a coarse field."""
    prior = load_prior()
    return replace(prior, name="central-asia, coarse field", draws={**prior.draws, **FIELD})


def at_height(arrays: dict[str, Any]) -> dict[str, Any]:
    """A crust's arrays at every eighth node, with bands named as by a field at 10 km."""
    meta = arrays["meta"]
    assert tuple(meta["channels"]) == BANDS, meta["channels"]
    nodes = slice(None, None, NODE_STEP)
    rows, columns = arrays["field_valid"].shape
    assert rows % NODE_STEP == columns % NODE_STEP == 1, "the edges would have no nodes"
    return {
        **arrays,
        "fields": np.ascontiguousarray(arrays["fields"][:, nodes, nodes]),
        "field_valid": np.ascontiguousarray(arrays["field_valid"][nodes, nodes]),
        "meta": {
            **meta,
            "channels": list(NAMES),
            "field_recipe": {**meta["field_recipe"], "input_height_m": 1000.0 * LEVEL_KM},
            "crust": {**meta["crust"], "seen_from_km": LEVEL_KM},
        },
    }


def train_on_crusts(folder: Path, count: int, cache: Path, window_deg: float, size_px: int) -> dict[str, float]:
    """Train a network on such crusts, as `gravmap train --on crusts` does; does nothing if that is finished.

    Returns the standard deviation of each channel over the test crusts, mGal.
    """
    if (folder / "scores.json").exists():
        return {}
    prior = coarse_prior()

    def pool(seeds: Sequence[int], progress: Progress) -> list[dict[str, Any]]:
        crusts = crust_pool(prior, seeds, shape=SHAPE, channels=BANDS, cache=cache, progress=progress)
        return [at_height(each) for each in crusts]

    record = {
        "prior": {"name": prior.name, "sha256": prior.sha256, "text": ""},
        "count": count,
        "shape": list(SHAPE),
        "channels": list(NAMES),
        "seen_from_km": LEVEL_KM,
    }
    cache.mkdir(parents=True, exist_ok=True)
    splits = crust_splits(pool, crust_seeds(count), record, scales_deg=[window_deg])
    config = make_config(
        "crusts", inputs=list(NAMES), context="outcrop", tile_size_px=size_px, epochs=20, steps=40, evaluate_every=2
    )
    folder.mkdir(parents=True, exist_ok=True)
    train(splits, folder, config, silent)
    whole = np.stack([dataset.fields[: len(NAMES)] for dataset in splits.test])
    return {name: round(float(whole[:, number].std()), 2) for number, name in enumerate(NAMES)}
