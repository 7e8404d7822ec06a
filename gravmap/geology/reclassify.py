"""Other class tables for a legend: a table of another name, or one whose cover reaches down to another age."""

from __future__ import annotations

import re
from dataclasses import replace

from gravmap.classes import CLASS_TABLES, split_table_name
from gravmap.errors import InputError, OptionError
from gravmap.geology.ages import UnknownAge, parse_age
from gravmap.geology.legend import Legend, LegendClass, MapUnit, class_of_unit
from gravmap.geology.legend_codes import age_text, plain_number
from gravmap.geology.legend_file import load_legend
from gravmap.lattice import COVER, UNUSABLE

SAME_AGE_MA = 0.1
"""Ages this near to a boundary of a class table mean that boundary: 251.9 is 251.902, the base of the Mesozoic."""


def parse_cover_age(text: str) -> float:
    """Parse the age down to which rocks count as cover: ``251.9Ma``, or a name of the ICS chart, which means its base.

    Raises
    ------
    OptionError
        Neither.

    Examples
    --------
    >>> from gravmap.geology.reclassify import parse_cover_age
    >>> parse_cover_age("251.9Ma"), parse_cover_age("Mesozoic"), parse_cover_age("Late Devonian")
    (251.9, 251.902, 382.7)
    """
    hint = "Give an age in Ma, such as 251.9Ma, or a name of the ICS chart, such as Mesozoic."
    if re.fullmatch(r"[-+.\d\s]*", text):
        raise OptionError(f"{text!r} has no unit." if text.strip() else "The age of the cover is blank.", hint)
    try:
        return parse_age(text)[0]
    except UnknownAge as reason:
        raise OptionError(f"{text!r} is not an age: {str(reason).rstrip('?')}.", hint) from None


def with_classes(legend: Legend, table: Legend) -> Legend:
    """The same legend for another class table.

    Parameters
    ----------
    legend : Legend
        Its codes have ages and rock types, or it reads ages.
    table : Legend
        The class table.

    Raises
    ------
    InputError
        The legend gives a code the index of a class, which means nothing in another table.

    Examples
    --------
    >>> from gravmap.geology import load_legend
    >>> from gravmap.geology.reclassify import with_classes
    >>> legend = load_legend("geo3al")
    >>> legend.classify("J"), with_classes(legend, load_legend("bedrock10")).classify("J")
    (0, 9)
    """
    if legend.classes == table.classes:
        return replace(legend, table=table.table)
    indexed = _codes_by_index(legend)
    if indexed:
        shown = ", ".join(code or "(blank)" for code in indexed[:6])
        many = (
            f"{len(indexed)} codes ({shown}{', ...' if len(indexed) > 6 else ''})" if indexed[1:] else f"code {shown}"
        )
        raise InputError(
            f"The legend {legend.name} has no age for {many}, only the index of a class of {legend.table}, which the"
            f" class table {table.table} does not share.",
            "Give each its age, and its rock type if it is no sediment: D = { age_ma = [419.2, 358.9] }.",
        )

    def classes_of(codes: dict[str, int], units: dict[str, MapUnit]) -> dict[str, int]:
        return {code: class_of_unit(units[code], table.classes) if code in units else UNUSABLE for code in codes}

    return replace(
        legend,
        classes=table.classes,
        table=table.table,
        codes=classes_of(legend.codes, legend.units),
        other_fields={
            field: classes_of(codes, legend.other_units[field]) for field, codes in legend.other_fields.items()
        },
    )


def _codes_by_index(legend: Legend) -> list[str]:
    """Codes whose class is given by an index of the legend's own class table."""
    indexed = [code for code, index in legend.codes.items() if index != UNUSABLE and code not in legend.units]
    for field, codes in legend.other_fields.items():
        units = legend.other_units[field]
        indexed += [f"{field} {code}" for code, index in codes.items() if index != UNUSABLE and code not in units]
    for override in legend.overrides:
        for code, decided in override.codes.items():
            classes = {decided, *override.unless[code]} - {UNUSABLE, COVER}
            if any(isinstance(index, int) for index in classes):
                indexed.append(f"{override.field} {code}")
    return indexed


