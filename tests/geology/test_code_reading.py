"""Codes and names of units as real maps write them, and what they are read as.

map_codes.csv lists codes of published maps with the age and rock type that the map's explanation gives: `half` says how
a map was used when the rules were written: to develop them, held out until they were written (with mistakes of the
program mended after), fresh (read later, and rules against wrong readings added), and a batholith, where most units
are plutons named by places.
"""

import csv
from collections import Counter
from pathlib import Path

import pytest

from gravmap.geology import load_legend
from gravmap.geology.ages import parse_age
from gravmap.geology.code_reading import read_codes
from gravmap.geology.code_words import read_name
from gravmap.geology.legend import MapUnit, class_of_unit

TABLES = [load_legend(name).classes for name in ("basement10", "bedrock10")]


def listed():
    maps = {}
    with (Path(__file__).parent / "map_codes.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            maps.setdefault((row["half"], row["map"]), []).append(row)
    return maps


def judge(row, reading):
    """Right if the unit has the class of the published one in both class tables, and the ages overlap."""
    if reading is None:
        return "set me"
    if row["rock"] in ("water", "unknown") or reading.unit is None:
        return "right" if row["rock"] == "water" and reading.unit is None else "wrong"
    published = MapUnit(parse_age(row["age"]) if row["age"] else None, row["rock"])
    if any(class_of_unit(reading.unit, table) != class_of_unit(published, table) for table in TABLES):
        return "wrong"
    one, other = reading.unit.age_ma, published.age_ma
    apart = one and other and min(one[0], other[0]) <= max(one[1], other[1])
    return "wrong" if apart else "right"


def count(*halves):
    found = Counter()
    for (half, _), rows in listed().items():
        if half in halves:
            readings = read_codes([row["code"] for row in rows])
            found.update(judge(row, readings.get(row["code"])) for row in rows)
    return found


def test_most_codes_of_published_maps_are_read_and_few_are_wrong():
    found = count("develop", "held out", "fresh")
    assert found.total() >= 600
    assert found["right"] >= 0.85 * found.total(), found
    assert found["wrong"] < 0.03 * found.total(), found


@pytest.mark.parametrize("half", ["develop", "held out", "fresh", "batholith"])
def test_a_wrong_reading_is_rarer_than_none_everywhere(half):
    found = count(half)
    assert found["wrong"] < 0.03 * found.total(), found


def test_the_list_is_of_many_countries_and_kinds():
    maps = listed()
    assert len(maps) >= 25
    rocks = Counter(row["rock"] for rows in maps.values() for row in rows)
    assert (
        min(rocks[rock] for rock in ("loose sediment", "volcanic", "acid intrusive", "basic intrusive", "water")) >= 4
    )
    assert max(len(rows) for rows in maps.values()) < 0.15 * rocks.total()
    assert all(row["source"] for rows in maps.values() for row in rows)


def spans(*codes):
    """The ages of codes of one map; None if a code is not read, and "" if it has no age."""
    found = read_codes(codes)
    return [None if code not in found else found[code].unit.age_ma or "" for code in codes]


CAMBRIAN, PERMIAN, CARBONIFEROUS = (538.8, 485.4), (298.9, 251.902), (358.9, 298.9)
TRIASSIC, JURASSIC, CRETACEOUS, TERTIARY = (251.902, 201.4), (201.4, 145), (145, 66), (66, 2.58)


@pytest.mark.parametrize(
    ("codes", "ages"),
    [
        # T: the Tertiary beside Q and K, the Triassic beside J and P or where the Tertiary is divided.
        (("T", "QT", "K", "J"), [TERTIARY]),
        (("T", "TrJ", "TrP", "K"), [TERTIARY]),
        (("T", "T-J", "K"), [TRIASSIC]),
        (("T", "N", "E", "K"), [TRIASSIC]),
        (("T2", "J", "K"), [TRIASSIC]),
        (("T", "K", "J"), [None]),
        (("T", "QT", "T-J"), [None]),  # contradict each other
        # P: the Paleogene of Russian maps is written P, too.
        (("P", "C", "D"), [PERMIAN]),
        (("P1", "K2-P1", "C1"), [None]),
        (("Pva", "QPs", "Mva", "Qal", "Kg"), [(5.333, 2.58)]),  # Pliocene
        # C: the Cambrian where it is next to the Ordovician.
        (("C", "D", "P"), [CARBONIFEROUS]),
        (("C", "OC", "OCs", "S"), [CAMBRIAN]),
        # E and Z.
        (("E2", "N1", "K", "T"), [(66, 23.03)]),
        (("E", "K", "J"), [None]),
        (("Z1", "Pt2", "∈1"), [(1000, 538.8)]),
        (("Z", "D", "K"), [None]),
        # Cyrillic letters: indices, or initials of Russian names.
        (("К", "Т", "Р", "С", "Ю"), [CRETACEOUS, TRIASSIC, PERMIAN, CARBONIFEROUS, JURASSIC]),
        (("К", "Т", "П", "С", "Ю", "Д"), [None, TRIASSIC, None, None, JURASSIC]),
        (("К1", "J2", "С2", "D3"), [CRETACEOUS, JURASSIC, CARBONIFEROUS]),
    ],
)
def test_the_other_codes_of_the_map_settle_what_a_symbol_means(codes, ages):
    assert spans(*codes)[: len(ages)] == ages


@pytest.mark.parametrize(
    ("code", "unit"),
    [
        ("Qal", MapUnit((2.58, 0), "loose sediment")),
        ("aQIII", MapUnit((2.58, 0), "loose sediment")),
        ("J2x", MapUnit(JURASSIC)),
        ("C1-2b", MapUnit(CARBONIFEROUS)),
        ("C1,2", MapUnit(CARBONIFEROUS)),
        ("∈-O", MapUnit((538.8, 443.8))),
        ("γ4", MapUnit((419.2, 251.902), "acid intrusive")),
        ("γ₅²", MapUnit((251.902, 66), "acid intrusive")),
        ("γδD3", MapUnit((419.2, 358.9), "acid intrusive")),
        ("νPt2", MapUnit((2500, 538.8), "basic intrusive")),
        ("K1ηγ", MapUnit(CRETACEOUS, "acid intrusive")),
        ("石炭系", MapUnit(CARBONIFEROUS)),
        ("侏罗系中统", MapUnit((174.7, 161.5))),
        ("Variscan granite", MapUnit((419.2, 251.902), "acid intrusive")),
        ("Quaternary alluvium", MapUnit((2.58, 0), "loose sediment")),
    ],
)
def test_what_geologists_write(code, unit):
    assert read_codes([code, "D3", "S1", "J2", "K1", "C1", "Pt1"])[code].unit == unit


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("Permo-Carboniferous", MapUnit((358.9, 251.902))),
        ("Pre-Cambrian gneiss", MapUnit((4567, 538.8))),
        ("Tillite (Permian)", MapUnit(PERMIAN)),  # no cover
        ("верхний карбон", MapUnit((323.2, 298.9))),
        ("граниты девонские", MapUnit((419.2, 358.9), "acid intrusive")),
        ("pre-Devonian basement", None),
        ("дочетвертичные отложения", None),
        ("前震旦系", None),
        ("карбонатные породы", None),  # carbonates, not the Carboniferous
        ("granitic conglomerate", None),
        ("Granite Creek alluvium", None),
        ("Archaean granitoid gneiss", None),
        ("Shale", None),
    ],
)
def test_names(name, unit):
    assert read_name(name) == unit


