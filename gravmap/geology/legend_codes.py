"""The table ``[map]`` of a legend file: fields, codes with their ages and rock types, and overrides."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from gravmap.errors import InputError
from gravmap.geology.ages import EARTH_MA
from gravmap.geology.legend import (
    ROCKS,
    SEDIMENTARY,
    Legend,
    LegendClass,
    MapUnit,
    Override,
    class_of_unit,
    normalize_code,
)
from gravmap.lattice import UNUSABLE

GAP = "gap"
KEEP = "keep"

_MAP_KEYS = ("field", "crs", "citation", "codes", "fields", "ages", "override")


def text_of(table: Mapping[str, Any], key: str, where: str) -> str:
    """The text of a key, empty where it is missing; a number is text, too."""
    value = table.get(key, "")
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise InputError(f"{where}: {key} is not text.", f'Write {key} = "..." in quotes.')
    return str(value)


def check_keys(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    """Refuse a key that is not known, with the nearest that is."""
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            suggestion = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
            raise InputError(f"{where}: unknown key {key!r}.", suggestion)


def read_index(value: Any, where: str) -> int:
    """A class index, or 255: not usable."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= UNUSABLE:
        raise InputError(
            f"{where}: {value!r} is not a class index.", "An index is a whole number from 0 to 254, or 255: not usable."
        )
    return value


def read_age(span: Any, where: str) -> str:
    """An age span as classes have it (:func:`age_text`); ``"any"`` where there is none."""
    if span is None:
        return "any"
    if not (
        isinstance(span, list)
        and len(span) == 2
        and all(type(end) in (int, float) and math.isfinite(end) and end >= 0 for end in span)
    ):
        raise InputError(f"{where}: {span!r} is not an age span.", "Write age_ma = [older, younger], in million years.")
    if span[0] <= span[1]:
        raise InputError(
            f"{where}: the age {span} is not ordered from older to younger.", "Write age_ma = [older, younger]."
        )
    return age_text(*span)


def age_text(older_ma: float, younger_ma: float) -> str:
    """An age span as classes have it: ``"2500-538.8 Ma"``."""
    return f"{plain_number(older_ma)}-{plain_number(younger_ma)} Ma"


