"""Reading the codes and names of map units: the age and rock type that a code such as ``Qal``, ``γ4`` or ``J2x`` has.

A wrong reading is worse than none, so a code is read only where its symbols have one meaning on this map
(:mod:`gravmap.geology.code_conventions`) and nothing in it contradicts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace

from gravmap.geology.ages import is_age_name, parse_age
from gravmap.geology.code_conventions import (
    DIVISIONS,
    DOUBTFUL_SUFFIX,
    GRANITE_SUFFIX,
    METAMORPHIC_SUFFIX,
    PLUTON_SUFFIX,
    SURE_GRANITE_SUFFIX,
    Convention,
    Lexed,
    Span,
    convention_of,
    era_of,
    follow_each_other,
    french_reading,
    lex,
    plain_code,
    span_of,
    vocabulary,
)
from gravmap.geology.code_words import read_name
from gravmap.geology.legend import LOOSE, SEDIMENTARY, VOLCANIC, MapUnit

# Suffixes of Quaternary deposits by origin, as on Chinese, Russian and American maps.
_LOOSE_SUFFIX = re.compile(
    r"(?:al|pl|dl|el|eol|eo|gl|fgl|lgl|ml|pal|hal|del|col|ls|af|fp|a|f|l|c|t|g|m|y|o|d|u)(?:\+?(?:al|pl|dl|el|l))*[0-9]?"
)
_ERAS = {"Pz", "PZ", "Mz", "MZ"}
_SIGNS = {"^", "_", "*"}
_DIGRAPHS = frozenset({"Pt", "Pg", "Tr", "Cm"})
_SHORT_WORDS = {
    "No",
    "Nan",
    "Nil",
    "Non",
    "Not",
    "New",
    "Dam",
    "Dry",
    "Pit",
    "Oil",
    "Old",
    "Ore",
    "Sea",
    "Sky",
    "Tar",
    "Cut",
    "Jet",
    "Key",
    "Cay",
}
_ENOUGH_SYMBOLS = 4
_POSITION = {"u", "m", "l", "e"}
_GENESIS = {
    "a",
    "al",
    "d",
    "dl",
    "e",
    "el",
    "f",
    "fg",
    "fgl",
    "g",
    "gl",
    "h",
    "l",
    "lg",
    "m",
    "p",
    "pl",
    "pal",
    "v",
    "t",
}


@dataclass(frozen=True)
class Reading:
    """What a code means.

    Attributes
    ----------
    unit : MapUnit or None
        Age and rock type; None for water or ice.
    reason : str
        How it was read.
    """

    unit: MapUnit | None
    reason: str


def read_codes(codes: Iterable[str]) -> dict[str, Reading]:
    """Read the codes of one map.

    Parameters
    ----------
    codes : iterable of str
        All codes of the map: what a symbol means depends on the others.

    Returns
    -------
    dict of str to Reading
        Those that can be read.

    Examples
    --------
    >>> from gravmap.geology.code_reading import read_codes
    >>> found = read_codes(["Qal", "J2x", "γ4", "Variscan granite", "石炭系", "KJf", "xx"])
    >>> {code: (reading.unit.age_ma, reading.unit.rock) for code, reading in found.items()}["γ4"]
    ((419.2, 251.902), 'acid intrusive')
    >>> sorted(found)
    ['J2x', 'KJf', 'Qal', 'Variscan granite', 'γ4', '石炭系']
    """
    codes = list(codes)
    convention = convention_of(codes)
    by_symbols = {code: _symbols(code, convention) for code in codes}
    short = [code for code in codes if code and " " not in code and len(code) <= 8 and not _water(code)]
    # Where most codes cannot be read, they are abbreviations of another kind, such as those of a lexicon of formations.
    if "W" in by_symbols and by_symbols["W"] is None and sum(code.startswith("W") for code in codes) == 1:
        by_symbols["W"] = Reading(None, "water, if W is not the Archean")
    strict = sum(not _has_ages(code, convention) for code in short) > len(short) / 2
    few = convention.symbols < _ENOUGH_SYMBOLS
    found = {}
    for code in codes:
        refused = (strict and not _certain(code, convention)) or (few and _has_initial(code, convention))
        symbols = None if refused else by_symbols[code]
        reading = _water(code) or _name(code) or symbols or _words(code, convention)
        if reading is not None:
            found[code] = reading
    return found


def _has_ages(code: str, convention: Convention) -> bool:
    """Whether a code is made of symbols that have ages, or is one of rock letters, even if its rock is doubtful."""
    text = plain_code(code, convention.cyrillic)
    if convention.french and french_reading(text):
        return True
    found = _resolve(re.split(r",(?![0-9])", text)[0], convention)
    return found is not None and not _is_word(found) and (not found.symbols or bool(_ages(found, convention)))


def _has_initial(code: str, convention: Convention) -> bool:
    """Whether a code is a symbol and the initial of a formation: too little to go by where few symbols are seen."""
    found = lex(plain_code(code, convention.cyrillic), convention.without)
    if found is None or len(found.symbols) != 1 or found.digits[0] or found.greek:
        return False
    return bool(found.suffix) and not (found.symbols[0] == "Q" and _LOOSE_SUFFIX.fullmatch(found.suffix))


def _certain(code: str, convention: Convention) -> bool:
    """Whether a code is a single symbol, or has divisions or rock letters: no abbreviation of a name."""
    found = lex(plain_code(code, convention.cyrillic), convention.without)
    if found is None or code == "W":
        return False
    return bool(found.greek) or any(found.digits) or (len(found.symbols) == 1 and not found.suffix and not found.prefix)


def _water(code: str) -> Reading | None:
    """Water or ice, by the whole code; and artificial fill."""
    if code in ("af", "Qaf"):
        return Reading(MapUnit(span_of(["Holocene"]), LOOSE), "artificial fill")
    return Reading(None, "water or ice") if code.casefold() in vocabulary()["no_rock"]["words"] else None


def _name(code: str) -> Reading | None:
    return Reading(MapUnit(parse_age(code)), "by its name") if is_age_name(code) else None


def _symbols(code: str, convention: Convention) -> Reading | None:
    """A code of symbols; several after commas are read if they have one age and rock."""
    text = plain_code(code, convention.cyrillic)
    if convention.french and (french := french_reading(text)):
        name, span, loose = french
        return Reading(MapUnit(span, LOOSE if loose else SEDIMENTARY), f"read as {name}")
    parts = {_one(part, convention) for part in re.split(r",\s?(?![0-9 ])", text)}
    return parts.pop() if len(parts) == 1 else None


def _one(text: str, convention: Convention) -> Reading | None:
    code = _resolve(text, convention)
    if code is None:
        return None
    if not code.symbols:
        return _cycle(code)
    spans = _ages(code, convention)
    if not spans:
        return None
    # From the oldest base to the youngest top.
    age = max(span[0] for span in spans), min(span[1] for span in spans)
    rock = _rock(code, convention, age)
    if rock is None:
        return None
    names = "-".join(_symbol_name(symbol, convention) for symbol in code.symbols)
    return Reading(MapUnit(age, rock), f"read as {names}" + ("" if rock == SEDIMENTARY else f", {rock}"))


def _resolve(text: str, convention: Convention) -> Lexed | None:
    """Take a code apart as the map spells its symbols."""
    code = lex(text, convention.without)
    if code and len(code.symbols) > 1 and code.symbols[-1] in _DIGRAPHS and not _ages(code, convention):
        # CPte is Carboniferous-Permian, not Carboniferous-Proterozoic.
        code = lex(text, convention.without | _DIGRAPHS) or code
    if code and len(code.symbols) == 2 and code.digits[0] and not code.digits[1] and not _ages(code, convention):
        # Pt2Ch is a group of the Proterozoic.
        group = re.fullmatch(r"(.*[0-9])([A-Z][a-z]{1,2})", text)
        code = replace(code, symbols=code.symbols[:1], digits=code.digits[:1], joined=(), suffix="x") if group else code
    return None if code and "".join(code.symbols) in _SIGNS and not code.suffix else code


def _ages(code: Lexed, convention: Convention) -> list[Span]:
    """Ages of the symbols of a code; empty if one has none, or if they do not follow each other."""
    spans = []
    for symbol, digits in zip(code.symbols, code.digits, strict=True):
        if symbol not in convention.spans or not _valid_division(symbol, digits):
            return []
        spans.append(convention.spans[symbol])
    if len(spans) > 2:
        return []
    # NO is not Neogene-Ordovician: without a separator, ages follow each other, unless the map writes spans so.
    sure = any(code.joined) or (convention.pairs and any(len(symbol) > 1 for symbol in code.symbols))
    return spans if len(spans) == 1 or sure or follow_each_other(*spans) else []


def _symbol_name(symbol: str, convention: Convention) -> str:
    tables = [vocabulary()["symbol"].get(symbol), *vocabulary()["contextual"].get(symbol, {}).values()]
    entry = next((each for each in tables if each and span_of(each) == convention.spans[symbol]), None)
    return "-".join(str(part) for part in entry) if entry else symbol


def _valid_division(symbol: str, digits: str) -> bool:
    if not digits or digits[0] == "I":
        return True
    limit = DIVISIONS.get(symbol, 4)
    first, *more = re.split(r"[-,+]", digits)
    return 1 <= int(first[0]) <= limit and all(1 <= int(each) <= limit for each in more)


def _is_word(code: Lexed) -> bool:
    """Whether a code may be an English word: Sand is not Silurian, Dune not Devonian."""
    if len(code.symbols) != 1 or code.digits[0] or code.prefix or code.greek or not code.suffix.isalpha():
        return False
    word = code.symbols[0] + code.suffix
    if code.symbols[0] == "Q":
        return word.startswith("Qu") and len(word) > 3
    return word in _SHORT_WORDS or (len(code.suffix) > 2 and bool(set(code.suffix) & set("aeiouy")))


def _rock(code: Lexed, convention: Convention, age: Span) -> str | None:
    """Rock type of a code; None if it is not known and matters."""
    if _is_word(code):
        return None
    if code.greek:
        return None if code.prefix else _greek_rock(code.greek)
    cenozoic = age[0] <= 66.5
    if code.symbols[0] in ("Q", "Qh", "Qp") and len(code.symbols) == 1:
        if code.prefix and code.prefix not in _GENESIS and not all(each in _GENESIS for each in code.prefix):
            return None
        loose = bool(code.prefix) or _LOOSE_SUFFIX.fullmatch(code.suffix)
        return LOOSE if loose else SEDIMENTARY
    if code.prefix:
        if code.prefix == "gr" or (code.prefix == "g" and "g-" in convention.igneous):
            return "acid intrusive"
        if code.prefix == "v" and "g-" in convention.igneous:
            return VOLCANIC
        return SEDIMENTARY if code.prefix in _POSITION and not code.suffix[:1].isupper() else None
    if cenozoic or any(code.digits):  # cover, whatever its rock; after a division the letters are of a formation
        return SEDIMENTARY
    if SURE_GRANITE_SUFFIX.fullmatch(code.suffix):
        return "acid intrusive"
    if GRANITE_SUFFIX.fullmatch(code.suffix) and "-g" in convention.igneous:
        return "acid intrusive"
    if code.suffix[:1] == "g" and "-g+" in convention.igneous:
        return "acid intrusive"
    if code.suffix == "i" and "-i" in convention.igneous:
        return "intrusive"
    if METAMORPHIC_SUFFIX.fullmatch(code.suffix) or code.suffix.endswith("gn"):  # by its age
        return SEDIMENTARY
    if era_of(age[0]) in convention.plutonic and (marked := PLUTON_SUFFIX.fullmatch(code.suffix)):
        return "acid intrusive" if marked[0] == "g" else "intrusive"
    if DOUBTFUL_SUFFIX.fullmatch(code.suffix) and not (code.suffix == "u" and code.symbols[-1] in _ERAS):
        return None
    if code.suffix and era_of(age[0]) in convention.eras:
        return None
    return SEDIMENTARY


def _greek_rock(letters: str) -> str | None:
    kinds = vocabulary()["greek"]
    if any(letter in kinds["ultra"] for letter in letters):
        return "ultrabasic"
    if any(letter in kinds["acid"] for letter in letters):
        return "acid intrusive"
    if any(letter in kinds["basic"] for letter in letters):
        return "basic intrusive"
    if all(letter in kinds["intermediate"] for letter in letters):
        return "intrusive"
    return VOLCANIC if all(letter in kinds["volcanic"] for letter in letters) else None


def _cycle(code: Lexed) -> Reading | None:
    """Greek letters alone, or with a tectonic cycle: γ, γ4, γ52."""
    rock = _greek_rock(code.greek)
    digits = code.digits[0]
    if rock is None or rock == VOLCANIC:
        return None
    if not digits:
        return Reading(MapUnit(None, rock), f"read as {rock} of unknown age")
    return Reading(
        MapUnit(span_of(vocabulary()["cycle"][digits[0]]), rock),
        f"read as {rock} of the cycle {'-'.join(vocabulary()['cycle'][digits[0]])}",
    )


def _words(code: str, convention: Convention) -> Reading | None:
    """A name such as "Variscan granite", "Quaternary alluvium", 石炭系 or "меловая система"."""
    unit = read_name(code)
    if unit is None and any("一" <= letter <= "鿿" for letter in code):  # 迁西群(Ar): the symbol beside the name
        parts = re.findall(r"[A-Za-z∈Є0-9+-]+", unicodedata.normalize("NFKC", code))
        units = [each.unit for part in parts if (each := _one(plain_code(part, False), convention))]
        unit = units[0] if len(units) == 1 else None
    if unit is None:
        return None
    return Reading(unit, "by its words" + ("" if unit.rock == SEDIMENTARY else f", {unit.rock}"))