def cover_younger_than(table: Legend, level_ma: float) -> Legend:
    """A class table whose cover is what is younger than a level.

    Classes that are wholly younger are left out and the others numbered anew; one that the level cuts keeps its older
    part. Classes of rock types stay, as does the age of the intrusions that count as cover.

    Parameters
    ----------
    table : Legend
        The class table to start from.
    level_ma : float
        Ma; within :data:`SAME_AGE_MA` of a boundary of the table it is that boundary.

    Raises
    ------
    InputError
        The table's classes or cover have no ages; no cover or no bedrock would be left; or the level is younger than
        the table's cover, and no class has the age between.

    Examples
    --------
    >>> from gravmap.geology import load_legend
    >>> from gravmap.geology.reclassify import cover_younger_than
    >>> table = cover_younger_than(load_legend("basement10"), 320.0)
    >>> table.table, [entry.name for entry in table.classes][-3:]
    ('basement10-320Ma', ['Carboniferous before 320 Ma', 'Basic and ultrabasic intrusive', 'Acid intrusive'])
    """
    cover = next((entry for entry in table.classes if entry.index == COVER), None)
    if cover is None or cover.span_ma is None:
        raise InputError(
            f"The class table {table.table} has no {'age for its ' if cover else ''}cover (class 0).",
            f"Choose a class table of ages: --classes {CLASS_TABLES[0]}.",
        )
    base = cover.span_ma[0]
    edges = [edge for entry in table.classes for edge in entry.span_ma or ()]
    nearest = min(edges, key=lambda edge: abs(edge - level_ma))
    level = nearest if abs(nearest - level_ma) <= SAME_AGE_MA else level_ma
    if level == base:
        return table
    text = f"{plain_number(level)} Ma"
    if level <= 0:
        raise InputError(f"No cover is left: nothing is younger than {text}.", "Give an older age.")
    missing = _without_class(table, level)
    if missing:
        raise InputError(
            f"The class table {table.table} has no class for rocks of {missing}, which would not be cover.",
            _other_table(table, level),
        )
    kept = [entry for entry in table.bedrock if entry.span_ma is None or entry.span_ma[0] > level]
    if all(entry.span_ma is None for entry in kept):
        oldest = plain_number(max(edges))
        raise InputError(
            f"No bedrock is left: the classes of {table.table} begin at {oldest} Ma, and all that is younger than"
            f" {text} would be cover.",
            "Give a younger age.",
        )
    intrusive = min(level, (cover.intrusive_span_ma or cover.span_ma)[0])
    classes = [
        replace(
            cover,
            name=f"Cover younger than {text}",
            age=age_text(level, cover.span_ma[1]),
            uri="",
            rank="",
            intrusive_age=age_text(intrusive, cover.span_ma[1]) if intrusive < level else "",
        ),
        *(replace(_older_part(entry, level, text), index=number) for number, entry in enumerate(kept, start=1)),
    ]
    name = f"{split_table_name(table.table)[0]}-{plain_number(level)}Ma"
    return Legend(name=name, classes=tuple(classes), title=f"{table.title}, cover younger than {text}", table=name)


def _older_part(entry: LegendClass, level: float, text: str) -> LegendClass:
    if entry.span_ma is None or entry.span_ma[1] >= level:
        return entry
    return replace(entry, name=f"{entry.name} before {text}", age=age_text(entry.span_ma[0], level), uri="")


def _without_class(table: Legend, level: float) -> str:
    """The first ages, older than a level and in the table's cover, that no bedrock has; empty if there are none."""
    at, base = level, table.classes[0].span_ma[0] if table.classes[0].span_ma else 0.0
    for older, younger in sorted((entry.span_ma for entry in table.bedrock if entry.span_ma), key=lambda span: span[1]):
        if younger > at:
            break
        at = max(at, older)
    return f"{plain_number(base)} to {plain_number(at)} Ma" if at < base else ""


def _other_table(table: Legend, level: float) -> str:
    for name in CLASS_TABLES:
        if name != table.table and not _without_class(load_legend(name), level):
            return f"Choose a class table that has: --classes {name}."
    return "Give an older age, or --classes with a class table of your own that has one."
