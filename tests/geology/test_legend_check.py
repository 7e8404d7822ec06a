import geopandas
import numpy as np
import pytest
from pyproj import Geod, Transformer
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

from gravmap.errors import InputError
from gravmap.geology import load_legend, rasterize
from gravmap.geology.legend import replace_field
from gravmap.geology.legend_check import check_legend, similar_codes
from gravmap.geology.legend_file import legend_to_toml, read_legend
from gravmap.regions import Region

GEO3AL = load_legend("geo3al")
ICS = load_legend("ics")
HERE = Region(80, 44, 90, 46)


def tile(column):
    return box(80 + column, 44, 81 + column, 46)


def by_pyproj(shape):
    return abs(Geod(ellps="WGS84").geometry_area_perimeter(shape.segmentize(0.01))[0]) / 1e6


def ages(write_map, rows, **kwargs):
    return write_map([(tile(k), row) for k, row in enumerate(rows)], **kwargs)


def classes_of(check):
    return {entry.code: entry.index for entry in check.codes}


def test_every_code_with_its_class_polygons_and_area(write_map):
    triangle = Polygon([(80.3, 44.2), (84.1, 44.5), (82.6, 45.8)])
    rows = [(triangle, "C", ""), (tile(6), "C", "i"), (tile(7), "c", ""), (tile(8), "Q", "i"), (tile(9), "Q", "z")]
    path = write_map([(shape, {"GEN_GLG": code, "TYPE": kind}) for shape, code, kind in rows])
    made = check_legend(path, GEO3AL)
    found = {(entry.code, *entry.others.values()): entry for entry in made.codes}
    assert {key: entry.index for key, entry in found.items()} == {
        ("C",): 7,
        ("C", "i"): 10,
        ("c",): None,
        ("Q", "i"): 0,
        ("Q", "z"): 0,
    }
    assert found[("C",)].area_km2 == pytest.approx(by_pyproj(triangle), rel=1e-6)
    assert found[("c",)].note == "differs from C only in case or the way it is written"
    assert found[("Q", "z")].note == "TYPE = z is unknown, the class from the first field is kept"
    assert [entry.code for entry in made.unknown] == ["c"]
    assert made.class_km2[255] == pytest.approx(by_pyproj(tile(7)), rel=1e-6)
    assert made.class_km2[0] == pytest.approx(2 * by_pyproj(tile(8)), rel=1e-6)
    assert made.unused_classes == (1, 2, 3, 4, 5, 6, 8, 9)
    assert set(made.absent_codes) == set(GEO3AL.codes) - {"C", "Q"}
    assert [entry.area_km2 for entry in made.codes] == sorted((e.area_km2 for e in made.codes), reverse=True)


def test_areas_are_those_inside_the_region(write_map):
    path = ages(write_map, [{"AGE": "Devonian"}, {"AGE": "Permian"}])
    made = check_legend(path, ICS, Region(80.5, 44.5, 81, 45.25))
    assert [(entry.code, entry.polygons) for entry in made.codes] == [("Devonian", 1)]
    assert made.codes[0].area_km2 == pytest.approx(by_pyproj(box(80.5, 44.5, 81, 45.25)), rel=1e-6)


def test_polygons_of_a_projected_map_keep_their_area(write_map):
    lambert = "+proj=laea +lat_0=45 +lon_0=82 +datum=WGS84 +units=m"  # equal-area: a square has its own
    made = check_legend(write_map([(box(-50e3, -50e3, 50e3, 50e3), {"AGE": "Devonian"})], crs=lambert), ICS)
    assert made.codes[0].area_km2 == pytest.approx(10_000, rel=1e-6)
    assert made.crs != "EPSG:4326"
    back = Transformer.from_crs(lambert, "EPSG:4326", always_xy=True).transform(0, 0)
    assert back == pytest.approx((82, 45))


def test_an_outline_that_crosses_itself_has_the_area_of_its_lobes(write_map):
    bow_tie = Polygon([(80, 44), (82, 46), (82, 44), (80, 46)])
    left, right = Polygon([(80, 44), (81, 45), (80, 46)]), Polygon([(82, 44), (82, 46), (81, 45)])
    path = write_map([(bow_tie, {"GEN_GLG": "C", "TYPE": ""})])
    for region in (None, Region(79, 43, 83, 47)):
        made = check_legend(path, GEO3AL, region)
        assert made.mended == 1
        assert made.codes[0].area_km2 == pytest.approx(by_pyproj(left) + by_pyproj(right), rel=1e-6)


