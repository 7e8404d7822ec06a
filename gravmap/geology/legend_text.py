"""Legends as TOML text, which :mod:`gravmap.geology.legend_file` reads back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from gravmap.geology.legend import Legend, LegendClass

GAP = "gap"
KEEP = "keep"


def quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{quoted(str(key))} = {_inline(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_inline(entry) for entry in value) + "]"
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def class_lines(classes: Iterable[LegendClass]) -> list[str]:
    """A class table as ``[[class]]`` tables."""
    lines = []
    for entry in classes:
        lines += ["", "[[class]]", f"index = {entry.index}", f"name = {quoted(entry.name)}"]
        if entry.age != "any":
            older, younger = entry.age.removesuffix(" Ma").split("-")
            lines.append(f"age_ma = [{older}, {younger}]")
        lines.append(f"colour = {quoted(entry.colour)}")
        lines += [f"{key} = {quoted(text)}" for key, text in (("rank", entry.rank), ("uri", entry.uri)) if text]
    return lines


def rule_of(decided: int | None, unless: frozenset[str | int]) -> Any:
    """What an override does with one code, as it is written down."""
    return KEEP if decided is None else {"class": decided, "unless": sorted(unless, key=str)}


def to_toml(legend: Legend) -> str:
    """A legend as TOML that :func:`gravmap.geology.legend_file.read_legend` reads back to an equal one."""
    lines = [f"name = {quoted(legend.name)}"]
    if legend.title:
        lines.append(f"title = {quoted(legend.title)}")
    lines += class_lines(legend.classes)
    if legend.candidates:
        lines += ["", "[map]"]
        known = (("field", legend.field), ("crs", legend.crs), ("citation", legend.citation))
        lines += [f"{key} = {quoted(text)}" for key, text in known if text]
        for names in legend.ages:
            keys = ("field",) if len(names) == 1 else ("oldest", "youngest")
            lines += ["", "[[map.ages]]"]
            lines += [f"{key} = {quoted(name)}" for key, name in zip(keys, names, strict=True)]
        lines += _code_lines("map.codes", legend.codes, legend.gaps)
        for field, codes in legend.other_fields.items():
            lines += _code_lines(f"map.fields.{quoted(field)}", codes, legend.gaps)
        for override in legend.overrides:
            lines += ["", f"[map.override.{quoted(override.field)}]"]
            for code, decided in override.codes.items():
                lines.append(f"{quoted(code)} = {_inline(rule_of(decided, override.unless[code]))}")
    for source in legend.sources:
        lines += ["", "[[source]]"]
        lines += [f"{quoted(key)} = {_inline(value)}" for key, value in source.items()]
    return "\n".join(lines) + "\n"


def _code_lines(table: str, codes: dict[str, int], gaps: frozenset[str]) -> list[str]:
    rows = [f"{quoted(code)} = {_inline(GAP if code in gaps else index)}" for code, index in codes.items()]
    return ["", f"[{table}]", *rows] if codes else []
