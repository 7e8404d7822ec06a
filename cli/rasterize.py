"""`gravmap rasterize`: burn a geological map into a label raster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gravmap.errors import InputError

from . import complete
from .layer import add_layer_to_fields
from .legend import classes_option, legend_for
from .options import (
    ANGLE,
    LENGTH,
    Command,
    chosen_region,
    dry_run_option,
    given_on_command_line,
    hidden,
    option,
    output_option,
    overwrite_option,
    region_options,
)
from .session import Session, command_options

if TYPE_CHECKING:
    from gravmap.geology.legend import Legend
    from gravmap.geology.rasterize_report import RasterizedMap
    from gravmap.regions import Region

MOSTLY = 0.5
"""A larger part of the region on no map is warned of."""


@click.command(
    "rasterize",
    cls=Command,
    short_help="Burn geological maps into a raster of bedrock classes.",
    epilog="""\b
Examples:
  gravmap rasterize
  gravmap rasterize geology.gpkg --legend my_legend.toml --field AGE
  gravmap rasterize --cover-younger-than Permian
  gravmap rasterize --map detailed.gpkg mine.toml --map geo3al.shp geo3al""",
)
@click.argument("source", metavar="[MAP]", required=False, type=click.Path(path_type=Path))
@option(
    "--legend",
    metavar="NAME|FILE",
    shell_complete=complete.legends,
    help="The legend of MAP: a shipped one or a TOML file.",
)
@option("--field", metavar="FIELD", help="The field of MAP with the code (default: the legend's).")
@classes_option
@option(
    "--cover-younger-than",
    "cover",
    metavar="AGE",
    help="Count as cover what is younger than this, whatever the class table has: an age (251.9Ma), or a name of the"
    " ICS chart, which means its base (Mesozoic: the Mesozoic and all that is younger are cover).",
)
@option(
    "--map",
    "pairs",
    type=(click.Path(path_type=Path), str),
    multiple=True,
    metavar="FILE LEGEND",
    help="A map and its legend; may be repeated, and an earlier map wins where two overlap.",
)
@region_options
@option("--resolution", type=ANGLE, default="15arcsec", show_default=True, help="Side of a cell.")
@hidden(
    option("--faults", type=click.Path(path_type=Path), multiple=True, help="Old spelling of `layer add --distance`."),
    option("--fault-cap", "cap_m", type=LENGTH, default="100km", help="Old spelling of `layer add --cap`."),
)
@output_option("The file to write (default: data/labels.tif).")
@dry_run_option
@overwrite_option
@command_options()
def command(
    session: Session,
    source: Path | None,
    legend: str | None,
    field: str | None,
    classes: str | None,
    cover: str | None,
    pairs: tuple[tuple[Path, str], ...],
    region: str | None,
    bbox: tuple[float, ...] | None,
    resolution: float,
    faults: tuple[Path, ...],
    cap_m: float,
    output: Path | None,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Burn geological maps into a raster of bedrock classes.

    MAP is a GeoPackage, a Shapefile or a zip of one; it is reprojected, and invalid polygons are repaired. Without MAP
    and --map, the maps that `gravmap fetch` downloaded, fsu_geol before geo3al. The region is that of data/fields.nc
    where it exists, else liu2024. Writes data/labels.tif (0 cover, 1, 2 ... bedrock, 255 not usable) and, beside it,
    labels.legend.toml, which is itself a --legend that makes the same labels of the same maps.
    """
    labels = not faults or source is not None or bool(pairs)
    if source is None:
        # Those of gravmap.toml and of the environment are for a MAP, and do not stand in the way of another use.
        typed = given_on_command_line()
        legend, field = legend if "legend" in typed else None, field if "field" in typed else None
        if not labels:
            output = output if "output" in typed else None
            classes, cover = classes if "classes" in typed else None, cover if "cover" in typed else None
    if not labels and (legend or field or output or classes or cover):
        raise click.UsageError(
            "--legend, --field, --classes, --cover-younger-than and --output belong to a MAP; --faults writes to"
            " data/fields.nc."
        )
    if faults:
        _check_faults(session, faults, cap_m / 1000, overwrite)
    result: dict[str, Any] = {}
    if labels:
        wanted = chosen_region(session, region, bbox)
        maps = _chosen_maps(session, source, legend, field, pairs, classes)
        maps = _with_cover(maps, cover) if cover else maps
        legends = [Path(name) for name in (legend, *(name for _, name in pairs), classes) if name]
        inputs = [*(file for file, _ in maps), *legends, *faults, session.workspace.fields]
        result = _labels(session, maps, wanted, resolution, output, dry_run, overwrite, inputs)
    if faults:
        result["faults"] = _fault_channel(session, faults, cap_m / 1000, dry_run)
    session.result(result)


