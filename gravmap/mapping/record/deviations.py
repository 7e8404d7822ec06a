"""Where a map departs from the paper it follows, as far as its inputs show that.

Liu et al. 2024 (doi 10.3389/feart.2024.1407173); the general list is docs/deviations.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gravmap.units import format_angle, format_length

if TYPE_CHECKING:
    from gravmap.network.architecture import Architecture

PAPER_GRID = "wgm2012"
PAPER_SPACING_DEG = 1 / 30
PAPER_HEIGHT_M = 10_000.0


def deviations_from_paper(
    recipe: Mapping[str, Any], sources: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Where a map departs from the paper it follows, one sentence for each departure.

    Networks are compared by their architecture, not by their name.

    Parameters
    ----------
    recipe : mapping
        The field recipe.
    sources : sequence of mapping
        As :func:`gravmap.mapping.record.data_sources.original_data` gives them.
    models : sequence of mapping
        As :func:`gravmap.mapping.record.model_record.describe_run` gives them.
    """
    return [*_gravity_deviations(recipe, sources), *_map_deviations(sources), *_network_deviations(models)]


def _gravity_deviations(recipe: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> list[str]:
    sentences = []
    grids = [entry for entry in sources if entry.get("role") == "gravity"]
    if not any(entry.get("known_as") == PAPER_GRID for entry in grids):
        names = sorted({str(entry.get("path") or entry.get("name")) for entry in grids})
        sentences.append(f"The gravity is {', '.join(names) or 'of unknown origin'}, not the paper's WGM2012.")
    spacing = max(recipe.get("spacing_deg") or [PAPER_SPACING_DEG])
    if not math.isclose(spacing, PAPER_SPACING_DEG, rel_tol=1e-3):
        sentences.append(f"The gravity grid has a value every {format_angle(spacing)}, the paper's every 2arcmin.")
    level = float(recipe.get("input_height_m") or 0.0)
    heights = [float(height) for height in recipe.get("heights_m", [])]
    if level and heights:
        between = ", ".join(f"{format_length(level)} and {format_length(level + height)}" for height in heights)
        sentences.append(
            f"The grid lies {format_length(level)} above the ellipsoid and heights are counted from there: a residual"
            f" is what is lost between {between}, not between the surface and 10km."
        )
    if heights and PAPER_HEIGHT_M not in heights:
        sentences.append(f"The regional field is of {', '.join(map(format_length, heights))}, the paper's of 10km.")
    return sentences


def _map_deviations(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    names = sorted({str(entry["file"]) for entry in sources if entry.get("role") == "map" and entry.get("file")})
    if not names:
        return []
    return [f"The geology is of {', '.join(names)}; the paper's map is not public."]


def _network_deviations(models: Sequence[Mapping[str, Any]]) -> list[str]:
    models_of: dict[str, list[str]] = {}  # what networks have in common is stated once
    for model in models:
        for sentence in _deviations_of(model):
            models_of.setdefault(sentence, []).append(str(model["name"]))
    return [f"{', '.join(names)}: {sentence}" for sentence, names in models_of.items()]


def _deviations_of(model: Mapping[str, Any]) -> Iterator[str]:
    from gravmap.network.outcrop_start import OutcropStartArchitecture  # here: it loads torch

    architecture = model.get("architecture") or {}
    wrapped = architecture.get("kind") == OutcropStartArchitecture.KIND
    body = architecture["body"] if wrapped else architecture
    yield from _architecture_deviation(str(model.get("model")), body)
    if wrapped:
        yield (
            "the mapped outcrop is an input, and the network corrects the classes diffused from it; the paper's reads"
            " gravity alone."
        )
    if layers := [str(entry.get("field")) for entry in model.get("inputs") or [] if entry.get("kind") == "layer"]:
        yield f"{' and '.join(layers)} {'is an input' if len(layers) == 1 else 'are inputs'} beside gravity."
    if architecture.get("thickness"):
        yield "the network also outputs the thickness of the cover, the paper's classes alone."
    kinds = {entry.get("kind") for entry in model.get("inputs") or []}
    if kinds and "rgb" not in kinds:
        yield "fields are read in their units, by the paper's network as a picture in colours."
    split = (model.get("split") or {}).get("kind") or (model.get("split") or {}).get("name")
    if split == "crusts":
        yield "trained on simulated crusts, the paper's network on the mapped outcrop of its region."
    elif split and split != "random":
        yield f"tuned and scored on held-out {split}, the paper's network on windows drawn at random."


def _architecture_deviation(name: str, record: Mapping[str, Any]) -> Iterator[str]:
    """Compare an architecture record with that of `ggmnet`, field by field."""
    from gravmap.network.architecture import Architecture
    from gravmap.network.presets import reference

    if record.get("kind") != Architecture.KIND:
        yield f"the network is {name}, not the paper's GGMNet (ggmnet)."
        return
    found, paper = Architecture.from_dict(record), reference()
    if differences := list(_differences(found, paper)):
        yield f"the network ({name}) is a GGMNet that differs from the paper's (ggmnet): {', '.join(differences)}."


def _differences(found: Architecture, paper: Architecture) -> Iterator[str]:
    if found.depth != paper.depth:
        yield f"{found.depth} cells per branch instead of {paper.depth}"
    shared = slice(min(found.depth, paper.depth))  # ggmnet-16 to -24 continue the same sequence of cells
    cells = [[(row[shared], chi[shared]) for row, chi in zip(a.ops, a.chis, strict=True)] for a in (found, paper)]
    if cells[0] != cells[1] or found.paths != paper.paths:
        yield "other operators, widths or paths of the cells"
    if found.encoder != paper.encoder:
        yield f"an encoder of {_widths(found.encoder)} channels instead of {_widths(paper.encoder)}"
    if found.head != paper.head:
        yield f"a head of {_widths(found.head)} channels instead of {_widths(paper.head)}"
    for field, words in _PARTS.items():
        if getattr(found, field) != getattr(paper, field):
            yield words
    if found.interpolate != paper.interpolate:
        rows, columns = found.interpolate
        yield f"a pixel of its input is interpolated to {rows} x {columns}"
    if found.attention:
        yield "self-attention over the coarsest branch"


def _widths(channels: Sequence[int]) -> str:
    return ", ".join(map(str, channels))


# Every other field of an Architecture, and how it differs where it is not the paper's.
_PARTS = {
    "share_prefix": "no cells shared by branches",
    "cell_residual": "no residual connections around cells",
    "encoder_skip": "the encoder's output is not fused",
    "arm": "no attention refinement (ARM)",
    "ffm": "no feature fusion (FFM)",
    "deform": "no deformable convolutions",
    "full_res_stage": "no stage of the head at full size",
    "half_res_stage": "no stage of the head at half size",
    "arm_norm": "no batch normalisation in the ARM",
}
