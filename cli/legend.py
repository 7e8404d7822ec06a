"""`gravmap legend`: check a map against a legend, or draft a first legend."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    Command,
    Group,
    chosen_region,
    dry_run_option,
    option,
    output_option,
    overwrite_option,
    region_options,
)
from .session import Session, command_options

if TYPE_CHECKING:
    from gravmap.geology.legend import Legend
    from gravmap.geology.legend_check import CodeFound, LegendCheck


@click.group(
    "legend",
    cls=Group,
    short_help="Check or draft the legend of a geological map.",
    epilog="""\b
Examples:
  gravmap legend draft geology.gpkg --field UNIT
  gravmap legend check geology.gpkg --legend geology.legend.toml""",
)
def command() -> None:
    """Check a map against a legend, or draft a first legend from the map's own codes.

    A legend is a TOML file: classes, the field of the map with the code (or the age), and the class of each code.
    """


@command.command(
    "check",
    cls=Command,
    short_help="List every code of a map with its class and area.",
    epilog="""\b
Examples:
  gravmap legend check geology.gpkg --legend my_legend.toml
  gravmap legend check geo3al.shp --legend geo3al --field GLG --region junggar
  gravmap legend check macrostrat.gpkg --legend ics --field b_age,t_age""",
)
@click.argument("source", metavar="MAP", type=click.Path(path_type=Path))
@option("--legend", "name", required=True, metavar="NAME|FILE", help="A shipped legend or a TOML file.")
@option("--field", metavar="FIELD", help="The field of the code or age (default: the legend's).")
@region_options
@command_options()
def check(
    session: Session, source: Path, name: str, field: str | None, region: str | None, bbox: tuple[float, ...] | None
) -> None:
    """List every code of MAP with its class, polygons and area.

    Areas are those of the polygons, in km² on the ellipsoid, in the whole map or in the region. Reports codes that the
    legend lacks (and those that differ from one of its codes only in case or spelling), classes that do not occur, and
    codes of the legend that the map lacks. Status 3 where the legend lacks a code.
    """
    from gravmap.geology.legend_check import check_legend

    legend = legend_for(name, field)
    made = check_legend(source, legend, chosen_region(session, region, bbox))
    _describe(session, made, legend)
    session.result(_as_json(made))
    if made.unknown:
        raise _unknown_codes(made, source)


@command.command(
    "draft",
    cls=Command,
    short_help="Write a first legend from a map's own codes and ages.",
    epilog="""\b
Examples:
  gravmap legend draft geology.gpkg --field UNIT
  gravmap legend draft geology.shp --field UNIT --crs EPSG:4284 -o my.toml""",
)
@click.argument("source", metavar="MAP", type=click.Path(path_type=Path))
@option("--field", required=True, metavar="FIELD", help="The field that holds the unit's code or name.")
@option("--classes", default="bedrock10", show_default=True, metavar="NAME|FILE", help="The class table.")
@option("--crs", default="", metavar="EPSG:...", help="Coordinate system of a file that has none of its own.")
@region_options
@output_option("The file to write (default: MAP.legend.toml).")
@dry_run_option
@overwrite_option
@command_options()
def draft(
    session: Session,
    source: Path,
    field: str,
    classes: str,
    crs: str,
    region: str | None,
    bbox: tuple[float, ...] | None,
    output: Path | None,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Write a first legend from MAP's own codes and ages.

    Each code is listed with its guessed class and the reason: the map's own fields of ages, an ICS name, or a
    well-known symbol. Codes without a guess are 255, marked "set me". A geologist should review every line.
    With -n the legend is printed, not written.
    """
    from gravmap.files import write_text
    from gravmap.geology.legend_draft import draft_legend

    path = output or session.workspace.root / f"{source.stem}.legend.toml"
    inputs = [source, Path(classes)]
    if not dry_run:  # it prints what could be written anywhere
        session.writing([path], inputs, overwrite)
    made = draft_legend(source, field, classes, chosen_region(session, region, bbox), crs)
    unknown = [guess for guess in made.guesses if not guess.reason]
    if dry_run:
        session.say(made.text.rstrip("\n"))
    else:
        write_text(path, made.text)
        session.say(f"Wrote {path}: {len(made.guesses)} codes, {len(unknown)} without a guess (255, set me)")
        for guess in unknown[:12]:
            session.say(f"  {guess.code or '(blank)':<24} {guess.area_km2:>12,.0f} km²")
        session.say(f"Read it, then: gravmap legend check {source} --legend {path}")
    session.result(
        {
            "would_write" if dry_run else "written": str(path),
            "codes": [
                {"code": g.code, "class": g.index, "why": g.reason, "polygons": g.polygons, "km2": g.area_km2}
                for g in made.guesses
            ],
        }
    )


