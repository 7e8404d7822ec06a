"""Check that trained networks are compatible with the fields and labels they are used with, and with each other."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gravmap.errors import InputError
from gravmap.geology.legend import Legend, LegendClass
from gravmap.gravity.field_reader import FieldReader
from gravmap.learning.data.outcrop_context import is_context
from gravmap.learning.training.checkpoint import ModelSpec

_SAME_FIELDS = "Compute the fields as for training (`gravmap residual`), or train a network on these (`gravmap train`)."


def check_fields(fields: FieldReader, spec: ModelSpec, to_compute: Sequence[str] = ()) -> None:
    """Check that a file has the fields that a network reads, in its units and computed with its settings.

    Residuals `to_compute` may be missing: they will be made with the settings of the others.

    Raises
    ------
    InputError
        With the first difference.
    """
    inputs, path = spec.input, fields.path
    missing = [name for name in inputs.measured if name not in fields.dataset and name not in to_compute]
    if missing:
        raise InputError(
            f"{path} has no field {', '.join(missing)}, which the network reads.",
            "Compute it as for training: `gravmap residual` with the same --height, --derivatives and so on, or"
            " `gravmap rasterize --faults`.",
        )
    for name, unit in zip(inputs.fields, inputs.units, strict=True):
        if is_context(name) or name in to_compute:
            continue
        found = str(fields.dataset[name].attrs.get("units", unit))
        if found != unit:
            raise InputError(f"{path} has {name} in {found}; the network was trained on it in {unit}.", _SAME_FIELDS)
    _check_recipe(fields.recipe, spec, path)


def _check_recipe(found: dict[str, Any], spec: ModelSpec, path: Path) -> None:
    trained = spec.field_recipe
    differing = _differing_keys(trained, found)
    if differing:
        values = "; ".join(f"{key}: trained on {trained.get(key)!r}, found {found.get(key)!r}" for key in differing)
        raise InputError(
            f"{path} was computed with another recipe than the fields that the network was trained on ({values}).",
            _SAME_FIELDS,
        )
    # A channel that another command added to the file has its own recipe; only networks that read it depend on that.
    trained_channels, found_channels = trained.get("by_channel", {}), found.get("by_channel", {})
    for name in spec.channels:
        if trained_channels.get(name) != found_channels.get(name):
            raise InputError(
                f"{name} in {path} was computed with another recipe than for training"
                f" (trained on {trained_channels.get(name)!r}, found {found_channels.get(name)!r}).",
                "Compute it from the same files with the same cap (`gravmap rasterize --faults ... --fault-cap ...`),"
                " or train a network on this one (`gravmap train`).",
            )


def _differing_keys(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    # Other heights in the file do not matter: the name of each field has its height.
    keys = sorted((one.keys() | other.keys()) - {"channels", "heights_m", "by_channel"})
    return [key for key in keys if not _close(one.get(key), other.get(key))]


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_close, one, other))
    return bool(one == other)


def check_ensemble(runs: Sequence[tuple[Path, ModelSpec]]) -> None:
    """Check that the runs of an ensemble predict the same classes from fields computed with the same settings.

    Raises
    ------
    InputError
        With the run and the first difference; or a run is given twice.
    """
    (first, expected), *others = runs
    seen = {first.resolve()}
    for folder, spec in others:
        if folder.resolve() in seen:
            raise InputError(f"The run {folder} is named twice.", "Name each --run once.")
        seen.add(folder.resolve())
        differences = class_differences(legend_from_spec(expected), legend_from_spec(spec))
        if differences:
            raise InputError(
                f"{folder} was trained on other classes than {first}: {differences[0]}.",
                "An ensemble needs runs trained with the same legend.",
            )
        differing = _differing_keys(expected.field_recipe, spec.field_recipe)
        if differing:
            values = "; ".join(
                f"{key}: {json.dumps(expected.field_recipe.get(key))} and {json.dumps(spec.field_recipe.get(key))}"
                for key in differing
            )
            raise InputError(
                f"{folder} and {first} were trained on fields computed with different recipes ({values}).",
                "An ensemble needs runs trained on the same data/fields.nc.",
            )


def check_labels(legend: Legend, spec: ModelSpec, path: Path) -> None:
    """Check that the bedrock classes of a label raster are those of a network.

    Raises
    ------
    InputError
        With the first difference.
    """
    differences = class_differences(legend_from_spec(spec), legend)
    if differences:
        more = f" ({len(differences)} classes differ)" if len(differences) > 1 else ""
        raise InputError(
            f"The legend of {path} is not the one the network was trained with: {differences[0]}{more}.",
            "Rasterize the map with that legend (`gravmap rasterize --legend ...`), or add --everywhere to predict"
            " outcrop, too.",
        )


MOST_UNMAPPED = 0.5
"""Largest fraction of a region that may be on no geological map without a word of the user's."""


