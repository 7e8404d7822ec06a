"""Check that trained networks are compatible with the fields and labels they are used with, and with each other."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gravmap.classes import NamedClasses
from gravmap.errors import InputError
from gravmap.geology.legend import Legend, LegendClass
from gravmap.gravity.field_reader import FieldReader
from gravmap.gravity.patch import INTERCHANGEABLE_VERSIONS
from gravmap.learning.data.outcrop_context import is_context
from gravmap.learning.training.checkpoint import ModelSpec
from gravmap.records import RESAMPLED_FROM, STATED_HEIGHT
from gravmap.units import format_angle, format_length

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
    missing = [name for name in inputs.measured if name not in fields and name not in to_compute]
    if missing:
        raise InputError(
            f"{path} has no field {', '.join(missing)}, which the network reads.",
            "Compute it as for training: `gravmap residual` with the same --height, --derivatives and so on, or"
            " `gravmap layer add` with the same options.",
        )
    for name, unit in zip(inputs.fields, inputs.units, strict=True):
        if is_context(name) or name in to_compute:
            continue
        found = fields.unit(name)
        if found != unit:
            raise InputError(f"{path} has {name} in {found}; the network was trained on it in {unit}.", _SAME_FIELDS)
    check_recipe(fields.recipe, spec.field_recipe, path)
    # A channel that another command added to the file has its own recipe; only networks that read it depend on that.
    trained_channels, found_channels = spec.field_recipe.get("by_channel", {}), fields.recipe.get("by_channel", {})
    for name in spec.channels:
        if trained_channels.get(name) != found_channels.get(name):
            raise InputError(
                f"{name} in {path} was computed with another recipe than for training"
                f" (trained on {trained_channels.get(name)!r}, found {found_channels.get(name)!r}).",
                "Add it from the same files with the same options (`gravmap layer add`), or train a network on this one"
                " (`gravmap train`).",
            )


def check_recipe(found: dict[str, Any], trained: dict[str, Any], path: Path) -> None:
    """Check that the gravity of a file of fields was computed as for training.

    Parameters
    ----------
    found, trained : dict
        `FieldReader.recipe` of the file, and `ModelSpec.field_recipe` of the network.
    path : Path
        The file, for messages.

    Raises
    ------
    InputError
        With the differences.
    """
    differing = _differing_keys(trained, found)
    if differing:
        values = "; ".join(f"{key}: trained on {trained.get(key)!r}, found {found.get(key)!r}" for key in differing)
        raise InputError(
            f"{path} was computed with another recipe than the fields that the network was trained on ({values}).",
            _way_on(trained, found, differing),
        )


def _way_on(trained: dict[str, Any], found: dict[str, Any], differing: Sequence[str]) -> str:
    """What to do about fields of another spacing or level than those of the training."""
    advice = []
    if "input_height_m" in differing:
        level = format_length(float(trained.get("input_height_m") or 0))
        advice.append(
            f"The network reads gravity at a height of {level}: give a grid at that height, or train a network on these"
            " fields (`gravmap train`). --input-height states the height of a grid and does not change it."
        )
    if "spacing_deg" in differing:
        needed, here = (max(recipe.get("spacing_deg") or [0.0]) for recipe in (trained, found))
        if here > needed > 0:
            advice.append(
                f"`gravmap residual --resolution {format_angle(round(needed, 8))} --overwrite` resamples the grid;"
                " it adds no detail."
            )
    return " ".join(advice) or _SAME_FIELDS


def _differing_keys(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    # Other heights in the file do not matter: the name of each field has its height.
    keys = sorted((one.keys() | other.keys()) - {"channels", "heights_m", "by_channel", RESAMPLED_FROM, STATED_HEIGHT})
    if {one.get("operator_version"), other.get("operator_version")} <= INTERCHANGEABLE_VERSIONS:
        keys.remove("operator_version")
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
        mismatch = classes_of_spec(spec).describe_mismatch(f"The run {folder}", str(first), classes_of_spec(expected))
        if mismatch:
            raise InputError(mismatch, "An ensemble needs runs trained with the same class table.")
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


def check_labels(legend: Legend, spec: ModelSpec, path: Path, run: Path, otherwise: str = "") -> None:
    """Check that the bedrock classes of a label raster are those of a network.

    Parameters
    ----------
    legend : Legend
        That of the labels.
    spec : ModelSpec
        The network.
    path, run : Path
        The labels and the run, for messages.
    otherwise : str
        What else the caller could do, for the message.

    Raises
    ------
    InputError
        With the first difference.
    """
    trained = classes_of_spec(spec)
    mismatch = trained.describe_mismatch(f"The run {run.name}", str(path), classes_of_legend(legend))
    if mismatch:
        raise InputError(
            mismatch,
            f"{trained.how_to_make(tiles=False)}; or choose another --run{otherwise}.",
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


def classes_of_spec(spec: ModelSpec) -> NamedClasses:
    """The classes that a network was trained on."""
    return NamedClasses.of(spec.classes, spec.legend_toml)


def classes_of_legend(legend: Legend) -> NamedClasses:
    """The bedrock classes of a legend.

    Examples
    --------
    >>> from gravmap.geology import load_legend
    >>> from gravmap.mapping.compatibility import classes_of_legend
    >>> bedrock, basement = (classes_of_legend(load_legend(name)) for name in ("bedrock10", "basement10"))
    >>> bedrock.differences(basement)
    ['class 9 is Mesozoic there and Basic and ultrabasic intrusive here']
    """
    return NamedClasses({entry.index: entry.name for entry in legend.bedrock}, legend.table)


def legend_from_spec(spec: ModelSpec) -> Legend:
    """Return the legend of a trained network: its classes."""
    return Legend(
        name="model",
        table=classes_of_spec(spec).table,
        classes=tuple(
            LegendClass(index=int(entry["index"]), name=entry["name"], age=entry.get("age", ""), colour=entry["colour"])
            for entry in spec.classes
        ),
    )
