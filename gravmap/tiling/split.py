"""Every way to hold ground out, drawn for one tile set and described as its index stores them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import OptionError
from gravmap.geology import Labels
from gravmap.regions import Region
from gravmap.tiling.blocks import BUFFER_DEG, FOLDS, split_blocks
from gravmap.tiling.random_split import RANDOM_SHARE, leaked_share, split_random
from gravmap.tiling.roles import TEST, TRAIN

SPLITS = ("blocks", "random")


def check_splits(names: Sequence[str]) -> None:
    """Refuse names of splits that do not exist, and none at all."""
    strange = [name for name in names if name not in SPLITS]
    if strange or not names:
        raise OptionError(f"No split is called {', '.join(strange) or 'nothing'}.", f"Known: {', '.join(SPLITS)}.")


def split_all(
    splits: Sequence[str],
    raster: Labels,
    region: Region,
    boxes: NDArray[np.float64],
    outcrop: NDArray[np.float64],
    *,
    folds: int = FOLDS,
    block_deg: float | None = None,
    buffer_deg: float = BUFFER_DEG,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], list[str], dict[str, NDArray[Any]]]:
    """The splits as they go into index.json, what there is to say, and their columns of index.parquet."""
    described: list[dict[str, Any]] = []
    notes: list[str] = []
    columns: dict[str, NDArray[Any]] = {}
    if "blocks" in splits:
        split, said = split_blocks(
            raster.values,
            raster.bounds_wsen,
            region,
            block_deg=block_deg,
            folds=folds,
            buffer_deg=buffer_deg,
            seed=seed,
        )
        notes += said
        described.append({**split.to_dict(), "leak": 0.0})
        columns["blocks_fold"] = split.fold_at((boxes[:, 1] + boxes[:, 3]) / 2, (boxes[:, 0] + boxes[:, 2]) / 2)
    if "random" in splits:
        leaks = []
        for fold in range(folds):
            roles = split_random(outcrop, seed=seed, fold=fold)
            leaks.append(leaked_share(boxes[roles == TEST], boxes[roles == TRAIN]))
            columns[f"random_role_fold{fold}"] = roles
        described.append(
            {"name": "random", "folds": folds, "seed": seed, "share": RANDOM_SHARE, "leak": float(np.mean(leaks))}
        )
    return described, notes, columns
