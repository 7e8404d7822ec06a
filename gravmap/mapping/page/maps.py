"""Layout of the maps and of the reliability diagram of a report: positions of lines and labels, drawn as SVG.

SVG is sharp at any resolution, and the style sheet enlarges its labels on small screens.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.gravity import open_fields
from gravmap.gravity.field_reader import DEFAULT_RESIDUAL
from gravmap.lattice import KM_PER_DEGREE
from gravmap.mapping.layers import ENTROPY, EVIDENCE_COLOURS, NODATA, OUTCROP, THICKNESS_COLOURS, UNDER_COVER, UNMAPPED
from gravmap.mapping.page.facts import Facts, field_words
from gravmap.mapping.page.figures import thickness_limits_m, thickness_width_m
from gravmap.mapping.page.paint import Pixels, border, paint_classes, paint_measure, png
from gravmap.plotting import degree_label, graticule, map_aspect, round_step

Bounds = tuple[float, float, float, float]

# Twice the width on the page, for high-resolution screens and print.
_MAIN_PX, _SIDE_PX, _FIELD_NODES = 1500, 1000, 900
_PERIOD_PX = 12  # of rulings and dots

# In units of the drawing: the longer side of a map, and the space for labels to its left and below it.
_LONGEST, _LEFT, _BELOW, _RIM = 1000.0, 46.0, 76.0, 3.0
_LABEL = 110.0  # width of 82.5°E in the largest font size of the style sheet
_MOST_PIECES = 20_000
_CHART = 400.0  # side of the reliability diagram


@dataclass(frozen=True)
class Line:
    """A line of the graticule: its position in the drawing, and its label, empty where labels would overlap."""

    at: float
    label: str
    anchor: str


@dataclass(frozen=True)
class MapDrawing:
    """A map with graticule and scale bar, drawn by the macro ``map`` of ``charts.html.j2``.

    Attributes
    ----------
    width, height : float
        Size of the map, in units of the drawing.
    viewbox : str
        SVG view box of the map and its labels.
    ratio : str
        Width over height; the style sheet limits tall maps to the height of the screen.
    href : str
        The picture, a PNG as a data URI.
    outline : str
        SVG path around cells; empty without an outline.
    fine : bool
        Whether the outline has so many pieces that a thick line would cover them.
    meridians, parallels : list of Line
        The graticule.
    bar : dict
        ``x``, ``y``, ``half`` (length of each half) and ``km`` of the scale bar.
    """

    width: float
    height: float
    viewbox: str
    ratio: str
    href: str
    outline: str
    fine: bool
    meridians: list[Line]
    parallels: list[Line]
    bar: dict[str, float]


def draw_map(bounds_wsen: Bounds, picture: Pixels, outline: NDArray[np.bool_] | None = None) -> MapDrawing:
    """Lay out a map.

    Parameters
    ----------
    bounds_wsen : tuple of float
        Outer edges, degrees.
    picture : (H, W, 3) uint8
        Pixels of the map, north up.
    outline : (ny, nx) bool, optional
        Its border is drawn as a thin line.
    """
    wide = _LONGEST / max(1.0, map_aspect(bounds_wsen))
    tall = wide * map_aspect(bounds_wsen)
    pieces: list[str] = []
    if outline is not None and outline.any() and not outline.all():
        pieces = _outline(outline, wide, tall)
    meridians, parallels = _graticule(bounds_wsen, wide, tall)
    return MapDrawing(
        round(wide, 1),
        round(tall, 1),
        f"{-_LEFT:g} {-_RIM:g} {wide + _LEFT + _RIM:.1f} {tall + _BELOW + _RIM:g}",
        f"{1 / map_aspect(bounds_wsen):.4f}",
        "data:image/png;base64," + base64.b64encode(png(picture)).decode(),
        "".join(pieces),
        len(pieces) >= _MOST_PIECES,
        meridians,
        parallels,
        _scale_bar(bounds_wsen, wide, tall),
    )


def _outline(mask: NDArray[np.bool_], wide: float, tall: float) -> list[str]:
    down, across = tall / mask.shape[0], wide / mask.shape[1]
    level, upright = border(mask)
    pieces = [f"M{first * across:.1f} {row * down:.1f}H{last * across:.1f}" for row, first, last in level]
    return pieces + [f"M{column * across:.1f} {first * down:.1f}V{last * down:.1f}" for column, first, last in upright]


def _graticule(bounds_wsen: Bounds, wide: float, tall: float) -> tuple[list[Line], list[Line]]:
    west, south, east, north = bounds_wsen
    step = round_step(max(east - west, north - south) / 6)
    meridians = [
        ((lon - west) / (east - west) * wide, degree_label(round(float(lon), 6), "E", "W"))
        for lon in graticule(west, east, step)
    ]
    parallels = [
        ((north - lat) / (north - south) * tall, degree_label(round(float(lat), 6), "N", "S"))
        for lat in graticule(south, north, step)
    ]
    return (
        _lines(meridians, wide, step / (east - west) * wide, ("start", "end")),
        _lines(parallels, tall, step / (north - south) * tall, ("end", "start")),
    )


def _lines(found: list[tuple[float, str]], side: float, apart: float, ends: tuple[str, str]) -> list[Line]:
    """Lines with their labels; where lines are close together, as on a narrow map, only some are labelled."""
    every = max(1, int(np.ceil(_LABEL / apart)))
    return [
        Line(
            round(float(at), 1),
            "" if number % every else label,
            ends[0] if at < 30 else ends[1] if at > side - 30 else "middle",
        )
        for number, (at, label) in enumerate(found)
    ]


def _scale_bar(bounds_wsen: Bounds, wide: float, tall: float) -> dict[str, float]:
    west, south, east, north = bounds_wsen
    width_km = (east - west) * KM_PER_DEGREE * float(np.cos(np.radians((south + north) / 2)))
    length_km = round_step(width_km / (5 if wide > _LONGEST / 2 else 3))
    return {"x": 0.0, "y": round(tall + 54, 1), "half": round(length_km / width_km * wide / 2, 1), "km": length_km}


def reliability_chart(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Positions of a reliability diagram: accuracy against predicted probability.

    Parameters
    ----------
    curves : mapping of str to sequence of mapping
        Bins of each curve by style class: ``confidence``, ``accuracy``, ``share`` (fraction of the nodes); empty bins
        are left out.

    Returns
    -------
    dict
        ``size``; ``ticks``, each with ``at`` and ``label``; ``curves``: style class to circles (x, y, r), whose areas
        follow the fraction of nodes in a bin.
    """
    drawn = {
        style: [
            (
                round(_CHART * float(each["confidence"]), 1),
                round(_CHART * (1 - float(each["accuracy"])), 1),
                round(3 + 16 * float(each["share"]) ** 0.5, 1),
            )
            for each in bins
            if each.get("share") and each.get("confidence") is not None and each.get("accuracy") is not None
        ]
        for style, bins in curves.items()
    }
    ticks = [{"at": _CHART * tick, "label": f"{tick:g}"} for tick in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return {"size": _CHART, "ticks": ticks, "curves": drawn}


def main_map(facts: Facts) -> dict[str, Any]:
    """Values of the main map: ``drawing``, ``classes`` that occur, and further entries of the legend."""
    sheet, ages = facts.sheet, class_ages(facts)
    colours = {entry["index"]: entry["colour"] for entry in sheet.classes}
    picture = paint_classes(
        sheet.lithology,
        colours,
        width_px=_MAIN_PX,
        ruled=sheet.predicted,
        unmapped=sheet.unmapped,
        period_px=_PERIOD_PX,
    )
    return {
        "drawing": draw_map(sheet.bounds_wsen, picture, sheet.outcrop),
        "classes": [
            entry | {"age": ages.get(entry["index"], "")}
            for entry in sheet.classes
            if facts.areas.of_class(entry["index"]) > 0
        ],
        "has_nodata": facts.areas.nodata_km2 > 0,
        "unmapped": unmapped_ground(facts),
        "has_outcrop": sheet.outcrop is not None,
        "has_predicted": sheet.predicted is not None,
    }


def unmapped_ground(facts: Facts) -> dict[str, Any] | None:
    """Unmapped ground: ``fraction`` of the region, ``km2``, and whether it is ``predicted``; None without any."""
    areas = facts.areas
    if not areas.unmapped_km2:
        return None
    fraction = areas.unmapped_km2 / (areas.mapped_km2 + areas.unmapped_km2)
    return {"fraction": fraction, "km2": areas.unmapped_km2, "predicted": facts.sheet.fills_unmapped}


def comparison_maps(facts: Facts) -> dict[str, Any] | None:
    """The map that label diffusion makes without gravity, and where the network's differs; None without such a map.

    Returns
    -------
    dict
        ``without`` and ``differing``, two drawings, and ``fraction``: that of the cells under cover that differ.
    """
    sheet = facts.sheet
    if sheet.diffusion is None:
        return None
    colours = {entry["index"]: entry["colour"] for entry in sheet.classes}

    def paint(values: NDArray[np.uint8], ruled: NDArray[np.bool_] | None) -> MapDrawing:
        picture = paint_classes(
            values, colours, width_px=_SIDE_PX, ruled=ruled, unmapped=sheet.unmapped, period_px=_PERIOD_PX
        )
        return draw_map(sheet.bounds_wsen, picture, sheet.outcrop)

    differing = sheet.differs_from_diffusion
    compared = (sheet.lithology != NODATA) & (True if sheet.outcrop is None else ~sheet.outcrop)
    return {
        "without": paint(sheet.diffusion, sheet.predicted),
        "differing": paint(np.where(differing, sheet.lithology, NODATA).astype(np.uint8), None),
        "fraction": float(differing.sum() / max(1, compared.sum())),
    }


def uncertainty_map(facts: Facts) -> dict[str, Any] | None:
    """Entropy of the class probabilities: ``drawing``, ``stops`` of its colours and ``median``; None without it."""
    sheet = facts.sheet
    entropy = sheet.measures.get(ENTROPY.name)
    if entropy is None:
        return None
    picture, stops = paint_measure(
        entropy, "cividis", (0.0, 1.0), width_px=_SIDE_PX, unmapped=sheet.unmapped, period_px=_PERIOD_PX
    )
    known = entropy[np.isfinite(entropy)]
    return {
        "drawing": draw_map(sheet.bounds_wsen, picture, sheet.outcrop),
        "stops": stops,
        "median": float(np.median(known)) if known.size else float("nan"),
    }


def thickness_map(facts: Facts) -> dict[str, Any]:
    """Thickness of the cover: the median, and the width of the 80 % interval.

    Returns
    -------
    dict
        ``missing``: why it is not shown, ``network`` (no network has this output), ``cover`` or ``file``; if empty also
        ``maps``, two with ``title``, ``drawing``, ``stops``, ``high`` and ``median``, metres; ``thickest``: median, p10
        and p90 where the median is largest; ``beyond``, the fraction of the cells where the median is larger than the
        thickest cover of the tuning crusts, ``thickest_trained`` (metres; None where not known); and ``scores`` on test
        crusts, with ``run``, of each network that has them.
    """
    sheet = facts.sheet
    if sheet.thickness_m and not np.isfinite(sheet.thickness_m["median"]).any():
        return {"missing": "cover", "maps": [], "scores": []}
    if not sheet.thickness_m:
        trained = any(run.model.get("architecture", {}).get("thickness") for run in facts.used)
        return {"missing": "file" if trained else "network", "maps": [], "scores": []}
    maps = []
    for title, values, colours in (
        ("Median", sheet.thickness_m["median"], THICKNESS_COLOURS),
        ("Width of the 80 % interval", thickness_width_m(sheet), "cividis"),
    ):
        limits, known = thickness_limits_m(values), values[np.isfinite(values)]
        picture, stops = paint_measure(
            values, colours, limits, width_px=_SIDE_PX, unmapped=sheet.unmapped, period_px=_PERIOD_PX
        )
        maps.append(
            {
                "title": title,
                "drawing": draw_map(sheet.bounds_wsen, picture, sheet.outcrop),
                "stops": stops,
                "high": limits[1],
                "median": float(np.median(known)) if known.size else float("nan"),
            }
        )
    median = sheet.thickness_m["median"]
    thickest = np.unravel_index(np.argmax(np.nan_to_num(median, nan=-1.0)), median.shape)
    calibrated = [run.calibration.get("thickness", {}).get("thickest_km") for run in facts.used]
    trained_m = max((1000 * km for km in calibrated if km), default=None)
    known_m = median[np.isfinite(median)]
    scored = [(run, run.test["thickness"]["all"]) for run in facts.used if run.test.get("thickness")]
    return {
        "missing": "",
        "maps": maps,
        "thickest": {name: float(values[thickest]) for name, values in sheet.thickness_m.items()},
        "thickest_trained": trained_m,
        "beyond": float(np.mean(known_m > trained_m)) if trained_m and known_m.size else 0.0,
        "scores": [{"run": run.name, **scores} for run, scores in scored if scores.get("rmse_m") is not None],
    }


def evidence_map(facts: Facts) -> dict[str, Any] | None:
    """The evidence: ``drawing``, ``parts`` of the mapped area with name, colour, km2 and fraction, and ``unmapped``.

    None without evidence.
    """
    sheet, areas = facts.sheet, facts.areas
    if sheet.evidence is None:
        return None
    whole = areas.mapped_km2
    parts = [
        {
            "name": sheet.evidence_names.get(value, str(value)),
            "colour": EVIDENCE_COLOURS[value],
            "km2": areas.of_evidence(value),
            "fraction": areas.of_evidence(value) / whole if whole else 0.0,
        }
        for value in (OUTCROP, *UNDER_COVER)
    ]
    colours = {value: colour for value, colour in EVIDENCE_COLOURS.items() if value != UNMAPPED}
    picture = paint_classes(sheet.evidence, colours, width_px=_SIDE_PX, unmapped=sheet.unmapped, period_px=_PERIOD_PX)
    return {"drawing": draw_map(sheet.bounds_wsen, picture), "parts": parts, "unmapped": unmapped_ground(facts)}


def gravity_map(facts: Facts, fields: Path | None) -> dict[str, Any]:
    """An input field of the network over the region of the map: the default residual, or the first.

    Returns
    -------
    dict
        ``missing``: reason why it is not shown (``no file``, ``outside``, ``unknown``, or a message); if empty also
        ``drawing``, ``words`` (its description), ``unit``, ``low``, ``high``, ``stops`` and ``rms``.
    """
    if fields is None or not fields.exists():
        return {"missing": "no file"}
    try:
        dataset = open_fields(fields)
    except InputError as error:
        return {"missing": error.message}
    read = [name for run in facts.used for name in run.channels if name in dataset]
    residuals = [str(name) for name in dataset.data_vars if str(name).startswith("residual_")]
    shown = [name for name in read if name.startswith("residual_")] or read or residuals or ["bouguer"]
    name = DEFAULT_RESIDUAL if DEFAULT_RESIDUAL in shown else shown[0]
    west, south, east, north = facts.sheet.bounds_wsen
    part = dataset[name].sel(lat=slice(south - 1e-6, north + 1e-6), lon=slice(west - 1e-6, east + 1e-6))
    if min(part.shape) < 2:
        return {"missing": "outside"}
    step = max(1, -(-max(part.shape) // _FIELD_NODES))
    values = part.values[::-1][::step, ::step]
    known = values[np.isfinite(values)]
    if known.size == 0:
        return {"missing": "unknown"}
    diverging = not name.startswith("bouguer")
    low, high = (float(limit) for limit in np.percentile(known, (1, 99)))
    if diverging:
        high = max(abs(low), abs(high))
        low = -high
    picture, stops = paint_measure(values, "RdBu_r" if diverging else "viridis", (low, high), width_px=_MAIN_PX)
    half = [float(abs(part[axis][1] - part[axis][0])) / 2 for axis in ("lat", "lon")]
    lat, lon = part["lat"].values, part["lon"].values
    bounds = (float(lon[0]) - half[1], float(lat[0]) - half[0], float(lon[-1]) + half[1], float(lat[-1]) + half[0])
    return {
        "missing": "",
        "drawing": draw_map(bounds, picture, _outcrop_over(facts, bounds)),
        "words": field_words(name),
        "unit": str(part.attrs.get("units", "mGal")),
        "low": low,
        "high": high,
        "stops": stops,
        "rms": float(np.sqrt((known.astype(np.float64) ** 2).mean())),
    }


def _outcrop_over(facts: Facts, bounds_wsen: Bounds) -> NDArray[np.bool_] | None:
    """The mapped outcrop over a box that is a little larger or smaller than the map, sampled at the map's cells."""
    outcrop = facts.sheet.outcrop
    if outcrop is None:
        return None
    west, south, east, north = bounds_wsen
    rows, columns = outcrop.shape
    lat = north - (np.arange(rows) + 0.5) * (north - south) / rows
    lon = west + (np.arange(columns) + 0.5) * (east - west) / columns
    left, low, right, high = facts.sheet.bounds_wsen
    row = np.clip(((high - lat) / (high - low) * rows).astype(int), 0, rows - 1)
    column = np.clip(((lon - left) / (right - left) * columns).astype(int), 0, columns - 1)
    return outcrop[np.ix_(row, column)]


def class_ages(facts: Facts) -> dict[int, str]:
    """Age range of each class, from the class table of the model."""
    table = facts.used[0].model["classes"] if facts.used else []
    return {int(entry["index"]): age_span(str(entry.get("age", ""))) for entry in table if entry.get("age") != "any"}


def age_span(age: str) -> str:
    """An age range formatted for a legend: 298.9–251.9 Ma."""
    ends = age.removesuffix(" Ma").split("-")
    try:
        return "–".join(f"{float(end):.4g}" for end in ends) + " Ma" if age.endswith(" Ma") else age
    except ValueError:
        return age
