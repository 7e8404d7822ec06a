"""Drafting a legend from the codes of a map: a class suggested for each code, with the reason as a comment."""

from __future__ import annotations

import re
import textwrap
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gravmap.classes import DEFAULT_CLASSES
from gravmap.errors import InputError, OptionError
from gravmap.geology.ages import OLDEST_ROCK_MA, UnknownAge, is_age_name, parse_age
from gravmap.geology.code_reading import Reading, read_codes
from gravmap.geology.legend import (
    INTRUSIVE,
    LOOSE,
    ROCKS,
    SEDIMENTARY,
    Legend,
    MapUnit,
    class_of_age,
    class_of_unit,
    normalize_code,
)
from gravmap.geology.legend_check import polygons_with_areas, rock_fields
from gravmap.geology.legend_file import (
    class_table_lines,
    code_entry,
    inline_toml,
    load_legend,
    read_legend,
    shipped_legends,
    toml_string,
)
from gravmap.lattice import UNUSABLE
from gravmap.regions import Region

if TYPE_CHECKING:
    from gravmap.geology.geological_map import MapPolygons

_CENOZOIC_MA = 66.0
_SET_ME = "unknown: set me"


@dataclass(frozen=True)
class Guess:
    """A code of the map and the class suggested for it.

    Attributes
    ----------
    code : str
        Code of the map.
    index : int
        Class; 255 if no age was found, or no class contains half of its span.
    reason : str
        Source of the suggestion; empty if there is none.
    polygons : int
        Number of polygons with the code.
    area_km2 : float
        Their total area.
    age_ma : tuple of float, optional
        The age, from which the class follows; None if none was found.
    rock : str
        The rock type.
    """

    code: str
    index: int
    reason: str
    polygons: int
    area_km2: float
    age_ma: tuple[float, float] | None = None
    rock: str = SEDIMENTARY


@dataclass(frozen=True)
class LegendDraft:
    """A draft legend, to be reviewed by a geologist before use.

    Attributes
    ----------
    text : str
        TOML that :func:`gravmap.geology.load_legend` reads.
    guesses : tuple of Guess
        Largest area first.

    Examples
    --------
    >>> from gravmap.geology.legend_draft import LegendDraft
    >>> from gravmap.geology.legend_draft import Guess
    >>> draft = LegendDraft("name = ...", (Guess("D3", 6, "read as Devonian", 4, 120.0), Guess("xx", 255, "", 1, 5.0)))
    >>> [guess.code for guess in draft.guesses if not guess.reason]
    ['xx']
    """

    text: str
    guesses: tuple[Guess, ...]