def test_the_check_and_the_raster_agree(patchwork):
    made = rasterize([(patchwork, GEO3AL)], HERE, 0.1)
    checked = check_legend(patchwork, GEO3AL)
    assert {k: v for k, v in checked.class_km2.items() if k != 255} == pytest.approx(
        {k: v for k, v in made.class_km2.items() if k != 255}, rel=1e-5
    )


@pytest.mark.parametrize(
    ("code", "known", "near"),
    [
        ("c", ["C", "Cz"], ["C"]),
        ("C z", ["C", "Cz"], ["Cz"]),
        ("\u0421", ["C", "Cz"], ["C"]),  # a Cyrillic С
        ("\u0422\u0440", ["TP", "Tp"], ["TP", "Tp"]),  # Тр
        ("Ｃ", ["C"], ["C"]),  # a full-width letter
        ("D\u2081", ["D1", "D"], ["D1"]),  # a subscript
        ("CD", ["C", "D"], []),
        ("C", ["C"], []),
    ],
)
def test_near_misses_are_reported_and_never_used(code, known, near):
    assert similar_codes(code, known) == near


def test_ages_in_two_fields_of_numbers(write_map):
    rows = [
        {"b_age": 419.2, "t_age": 358.9},
        {"b_age": 419.2, "t_age": 298.9},
        {"b_age": 254.1, "t_age": 250.1},  # over the boundary of the cover: 2.2 of 4 Ma are Permian
        {"b_age": 300.0, "t_age": 400.0},
        {"b_age": np.nan, "t_age": 2.0},
        {"b_age": 5000.0, "t_age": 2.0},
        {"b_age": 10.0, "t_age": -1.0},
        {"b_age": np.nan, "t_age": np.nan},
    ]
    made = check_legend(ages(write_map, rows), ICS)
    assert made.field == "b_age, t_age"
    assert classes_of(made) == {
        "419.2 → 358.9": 6,
        "419.2 → 298.9": 6,
        "254.1 → 250.1": 8,
        "300 → 400": None,
        "→ 2": None,
        "5000 → 2": None,
        "10 → -1": None,
        "": None,
    }
    why = {entry.code: entry.note for entry in made.codes}
    assert why["300 → 400"] == "the oldest age 300 is younger than the youngest 400"
    assert "blank" in why["→ 2"]
    assert "Earth" in why["5000 → 2"]
    assert "negative" in why["10 → -1"]


def test_ages_in_two_fields_of_names(write_map):
    rows = [
        {"b_int_name": "Late Devonian", "t_int_name": "Mississippian"},
        {"b_int_name": "Holocene", "t_int_name": "Holocene"},
        {"b_int_name": "Devonian", "t_int_name": "Ordovician"},
    ]
    made = check_legend(ages(write_map, rows), ICS)
    assert classes_of(made) == {
        "Late Devonian → Mississippian": 7,  # 23.8 Ma and 35.7 Ma
        "Holocene → Holocene": 0,
        "Devonian → Ordovician": None,
    }


def test_the_first_pair_of_fields_of_the_map_is_used_and_reported(write_map):
    row = {"AGE": "Devonian", "T_AGE": 0.0, "B_AGE": 2.0, "other": 7.0}
    made = check_legend(ages(write_map, [row]), ICS)
    assert (made.field, made.codes[0].index) == ("B_AGE, T_AGE", 0)  # whatever their case
    assert any("read from B_AGE, T_AGE" in note for note in made.notes)
    assert check_legend(ages(write_map, [row]), replace_field(ICS, "AGE")).codes[0].index == 6
    assert check_legend(ages(write_map, [row]), replace_field(ICS, "other,T_AGE")).codes[0].code == "7 → 0"
    with pytest.raises(InputError, match="b_age,t_age or b_int_age") as error:
        check_legend(ages(write_map, [{"STRAT": "Devonian"}]), ICS)
    assert "STRAT" in str(error.value)
    assert "--field" in str(error.value)


