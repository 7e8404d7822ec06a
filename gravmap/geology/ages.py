"""Geological ages: parsing names of the ICS chart and numbers in Ma as time spans, and assigning a span to a class.

Names are compared as a whole: ``C`` is not ``Cz``, and ``Cambrian`` does not match ``Precambrian``. Their spelling is
normalised first (:func:`normalize_age_name`): ``Late Devonian``, ``UPPER DEVONIAN`` and ``Upper Devonian Epoch`` are
the same.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any

from gravmap.lattice import UNUSABLE
from gravmap.records import parse_record

# Separates the oldest and the youngest age of two fields; a character that no map has in one field.
AGE_PAIR_SEPARATOR = " → "
EARTH_MA = 4600.0
# The base of the Archean: no mapped rock is older, so the Hadean part of a span is not counted.
OLDEST_ROCK_MA = 4031.0

_PARTS = {"early": "lower", "late": "upper", "mid": "middle"}
_PART_WORDS = ("lower", "middle", "upper")
_UNSAID = {"undivided", "undifferentiated"}
_RANKS = {"eon", "eonothem", "era", "erathem", "period", "system", "epoch", "series", "age", "stage"}
_BETWEEN = re.compile(r"\s*(?:[-/,;&+]|\bto\b|\band\b)\s*")
_DASHES = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043", "-") | {"_": " ", "æ": "ae", "Æ": "ae"}
)


class UnknownAge(ValueError):
    """A text that is not a valid age; the message says why."""


@dataclass(frozen=True)
class AgeUnit:
    """A unit of the ICS chart 2023/09.

    Attributes
    ----------
    name, rank : str
        Such as ``"Upper Devonian"``, ``"epoch"``.
    older_ma, younger_ma : float
        Base and top, Ma.
    uri : str
        Its entry in the vocabulary of the chart.
    """

    name: str
    rank: str
    older_ma: float
    younger_ma: float
    uri: str


@cache
def ics_chart() -> tuple[AgeUnit, ...]:
    """Units of the ICS chart 2023/09, eons first, each rank from young to old."""
    table = _chart_table()
    return tuple(
        AgeUnit(name, rank, float(older), float(younger), table["uri"] + name.replace(" ", ""))
        for rank, units in table["unit"].items()
        for name, (older, younger) in units.items()
    )


@cache
def _chart_table() -> dict[str, Any]:
    text = resources.files("gravmap.geology").joinpath("ics_chart.toml").read_text(encoding="utf-8")
    return parse_record(text, dict[str, Any], "ics_chart.toml", toml=True)


@cache
def _known() -> dict[str, tuple[float, float, str]]:
    """Normalised name or URI to (older, younger, name for display)."""
    chart = {unit.name: unit for unit in ics_chart()}
    found = {normalize_age_name(unit.name): (unit.older_ma, unit.younger_ma, unit.name) for unit in ics_chart()}
    found |= {unit.uri.casefold(): (unit.older_ma, unit.younger_ma, unit.name) for unit in ics_chart()}
    for name, span in _chart_table()["also"].items():
        older, younger = chart[span["from"]].older_ma, chart[span["to"]].younger_ma
        found[normalize_age_name(name)] = (older, younger, name)
    return found


def normalize_age_name(text: str) -> str:
    """Normalise the spelling of the name of an age.

    Unicode compatibility forms are resolved and accents removed; case is folded; dashes become hyphens; runs of white
    space become one blank; Early, Late and Mid become Lower, Upper and Middle; ``ae`` becomes ``e`` (Archaean);
    "undivided", "undifferentiated" and a final rank (Period, System) are removed.
    """
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter)).translate(_DASHES).casefold()
    words = [_PARTS.get(word, word) for word in plain.replace("ae", "e").split() if word.strip("()[]") not in _UNSAID]
    if len(words) > 1 and words[-1] in _RANKS:
        words.pop()
    # A part may be joined to another by a hyphen: early-middle.
    joined = " ".join(words)
    return re.sub(r"\b(early|late|mid)\b", lambda found: _PARTS[found.group()], joined)


@lru_cache(maxsize=65536)
def parse_age(text: str) -> tuple[float, float]:
    """Parse an age as a time span.

    Parameters
    ----------
    text : str
        A name of the chart or its URI (``"Late Devonian"``), several (``"Devonian-Carboniferous"``, ``"Early and Middle
        Jurassic"``: from the oldest base to the youngest top), a number or two in Ma (``"358.9-298.9"``), or an oldest
        and a youngest age with :data:`AGE_PAIR_SEPARATOR` between them.

    Returns
    -------
    tuple of float
        Older and younger end, Ma; equal for a single number.

    Raises
    ------
    UnknownAge
        A name that is not in the chart; an age that is negative, above 4600 Ma or not a number; an oldest age that is
        younger than the youngest.

    Examples
    --------
    >>> from gravmap.geology.ages import parse_age
    >>> parse_age("Late Devonian"), parse_age("Devonian-Carboniferous")
    ((382.7, 358.9), (419.2, 298.9))
    """
    oldest, pair, youngest = text.partition(AGE_PAIR_SEPARATOR.strip())
    if not pair:
        return _span(text)
    for end, which in ((oldest, "oldest"), (youngest, "youngest")):
        if not end.strip():
            raise UnknownAge(f"the {which} age is blank")
    from_ma, to_ma = _span(oldest), _span(youngest)
    if from_ma[0] < to_ma[1] or (from_ma[0] == to_ma[1] and from_ma != to_ma):
        raise UnknownAge(f"the oldest age {oldest.strip()} is younger than the youngest {youngest.strip()}")
    return from_ma[0], to_ma[1]


def is_age_name(text: str) -> bool:
    """Whether a text is an age with words in it; a bare number could also be a class or a serial number."""
    try:
        parse_age(text)
    except UnknownAge:
        return False
    return any(letter.isalpha() for letter in text)


def _span(text: str) -> tuple[float, float]:
    """Time span of a text without :data:`AGE_PAIR_SEPARATOR`."""
    known = _known()
    plain = normalize_age_name(text)
    if not plain:
        raise UnknownAge("blank")
    # A URI keeps its slashes; the vocabulary of the chart has some names with hyphens ("Cambrian-Stage 2").
    for spelling in (plain, text.strip().casefold(), plain.replace("-", " ")):
        if spelling in known:
            return known[spelling][:2]
    whole = _number(plain)
    if whole is not None:
        return whole, whole
    pieces = [piece.strip("() ") for piece in _BETWEEN.split(plain)]
    spans = []
    for position, piece in enumerate(pieces):
        following = pieces[position + 1].split() if position + 1 < len(pieces) else []
        # "Lower-Middle Devonian": a part without a name takes the name of the next.
        if piece in _PART_WORDS and len(following) > 1 and following[0] in _PART_WORDS:
            piece = " ".join([piece, *following[1:]])
        number = _number(piece)
        if number is None and piece not in known:
            raise UnknownAge(f"not a name of the ICS chart{_suggestion(piece)}")
        spans.append((number, number) if number is not None else known[piece][:2])
    return max(span[0] for span in spans), min(span[1] for span in spans)


def _number(text: str) -> float | None:
    """An age in Ma, or None if the text is not a number."""
    try:
        age = float(text.removesuffix("ma").strip())
    except ValueError:
        return None
    if not math.isfinite(age):
        raise UnknownAge(f"{text} is not an age")
    if age < 0:
        raise UnknownAge(f"{age:g} Ma is negative")
    if age > EARTH_MA:
        raise UnknownAge(f"{age:g} Ma is above {EARTH_MA:.0f} Ma, older than the Earth")
    return age


def _suggestion(piece: str) -> str:
    known = _known()
    near = difflib.get_close_matches(piece, known, n=1, cutoff=0.85)
    return f"; did you mean {known[near[0]][2]}?" if near else ""


def class_of_span(older_ma: float, younger_ma: float, classes: Iterable[tuple[int, float, float]]) -> tuple[int, float]:
    """Assign a unit to a class by its time span.

    The class is the one that contains at least half of the span; the older one if two contain half each; without such a
    class the unit is not usable. Time before 4031 Ma, the base of the Archean, is not counted: no mapped rock is
    older. A single age belongs to the class that contains it, an age on a boundary to the younger class.

    Parameters
    ----------
    older_ma, younger_ma : float
        Span of the unit.
    classes : iterable of (index, older_ma, younger_ma)
        The classes that are ages.

    Returns
    -------
    index : int
        255 if no class contains half.
    fraction : float
        Largest fraction of the span that one class contains.

    Examples
    --------
    >>> from gravmap.geology.ages import class_of_span
    >>> devonian, carboniferous = (6, 419.2, 358.9), (7, 358.9, 298.9)
    >>> class_of_span(372.2, 323.2, [devonian, carboniferous])
    (7, 0.728571429)
    """
    spans = list(classes)
    if older_ma == younger_ma:
        for index, base, top in spans:
            if top < older_ma <= base or older_ma == top == 0:
                return index, 1.0
        return UNUSABLE, 0.0
    older_ma = min(older_ma, OLDEST_ROCK_MA)
    if older_ma <= younger_ma or not spans:
        return UNUSABLE, 0.0
    # Rounded, so that 40 of 80 Ma is exactly half in binary floating point too.
    fractions = [
        (round((min(older_ma, base) - max(younger_ma, top)) / (older_ma - younger_ma), 9), base, index)
        for index, base, top in spans
    ]
    fraction, _, index = max(fractions)
    return (index if fraction >= 0.5 else UNUSABLE), max(fraction, 0.0)
