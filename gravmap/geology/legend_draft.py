"""Drafting a legend from the codes of a map: a class suggested for each code, with the reason as a comment."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gravmap.classes import DEFAULT_CLASSES
from gravmap.errors import InputError
from gravmap.geology.ages import OLDEST_ROCK_MA, UnknownAge, is_age_name, parse_age
from gravmap.geology.legend import ROCKS, Legend, MapUnit, class_of_age
from gravmap.geology.legend_check import polygons_with_areas
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

# Symbols with the same meaning on nearly all maps. T (Triassic or Tertiary), Z (Sinian, Ediacaran, Neoproterozoic) and
# E (Eocene, Paleogene) are ambiguous.
_SYMBOLS = {
    "Q": "Quaternary",
    "N": "Neogene",
    "Pg": "Paleogene",
    "K": "Cretaceous",
    "J": "Jurassic",
    "Tr": "Triassic",
    "P": "Permian",
    "C": "Carboniferous",
    "D": "Devonian",
    "S": "Silurian",
    "O": "Ordovician",
    "Cm": "Cambrian",
    "Ꞓ": "Cambrian",
    "Є": "Cambrian",
    "Cz": "Cenozoic",
    "Kz": "Cenozoic",
    "Mz": "Mesozoic",
    "MZ": "Mesozoic",
    "Pz": "Paleozoic",
    "PZ": "Paleozoic",
    "Pt": "Proterozoic",
    "Ar": "Archean",
    "pCm": "Precambrian",
    "pC": "Precambrian",
}
_SYMBOL = re.compile("(" + "|".join(sorted(_SYMBOLS, key=len, reverse=True)) + r")(?:[1-4](?:-[1-4])?)?")
_NO_ROCK = {"water", "h2o", "lake", "ice", "glacier", "sea"}


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
    """

    code: str
    index: int
    reason: str
    polygons: int
    area_km2: float
    age_ma: tuple[float, float] | None = None


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
    the code itself, if it is a name of the ICS chart or consists of common symbols. The age is assigned to a class by
    :func:`gravmap.geology.ages.class_of_span`; a code without age becomes 255 and is marked.

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
    guesses = []
    for code, here in where.items():
        index, reason, age_ma = _guess(code, age_field, {ages[k] for k in here} if ages else set(), legend)
        guesses.append(Guess(code, index, reason, len(here), float(areas[here].sum()), age_ma))
    guesses.sort(key=lambda guess: (-guess.area_km2, guess.code))
    text = _text(path, spelled, classes, legend, guesses)
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


def _guess(code: str, age_field: str, ages: set[str], legend: Legend) -> tuple[int, str, tuple[float, float] | None]:
    """Suggest a class for a code, with the reason and the age; the reason is empty if no age was found."""
    if code.casefold() in _NO_ROCK:
        return UNUSABLE, "water or ice", None
    for what, spans in (
        (f"by {age_field}", _spans(ages)),
        ("by its name", _spans({code} if is_age_name(code) else set())),
        _by_symbols(code),
    ):
        if spans:
            older, younger = max(span[0] for span in spans), min(span[1] for span in spans)
            index, fraction = class_of_age(older, younger, legend.classes)
            several = f", {len(spans)} different ages" if len(spans) > 1 else ""
            rule = "; no class holds half" if index == UNUSABLE else ""
            return (
                index,
                f"{what}: {min(older, OLDEST_ROCK_MA):.7g}-{younger:.7g} Ma{several}, share {fraction:.2f}{rule}",
                (older, younger) if any(entry.span_ma for entry in legend.classes) else None,
            )
    return UNUSABLE, "", None


def _spans(texts: set[str]) -> set[tuple[float, float]]:
    found = set()
    for text in texts:
        try:
            found.add(parse_age(text))
        except UnknownAge:
            continue
    return found


def _by_symbols(code: str) -> tuple[str, set[tuple[float, float]]]:
    """Ages of a code such as D3 or C-P; two symbols without a separator must be adjacent in time."""
    plain = unicodedata.normalize("NFKC", code)
    symbols: list[str] = []
    separators = 0
    position = 0
    while position < len(plain):
        found = _SYMBOL.match(plain, position)
        if not found:
            return "", set()
        symbols.append(found[1])
        position = found.end()
        if position < len(plain) - 1 and plain[position] in "-+/":
            position += 1
            separators += 1
    names = [_SYMBOLS[symbol] for symbol in symbols]
    spans = [parse_age(name) for name in names]
    if len(spans) > 2 or (
        len(spans) == 2 and not separators and not {spans[0][0], spans[1][0]} & {spans[0][1], spans[1][1]}
    ):
        return "", set()
    # From the oldest base to the youngest top.
    whole = {(max(span[0] for span in spans), min(span[1] for span in spans))} if spans else set()
    return f"read as {'-'.join(names)}", whole


def _text(path: Path, field: str, classes: str | Path, legend: Legend, guesses: list[Guess]) -> str:
    """The draft as TOML."""
    # Non-breaking spaces, so that lines break between classes only.
    table = "; ".join(f"{entry.index} {entry.name}".replace(" ", "\u00a0") for entry in legend.classes)
    lines = [
        f"# First legend for {_comment(path.name)}, field {_comment(field)}, drafted by gravmap: guesses, not facts.",
        "# Read every line and mend what is wrong; then look at `gravmap legend check`. A code has its age in million",
        "# years, older end first (ICS chart 2023/09); a unit of mixed age goes to the class that holds at least half",
        "# of its time span, else it is 255: not usable. Instead of an age you may write the index of a class, 255,",
        '# or "gap" for a code that says nothing about the ground. The classes:',
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
    keys = [guess.code if re.fullmatch(r"[A-Za-z0-9_-]+", guess.code) else toml_string(guess.code) for guess in guesses]
    width = min(max((len(key) for key in keys), default=0) + 30, 60)
    for key, guess in zip(keys, guesses, strict=True):
        area = f"{guess.area_km2:,.0f} km²" if guess.area_km2 >= 1 else "under 1 km²"
        amount = f"{area}, {guess.polygons} polygon{'s' if guess.polygons != 1 else ''}"
        units = {} if guess.age_ma is None else {guess.code: MapUnit(guess.age_ma)}
        value = inline_toml(code_entry(guess.code, {guess.code: guess.index}, units, frozenset()))
        index = "" if guess.age_ma is None else f"class {guess.index}; "
        reason = _comment(guess.reason) or "unknown: set me"
        lines.append(f"{f'{key} = {value}':<{width}}  # {index}{amount}; {reason}")
    lines += [
        "",
        '# A code may also have a rock type: { age_ma = [298.9, 251.902], rock = "acid intrusive" }; known are',
        f"# {', '.join(ROCKS)}.",
        "# Where a second field says what the rock is:",
        "# [map.override.TYPE]",
        '# granite = { rock = "acid intrusive" }',
        '# lava = { rock = "volcanic" }',
    ]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    """Text without the control characters that TOML does not allow in comments."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
