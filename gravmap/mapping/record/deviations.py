"""Where a map departs from the paper it follows, told from what it was made of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gravmap.units import format_angle, format_length

# Liu et al. 2024 (doi 10.3389/feart.2024.1407173): the general list is docs/deviations.md; these show in the data.
PAPER_GRID = "wgm2012"
PAPER_SPACING_DEG = 1 / 30
PAPER_HEIGHT_M = 10_000.0


def deviations(
    recipe: Mapping[str, Any], sources: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Any]]
) -> list[str]:
    """One sentence for each departure.

    Parameters
    ----------
    recipe : mapping
        The field recipe.
    sources : sequence of mapping
        As :func:`gravmap.mapping.record.data_sources.original_data` gives them.
    models : sequence of mapping
        As :func:`gravmap.mapping.record.model_record.describe_run` gives them.
    """
    return [*_of_the_gravity(recipe, sources), *_of_the_map(sources), *_of_the_networks(models)]


def _of_the_gravity(recipe: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> list[str]:
    told = []
    grids = [entry for entry in sources if entry.get("role") == "gravity"]
    if not any(entry.get("known_as") == PAPER_GRID for entry in grids):
        names = sorted({str(entry.get("path") or entry.get("name")) for entry in grids})
        told.append(f"The gravity is {', '.join(names) or 'of unknown origin'}, not the paper's WGM2012.")
    spacing = max(recipe.get("spacing_deg") or [PAPER_SPACING_DEG])
    if not math.isclose(spacing, PAPER_SPACING_DEG, rel_tol=1e-3):
        told.append(f"The gravity grid has a value every {format_angle(spacing)}, the paper's every 2arcmin.")
    level = float(recipe.get("input_height_m") or 0.0)
    heights = [float(height) for height in recipe.get("heights_m", [])]
    if level and heights:
        between = ", ".join(f"{format_length(level)} and {format_length(level + height)}" for height in heights)
        told.append(
            f"The grid lies {format_length(level)} above the ellipsoid and heights are counted from there: a residual"
            f" is what is lost between {between}, not between the surface and 10km."
        )
    if heights and PAPER_HEIGHT_M not in heights:
        told.append(f"The regional field is of {', '.join(map(format_length, heights))}, the paper's of 10km.")
    return told


def _of_the_map(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    names = sorted({str(entry["file"]) for entry in sources if entry.get("role") == "map" and entry.get("file")})
    if not names:
        return []
    return [f"The geology is of {', '.join(names)}; the paper's map is not public."]


def _of_the_networks(models: Sequence[Mapping[str, Any]]) -> list[str]:
    told: dict[str, list[str]] = {}  # what networks have in common is said once
    for model in models:
        for sentence in _of_one(model):
            told.setdefault(sentence, []).append(str(model["name"]))
    return [f"{', '.join(names)}: {sentence}" for sentence, names in told.items()]


def _of_one(model: Mapping[str, Any]) -> Iterator[str]:
    if model.get("model") != "ggmnet":
        yield f"the network is {model.get('model')}, not the paper's GGMNet (ggmnet)."
    kinds = {entry.get("kind") for entry in model.get("inputs") or []}
    if kinds and "rgb" not in kinds:
        yield "fields are read in their units, by the paper's network as a picture in colours."
    split = (model.get("split") or {}).get("kind") or (model.get("split") or {}).get("name")
    if split and split != "random":
        yield f"tuned and scored on held-out {split}, the paper's network on windows drawn at random."