def draft_legend(
    path: Path, field: str, classes: str | Path = DEFAULT_CLASSES, region: Region | None = None, crs: str = ""
) -> LegendDraft:
    """Draft a legend for a map.

    The age of a code is read from age fields of the map, if it has fields that the legend `ics` reads; otherwise from
    the code itself, if it is a name of an age or of a rock of some age, or consists of symbols whose meaning the other
    codes of the map settle (:func:`gravmap.geology.code_reading.read_codes`), which also give the rock type. Age and
    rock type are assigned to a class by :func:`gravmap.geology.legend.class_of_unit`; a code that cannot be read
    becomes 255 and is marked.

    Parameters
    ----------
    path : Path
        The map.
    field : str
        The field with the code of the unit.
    classes : str or Path
        The class table: a shipped legend or a file.
    region : Region, optional
        Part of the map to use, degrees; by default the whole map.
    crs : str
        Coordinate reference system of a file without one.

    Raises
    ------
    InputError
        The map cannot be read, has no polygons in the region or lacks the field, or the field is always blank.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import geopandas, shapely
    >>> from gravmap.geology import draft_legend
    >>> boxes = [shapely.box(80, 44, 82, 45), shapely.box(82, 44, 83, 45)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "map.gpkg"
    ...     geopandas.GeoDataFrame({"UNIT": ["D3", "xx"]}, geometry=boxes, crs="EPSG:4326").to_file(path)
    ...     draft = draft_legend(path, "UNIT")
    >>> [(guess.code, guess.index) for guess in draft.guesses]
    [('D3', 6), ('xx', 255)]
    """
    if not field:
        from gravmap.geology.geological_map import fields_of_map  # slow to import

        names = [name for fields in fields_of_map(path).values() for name in fields]
        raise OptionError(
            f"The field that holds the unit's code is missing; the fields of {path} are"
            f" {', '.join(dict.fromkeys(names)) or 'none'}.",
            "Name one with --field.",
        )
    legend = Legend("draft", load_legend(classes).classes, field=field, crs=crs)
    polygons, areas = polygons_with_areas(path, legend, region)
    codes = [code[0] for code in polygons.codes]
    spelled = polygons.fields[0]
    if not any(codes):
        raise InputError(
            f"The field {spelled} of {path} is blank in all {len(codes)} polygons.", "Name another --field."
        )
    where: dict[str, list[int]] = {}
    for position, code in enumerate(codes):
        if areas[position] > 0:
            where.setdefault(code, []).append(position)
    age_field, ages = _ages_beside(path, polygons, region, crs)
    readings = read_codes(where)
    guesses = []
    for code, here in where.items():
        of_field = {ages[position] for position in here} if ages else set()
        index, reason, unit = _guess(readings.get(code), age_field, of_field, legend)
        amount = len(here), float(areas[here].sum())
        guesses.append(Guess(code, index, reason, *amount, *((unit.age_ma, unit.rock) if unit else ())))
    guesses.sort(key=lambda guess: (-guess.area_km2, guess.code))
    text = _text(path, spelled, classes, legend, guesses, rock_fields(path, legend, region))
    read_legend(text, f"the draft for {path.name}")  # check that the draft can be read
    return LegendDraft(text, tuple(guesses))


def _ages_beside(path: Path, polygons: MapPolygons, region: Region | None, crs: str) -> tuple[str, list[str]]:
    """Age field or fields of the map, and the age of each polygon; empty if it has none."""
    from gravmap.geology.geological_map import read_map  # slow to import

    try:
        read = read_map(path, replace(load_legend("ics"), crs=crs), region)
    except InputError:  # the map itself is readable, so it has no age field
        return "", []
    if read.layer != polygons.layer or read.fields[0] == polygons.fields[0]:
        return "", []
    ages = [code[0] for code in read.codes]
    # Numbers in a single field may have any meaning; two fields are the oldest and the youngest age.
    if "," not in read.fields[0]:
        ages = [age if is_age_name(age) else "" for age in ages]
    return read.fields[0], ages


def _guess(reading: Reading | None, age_field: str, ages: set[str], legend: Legend) -> tuple[int, str, MapUnit | None]:
    """Suggest a class for a code, with the reason and the unit; the reason is empty if it could not be read."""
    spans = _spans(ages)
    if reading is not None and reading.unit is None:
        return UNUSABLE, reading.reason, None
    if spans:
        rock = reading.unit.rock if reading is not None and reading.unit is not None else SEDIMENTARY
        age_ma = max(span[0] for span in spans), min(span[1] for span in spans)
        if rock == LOOSE and age_ma[0] > _CENOZOIC_MA:  # a Permian tillite is no cover
            rock = SEDIMENTARY
        unit = MapUnit(age_ma, rock)
        what = f"by {age_field}"
        if rock != SEDIMENTARY and reading is not None:
            what += f", {rock} " + reading.reason.removesuffix(f", {rock}")
    elif reading is not None and reading.unit is not None:
        unit, what = reading.unit, reading.reason
    else:
        return UNUSABLE, "", None
    index = class_of_unit(unit, legend.classes)
    if unit.age_ma is None:
        return index, what + ("; no class has it" if index == UNUSABLE else ""), unit
    older, younger = unit.age_ma
    by_age, fraction = class_of_age(older, younger, legend.classes)
    several = f", {len(spans)} different ages" if len(spans) > 1 else ""
    rule = "" if index != UNUSABLE else "; no class holds half" if by_age == UNUSABLE else "; no class has it"
    share = f", share {fraction:.2f}" if index in (by_age, UNUSABLE) and unit.rock not in INTRUSIVE else ""
    reason = f"{what}: {min(older, OLDEST_ROCK_MA):.7g}-{younger:.7g} Ma{several}{share}{rule}"
    # A class table without ages takes no ages, only rock types.
    with_ages = any(entry.span_ma for entry in legend.classes)
    return index, reason, unit if with_ages else None


