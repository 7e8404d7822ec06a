"""Legend files: read, checked and written.

A legend is a TOML file that a geologist can write. It has a table of classes, its own or a shipped one::

    name = "my-map"
    classes = "bedrock10"          # or [[class]] tables with index, name, age_ma, colour, rank

    [map]
    field = "AGE"                  # the field that holds the code
    crs = "EPSG:4284"              # only for a file that does not say its own

    [map.codes]
    Q = 0                          # 0 is cover, 1, 2, ... bedrock, 255 not usable
    C = 7
    oth = "gap"                    # says nothing about the ground: a later map shows through

    [map.override.TYPE]            # a second field that beats the first
    i = { class = 10, unless = ["Q"] }
    v = "keep"
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from gravmap.errors import InputError
from gravmap.geology.legend import COVER, UNUSABLE, Legend, LegendClass, Override

GAP = "gap"
KEEP = "keep"

_TOP_KEYS = ("name", "title", "classes", "class", "map", "source")
_CLASS_KEYS = ("index", "name", "age_ma", "colour", "rank", "uri")
_MAP_KEYS = ("field", "crs", "citation", "codes", "override")
_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}")


def shipped_legends() -> list[str]:
    """Names of the legends that gravmap brings along."""
    folder = resources.files("gravmap.geology.legends")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_legend(name_or_path: str | Path) -> Legend:
    """Read a legend.

    Parameters
    ----------
    name_or_path : str or Path
        A shipped legend's name (`bedrock10`, `crust`, `fsu_geol`, `geo3al`) or a TOML file.

    Raises
    ------
    InputError
        No such legend, or the file is not one: which key, and what it should be.
    """
    name = str(name_or_path)
    if name in shipped_legends():
        text = resources.files("gravmap.geology.legends").joinpath(f"{name}.toml").read_text(encoding="utf-8")
        return read_legend(text, f"gravmap's legend {name}")
    path = Path(name_or_path)
    if not path.is_file():
        known = shipped_legends()
        near = difflib.get_close_matches(name, known, n=1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise InputError(f"No legend {name!r}.{meant}", f"Give a TOML file, or one of: {', '.join(known)}.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text: {error}.", "Save the legend as UTF-8.") from None
    return read_legend(text, str(path))


def read_legend(text: str, where: str) -> Legend:
    """Read a legend from TOML.

    Parameters
    ----------
    text : str
        The TOML.
    where : str
        Its origin, for messages.

    Raises
    ------
    InputError
        The text is no TOML, a key is unknown or missing, a code or index is given twice.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        hint = "A code may appear once only; write a code with blanks, dots or signs in quotes."
        raise InputError(f"{where} is no readable legend: {error}.", hint) from None
    _known_keys(table, _TOP_KEYS, where)
    if ("class" in table) == ("classes" in table):
        raise InputError(
            f"{where} needs a class table.", 'Write classes = "bedrock10", or [[class]] tables of your own.'
        )
    if "classes" in table:
        base = str(table["classes"])
        if base not in shipped_legends():
            raise InputError(f"{where}: no class table {base!r}.", f"Known: {', '.join(shipped_legends())}.")
        classes = load_legend(base).classes
    else:
        classes = _read_classes(table["class"], where)
    name = str(table.get("name", "")) or Path(where).stem
    legend = Legend(
        name=name, classes=classes, title=str(table.get("title", "")), sources=tuple(table.get("source", ()))
    )
    return _read_map(table["map"], legend, where) if "map" in table else legend


