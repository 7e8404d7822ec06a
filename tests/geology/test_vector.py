"""Vector files that are damaged, or written in another way than usual: read in full, or refused."""

import json
import shutil
import sqlite3
import struct
import zipfile

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from shapely.geometry import GeometryCollection, LineString, Polygon, box, mapping

from gravmap.errors import InputError
from gravmap.geology import rasterize, scanline, vector
from gravmap.geology.areas import are_flat, crosses_often, crossing_areas_km2, polygon_areas_km2
from gravmap.geology.faults import read_faults
from gravmap.geology.geological_map import read_map
from gravmap.geology.legend_check import check_legend
from gravmap.geology.legend_draft import draft_legend
from gravmap.geology.legend_file import read_legend
from gravmap.geology.vector import open_vector, to_wgs84
from gravmap.geology.wkb import from_wkb
from gravmap.regions import Region

CODES = ("C", "P", "D", "S")


def legend(*codes, extra=""):
    lines = "".join(f'"{code}" = {6 + k}\n' for k, code in enumerate(codes or CODES))
    return read_legend(f'name = "u"\nclasses = "bedrock10"\n[map]\nfield = "UNIT"\n{extra}[map.codes]\n{lines}', "text")


@pytest.fixture
def four(write_map):
    """Write four units side by side between 80-84 E and 44-46 N, as a file of a given name."""
    circles = [shapely.Point(80.5 + k, 45).buffer(0.45) for k in range(4)]
    return lambda name="map.shp": write_map(list(zip(circles, [{"UNIT": code} for code in CODES], strict=True)), name)


def overwrite(path, at, data):
    raw = bytearray(path.read_bytes())
    raw[at : at + len(data)] = data
    path.write_bytes(raw)


def refused(path, words, made=None):
    with pytest.raises(InputError, match=words):
        read_map(path, made or legend(), None)


def test_a_zip_with_a_wrong_checksum_is_refused(four, tmp_path):
    shapes = four()
    with zipfile.ZipFile(tmp_path / "map.zip", "w") as archive:  # stored, so that GDAL would read the damage
        for suffix in (".shp", ".shx", ".dbf", ".prj", ".cpg"):
            archive.write(shapes.with_suffix(suffix), f"map{suffix}")
    assert len(read_map(tmp_path / "map.zip", legend(), None).codes) == 4
    overwrite(tmp_path / "map.zip", 500, bytes(64))
    refused(tmp_path / "map.zip", "damaged: Bad CRC-32 for file 'map.shp'")


def test_damaged_shapefiles_are_refused(four):
    path = four()
    whole = path.read_bytes()
    second = 2 * struct.unpack(">i", path.with_suffix(".shx").read_bytes()[108:112])[0]
    cases = [
        (second, bytes(300), "1 of 4 features whose geometry cannot be read; the first is number 2"),
        (second + 12 + 32 + 12, struct.pack("<d", 0.0), "bounds for 1 of 4 features"),
        (second + 12 + 32 + 12, struct.pack("<d", 1e300), "beyond 1e\\+12"),
    ]
    for at, data, words in cases:
        overwrite(path, at, data)
        refused(path, words)
        path.write_bytes(whole)
    path.write_bytes(whole[:-500])
    refused(path, "places 1 of 4 records outside")
    path.write_bytes(whole)
    overwrite(path.with_suffix(".dbf"), 4, struct.pack("<I", 3))
    refused(path, "4 shapes, but its .dbf has 3 rows")


def test_deleted_rows_of_a_shapefile_are_no_loss(four, monkeypatch):
    path = four()
    first = struct.unpack("<H", path.with_suffix(".dbf").read_bytes()[8:10])[0]
    overwrite(path.with_suffix(".dbf"), first, b"*")
    assert [code for (code,) in read_map(path, legend(), None).codes] == ["P", "D", "S"]
    monkeypatch.setattr(vector, "_FEATURES_PER_READ", 2)  # GDAL then reads some features twice
    assert [code for (code,) in read_map(path, legend(), None).codes] == ["P", "D", "S"]


