import csv
from pathlib import Path

import pytest

from gravmap.errors import InputError
from gravmap.geology import load_legend, shipped_legends
from gravmap.geology.legend import replace_field
from gravmap.geology.legend_file import read_legend

CROSSWALK = Path(__file__).resolve().parents[3] / "shared" / "data" / "geology_crosswalk.csv"

MINE = """
name = "mine"

[[class]]
index = 0
name = "cover"
colour = "#ffff00"

[[class]]
index = 1
name = "granite"
age_ma = [358.9, 298.9]
colour = "#FF0000"

[map]
field = "UNIT"

[map.codes]
Q = 0
C = 1
" padded " = 1
oth = "gap"
"""


def changed(old, new):
    assert old in MINE
    return MINE.replace(old, new)


def test_the_class_table_is_that_of_the_paper():
    table = load_legend("bedrock10")
    assert [entry.name for entry in table.classes] == [
        "Cenozoic cover", "Archean", "Proterozoic", "Cambrian", "Ordovician", "Silurian", "Devonian", "Carboniferous",
        "Permian", "Mesozoic", "Acid intrusive",
    ]  # fmt: skip
    assert [entry.index for entry in table.classes] == list(range(11))
    assert table.classes[2].age == "2500-538.8 Ma"
    assert table.classes[10].age == "any"
    assert (table.classes[7].colour, table.classes[10].colour) == ("#67A599", "#E31A1C")
    assert [entry.index for entry in table.bedrock] == list(range(1, 11))


def test_every_shipped_legend_shares_the_class_table():
    assert set(shipped_legends()) >= {"bedrock10", "crust", "geo3al", "fsu_geol"}
    for name in shipped_legends():
        assert load_legend(name).classes == load_legend("bedrock10").classes


def test_codes_match_exactly():
    legend = load_legend("geo3al")
    assert (legend.classify("C"), legend.classify("Cz"), legend.classify("CD"), legend.classify("Cm")) == (7, 0, 6, 3)
    assert (legend.classify("P"), legend.classify("Pg"), legend.classify("Pt"), legend.classify("Pz")) == (8, 0, 2, 255)
    assert legend.classify("c") is None
    assert legend.classify("Carboniferous") is None
    assert legend.classify("") is None


@pytest.mark.parametrize(
    ("code", "kind", "index"),
    [
        ("D", "i", 10),  # an intrusion of whatever age
        ("Pzu", "i", 10),
        ("und", "i", 10),
        ("Q", "i", 0),  # but Cenozoic rocks are cover
        ("Cz", "w", 0),
        ("D", "w", 255),  # ultrabasic
        ("D", "e", 0),  # eolian
        ("D", "v", 6),  # volcanic rocks keep their age
        ("D", "", 6),
        ("D", "x", 6),  # an unknown type decides nothing
        ("H2O", "i", 255),
        ("Zz", "i", None),  # an unknown age might be Cenozoic
    ],
)
def test_the_type_overrides_the_age(code, kind, index):
    assert load_legend("geo3al").classify(code, {"TYPE": kind}) == index


@pytest.mark.skipif(not CROSSWALK.exists(), reason="the crosswalk's working copy is not here")
@pytest.mark.parametrize(("name", "vocabulary"), [("geo3al", "geo3al.GEN_GLG"), ("fsu_geol", "geo1ec.GLG")])
def test_shipped_codes_are_those_of_the_crosswalk(name, vocabulary):
    with CROSSWALK.open() as stream:
        rows = {
            row["code"]: int(row["class_index"]) for row in csv.DictReader(stream) if row["vocabulary"] == vocabulary
        }
    assert load_legend(name).codes == rows


@pytest.mark.parametrize("name", ["bedrock10", "crust", "geo3al", "fsu_geol"])
def test_a_legend_survives_being_written(name, tmp_path):
    legend = load_legend(name)
    legend.write(tmp_path / "copy.toml")
    assert load_legend(tmp_path / "copy.toml") == legend


def test_odd_names_survive_being_written(tmp_path):
    text = changed('"granite"', '"granite \\"à gros grain\\", \\\\ 100 %"').replace(
        "Q = 0", '"" = 0\n"a.b c" = 0\n"Ю" = 0'
    )
    legend = read_legend(text, "text")
    legend.write(tmp_path / "odd.toml")
    assert load_legend(tmp_path / "odd.toml") == legend
    assert legend.classify("Ю") == 0


def test_a_users_own_legend():
    legend = read_legend(MINE, "text")
    assert legend.classify("padded") == 1  # the padding blanks are dropped on both sides
    assert legend.classify("oth") == 255
    assert legend.gaps == {"oth"}
    assert replace_field(legend, "AGE").field == "AGE"
    assert legend.classes[1].colour == "#FF0000"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[map", "no readable legend"),
        (changed("Q = 0", "Q = 0\nQ = 1"), "no readable legend"),  # one code mapped twice
        (changed("Q = 0", 'Q = 0\n"Q " = 1'), "given twice"),
        (changed("index = 1", "index = 0"), "class indices"),
        (changed("index = 1", "index = 2"), "class indices"),
        (changed("index = 1", "index = 255"), "255"),
        (changed("index = 1", "index = 300"), "300"),
        (changed("index = 1", "index = true"), "no class index"),
        (changed("#FF0000", "red"), "no colour"),
        (changed("[358.9, 298.9]", "[298.9, 358.9]"), "older to younger"),
        (changed("C = 1", "C = 7"), "class 7"),
        (changed("C = 1", 'C = "one"'), "no class index"),
        (changed("C = 1", "C = 1.0"), "no class index"),
        (changed('field = "UNIT"', ""), "names no field"),
        (changed("[map.codes]", "[map.code]"), "'codes'"),  # the nearest known key is named
        (changed('name = "mine"', 'name = "mine"\nclasses = "bedrock10"'), "class table"),
        ('name = "x"\nclasses = "bedrock11"', "bedrock11"),
        ('name = "x"', "class table"),
        (MINE + '[map.override.TYPE]\ni = { class = 1, unless = ["Z"] }', "'Z'"),
        (MINE + "[map.override.TYPE]\ni = 9", "class 9"),
    ],
)
def test_a_faulty_legend_is_refused(text, message):
    with pytest.raises(InputError) as error:
        read_legend(text, "text")
    assert message in str(error.value)
    assert "text" in str(error.value)


def test_a_missing_legend_names_the_known_ones(tmp_path):
    with pytest.raises(InputError, match="geo3al"):
        load_legend("geo3l")
    latin = tmp_path / "latin.toml"
    latin.write_bytes('name = "é"'.encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        load_legend(latin)