def check_mapped(labels: Path, unmapped: float, fill_unmapped: bool) -> None:
    """Check that the geological map covers at least half of a region.

    Parameters
    ----------
    labels : Path
        The label raster, for the message.
    unmapped : float
        Fraction of the region's area that it does not cover (:func:`gravmap.mapping.assemble.unmapped_fraction`).
    fill_unmapped : bool
        Unmapped ground is to be predicted: nothing is refused.

    Raises
    ------
    InputError
        With the percentage.
    """
    if unmapped > MOST_UNMAPPED and not fill_unmapped:
        percent = f"{100 * unmapped:.1f}".removesuffix(".0")
        raise InputError(
            f"{percent} % of the region is unmapped: {labels} shows neither outcrop nor cover there.",
            "Rasterize a geological map of it (`gravmap rasterize MAP --legend ...`), choose a region that is mapped,"
            " or add --fill-unmapped to predict unmapped ground, too.",
        )


def require_labels(labels: Path | None, reads_outcrop: bool) -> None:
    """Check that there are labels if a network reads outcrop context.

    Raises
    ------
    InputError
        The network needs labels and there are none.

    Examples
    --------
    >>> from pathlib import Path
    >>> from gravmap.mapping.compatibility import require_labels
    >>> require_labels(Path("data/labels.tif"), reads_outcrop=True)
    >>> require_labels(None, reads_outcrop=True)
    Traceback (most recent call last):
    ...
    gravmap.errors.InputError: The network starts from mapped outcrop, and there is no data/labels.tif.
    Run `gravmap rasterize` with the network's legend, or choose a network without outcrop context with --run.
    """
    if reads_outcrop and labels is None:
        raise InputError(
            "The network starts from mapped outcrop, and there is no data/labels.tif.",
            "Run `gravmap rasterize` with the network's legend, or choose a network without outcrop context with"
            " --run.",
        )


def class_differences(trained: Legend, found: Legend) -> list[str]:
    """Describe the differences between the bedrock classes of two legends; colours and ages may differ.

    Examples
    --------
    >>> from gravmap.geology.legend import Legend
    >>> from gravmap.geology.legend import LegendClass
    >>> from gravmap.mapping.compatibility import class_differences
    >>> granite = Legend("a", (LegendClass(index=1, name="granite", age="", colour="#FF0000"),))
    >>> basalt = Legend("b", (LegendClass(index=1, name="basalt", age="", colour="#00FF00"),))
    >>> class_differences(granite, basalt)
    ['class 1 is granite there and basalt here']
    """
    one = {entry.index: entry.name for entry in trained.bedrock}
    other = {entry.index: entry.name for entry in found.bedrock}
    return [
        f"class {index} is {one.get(index, 'none')} there and {other.get(index, 'none')} here"
        for index in sorted(one.keys() | other.keys())
        if one.get(index) != other.get(index)
    ]


def legend_from_spec(spec: ModelSpec) -> Legend:
    """Return the legend of a trained network: its classes."""
    return Legend(
        name="model",
        classes=tuple(
            LegendClass(index=int(entry["index"]), name=entry["name"], age=entry.get("age", ""), colour=entry["colour"])
            for entry in spec.classes
        ),
    )
