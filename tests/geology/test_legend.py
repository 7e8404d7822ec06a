from itertools import combinations

import numpy as np
import pytest

from gravmap.errors import InputError, OptionError
from gravmap.geology import load_legend
from gravmap.geology.legend import join_ages, normalize_code, replace_field
from gravmap.geology.legend_file import read_legend, shipped_legends, write_legend
from gravmap.geology.reclassify import with_classes

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
    assert (table.classes[7].colour, table.classes[10].colour) == ("#67A599", "#CE4DA0")
    assert [entry.index for entry in table.bedrock] == list(range(1, 11))


def test_every_shipped_crosswalk_has_the_default_class_table():
    assert set(shipped_legends()) == {"basement10", "bedrock10", "crust", "geo3al", "fsu_geol", "ics"}
    default = load_legend("basement10")
    assert [entry.name for entry in default.bedrock][-3:] == [
        "Permian", "Basic and ultrabasic intrusive", "Acid intrusive",
    ]  # fmt: skip
    for name in ("crust", "geo3al", "fsu_geol", "ics"):
        assert (load_legend(name).classes, load_legend(name).table) == (default.classes, "basement10")


def by_bedrock10(name, field=None):
    legend = with_classes(load_legend(name), load_legend("bedrock10"))
    return replace_field(legend, field) if field else legend


# The classes of every code when the crosswalks were written for bedrock10 alone, before they had ages.
BEDROCK10 = {
    ("geo3al", "GEN_GLG"): {
        0: "Q N Pg T Cz", 1: "A", 2: "PzpCm Pt pCm", 3: "OCm Cm", 4: "SO O", 5: "S", 6: "CD D DS", 7: "PC C", 8: "P",
        9: "TK CzMz K KJ J JTr Tr Mz TrP", 255: "MzPz Pzu Pzl Pz und H2O oth",
    },
    ("geo3al", "GLG"): {
        0: "Q NQ TQ N T Pg", 1: "A", 2: "PtPZ PtO PtCm Pt pC AP", 3: "CmO Cm", 4: "OS O", 5: "S", 6: "DC D SD",
        7: "CP C", 8: "P", 9: "CzMz KT MZT K JK MZ TrK J TrJ Tr PTr",
        255: "PZMZ CTr PZu PZ CmD PZl und H2O oth",
    },
    ("fsu_geol", "Glg"): {
        0: "Pg NPg N QT Q", 1: "A", 2: "pC Pt X Y Z CmPt", 3: "Cm OCm", 4: "O SO", 5: "S", 6: "DS D CD", 7: "C PC",
        8: "P", 9: "TrP Tr JTr J KJ K PgK", 10: "PtA PtAi Pi Mi TKi", 255: "Pz PZ ii Qv Ice H2O SEA oth",
    },
}  # fmt: skip


@pytest.mark.parametrize(("name", "field"), list(BEDROCK10))
def test_under_bedrock10_every_code_has_the_class_it_always_had(name, field):
    legend = by_bedrock10(name, field)
    expected = {code: index for index, codes in BEDROCK10[name, field].items() for code in codes.split()}
    assert legend.codes == expected
    assert legend.gaps == {"oth"}
    if name == "geo3al":
        for code, index in expected.items():
            bare = index == 0 or code in ("oth", "H2O")
            by_type = {
                "v": index,
                "": index,
                "x": index,
                "e": 0,
                "i": index if bare else 10,
                "w": 0 if index == 0 else 255,
            }
            assert {kind: legend.classify(code, {"TYPE": kind}) for kind in by_type} == by_type, code


def test_under_basement10_the_mesozoic_is_cover_and_its_intrusions_are_rock():
    geo3al, fsu = load_legend("geo3al"), load_legend("fsu_geol")
    for legend, codes in ((geo3al, BEDROCK10["geo3al", "GEN_GLG"]), (fsu, BEDROCK10["fsu_geol", "Glg"])):
        for index, listed in codes.items():
            for code in set(listed.split()) - {"ii"}:
                assert legend.classify(code) == (0 if index == 9 else index), code
    assert fsu.classify("ii") == 9
    for code in ("K", "CzMz", "TrP", "D", "Pzu", "und"):
        by_type = {kind: geo3al.classify(code, {"TYPE": kind}) for kind in "iwev"}
        assert by_type == {"i": 10, "w": 9, "e": 0, "v": geo3al.classify(code)}
    for code in ("Q", "Pg", "T", "Cz"):
        assert {geo3al.classify(code, {"TYPE": kind}) for kind in "iwev"} == {0}
    assert [geo3al.classify("H2O", {"TYPE": kind}) for kind in "iwv"] == [255] * 3


