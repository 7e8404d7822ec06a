"""Legend files (TOML): reading, validation and writing."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any

from gravmap.errors import InputError
from gravmap.files import write_text
from gravmap.geology.legend import Legend, LegendClass, Override, normalize_code
from gravmap.lattice import COVER, UNUSABLE
from gravmap.records import check_record, parse_record

GAP = "gap"
KEEP = "keep"


def toml_string(text: str) -> str:
    """Quote a text as a TOML basic string; the escapes of JSON are a subset of those of TOML."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml_string(str(key))} = {_inline(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_inline(entry) for entry in value) + "]"
    return toml_string(value) if isinstance(value, str) else json.dumps(value)


def class_table_lines(classes: Iterable[LegendClass]) -> list[str]:
    """Lines of a class table as ``[[class]]`` tables."""
    lines = []
    for entry in classes:
        lines += ["", "[[class]]", f"index = {entry.index}", f"name = {toml_string(entry.name)}"]
        if entry.age != "any":
            older, younger = entry.age.removesuffix(" Ma").split("-")
            lines.append(f"age_ma = [{older}, {younger}]")
        lines.append(f"colour = {toml_string(entry.colour)}")
        lines += [f"{key} = {toml_string(text)}" for key, text in (("rank", entry.rank), ("uri", entry.uri)) if text]
    return lines


def override_rule(index: int | None, unless: frozenset[str | int]) -> Any:
    """The rule of an override for one code, as written in TOML."""
    return KEEP if index is None else {"class": index, "unless": sorted(unless, key=str)}


def legend_to_toml(legend: Legend) -> str:
    """A legend as TOML; :func:`read_legend` returns an equal legend."""
    lines = [f"name = {toml_string(legend.name)}"]
    if legend.title:
        lines.append(f"title = {toml_string(legend.title)}")
    lines += class_table_lines(legend.classes)
    if legend.field_candidates:
        lines += ["", "[map]"]
        known = (("field", legend.field), ("crs", legend.crs), ("citation", legend.citation))
        lines += [f"{key} = {toml_string(text)}" for key, text in known if text]
        for names in legend.ages:
            keys = ("field",) if len(names) == 1 else ("oldest", "youngest")
            lines += ["", "[[map.ages]]"]
            lines += [f"{key} = {toml_string(name)}" for key, name in zip(keys, names, strict=True)]
        lines += _code_lines("map.codes", legend.codes, legend.gaps)
        for field, codes in legend.other_fields.items():
            lines += _code_lines(f"map.fields.{toml_string(field)}", codes, legend.gaps)
        for override in legend.overrides:
            lines += ["", f"[map.override.{toml_string(override.field)}]"]
            for code, index in override.codes.items():
                lines.append(f"{toml_string(code)} = {_inline(override_rule(index, override.unless[code]))}")
    for source in legend.sources:
        lines += ["", "[[source]]"]
        lines += [f"{toml_string(key)} = {_inline(value)}" for key, value in source.items()]
    return "\n".join(lines) + "\n"


def write_legend(legend: Legend, path: Path) -> None:
    """Write a legend to a TOML file, atomically.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from gravmap.geology import load_legend
    >>> from gravmap.geology.legend_file import write_legend
    >>> legend = load_legend("bedrock10")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_legend(legend, Path(folder) / "mine.toml")
    ...     load_legend(Path(folder) / "mine.toml") == legend
    True
    """
    write_text(path, legend_to_toml(legend))


def _code_lines(table: str, codes: dict[str, int], gaps: frozenset[str]) -> list[str]:
    rows = [f"{toml_string(code)} = {_inline(GAP if code in gaps else index)}" for code, index in codes.items()]
    return ["", f"[{table}]", *rows] if codes else []


_TOP_KEYS = ("name", "title", "classes", "class", "map", "source")
_CLASS_KEYS = ("index", "name", "age_ma", "colour", "rank", "uri")
_MAP_KEYS = ("field", "crs", "citation", "codes", "fields", "ages", "override")
_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}")