def test_damaged_geopackages_are_refused(four):
    path = four("map.gpkg")
    whole = path.read_bytes()
    vertex = struct.pack("<d", float(shapely.get_coordinates(shapely.Point(81.5, 45).buffer(0.45))[0, 0]))
    at = whole.index(vertex, whole.index(vertex) + 8)  # the first is in the header of the geometry
    overwrite(path, at, struct.pack("<d", 81.0))
    refused(path, "bounds for 1 of 4 features")
    path.write_bytes(whole)
    with sqlite3.connect(path) as database:
        database.create_function("ST_IsEmpty", 1, lambda _: 0)
        database.create_function("ST_MinX", 1, lambda _: 80.0)
        database.create_function("ST_MaxX", 1, lambda _: 80.0)
        database.create_function("ST_MinY", 1, lambda _: 44.0)
        database.create_function("ST_MaxY", 1, lambda _: 44.0)
        database.execute("UPDATE map SET geom = x'4750000100000000ffff' WHERE UNIT = 'P'")
    refused(path, "cannot be read")
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "map.gpkg")


def geojson(path, *features, **members):
    features = [
        {"type": "Feature", "properties": {"UNIT": code}, "geometry": shape}
        if isinstance(code, (str, list, dict))
        else code
        for code, shape in features
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **members}))
    return path


def test_features_that_gdal_leaves_out_of_geojson_are_missed(tmp_path):
    path = tmp_path / "map.geojson"
    good = ("C", mapping(box(80, 44, 81, 45)))
    for shape in (
        {"type": "Polygn", "coordinates": []},
        {"type": "Polygon", "coordinates": [[[80, None], [81, 44]]]},
        [],
    ):
        refused(geojson(path, good, ("P", shape)), "map.geojson")
    refused(geojson(path, good, (7, None)), "Item 2 of the features .* is not a feature")
    path.write_text(geojson(path, good).read_text().replace('"geometry"', '"geometry": null, "geometry"'))
    refused(path, "twice")
    refused(
        geojson(path, good, crs={"type": "name", "properties": {"name": "nonsense"}}), '"crs" that is not understood'
    )
    named = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
    made = read_map(geojson(path, good, ("P", None), crs=named), legend(), None)
    assert (made.codes, made.dropped) == ([("C",)], 1)


def test_a_list_or_an_object_is_no_code(tmp_path):
    path, shape = tmp_path / "map.geojson", mapping(box(80, 44, 81, 45))
    refused(geojson(path, (["C", "P"], shape)), r"field UNIT .* in 1 feature: \[C, P\]")
    refused(geojson(path, ({"a": 1}, shape), ("C", shape)), "field UNIT .* a list or an object")
    assert read_map(geojson(path, (["C"], shape), ("P", shape)), legend(), None).codes == [("C",), ("P",)]


def test_metres_are_not_taken_for_degrees(tmp_path):
    path = geojson(tmp_path / "map.geojson", ("C", mapping(box(577432, 4761300, 663019, 5095990))))
    refused(path, "no degrees .*EPSG:4326")
    with pytest.raises(InputError, match="no degrees"):
        read_map(path, legend(), Region(80, 44, 84, 46))
    beyond = read_map(geojson(path, ("C", mapping(box(179, 44, 190, 46)))), legend(), None)
    assert beyond.codes == [("C",)]


def test_polygons_inside_collections_are_read(tmp_path, write_map):
    both = GeometryCollection([box(80, 44, 81, 46), LineString([(81, 44), (81, 46)])])
    path = geojson(tmp_path / "map.geojson", ("C", mapping(both)), ("P", mapping(box(81, 44, 82, 46))))
    made = rasterize([(path, legend())], Region(80, 44, 82, 46), 0.1)
    assert (made.values == np.repeat([6, 7], 10)).all()
    assert read_faults(path, Region(80, 44, 82, 46)).count == 1


def wkb(kind, *parts):
    return struct.pack("<BII", 1, kind, len(parts)) + b"".join(parts)


def ring(*points):
    return struct.pack("<I", len(points)) + np.array(points, dtype="<f8").tobytes()