def linear_rgb(colour):
    parts = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def cie_lab(rgb):
    """CIE Lab under D65 of linear sRGB."""
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    scaled = np.array(to_xyz) @ rgb / (0.95047, 1, 1.08883)
    x, y, z = np.where(scaled > 216 / 24389, np.cbrt(scaled), (24389 / 27 * scaled + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


SEEN = {  # by linear sRGB; and how far apart every two classes are at least (CIE76)
    "with normal sight": (np.eye(3), 20),
    # The worst pair is Proterozoic and Cambrian, 11.1 and 10.8 apart.
    "with deuteranopia, Vienot 1999": ([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]], 10),
    "with deuteranopia, Machado 2009": (
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]], 10,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ["basement10", "bedrock10"])
@pytest.mark.parametrize("sight", list(SEEN))
def test_people_can_tell_the_colours_apart(name, sight):
    matrix, least = SEEN[sight]
    seen = {
        entry.name: cie_lab(np.clip(np.array(matrix) @ linear_rgb(entry.colour), 0, 1))
        for entry in load_legend(name).classes
    }
    assert cie_lab(linear_rgb("#FFFFFF")) == pytest.approx([100, 0, 0], abs=0.01)
    apart = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in combinations(seen, 2)}
    assert min(apart.values()) >= least, min(apart, key=apart.get)


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
        ("D", "w", 9),  # ultrabasic
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


@pytest.mark.parametrize("name", ["basement10", "bedrock10", "crust", "geo3al", "fsu_geol", "ics"])
def test_a_legend_survives_being_written(name, tmp_path):
    legend = load_legend(name)
    write_legend(legend, tmp_path / "copy.toml")
    assert load_legend(tmp_path / "copy.toml") == legend


def test_odd_names_survive_being_written(tmp_path):
    text = changed('"granite"', '"granite \\"à gros grain\\", \\\\ 100 %"').replace(
        "Q = 0", '"" = 0\n"a.b c" = 0\n"Ю" = 0'
    )
    legend = read_legend(text, "text")
    write_legend(legend, tmp_path / "odd.toml")
    assert load_legend(tmp_path / "odd.toml") == legend
    assert legend.classify("Ю") == 0


def test_a_users_own_legend():
    legend = read_legend(MINE, "text")
    assert legend.classify("padded") == 1  # the padding blanks are dropped on both sides
    assert legend.classify("oth") == 255
    assert legend.gaps == {"oth"}
    assert replace_field(legend, "AGE").field == "AGE"
    assert legend.classes[1].colour == "#FF0000"


def test_codes_are_composed_and_stripped_and_nothing_more():
    assert normalize_code("\u00a0e\u0301 ") == "é"
    legend = read_legend(changed("Q = 0", '"\u00e9" = 0'), "text")
    assert legend.classify(normalize_code("e\u0301")) == 0
    assert [legend.classify(normalize_code(code)) for code in ("É", "e", "c", "\u0421")] == [None] * 4  # a Cyrillic C
    assert legend.classify("C") == 1


def test_geo3al_by_either_field():
    legend = load_legend("geo3al")
    glg = replace_field(legend, "glg")  # as a file may spell it
    assert (glg.field, legend.field) == ("glg", "GEN_GLG")
    assert [glg.classify(code) for code in ("CP", "PC", "TQ", "CTr")] == [7, None, 0, 255]
    assert [legend.classify(code) for code in ("CP", "PC", "TQ", "CTr")] == [None, 7, None, None]
    back = replace_field(glg, "GEN_GLG")
    assert (back.codes, back.field) == (legend.codes, "GEN_GLG")
    assert replace_field(legend, "AGE").codes == legend.codes  # a field that the legend does not know: its own codes


@pytest.mark.parametrize("field", ["GEN_GLG", "GLG"])
@pytest.mark.parametrize("kind", ["i", "w"])
def test_a_rock_type_never_makes_cenozoic_cover_bedrock(field, kind):
    legend = replace_field(load_legend("geo3al"), field)
    for code, index in legend.codes.items():
        young = code in legend.units and legend.units[code].age_ma[0] <= 66
        expected = index if young or code in ("oth", "H2O") else {"i": 10, "w": 9}[kind]
        assert legend.classify(code, {"TYPE": kind}) == expected


AGES = """
name = "ages"
classes = "bedrock10"

[map]
crs = "EPSG:4284"

[[map.ages]]
oldest = "b_age"
youngest = "t_age"

[[map.ages]]
field = "AGE"

[map.codes]
"Jura" = 9
"Devonian → Carboniferous" = 255
none = "gap"

[map.override.TYPE]
i = { class = 10, unless = [0, "none"] }
"""


