"""``explore.html``: a map to question in a browser, on one page that fetches nothing.

Bokeh draws and moves the map and the profile; the page's own script (``templates/explore.js``) paints the layers and
shows the values under the pointer. Bokeh is the optional extra ``gravmap[explore]``.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from gravmap.errors import GravmapError, InputError
from gravmap.files import write_text
from gravmap.gravity.field_reader import DEFAULT_RESIDUAL
from gravmap.lattice import KM_PER_DEGREE
from gravmap.mapping.files.layer_file import quantise
from gravmap.mapping.files.qgis_project import gravity_title
from gravmap.mapping.files.writer import gravity_scale
from gravmap.mapping.layers import (
    DISTANCE_COLOURS,
    DISTANCE_STEP_KM,
    ENTROPY,
    EVIDENCE_COLOURS,
    GRAVITY_LEAST_MGAL,
    GRAVITY_STEP_MGAL,
    THICKNESS_COLOURS,
)
from gravmap.mapping.map_grid import PROBABILITY_STEPS
from gravmap.mapping.page.explore_figures import map_figure, profile_figures
from gravmap.mapping.page.figures import thickness_limits_m
from gravmap.mapping.page.maps import age_span
from gravmap.mapping.page.sheet import Sheet, read_sheet
from gravmap.mapping.page.words import degrees, region_title, render
from gravmap.mapping.record.provenance import read_provenance

FILE = "explore.html"
MOST_BYTES = 15_000_000
_DATA_BYTES = 11_000_000  # of MOST_BYTES: without Bokeh's script, and the outlines
_EXPECTED = ("probability", "uncertainty", "evidence", "gravity")
_OTHERS = ("probability", "gravity", "outcrop_distance")
_COLOURS = 64  # of a colour scale
_MARK = '<meta name="gravmap-map" content="{}">'


@dataclass(frozen=True)
class ExplorePage:
    """What :func:`write_explore_page` wrote.

    Attributes
    ----------
    path : Path
        The page.
    cells : (int, int)
        Rows and columns that it shows.
    reduced : float
        How many cells of the files, along each side, are one on the page.
    missing : list of str
        Rasters of a map that this one does not have.
    """

    path: Path
    cells: tuple[int, int]
    reduced: float
    missing: list[str]


def write_explore_page(folder: Path, path: Path | None = None) -> ExplorePage:
    """Write a page to explore a map: layers that pan and zoom, values under the pointer, profiles between two clicks.

    The page contains every layer of the map, at most so many cells that it stays under 15 MB, and Bokeh's script. It
    needs no network and no other file.

    Parameters
    ----------
    folder : Path
        Folder of a finished map. A raster that is missing is left out of the page.
    path : Path, optional
        The page (default: ``explore.html`` in the folder).

    Returns
    -------
    ExplorePage
        The file, and what it shows.

    Raises
    ------
    InputError
        The folder holds no map, or a file of it is damaged.
    GravmapError
        Bokeh is not installed.
    """
    record = check_map(folder)
    require_bokeh()
    path = path or folder / FILE
    budget = _DATA_BYTES
    while True:
        longest_px = _longest_px(folder, budget)
        sheet = read_sheet(folder, longest_px, _OTHERS)
        reduced = max(1.0, max(sheet.cells) / longest_px)
        text = _page(folder, sheet, record, reduced)
        if len(text.encode()) <= MOST_BYTES or budget < _DATA_BYTES / 50:
            break
        budget //= 2
    write_text(path, text)
    missing = [f"{name}.tif" for name in _EXPECTED if not (folder / f"{name}.tif").exists()]
    return ExplorePage(path, sheet.lithology.shape, reduced, missing)


def check_map(folder: Path) -> dict[str, Any]:
    """Return the record of the map in a folder.

    Raises
    ------
    InputError
        There is no map, or its record is damaged or of another version.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder.", "Name the folder of a map; `gravmap predict --region junggar` makes one."
        )
    if not (folder / "lithology.tif").exists():
        raise InputError(
            f"{folder} holds no map: there is no lithology.tif.",
            "Name the folder of a map, such as maps/junggar; `gravmap predict --region junggar` makes one.",
        )
    return read_provenance(folder)


