"""Compute the residuals that a network reads and ``data/fields.nc`` lacks, as `gravmap residual` would."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gravmap.errors import GravmapError, InputError, OptionError
from gravmap.files import sha256
from gravmap.gravity.fields_file import field_recipe, field_sources, hash_channels, open_fields, write_fields
from gravmap.outputs import check_outputs
from gravmap.progress import Progress, silent
from gravmap.records import parse_record
from gravmap.regions import Region
from gravmap.units import format_length, parse_length_m

log = logging.getLogger(__name__)

ADDED = "gravmap_added"
"""Attribute of a file with such residuals: JSON with their heights, their source and the hash of the fields."""

FOUND_AT = "found_at"
"""Of a recorded source grid: its path as seen from the folder of the fields."""
READ_AS = "read_as"
"""Of a recorded source grid: variable and units, where they were stated."""

_RESIDUAL = "residual_"


class MissingHeightsError(InputError):
    """Residuals are missing that can be computed from the fields.

    Attributes
    ----------
    heights_m : list of float
        Their heights.
    """

    def __init__(self, message: str, hint: str, heights_m: list[float]) -> None:
        super().__init__(message, hint)
        self.heights_m = heights_m


def path_with_heights(fields_path: Path, heights_m: Sequence[float]) -> Path:
    """Return the file beside the fields that holds further heights: ``fields-5km-20km.nc``."""
    return fields_path.with_name("-".join([fields_path.stem, *map(format_length, heights_m)]) + ".nc")


def residual_name(height_m: float) -> str:
    """Return the name of a residual: ``residual_10km``."""
    return f"{_RESIDUAL}{format_length(height_m)}"


def missing_heights(fields_path: Path, names: Sequence[str]) -> list[float]:
    """Return the heights of the residuals that a network reads and the fields lack.

    Parameters
    ----------
    fields_path : Path
        ``data/fields.nc``.
    names : sequence of str
        Fields that the network reads.

    Returns
    -------
    list of float
        Heights in metres, ascending. Empty if any other field is missing too: it cannot be computed here, and
        the reader of the fields refuses the file.

    Raises
    ------
    InputError
        The file is missing, unreadable, or not a file of `gravmap residual`.
    """
    with open_fields(fields_path, lazily=True) as fields:
        absent = [name for name in names if name not in fields]
    try:
        heights = [parse_length_m(name.removeprefix(_RESIDUAL)) for name in absent if name.startswith(_RESIDUAL)]
    except OptionError:
        return []
    known = len(heights) == len(absent) and all(
        name == residual_name(height) for name, height in zip(absent, heights, strict=True)
    )
    return sorted(heights) if known else []


def file_with_channels(fields_path: Path, names: Sequence[str]) -> Path:
    """Return the file that holds some fields: that of the fields, or the one beside it with the heights it lacks.

    Raises
    ------
    MissingHeightsError
        Residuals are in neither; all of them and the command that makes them are named.
    """
    missing = missing_heights(fields_path, names)
    beside = path_with_heights(fields_path, missing)
    if not missing:
        return fields_path
    if _kept(beside, hash_channels(fields_path), missing):
        return beside
    with open_fields(fields_path, lazily=True) as fields:
        known = [str(name) for name in fields.data_vars if str(name).startswith(_RESIDUAL)]
    every = " ".join(f"--height {name.removeprefix(_RESIDUAL)}" for name in [*known, *map(residual_name, missing)])
    raise MissingHeightsError(
        f"{fields_path.resolve()} lacks {', '.join(map(residual_name, missing))}.",
        f"`gravmap residual GRID {every} --overwrite` makes all (GRID: the file that {fields_path.name} was made of,"
        " with the same options), then `gravmap tile --overwrite`.",
        missing,
    )


def add_heights(
    fields_path: Path, heights_m: Sequence[float], path: Path, raw: Path, progress: Progress = silent
) -> str:
    """Write a copy of the fields with the residuals of further heights.

    They are computed from the source grid of the fields, including a margin around the region, if it is unchanged in
    `raw` or where it was read; otherwise from the Bouguer field in the file, which ends at the edge of the region.

    Parameters
    ----------
    fields_path : Path
        ``data/fields.nc``.
    heights_m : sequence of float
        Continuation heights above the level of the data, metres.
    path : Path
        The file to write. It is kept if it was written from the same fields and heights.
    raw : Path
        ``data/raw``.
    progress : Progress
        Called after each height.

    Returns
    -------
    str
        The source they were computed from, for a message.

    Raises
    ------
    InputError
        The fields cannot be read.
    """
    from gravmap.gravity.fields import residual_fields  # here: scipy takes long to load

    origin = hash_channels(fields_path)
    kept = _kept(path, origin, heights_m)
    if kept:
        return kept
    if path.exists() and not _is_ours(path):
        raise InputError(f"{path} exists already, and was not written by `gravmap predict`.", "Move it away.")
    check_outputs([path], [fields_path], True)
    fields = open_fields(fields_path)
    residuals, source = _from_source(fields, heights_m, [raw, fields_path.resolve().parent], progress)
    if residuals is None:
        grid = fields["bouguer"].assign_attrs(height_m=float(fields.attrs.get("height_m", 0.0)))
        residuals = residual_fields(grid, heights_m, progress=progress)
        source = f"the field in {fields_path.name} itself, which ends at the rim of its region"
    names = [name for height in heights_m for name in (f"regional_{format_length(height)}", residual_name(height))]
    recipe = field_recipe(fields)
    recipe["channels"] = [*recipe.get("channels", []), *names]
    recipe["heights_m"] = sorted({*map(float, recipe.get("heights_m", [])), *map(float, heights_m)})
    extended = fields.assign({name: residuals[name] for name in names})
    extended.attrs = {
        **fields.attrs,
        **({"edge_note": residuals.attrs["edge_note"]} if "edge_note" in residuals.attrs else {}),
        "gravmap_recipe": json.dumps(recipe),
        ADDED: json.dumps({"heights_m": list(map(float, heights_m)), "made_from": source, "fields_channels": origin}),
    }
    write_fields(extended, path)
    return source


def _from_source(
    fields: xr.Dataset, heights_m: Sequence[float], folders: Sequence[Path], progress: Progress
) -> tuple[xr.Dataset | None, str]:
    """Compute residuals from the source grid of the fields; None if it is missing, changed or on other nodes.

    `folders` are ``data/raw``, where it may lie, and the folder of the fields, as seen from which its path is recorded.
    """
    from gravmap.gravity.fields import read_margin_deg, residual_fields
    from gravmap.gravity.grid import open_grid, refine
    from gravmap.gravity.long_wavelength import LongWavelengthField, is_global
    from gravmap.records import RESAMPLED_FROM

    source: dict[str, Any] = next((each for each in field_sources(fields) if each.get("path")), {})
    places = [folders[0] / Path(str(source.get("path", ""))).name, folders[1] / str(source.get(FOUND_AT, ""))]
    file = next((place for place in places if place.is_file() and sha256(place) == source.get("sha256")), None)
    if not source or file is None:
        return None, ""
    stated: dict[str, Any] = {
        key: text for key, text in source.get(READ_AS, {}).items() if key in ("variable", "units")
    }
    lat, lon = fields["lat"].values, fields["lon"].values
    region = Region(float(lon[0]), float(lat[0]), float(lon[-1]), float(lat[-1]))
    try:
        grid = open_grid(
            file,
            region=region,
            margin_deg=read_margin_deg(region),
            input_height_m=float(fields.attrs.get("height_m", 0.0)),
            **stated,
        )
        recipe = field_recipe(fields)
        if RESAMPLED_FROM in recipe:
            grid = refine(grid, float(recipe["spacing_deg"][0]))
        low = None
        if fields.attrs.get("low_degrees_removed_and_restored"):
            world = open_grid(file, input_height_m=grid.attrs["height_m"], **stated)
            low = LongWavelengthField(world, progress) if is_global(world) else None
        residuals = residual_fields(grid, heights_m, region, long_wavelength=low, progress=progress)
    except GravmapError as error:
        log.warning("%s cannot be used again: %s", file, error.message)
        return None, ""
    same = residuals["bouguer"].shape == fields["bouguer"].shape and np.allclose(
        residuals["bouguer"].values, fields["bouguer"].values, atol=1e-2, equal_nan=True
    )
    return (residuals.assign_coords(lat=fields["lat"], lon=fields["lon"]), file.name) if same else (None, "")


def _is_ours(path: Path) -> bool:
    """Whether an existing file was written here, and may be replaced."""
    try:
        with open_fields(path, lazily=True) as fields:
            return ADDED in fields.attrs
    except GravmapError:
        return False


def _kept(path: Path, origin: dict[str, str], heights_m: Sequence[float]) -> str:
    """Return the source of an existing file written from these fields and heights, else an empty string."""
    if not path.exists():
        return ""
    try:
        with open_fields(path, lazily=True) as fields:
            added = parse_record(fields.attrs.get(ADDED, "{}"), dict[str, Any], str(path))
    except GravmapError:
        return ""
    known = added.get("fields_channels", {})
    # A layer that was removed since is still in the file, and read by nobody.
    unchanged = bool(known) and all(known.get(name) == digest for name, digest in origin.items())
    same = unchanged and added.get("heights_m") == list(map(float, heights_m))
    return str(added.get("made_from", "")) if same else ""
