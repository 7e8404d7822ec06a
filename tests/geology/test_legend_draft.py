import tomllib

import pytest
from shapely.geometry import Point, box

from gravmap.errors import InputError
from gravmap.geology import load_legend, rasterize
from gravmap.geology.legend import MapUnit
from gravmap.geology.legend_check import check_legend
from gravmap.geology.legend_draft import draft_legend
from gravmap.geology.legend_file import read_legend
from gravmap.regions import Region


@pytest.fixture
def units(write_map):
    """A map with one tile for each row; the k-th is k + 1 degrees wide, so that areas differ."""

    def write(rows, name="units.gpkg", **more):
        west, shapes = 80.0, []
        for k, row in enumerate(rows):
            shapes.append((box(west, 44, west + 1 + k, 45), row))
            west += 1 + k
        return write_map(shapes, name, **more)

    return write


def drafted(path, field="UNIT", **more):
    draft = draft_legend(path, field, **more)
    return draft, read_legend(draft.text, "draft")


@pytest.mark.parametrize(
    ("code", "index"),
    [
        ("D", 6),
        ("D3", 6),
        ("D₃", 6),  # a subscript, as some maps write it
        ("C1-2", 7),
        ("CD", 6),
        ("DC", 6),
        ("D3-C1", 6),
        ("PC", 7),
        ("PgK", 0),
        ("NQ", 0),
        ("MZ", 0),
        ("Kz", 0),
        ("Є", 3),
        ("pCm", 2),  # the Precambrian, not P and Cm
        ("Late Devonian", 6),
        ("Precambrian", 2),
        ("Tertiary (undivided)", 0),
        # No guess is better than a wrong one:
        ("T", None),  # Triassic or Tertiary
        ("Z", None),
        ("NO", None),  # "no data", not Neogene to Ordovician
        ("CO", None),
        ("COS", None),
        ("Cpx", None),
        ("c", None),
        ("7", None),  # a number may count anything: not seven million years
        ("granite", 10),  # whatever its age, unless it is Cenozoic
        ("", None),
        ("D5", None),
        ("-D", None),
    ],
)
def test_symbols_and_names_are_guessed_and_nothing_else(units, code, index):
    draft, legend = drafted(units([{"UNIT": code}, {"UNIT": "Q"}]))
    guess = next(guess for guess in draft.guesses if guess.code == code)
    assert legend.codes[code] == guess.index == (255 if index is None else index)
    assert bool(guess.reason) == (index is not None)


def test_the_draft_reads_burns_and_checks_clean(units):
    path = units([{"UNIT": "D"}, {"UNIT": "mystery"}, {"UNIT": "Water"}, {"UNIT": 'odd "code", é\tx'}, {"UNIT": None}])
    draft, legend = drafted(path)
    assert [guess.code for guess in draft.guesses] == ["", 'odd "code", é\tx', "Water", "mystery", "D"]  # by area
    checked = check_legend(path, legend)
    assert checked.unknown == ()
    assert {guess.code: guess.area_km2 for guess in draft.guesses} == {e.code: e.area_km2 for e in checked.codes}
    assert legend.classes == load_legend("basement10").classes
    made = rasterize([(path, legend)], Region(80, 44, 95, 45), 0.5)
    assert made.values[0, [0, 2, 6]].tolist() == [6, 255, 255]
    lines = draft.text.splitlines()
    table = "; ".join(f"{entry.index} {entry.name}" for entry in legend.classes)
    assert table in " ".join(line.removeprefix("# ") for line in lines)
    unknown = [line for line in lines if "unknown: set me" in line]
    assert len(unknown) == 3
    assert all("= 255 " in line and "km²" in line for line in unknown)
    assert "water" in next(line for line in lines if line.startswith("Water"))
    assert next(line for line in lines if line.startswith("D ")).endswith(
        "1 polygon; read as Devonian: 419.2-358.9 Ma, share 1.00"
    )


def test_rock_types_are_drafted(units):
    codes = ("γ4", "Variscan gabbro", "Qal", "Ar3ηγ", "J2x", "Water")
    draft, legend = drafted(units([{"UNIT": code} for code in codes]))
    assert legend.codes == {"γ4": 10, "Variscan gabbro": 9, "Qal": 0, "Ar3ηγ": 10, "J2x": 0, "Water": 255}
    assert legend.units["γ4"] == MapUnit((419.2, 251.902), "acid intrusive")
    line = next(line for line in draft.text.splitlines() if line.startswith('"γ4"'))
    assert line.startswith('"γ4" = { age_ma = [419.2, 251.902], rock = "acid intrusive" }')
    assert line.endswith("read as acid intrusive of the cycle Devonian-Permian: 419.2-251.902 Ma")
    assert load_legend("bedrock10").classes == drafted(units([{"UNIT": "gabbro"}]), classes="bedrock10")[1].classes
    assert drafted(units([{"UNIT": "gabbro"}]), classes="bedrock10")[0].guesses[0].reason.endswith("no class has it")