def is_current(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether a page was written by this version of gravmap for the map with this record."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return _mark(record).encode() in stream.read(4096)


def require_bokeh() -> None:
    """Raise an error that says how to install Bokeh if it is not there."""
    try:
        import bokeh  # noqa: F401
    except ImportError:
        raise GravmapError(
            "Bokeh, which draws the page, is not installed.", 'Install it with: pip install "gravmap[explore]"'
        ) from None


def _mark(record: Mapping[str, Any]) -> str:
    from gravmap import __version__

    made = record["outputs"].get("lithology.tif", {}).get("sha256", "")
    return _MARK.format(f"{record['created']} {made} {__version__}")


def _longest_px(folder: Path, budget: int) -> int:
    """Cells along the longer side with which the data take at most `budget` bytes in base64."""
    import rasterio

    per_cell = 4.0  # classes, null model, evidence, entropy
    for name, size in (("probability", 1), ("gravity", 2), ("outcrop_distance", 2), ("cover_thickness", 2)):
        if (folder / f"{name}.tif").exists():
            with rasterio.open(folder / f"{name}.tif") as raster:
                per_cell += size * raster.count
    with rasterio.open(folder / "lithology.tif") as raster:
        rows, columns = raster.shape
    factor = max(1.0, math.sqrt(rows * columns * per_cell * 4 / 3 / budget))
    return max(2, int(max(rows, columns) / factor))


def _page(folder: Path, sheet: Sheet, record: Mapping[str, Any], reduced: float) -> str:
    from bokeh.embed import components
    from bokeh.resources import Resources

    script, divs = components({"map": map_figure(sheet), "profile": profile_figures()}, wrap_script=False)
    resources = Resources(mode="inline", components=["bokeh"])
    title = region_title(str(record["settings"].get("region") or folder.resolve().name))
    return render(
        "explore.html.j2",
        title=title,
        mark=Markup(_mark(record)),
        bounds=degrees(sheet.bounds_wsen),
        everywhere=sheet.everywhere,
        reduced=reduced if reduced > 1.01 else 0.0,
        data=_data(folder, sheet, record),
        bokeh=Markup(resources.render_js()),
        # A script ends at the first such tag in it, wherever it stands.
        script=Markup(script.replace("</", "<\\/")),
        divs={name: Markup(div) for name, div in divs.items()},
        verdict=record.get("verdict", {}),
        made_by=str(record["made_by"]),
        created=str(record["created"])[:10],
    )


def _data(folder: Path, sheet: Sheet, record: Mapping[str, Any]) -> dict[str, Any]:
    """What the page's script reads: the grid, the layers in the order of the list, and their values in base64."""
    rows, columns = sheet.lithology.shape
    classes = _classes(sheet, record)
    layers = [
        _class_layer("lithology", "Bedrock: mapped and predicted", sheet.lithology, classes),
        *_null_model(sheet, classes),
        *_measures(sheet),
        *_gravity(folder, sheet),
        *_distance(sheet),
        *_probabilities(sheet, classes),
    ]
    return {
        "rows": rows,
        "columns": columns,
        "bounds": sheet.bounds_wsen,
        "km_per_degree": KM_PER_DEGREE,
        "everywhere": sheet.everywhere,
        "layers": layers,
    }


def _classes(sheet: Sheet, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Index, name, colour and age of every class."""
    ages = {
        int(entry["index"]): age_span(str(entry["age"]))
        for model in record["models"]
        for entry in model["classes"]
        if entry.get("age", "any") != "any"
    }
    return [{**entry, "age": ages.get(entry["index"], "")} for entry in sheet.classes]


def _class_layer(
    key: str, title: str, values: NDArray[np.uint8], classes: list[dict[str, Any]], note: str = ""
) -> dict[str, Any]:
    # Classes that do not occur are not in the legend, but have a bar among the probabilities.
    present = set(np.unique(values).tolist())
    shown = [{**entry, "present": entry["index"] in present} for entry in classes]
    return {"key": key, "title": title, "kind": "classes", "classes": shown, "note": note, **_stored(values)}


def _null_model(sheet: Sheet, classes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if sheet.diffusion is None:
        return []
    note = "The class by label diffusion from the mapped outcrop alone: what the map would be without gravity."
    return [_class_layer("null_model", "Null model: without gravity", sheet.diffusion, classes, note)]


def _measures(sheet: Sheet) -> list[dict[str, Any]]:
    """Uncertainty, evidence and thickness of the cover."""
    layers = []
    if (entropy := sheet.measures.get(ENTROPY.name)) is not None:
        note = "Entropy of the class probabilities: 0 one class is certain, 1 all are equal."
        layers.append(_quantity("entropy", "Uncertainty", "", entropy, ENTROPY.scale, ("cividis", 0.0, 1.0), note=note))
    if sheet.evidence is not None:
        kinds = [
            {"index": value, "name": sheet.evidence_names.get(value, str(value)), "colour": colour, "age": ""}
            for value, colour in EVIDENCE_COLOURS.items()
        ]
        layers.append(_class_layer("evidence", "Evidence", sheet.evidence, kinds, "What the class of a cell rests on."))
    titles = {
        "median": "Thickness of the cover",
        "p10": "Thickness, 10 % quantile",
        "p90": "Thickness, 90 % quantile",
    }
    for band, values in sheet.thickness_m.items():
        scale = (THICKNESS_COLOURS, *thickness_limits_m(sheet.thickness_m["median"]))
        layer = _quantity(f"thickness_{band}", titles[band], "m", values, 1.0, scale, "uint16")
        layers.append({**layer, "listed": band == "median", "note": "Median of the predicted distribution."})
    return layers


def _gravity(folder: Path, sheet: Sheet) -> list[dict[str, Any]]:
    """The fields of ``gravity.tif``; the role of one residual and of the Bouguer anomaly is named for the profile."""
    fields = sheet.others.get("gravity", {})
    residuals = [name for name in fields if name.startswith("residual")]
    main = DEFAULT_RESIDUAL if DEFAULT_RESIDUAL in residuals else next(iter(residuals), "")
    layers = []
    for number, (name, values) in enumerate(fields.items(), start=1):
        scale = gravity_scale(folder / "gravity.tif", number)
        layer = _quantity(
            name, gravity_title(name), "mGal", values, GRAVITY_STEP_MGAL, scale, "uint16", GRAVITY_LEAST_MGAL
        )
        role = "residual" if name == main else "bouguer" if name == "bouguer" else ""
        layers.append({**layer, "role": role, "signed": name in residuals})
    return layers


def _distance(sheet: Sheet) -> list[dict[str, Any]]:
    found = sheet.others.get("outcrop_distance")
    if found is None:
        return []
    values = next(iter(found.values()))
    known = values[np.isfinite(values)]
    scale = (DISTANCE_COLOURS, 0.0, max(1.0, float(known.max()) if known.size else 1.0))
    return [_quantity("outcrop_distance", "Distance to outcrop", "km", values, DISTANCE_STEP_KM, scale, "uint16")]


def _probabilities(sheet: Sheet, classes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The probability of every class: not in the list of layers, but shown when the class is clicked."""
    by_name = {entry["name"]: entry for entry in classes}
    layers = []
    for name, values in sheet.others.get("probability", {}).items():
        if name not in by_name:
            continue
        key = f"probability_{by_name[name]['index']}"
        title = f"Probability of {name}"
        layer = _quantity(key, title, "", values, 1 / PROBABILITY_STEPS, ("viridis", 0.0, 1.0))
        layers.append({**layer, "listed": False, "class": by_name[name]["index"], "percent": True})
    return layers


def _quantity(
    key: str,
    title: str,
    unit: str,
    values: NDArray[np.float32],
    step: float,
    scale: tuple[str, float, float],
    dtype: str = "uint8",
    least: float = 0.0,
    note: str = "",
) -> dict[str, Any]:
    """A layer of continuous values: stored as in the map's files, with its colours from `low` to `high`."""
    colours, low, high = scale
    ramp = colormaps[colours]
    return {
        **{"key": key, "title": title, "kind": "quantity", "unit": unit, "note": note, "listed": True},
        **{"step": step, "least": least, "low": low, "high": high},
        "colours": [to_hex(ramp(fraction)) for fraction in np.linspace(0, 1, _COLOURS)],
        **_stored(quantise(values, step, dtype, least)),
    }


def _stored(values: NDArray[Any]) -> dict[str, Any]:
    """Values in base64, row by row from the north-west corner; the largest number of the type is no data."""
    little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<")))
    return {"type": str(values.dtype), "data": base64.b64encode(little.tobytes()).decode()}
