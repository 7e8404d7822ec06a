import numpy as np
import pytest
import rasterio
from shapely.geometry import box

from gravmap.classes import table_options
from gravmap.errors import InputError, OptionError
from gravmap.geology import load_legend, open_labels, rasterize, write_labels
from gravmap.geology.labels import legend_path
from gravmap.geology.legend import MapUnit
from gravmap.geology.legend_draft import draft_legend
from gravmap.geology.legend_file import legend_of_map, legend_to_toml, read_legend
from gravmap.geology.reclassify import cover_younger_than, parse_cover_age, with_classes
from gravmap.regions import Region

HERE = Region(80, 44, 85, 46)
OWN = """
name = "own"
[[class]]
index = 0
name = "cover"
colour = "#ffff00"
age_ma = [66, 0]
[[class]]
index = 1
name = "lava"
colour = "#00ff00"
rocks = ["volcanic"]
[[class]]
index = 2
name = "old"
colour = "#ff0000"
age_ma = [4031, 66]
[map]
field = "UNIT"
[map.codes]
"""
WITHOUT_AGES = OWN.replace("age_ma = [66, 0]", "").replace("age_ma = [4031, 66]", "")


def names(table):
    return [entry.name for entry in table.classes]


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("251.9Ma", 251.9),
        ("66 Ma", 66),
        ("Mesozoic", 251.902),
        ("late permian", 259.51),
        ("Jurassic-Cretaceous", 201.4),
    ],
)
def test_an_age_of_the_cover_is_a_number_with_its_unit_or_the_base_of_a_unit(text, age):
    assert parse_cover_age(text) == age


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("251.9", "no unit"),
        ("", "blank"),
        ("-5Ma", "negative"),
        ("Mesozoik", "did you mean Mesozoic"),
        ("9km", "not a name"),
        ("9999Ma", "older than the Earth"),
    ],
)
def test_what_is_no_age_is_a_usage_error(text, message):
    with pytest.raises(OptionError, match=message):
        parse_cover_age(text)


def test_the_cover_reaches_down_to_any_level():
    bedrock, basement = load_legend("bedrock10"), load_legend("basement10")
    stripped = cover_younger_than(bedrock, 251.9)  # the boundary at 251.902
    assert names(stripped)[-2:] == ["Permian", "Acid intrusive"]
    assert [entry.index for entry in stripped.classes] == list(range(10))
    assert (stripped.classes[0].age, stripped.classes[0].name) == ("251.902-0 Ma", "Cover younger than 251.902 Ma")
    cut = cover_younger_than(basement, 270)
    assert (cut.classes[8].name, cut.classes[8].age) == ("Permian before 270 Ma", "298.9-270 Ma")
    assert names(cut)[9:] == names(basement)[9:]
    assert names(cover_younger_than(bedrock, 100))[9] == "Mesozoic before 100 Ma"
    assert cover_younger_than(basement, 251.9) is basement
    again = cover_younger_than(cut, 298.9)
    assert (again.table, names(again)[7:9]) == ("basement10-298.9Ma", ["Carboniferous", names(basement)[9]])
    assert table_options(again.table) == "--classes basement10 --cover-younger-than 298.9Ma"
    assert table_options("bedrock10") == "--classes bedrock10"
    copy = read_legend(legend_to_toml(again), "text")
    assert (copy.classes, copy.table) == (again.classes, again.table)


def test_codes_follow_the_level_and_intrusions_keep_theirs():
    geo3al = load_legend("geo3al")
    legend = with_classes(geo3al, cover_younger_than(geo3al, 298.9))
    by_type = {code: [legend.classify(code, {"TYPE": kind}) for kind in ("", "v", "i", "w")] for code in "QJPCD"}
    assert by_type == {
        "Q": [0, 0, 0, 0],
        "J": [0, 0, 9, 8],
        "P": [0, 0, 9, 8],
        "C": [7, 7, 9, 8],
        "D": [6, 6, 9, 8],
    }
    ics = with_classes(load_legend("ics"), cover_younger_than(load_legend("bedrock10"), 298.9))
    assert [ics.classify(age) for age in ("Permian", "Late Devonian", "Water")] == [0, 6, 255]


@pytest.mark.parametrize(
    ("table", "level", "message"),
    [
        ("basement10", 66, "no class for rocks of 251.902 to 66 Ma[^$]*--classes bedrock10"),
        ("basement10", 100, "--classes bedrock10"),
        ("basement10", 5, "a class table of your own"),
        ("bedrock10", 0, "No cover is left"),
        ("basement10", 4031, "No bedrock is left"),
        ("bedrock10", 4500, "No bedrock is left"),
    ],
)
def test_a_level_without_classes_is_refused(table, level, message):
    with pytest.raises(InputError, match=message):
        cover_younger_than(load_legend(table), level)


def test_a_legend_without_ages_is_refused_and_its_own_table_is_not():
    basement, bedrock = load_legend("basement10"), load_legend("bedrock10")
    old = read_legend('name = "x"\nclasses = "bedrock10"\n[map]\nfield = "U"\n[map.codes]\nD = 6\nq = 0\nz = 255', "x")
    with pytest.raises(InputError, match=r"no age for 2 codes \(D, q\)[^$]*age_ma"):
        with_classes(old, basement)
    assert with_classes(old, bedrock) == old
    ruled = (
        'name = "x"\nclasses = "bedrock10"\n[map.ages]\nfield = "U"\n[map.override.T]\ni = { class = 10, unless = [0] }'
    )
    with pytest.raises(InputError, match="code T i"):
        with_classes(read_legend(ruled, "x"), basement)
    bare = read_legend(WITHOUT_AGES + "q = 0", "own")
    with pytest.raises(InputError, match=r"own has no age for its cover[^$]*--classes basement10"):
        cover_younger_than(bare, 251.9)


