"""Residuals that a network asks for and the file of fields lacks, made on the spot as `gravmap residual` makes them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gravmap.errors import GravmapError, OptionError
from gravmap.files import sha256
from gravmap.gravity import field_recipe, open_fields, open_grid, residual_fields, write_fields
from gravmap.gravity.fields import read_margin_deg
from gravmap.gravity.fields_file import field_sources
from gravmap.progress import Progress, silent
from gravmap.regions import Region
from gravmap.units import format_length, parse_length_m

log = logging.getLogger(__name__)

ADDED = "gravmap_added"
"""Attribute of a file that holds such residuals: JSON of what they were made from."""

_RESIDUAL = "residual_"


def missing_heights(fields_path: Path, names: Sequence[str]) -> list[float]:
    """Heights in metres of the residuals that are asked for and not in a file of fields.

    Empty where something else is missing, too: that cannot be made here, and is refused where fields are checked.

    Parameters
    ----------
    fields_path : Path
        ``data/fields.nc``.
    names : sequence of str
        Fields that a network reads.

    Raises
    ------
    InputError
        The file is missing, unreadable, or not gravmap's.
    """
    with open_fields(fields_path, lazily=True) as fields:
        absent = [name for name in names if name not in fields]
    try:
        heights = [parse_length_m(name.removeprefix(_RESIDUAL)) for name in absent if name.startswith(_RESIDUAL)]
    except OptionError:
        return []
    known = len(heights) == len(absent) and all(
        name == f"{_RESIDUAL}{format_length(height)}" for name, height in zip(absent, heights, strict=True)
    )
    return sorted(heights) if known else []


def add_heights(
    fields_path: Path, heights_m: Sequence[float], path: Path, raw: Path, progress: Progress = silent
) -> str:
    """Write a copy of a file of fields with the residuals of further heights.

    They are made from the grid that the file itself was made from, with what it knows around the region, where that
    lies in `raw`; else from the file's own field, which ends at the rim of the region.

    Parameters
    ----------
    fields_path : Path
        ``data/fields.nc``.
    heights_m : sequence of float
        Above the level of the data.
    path : Path
        The file to write. One that was made from the same fields already is kept.
    raw : Path
        ``data/raw``.
    progress : Progress
        Told after every height.

    Returns
    -------
    str
        What they were made from, in words.

    Raises
    ------
    InputError
        The fields cannot be read.
    """
    origin = sha256(fields_path)
    kept = _kept(path, origin, heights_m)
    if kept:
        return kept
    fields = open_fields(fields_path)
    made, told = _from_source(fields, heights_m, raw, progress)
    if made is None:
        grid = fields["bouguer"].assign_attrs(height_m=float(fields.attrs.get("height_m", 0.0)))
        made = residual_fields(grid, heights_m, progress=progress)
        told = f"the field in {fields_path.name} itself, which ends at the rim of its region"
    names = [name for height in heights_m for name in (f"regional_{format_length(height)}", _name(height))]
    recipe = field_recipe(fields)
    recipe["channels"] = [*recipe.get("channels", []), *names]
    recipe["heights_m"] = sorted({*map(float, recipe.get("heights_m", [])), *map(float, heights_m)})
    whole = fields.assign({name: made[name] for name in names})
    whole.attrs = {
        **fields.attrs,
        **({"edge_note": made.attrs["edge_note"]} if "edge_note" in made.attrs else {}),
        "gravmap_recipe": json.dumps(recipe),
        ADDED: json.dumps({"heights_m": list(map(float, heights_m)), "made_from": told, "fields_sha256": origin}),
    }
    write_fields(whole, path)
    return told


def _from_source(
    fields: xr.Dataset, heights_m: Sequence[float], raw: Path, progress: Progress
) -> tuple[xr.Dataset | None, str]:
    """Residuals on the nodes of the fields, from the grid these were made from; None where that cannot be."""
    source: dict[str, Any] = next((each for each in field_sources(fields) if each.get("path")), {})
    file = raw / Path(str(source.get("path", ""))).name
    if not source or not file.is_file() or sha256(file) != source.get("sha256"):
        return None, ""
    lat, lon = fields["lat"].values, fields["lon"].values
    region = Region(float(lon[0]), float(lat[0]), float(lon[-1]), float(lat[-1]))
    try:
        grid = open_grid(
            file,
            region=region,
            margin_deg=read_margin_deg(region),
            input_height_m=float(fields.attrs.get("height_m", 0.0)),
        )
        made = residual_fields(grid, heights_m, region, progress=progress)
    except GravmapError as error:
        log.warning("%s is not read again (%s).", file, error.message)
        return None, ""
    same = made["bouguer"].shape == fields["bouguer"].shape and np.allclose(
        made["bouguer"].values, fields["bouguer"].values, atol=1e-2, equal_nan=True
    )
    return (made.assign_coords(lat=fields["lat"], lon=fields["lon"]), file.name) if same else (None, "")


def _kept(path: Path, origin: str, heights_m: Sequence[float]) -> str:
    """What the file was made from, if it is there and of these fields and heights; else nothing."""
    if not path.exists():
        return ""
    try:
        with open_fields(path, lazily=True) as fields:
            added = json.loads(fields.attrs.get(ADDED, "{}"))
    except (GravmapError, ValueError):
        return ""
    same = added.get("fields_sha256") == origin and added.get("heights_m") == list(map(float, heights_m))
    return str(added.get("made_from", "")) if same else ""


def _name(height_m: float) -> str:
    return f"{_RESIDUAL}{format_length(height_m)}"
