"""`gravmap legend`: show a legend, check a map against one, or draft a first one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import complete
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
    short_help="Show, check or draft the legend of a geological map.",
    epilog="""\b
Examples:
  gravmap legend show geo3al
  gravmap legend draft geology.gpkg --field UNIT
  gravmap legend check geology.gpkg --legend geology.legend.toml""",
)
def command() -> None:
    """Show a legend, check a map against one, or draft a first one from the map's own codes.

    A legend is a TOML file: the field of the map with the code (or the age), the age and rock type of each code, and
    the class table that makes classes of them.
    """


classes_option = option(
    "--classes",
    metavar="NAME|FILE",
    shell_complete=complete.class_tables,
    help="The class table, for legends whose codes have ages: basement10 (under Mesozoic and Cenozoic cover), bedrock10"
    " (under the Cenozoic alone), or that of a TOML file (default: the legend's).",
)


@command.command(
    "show",
    cls=Command,
    short_help="Print a legend: its class table and its codes.",
    epilog="""\b
Examples:
  gravmap legend show basement10
  gravmap legend show geo3al --classes bedrock10
  gravmap legend show data/labels.legend.toml""",
)
@click.argument("name", metavar="NAME|FILE", shell_complete=complete.legends)
@classes_option
@command_options()
def show(session: Session, name: str, classes: str | None) -> None:
    """Print a legend: its class table, and the age, rock type and class of each code.

    NAME is a shipped legend or a TOML file; of the legend of a label raster, the crosswalk of each map.
    """
    from gravmap.geology import load_legend
    from gravmap.geology.legend_file import legends_of_sources
    from gravmap.geology.reclassify import with_classes

    legend = load_legend(name)
    crosswalks = [legend] if legend.field_candidates else legends_of_sources(legend)
    if classes:
        table = load_legend(classes)
        crosswalks = [with_classes(each, table) for each in crosswalks]
        legend = crosswalks[0] if crosswalks else table
    session.say(f"{legend.name}: {legend.title}" if legend.title else legend.name)
    _say_classes(session, legend)
    for each in crosswalks:
        _say_crosswalk(session, each)
    session.result(_legend_as_json(legend, crosswalks))


def _say_classes(session: Session, legend: Legend) -> None:
    rows: list[tuple[str, ...]] = [("class", "name", "age, Ma", "colour", "rock types")]
    for entry in legend.classes:
        rocks = ", ".join(entry.rocks)
        if entry.intrusive_age:
            rocks = f"intrusions only {entry.intrusive_age}"
        rows.append((str(entry.index), entry.name, entry.age.removesuffix(" Ma"), entry.colour, rocks))
    session.say(f"Class table {legend.table}:")
    _say_table(session, rows)


def _say_crosswalk(session: Session, legend: Legend) -> None:
    names = {entry.index: f"{entry.index} {entry.name}" for entry in legend.classes} | {255: "255 not usable"}
    where = f" of {legend.sources[0].get('file', '?')}" if legend.sources else ""
    session.say(f"Legend {legend.name}, field {legend.field_names}{where}:")
    if legend.ages:
        session.say("  The age of each polygon gives its class; codes are exceptions.")
    fields = [(legend.field, legend.codes, legend.units)]
    fields += [(field, codes, legend.other_units[field]) for field, codes in legend.other_fields.items()]
    for field, codes, units in fields:
        if not codes:
            continue
        rows: list[tuple[str, ...]] = [(field or "code", "age, Ma", "rock type", "class")]
        for code, index in codes.items():
            unit = units.get(code)
            age = f"{unit.age_ma[0]:g}-{unit.age_ma[1]:g}" if unit and unit.age_ma else ""
            meant = "gap" if code in legend.gaps else names[index]
            rows.append((code or "(blank)", age, unit.rock if unit else "", meant))
        _say_table(session, rows)
    for override in legend.overrides:
        rows = [(override.field, "means", "but not for")]
        for code, decided in override.codes.items():
            meant = "keeps the class" if decided is None else decided if isinstance(decided, str) else names[decided]
            rows.append((code or "(blank)", meant, ", ".join(sorted(map(str, override.unless[code])))))
        _say_table(session, rows)


def _say_table(session: Session, rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        session.say(f"  {'  '.join(cells)}".rstrip())


def _legend_as_json(legend: Legend, crosswalks: list[Legend]) -> dict[str, Any]:
    from gravmap.geology.legend_file import code_entry, override_rule

    return {
        "legend": legend.name,
        "title": legend.title,
        "class_table": legend.table,
        "classes": [
            {
                "index": entry.index,
                "name": entry.name,
                "age_ma": entry.span_ma,
                "intrusive_age_ma": entry.intrusive_span_ma if entry.index == 0 else None,
                "rocks": list(entry.rocks),
                "colour": entry.colour,
                "rank": entry.rank,
                "uri": entry.uri,
            }
            for entry in legend.classes
        ],
        "maps": [
            {
                "legend": each.name,
                "fields": each.field_names,
                "codes": {
                    code: {"means": code_entry(code, each.codes, each.units, each.gaps), "class": index}
                    for code, index in each.codes.items()
                },
                "other_fields": {
                    field: {
                        code: {"means": code_entry(code, codes, each.other_units[field], each.gaps), "class": index}
                        for code, index in codes.items()
                    }
                    for field, codes in each.other_fields.items()
                },
                "override": {
                    entry.field: {code: override_rule(rule, entry.unless[code]) for code, rule in entry.codes.items()}
                    for entry in each.overrides
                },
            }
            for each in crosswalks
        ],
    }


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
@option(
    "--legend",
    "name",
    required=True,
    metavar="NAME|FILE",
    shell_complete=complete.legends,
    help="A shipped legend or a TOML file.",
)
@option("--field", metavar="FIELD", help="The field of the code or age (default: the legend's).")
@classes_option
@region_options
@command_options()
def check(
    session: Session,
    source: Path,
    name: str,
    field: str | None,
    classes: str | None,
    region: str | None,
    bbox: tuple[float, ...] | None,
) -> None:
    """List every code of MAP with its class, polygons and area.

    Areas are those of the polygons, in km² on the ellipsoid, in the whole map or in the region. Reports codes that the
    legend lacks (and those that differ from one of its codes only in case or spelling), classes that do not occur, and
    codes of the legend that the map lacks. Status 3 where the legend lacks a code.
    """
    from gravmap.geology.legend_check import check_legend
    from gravmap.geology.legend_draft import unset_codes

    legend = legend_for(name, field, source, classes)
    made = check_legend(source, legend, chosen_region(session, region, bbox))
    _describe(session, made, legend)
    unset = unset_codes(Path(name).read_text(encoding="utf-8-sig"), legend) if Path(name).is_file() else []
    left = [entry for entry in made.codes if entry.code in unset]
    if left:
        share = sum(entry.area_km2 for entry in left) / sum(made.class_km2.values())
        listed = ", ".join(dict.fromkeys(entry.code or "(blank)" for entry in left))
        session.warn(f'Still "set me" in {name}, hence not usable, {100 * share:.1f} % of the area: {listed}')
    for other, values in made.rock_fields.items():
        session.warn(
            f"No polygon has one of the intrusive classes, and {name} reads no second field: does {other}"
            f" ({', '.join(values)}) say what the rock is? If so, give each value its rock type under"
            f" [map.override.{other}]."
        )
    session.result({**_as_json(made), "set_me": [entry.code for entry in left]})
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
@option("--field", metavar="FIELD", help="The field that holds the unit's code or name (without it: all are listed).")
@option(
    "--classes",
    default="basement10",
    show_default=True,
    metavar="NAME|FILE",
    shell_complete=complete.class_tables,
    help="The class table.",
)
@option("--crs", default="", metavar="EPSG:...", help="Coordinate system of a file that has none of its own.")
@region_options
@output_option("The file to write (default: MAP.legend.toml).")
@dry_run_option
@overwrite_option
@command_options()
def draft(
    session: Session,
    source: Path,
    field: str | None,
    classes: str,
    crs: str,
    region: str | None,
    bbox: tuple[float, ...] | None,
    output: Path | None,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Write a first legend from MAP's own codes and ages.

    Each code is listed with its guessed age and rock type, the class that follows and the reason: the map's own fields
    of ages, a name (Variscan granite), or symbols (Qal, J2x, γ4) whose meaning the other codes of the map settle. Codes
    without a guess are 255, marked "set me". Fields with few short values follow, which may say what the rock is. A
    geologist should review every line.

    With -n the legend is printed, not written.
    """
    from gravmap.files import write_text
    from gravmap.geology.legend_draft import draft_legend

    path = output or session.workspace.root / f"{source.stem}.legend.toml"
    inputs = [source, Path(classes)]
    if field and not dry_run:  # it prints what could be written anywhere
        session.writing([path], inputs, overwrite)
    made = draft_legend(source, field or "", classes, chosen_region(session, region, bbox), crs)
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


