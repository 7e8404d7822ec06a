"""Which convention the codes of a map follow: symbols such as T or P mean different ages on different maps.

All codes of the map are looked at together. A symbol with several meanings gets the one that the other codes support: T
next to Q or K (``QT``, ``TK``) is the Tertiary, next to J or P (``TrJ``) the Triassic. Where nothing settles it, or
two codes contradict each other, it has no meaning and codes with it are not read.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from gravmap.geology.ages import ics_chart, normalize_age_name, parse_age
from gravmap.records import parse_record

Span = tuple[float, float]

# Letters that look alike in Cyrillic and Latin; indices of Russian maps are Latin letters, often typed in Cyrillic.
_LOOK_ALIKE = str.maketrans("АВЕКМНОРСТХ", "ABEKMHOPCTX")
# Cyrillic letters without a Latin twin: initials of the Russian names.
_CYRILLIC = {"Ю": "J", "Д": "D"}
_CAMBRIAN = str.maketrans(dict.fromkeys("∈Є€Ꞓ", "Cm"))
_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—−", "-"))
_GREEK = re.compile(r"[α-ωΣΨ]+")
_DIVISION = re.compile(r"[0-9]{1,2}(?:[-+,][0-9])?")
_ROMAN = re.compile(r"(?:I{1,3}|IV)(?:-(?:I{1,3}|IV))?(?![A-Za-z]*[A-Z])")
_SUFFIX = re.compile(r"[a-z][a-z0-9+/'_]{0,5}")
_FRENCH = re.compile(r"([a-z])([A-Z]?)[0-9](?:-[0-9])?[a-zA-Z]?(?:_?[A-Z]{1,2})?")
_FRENCH_SURFICIAL = re.compile(r"(?:[A-Z]{1,2})[u-z]{1,2}(?:, ?[A-Z]{1,2}[u-z]{1,2})*")
DIVISIONS = {
    "Q": 4,
    "N": 2,
    "Pg": 3,
    "E": 3,
    "K": 2,
    "Cr": 2,
    "J": 3,
    "T": 3,
    "Tr": 3,
    "TR": 3,
    "P": 3,
    "C": 3,
    "D": 3,
    "S": 4,
    "O": 3,
}
# Symbols of two letters, and those next to them in time.
_NEIGHBOURS = {"Tr": "J P", "Pg": "K N Q", "Pt": "A Ar Cm Pz PZ Z", "Cm": "O Pt Z", "Ng": "Pg Q", "Ar": "Pt PR"}
_REGIONAL = ("Ch", "Jx", "Qn", "Qb", "Nh", "Cr")


# Lower-case letters for rocks after an age. Formations have letters, too: gr is granite nearly everywhere, g only where
# the map uses it with several ages; of the others the meaning stays open.
GRANITE_SUFFIX = re.compile(r"[lmu]?g|gm|gg")
SURE_GRANITE_SUFFIX = re.compile(r"gr[dm]?|b?gr|gd|qm")
DOUBTFUL_SUFFIX = re.compile(r"g.*|.+g|d|.+d|d[ib]|i|[lu]i|p|um|u|gab|sp|q[pv]|fl|po|ap|dk")

PLUTON_SUFFIX = re.compile(r"g|[hpq]d")
METAMORPHIC_SUFFIX = re.compile(r"m[svm]|sch|gn")
_IGNEOUS_SUFFIX = re.compile(r"g|gg|b?gr[dm]?|[a-z]?gd|[hpq]d|qm|di|db|gb")


@cache
def vocabulary() -> dict[str, Any]:
    """The tables of map_codes.toml."""
    text = resources.files("gravmap.geology").joinpath("map_codes.toml").read_text(encoding="utf-8")
    return parse_record(text, dict[str, Any], "map_codes.toml", toml=True)


def span_of(entry: Sequence[Any]) -> Span:
    """Older and younger end of an entry of map_codes.toml: [base, top] in Ma, or one or two names of the chart."""
    if not isinstance(entry[0], str):
        return float(entry[0]), float(entry[1])
    spans = [parse_age(name) for name in entry]
    return max(span[0] for span in spans), min(span[1] for span in spans)


@dataclass(frozen=True)
class Lexed:
    """A code taken apart, before its symbols have a meaning.

    Attributes
    ----------
    symbols : tuple of str
        Symbols of ages in their order.
    digits : tuple of str
        Division of each symbol; empty if none.
    joined : tuple of bool
        Whether a separator stands between a symbol and the next.
    prefix, suffix : str
        Lower-case letters before and after.
    greek : str
        Greek letters of rocks.
    """

    symbols: tuple[str, ...]
    digits: tuple[str, ...]
    joined: tuple[bool, ...] = ()
    prefix: str = ""
    suffix: str = ""
    greek: str = ""

    @property
    def pairs(self) -> set[frozenset[str]]:
        """Neighbours, without regard to order."""
        return {frozenset(pair) for pair in zip(self.symbols, self.symbols[1:], strict=False)}


@cache
def _symbols(without: frozenset[str]) -> re.Pattern[str]:
    names = {*vocabulary()["symbol"], *vocabulary()["contextual"]} - without
    ordered = sorted(names, key=len, reverse=True)
    # Pgr and Pgd may be granites of the Permian: neither Pg nor P is read. PTr is Permian-Triassic.
    return re.compile(
        "(?!Pg[rd])(?:" + "|".join("PT(?!r)" if name == "PT" else re.escape(name) for name in ordered) + ")"
    )


def plain_code(code: str, cyrillic: bool) -> str:
    """A code in Latin letters, with subscripts and superscripts as digits."""
    text = unicodedata.normalize("NFKC", code).strip().translate(_CAMBRIAN).translate(_DASHES).rstrip("?")
    text = text.replace("₽", "Pg")
    if not cyrillic:
        return text.translate(_LOOK_ALIKE)
    return "".join(_CYRILLIC.get(letter, letter) for letter in text).translate(_LOOK_ALIKE)


def lex(text: str, without: frozenset[str] = frozenset()) -> Lexed | None:
    """Take a code apart; None if it is not made of symbols. `without`: symbols that are none on this map."""
    pattern = _symbols(without)
    if not text or len(text) > 14 or " " in text:
        return None
    rest, greek, prefix = text, "", ""
    if found := _GREEK.match(rest):
        greek, rest = found[0], rest[found.end() :]
        if found := re.match(r"[a-z]{1,2}(?=[A-Z])", rest):  # texture of the rock: m, mp
            rest = rest[found.end() :]
    elif not rest.startswith(("pC", "pCm")) and (found := re.match(r"[a-z]{1,3}(?=[A-Z])", rest)):
        prefix, rest = found[0], rest[found.end() :]
    symbols: list[str] = []
    digits: list[str] = []
    joined: list[bool] = []
    while found := pattern.match(rest):
        symbols.append(found[0])
        rest = rest[found.end() :]
        division = ""
        if found := (_ROMAN if symbols[-1] == "Q" else _DIVISION).match(rest) or _DIVISION.match(rest):
            division, rest = found[0], rest[found.end() :]
        digits.append(division)
        separator = bool(rest) and rest[0] in "-+/" and bool(pattern.match(rest[1:]))
        if separator:
            rest = rest[1:]
        joined.append(separator)
    if found := _GREEK.match(rest):
        if greek:
            return None
        greek, rest = found[0], rest[found.end() :]
    if not symbols:
        return Lexed((), (rest,), greek=greek) if greek and re.fullmatch(r"(?:[1-6][0-9]{0,2})?", rest) else None
    if rest and not _SUFFIX.fullmatch(rest):
        return None
    return Lexed(tuple(symbols), tuple(digits), tuple(joined[:-1]), prefix, rest, greek)


@dataclass(frozen=True)
class Convention:
    """What the symbols of one map mean.

    Attributes
    ----------
    spans : dict of str to (float, float)
        Age of each symbol that has one.
    symbols : int
        Number of different symbols.
    french : bool
        Whether lower-case letters with digits are systems, as on French maps.
    cyrillic : bool
        Whether Cyrillic letters are symbols of systems.
    igneous : frozenset of str
        Lower-case letters that stand for igneous rocks here: prefixes ``g-``, suffixes ``-g`` and ``-i``.
    pairs : bool
        Whether the map joins symbols for spans of time (``KJ``, ``TrP``), so that they need not be neighbours.
    eras : frozenset of str
        Eras with intrusions that are named by places: a letter after an age may stand for a pluton.
    plutonic : frozenset of str
        Those of them in which several codes end in letters of plutonic rocks.
    without : frozenset of str
        Symbols of two letters that are none here, such as ``Qb``: then it is Q and the letter of a formation.
    """

    spans: dict[str, Span]
    symbols: int = 0
    french: bool = False
    cyrillic: bool = False
    igneous: frozenset[str] = field(default_factory=frozenset)
    pairs: bool = False
    eras: frozenset[str] = field(default_factory=frozenset)
    plutonic: frozenset[str] = field(default_factory=frozenset)
    without: frozenset[str] = field(default_factory=frozenset)


def convention_of(codes: Iterable[str]) -> Convention:
    """Find the convention of a map from all of its codes."""
    codes = list(codes)
    letters = {letter for code in codes if len(code) <= 8 for letter in code}
    cyrillic = bool(letters & {"Ю", "Д"})
    texts = [plain_code(code, cyrillic) for code in codes]
    lexed = [found for text in texts if (found := lex(text))]
    matches = [match for text in texts if (match := _FRENCH.fullmatch(text))]
    french = len({match[1] for match in matches if match[1] in vocabulary()["french"]}) >= 2 and len(matches) > len(
        [code for code in lexed if code.symbols and any(code.digits)]
    )
    spans = {name: span_of(entry) for name, entry in vocabulary()["symbol"].items()}
    evidence = _Evidence(lexed, any("一" <= letter <= "鿿" for code in codes for letter in code))
    meanings = evidence.meanings()
    if cyrillic:
        meanings["T"] = meanings["T"] or "triassic"
        if "Р" not in letters or letters & {"П", "М"}:
            # Р (for P) shows that the letters are those of the Latin indices, П and М that they are initials: then К is
            # the Carboniferous (карбон) and С the Silurian.
            meanings["K"] = meanings["C"] = ""
    for name, meaning in meanings.items():
        if meaning:
            spans[name] = span_of(vocabulary()["contextual"][name][meaning])
        else:
            spans.pop(name, None)
    without = frozenset(name for name in _REGIONAL if not meanings.get(name) and not evidence.asian)
    # Where P has the letters of formations, Pg is the Permian and a letter, too.
    without |= {name for name in ("Pg", "Pt", "Cm") if meanings.get(name) == ""}
    relexed = [found for text in texts if (found := lex(text, without))]
    ages = {
        "g-": {code.symbols for code in lexed if code.prefix == "g"},
        "-g": {code.symbols for code in relexed if GRANITE_SUFFIX.fullmatch(code.suffix)},
        "-g+": {
            code.symbols for code in relexed if code.suffix[:1] == "g" and not GRANITE_SUFFIX.fullmatch(code.suffix)
        },
        "-i": {code.symbols for code in lexed if code.suffix == "i"},
    }
    igneous = frozenset(where for where, found in ages.items() if len(found) >= (2 if where == "g-" else 3))
    joined = {code.symbols for code in relexed if len(code.symbols) == 2 and not any(code.joined)}
    pairs = sum(_neighbours([spans.get(symbol) for symbol in symbols]) for symbols in joined) >= 3
    signs = Counter() if igneous else _signs_of_plutons(relexed, spans)
    eras, plutonic = (frozenset(era for era, count in signs.items() if count >= least) for least in (2, 4))
    return Convention(spans, len(evidence.singles), french, cyrillic, igneous, pairs, eras, plutonic, without)


def _signs_of_plutons(lexed: Sequence[Lexed], spans: dict[str, Span]) -> Counter[str]:
    """Signs of intrusions, by era, that the map does not mark in one way: 2 for each that is marked, 1 for gneiss."""
    signs: Counter[str] = Counter()
    for code in lexed:
        era = era_of(max((spans.get(symbol, (0.0, 0.0))[0] for symbol in code.symbols), default=0.0))
        if era and not any(code.digits):
            marked = _IGNEOUS_SUFFIX.fullmatch(code.suffix)
            signs[era] += 2 if marked else bool(METAMORPHIC_SUFFIX.fullmatch(code.suffix))
    return signs


def _neighbours(spans: Sequence[Span | None]) -> bool:
    first, second = spans
    return bool(first and second and follow_each_other(first, second))


def follow_each_other(first: Span, second: Span) -> bool:
    """Whether two ages are neighbours or overlap; ends of different charts may be 0.5 Ma apart."""
    older, younger = max(first, second), min(first, second)
    return first != second and younger[0] - older[1] >= -0.5


def era_of(base_ma: float) -> str:
    """Paleozoic, Mesozoic, or another era, of a base in Ma."""
    return "Paleozoic" if 252 < base_ma < 539 else "Mesozoic" if 66.5 < base_ma <= 252 else ""


class _Evidence:
    """What the codes of a map say about the symbols with several meanings."""

    def __init__(self, lexed: Sequence[Lexed], chinese: bool) -> None:
        self.lexed = lexed
        self.singles = {symbol for code in lexed for symbol in code.symbols}
        self.pairs = {pair for code in lexed for pair in code.pairs}
        self.numbered = {
            symbol for code in lexed for symbol, digit in zip(code.symbols, code.digits, strict=False) if digit
        }
        self.chinese = chinese
        self.asian = chinese or bool(self.singles & {"Cm", "Z"} and self.singles & {"Pt", "Ar"})

    def beside(self, symbol: str, others: str) -> bool:
        """Whether a symbol has one of the others as neighbour somewhere."""
        return any(frozenset((symbol, other)) in self.pairs for other in others.split())

    def with_suffix(self, symbol: str) -> int:
        """Number of codes that are a symbol and a suffix, without division."""
        return sum(code.symbols == (symbol,) and not code.digits[0] and bool(code.suffix) for code in self.lexed)

    def spelled(self, digraph: str) -> bool:
        """Whether a symbol of two letters is one, and not a letter with the initial of a formation: Tr, Pt, Pg."""
        own = any(digraph in code.symbols and any(code.digits) for code in self.lexed)
        return own or self.beside(digraph, _NEIGHBOURS[digraph]) or self.with_suffix(digraph[0]) < 3

    def meanings(self) -> dict[str, str]:
        """Meaning of each symbol of `contextual`, and of digraphs that are not one here; empty if it has none."""
        found = dict.fromkeys(vocabulary()["contextual"], "")
        for digraph in _NEIGHBOURS:
            if digraph in self.singles and not self.spelled(digraph):
                found[digraph] = ""
        triassic_is_tr = bool(self.singles & {"Tr", "TR"}) and "Tr" not in found
        split_tertiary = "N" in self.singles  # a map that divides the Tertiary does not use its letter
        riphean = "R" in self.numbered or "RF" in self.singles
        triassic_is_r = not riphean and not triassic_is_tr and self.with_suffix("R") >= 3 and "P" in self.singles
        if riphean or triassic_is_r:
            found["R"] = "riphean" if riphean else "triassic"
        found["T"] = self._tertiary_or_triassic(triassic_is_tr or triassic_is_r, split_tertiary)
        found["P"] = self._permian_or_pliocene()
        found["C"] = self._carboniferous_or_cambrian()
        american = len(self.singles & set("WXYZ")) >= 2
        if american or (self.singles & {"Pt", "Ar", "Cm", "PR"} and "Y" not in self.singles):
            found["Z"] = "proterozoic"
        if american:
            found["X"] = found["Y"] = "proterozoic"
            found["W"] = "archean" if self.with_suffix("W") else ""
        bare = {code.symbols for code in self.lexed if not code.suffix and not code.prefix}
        paleogene = "E" in self.numbered or self.chinese or self.beside("E", "N") or {("E",), ("N",)} <= bare
        if paleogene and "N" in self.singles:
            found["E"] = "" if "Pg" in self.singles else "paleogene"
        elif self.beside("E", "O") and not ("Cm" in self.singles and "Cm" not in found):
            found["E"] = "cambrian"
        cenozoic = self.singles & {"N", "T"} and found["P"] != "pliocene"
        if self.with_suffix("M") >= 2 and cenozoic and self.singles & {"P", "D"} and "C" not in self.singles:
            found["M"] = "mississippian"
        elif self.beside("M", "D P"):
            found["M"] = "miocene" if found["P"] == "pliocene" else "mississippian"
        elif found["P"] == "pliocene":
            found["M"] = "miocene"
        if self.singles & {"Pt", "pCm", "pC"} and not self.singles & {"Ar", "AR"}:
            found["A"] = "archean"
        if riphean or self.beside("V", "R RF Cm"):
            found["V"] = "vendian"
        north_china = self.singles & {"Ch", "Jx", "Qn", "Qb", "Nh"}
        if len(north_china) >= 2 and self.asian:
            words = vocabulary()["contextual"]
            found |= {name: next(iter(words[name])) for name in north_china}
        if "Cr" in self.numbered and "K" not in self.singles:
            found["Cr"] = "cretaceous"
        return found

    def _tertiary_or_triassic(self, triassic_elsewhere: bool, split_tertiary: bool) -> str:
        if triassic_elsewhere:
            return "tertiary"
        tertiary = self.beside("T", "Q Qp Qh K N Pg E MZ Mz")
        triassic = self.beside("T", "J P") or ("T" in self.numbered) or split_tertiary
        if not triassic and self.with_suffix("T") >= 3 and not self.singles & {"N", "E", "Pg", "Ng"}:
            tertiary = True
        if tertiary == triassic:
            return ""
        return "tertiary" if tertiary else "triassic"

    def _permian_or_pliocene(self) -> str:
        permian = self.beside("P", "C D T Tr R")
        if self.beside("P", "Q"):
            return "" if permian else "pliocene"
        paleogene = any(  # of Russian maps: K2-P1
            code.pairs & {frozenset("PK"), frozenset("PN")} and (any(code.digits) or any(code.joined))
            for code in self.lexed
        )
        if paleogene:
            return ""
        return "permian"

    def _carboniferous_or_cambrian(self) -> str:
        # Two codes at least: CO alone may be an abbreviation.
        cambrian = sum(bool(code.pairs & {frozenset("CO"), frozenset("CZ")}) for code in self.lexed) >= 2
        carboniferous = self.beside("C", "D P") or bool(self.singles & {"Cm"}) or "C" in self.numbered
        if cambrian and not carboniferous:
            return "cambrian"
        american = self.singles & {"M"} and len(self.singles & set("WXYZ")) >= 2
        return "" if cambrian or (american and not carboniferous) else "carboniferous"


def french_reading(text: str) -> tuple[str, Span, bool] | None:
    """Name, age and whether it is loose sediment, of a code of French maps; None if it is none."""
    if _FRENCH_SURFICIAL.fullmatch(text):
        return "surficial, on French maps", span_of(["Quaternary"]), True
    found = _FRENCH.fullmatch(text)
    entry = vocabulary()["french"].get(found[1]) if found else None
    return ("-".join(entry) + ", on French maps", span_of(entry), False) if entry else None


@cache
def age_names() -> dict[str, Span]:
    """Names of ages in English, normalised: those of the chart and those of map_codes.toml."""
    found = {normalize_age_name(unit.name): (unit.older_ma, unit.younger_ma) for unit in ics_chart()}
    return found | {name: span_of(entry) for name, entry in vocabulary()["name"].items()}
