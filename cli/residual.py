"""`gravmap residual`: from a gravity grid to its regional and residual fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import LENGTH, chosen_region, dry_run_option, overwrite_option, region_options
from .session import Session, command_options


@click.command(
    "residual",
    epilog="""\b
Examples:
  gravmap residual --height 10km
  gravmap residual my_grid.nc --height 5km --height 20km --bbox 81 43 92 48""",
)
@click.argument("grid", required=False, type=click.Path(path_type=Path))
@click.option(
    "--height",
    "heights_m",
    type=LENGTH,
    multiple=True,
    required=True,
    metavar="LENGTH",
    help="How far up to continue, counted from the level of the input; may be repeated: 10km, 500m.",
)
@region_options
@click.option("--variable", metavar="NAME", help="Which variable (netCDF), band (GeoTIFF) or column (text).")
@click.option("--units", metavar="UNIT", help="Unit of GRID, where it says none or a wrong one: mGal, m/s2, um/s2 ...")
@click.option(
    "--input-height",
    "input_height_m",
    type=LENGTH,
    metavar="LENGTH",
    help="Level of the input above the ellipsoid (default: what the file says, else 0).",
)
@click.option(
    "--globe",
    type=click.Path(path_type=Path),
    help="A global grid, however coarse, for the long waves (default: GRID itself where it is global).",
)
@click.option(
    "--derivatives",
    "with_derivatives",
    is_flag=True,
    help="Add vertical and horizontal derivatives, tilt and analytic signal, 2 km above the level of the input.",
)
@click.option(
    "--bands", "with_bands", is_flag=True, help="Add what lies between successive heights: band_10km_40km ..."
)
@click.option(
    "--method",
    type=click.Choice(["auto", "regional", "global"]),
    default="auto",
    show_default=True,
    help="The operator on a patch, or harmonics of the whole globe (best with gravmap[global]); auto: global only where"
    " the region is the whole globe.",
)
@click.option(
    "--trim",
    "trim_text",
    metavar="ANGLE|SHARE",
    help="Leave out what is nearer to the end of the data than this (1deg), or where the expected error is above this"
    " share of the residual (10%).",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write (default: data/fields.nc).")
@dry_run_option
@overwrite_option
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

    GRID is a netCDF (GMT or CF), GeoTIFF, ICGEM .gdf, Surfer or lon-lat-value text file; without it, the WGM2012 file
    that `gravmap fetch` got. The region is liu2024 where the grid covers it, else all of the grid. Where the grid is
    wider than the region, 5 degrees around it are used and cut off again; where a globe is known, its degrees up to
    180 are removed before and restored after. Writes data/fields.nc: bouguer, regional_10km, residual_10km ... in
    mGal; and edge_error_10km where too little is known beyond the edges. A globe itself, poles included: --bbox -180
    -90 180 90.
    """
    from gravmap.download import fetched_gravity, provenance
    from gravmap.errors import InputError
    from gravmap.files import refuse_existing
    from gravmap.gravity import extent, open_grid, residual_fields, spacing_deg, write_fields
    from gravmap.gravity.continuation import check_heights
    from gravmap.gravity.fields import read_margin_deg
    from gravmap.gravity.fields_file import added_channels
    from gravmap.gravity.globe import has_ducc0
    from gravmap.gravity.long_wavelength import LongWavelengthField, is_global
    from gravmap.regions import find_region
    from gravmap.units import format_angle, format_length

    check_heights(heights_m)
    trim = _trim(trim_text)
    wanted = chosen_region(session, region, bbox)
    path = output or session.workspace.fields
    if not dry_run:
        refuse_existing(path, overwrite)
    lost = added_channels(path)
    source = grid or fetched_gravity(session.workspace.raw)
    whole = open_grid(source, variable=variable, input_height_m=input_height_m, units=units)
    own = extent(whole)
    note = ""
    if wanted is None:
        default = find_region("liu2024", session.workspace.regions)
        wanted = default if own.contains(default, 0.5 * max(spacing_deg(whole)) + 1e-6) else own
        note = " (liu2024, the default)" if wanted == default else " (all of the grid: it does not cover liu2024)"
    level_m = float(whole.attrs["height_m"])
    tops = ", ".join(format_length(level_m + height) for height in sorted(heights_m))
    session.say(f"{source}: {whole.attrs['variable']}, {own}, every {format_angle(max(spacing_deg(whole)))}")
    session.say(f"The grid lies at {_level(level_m)}; the regional is at {tops}.")
    session.say(f"Region {wanted}{note}")
    if method == "auto":
        method = "global" if is_global(whole) and _whole_globe(wanted) else "regional"
    globally = method == "global"
    if globally and not is_global(whole):
        raise InputError(
            f"--method global needs a grid of the whole globe; this one covers {own}.",
            "Leave --method out, and name a coarse globe with --globe if you have one.",
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
    world = open_grid(globe) if globe is not None else whole
    if globe is not None and not is_global(world):
        raise InputError(
            f"{globe} is no globe: it covers {extent(world)}.", "Give a grid from pole to pole and all around."
        )
    if globally:
        how = "spherical harmonics (ducc0)" if has_ducc0() else "bands of latitude and polar caps, for want of ducc0"
        session.say(f"The whole globe is continued, by {how}.")
    elif is_global(world):
        session.say("The longest waves (degrees up to 180) are taken from the globe: removed before, restored after.")
    if dry_run:
        megabytes = part.size * (1 + 2 * len(heights_m)) * 4 / 1e6
        session.say(
            f"Would use {part.sizes['lat']} x {part.sizes['lon']} nodes, and write {path}"
            f" ({megabytes:.0f} MB before compression)."
        )
        session.result({"would_write": str(path), "nodes": [part.sizes["lat"], part.sizes["lon"]]})
        return
    sources = [provenance(source, session.workspace.raw)]
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
    write_fields(fields, path)
    if lost:
        session.warn(
            f"{path} held {', '.join(lost)}, which went with the old fields; `gravmap rasterize --faults ...` makes it."
        )
    result: dict[str, Any] = {
        "written": str(path),
        "region_wsen": list(wanted.bounds_wsen),
        "input_height_m": level_m,
        "residual_rms_mgal": {},
    }
    for name, field in fields.data_vars.items():
        if str(name).startswith("residual_"):
            result["residual_rms_mgal"][str(name)] = round(float((field.astype(float) ** 2).mean() ** 0.5), 3)
    session.say(
        f"Wrote {path}: {fields.sizes['lat']} x {fields.sizes['lon']} nodes; rms of the residual "
        + ", ".join(
            f"{name.removeprefix('residual_')} {rms:g} mGal" for name, rms in result["residual_rms_mgal"].items()
        )
    )
    if "edge_note" in fields.attrs:
        session.say(fields.attrs["edge_note"])
        result["edge_note"] = fields.attrs["edge_note"]
    session.result(result)


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
            raise OptionError(f"--trim {text} is no width.", "Give a positive one, such as --trim 1deg.")
        return Trim(width_deg=width)
    try:
        share = float(text.strip()[:-1]) / 100
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise OptionError(f"--trim {text} is no share.", "Give one between 0% and 100%, such as --trim 10%.")
    return Trim(max_relative_error=share)