def test_surfaces_and_imperfect_rings_keep_their_area(tmp_path, caplog):
    lower, upper = ring((0, 0), (2, 0), (2, 2), (0, 0)), ring((0, 0), (2, 2), (0, 2), (0, 0))
    outline, hole = ring((0, 0), (2, 0), (2, 2), (0, 2), (0, 0)), ring((1, 1), (1.5, 1), (1.5, 1.5), (1, 1))
    blobs = [
        wkb(16, wkb(17, lower), wkb(17, upper)),  # TIN
        wkb(15, wkb(3, lower), wkb(3, upper)),  # polyhedral surface
        wkb(7, wkb(16, wkb(17, lower)), wkb(3, upper)),  # both in a collection
        wkb(17, lower),
        wkb(3, ring((0, 0), (2, 0), (2, 2), (0, 2))),  # not closed
        wkb(3, outline, ring((1, 1), (1, 1))),  # a hole of two points
        wkb(6, wkb(3, outline, hole), wkb(3, ring((5, 5), (6, 6)))),  # a part of two points
        wkb(3, ring((0, 0), (1, 1))),
        None,
    ]
    shapes, reduced = from_wkb(np.array(blobs, dtype=object), tmp_path, 0)
    assert np.flatnonzero(reduced).tolist() == [5, 6, 7]
    assert "1 features have rings that are not closed, the first is number 5" in caplog.text
    assert shapely.area(shapes[:7]).tolist() == [4, 4, 4, 2, 4, 4, 3.875]
    assert shapes[7] is None
    assert shapes[8] is None
    for blob, words in ((wkb(3, outline)[:-20], "invalid"), (wkb(7, wkb(10, lower)), "curves"), (b"\1", "invalid")):
        with pytest.raises(InputError, match=words):
            from_wkb(np.array([blob], dtype=object), tmp_path, 0)


def test_text_without_an_encoding_is_not_guessed(four):
    path = four()
    table = path.with_suffix(".dbf")
    path.with_suffix(".cpg").unlink()
    ascii_table = table.read_bytes()
    at = ascii_table.rindex(b"S")
    overwrite(table, 29, b"\0")
    overwrite(table, at, "К".encode("cp1251"))
    refused(path, r"nothing states their encoding.\n.*map.cpg.* CP1251 \(К\)", legend("C", "P", "D", "К"))
    path.with_suffix(".cpg").write_text("CP1251")
    assert read_map(path, legend(), None).codes[3] == ("К",)
    path.with_suffix(".cpg").unlink()
    with pytest.raises(InputError, match="CP1251"):
        draft_legend(path, "UNIT")
    # Correct as it has always been read, and certain.
    assert read_map(path, legend("Ê"), None).codes[3] == ("Ê",)
    overwrite(table, at, "К".encode())
    assert read_map(path, legend(), None).codes[3] == ("К",)


@pytest.mark.parametrize("damage", [b"\x7f\xff\xff\xff", b"XXXX"])
def test_a_damaged_prj_is_named(four, damage):
    path = four()
    overwrite(path.with_suffix(".prj"), 0 if damage == b"XXXX" else 8, damage)
    refused(path, "coordinate reference system .*\n.*\\.prj")


def test_a_zipped_geodatabase_is_read(four, tmp_path):
    pytest.importorskip("pyogrio")
    folder = tmp_path / "map.gdb"
    geopandas.read_file(four("map.gpkg")).to_file(folder, driver="OpenFileGDB")
    shutil.make_archive(str(tmp_path / "map.gdb"), "zip", tmp_path, "map.gdb")
    assert len(read_map(tmp_path / "map.gdb.zip", legend(), None).codes) == 4