def test_a_class_of_a_rock_type_in_a_table_of_ones_own():
    codes = 'a = { age_ma = [100, 70], rock = "volcanic" }\nb = { age_ma = [50, 40], rock = "volcanic" }\n'
    codes += 'c = { age_ma = [100, 90] }\nd = { rock = "volcanic" }\ne = { rock = "intrusive" }\n'
    codes += "f = { age_ma = [300, 300] }"
    legend = read_legend(OWN + codes, "own")
    assert legend.codes == {"a": 1, "b": 0, "c": 2, "d": 1, "e": 255, "f": 2}
    assert legend.units["f"] == MapUnit((300.0, 300.0))
    assert read_legend(legend_to_toml(legend), "own") == legend


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OWN + "a = { age_ma = [40, 50] }", "older to younger"),
        (OWN + "a = { age_ma = [5000, 4700] }", "older than the Earth"),
        (OWN + 'a = { age_ma = "old" }', "not an age span"),
        (OWN + "a = { age_ma = [-1, -1] }", "not an age span"),
        (OWN + "a = {}", "has no age"),
        (OWN + 'a = { rock = "granite" }', "not a rock type"),
        (OWN + 'a = { rock = "vulcanic" }', "Did you mean 'volcanic'"),
        (OWN + "a = { age = [50, 40] }", "unknown key 'age'"),
        (OWN.replace('"volcanic"', '"tuff"') + "a = 1", "rock types"),
        (OWN.replace("rocks", "age_ma = [80, 70]\nrocks") + "a = 1", "rock types and an age"),
        (OWN.replace("age_ma = [4031, 66]", 'rocks = ["volcanic"]') + "a = 1", "given twice"),
        (OWN.replace("rocks", "intrusive_age_ma = [80, 70]\nrocks") + "a = 1", "does not apply"),
        (OWN + 'a = 1\n[map.override.T]\ni = { rock = "x" }', "not a rock type"),
        (OWN + 'a = 1\n[map.override.T]\ni = { rock = "volcanic", class = 1 }', "a class and a rock type"),
        (WITHOUT_AGES + "a = { age_ma = [9, 8] }", "has none"),
    ],
)
def test_faulty_ages_and_rock_types_are_refused(text, message):
    with pytest.raises(InputError) as error:
        read_legend(text, "text")
    assert message in str(error.value)


def test_a_draft_serves_every_class_table(write_map):
    path = write_map([(box(80, 44, 82, 46), {"UNIT": "J"}), (box(82, 44, 83, 46), {"UNIT": "D"})])
    legend = read_legend(draft_legend(path, "UNIT").text, "draft")
    assert legend.codes == {"J": 0, "D": 6}
    assert with_classes(legend, load_legend("bedrock10")).codes == {"J": 9, "D": 6}


def made_again(maps, folder):
    """Labels from maps with their legends, and from the same maps with the legend of these labels."""
    paths = folder / "first.tif", folder / "second.tif"
    write_labels(paths[0], rasterize(maps, HERE, 0.1))
    stored = load_legend(legend_path(paths[0]))
    again = [(path, legend_of_map(stored, path)) for path, _ in maps]
    write_labels(paths[1], rasterize(again, HERE, 0.1))
    assert legend_path(paths[1]).read_bytes() == legend_path(paths[0]).read_bytes()
    first, second = (open_labels(path) for path in paths)
    np.testing.assert_array_equal(first.values, second.values)
    return first


def test_the_legend_of_labels_makes_the_same_labels(patchwork, tmp_path):
    geo3al = load_legend("geo3al")
    made = made_again([(patchwork, geo3al)], tmp_path)
    assert set(np.unique(made.values)) == {0, 7, 10, 255}
    deeper = with_classes(geo3al, cover_younger_than(geo3al, 358.9))
    made = made_again([(patchwork, deeper)], tmp_path)
    assert made.legend.table == "basement10-358.9Ma"
    assert set(np.unique(made.values)) == {0, 8, 255}
    with rasterio.open(tmp_path / "second.tif") as raster:
        assert raster.tags()["GRAVMAP_COVER_YOUNGER_THAN"] == "358.9 Ma"


def test_so_does_that_of_two_maps_with_different_legends(patchwork, write_map, tmp_path):
    ages = [
        (box(83, 44, 84, 46), {"b_age": 400.0, "t_age": 390.0}),
        (box(84, 44, 85, 46), {"b_age": 180.0, "t_age": 160.0}),
    ]
    second = write_map(ages, "ages.gpkg")
    made = made_again([(patchwork, load_legend("geo3al")), (second, load_legend("ics"))], tmp_path)
    assert made.values[0, 5::10].tolist() == [7, 0, 0, 10, 0]
    other = write_map(ages[:1], "other.gpkg")
    stored = load_legend(legend_path(tmp_path / "first.tif"))
    with pytest.raises(InputError, match=r"map\.gpkg, ages\.gpkg, not from other\.gpkg"):
        legend_of_map(stored, other)
    other.rename(patchwork.with_name("renamed.gpkg"))
    patchwork.rename(other)  # found by its checksum
    assert legend_of_map(stored, other).name == "geo3al"
