"""A first legend from a map's own codes: each with a guess, and the reason for it as a comment."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gravmap.errors import InputError
from gravmap.geology.ages import OLDEST_ROCK_MA, UnknownAge, is_age_name, parse_age
from gravmap.geology.legend import Legend
from gravmap.geology.legend_check import polygons_with_areas
from gravmap.geology.legend_file import class_table_lines, load_legend, read_legend, shipped_legends, toml_string
from gravmap.lattice import UNUSABLE
from gravmap.regions import Region

if TYPE_CHECKING:
    from gravmap.geology.geological_map import MapPolygons

# Symbols that mean one age on nearly every map. T (Triassic or Tertiary), Z (Sinian, Ediacaran, Neoproterozoic) and E
# (Eocene, Paleogene) do not.
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
    """A code of the map and what it may mean.

    Attributes
    ----------
    code : str
        As the map has it.
    index : int
        Class; 255 when nothing was found, or no class holds half of the span.
    reason : str
        Where the guess comes from; empty when there is none.
    polygons : int
        How many have the code.
    area_km2 : float
        Theirs together.
    """

    code: str
    index: int
    reason: str
    polygons: int
    area_km2: float


@dataclass(frozen=True)
class LegendDraft:
    """A legend to be read by a geologist before it is used.

    Attributes
    ----------
    text : str
        TOML that :func:`gravmap.geology.load_legend` reads.
    guesses : tuple of Guess
        Largest area first.
    """

    text: str
    guesses: tuple[Guess, ...]


def draft_legend(
    path: Path, field: str, classes: str | Path = "bedrock10", region: Region | None = None, crs: str = ""
) -> LegendDraft:
    """Write a first legend for a map.

    A code's age is taken from the map's own fields of ages, where it has some that the legend `ics` knows; else from
    the code, when it is a name of the ICS chart or made of well-known symbols. What is found goes to a class by the
    rule for units of mixed age; what is not found is 255 and marked.

    Parameters
    ----------
    path : Path
        The map.
    field : str
        The field that holds the unit's code.
    classes : str or Path
        The class table: a shipped legend or a file.
    region : Region, optional
        Only codes met inside, degrees; the whole map when left out.
    crs : str
        The coordinate system of a file that does not say its own.

    Raises
    ------
    InputError
        The map cannot be read, has no polygon here or not the field, or the field is blank throughout.
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
        index, reason = _guess(code, age_field, {ages[k] for k in here} if ages else set(), legend)
        guesses.append(Guess(code, index, reason, len(here), float(areas[here].sum())))
    guesses.sort(key=lambda guess: (-guess.area_km2, guess.code))
    text = _text(path, spelled, classes, legend, guesses)
    read_legend(text, f"the draft for {path.name}")  # what is written is readable
    return LegendDraft(text, tuple(guesses))


def _ages_beside(path: Path, polygons: MapPolygons, region: Region | None, crs: str) -> tuple[str, list[str]]:
    """The map's own field or fields of ages, and the age of each polygon; empty when it has none."""
    from gravmap.geology.geological_map import read_map  # here: geopandas takes a second to load

    try:
        read = read_map(path, replace(load_legend("ics"), crs=crs), region)
    except InputError:  # the map itself was read: it has no such field
        return "", []
    if read.layer != polygons.layer or read.fields[0] == polygons.fields[0]:
        return "", []
    ages = [code[0] for code in read.codes]
    # Numbers in a lone field may count anything; the oldest and the youngest age stand in two.
    if "," not in read.fields[0]:
        ages = [age if is_age_name(age) else "" for age in ages]
    return read.fields[0], ages


def _guess(code: str, age_field: str, ages: set[str], legend: Legend) -> tuple[int, str]:
    """A class for a code, and why; an empty reason when nothing is known."""
    if code.casefold() in _NO_ROCK:
        return UNUSABLE, "water or ice"
    for what, spans in (
        (f"by {age_field}", _spans(ages)),
        ("by its name", _spans({code} if is_age_name(code) else set())),
        _by_symbols(code),
    ):
        if spans:
            older, younger = max(span[0] for span in spans), min(span[1] for span in spans)
            index, share = legend.class_of_age(older, younger)
            several = f", {len(spans)} different ages" if len(spans) > 1 else ""
            rule = "; no class holds half" if index == UNUSABLE else ""
            return index, f"{what}: {min(older, OLDEST_ROCK_MA):.7g}-{younger:.7g} Ma{several}, share {share:.2f}{rule}"
    return UNUSABLE, ""


def _spans(texts: set[str]) -> set[tuple[float, float]]:
    found = set()
    for text in texts:
        try:
            found.add(parse_age(text))
        except UnknownAge:
            continue
    return found


def _by_symbols(code: str) -> tuple[str, set[tuple[float, float]]]:
    """The ages of a code such as D3 or C-P; two symbols without a sign between must be neighbours in time."""
    plain = unicodedata.normalize("NFKC", code)
    symbols: list[str] = []
    signs = 0
    position = 0
    while position < len(plain):
        found = _SYMBOL.match(plain, position)
        if not found:
            return "", set()
        symbols.append(found[1])
        position = found.end()
        if position < len(plain) - 1 and plain[position] in "-+/":
            position += 1
            signs += 1
    names = [_SYMBOLS[symbol] for symbol in symbols]
    spans = [parse_age(name) for name in names]
    if len(spans) > 2 or (
        len(spans) == 2 and not signs and not {spans[0][0], spans[1][0]} & {spans[0][1], spans[1][1]}
    ):
        return "", set()
    # One span from the oldest base to the youngest top.
    whole = {(max(span[0] for span in spans), min(span[1] for span in spans))} if spans else set()
    return f"read as {'-'.join(names)}", whole


def _text(path: Path, field: str, classes: str | Path, legend: Legend, guesses: list[Guess]) -> str:
    """The draft as TOML."""
    # Lines are broken between classes only.
    table = "; ".join(f"{entry.index} {entry.name}".replace(" ", "\u00a0") for entry in legend.classes)
    lines = [
        f"# First legend for {_comment(path.name)}, field {_comment(field)}, drafted by gravmap: guesses, not facts.",
        "# Read every line and mend what is wrong; then look at `gravmap legend check`. A unit of mixed age goes to",
        "# the class that holds at least half of its time span (ICS chart 2023/09), else it is 255: not usable.",
        '# Write "gap" instead of a number for a code that says nothing about the ground.',
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
    width = min(max((len(key) for key in keys), default=0) + 6, 40)
    for key, guess in zip(keys, guesses, strict=True):
        ground = f"{guess.area_km2:,.0f} km²" if guess.area_km2 >= 1 else "under 1 km²"
        amount = f"{ground}, {guess.polygons} polygon{'s' if guess.polygons != 1 else ''}"
        lines.append(f"{f'{key} = {guess.index}':<{width}}  # {amount}; {_comment(guess.reason) or 'unknown: set me'}")
    lines += [
        "",
        "# A second field that says what the rock is may beat the age, here but for cover (class 0):",
        "# [map.override.TYPE]",
        "# granite = { class = 10, unless = [0] }",
        '# lava = "keep"',
    ]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    """Text without what a TOML comment may not hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