def _known_keys(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            meant = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
            raise InputError(f"{where}: unknown key {key!r}.", meant)


def _read_classes(rows: Any, where: str) -> tuple[LegendClass, ...]:
    classes = []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{where}: classes are no [[class]] tables.", "Write [[class]] with two brackets for each.")
    for row in rows:
        here = f"{where}, class {row.get('name', row.get('index', '?'))}"
        _known_keys(row, _CLASS_KEYS, here)
        index = _index(row.get("index"), here)
        if index == UNUSABLE:
            raise InputError(f"{here}: index 255 means not usable and cannot be a class.", "Choose 0 to 254.")
        if not str(row.get("name", "")).strip():
            raise InputError(f"{here} has no name.", 'Write name = "Devonian".')
        colour = str(row.get("colour", ""))
        if not _COLOUR.fullmatch(colour):
            raise InputError(f"{here}: {colour!r} is no colour.", 'Write colour = "#CB8C37".')
        classes.append(
            LegendClass(
                index,
                str(row["name"]),
                _age(row.get("age_ma"), here),
                colour.upper(),
                str(row.get("rank", "")),
                str(row.get("uri", "")),
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
            f"{where}: {value!r} is no class index.", "An index is a whole number from 0 to 254, or 255: not usable."
        )
    return value


def _age(span: Any, where: str) -> str:
    if span is None:
        return "any"
    if not (isinstance(span, list) and len(span) == 2 and all(isinstance(end, (int, float)) for end in span)):
        raise InputError(f"{where}: {span!r} is no age span.", "Write age_ma = [older, younger], in million years.")
    if span[0] <= span[1]:
        raise InputError(
            f"{where}: the age {span} does not go from older to younger.", "Write age_ma = [older, younger]."
        )
    return f"{span[0]:g}-{span[1]:g} Ma"


def _read_map(table: dict[str, Any], bare: Legend, where: str) -> Legend:
    _known_keys(table, _MAP_KEYS, f"{where}, [map]")
    if not str(table.get("field", "")):
        raise InputError(f"{where}: [map] names no field.", 'Write field = "AGE": the field that holds the code.')
    known = {entry.index for entry in bare.classes} | {UNUSABLE}

    def checked(value: Any, code: str) -> int:
        index = _index(value, f"{where}, code {code!r}")
        if index not in known:
            hint = f"The class table has {', '.join(map(str, sorted(known)))}."
            raise InputError(f"{where}: code {code!r} points to class {index}, which does not exist.", hint)
        return index

    codes: dict[str, int] = {}
    gaps = set()
    for raw, value in table.get("codes", {}).items():
        code = raw.strip(" ")
        if code in codes:
            raise InputError(
                f"{where}: the code {code!r} is given twice.", "Codes are told apart after padding blanks are dropped."
            )
        if value == GAP:
            gaps.add(code)
        codes[code] = UNUSABLE if value == GAP else checked(value, code)
    if not codes:
        raise InputError(f"{where} maps no codes.", "Write [map.codes] with lines such as: C = 7")
    overrides = []
    for name, rules in table.get("override", {}).items():
        decided: dict[str, int | None] = {}
        unless: dict[str, frozenset[str]] = {}
        for raw, rule in rules.items():
            code = raw.strip(" ")
            spared: Any = ()
            if isinstance(rule, dict):
                _known_keys(rule, ("class", "unless"), f"{where}, {name} = {code!r}")
                spared, rule = rule.get("unless", ()), rule.get("class")
            for other in spared:
                if other not in codes:
                    raise InputError(
                        f"{where}: `unless` of {name} = {code!r} names {other!r}.", "List codes of [map.codes] only."
                    )
            decided[code] = None if rule == KEEP else checked(rule, code)
            unless[code] = frozenset(spared)
        overrides.append(Override(name, decided, unless))
    return Legend(
        bare.name,
        bare.classes,
        field=str(table["field"]),
        codes=codes,
        overrides=tuple(overrides),
        gaps=frozenset(gaps),
        crs=str(table.get("crs", "")),
        title=bare.title,
        citation=str(table.get("citation", "")),
        sources=bare.sources,
    )


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_quoted(str(key))} = {_inline(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_inline(entry) for entry in value) + "]"
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def to_toml(legend: Legend) -> str:
    """A legend as TOML that :func:`read_legend` reads back to an equal one."""
    lines = [f"name = {_quoted(legend.name)}"]
    if legend.title:
        lines.append(f"title = {_quoted(legend.title)}")
    for entry in legend.classes:
        lines += ["", "[[class]]", f"index = {entry.index}", f"name = {_quoted(entry.name)}"]
        if entry.age != "any":
            older, younger = entry.age.removesuffix(" Ma").split("-")
            lines.append(f"age_ma = [{older}, {younger}]")
        lines.append(f"colour = {_quoted(entry.colour)}")
        lines += [f"{key} = {_quoted(text)}" for key, text in (("rank", entry.rank), ("uri", entry.uri)) if text]
    if legend.field:
        lines += ["", "[map]", f"field = {_quoted(legend.field)}"]
        lines += [
            f"{key} = {_quoted(text)}" for key, text in (("crs", legend.crs), ("citation", legend.citation)) if text
        ]
        lines += ["", "[map.codes]"]
        lines += [
            f"{_quoted(code)} = {_inline(GAP if code in legend.gaps else index)}"
            for code, index in legend.codes.items()
        ]
        for override in legend.overrides:
            lines += ["", f"[map.override.{_quoted(override.field)}]"]
            for code, decided in override.codes.items():
                rule = KEEP if decided is None else {"class": decided, "unless": sorted(override.unless[code])}
                lines.append(f"{_quoted(code)} = {_inline(rule)}")
    for source in legend.sources:
        lines += ["", "[[source]]"]
        lines += [f"{_quoted(key)} = {_inline(value)}" for key, value in source.items()]
    return "\n".join(lines) + "\n"
