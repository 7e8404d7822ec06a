"""Whether a network, the fields it is to read, the other networks and the labels beside it belong together."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gravmap.errors import InputError
from gravmap.geology import Legend, LegendClass
from gravmap.gravity import FieldReader
from gravmap.learning.data.outcrop_context import is_context
from gravmap.learning.training.checkpoint import ModelSpec

_AS_TRAINED = "Make the fields as the network's were (`gravmap residual`), or train on these (`gravmap train`)."


def check_fields(fields: FieldReader, spec: ModelSpec) -> None:
    """Refuse fields that lack what a network reads, have it in another unit, or were made by another recipe.

    Raises
    ------
    InputError
        Naming the first difference.
    """
    inputs, path = spec.input, fields.path
    absent = [name for name in inputs.measured if name not in fields.dataset]
    if absent:
        raise InputError(
            f"{path} has no field {', '.join(absent)}, which the network reads.",
            "Make it as it was made for training: `gravmap residual` with the same --height, --derivatives and so on,"
            " or `gravmap rasterize --faults`.",
        )
    for name, unit in zip(inputs.fields, inputs.units, strict=True):
        if is_context(name):
            continue
        found = str(fields.dataset[name].attrs.get("units", unit))
        if found != unit:
            raise InputError(f"{path} has {name} in {found}; the network was trained on it in {unit}.", _AS_TRAINED)
    _check_recipe(fields.recipe, spec, path)


def _check_recipe(found: dict[str, Any], spec: ModelSpec, path: Path) -> None:
    wanted = spec.field_recipe
    differing = _differing(wanted, found)
    if differing:
        words = "; ".join(f"{key}: trained on {wanted.get(key)!r}, found {found.get(key)!r}" for key in differing)
        raise InputError(
            f"{path} was made by another recipe than the network was trained on ({words}).",
            _AS_TRAINED,
        )
    # A channel that another command added has a recipe of its own, which matters to a network that reads it.
    own, other = wanted.get("by_channel", {}), found.get("by_channel", {})
    for name in spec.channels:
        if own.get(name) != other.get(name):
            raise InputError(
                f"{name} in {path} was made by another recipe than the network was trained on"
                f" (trained on {own.get(name)!r}, found {other.get(name)!r}).",
                "Make it from the same files with the same cap (`gravmap rasterize --faults ... --fault-cap ...`),"
                " or train on this one (`gravmap train`).",
            )


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    # Which other heights lie in the file does not matter: each field says its own height in its name.
    keys = sorted((one.keys() | other.keys()) - {"channels", "heights_m", "by_channel"})
    return [key for key in keys if not _same(one.get(key), other.get(key))]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def check_ensemble(runs: Sequence[tuple[Path, ModelSpec]]) -> None:
    """Refuse runs that cannot name the same classes from the same fields.

    Raises
    ------
    InputError
        Naming the run and the difference.
    """
    (first, wanted), *others = runs
    seen = {first.resolve()}
    for folder, spec in others:
        if folder.resolve() in seen:
            raise InputError(f"The run {folder} is named twice.", "Name each --run once.")
        seen.add(folder.resolve())
        unlike = class_differences(legend_of(wanted), legend_of(spec))
        if unlike:
            raise InputError(
                f"{folder} was trained on other classes than {first}: {unlike[0]}.",
                "Runs that predict together are trained on labels of one legend.",
            )
        differing = _differing(wanted.field_recipe, spec.field_recipe)
        if differing:
            words = "; ".join(
                f"{key}: {json.dumps(wanted.field_recipe.get(key))} and {json.dumps(spec.field_recipe.get(key))}"
                for key in differing
            )
            raise InputError(
                f"{folder} and {first} were trained on fields of two recipes ({words}).",
                "Runs that predict together are trained on one data/fields.nc.",
            )


def check_labels(legend: Legend, spec: ModelSpec, path: Path) -> None:
    """Refuse a label raster whose classes are not those that the network names.

    Raises
    ------
    InputError
        Naming the first difference.
    """
    unlike = class_differences(legend_of(spec), legend)
    if unlike:
        more = f" ({len(unlike)} classes differ)" if len(unlike) > 1 else ""
        raise InputError(
            f"The legend of {path} is not the one the network was trained with: {unlike[0]}{more}.",
            "Make the labels with that legend (`gravmap rasterize --legend ...`), or add --everywhere: then every"
            " cell is predicted.",
        )


def need_labels(labels: Path | None, outcrop: bool) -> None:
    """Refuse to go on without labels where a network starts from mapped outcrop.

    Raises
    ------
    InputError
        It does, and there are none.
    """
    if outcrop and labels is None:
        raise InputError(
            "The network starts from mapped outcrop, and there is no data/labels.tif.",
            "`gravmap rasterize` makes it, with the legend of the network; or --run a network without context.",
        )


def class_differences(trained: Legend, found: Legend) -> list[str]:
    """In words, what differs between the bedrock classes of two legends; colours and ages may differ."""
    one = {entry.index: entry.name for entry in trained.bedrock}
    other = {entry.index: entry.name for entry in found.bedrock}
    return [
        f"class {index} is {one.get(index, 'none')} there and {other.get(index, 'none')} here"
        for index in sorted(one.keys() | other.keys())
        if one.get(index) != other.get(index)
    ]


def legend_of(spec: ModelSpec) -> Legend:
    """The class table that a network was trained with, as a legend."""
    return Legend(
        name="model",
        classes=tuple(
            LegendClass(index=int(entry["index"]), name=entry["name"], age=entry.get("age", ""), colour=entry["colour"])
            for entry in spec.classes
        ),
    )
