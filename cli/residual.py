"""`gravmap residual`: split a gravity grid into regional and residual fields."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .options import (
    ANGLE,
    LENGTH,
    Command,
    chosen_region,
    dry_run_option,
    option,
    option_group,
    output_option,
    overwrite_option,
    region_options,
)
from .session import Session, command_options


@click.command(
    "residual",
    cls=Command,
    short_help="Split gravity into regional and residual fields.",
    epilog="""\b
Examples:
  gravmap residual --height 10km
  gravmap residual my_grid.nc --height 5km --height 20km --bbox 81 43 92 48""",
)
@click.argument("grid", required=False, type=click.Path(path_type=Path))
@option_group(
    "Input",
    option("--variable", metavar="NAME", help="Variable (netCDF), band (GeoTIFF) or column (text) to read."),
    option(
        "--units", metavar="UNIT", help="Unit of GRID, where the file has none or a wrong one: mGal, m/s2, um/s2 ..."
    ),
    option(
        "--input-height",
        "input_height_m",
        type=LENGTH,
        metavar="LENGTH",
        help="Level of the input above the ellipsoid, positive upward (default: the file's, else 0). It says where the"
        " values hold, and changes none of them; --height counts from there.",
    ),
    option(
        "--resolution",
        "resolution_deg",
        type=ANGLE,
        metavar="ANGLE",
        help="Resample a coarser grid to this node spacing by bicubic splines, for a network trained on a finer one"
        " (2arcmin). It adds no detail.",
    ),
    option(
        "--globe",
        type=click.Path(path_type=Path),
        metavar="GRID",
        help="A global grid, even a coarse one, for the long wavelengths (default: GRID itself where it is global).",
    ),
    region_options,
)
@option_group(
    "Continuation",
    option(
        "--height",
        "heights_m",
        type=LENGTH,
        multiple=True,
        required=True,
        metavar="LENGTH",
        help="Height of the upward continuation above the level of the input; may be repeated: 10km, 500m.",
    ),
    option(
        "--method",
        type=click.Choice(["auto", "regional", "global"]),
        default="auto",
        show_default=True,
        help="regional: an operator on a patch; global: spherical harmonics (best with gravmap[global]); auto: global"
        " only where the region is the whole globe.",
    ),
    option(
        "--trim",
        "trim_text",
        metavar="ANGLE|PERCENT",
        help="Leave out nodes nearer to the edge of the data than this (1deg), or whose expected error is above this"
        " percentage of the residual (10%).",
    ),
    option(
        "--derivatives",
        "with_derivatives",
        is_flag=True,
        help="Add vertical and horizontal derivatives, tilt and analytic signal, 2 km above the level of the input.",
    ),
    option("--bands", "with_bands", is_flag=True, help="Add the bands between successive heights: band_10km_40km ..."),
)
@option_group(
    "Output",
    output_option("The file to write (default: data/fields.nc)."),
    overwrite_option,
    dry_run_option,
)
@command_options()
def command(
    session: Session,
    grid: Path | None,
    heights_m: tuple[float, ...],
    region: str | None,
    bbox: tuple[float, ...] | None,
    variable: str | None,
    units: str | None,
    input_height_m: float | None,
    resolution_deg: float | None,
    globe: Path | None,
    with_derivatives: bool,
    with_bands: bool,
    method: str,
    trim_text: str | None,
    output: Path | None,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Split gravity into a regional and a residual field by upward continuation.

    GRID is a netCDF (GMT or CF), GeoTIFF, ICGEM .gdf, Surfer, ESRI ASCII or lon-lat-value text file; without it,
    the WGM2012 file that `gravmap fetch` downloaded. The region is liu2024 where the grid covers it, else all of
    the grid. Where the grid is wider than the region, a margin of 5 degrees is used and cut off again; with a
    global grid, its degrees up to 180 are removed before and restored after. Writes data/fields.nc, with
    bouguer, regional_10km, residual_10km ... in mGal, and edge_error_10km where the data end near the region; and
    data/fields.png, a picture of it. The layers of a file that is replaced are kept, or made again from their files for
    other nodes (`gravmap layer`). For the whole globe, poles included: --bbox -180 -90 180 90.
    """
    from gravmap.download.present import fetched_gravity, provenance
    from gravmap.errors import InputError
    from gravmap.geology.layers_file import carry_layers, check_carried_layers
    from gravmap.gravity import open_grid, residual_fields, write_fields
    from gravmap.gravity.continuation import check_heights
    from gravmap.gravity.fields import check_request, read_margin_deg
    from gravmap.gravity.globe import has_ducc0
    from gravmap.gravity.grid import crop, extent, own_attributes, refine, spacing_deg
    from gravmap.gravity.long_wavelength import LongWavelengthField, is_global
    from gravmap.gravity.missing_heights import FOUND_AT, READ_AS
    from gravmap.lattice import KM_PER_DEGREE
    from gravmap.mapping.page.fields_picture import draw_fields
    from gravmap.outputs import check_outputs
    from gravmap.regions import find_region
    from gravmap.units import describe_angle, format_length

    check_heights(heights_m)
    trim = _trim(trim_text)
    wanted = chosen_region(session, region, bbox)
    path = output or session.workspace.fields
    picture = path.with_suffix(".png")
    session.writing([path, picture], [grid, globe], overwrite, dry_run)
    source = grid or fetched_gravity(session.workspace.raw)
    check_outputs([path], [source], True)
    if grid is None:
        units = units or "mGal"  # that of the grids that `gravmap fetch` knows, which do not state it
    whole = open_grid(source, variable=variable, input_height_m=input_height_m, units=units)
    own = extent(whole)
    note = ""
    if wanted is None:
        default = find_region("liu2024", session.workspace.regions)
        wanted = default if own.contains(default, 0.5 * max(spacing_deg(whole)) + 1e-6) else own
        note = " (liu2024, the default)" if wanted == default else " (all of the grid: it does not cover liu2024)"
    level_m = float(whole.attrs["height_m"])
    tops = ", ".join(format_length(level_m + height) for height in sorted(heights_m))
    session.say(f"{source}: {whole.attrs['variable']}, {own}, every {describe_angle(max(spacing_deg(whole)))}")
    session.say(f"The grid lies at {_level(level_m)}; the regional is at {tops}.")
    says = own_attributes(whole)
    if "comment" in says:
        session.say(f"The file's comment: {says['comment']}")
    session.say(f"Region {wanted}{note}")
    if method == "auto":
        method = "global" if is_global(whole) and _whole_globe(wanted) else "regional"
    globally = method == "global"
    if globally and not is_global(whole):
        raise InputError(
            f"--method global needs a grid of the whole globe; this one covers {own}.",
            "Leave --method out, and give a coarse global grid with --globe if you have one.",
        )
    # Opened again with the region: of a large file only this part is read, and all of it is checked.
    part = (
        whole
        if globally
        else open_grid(
            source,
            variable=variable,
            region=wanted,
            margin_deg=read_margin_deg(wanted),
            input_height_m=level_m,
            units=units,
        )
    )
    if resolution_deg is not None:
        if globally:
            raise InputError(
                "--resolution is for a region, not for the whole globe.", "Leave it out, or give a region."
            )
        coarse = max(spacing_deg(part))
        part = refine(part, resolution_deg)
        if wanted == own:  # the last step of a finer spacing may end before the grid's edge
            wanted = extent(part)
        session.warn(
            f"Resampled from {describe_angle(coarse)} to {describe_angle(resolution_deg)}: wavelengths under"
            f" {2 * coarse * KM_PER_DEGREE:.0f} km are not in it, and a network trained on a finer grid misses them."
        )
    world = open_grid(globe) if globe is not None else whole
    if globe is not None and not is_global(world):
        raise InputError(
            f"{globe} is not a global grid: it covers {extent(world)}.",
            "Give a grid from pole to pole and around the globe.",
        )
    if globally:
        how = (
            "spherical harmonics (ducc0)"
            if has_ducc0()
            else "bands of latitude and polar caps (ducc0 is not installed)"
        )
        session.say(f"The whole globe is continued, by {how}.")
    elif is_global(world):
        session.say(
            "The longest wavelengths (degrees up to 180) are from the global grid: removed before, restored after."
        )
    nodes = check_request(
        part, heights_m, wanted, method=method, with_derivatives=with_derivatives, trim=trim, globe=is_global(world)
    )
    check_carried_layers(path, (nodes["lat"].values, nodes["lon"].values))
    if dry_run:
        _say_gaps(session, crop(part, wanted))
        megabytes = part.size * (1 + 2 * len(heights_m)) * 4 / 1e6
        session.say(
            f"Would use {part.sizes['lat']} x {part.sizes['lon']} nodes, and write {path}"
            f" ({megabytes:.0f} MB before compression)."
        )
        session.result({"would_write": str(path), "nodes": [part.sizes["lat"], part.sizes["lon"]]})
        return
    sources = [provenance(source, session.workspace.raw)]
    sources[0][FOUND_AT] = Path(os.path.relpath(source.resolve(), path.resolve().parent)).as_posix()
    stated = {key: text for key, text in {"variable": variable, "units": units}.items() if text}
    sources[0] |= {READ_AS: stated} if stated else {}
    sources[0] |= {"attributes": says} if says else {}
    if globe is not None:
        sources.append(provenance(globe, session.workspace.raw))
    with session.progress("residual") as progress:
        low = LongWavelengthField(world, progress) if is_global(world) and not globally else None
        fields = residual_fields(
            part,
            heights_m,
            wanted,
            long_wavelength=low,
            method="global" if globally else "regional",
            with_bands=with_bands,
            trim=trim,
            with_derivatives=with_derivatives,
            sources=sources,
            progress=progress,
        )
    fields, layers = carry_layers(path, fields, path)
    write_fields(fields, path)
    draw_fields(fields, picture)
    missing = _say_gaps(session, fields["bouguer"])
    if layers:
        session.say("Layers: " + ", ".join(f"{name} {how}" for name, how in layers.items()))
    result: dict[str, Any] = {
        "written": str(path),
        "picture": str(picture),
        "layers": layers,
        "region_wsen": list(wanted.bounds_wsen),
        "input_height_m": level_m,
        "missing_fraction": missing,
        "residual_rms_mgal": {},
    }
    for name, field in fields.data_vars.items():
        if str(name).startswith("residual_"):
            result["residual_rms_mgal"][str(name)] = round(float((field.astype(float) ** 2).mean() ** 0.5), 3)
    session.say(
        f"Wrote {path}, and {picture.name}: {fields.sizes['lat']} x {fields.sizes['lon']} nodes; rms of the residual "
        + ", ".join(
            f"{name.removeprefix('residual_')} {rms:g} mGal" for name, rms in result["residual_rms_mgal"].items()
        )
    )
    if "edge_note" in fields.attrs:
        session.say(fields.attrs["edge_note"])
        result["edge_note"] = fields.attrs["edge_note"]
    session.result(result)