def shipped_legends() -> list[str]:
    """Names of the legends in the package.

    Examples
    --------
    >>> from gravmap.geology.legend_file import shipped_legends
    >>> shipped_legends()
    ['basement10', 'bedrock10', 'crust', 'fsu_geol', 'geo3al', 'ics']
    """
    folder = resources.files("gravmap.geology.legends")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_legend(name_or_path: str | Path) -> Legend:
    """Load a legend by name or from a TOML file.

    Parameters
    ----------
    name_or_path : str or Path
        Name of a shipped legend (`bedrock10`, `crust`, `fsu_geol`, `geo3al`, `ics`) or a TOML file.

    Raises
    ------
    InputError
        There is no such legend, or the file is not valid; the message names the key.

    Examples
    --------
    >>> from gravmap.geology import load_legend
    >>> legend = load_legend("ics")
    >>> [entry.name for entry in legend.classes][:3]
    ['Cenozoic cover', 'Archean', 'Proterozoic']
    >>> legend.classify("Late Devonian")
    6
    """
    name = str(name_or_path)
    if name in shipped_legends():
        text = resources.files("gravmap.geology.legends").joinpath(f"{name}.toml").read_text(encoding="utf-8")
        return read_legend(text, f"gravmap's legend {name}")
    path = Path(name_or_path)
    if not path.is_file():
        known = shipped_legends()
        near = difflib.get_close_matches(name, known, n=1)
        suggestion = f" Did you mean {near[0]}?" if near else ""
        raise InputError(f"No legend {name!r}.{suggestion}", f"Give a TOML file, or one of: {', '.join(known)}.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}.", "Save the legend as UTF-8.") from None
    return read_legend(text, str(path))


def read_legend(text: str, where: str) -> Legend:
    """Parse a legend from TOML.

    Parameters
    ----------
    text : str
        TOML text.
    where : str
        Name of its source, for messages.

    Raises
    ------
    InputError
        The text is not valid TOML, a key is unknown or missing, or a code or index is given twice.
    """
    hint = "A code may occur only once; quote codes with blanks, dots or other signs."
    table = parse_record(text, dict[str, Any], where, hint, toml=True)
    _known_keys(table, _TOP_KEYS, where)
    if ("class" in table) == ("classes" in table):
        raise InputError(
            f"{where} needs a class table.", 'Write classes = "bedrock10", or [[class]] tables of your own.'
        )
    if "classes" in table:
        base = _text(table, "classes", where)
        if base not in shipped_legends():
            raise InputError(f"{where}: no class table {base!r}.", f"Known: {', '.join(shipped_legends())}.")
        classes = load_legend(base).classes
    else:
        classes = _read_classes(table["class"], where)
    sources = check_record(table.get("source", []), list[dict[str, Any]], f"{where}: source", _SOURCES)
    name = _text(table, "name", where) or Path(where).stem
    legend = Legend(name=name, classes=classes, title=_text(table, "title", where), sources=tuple(sources))
    if "map" not in table:
        return legend
    return _read_map(check_record(table["map"], dict[str, Any], f"{where}: map", _MAP), legend, where)


_SOURCES = "Write [[source]] with two brackets for each file."
_MAP = 'Write [map] with field = "AGE", and [map.codes] below.'


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    """The text of a key, empty where it is missing; a number is text, too."""
    value = table.get(key, "")
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise InputError(f"{where}: {key} is not text.", f'Write {key} = "..." in quotes.')
    return str(value)