def plain_number(number: float) -> str:
    """A number without exponent and without trailing zeros."""
    text = format(Decimal(str(number)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def read_map_table(table: dict[str, Any], bare: Legend, where: str) -> Legend:
    """The legend with the crosswalk of a table ``[map]``; `bare` has its class table."""
    check_keys(table, _MAP_KEYS, f"{where}, [map]")
    ages = _read_ages(table["ages"], where) if "ages" in table else ()
    field = text_of(table, "field", f"{where}, [map]")
    if bool(field) == bool(ages):
        hint = 'Write field = "AGE", the field with the code; or [map.ages] with oldest and youngest, or field.'
        raise InputError(f"{where}: [map] has {'both a field and ages' if field else 'no field'}.", hint)
    gaps: set[str] = set()
    codes, units = _read_codes(table.get("codes", {}), bare.classes, gaps, where)
    if not codes and not ages:
        raise InputError(f"{where} has no codes.", "Write [map.codes] with lines such as: C = 7")
    others, other_units = {}, {}
    for name, own in _tables(table.get("fields", {}), "map.fields", where).items():
        if ages or name.casefold() == field.casefold():
            hint = "It is for the codes of further fields of a map with codes."
            raise InputError(f"{where}: [map.fields.{name}] does not apply here.", hint)
        others[name], other_units[name] = _read_codes(own, bare.classes, gaps, where)
    every = set(codes).union(*others.values())
    overrides = tuple(
        _read_override(name, rules, bare.classes, None if ages else every, where)
        for name, rules in _tables(table.get("override", {}), "map.override", where).items()
    )
    return Legend(
        bare.name,
        bare.classes,
        field=field,
        codes=codes,
        other_fields=others,
        ages=ages,
        overrides=overrides,
        gaps=frozenset(gaps),
        crs=text_of(table, "crs", f"{where}, [map]"),
        title=bare.title,
        citation=text_of(table, "citation", f"{where}, [map]"),
        sources=bare.sources,
        table=bare.table,
        units=units,
        other_units=other_units,
    )


def _tables(value: Any, name: str, where: str) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict) or not all(isinstance(entry, dict) for entry in value.values()):
        raise InputError(
            f"{where}: [{name}] does not consist of tables.", f"Write [{name}.FIELD], with a line for each code."
        )
    return value


def _read_ages(value: Any, where: str) -> tuple[tuple[str, ...], ...]:
    """Fields of ``[map.ages]``, or of each ``[[map.ages]]``."""
    rows = [value] if isinstance(value, dict) else value
    hint = 'Write oldest = "b_age" and youngest = "t_age", or field = "AGE_NAME".'
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{where}: [map.ages] is not a table.", hint)
    found = []
    for row in rows:
        check_keys(row, ("field", "oldest", "youngest"), f"{where}, [map.ages]")
        names = tuple(str(row[key]) for key in ("field", "oldest", "youngest") if str(row.get(key, "")))
        if len(names) != (1 if "field" in row else 2):
            raise InputError(f"{where}: [map.ages] has {', '.join(names) or 'no field'}.", hint)
        found.append(names)
    return tuple(found)


def _class_index(value: Any, classes: Sequence[LegendClass], where: str) -> int:
    index = read_index(value, where)
    known = {entry.index for entry in classes} | {UNUSABLE}
    if index not in known:
        hint = f"The class table has {', '.join(map(str, sorted(known)))}."
        raise InputError(f"{where} refers to class {index}, which does not exist.", hint)
    return index


def _read_codes(
    rows: Any, classes: Sequence[LegendClass], gaps: set[str], where: str
) -> tuple[dict[str, int], dict[str, MapUnit]]:
    """Read a table of codes: classes, and ages and rock types; codes that are gaps are added to `gaps`."""
    if not isinstance(rows, dict):
        raise InputError(f"{where}: the codes are not a table.", "Write [map.codes] with lines such as: C = 7")
    codes: dict[str, int] = {}
    units: dict[str, MapUnit] = {}
    for raw, value in rows.items():
        code = normalize_code(raw)
        here = f"{where}, code {code!r}"
        if code in codes:
            raise InputError(
                f"{where}: the code {code!r} is given twice.",
                "Codes are compared without leading and trailing blanks, in Unicode form NFC.",
            )
        if isinstance(value, dict):
            units[code] = _unit(value, here)
            if units[code].rock == SEDIMENTARY and not any(entry.span_ma for entry in classes):
                raise InputError(
                    f"{here} has an age, and the class table has none.",
                    "Write age_ma for the classes, or a class index.",
                )
            codes[code] = class_of_unit(units[code], classes)
            continue
        codes[code] = UNUSABLE if value == GAP else _class_index(value, classes, here)
        if value == GAP:
            gaps.add(code)
    return codes, units


def _unit(row: dict[str, Any], where: str) -> MapUnit:
    """Age and rock type of a code."""
    check_keys(row, ("age_ma", "rock"), where)
    rock = _rock(row["rock"], where) if "rock" in row else SEDIMENTARY
    if "age_ma" not in row:
        if rock == SEDIMENTARY:
            raise InputError(f"{where} has no age.", "Write age_ma = [older, younger], or 255: not usable.")
        return MapUnit(None, rock)
    span = row["age_ma"]
    single = isinstance(span, list) and len(span) == 2 and span[0] == span[1]
    if not single or type(span[0]) not in (int, float) or span[0] < 0:
        read_age(span, where)
    if not span[0] <= EARTH_MA:
        raise InputError(f"{where}: the age {span} is above {EARTH_MA:.0f} Ma, older than the Earth.", "Correct it.")
    return MapUnit((float(span[0]), float(span[1])), rock)


def _rock(value: Any, where: str) -> str:
    if value not in ROCKS:
        near = difflib.get_close_matches(str(value), ROCKS, n=1)
        suggestion = f"Did you mean {near[0]!r}? " if near else ""
        raise InputError(f"{where}: {value!r} is not a rock type.", f"{suggestion}Known: {', '.join(ROCKS)}.")
    return str(value)


def _read_override(
    name: str, rules: dict[str, Any], classes: Sequence[LegendClass], codes: set[str] | None, where: str
) -> Override:
    """Read the rules of a second field; `codes` are those of the first field, None if it has ages."""
    decided: dict[str, int | str | None] = {}
    unless: dict[str, frozenset[str | int]] = {}
    for raw, rule in rules.items():
        code = normalize_code(raw)
        here = f"{where}, {name} = {code!r}"
        exceptions: Any = ()
        is_rock = False
        if code in decided:
            raise InputError(f"{here} is given twice.", "Write one rule for each code.")
        if isinstance(rule, dict):
            check_keys(rule, ("class", "rock", "unless"), here)
            if "class" in rule and "rock" in rule:
                raise InputError(f"{here} has a class and a rock type.", "Write one of them.")
            exceptions = rule.get("unless", ())
            rule = _rock(rule["rock"], here) if "rock" in rule else rule.get("class")
            is_rock = isinstance(rule, str) and rule in ROCKS
        if not isinstance(exceptions, (list, tuple)):
            raise InputError(f"{here}: `unless` is not a list.", 'Write unless = ["Q"] or unless = [0].')
        exceptions = [normalize_code(other) if isinstance(other, str) else other for other in exceptions]
        for other in exceptions:
            if not isinstance(other, str):
                _class_index(other, classes, f"{here}: `unless`")
            elif codes is not None and other not in codes:
                raise InputError(f"{here}: `unless` has {other!r}.", "List codes of [map.codes], or class indices.")
        decided[code] = None if rule == KEEP else rule if is_rock else _class_index(rule, classes, here)
        unless[code] = frozenset(exceptions)
    return Override(name, decided, unless)
