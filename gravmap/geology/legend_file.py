"""Legend files (TOML): reading, validation and writing; :mod:`gravmap.geology.legend_codes` reads their ``[map]``."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from gravmap.classes import CLASS_TABLES, DEFAULT_CLASSES
from gravmap.errors import InputError
from gravmap.files import sha256, write_text
from gravmap.geology.legend import ROCKS, SEDIMENTARY, Legend, LegendClass, MapUnit
from gravmap.geology.legend_codes import GAP, KEEP, check_keys, read_age, read_index, read_map_table, text_of
from gravmap.lattice import COVER, UNUSABLE
from gravmap.records import check_record, parse_record


def toml_string(text: str) -> str:
    """Quote a text as a TOML basic string; the escapes of JSON are a subset of those of TOML."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else toml_string(text)


def inline_toml(value: Any) -> str:
    """A value as TOML on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(str(key))} = {inline_toml(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(inline_toml(entry) for entry in value) + "]"
    return toml_string(value) if isinstance(value, str) else json.dumps(value)


def class_table_lines(classes: Iterable[LegendClass]) -> list[str]:
    """Lines of a class table as ``[[class]]`` tables."""
    lines = []
    for entry in classes:
        lines += ["", "[[class]]", f"index = {entry.index}", f"name = {toml_string(entry.name)}"]
        if entry.age != "any":
            lines.append(f"age_ma = {_span_list(entry.age)}")
        if entry.intrusive_age:
            lines.append(f"intrusive_age_ma = {_span_list(entry.intrusive_age)}")
        if entry.rocks:
            lines.append(f"rocks = {inline_toml(entry.rocks)}")
        lines.append(f"colour = {toml_string(entry.colour)}")
        lines += [f"{key} = {toml_string(text)}" for key, text in (("rank", entry.rank), ("uri", entry.uri)) if text]
    return lines


def _span_list(age: str) -> str:
    older, younger = age.removesuffix(" Ma").split("-")
    return f"[{older}, {younger}]"


def override_rule(decided: int | str | None, unless: frozenset[str | int]) -> Any:
    """The rule of an override for one code, as written in TOML."""
    if decided is None:
        return KEEP
    return {"rock" if isinstance(decided, str) else "class": decided, "unless": sorted(unless, key=str)}


def code_entry(code: str, codes: Mapping[str, int], units: Mapping[str, MapUnit], gaps: frozenset[str]) -> Any:
    """What a code means, as written in TOML: its age and rock type, its class index, or ``"gap"``."""
    if code in gaps:
        return GAP
    if code not in units:
        return codes[code]
    unit = units[code]
    age = {} if unit.age_ma is None else {"age_ma": [_whole(end) for end in unit.age_ma]}
    return age if age and unit.rock == SEDIMENTARY else age | {"rock": unit.rock}


def _whole(number: float) -> float:
    """A whole number as an integer, which is written without a decimal point."""
    return int(number) if number == int(number) else number


def legend_to_toml(legend: Legend) -> str:
    """A legend as TOML; :func:`read_legend` returns an equal legend."""
    lines = [f"name = {toml_string(legend.name)}"]
    if legend.title:
        lines.append(f"title = {toml_string(legend.title)}")
    lines.append(f"class_table = {toml_string(legend.table or legend.name)}")
    lines += class_table_lines(legend.classes)
    if legend.field_candidates:
        lines += ["", "[map]"]
        known = (("field", legend.field), ("crs", legend.crs), ("citation", legend.citation))
        lines += [f"{key} = {toml_string(text)}" for key, text in known if text]
        for names in legend.ages:
            keys = ("field",) if len(names) == 1 else ("oldest", "youngest")
            lines += ["", "[[map.ages]]"]
            lines += [f"{key} = {toml_string(name)}" for key, name in zip(keys, names, strict=True)]
        lines += _code_lines("map.codes", legend.codes, legend.units, legend.gaps)
        for field, codes in legend.other_fields.items():
            lines += _code_lines(f"map.fields.{toml_string(field)}", codes, legend.other_units[field], legend.gaps)
        for override in legend.overrides:
            lines += ["", f"[map.override.{toml_string(override.field)}]"]
            for code, index in override.codes.items():
                lines.append(f"{_key(code)} = {inline_toml(override_rule(index, override.unless[code]))}")
    for source in legend.sources:
        lines += ["", "[[source]]"]
        lines += [f"{toml_string(key)} = {inline_toml(value)}" for key, value in source.items()]
    return "\n".join(lines) + "\n"


def write_legend(legend: Legend, path: Path) -> None:
    """Write a legend to a TOML file, atomically.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from gravmap.geology import load_legend
    >>> from gravmap.geology.legend_file import write_legend
    >>> legend = load_legend("basement10")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_legend(legend, Path(folder) / "mine.toml")
    ...     load_legend(Path(folder) / "mine.toml") == legend
    True
    """
    write_text(path, legend_to_toml(legend))


def _code_lines(table: str, codes: dict[str, int], units: dict[str, MapUnit], gaps: frozenset[str]) -> list[str]:
    rows = [f"{_key(code)} = {inline_toml(code_entry(code, codes, units, gaps))}" for code in codes]
    return ["", f"[{table}]", *rows] if codes else []


_TOP_KEYS = ("name", "title", "classes", "class_table", "class", "map", "source")
_CLASS_KEYS = ("index", "name", "age_ma", "intrusive_age_ma", "rocks", "colour", "rank", "uri")
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
        Name of a shipped legend (:func:`shipped_legends`) or a TOML file.

    Raises
    ------
    InputError
        There is no such legend, or the file is not valid; the message names the key.

    Examples
    --------
    >>> from gravmap.geology import load_legend
    >>> legend = load_legend("ics")
    >>> [entry.name for entry in legend.classes][:3]
    ['Meso-Cenozoic cover', 'Archean', 'Proterozoic']
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
    check_keys(table, _TOP_KEYS, where)
    if ("class" in table) == ("classes" in table):
        raise InputError(
            f"{where} needs a class table.", f'Write classes = "{DEFAULT_CLASSES}", or [[class]] tables of your own.'
        )
    if "classes" in table:
        base = text_of(table, "classes", where)
        if base not in shipped_legends():
            raise InputError(f"{where}: no class table {base!r}.", f"Known: {', '.join(shipped_legends())}.")
        named = load_legend(base)
        classes, class_table = named.classes, named.table
    else:
        classes = _read_classes(table["class"], where)
        class_table = text_of(table, "class_table", where)
    sources = check_record(table.get("source", []), list[dict[str, Any]], f"{where}: source", _SOURCES)
    name = text_of(table, "name", where) or Path(where).stem
    legend = Legend(
        name=name,
        classes=classes,
        title=text_of(table, "title", where),
        sources=tuple(sources),
        table=class_table or _shipped_table(classes, name) or name,
    )
    if "map" not in table:
        return legend
    return read_map_table(check_record(table["map"], dict[str, Any], f"{where}: map", _MAP), legend, where)


def _shipped_table(classes: tuple[LegendClass, ...], name: str) -> str:
    """Name of the shipped class table with these classes, for files of earlier versions, which do not name it."""
    named = [(entry.index, entry.name, entry.age) for entry in classes]
    for table in () if name in CLASS_TABLES else CLASS_TABLES:
        if named == [(entry.index, entry.name, entry.age) for entry in load_legend(table).classes]:
            return table
    return ""


def legend_of_map(legend: Legend, path: Path, number: int = 0) -> Legend:
    """The legend by which a map was rasterized, from the legend of the label raster.

    Parameters
    ----------
    legend : Legend
        One without crosswalk but with sources; any other is returned as it is.
    path : Path
        The map: the source with its checksum, else with its file name; or any map if there is only one source.
    number : int
        Which of them, if the map was used several times.

    Raises
    ------
    InputError
        None of several sources is this map, or the source has no crosswalk.
    """
    if legend.field_candidates or not legend.sources:
        return legend
    found = list(legend.sources)
    if len(found) > 1:
        digest = sha256(path) if path.is_file() else ""
        same = [source for source in found if digest and source.get("sha256") == digest]
        found = same or [source for source in found if source.get("file") == path.name]
    if not found:
        named = ", ".join(str(source.get("file", "?")) for source in legend.sources)
        raise InputError(
            f"The legend {legend.name} is that of a label raster made from {named}, not from {path.name}.",
            "Give the legend of the map, or rename the map as it was called.",
        )
    return _legend_of_source(legend, found[min(number, len(found) - 1)])


def legends_of_sources(legend: Legend) -> list[Legend]:
    """The legends of all maps in the legend of a label raster; those without a recorded crosswalk are left out."""
    return [_legend_of_source(legend, source) for source in legend.sources if source.get("codes") or source.get("ages")]


def _legend_of_source(legend: Legend, source: dict[str, Any]) -> Legend:
    where = f"the legend {legend.name}, source {source.get('file', '?')}"
    if not isinstance(source.get("field"), str) or "codes" not in source:
        raise InputError(f"In {where}, no field or no codes are recorded.", "Give the legend of the map.")
    table: dict[str, Any] = {key: source[key] for key in ("crs", "citation", "codes", "override") if key in source}
    if source.get("ages"):
        names = source["field"].split(", ")
        keys = ("field",) if len(names) == 1 else ("oldest", "youngest")
        table["ages"] = dict(zip(keys, names, strict=False))
    else:
        table["field"] = source["field"]
    return replace(read_map_table(table, legend, where), name=text_of(source, "legend", where), sources=(source,))


_SOURCES = "Write [[source]] with two brackets for each file."
_MAP = 'Write [map] with field = "AGE", and [map.codes] below.'


def _read_classes(rows: Any, where: str) -> tuple[LegendClass, ...]:
    classes: list[LegendClass] = []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{where}: classes are not [[class]] tables.", "Write [[class]] with two brackets for each.")
    for row in rows:
        here = f"{where}, class {row.get('name', row.get('index', '?'))}"
        check_keys(row, _CLASS_KEYS, here)
        index = read_index(row.get("index"), here)
        if index == UNUSABLE:
            raise InputError(f"{here}: index 255 means not usable and cannot be a class.", "Choose 0 to 254.")
        if not text_of(row, "name", here).strip():
            raise InputError(f"{here} has no name.", 'Write name = "Devonian".')
        colour = text_of(row, "colour", here)
        if not _COLOUR.fullmatch(colour):
            raise InputError(f"{here}: {colour!r} is not a colour.", 'Write colour = "#CB8C37".')
        rocks = _rocks(row, index, here)
        if "intrusive_age_ma" in row and (index != COVER or "age_ma" not in row):
            raise InputError(
                f"{here}: intrusive_age_ma does not apply here.", "It is for the cover (class 0), beside its age_ma."
            )
        repeated = next((rock for rock in rocks for other in classes if rock in other.rocks), None)
        if repeated is not None:
            raise InputError(f"{here}: the rock type {repeated!r} is given twice.", "Give it to one class.")
        classes.append(
            LegendClass(
                index,
                str(row["name"]),
                read_age(row.get("age_ma"), here),
                colour.upper(),
                text_of(row, "rank", here),
                text_of(row, "uri", here),
                rocks,
                read_age(row["intrusive_age_ma"], here) if "intrusive_age_ma" in row else "",
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


def _rocks(row: dict[str, Any], index: int, where: str) -> tuple[str, ...]:
    """Rock types of a class."""
    rocks = row.get("rocks", [])
    known = [rock for rock in ROCKS if rock != SEDIMENTARY]
    if not isinstance(rocks, list) or any(rock not in known for rock in rocks):
        raise InputError(f"{where}: {rocks!r} are not rock types.", f"Write a list of: {', '.join(known)}.")
    if rocks and (index == COVER or "age_ma" in row):
        raise InputError(f"{where} has rock types and {'is the cover' if index == COVER else 'an age'}.", _AGE_OR_ROCKS)
    return tuple(rocks)


_AGE_OR_ROCKS = "A class of bedrock has age_ma or rocks; the cover has age_ma, and intrusive_age_ma for intrusions."