def test_an_override_beats_an_age(write_map):
    text = 'name = "x"\nclasses = "bedrock10"\n[map.ages]\nfield = "AGE"\n'
    text += "[map.override.ROCK]\ngranite = { class = 10, unless = [0] }"
    rows = [
        {"AGE": "Devonian", "ROCK": "granite"},
        {"AGE": "Neogene", "ROCK": "granite"},
        {"AGE": "Silurian", "ROCK": ""},
    ]
    path = ages(write_map, rows)
    legend = read_legend(text, "text")
    assert [entry.index for entry in sorted(check_legend(path, legend).codes, key=lambda e: e.code)] == [10, 0, 5]
    made = rasterize([(path, legend)], HERE, 0.5)
    assert made.values[0, 1:6:2].tolist() == [10, 0, 5]
    # The legend beside the raster records how it was made, and is read back.
    assert read_legend(legend_to_toml(made.legend), "text") == made.legend
    assert "ICS" in made.legend.sources[0]["ages"]


def test_a_code_padded_or_decomposed_in_the_map_is_the_legends(write_map):
    text = 'name = "x"\nclasses = "bedrock10"\n[map]\nfield = "U"\n[map.codes]\n"\u00e9" = 6'
    made = check_legend(ages(write_map, [{"U": " e\u0301\u00a0"}, {"U": "\u00e9"}]), read_legend(text, "text"))
    assert [(entry.code, entry.index, entry.polygons) for entry in made.codes] == [("\u00e9", 6, 2)]


def test_bad_maps_are_refused(write_map, tmp_path):
    empty = tmp_path / "empty.gpkg"
    geopandas.GeoDataFrame({"AGE": []}, geometry=[], crs="EPSG:4326").to_file(
        empty, geometry_type="Polygon", engine="pyogrio"
    )
    points = write_map([(Point(80, 44), {"AGE": "Devonian"})], "points.gpkg")
    lines = write_map([(LineString([(80, 44), (81, 45)]), {"AGE": "Devonian"})], "lines.gpkg")
    hollow = write_map([(MultiPolygon(), {"AGE": "Devonian"})], "hollow.gpkg")
    away = write_map([(tile(0), {"AGE": "Devonian"})], "away.gpkg")
    cases = [
        (empty, None, "no polygon"),
        (points, None, "Point"),
        (lines, None, "LineString"),
        (hollow, None, "no polygons"),
    ]
    for path, region, words in [*cases, (away, Region(10, 10, 12, 12), "no polygons in the region")]:
        with pytest.raises(InputError, match=words):
            check_legend(path, ICS, region)


def test_fields_that_differ_in_case_alone_are_not_guessed(tmp_path):
    path = tmp_path / "twins.geojson"
    path.write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"Unit": "C", "UNIT": "D"}, '
        '"geometry": {"type": "Polygon", "coordinates": [[[80, 44], [81, 44], [81, 45], [80, 44]]]}}]}'
    )
    legend = read_legend('name = "x"\nclasses = "bedrock10"\n[map]\nfield = "unit"\n[map.codes]\nC = 7\nD = 6', "text")
    with pytest.raises(InputError, match="Unit and UNIT"):
        check_legend(path, legend)
    assert check_legend(path, replace_field(legend, "UNIT")).codes[0].index == 6
    with pytest.raises(InputError, match="no field AGE"):
        check_legend(path, replace_field(legend, "AGE"))


def test_a_shapefile_without_an_encoding_is_refused(write_map):
    path = write_map([(tile(0), {"UNIT": "Девон"})], "map.shp")
    table = path.with_suffix(".dbf")
    raw = table.read_bytes()
    assert "Девон".encode() in raw
    table.write_bytes(raw.replace("Девон".encode(), "Девон".encode("cp1251").ljust(10)))
    legend = read_legend('name = "x"\nclasses = "bedrock10"\n[map]\nfield = "UNIT"\n[map.codes]\n"Девон" = 6', "text")
    path.with_suffix(".cpg").write_text("CP1251")
    assert check_legend(path, legend).codes[0].index == 6
    path.with_suffix(".cpg").write_text("UTF-8")
    with pytest.raises(InputError, match="cpg"):
        check_legend(path, legend)
