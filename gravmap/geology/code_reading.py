"""Reading the codes and names of map units: the age and rock type that a code such as ``Qal``, ``γ4`` or ``J2x`` has.

A wrong reading is worse than none, so a code is read only where its symbols have one meaning on this map
(:mod:`gravmap.geology.code_conventions`) and nothing in it contradicts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from gravmap.geology.ages import is_age_name, parse_age
from gravmap.geology.code_conventions import (
    DIVISIONS,
    Convention,
    Lexed,
    Span,
    age_names,
    convention_of,
    french_reading,
    lex,
    plain_code,
    span_of,
    vocabulary,
)
from gravmap.geology.legend import INTRUSIVE, LOOSE, SEDIMENTARY, VOLCANIC, MapUnit

# Suffixes of Quaternary deposits by origin, as on Chinese, Russian and American maps.
_LOOSE_SUFFIX = re.compile(
    r"(?:al|pl|dl|el|eol|eo|gl|fgl|lgl|ml|pal|hal|del|col|ls|af|fp|a|f|l|c|t|g|m|y|o|d|u)(?:\+?(?:al|pl|dl|el|l))*[0-9]?"
)
# Lower-case letters for rocks after an age. Formations have letters, too: gr is granite nearly everywhere, a single g,
# d or i only where the map uses it so.
_GRANITE_SUFFIX = re.compile(r"gr[dm]?|b?gr|gd|grd|qm")
_DOUBTFUL_SUFFIX = re.compile(r"g.?|d|di|db|i.?|p|um|u|gb|gab|sp|um|qp|qv|fl|po|ap|dk")
_POSITION = {"u", "m", "l", "e"}
_GENESIS = {"a", "al", "d", "dl", "e", "el", "f", "fg", "fgl", "g", "gl", "h", "l", "lg", "m", "p", "pl", "pal", "v", "t"}


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
    found = {}
    for code in codes:
        reading = _water(code) or _name(code) or _symbols(code, convention) or _words(code, convention)
        if reading is not None:
            found[code] = reading
    return found


def _water(code: str) -> Reading | None:
    return Reading(None, "water or ice") if code.casefold() in vocabulary()["no_rock"]["words"] else None


def _name(code: str) -> Reading | None:
    return Reading(MapUnit(parse_age(code)), "by its name") if is_age_name(code) else None


def _symbols(code: str, convention: Convention) -> Reading | None:
    """A code of symbols; several after commas are read if they have one age and rock."""
    text = plain_code(code, convention.cyrillic)
    if convention.french and (french := french_reading(text)):
        name, span, loose = french
        return Reading(MapUnit(span, LOOSE if loose else SEDIMENTARY), f"read as {name}")
    parts = {_one(part, convention) for part in re.split(r",\s?", text)}
    return parts.pop() if len(parts) == 1 else None


def _one(text: str, convention: Convention) -> Reading | None:
    code = lex(text)
    if code is None:
        return None
    if not code.symbols:
        return _cycle(code)
    spans = []
    for symbol, digits in zip(code.symbols, code.digits, strict=True):
        if symbol not in convention.spans or not _valid_division(symbol, digits):
            return None
        spans.append(convention.spans[symbol])
    if not _follow(spans, code.joined):
        return None
    # From the oldest base to the youngest top.
    age = max(span[0] for span in spans), min(span[1] for span in spans)
    rock = _rock(code, convention, age)
    if rock is None:
        return None
    names = "-".join(_symbol_name(symbol, convention) for symbol in code.symbols)
    return Reading(MapUnit(age, rock), f"read as {names}" + ("" if rock == SEDIMENTARY else f", {rock}"))


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


def _follow(spans: list[Span], joined: tuple[bool, ...]) -> bool:
    """Whether ages without a separator between them follow each other in time, so that NO is not Neogene-Ordovician."""
    if len(spans) > 2:
        return False
    return all(
        separated or {first[0], second[0]} & {first[1], second[1]} or _within(first, second)
        for first, second, separated in zip(spans, spans[1:], joined, strict=False)
    )


def _within(first: Span, second: Span) -> bool:
    """Whether two ages overlap or leave a short gap, as the ends of spans of different charts do."""
    older, younger = max(first, second), min(first, second)
    return younger[0] - older[1] >= -0.5 and older != younger


def _rock(code: Lexed, convention: Convention, age: Span) -> str | None:
    """Rock type of a code; None if it cannot be told and matters."""
    if code.greek:
        return None if code.prefix else _greek_rock(code.greek)
    cenozoic = age[0] <= 66.5
    if code.symbols[0] in ("Q", "Qh", "Qp") and len(code.symbols) == 1:
        if code.prefix and code.prefix not in _GENESIS and not all(each in _GENESIS for each in code.prefix):
            return None
        loose = bool(code.prefix) or not code.suffix or _LOOSE_SUFFIX.fullmatch(code.suffix)
        return LOOSE if loose else SEDIMENTARY
    if code.prefix:
        if code.prefix == "gr" or (code.prefix == "g" and "prefix" in convention.granite):
            return "acid intrusive"
        if code.prefix == "v" and "prefix" in convention.granite:
            return VOLCANIC
        return SEDIMENTARY if code.prefix in _POSITION and not code.suffix[:1].isupper() else None
    if cenozoic or any(code.digits):  # cover, whatever its rock; after a division the letters are of a formation
        return SEDIMENTARY
    if _GRANITE_SUFFIX.fullmatch(code.suffix) or (code.suffix in ("g", "gm", "gg") and "suffix" in convention.granite):
        return "acid intrusive"
    if _DOUBTFUL_SUFFIX.fullmatch(code.suffix):
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


# Words that turn an age into another: older than, younger than.
_RELATIVE = re.compile(r"\b(?:pre|post|sub|non)[- ]?(?!cambrian)|доч|дочетв|\bпосле|\bдо(?!кембр)[а-я]*четверт|上覆|下伏", re.I)
_MOST_WORDS = 14
_PART_WORDS = {"lower": "lower", "early": "lower", "middle": "middle", "mid": "middle", "upper": "upper", "late": "upper"}
_CHINESE_PART = {"上": "upper", "晚": "upper", "中": "middle", "下": "lower", "早": "lower"}
_RUSSIAN_PART = {"верхн": "upper", "поздн": "upper", "средн": "middle", "нижн": "lower", "ранн": "lower"}


def _words(code: str, convention: Convention) -> Reading | None:
    """A name such as "Variscan granite", "Quaternary alluvium", 石炭系 or "меловая система"."""
    text = unicodedata.normalize("NFKC", code)
    letters = sum(letter.isalpha() for letter in text)
    chinese = any("一" <= letter <= "鿿" for letter in text)
    if letters < 4 and not chinese or _RELATIVE.search(text):
        return None
    words = re.findall(r"[^\W\d_]+", text.casefold().replace("ё", "е"))
    if len(words) > _MOST_WORDS:
        return None
    ages = (_chinese_ages(text) if chinese else []) + _english_ages(text) + _russian_ages(words)
    if chinese and not ages:
        ages = [reading.unit.age_ma for part in re.findall(r"[A-Za-z∈Є0-9+-]+", text)
                if (reading := _one(plain_code(part, False), convention)) and reading.unit and reading.unit.age_ma]  # fmt: skip
    age = (max(span[0] for span in ages), min(span[1] for span in ages)) if ages else None
    rocks = _rock_words(text, words)
    rock = _decide(rocks, age)
    if rock is None or (age is None and rock not in INTRUSIVE | {LOOSE}):
        return None
    named = "its words" if age is None else "its words"
    return Reading(MapUnit(age, rock), f"by {named}" + ("" if rock == SEDIMENTARY else f", {rock}"))


def _decide(rocks: set[str], age: Span | None) -> str | None:
    """One rock type for the rocks that a name has; None if they contradict each other."""
    cenozoic = age is not None and age[0] <= 66.5
    if LOOSE in rocks:
        if cenozoic or (age is None and rocks == {LOOSE}):
            return LOOSE
        rocks = rocks - {LOOSE}
    intrusive = rocks & INTRUSIVE
    if not intrusive:
        return VOLCANIC if rocks == {VOLCANIC} else SEDIMENTARY
    if rocks - INTRUSIVE:
        return SEDIMENTARY if cenozoic else None
    if intrusive > {"intrusive"}:
        intrusive = intrusive - {"intrusive"}
    return intrusive.pop() if len(intrusive) == 1 else "intrusive" if "basic intrusive" not in intrusive else None


def _rock_words(text: str, words: list[str]) -> set[str]:
    found = set()
    for rock, stems in vocabulary()["rock"].items():
        for stem in stems:
            if ("一" <= stem[0] <= "鿿" and stem in text) or any(word.startswith(stem) for word in words):
                found.add(rock)
    if "花岗片麻岩" in text:
        found.add(SEDIMENTARY)
    return found


def _with_part(name: Span, part: str, names: dict[str, Span]) -> Span:
    """The part of an age; the whole where the chart has no such part."""
    whole = next((known for known, span in names.items() if span == name and " " not in known), "")
    return names.get(f"{part} {whole}", name) if part else name


def _parts() -> dict[str, Span]:
    known = dict(age_names())
    for part in ("lower", "middle", "upper"):
        for name in ("cretaceous", "jurassic", "triassic", "permian", "carboniferous", "devonian", "silurian",
                     "ordovician", "cambrian", "paleozoic", "proterozoic", "pleistocene"):  # fmt: skip
            if is_age_name(f"{part} {name}"):
                known[f"{part} {name}"] = parse_age(f"{part} {name}")
    return known


def _english_ages(text: str) -> list[Span]:
    """Ages named in a text, each with the part before it."""
    names = _parts()
    words = [_PART_WORDS.get(word, word) for word in re.findall(r"[a-z]+", text.casefold().replace("ae", "e"))]
    found: list[Span] = []
    for position, word in enumerate(words):
        if word == "tertiary":
            found.append(span_of(["Paleogene", "Neogene"]))
            continue
        if word not in names:
            continue
        parts = []
        before = position - 1
        while before >= 0 and (words[before] in _PART_WORDS.values() or (parts and words[before] in ("to", "and"))):
            if words[before] in _PART_WORDS.values():
                parts.append(words[before])
            before -= 1
        found += [_with_part(names[word], part, names) for part in parts] or [names[word]]
    return found


def _chinese_ages(text: str) -> list[Span]:
    names = _parts()
    found: list[Span] = []
    pattern = re.compile("|".join(sorted(vocabulary()["chinese"], key=len, reverse=True)))
    for match in pattern.finditer(text):
        span = span_of(vocabulary()["chinese"][match[0]])
        part = _CHINESE_PART.get(text[match.start() - 1 : match.start()], "")
        after = re.match(r"[系纪]?([上中下])统", text[match.end() :])
        part = _CHINESE_PART[after[1]] if after else part
        found.append(_with_part(span, part, names))
    return found


def _russian_ages(words: list[str]) -> list[Span]:
    names = _parts()
    stems = sorted(vocabulary()["russian"], key=len, reverse=True)
    found: list[Span] = []
    parts = {part for word in words for stem, part in _RUSSIAN_PART.items() if word.startswith(stem) and len(word) < 9}
    epochs = [stem for word in words if (stem := next((each for each in stems if word.startswith(each)), None))]
    if "мел" in words and parts:
        epochs.append("мелов")
    for stem in epochs:
        span = span_of(vocabulary()["russian"][stem])
        found += [_with_part(span, part, names) for part in parts] if len(set(epochs)) == 1 and parts else [span]
    # "Neogene system, Pliocene": the part says more than the whole.
    return [span for span in found if not any(other != span and span[0] >= other[0] and span[1] <= other[1] for other in found)]