@pytest.mark.parametrize(
    "codes",
    [
        ("Sand", "Clay", "Rock", "None", "Urban", "Salt", "Karst"),  # words, not Silurian, Carboniferous ...
        ("ALV", "CK", "LC", "SSG", "MMG", "OXF", "GDU"),  # of a lexicon of formations
        ("su", "ss", "sm", "sc", "py", "va", "pi", "mt"),  # of a lithological map
        ("Cpx", "Q1"),
        ("NO", "CO", "K"),
    ],
)
def test_other_abbreviations_are_not_read(codes):
    assert not [code for code in read_codes(codes) if code not in ("Q1", "K")]


def test_letters_after_an_age_are_not_read_where_plutons_are_named_by_places():
    plutons = ("Kbl", "Khd", "Kg", "Jms", "Tb", "Qal", "Ts", "Tv")
    found = read_codes(plutons)
    assert "Kbl" not in found
    assert found["Jms"].unit.rock == "sedimentary"  # metasedimentary
    assert found["Kg"].unit.rock == "acid intrusive"
    marked = ("Kbl", "Kg", "Jg", "Xg", "Tb", "Qal", "Ts", "Tv")
    assert read_codes(marked)["Kbl"].unit == MapUnit(CRETACEOUS)


def test_water_is_told_from_the_archean():
    assert read_codes(["W", "Q", "Tv", "Xg", "Yg"])["W"].unit is None
    assert read_codes(["W", "Wgn", "Xg", "Yg"])["W"].unit.age_ma == (2800, 2500)
