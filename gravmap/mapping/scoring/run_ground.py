"""The ground a run was taught and scored on, opened again and held against what the run says of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gravmap.errors import InputError
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.data.outcrop_context import is_context, with_context
from gravmap.learning.evaluation.null_models import known_labels
from gravmap.tiling import load_arrays


def dataset_of_run(model: Mapping[str, Any], tiles: Path, name: str = "the network") -> RegionDataset:
    """The area of a run: its fields, its split and its fold, from the tile set it was trained on.

    Parameters
    ----------
    model : mapping
        ``model.json`` of the run.
    tiles : Path
        The tile set.
    name : str
        What it is called in messages.

    Returns
    -------
    Area
        With the very arrays of training; for a network that starts from outcrop with what training sees of it, which
        is no part of the fingerprint.

    Raises
    ------
    InputError
        The run was taught on crusts; or no tile set, one whose sources changed, without this split, with other
        classes, or another than the run's.
    """
    if model.get("taught_on"):
        raise InputError(
            f"{name} was taught on simulated crusts, so no ground of a tile set was held out from it.",
            "Its scores under the cover of other crusts are in scores.json; `gravmap predict` makes a map with it.",
        )
    split = model.get("split", {})
    read = list(dict.fromkeys(str(each["field"]) for each in model.get("inputs", []) if each.get("field")))
    fields = [name for name in read if not is_context(name)]
    area = RegionDataset.from_arrays(
        load_arrays(
            tiles, channels=fields or None, split=str(split.get("name", "blocks")), fold=int(split.get("fold", 0))
        )
    )
    _same_classes(model.get("classes", []), area.classes, tiles, name)
    known = model.get("area_sha256")
    if known and known != _fingerprint(area, model):
        raise InputError(
            f"The tile set {tiles} is not the one {name} was trained on: gravity, labels or split have changed since.",
            "Bring back the old data, or train anew on the new tile set.",
        )
    return area if fields == read else with_context(area, known_labels(area))


def _fingerprint(area: RegionDataset, model: Mapping[str, Any]) -> str:
    """What :attr:`gravmap.learning.training.setup.TrainingData.fingerprint` was when the run began."""
    found = area.fingerprint()
    if not model.get("recipe", {}).get("from_tiles", False):
        return found
    # Edited tiles change what was learned, not what is scored: their hash stands in the run's own record.
    read = [str(each["sha256"]) for each in model.get("sources", []) if each.get("role") == "tiles"]
    return hashlib.sha256(f"{found} {read[0]}".encode()).hexdigest() if read else found


def _same_classes(theirs: list[dict[str, Any]], ours: list[dict[str, Any]], tiles: Path, name: str) -> None:
    known, held = ([(int(each["index"]), str(each["name"])) for each in classes] for classes in (theirs, ours))
    if known == held:
        return
    apart = next(
        (
            f"class {mine[0]} is {mine[1]!r} in the run and {other[1]!r} in the labels"
            for mine, other in zip(known, held, strict=False)
            if mine != other
        ),
        f"the run has {len(known)} classes, the labels {len(held)}",
    )
    raise InputError(
        f"The legends of {name} and of {tiles} differ: {apart}.",
        "Rasterize and tile with the legend of the run, or train anew.",
    )
