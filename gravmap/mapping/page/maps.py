"""The report's maps: the bedrock, how sure it is, on what it rests, and the gravity it was read from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.gravity import open_fields
from gravmap.learning.outcrop import CONTEXT
from gravmap.mapping.layers import COVERED, ENTROPY, EVIDENCE_COLOURS, EXTRAPOLATED, NEAR, NODATA, OUTCROP
from gravmap.mapping.page.charts import map_svg, ratio
from gravmap.mapping.page.facts import Facts
from gravmap.mapping.page.paint import paint_classes, paint_measure
from gravmap.mapping.page.pictures import predicted
from gravmap.mapping.page.words import area, listed, missing, percent, swatch, text
from gravmap.plotting import NODATA_COLOUR

# Twice the width a page gives them: sharp on fine screens and on paper.
_MAIN_PX, _SIDE_PX, _FIELD_NODES = 1500, 1000, 900


def main_map(facts: Facts) -> str:
    """The bedrock with its legend."""
    sheet, ruled = facts.sheet, predicted(facts.sheet)
    outcrop = None if sheet.evidence is None else np.asarray(sheet.evidence == OUTCROP)
    colours = {entry["index"]: entry["colour"] for entry in sheet.classes}
    picture = paint_classes(sheet.lithology, colours, width_px=_MAIN_PX, ruled=ruled, period_px=12)
    shown = [entry for entry in sheet.classes if facts.ground.of_class(entry["index"]) > 0]
    names = listed(entry["name"] for entry in shown)
    described = f"Map of the bedrock of {facts.title}: {names}."
    ages = class_ages(facts)
    items = [
        f"<li>{swatch(entry['colour'])}<span>{text(entry['name'])}{_small(ages.get(entry['index'], ''))}</span></li>"
        for entry in shown
    ]
    if facts.ground.of_class(NODATA) > 0:
        items.append(f"<li>{swatch(NODATA_COLOUR)}<span>no data</span></li>")
    if outcrop is not None:
        mapped = "mapped outcrop, shown as mapped" if ruled is not None else "mapped outcrop"
        items.append(f'<li class="apart">{swatch("", "outlined")}<span>{mapped}</span></li>')
    if ruled is not None:
        items.append(f"<li>{swatch('', 'ruled')}<span>under cover, predicted</span></li>")
    told = "The evidence layer is missing, so outcrop and predicted ground are not told apart here."
    if ruled is not None:
        told = (
            "Inside the black lines bedrock crops out and is shown as geologists mapped it. Where the colour is ruled"
            " in white, sediments hide it and its class is a prediction from gravity."
        )
    elif outcrop is not None:
        told = "Every class here is a prediction from gravity, on the outcrop (inside the black lines) too."
    drawn = map_svg(described, sheet.bounds_wsen, picture, outcrop)
    return (
        f'<figure class="main-map" style="{ratio(sheet.bounds_wsen)}">{drawn}'
        f'<ul class="key">{"".join(items)}</ul><figcaption>{told}</figcaption></figure>'
    )


def doubts(facts: Facts) -> str:
    """Uncertainty and evidence side by side, with the shares of ground."""
    sheet = facts.sheet
    figures = []
    entropy = sheet.measures.get(ENTROPY.name)
    if entropy is not None:
        outcrop = None if sheet.evidence is None else np.asarray(sheet.evidence == OUTCROP)
        picture, stops = paint_measure(entropy, "cividis", (0.0, 1.0), width_px=_SIDE_PX)
        described = f"Map of the uncertainty: the median entropy is {_median(entropy):.2f} of 1."
        figures.append(
            f"<figure><h3>How sure</h3>{map_svg(described, sheet.bounds_wsen, picture, outcrop)}"
            + _scale(stops, "0: one class is sure", "1: all classes are equal")
            + "<figcaption>Entropy of the class probabilities. On outcrop (outlined) it is the network's doubt, not the"
            " map's.</figcaption></figure>"
        )
    if sheet.evidence is not None:
        picture = paint_classes(sheet.evidence, EVIDENCE_COLOURS, width_px=_SIDE_PX)
        described = "Map of the evidence: " + "; ".join(
            f"{sheet.evidence_names.get(value, value)} {percent(share)}" for value, share in _shares(facts).items()
        )
        figures.append(
            f"<figure><h3>What it rests on</h3>{map_svg(described, sheet.bounds_wsen, picture)}"
            f"{_rests_on(facts)}</figure>"
        )
    gaps = []
    if entropy is None:
        gaps.append(missing("This map has no uncertainty.tif, so how sure it is cannot be shown."))
    if sheet.evidence is None:
        gaps.append(missing("This map has no evidence.tif, so what its classes rest on cannot be shown."))
    return f'<div class="pair">{"".join(figures)}</div>{"".join(gaps)}' if figures else "".join(gaps)


def gravity_map(facts: Facts, fields: Path | None) -> str:
    """The field the network read, over the map's ground."""
    if fields is None or not fields.exists():
        return missing("The gravity fields are not at hand, so the residual is not shown.")
    try:
        dataset = open_fields(fields)
    except InputError as error:
        return missing(f"The residual is not shown: {error.message}")
    read = [name for run in facts.runs if run.used for name in run.channels if name in dataset]
    residuals = [str(name) for name in dataset.data_vars if str(name).startswith("residual_")]
    name = next((name for name in read if name.startswith("residual_")), (read or residuals or ["bouguer"])[0])
    west, south, east, north = facts.sheet.bounds_wsen
    part = dataset[name].sel(lat=slice(south - 1e-6, north + 1e-6), lon=slice(west - 1e-6, east + 1e-6))
    if min(part.shape) < 2:
        return missing("The gravity fields do not cover this map, so the residual is not shown.")
    step = max(1, -(-max(part.shape) // _FIELD_NODES))
    values = part.values[::-1][::step, ::step]
    known = values[np.isfinite(values)]
    if known.size == 0:
        return missing("The gravity fields are unknown over this map, so the residual is not shown.")
    unit = str(part.attrs.get("units", "mGal"))
    diverging = not name.startswith("bouguer")
    low, high = (float(limit) for limit in np.percentile(known, (1, 99)))
    if diverging:
        high = max(abs(low), abs(high))
        low = -high
    picture, stops = paint_measure(values, "RdBu_r" if diverging else "viridis", (low, high), width_px=_MAIN_PX)
    half = [float(abs(part[axis][1] - part[axis][0])) / 2 for axis in ("lat", "lon")]
    lat, lon = part["lat"].values, part["lon"].values
    bounds = (float(lon[0]) - half[1], float(lat[0]) - half[0], float(lon[-1]) + half[1], float(lat[-1]) + half[0])
    rms = float(np.sqrt((known.astype(np.float64) ** 2).mean()))
    words = field_words(name)
    return (
        f"<figure>{map_svg(f'Map of the {words} over the region, {unit}.', bounds, picture)}"
        + _scale(stops, f"{low:.3g} {unit}", f"{high:+.3g} {unit}")
        + f"<figcaption>{text(words[:1].upper() + words[1:])}; rms {rms:.3g} {text(unit)} over this map. Colours end at"
        " the 1st and 99th percentile.</figcaption></figure>"
    )


def field_words(name: str) -> str:
    """A field's name in words."""
    if name.startswith("residual_"):
        return f"residual gravity: Bouguer less its upward continuation by {_spaced(name.removeprefix('residual_'))}"
    known = {"bouguer": "Bouguer gravity anomaly", CONTEXT: "the outcrop mapped around"}
    return known.get(name, name.replace("_", " "))


def class_ages(facts: Facts) -> dict[int, str]:
    """Span of time of each class, as the model's class table has it."""
    table: list[dict[str, Any]] = next((run.model.get("classes", []) for run in facts.runs if run.used), [])
    return {int(entry["index"]): _span(str(entry.get("age", ""))) for entry in table if entry.get("age") != "any"}


def _span(age: str) -> str:
    """A span of time as a legend prints it: 298.9–251.9 Ma."""
    ends = age.removesuffix(" Ma").split("-")
    try:
        return "–".join(f"{float(end):.4g}" for end in ends) + " Ma" if age.endswith(" Ma") else age
    except ValueError:
        return age


def _spaced(length: str) -> str:
    return length.removesuffix("km") + " km" if length.endswith("km") else length


def _small(words: str) -> str:
    return f"<small>{text(words)}</small>" if words else ""


def _median(values: NDArray[Any]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def _shares(facts: Facts) -> dict[int, float]:
    whole = facts.ground.of_evidence()
    return {
        value: facts.ground.of_evidence(value) / whole if whole else 0.0
        for value in (OUTCROP, NEAR, COVERED, EXTRAPOLATED)
    }


def _rests_on(facts: Facts) -> str:
    shares = _shares(facts)
    bar = "".join(
        f'<i style="flex:{share:.5f};background:{EVIDENCE_COLOURS[value]}"></i>'
        for value, share in shares.items()
        if share
    )
    rows = "".join(
        f"<li>{swatch(EVIDENCE_COLOURS[value])}<span>{text(facts.sheet.evidence_names.get(value, str(value)))}"
        f"<small>{area(facts.ground.of_evidence(value))}, {percent(share)}</small></span></li>"
        for value, share in shares.items()
    )
    return f'<div class="stack" aria-hidden="true" style="margin-top:.9rem">{bar}</div><ul class="key">{rows}</ul>'


def _scale(stops: list[str], low: str, high: str) -> str:
    return (
        f'<div class="scale"><i style="background:linear-gradient(to right,{",".join(stops)})"></i>'
        f"<span><b>{text(low)}</b><b>{text(high)}</b></span></div>"
    )