def legend_for(name: str, field: str | None) -> Legend:
    """A legend by name or file, reading the field the user named."""
    from gravmap.geology import load_legend
    from gravmap.geology.legend import replace_field

    legend = load_legend(name)
    return replace_field(legend, field) if field else legend


def _describe(session: Session, made: LegendCheck, legend: Legend) -> None:
    mended = f", {made.mended} invalid ones repaired" if made.mended else ""
    dropped = f", {made.dropped} features without area left out" if made.dropped else ""
    crs = "" if made.crs == "EPSG:4326" else f", from {made.crs}"
    session.say(f"{made.file}: {made.polygons} polygons by {made.field}{crs}{mended}{dropped}; legend {made.legend}")
    for note in made.notes:
        session.say(note)
    names = {entry.index: entry.name for entry in legend.classes} | {255: "not usable"}
    width = min(max(len(_written(entry)) for entry in made.codes), 40)
    session.say(f"  {'code':<{width}}  {'class':<20} {'polygons':>8} {'area':>14}")
    for entry in made.codes:
        meant = "unknown" if entry.index is None else f"{entry.index} {names[entry.index]}"
        if entry.index == 255 and entry.code in legend.gaps:
            meant = "gap"
        note = f"  {entry.note}" if entry.note else ""
        session.say(f"  {_written(entry):<{width}}  {meant:<20} {entry.polygons:>8} {_km2(entry.area_km2):>14}{note}")
    if len(made.unknown) == len(made.codes):
        return
    session.say("Classes:")
    total = sum(made.class_km2.values())
    for index, area in made.class_km2.items():
        session.say(f"  {index:>3} {names[index]:<20} {_km2(area):>14} {100 * area / total:6.1f} %")
    if made.unused_classes:
        session.say("Classes that no polygon has: " + ", ".join(f"{k} {names[k]}" for k in made.unused_classes))
    if made.absent_codes:
        session.say(
            "Codes of the legend that the map lacks: " + ", ".join(code or "(blank)" for code in made.absent_codes)
        )


def _written(entry: CodeFound) -> str:
    return " ".join([entry.code or "(blank)", *(f"{key}={value}" for key, value in entry.others.items())])


def _km2(area: float) -> str:
    return f"{area:,.0f} km²" if area >= 10 else f"{area:.3g} km²"


def _as_json(made: LegendCheck) -> dict[str, Any]:
    return {
        "file": made.file,
        "legend": made.legend,
        "field": made.field,
        "crs": made.crs,
        "polygons": made.polygons,
        "mended": made.mended,
        "dropped": made.dropped,
        "notes": list(made.notes),
        "codes": [
            {
                "code": entry.code,
                "others": entry.others,
                "class": entry.index,
                "polygons": entry.polygons,
                "km2": entry.area_km2,
                "note": entry.note,
            }
            for entry in made.codes
        ],
        "class_km2": {str(index): area for index, area in made.class_km2.items()},
        "unused_classes": list(made.unused_classes),
        "absent_codes": list(made.absent_codes),
    }


def _unknown_codes(made: LegendCheck, source: Path) -> Exception:
    from gravmap.errors import InputError

    codes = sorted({entry.code or "(blank)" for entry in made.unknown})
    listed = ", ".join(codes[:8]) + (f" and {len(codes) - 8} more" if len(codes) > 8 else "")
    lost = sum(entry.area_km2 for entry in made.unknown)
    many = f"{len(codes)} codes" if len(codes) > 1 else "a code"
    if len(made.unknown) == len(made.codes):
        return InputError(
            f"The legend {made.legend} has no code in {made.field} of {made.file}.",
            f"Check --field, or write a legend: gravmap legend draft {source} --field {made.field}",
        )
    return InputError(
        f"{made.file} has {many} that the legend {made.legend} lacks ({_km2(lost)}): {listed}.",
        'Give each a class, 255 or "gap" under [map.codes] of your legend; until then their area is not usable.',
    )