def say_missing_heights(session: Session, fields: Path, missing: Sequence[float]) -> None:
    """Print which residuals another command would compute first, and where to."""
    from gravmap.gravity.missing_heights import path_with_heights
    from gravmap.units import format_length

    if missing:
        heights = ", ".join(map(format_length, missing))
        path = path_with_heights(fields, missing)
        session.say(f"{fields} lacks the residuals of {heights}: they would be computed first, into {path}.")


def add_missing_heights(session: Session, fields: Path, missing: Sequence[float], folder: Path | None = None) -> Path:
    """Compute the residuals that `fields` lacks, and return the file with all: beside it, or in `folder`."""
    from gravmap.gravity.missing_heights import add_heights, path_with_heights
    from gravmap.units import format_length

    if not missing:
        return fields
    path = path_with_heights(fields, missing)
    path = path if folder is None else folder / path.name
    with session.progress("residual") as progress:
        source = add_heights(fields, missing, path, session.workspace.raw, progress)
    if folder is None:
        heights = ", ".join(map(format_length, missing))
        session.say(f"{fields} lacks the residuals of {heights}: they are in {path}, computed from {source}.")
    return path


def heights_to_add(session: Session, folder: Path) -> list[float]:
    """Heights of the residuals that a network reads and ``data/fields.nc`` lacks, metres."""
    from gravmap.gravity.missing_heights import missing_heights
    from gravmap.learning.data.outcrop_context import measured_names
    from gravmap.records import read_model
    from gravmap.workspace import require

    fields = require(session.workspace.fields, "gravmap residual --height 10km")
    read = [str(each["field"]) for each in read_model(folder)["inputs"] if each.get("field")]
    return missing_heights(fields, measured_names(list(dict.fromkeys(read))))


