"""Reading the names of map units in English, Chinese and Russian: their age and rock type."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from gravmap.geology.ages import is_age_name, parse_age
from gravmap.geology.code_conventions import Span, age_names, span_of, vocabulary
from gravmap.geology.legend import INTRUSIVE, LOOSE, SEDIMENTARY, VOLCANIC, MapUnit

# Words that turn an age into another: older than, younger than.
_RELATIVE = re.compile(
    r"\b(?:pre|post|sub|non|infra)-|\b(?:pre|post|infra)(?!cambrian)[a-z]{4,}(?:ian|ic|ous|ary|ene)\b"
    r"|\b(?:older|younger) than\b|\b(?:under|over)l(?:ying|ies|ain)\b|\bдо(?!кембр)[а-я]+(?:ич|ск|ов|овн|озой)|\bпосле"
    r"|前(?!寒武)|上覆|下伏",
    re.IGNORECASE,
)
_MOST_WORDS = 14
_PART_WORDS = {
    "lower": "lower",
    "early": "lower",
    "middle": "middle",
    "mid": "middle",
    "upper": "upper",
    "late": "upper",
}
_CHINESE_PART = {"上": "upper", "晚": "upper", "中": "middle", "下": "lower", "早": "lower"}
_RUSSIAN_PART = {"верхн": "upper", "поздн": "upper", "средн": "middle", "нижн": "lower", "ранн": "lower"}


def read_name(name: str) -> MapUnit | None:
    """Age and rock type of a name of a unit; None if it names neither an age nor a rock that has a class without one.

    Parameters
    ----------
    name : str
        Such as ``"Variscan granite"`` or ``"меловая система"``.

    Returns
    -------
    MapUnit or None
        None also if its words contradict each other, or turn the age into another (pre-Devonian).

    Examples
    --------
    >>> from gravmap.geology.code_words import read_name
    >>> read_name("Variscan granite")
    MapUnit(age_ma=(419.2, 251.902), rock='acid intrusive')
    >>> read_name("pre-Devonian rocks") is None
    True
    """
    text = re.sub(r"(?i)pre[- ]cambrian", "Precambrian", unicodedata.normalize("NFKC", name))
    chinese = any("一" <= letter <= "鿿" for letter in text)
    if (sum(letter.isalpha() for letter in text) < 4 and not chinese) or _RELATIVE.search(text):
        return None
    words = re.findall(r"[^\W\d_]+", text.casefold().replace("ё", "е"))
    if len(words) > _MOST_WORDS:
        return None
    ages = (_chinese_ages(text) if chinese else []) + _english_ages(text) + _russian_ages(words)
    age = (max(span[0] for span in ages), min(span[1] for span in ages)) if ages else None
    rock = _decide(_rock_words(text, words), age)
    if rock is None or (age is None and rock not in INTRUSIVE | {LOOSE}):
        return None
    return MapUnit(age, rock)


def _decide(rocks: set[str], age: Span | None) -> str | None:
    """One rock type for the rocks that a name has; None if they contradict each other."""
    cenozoic = age is not None and age[0] <= 66.5
    if LOOSE in rocks:
        if cenozoic or (age is None and rocks == {LOOSE}):
            return LOOSE
        if age is None:
            return None
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


@cache
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
        parts: list[str] = []
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
    words = [word for word in words if not word.startswith("карбонат")]
    epochs = [stem for word in words if (stem := next((each for each in stems if word.startswith(each)), None))]
    if "мел" in words and parts:
        epochs.append("мелов")
    for stem in epochs:
        span = span_of(vocabulary()["russian"][stem])
        found += [_with_part(span, part, names) for part in parts] if len(set(epochs)) == 1 and parts else [span]
    # "Neogene system, Pliocene": the part says more than the whole.
    return [
        span
        for span in found
        if not any(other != span and span[0] >= other[0] and span[1] <= other[1] for other in found)
    ]
