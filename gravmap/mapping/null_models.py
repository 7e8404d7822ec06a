"""What a map scores without any network, on the very ground a run was scored on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.learning import baselines
from gravmap.learning.area import TEST, TRAIN, Area
from gravmap.learning.metrics import confusion, scores
from gravmap.learning.target import to_target

MOST_NODES = 600_000
"""Beyond it label diffusion's direct solver takes minutes and many GiB, and is left out."""


def null_scores(area: Area, role: int = TEST) -> dict[str, dict[str, Any]]:
    """Scores of the null models on the nodes of one role, knowing the labels that training sees, no more and no less.

    Under a split by random windows that includes nearly all it is scored on, as it does for the network.

    Parameters
    ----------
    area : Area
        What a network was taught on.
    role : int
        TUNE or TEST.

    Returns
    -------
    dict of str to dict
        Null model to its scores (:func:`gravmap.learning.metrics.scores`).

    Raises
    ------
    InputError
        Nothing is known, or nothing is held out.
    """
    labels, roles = area.node_truth()
    usable = (labels > 0) & (labels != 255)
    known = np.where(usable & seen_in_training(area), labels, 0).astype(np.uint8)
    counted = usable & (roles == role)
    if not counted.any():
        raise InputError(
            "No bedrock is held out: null models cannot be scored.", "Choose another --fold when training."
        )
    lat, lon = area.node_lat, area.node_lon
    spacing = baselines.spacing_yx_km(lat, lon)
    maps = {
        "majority class": baselines.majority(known),
        "nearest outcrop, no gravity": baselines.nearest_outcrop(known, lat, lon),
    }
    if known.size <= MOST_NODES:
        maps["label diffusion, no gravity"] = baselines.label_diffusion(known, spacing)
    maps["nearest in gravity, no position"] = baselines.nearest_in_feature_space(known, area.fields, spacing)
    names = [str(entry["name"]) for entry in area.classes]
    truth = to_target(labels[counted])
    return {
        name: scores(confusion(truth, to_target(values[counted]), len(names)), names) for name, values in maps.items()
    }


def seen_in_training(area: Area) -> NDArray[np.bool_]:
    """Nodes whose label training sees: in cells to learn from, inside a training window; shape (ny, nx)."""
    lat, lon = area.node_lat, area.node_lon
    rows, columns = area.label_rows(lat), area.label_columns(lon)
    inside = (rows >= 0)[:, None] & (columns >= 0)[None, :]
    to_learn = inside & (area.role[rows[:, None], columns[None, :]] == TRAIN)
    covered = np.zeros(to_learn.shape, bool)
    for west, south, east, north in area.windows[area.window_role == TRAIN]:
        covered[np.ix_((lat >= south) & (lat <= north), (lon >= west) & (lon <= east))] = True
    return np.asarray(to_learn & covered)