def _known_keys(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            suggestion = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
            raise InputError(f"{where}: unknown key {key!r}.", suggestion)


def _read_classes(rows: Any, where: str) -> tuple[LegendClass, ...]:
    classes = []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{where}: classes are not [[class]] tables.", "Write [[class]] with two brackets for each.")
    for row in rows:
        here = f"{where}, class {row.get('name', row.get('index', '?'))}"
        _known_keys(row, _CLASS_KEYS, here)
        index = _index(row.get("index"), here)
        if index == UNUSABLE:
            raise InputError(f"{here}: index 255 means not usable and cannot be a class.", "Choose 0 to 254.")
        if not _text(row, "name", here).strip():
            raise InputError(f"{here} has no name.", 'Write name = "Devonian".')
        colour = _text(row, "colour", here)
        if not _COLOUR.fullmatch(colour):
            raise InputError(f"{here}: {colour!r} is not a colour.", 'Write colour = "#CB8C37".')
        classes.append(
            LegendClass(
                index,
                str(row["name"]),
                _age(row.get("age_ma"), here),
                colour.upper(),
                _text(row, "rank", here),
                _text(row, "uri", here),
            )
        )
    classes.sort(key=lambda entry: entry.index)
    bedrock = [entry.index for entry in classes if entry.index != COVER]
    if (
        len({entry.index for entry in classes}) != len(classes)
        or bedrock != list(range(1, len(bedrock) + 1))
        or not bedrock
    ):
        found = ", ".join(str(entry.index) for entry in classes)
        raise InputError(
            f"{where}: the class indices are {found}.", "Bedrock has 1, 2, 3 ... each once; 0 is the cover."
        )
    return tuple(classes)


def _index(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= UNUSABLE:
        raise InputError(
            f"{where}: {value!r} is not a class index.", "An index is a whole number from 0 to 254, or 255: not usable."
        )
    return value


def _age(span: Any, where: str) -> str:
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
    return f"{_plain(span[0])}-{_plain(span[1])} Ma"


def _plain(number: float) -> str:
    """A number without exponent and without trailing zeros."""
    text = format(Decimal(str(number)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _read_map(table: dict[str, Any], bare: Legend, where: str) -> Legend:
    _known_keys(table, _MAP_KEYS, f"{where}, [map]")
    ages = _read_ages(table["ages"], where) if "ages" in table else ()
    field = _text(table, "field", f"{where}, [map]")
    if bool(field) == bool(ages):
        hint = 'Write field = "AGE", the field with the code; or [map.ages] with oldest and youngest, or field.'
        raise InputError(f"{where}: [map] has {'both a field and ages' if field else 'no field'}.", hint)
    known = {entry.index for entry in bare.classes} | {UNUSABLE}
    gaps: set[str] = set()
    codes = _read_codes(table.get("codes", {}), known, gaps, where)
    if not codes and not ages:
        raise InputError(f"{where} has no codes.", "Write [map.codes] with lines such as: C = 7")
    others = {}
    for name, own in _tables(table.get("fields", {}), "map.fields", where).items():
        if ages or name.casefold() == field.casefold():
            hint = "It is for the codes of further fields of a map with codes."
            raise InputError(f"{where}: [map.fields.{name}] does not apply here.", hint)
        others[name] = _read_codes(own, known, gaps, where)
    every = set(codes).union(*others.values())
    overrides = tuple(
        _read_override(name, rules, known, None if ages else every, where)
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
        crs=_text(table, "crs", f"{where}, [map]"),
        title=bare.title,
        citation=_text(table, "citation", f"{where}, [map]"),
        sources=bare.sources,
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
        _known_keys(row, ("field", "oldest", "youngest"), f"{where}, [map.ages]")
        names = tuple(str(row[key]) for key in ("field", "oldest", "youngest") if str(row.get(key, "")))
        if len(names) != (1 if "field" in row else 2):
            raise InputError(f"{where}: [map.ages] has {', '.join(names) or 'no field'}.", hint)
        found.append(names)
    return tuple(found)


def _class_index(value: Any, known: set[int], where: str) -> int:
    index = _index(value, where)
    if index not in known:
        hint = f"The class table has {', '.join(map(str, sorted(known)))}."
        raise InputError(f"{where} refers to class {index}, which does not exist.", hint)
    return index


def _read_codes(rows: Any, known: set[int], gaps: set[str], where: str) -> dict[str, int]:
    """Read a table of codes; codes that are gaps are added to `gaps`."""
    if not isinstance(rows, dict):
        raise InputError(f"{where}: the codes are not a table.", "Write [map.codes] with lines such as: C = 7")
    codes: dict[str, int] = {}
    for raw, value in rows.items():
        code = normalize_code(raw)
        if code in codes:
            raise InputError(
                f"{where}: the code {code!r} is given twice.",
                "Codes are compared without leading and trailing blanks, in Unicode form NFC.",
            )
        codes[code] = UNUSABLE if value == GAP else _class_index(value, known, f"{where}, code {code!r}")
        if value == GAP:
            gaps.add(code)
    return codes


def _read_override(name: str, rules: dict[str, Any], known: set[int], codes: set[str] | None, where: str) -> Override:
    """Read the rules of a second field; `codes` are those of the first field, None if it has ages."""
    indices: dict[str, int | None] = {}
    unless: dict[str, frozenset[str | int]] = {}
    for raw, rule in rules.items():
        code = normalize_code(raw)
        here = f"{where}, {name} = {code!r}"
        exceptions: Any = ()
        if code in indices:
            raise InputError(f"{here} is given twice.", "Write one rule for each code.")
        if isinstance(rule, dict):
            _known_keys(rule, ("class", "unless"), here)
            exceptions, rule = rule.get("unless", ()), rule.get("class")
        if not isinstance(exceptions, (list, tuple)):
            raise InputError(f"{here}: `unless` is not a list.", 'Write unless = ["Q"] or unless = [0].')
        exceptions = [normalize_code(other) if isinstance(other, str) else other for other in exceptions]
        for other in exceptions:
            if not isinstance(other, str):
                _class_index(other, known, f"{here}: `unless`")
            elif codes is not None and other not in codes:
                raise InputError(f"{here}: `unless` has {other!r}.", "List codes of [map.codes], or class indices.")
        indices[code] = None if rule == KEEP else _class_index(rule, known, here)
        unless[code] = frozenset(exceptions)
    return Override(name, indices, unless)