COARSE_CELLS = 200
"""Cells along the shorter side of the raster of a dry run."""


def _labels(
    session: Session,
    maps: list[tuple[Path, Legend]],
    chosen: Region | None,
    resolution: float,
    output: Path | None,
    dry_run: bool,
    overwrite: bool,
    inputs: list[Path],
) -> dict[str, Any]:
    """Make the label raster, or print what would be made; returns the result for --json."""
    from gravmap.download.present import fetched_source
    from gravmap.geology import rasterize, write_labels
    from gravmap.geology.labels import label_files
    from gravmap.geology.rasterize import grid_shape

    path = output or session.workspace.labels
    wanted, why = region_of_labels(session, chosen)
    rows, columns, _ = grid_shape(wanted, resolution)
    session.writing(label_files(path), inputs, overwrite, dry_run)
    session.say(f"Region {wanted}{why}: {rows} x {columns} cells")
    if dry_run:
        # The maps are read, so that all that is wrong with them is said; only the raster is coarse.
        made = rasterize(maps, wanted, max(resolution, min(wanted.width_deg, wanted.height_deg) / COARSE_CELLS))
        for (file, own), report in zip(maps, made.maps, strict=True):
            session.say(f"Would read {file} by the legend {own.name}, field {report.field}")
        # Codes, flags of disputed cells and classes are held at the same time.
        session.say(
            f"Would write {path}; about {250 + 4 * rows * columns / 1e6:.0f} MB of memory, seconds to a minute."
        )
        return {"would_write": str(path), "cells": [rows, columns], "maps": [str(file) for file, _ in maps]}
    origins = [fetched_source(file, session.workspace.raw) for file, _ in maps]
    addresses = [origin.files[0].url if origin else "" for origin in origins]
    with session.progress("rasterize") as progress:
        made = rasterize(maps, wanted, resolution, addresses=addresses, progress=progress)
    write_labels(path, made)
    return describe(session, made, path)


def _check_faults(session: Session, faults: tuple[Path, ...], cap_km: float, replace: bool) -> None:
    """Refuse what would fail only after the labels are made.

    Raises
    ------
    InputError
        A file or the fields are missing, or the fields have the channel already and may not lose it.
    """
    from gravmap.geology.faults import check_fault_cap
    from gravmap.geology.layers import FAULT_DISTANCE
    from gravmap.geology.layers_file import check_free
    from gravmap.gravity.fields_file import MADE_BY
    from gravmap.workspace import require

    check_fault_cap(cap_km)
    for path in faults:
        if not path.exists():
            raise InputError(f"The fault map {path} is missing.", "Check the path.")
    check_free(require(session.workspace.fields, MADE_BY), FAULT_DISTANCE, replace)


def _fault_channel(session: Session, faults: tuple[Path, ...], cap_km: float, dry_run: bool) -> dict[str, Any]:
    """The old spelling of `gravmap layer add --distance`; returns the result for --json."""
    from gravmap.geology.layers import DistanceLayer

    session.warn("`gravmap rasterize --faults` is deprecated: use `gravmap layer add --distance`.")
    return add_layer_to_fields(session, DistanceLayer(faults, cap_km), True, dry_run)


def _chosen_maps(
    session: Session,
    source: Path | None,
    legend: str | None,
    field: str | None,
    pairs: tuple[tuple[Path, str], ...],
    classes: str | None,
) -> list[tuple[Path, Legend]]:
    """The maps given on the command line, or else the fetched ones."""
    from gravmap.geology.legend_file import shipped_legends

    if source is not None and pairs:
        raise click.UsageError("Give one MAP with --legend, or --map FILE LEGEND repeated, not both.")
    if source is None and (legend or field):
        raise click.UsageError("--legend and --field belong to a MAP: gravmap rasterize MAP --legend NAME|FILE")
    if source is not None:
        if legend is None:
            raise click.UsageError(f"{source} needs a --legend: a TOML file, or one of {', '.join(shipped_legends())}.")
        pairs = ((source, legend),)
    if not pairs:
        return fetched_pairs(session, classes)
    chosen = []
    for position, (path, name) in enumerate(pairs):
        if not path.exists():
            raise InputError(
                f"The map {path} is missing.", "Check the path; `gravmap fetch` downloads the maps that gravmap knows."
            )
        chosen.append((path, legend_for(name, field, path, classes, pairs[:position].count((path, name)))))
    return chosen