def legend_for(name: str, field: str | None, source: Path, classes: str | None = None, number: int = 0) -> Legend:
    """A legend of a map by name or file, for the field and the class table that the user named.

    `number` counts earlier uses of this map with this legend, which matters for the legend of a label raster.
    """
    from gravmap.geology import load_legend
    from gravmap.geology.legend import replace_field
    from gravmap.geology.legend_file import legend_of_map
    from gravmap.geology.reclassify import with_classes

    legend = legend_of_map(load_legend(name), source, number)
    legend = replace_field(legend, field) if field else legend
    return with_classes(legend, load_legend(classes)) if classes else legend


def _describe(session: Session, made: LegendCheck, legend: Legend) -> None:
    mended = f", {made.mended} invalid ones repaired" if made.mended else ""
    dropped = f", {made.dropped} features without area left out" if made.dropped else ""
    crs = "" if made.crs == "EPSG:4326" else f", from {made.crs}"
    session.say(f"{made.file}: {made.polygons} polygons by {made.field}{crs}{mended}{dropped}; legend {made.legend}")
    for note in made.notes:
        session.say(note)
    names = {entry.index: entry.name for entry in legend.classes} | {255: "not usable"}
    width = min(max(len(_written(entry)) for entry in made.codes), 40)
    wide = 4 + max(len(name) for name in names.values())
    session.say(f"  {'code':<{width}}  {'class':<{wide}} {'polygons':>8} {'area':>14}")
    for entry in made.codes:
        meant = "unknown" if entry.index is None else f"{entry.index} {names[entry.index]}"
        if entry.index == 255 and entry.code in legend.gaps:
            meant = "gap"
        note = f"  {entry.note}" if entry.note else ""
        session.say(
            f"  {_written(entry):<{width}}  {meant:<{wide}} {entry.polygons:>8} {_km2(entry.area_km2):>14}{note}"
        )
    if len(made.unknown) == len(made.codes):
        return
    session.say("Classes:")
    total = sum(made.class_km2.values())
    for index, area in made.class_km2.items():
        session.say(f"  {index:>3} {names[index]:<{wide}} {_km2(area):>14} {100 * area / total:6.1f} %")
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
        "rock_fields": made.rock_fields,
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
        'Give each its age, a class, 255 or "gap" under [map.codes] of your legend; until then they are not usable.',
    )