def test_views_are_not_read(four):
    path = four("map.gpkg")
    with sqlite3.connect(path) as database:
        database.execute("CREATE VIEW v AS SELECT * FROM map")
        database.execute("INSERT INTO gpkg_contents (table_name, data_type, srs_id) VALUES ('v', 'features', 4326)")
        database.execute("INSERT INTO gpkg_geometry_columns VALUES ('v', 'geom', 'POLYGON', 4326, 0, 0)")
    assert [name for name, _ in open_vector(path).layers] == ["map"]
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM gpkg_geometry_columns WHERE table_name = 'map'")
        database.execute("DELETE FROM gpkg_contents WHERE table_name = 'map'")
    refused(path, "but views: v")
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE gpkg_contents RENAME TO old")
        database.execute("CREATE VIEW gpkg_contents AS SELECT * FROM old")
    refused(path, "views in place of its tables")


def test_areas_of_outlines_that_cross_themselves(tmp_path, write_map):
    rng = np.random.default_rng(0)
    few = np.array([Polygon(rng.uniform((80, 44), (83, 46), (30, 2))) for _ in range(3)])
    exact = polygon_areas_km2(shapely.make_valid(few))
    assert crossing_areas_km2(few) == pytest.approx(exact, rel=1e-4)
    half = crossing_areas_km2(few, (80, 44, 81.5, 46)) + crossing_areas_km2(few, (81.5, 44, 83, 46))
    assert half == pytest.approx(exact, rel=1e-4)
    twice = shapely.MultiPolygon([box(80, 44, 82, 46), box(81, 44, 83, 46)])  # parts are united, as when rasterized
    assert crossing_areas_km2(np.array([twice])) == pytest.approx(polygon_areas_km2(np.array([box(80, 44, 83, 46)])))
    assert are_flat(np.array([Polygon([(80, 44), (82, 46.1), (81, 45.05), (80, 44)]), few[0]])).tolist() == [
        True,
        False,
    ]
    many = Polygon(rng.uniform((80, 44), (83, 46), (20_000, 2)))
    assert not crosses_often(few[0])
    assert crosses_often(many)
    found = check_legend(write_map([(many, {"UNIT": "C"})]), legend()).codes[0].area_km2
    assert found == pytest.approx(polygon_areas_km2(np.array([box(80, 44, 83, 46)]))[0] / 2, rel=0.05)


def test_rows_are_filled_in_bands_where_crossings_are_many(monkeypatch, bow_tie):
    rng = np.random.default_rng(1)
    polygons = np.array([Polygon(rng.uniform((80, 44), (83, 46), (40, 2))), bow_tie, box(80, 44, 82, 45)])

    def draw():
        canvas = scanline.Canvas((40, 60), (80, 44, 83, 46), np.arange(4, dtype=np.uint8), np.array([-1, 0, 0, 0]))
        canvas.draw(polygons, np.array([1, 2, 3]))
        return canvas.numbers, canvas.disputed

    at_once = draw()
    monkeypatch.setattr(scanline, "CROSSINGS_PER_BATCH", 100)
    for one, other in zip(at_once, draw(), strict=True):
        assert np.array_equal(one, other)


def test_coordinates_beyond_the_earth_take_no_memory():
    to_degrees = vector.crs_transformers("EPSG:32644", "file", "")[2]
    shapes = np.array([box(5e5, 5e6, 6e5, 5.1e6), box(5e5, 5e6, 1e11, 5.1e6)])
    degrees, valid = to_wgs84(shapes, to_degrees)
    assert valid.tolist() == [True, False]
    assert shapely.get_num_coordinates(degrees).max() < 200


def test_a_draft_advises_its_own_options(four):
    with pytest.raises(InputError, match="its fields are UNIT") as caught:
        draft_legend(four(), "nope")
    assert caught.value.hint == "Give another --field."
    path = four()
    path.with_suffix(".prj").unlink()
    with pytest.raises(InputError, match="--crs EPSG"):
        draft_legend(path, "UNIT")


def test_a_raster_is_no_map_of_polygons(tmp_path):
    path = tmp_path / "labels.tif"
    with rasterio.open(path, "w", driver="GTiff", width=2, height=2, count=1, dtype="uint8", crs="EPSG:4326") as file:
        file.write(np.ones((1, 2, 2), np.uint8))
    with pytest.raises(InputError, match="is a raster, and not a map of polygons"):
        open_vector(path)