def _with_cover(maps: list[tuple[Path, Legend]], text: str) -> list[tuple[Path, Legend]]:
    """The legends with a class table whose cover reaches down to an age."""
    from gravmap.geology.reclassify import cover_younger_than, parse_cover_age, with_classes

    age = parse_cover_age(text)
    return [(path, with_classes(legend, cover_younger_than(legend, age))) for path, legend in maps]


def fetched_pairs(session: Session, classes: str | None = None) -> list[tuple[Path, Legend]]:
    """The maps that `gravmap fetch` downloaded, with their legends, in order of precedence.

    Raises
    ------
    InputError
        There is none.
    """
    from gravmap.download.present import fetched_maps

    maps = [(path, legend_for(name, None, path, classes)) for name, path in fetched_maps(session.workspace.raw)]
    if not maps:
        raise InputError(
            f"No geological map in {session.workspace.raw}.",
            "`gravmap fetch` downloads two; or use your own: gravmap rasterize MAP --legend NAME|FILE",
        )
    return maps


def region_of_labels(session: Session, chosen: Region | None) -> tuple[Region, str]:
    """The region to cover, and why it is this one."""
    from gravmap.gravity.field_reader import fields_region
    from gravmap.regions import find_region

    if chosen is not None:
        return chosen, ""
    if session.workspace.fields.exists():
        return fields_region(session.workspace.fields), f" (that of {session.workspace.fields})"
    return find_region("liu2024", session.workspace.regions), " (liu2024, the default)"


def describe(session: Session, made: RasterizedMap, path: Path) -> dict[str, Any]:
    """Print what a label raster holds and how it was made; returns the same for --json."""
    for report in made.maps:
        mended = f", {report.mended} invalid ones repaired" if report.mended else ""
        dropped = f", {report.dropped} features without area left out" if report.dropped else ""
        crs = "" if report.crs == "EPSG:4326" else f", reprojected from {report.crs}"
        session.say(f"{report.file}: {report.polygons} polygons by {report.field}{crs}{mended}{dropped}")
        if report.disputed_km2 > 0:
            session.say(
                f"  {_km2(report.disputed_km2)} mapped twice with different classes; the later polygon in the file wins"
            )
    if made.disputed_between_km2 > 0:
        session.say(
            f"{_km2(made.disputed_between_km2)} given different classes by two maps; the earlier map on the command"
            " line wins"
        )
    names = {entry.index: entry.name for entry in made.legend.classes} | {255: "not usable"}
    total = sum(made.class_km2.values())
    session.say(f"Classes of {made.legend.table}:")
    width = max(map(len, names.values()))
    for index, area in made.class_km2.items():
        session.say(f"  {index:>3}  {names[index]:<{width}} {area:>12,.0f} km²  {100 * area / total:5.1f} %")
    parts = {
        "outside every polygon": made.unusable.outside_km2,
        "gap codes": made.unusable.gaps_km2,
        "unusable codes": made.unusable.by_legend_km2,
        "unknown codes": made.unusable.unknown_km2,
    }
    for what, area in parts.items():
        if area > 0:
            session.say(f"         {what:<{width - 2}} {area:>12,.0f} km²")
    if made.unusable.outside_km2 > MOSTLY * total:
        session.warn(
            f"Only {100 * (1 - made.unusable.outside_km2 / total):.0f} % of the region is on a map. The rest is neither"
            " outcrop nor cover, and left out of training and maps; `gravmap residual --bbox` takes a smaller region."
        )
    session.say(f"Wrote {path}")
    return {
        "written": str(path),
        "bounds_wsen": list(made.bounds_wsen),
        "resolution_deg": made.resolution_deg,
        "class_table": made.legend.table,
        "region_km2": total,
        "class_km2": {str(index): area for index, area in made.class_km2.items()},
        "unusable_km2": {
            "outside": made.unusable.outside_km2,
            "gap_codes": made.unusable.gaps_km2,
            "by_legend": made.unusable.by_legend_km2,
            "unknown_codes": made.unusable.unknown_km2,
        },
        "disputed_between_maps_km2": made.disputed_between_km2,
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
                "disputed_km2": report.disputed_km2,
                "notes": list(report.notes),
            }
            for report in made.maps
        ],
    }


def _km2(area: float) -> str:
    return f"{area:,.0f} km²" if area >= 1 else "less than 1 km²"
