"""Ages against the chart's own structure, and the rule for mixed ages against the spans of the shipped crosswalks."""

import csv
from itertools import pairwise
from pathlib import Path

import pytest

from gravmap.classes import CLASS_TABLES
from gravmap.geology import load_legend
from gravmap.geology.ages import UnknownAge, class_of_span, ics_chart, is_age_name, normalize_age_name, parse_age
from gravmap.geology.legend import INTRUSIVE, MapUnit, replace_field
from gravmap.geology.reclassify import with_classes

CROSSWALK = Path(__file__).resolve().parents[3] / "shared" / "data" / "geology_crosswalk.csv"
PERIODS = [(entry.index, *entry.span_ma) for entry in load_legend("bedrock10").classes if entry.span_ma]


def of_rank(*ranks):
    return sorted((unit for unit in ics_chart() if unit.rank in ranks), key=lambda unit: unit.younger_ma)


@pytest.mark.parametrize(
    ("ranks", "base"),
    [(("eon",), 4567), (("era",), 4031), (("period",), 2500), (("epoch",), 538.8), (("stage",), 538.8)],
)
def test_a_rank_tiles_time_without_holes(ranks, base):
    units = of_rank(*ranks)
    assert units[0].younger_ma == 0
    assert units[-1].older_ma == base
    for younger, older in pairwise(units):
        assert younger.older_ma == older.younger_ma, (younger.name, older.name)


def test_a_rank_divides_the_one_above():
    """Every boundary of eons is one of eras, of eras one of periods, and so on down to stages."""
    ranks = ["eon", "era", "period", "epoch", "stage"]
    for above, below in pairwise(ranks):
        deepest = of_rank(below)[-1].older_ma
        edges = {unit.younger_ma for unit in of_rank(below)} | {deepest}
        assert {unit.younger_ma for unit in of_rank(above) if unit.younger_ma <= deepest} <= edges
    assert len(of_rank("stage")) == 102
    assert len(of_rank("period")) == 22


@pytest.mark.parametrize(
    ("name", "older", "younger"),
    [
        # Read off the printed chart 2023/09, one of each rank and the numbers that other versions have otherwise.
        ("Hadean", 4567, 4031),
        ("Neoproterozoic", 1000, 538.8),
        ("Ediacaran", 635, 538.8),
        ("Cambrian", 538.8, 485.4),  # 486.85 in 2024/12
        ("Silurian", 443.8, 419.2),  # 443.1-419.62 in 2024/12
        ("Mississippian", 358.9, 323.2),
        ("Upper Devonian", 382.7, 358.9),
        ("Hettangian", 201.4, 199.5),
        ("Burdigalian", 20.44, 15.98),
        ("Holocene", 0.0117, 0),
    ],
)
def test_units_are_those_of_the_chart(name, older, younger):
    unit = next(unit for unit in ics_chart() if unit.name == name)
    assert (unit.older_ma, unit.younger_ma) == (older, younger)
    assert unit.uri == "http://resource.geosciml.org/classifier/ics/ischart/" + name.replace(" ", "")
    assert parse_age(unit.uri) == (older, younger)


def test_the_class_table_has_the_chart_s_ages_under_their_uris():
    chart = {unit.uri: (unit.older_ma, unit.younger_ma) for unit in ics_chart()}
    lithology = "http://resource.geosciml.org/classifier/cgi/lithology/"
    for name in CLASS_TABLES:
        for entry in load_legend(name).classes:
            assert entry.rank
            if entry.span_ma is None:
                assert set(entry.rocks) <= INTRUSIVE
                assert entry.uri in (f"{lithology}granitoid", f"{lithology}gabbroic_rock")
            elif entry.name == "Meso-Cenozoic cover":  # no unit of the chart
                assert entry.span_ma == (parse_age("Mesozoic")[0], 0)
            else:
                assert chart[entry.uri] == entry.span_ma


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("Late Devonian", (382.7, 358.9)),
        ("UPPER  DEVONIAN", (382.7, 358.9)),
        ("Upper\u00a0Devonian", (382.7, 358.9)),  # a non-breaking space
        ("Upper Devonian Series", (382.7, 358.9)),
        ("mid-Devonian", (393.3, 382.7)),
        ("Devonian\u2013Carboniferous", (419.2, 298.9)),  # an en dash
        ("Carboniferous-Devonian", (419.2, 298.9)),
        ("Devonian to Permian", (419.2, 251.902)),
        ("Early and Middle Jurassic", (201.4, 161.5)),
        ("Lower-Middle Devonian", (419.2, 382.7)),
        ("Late Permian to Early Triassic", (259.51, 247.2)),
        ("Early Carboniferous", (358.9, 323.2)),
        ("Early Permian", (298.9, 273.01)),
        ("Lower Paleozoic", (538.8, 419.2)),
        ("Precambrian (undivided)", (4567, 538.8)),
        ("Archaean", (4031, 2500)),
        ("Palæozoic", (538.8, 251.902)),
        ("Přídolí", (423, 419.2)),
        ("Pr\u030ci\u0301doli\u0301", (423, 419.2)),  # the same letters, accents apart
        ("Cambrian-Stage 2", (529, 521)),  # as the chart's own vocabulary labels it
        ("Tertiary", (66, 2.58)),
        ("358.9-298.9 Ma", (358.9, 298.9)),
        ("300", (300, 300)),
        ("419.2 → 358.9", (419.2, 358.9)),
        ("Devonian → Carboniferous", (419.2, 298.9)),
        ("Paleozoic → Devonian", (538.8, 358.9)),
        ("4567 → 0", (4567, 0)),
    ],
)
def test_names_and_numbers_are_read(text, span):
    assert parse_age(text) == span


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("C", "not a name of the ICS chart"),  # a symbol is not a name, and names are not matched by their beginning
        ("Cz", "not a name of the ICS chart"),
        ("Carb", "not a name of the ICS chart"),
        ("Devonien", "did you mean Devonian"),
        ("Devonian?", "did you mean Devonian"),
        ("Granite", "not a name of the ICS chart"),
        ("Upper", "not a name of the ICS chart"),
        ("Period", "not a name of the ICS chart"),
        ("", "blank"),
        ("\u00a0", "blank"),
        ("298.9 → 358.9", "younger than the youngest"),
        ("Carboniferous → Devonian", "younger than the youngest"),
        ("Permian → Devonian", "younger than the youngest"),
        ("→ 300", "oldest age is blank"),
        ("300 →", "youngest age is blank"),
        ("-5", "negative"),
        ("300 → -1", "negative"),
        ("4600.1", "older than the Earth"),
        ("nan", "not an age"),
        ("300 → inf", "not an age"),
    ],
)
def test_invalid_ages_say_why(text, why):
    with pytest.raises(UnknownAge, match=why):
        parse_age(text)