def test_a_legend_of_ages(tmp_path):
    legend = read_legend(AGES, "text")
    assert legend.field_candidates == (("b_age", "t_age"), ("AGE",))
    assert legend.find_fields(["B_AGE", "t_age", "AGE"]) == ("b_age", "t_age")
    assert legend.find_fields(["b_age", "AGE"]) == ("AGE",)
    assert legend.find_fields(["b_age"]) is None
    assert legend.classify("Late Devonian") == 6
    assert legend.classify(join_ages(["440", "360.0000001"])) == 6
    assert legend.classify(join_ages(["Devonian", "Carboniferous"])) == 255  # a code of the legend beats the age
    assert legend.classify("Devonian-Carboniferous") == 6
    assert legend.classify("Jura") == 9
    assert legend.classify("jura") is None
    assert legend.classify("none") == 255
    assert legend.classify("Devonian", {"TYPE": "i"}) == 10
    assert legend.classify("Neogene", {"TYPE": "i"}) == 0  # class 0 is spared
    assert legend.classify("none", {"TYPE": "i"}) == 255
    assert legend.classify("Devonien", {"TYPE": "i"}) is None  # an unknown age might be Cenozoic
    write_legend(legend, tmp_path / "ages.toml")
    assert load_legend(tmp_path / "ages.toml") == legend


def test_two_ages_make_one_code():
    assert join_ages(["Devonian"]) == "Devonian"
    assert join_ages(["", ""]) == ""
    assert join_ages(["358.8999938964844", "298.9"]) == "358.9 → 298.9"  # a single-precision float
    assert join_ages(["", "298.9"]) == "→ 298.9"


def test_the_user_names_the_fields_of_ages():
    legend = load_legend("ics")
    assert replace_field(legend, "AGE_TXT").field_candidates == (("AGE_TXT",),)
    assert replace_field(legend, "old, young").field_candidates == (("old", "young"),)
    for many in ("a,b,c", "a,", ""):
        with pytest.raises(OptionError, match="field"):
            replace_field(legend, many)
    with pytest.raises(OptionError, match="one field"):
        replace_field(load_legend("geo3al"), "a,b")


def test_small_and_long_ages_survive_being_written(tmp_path):
    legend = read_legend(changed("[358.9, 298.9]", "[4031.0, 0.00001]"), "text")
    assert legend.classes[1].age == "4031-0.00001 Ma"
    write_legend(legend, tmp_path / "small.toml")
    assert load_legend(tmp_path / "small.toml") == legend


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[map", "not valid TOML"),
        (changed("Q = 0", "Q = 0\nQ = 1"), "not valid TOML"),  # one code mapped twice
        (changed("Q = 0", 'Q = 0\n"Q " = 1'), "given twice"),
        (changed("index = 1", "index = 0"), "class indices"),
        (changed("index = 1", "index = 2"), "class indices"),
        (changed("index = 1", "index = 255"), "255"),
        (changed("index = 1", "index = 300"), "300"),
        (changed("index = 1", "index = true"), "not a class index"),
        (changed("#FF0000", "red"), "not a colour"),
        (changed("[358.9, 298.9]", "[298.9, 358.9]"), "older to younger"),
        (changed("C = 1", "C = 7"), "class 7"),
        (changed("C = 1", 'C = "one"'), "not a class index"),
        (changed("C = 1", "C = 1.0"), "not a class index"),
        (changed('field = "UNIT"', ""), "has no field"),
        (changed("[map.codes]", "[map.code]"), "'codes'"),  # the nearest known key is named
        (changed('name = "mine"', 'name = "mine"\nclasses = "bedrock10"'), "class table"),
        ('name = "x"\nclasses = "bedrock11"', "bedrock11"),
        ('name = "x"', "class table"),
        (MINE + '[map.override.TYPE]\ni = { class = 1, unless = ["Z"] }', "'Z'"),
        (MINE + "[map.override.TYPE]\ni = 9", "class 9"),
        (MINE + "[map.override.TYPE]\ni = { class = 1, unless = [7] }", "class 7"),
        (MINE + '[map.override.TYPE]\ni = { class = 1, unless = "Q" }', "not a list"),
        (MINE + '[map.override.TYPE]\ni = 1\n" i" = 0', "given twice"),
        (MINE + "[map.override]\nTYPE = 1", "does not consist of tables"),
        (MINE + "[map.fields.UNIT]\nQ = 0", "does not apply"),
        (MINE + "[map.fields.OTHER]\nQ = 5", "class 5"),
        (MINE + '[map.ages]\nfield = "AGE"', "both a field and ages"),
        (changed('field = "UNIT"', "ages = []"), "not a table"),
        (changed('field = "UNIT"', 'ages = { oldest = "b" }'), "[map.ages] has b"),
        (changed('field = "UNIT"', 'ages = { field = "a", oldest = "b" }'), "[map.ages] has a, b"),
        (changed('field = "UNIT"', 'ages = { oldst = "b", youngest = "t" }'), "'oldest'"),
        (changed("[358.9, 298.9]", "[358.9, -1]"), "not an age span"),
        (changed("[358.9, 298.9]", "[inf, 0]"), "not an age span"),
        (changed("Q = 0", '"e\u0301" = 0\n"\u00e9" = 1'), "given twice"),  # one letter in two ways
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