def _spans(texts: set[str]) -> set[tuple[float, float]]:
    found = set()
    for text in texts:
        try:
            found.add(parse_age(text))
        except UnknownAge:
            continue
    return found


def _text(
    path: Path,
    field: str,
    classes: str | Path,
    legend: Legend,
    guesses: list[Guess],
    others: Mapping[str, Mapping[str, float]],
) -> str:
    """The draft as TOML; `others` are fields that may say what the rock is, with the areas of their values."""
    # Non-breaking spaces, so that lines break between classes only.
    table = "; ".join(f"{entry.index} {entry.name}".replace(" ", "\u00a0") for entry in legend.classes)
    lines = [
        f"# First legend for {_comment(path.name)}, field {_comment(field)}, drafted by gravmap: guesses, not facts.",
        "# Read every line and mend what is wrong; then look at `gravmap legend check`. A code has its age in million",
        "# years, older end first (ICS chart 2023/09), and its rock type if it is not sedimentary; a unit of mixed age",
        "# goes to the class that holds at least half of its time span, else it is 255: not usable. Instead of an age",
        '# write the index of a class, 255, or "gap" for a code that says nothing about the ground, if need be. The',
        "# classes:",
        *(f"# {_comment(line)}" for line in textwrap.wrap(table, 116)),
        f"name = {toml_string(path.stem)}",
    ]
    if str(classes) in shipped_legends():
        lines.append(f"classes = {toml_string(str(classes))}")
    else:
        lines += class_table_lines(legend.classes)
    lines += ["", "[map]", f"field = {toml_string(field)}"]
    lines += [f"crs = {toml_string(legend.crs)}"] if legend.crs else []
    lines += ["", "[map.codes]"]
    keys = [_key(guess.code) for guess in guesses]
    width = min(max((len(key) for key in keys), default=0) + 30, 60)
    for key, guess in zip(keys, guesses, strict=True):
        amount = f"{_area(guess.area_km2)}, {guess.polygons} polygon{'s' if guess.polygons != 1 else ''}"
        known = guess.age_ma is not None or guess.rock != SEDIMENTARY
        units = {guess.code: MapUnit(guess.age_ma, guess.rock)} if known else {}
        value = inline_toml(code_entry(guess.code, {guess.code: guess.index}, units, frozenset()))
        index = f"class {guess.index}; " if known else ""
        reason = _comment(guess.reason) or _SET_ME
        lines.append(f"{f'{key} = {value}':<{width}}  # {index}{amount}; {reason}")
    lines += [
        "",
        '# Rock types, as in { age_ma = [298.9, 251.902], rock = "acid intrusive" }:',
        f"# {', '.join(ROCKS)}.",
    ]
    for name, values in others.items():
        rocks = read_codes(values)
        lines += [
            f"# If the field {_comment(name)} says what the rock is, give each value its rock type and remove these #:",
            f"# [map.override.{_key(name)}]",
        ]
        for value, area in values.items():
            reading = rocks.get(value)
            rock = reading.unit.rock if reading is not None and reading.unit is not None else "SET ME"
            lines.append(f"# {_key(value)} = {{ rock = {toml_string(rock)} }}  # {_area(area)}")
    return "\n".join(lines) + "\n"


def unset_codes(text: str, legend: Legend) -> list[str]:
    """The codes that a drafted legend still marks with "set me" and that are 255.

    Parameters
    ----------
    text : str
        The TOML of the legend.
    legend : Legend
        As read from it.
    """
    marked = [line for line in text.splitlines() if line.endswith(_SET_ME) and not line.startswith("#")]
    codes = [normalize_code(code) for line in marked for code in tomllib.loads(line)]
    return [code for code in codes if legend.codes.get(code) == UNUSABLE]


def _key(text: str) -> str:
    """Text as a key of TOML."""
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else toml_string(text)


def _area(area_km2: float) -> str:
    return f"{area_km2:,.0f} km²" if area_km2 >= 1 else "under 1 km²"


def _comment(text: str) -> str:
    """Text without the control characters that TOML does not allow in comments."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