def test_the_age_is_of_the_field_and_the_rock_of_the_code(units):
    rows = [{"UNIT": "granite", "b_age": 20.0, "t_age": 15.0}, {"UNIT": "Dwyka till", "b_age": 290.0, "t_age": 280.0}]
    draft, legend = drafted(units(rows))
    assert legend.codes["Dwyka till"] == 8  # no cover
    assert legend.codes["granite"] == 0  # Cenozoic
    assert legend.units["granite"] == MapUnit((20, 15), "acid intrusive")
    reason = next(guess.reason for guess in draft.guesses if guess.code == "granite")
    assert reason.startswith("by b_age, t_age, acid intrusive by its words: 20-15 Ma")


def test_the_maps_own_ages_come_first(units):
    rows = [
        {"UNIT": "D", "b_age": 300.0, "t_age": 260.0},  # D is not Devonian on this map
        {"UNIT": "x", "b_age": 440.0, "t_age": 430.0},
        {"UNIT": "x", "b_age": 436.0, "t_age": 425.0},
        {"UNIT": "y", "b_age": 100.0, "t_age": 200.0},
    ]
    draft, legend = drafted(units(rows))
    assert legend.codes == {"D": 8, "x": 5, "y": 255}
    reasons = {guess.code: guess.reason for guess in draft.guesses}
    assert reasons["D"].startswith("by b_age, t_age: 300-260 Ma, share 0.97")  # 298.9-260 of 300-260
    assert reasons["x"].startswith("by b_age, t_age: 440-425 Ma, 2 different ages, share 1.00")
    assert reasons["y"] == ""


def test_a_single_field_of_numbers_is_not_an_age(units):
    _, legend = drafted(units([{"UNIT": "D", "AGE": 7.0}, {"UNIT": "z1", "AGE": 300.0}]))
    assert legend.codes == {"D": 6, "z1": 255}


def test_a_unit_without_a_class_for_half_its_span_is_marked(units):
    draft, legend = drafted(units([{"UNIT": "Paleozoic"}]))
    assert legend.codes == {"Paleozoic": 255}
    assert draft.guesses[0].reason.endswith("share 0.21; no class holds half")
    assert "set me" not in draft.text


def test_a_class_table_of_ones_own_and_a_stated_system(units, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text(
        'name = "own"\n'
        '[[class]]\nindex = 0\nname = "young"\ncolour = "#ffff00"\nage_ma = [251.902, 0]\n'
        '[[class]]\nindex = 1\nname = "old"\ncolour = "#ff0000"\nage_ma = [4031, 251.902]\n'
    )
    path = units([{"UNIT": "D"}, {"UNIT": "J"}], "units.shp", crs=None)
    with pytest.raises(InputError, match="coordinate reference system"):
        draft_legend(path, "UNIT", own)
    draft, legend = drafted(path, classes=own, crs="EPSG:4284")
    assert legend.codes == {"J": 0, "D": 1}
    assert [entry.colour for entry in legend.classes] == ["#FFFF00", "#FF0000"]
    assert legend.crs == tomllib.loads(draft.text)["map"]["crs"] == "EPSG:4284"
    assert check_legend(path, legend).crs == "EPSG:4284"


def test_only_codes_in_the_region_are_drafted(units):
    _, legend = drafted(units([{"UNIT": "D"}, {"UNIT": "J"}]), region=Region(80.1, 44.1, 80.9, 44.9))
    assert legend.codes == {"D": 6}


def test_bad_maps_are_refused(units, write_map):
    blank = units([{"UNIT": "  "}, {"UNIT": None}], "blank.gpkg")
    points = write_map([(Point(80, 44), {"UNIT": "D"})], "points.gpkg")
    for path, field, words in [
        (blank, "UNIT", "blank in all 2"),
        (blank, "AGE", "no field AGE"),
        (points, "UNIT", "Point"),
    ]:
        with pytest.raises(InputError, match=words):
            draft_legend(path, field)
