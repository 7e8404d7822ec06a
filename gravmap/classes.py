"""Class tables of labels, tile sets and networks: their names, whether two agree, and the command that makes labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from gravmap.errors import InputError
from gravmap.lattice import COVER
from gravmap.records import parse_record

DEFAULT_CLASSES = "basement10"
CLASS_TABLES = (DEFAULT_CLASSES, "bedrock10")
"""The shipped class tables."""

_DERIVED = re.compile(r"(?P<table>.+)-(?P<level>[\d.]+Ma)")


@dataclass(frozen=True)
class NamedClasses:
    """The bedrock classes of labels, a tile set or a network.

    Attributes
    ----------
    names : dict of int to str
        Class index to name.
    table : str
        Name of the class table; empty if it is not known.
    """

    names: dict[int, str]
    table: str = ""

    @classmethod
    def of(cls, classes: list[dict[str, Any]] | Any, legend_toml: str = "") -> NamedClasses:
        """From the entries of a record, and the text of the legend in it.

        Files of earlier versions do not name the class table; a shipped one is recognised by its classes.

        Examples
        --------
        >>> from gravmap.geology import load_legend
        >>> from gravmap.classes import NamedClasses
        >>> bedrock = [{"index": each.index, "name": each.name} for each in load_legend("bedrock10").bedrock]
        >>> NamedClasses.of(bedrock).table
        'bedrock10'
        """
        names = {int(each["index"]): str(each["name"]) for each in classes}
        recognised = (table for table in CLASS_TABLES if _shipped_names(table) == names)
        return cls(names, table_name(legend_toml) or next(recognised, ""))

    def differences(self, other: NamedClasses) -> list[str]:
        """What differs: index by index, as it is in this and in the other; colours and ages may differ."""
        return [
            f"class {index} is {self.names.get(index, 'none')} there and {other.names.get(index, 'none')} here"
            for index in sorted(self.names.keys() | other.names.keys())
            if self.names.get(index) != other.names.get(index)
        ]

    def describe_mismatch(self, subject: str, where: str, other: NamedClasses, verb: str = "was trained on") -> str:
        """One sentence that says that a network was trained on other classes than `where` has; empty if it was not."""
        differing = self.differences(other)
        if not differing:
            return ""
        more = f" ({len(differing)} classes differ)" if len(differing) > 1 else ""
        if self.table and other.table and self.table != other.table:
            return f"{subject} {verb} {self.table}, {where} has {other.table}: {differing[0]}{more}."
        return f"{subject} {verb} other classes than {where} has: {differing[0]}{more}."

    def how_to_make(self, tiles: bool) -> str:
        """The commands that make labels, and a tile set, of these classes."""
        then = ", then `gravmap tile --overwrite`" if tiles else ""
        if split_table_name(self.table)[0] in CLASS_TABLES:
            options = table_options(self.table)
            return (
                f"`gravmap rasterize {options} --overwrite` makes labels of its classes (with the MAP and --legend "
                f"given then, if any){then}"
            )
        return f"Make labels of its classes: `gravmap rasterize MAP --legend LEGEND --overwrite` with its legend{then}"


@cache
def _shipped_names(table: str) -> dict[int, str]:
    """Bedrock classes of a shipped class table; read as text, because the package of legends loads raster libraries."""
    text = resources.files("gravmap").joinpath(f"geology/legends/{table}.toml").read_text(encoding="utf-8")
    rows = parse_record(text, dict[str, Any], f"gravmap's legend {table}", toml=True)["class"]
    return {row["index"]: row["name"] for row in rows if row["index"] != COVER}


def table_name(legend_toml: str) -> str:
    """Name of the class table in the text of a legend; empty if it has none, as those of earlier versions."""
    if not legend_toml:
        return ""
    try:
        found: Mapping[str, Any] = parse_record(legend_toml, dict[str, Any], "the legend", toml=True)
    except InputError:
        return ""
    return str(found.get("class_table", ""))


def split_table_name(name: str) -> tuple[str, str]:
    """The table that a class table was derived from, and the age of its cover; that is empty if it was not derived.

    Examples
    --------
    >>> from gravmap.classes import split_table_name
    >>> split_table_name("basement10-320Ma"), split_table_name("bedrock10")
    (('basement10', '320Ma'), ('bedrock10', ''))
    """
    found = _DERIVED.fullmatch(name)
    return (found["table"], found["level"]) if found else (name, "")


def table_options(name: str) -> str:
    """The options of `gravmap rasterize` for a class table.

    Examples
    --------
    >>> from gravmap.classes import table_options
    >>> table_options("basement10-320Ma")
    '--classes basement10 --cover-younger-than 320Ma'
    """
    table, level = split_table_name(name)
    return f"--classes {table} --cover-younger-than {level}" if level else f"--classes {table}"