def test_names_are_compared_as_a_whole():
    """Every unit by its own name alone: a beginning, or a name with a letter more, is another name or none."""
    names = {normalize_age_name(unit.name) for unit in ics_chart()}
    for unit in ics_chart():
        assert parse_age(unit.name) == (unit.older_ma, unit.younger_ma)
        assert not is_age_name(unit.name + "x")
        assert not is_age_name(unit.name[:-1]) or normalize_age_name(unit.name[:-1]) in names
    assert parse_age("Cambrian") != parse_age("Precambrian")


@pytest.mark.parametrize(
    ("older", "younger", "index"),
    [
        (419.2, 358.9, 6),
        (419.2, 298.9, 6),  # Devonian 60.3, Carboniferous 60.0
        (398.9, 318.9, 6),  # 40 each: the older
        (398.8, 318.8, 7),
        (251.902, 0, 9),
        (145, 2.58, 9),  # Cretaceous to Tertiary
        (70, 0, 0),
        (132, 0, 9),  # 66 each side of the boundary: the older
        (538.8, 251.902, 255),
        (4567, 538.8, 2),  # the Precambrian: its Hadean left no rock
        (4567, 4031, 255),
        (4567, 2500, 1),
        (300, 300, 7),
        (358.9, 358.9, 7),  # a boundary is the base of the younger
        (0, 0, 0),
        (4200, 4200, 255),
    ],
)
def test_the_rule_for_mixed_ages(older, younger, index):
    assert class_of_span(older, younger, PERIODS)[0] == index


def test_the_order_of_classes_does_not_matter():
    for older, younger in [(398.9, 318.9), (132, 0), (358.9, 358.9), (443.8, 358.9)]:
        assert class_of_span(older, younger, PERIODS) == class_of_span(older, younger, PERIODS[::-1])


@pytest.mark.skipif(not CROSSWALK.exists(), reason="the crosswalk's working copy is not here")
@pytest.mark.parametrize(
    ("name", "field", "vocabulary"),
    [("geo3al", "GEN_GLG", "geo3al.GEN_GLG"), ("geo3al", "GLG", "geo3al.GLG"), ("fsu_geol", "Glg", "geo1ec.GLG")],
)
def test_the_spans_are_those_of_the_crosswalk(name, field, vocabulary):
    with CROSSWALK.open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["vocabulary"] == vocabulary]
    legend = replace_field(with_classes(load_legend(name), load_legend("bedrock10")), field)
    # Codes without an age are listed for one field of geo3al only.
    assert set(legend.codes) - {row["code"] for row in rows} == ({"und", "oth", "H2O"} if field == "GLG" else set())
    for row in rows:
        assert legend.codes[row["code"]] == int(row["class_index"])
        if row["base_ma"]:
            assert legend.units[row["code"]] == MapUnit((float(row["base_ma"]), float(row["top_ma"])))


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("Q", "Quaternary"),
        ("T", "Tertiary (undivided)"),
        ("Cz", "Cenozoic"),
        ("TK", "Cretaceous-Tertiary"),
        ("KJ", "Jurassic-Cretaceous"),
        ("TrP", "Permian-Triassic"),
        ("PC", "Carboniferous-Permian"),
        ("CD", "Devonian-Carboniferous"),
        ("Pzu", "Upper Paleozoic"),
        ("DS", "Silurian-Devonian"),
        ("SO", "Ordovician-Silurian"),
        ("OCm", "Cambrian-Ordovician"),
        ("Pzl", "Lower Paleozoic"),
        ("pCm", "Precambrian"),
        ("A", "Archean"),
    ],
)
def test_an_age_written_out_has_the_class_of_its_code(code, name):
    assert load_legend("ics").classify(name) == load_legend("geo3al").classify(code)
