"""`gravmap rasterize`: from a geological map and its legend to a label raster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .legend import legend_for
from .options import ANGLE, chosen_region, dry_run_option, overwrite_option, region_options
from .session import Session, command_options

if TYPE_CHECKING:
    from gravmap.geology import Legend, RasterizedMap
    from gravmap.regions import Region


@click.command(
    "rasterize",
    epilog="""\b
Examples:
  gravmap rasterize
  gravmap rasterize geology.gpkg --legend my_legend.toml --field AGE
  gravmap rasterize --map detailed.gpkg mine.toml --map geo3al.shp geo3al""",
)
@click.argument("source", metavar="[MAP]", required=False, type=click.Path(path_type=Path))
@click.option("--legend", metavar="NAME|FILE", help="What MAP's codes mean: a shipped legend or a TOML file.")
@click.option("--field", metavar="FIELD", help="The field of MAP that holds the code (default: what the legend says).")
@click.option(
    "--map",
    "pairs",
    type=(click.Path(path_type=Path), str),
    multiple=True,
    metavar="FILE LEGEND",
    help="A map and its legend; may be repeated, and an earlier map wins where two overlap.",
)
@region_options
@click.option("--resolution", type=ANGLE, default="15arcsec", show_default=True, help="Side of a cell.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write (default: data/labels.tif).")
@dry_run_option
@overwrite_option
@command_options()
def command(
    session: Session,
    source: Path | None,
    legend: str | None,
    field: str | None,
    pairs: tuple[tuple[Path, str], ...],
    region: str | None,
    bbox: tuple[float, ...] | None,
    resolution: float,
    output: Path | None,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Burn geological maps into a raster of bedrock classes.

    MAP is a GeoPackage, a Shapefile or a zip of one; it is reprojected, and invalid polygons are mended. Without MAP
    and --map, the maps that `gravmap fetch` got, fsu_geol before geo3al. The region is that of data/fields.nc where it
    exists, else liu2024. Writes data/labels.tif (0 cover, 1, 2 ... bedrock, 255 not usable) and, beside it,
    labels.legend.toml.
    """
    from gravmap.files import refuse_existing
    from gravmap.geology import rasterize, write_labels
    from gravmap.geology.rasterize import grid_shape

    maps = _chosen_maps(session, source, legend, field, pairs)
    path = output or session.workspace.labels
    wanted, why = region_of_labels(session, chosen_region(session, region, bbox))
    rows, columns, _ = grid_shape(wanted, resolution)
    if not dry_run:
        refuse_existing(path, overwrite)
    session.say(f"Region {wanted}{why}: {rows} x {columns} cells")
    if dry_run:
        for file, own in maps:
            session.say(f"Would read {file} by the legend {own.name}, field {own.wanted}")
        # Numbers of polygons and classes stand side by side for a moment.
        session.say(
            f"Would write {path}; about {300 + 4 * rows * columns / 1e6:.0f} MB of memory, seconds to a minute."
        )
        session.result({"would_write": str(path), "cells": [rows, columns], "maps": [str(file) for file, _ in maps]})
        return
    with session.progress("rasterize") as progress:
        made = rasterize(maps, wanted, resolution, progress=progress)
    write_labels(path, made)
    describe(session, made, path)


def _chosen_maps(
    session: Session, source: Path | None, legend: str | None, field: str | None, pairs: tuple[tuple[Path, str], ...]
) -> list[tuple[Path, Legend]]:
    """The maps the user named, or else the fetched ones."""
    from gravmap.errors import InputError
    from gravmap.geology import shipped_legends

    if source is not None and pairs:
        raise click.UsageError("Give one MAP with --legend, or --map FILE LEGEND repeated, not both.")
    if source is None and (legend or field):
        raise click.UsageError("--legend and --field belong to a MAP: gravmap rasterize MAP --legend NAME|FILE")
    if source is not None:
        if legend is None:
            raise click.UsageError(f"{source} needs a --legend: a TOML file, or one of {', '.join(shipped_legends())}.")
        pairs = ((source, legend),)
    if not pairs:
        return fetched_pairs(session)
    chosen = []
    for path, name in pairs:
        if not path.exists():
            raise InputError(
                f"The map {path} is missing.", "Check the path; `gravmap fetch` gets the maps gravmap knows."
            )
        chosen.append((path, legend_for(name, field)))
    return chosen


def fetched_pairs(session: Session) -> list[tuple[Path, Legend]]:
    """The maps that `gravmap fetch` got, with their legends, in order of precedence.

    Raises
    ------
    InputError
        There is none.
    """
    from gravmap.errors import InputError
    from gravmap.geology import load_legend
    from gravmap.gravity.fetch import fetched_maps

    maps = [(path, load_legend(name)) for name, path in fetched_maps(session.workspace.raw)]
    if not maps:
        raise InputError(
            f"No geological map in {session.workspace.raw}.",
            "`gravmap fetch` gets two; or bring your own: gravmap rasterize MAP --legend NAME|FILE",
        )
    return maps


def region_of_labels(session: Session, chosen: Region | None) -> tuple[Region, str]:
    """The region to cover, and why it is this one."""
    from gravmap.regions import find_region
    from gravmap.tiling import fields_region

    if chosen is not None:
        return chosen, ""
    if session.workspace.fields.exists():
        return fields_region(session.workspace.fields), f" (that of {session.workspace.fields})"
    return find_region("liu2024", session.workspace.regions), " (liu2024, the default)"


def describe(session: Session, made: RasterizedMap, path: Path) -> None:
    """Say what a label raster holds and how it came about."""
    for report in made.maps:
        mended = f", {report.mended} invalid ones mended" if report.mended else ""
        dropped = f", {report.dropped} features without area left out" if report.dropped else ""
        crs = "" if report.crs == "EPSG:4326" else f", reprojected from {report.crs}"
        session.say(f"{report.file}: {report.polygons} polygons by {report.field}{crs}{mended}{dropped}")
    names = {entry.index: entry.name for entry in made.legend.classes} | {255: "not usable"}
    total = sum(made.class_km2.values())
    for index, area in made.class_km2.items():
        session.say(f"  {index:>3}  {names[index]:<16} {area:>12,.0f} km²  {100 * area / total:5.1f} %")
    session.say(f"Wrote {path}")
    result: dict[str, Any] = {
        "written": str(path),
        "bounds_wsen": list(made.bounds_wsen),
        "resolution_deg": made.resolution_deg,
        "class_km2": {str(index): area for index, area in made.class_km2.items()},
        "unknown_codes": [
            {"map": entry.map, "code": entry.code, "km2": entry.area_km2, "polygons": entry.polygons}
            for entry in made.unknown
        ],
        "maps": [
            {
                "file": report.file,
                "legend": report.legend,
                "field": report.field,
                "crs": report.crs,
                "polygons": report.polygons,
                "mended": report.mended,
                "dropped": report.dropped,
                "notes": list(report.notes),
            }
            for report in made.maps
        ],
    }
    session.result(result)