def fields_for(session: Session, folder: Path) -> Path:
    """The file with all fields that a network reads: ``data/fields.nc``, or one beside it with the heights it lacks."""
    return add_missing_heights(session, session.workspace.fields, heights_to_add(session, folder))


def _say_gaps(session: Session, gravity: Any) -> float:
    """Print the share of nodes without data and how they are treated; returns it."""
    missing = float(gravity.isnull().mean())
    if missing:
        session.say(
            f"{100 * missing:.2g} % of the nodes have no data: interpolated for the continuation, and without a value"
            " in every field; `coverage` is the measured share of the regional around them."
        )
    return missing


def _level(level_m: float) -> str:
    from gravmap.units import format_length

    return f"{format_length(level_m)} above the ellipsoid" if level_m else "height 0 (taken as on the ellipsoid)"


def _whole_globe(region: Any) -> bool:
    """Whether a region is the Earth, up to a cell of a coarse grid."""
    return bool(region.width_deg > 358 and region.height_deg > 178)


def _trim(text: str | None) -> Any:
    """Read `1deg` or `10%`."""
    from gravmap.errors import OptionError
    from gravmap.gravity.edges import Trim
    from gravmap.units import parse_angle_deg

    if text is None:
        return None
    if not text.strip().endswith("%"):
        width = parse_angle_deg(text)
        if width <= 0:
            raise OptionError(f"--trim {text} is not a width.", "Give a positive one, such as --trim 1deg.")
        return Trim(width_deg=width)
    try:
        fraction = float(text.strip()[:-1]) / 100
    except ValueError:
        fraction = 0.0
    if not 0 < fraction < 1:
        raise OptionError(f"--trim {text} is not a percentage.", "Give one between 0% and 100%, such as --trim 10%.")
    return Trim(max_relative_error=fraction)
