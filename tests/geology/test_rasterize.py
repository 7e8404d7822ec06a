import logging
import shutil
import subprocess

import geopandas
import numpy as np
import pytest
import rasterio
from pyproj import Geod, Transformer
from rasterio.transform import from_bounds
from shapely.affinity import rotate
from shapely.geometry import LineString, Point, Polygon, box
from shapely.ops import unary_union

from gravmap.errors import InputError, OptionError
from gravmap.geology import load_legend, rasterize
from gravmap.geology.legend_file import read_legend
from gravmap.geology.rasterize import grid_shape
from gravmap.regions import Region

GEO3AL = load_legend("geo3al")
HERE = Region(80, 44, 85, 46)


def burn(path, legend=GEO3AL, region=HERE, resolution=0.1):
    return rasterize([(path, legend)], region, resolution)


def test_codes_become_classes_and_gaps_are_not_cover(patchwork):
    made = burn(patchwork)
    assert made.values.shape == (20, 50)
    assert made.values.dtype == np.uint8
    assert made.bounds_wsen == (80, 44, 85, 46)
    columns = made.values[:, 5::10]
    assert (columns == [7, 0, 0, 10, 255]).all()
    assert made.unknown == ()
    assert made.class_km2[7] == pytest.approx(made.class_km2[255])
    assert made.class_km2[0] == pytest.approx(2 * made.class_km2[7])


def test_north_is_up(write_map):
    path = write_map(
        [(box(80, 45, 85, 46), {"GEN_GLG": "D", "TYPE": ""}), (box(80, 44, 85, 45), {"GEN_GLG": "S", "TYPE": ""})]
    )
    made = burn(path)
    assert (made.values[:10] == 6).all()
    assert (made.values[10:] == 5).all()


def test_areas_are_those_of_the_polygons(write_map):
    shape = Polygon([(80.3, 44.2), (84.1, 44.5), (82.6, 45.8)])
    made = burn(write_map([(shape, {"GEN_GLG": "D", "TYPE": ""})]), resolution=1 / 120)
    area, _ = Geod(ellps="WGS84").geometry_area_perimeter(shape.segmentize(0.01))
    assert made.class_km2[6] == pytest.approx(abs(area) / 1e6, rel=2e-4)
    assert made.codes[0].area_km2 == made.class_km2[6]


def ragged(seed, count=40):
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(count):
        corners = rng.uniform(0, 1.5, (rng.integers(3, 9), 2)) + rng.uniform((79.5, 43.5), (85, 46))
        shape = Polygon(corners).convex_hull
        if rng.random() < 0.3:  # a hole, and a second part
            shape = unary_union([shape.difference(shape.centroid.buffer(0.1)), rotate(box(81, 44, 81.2, 44.1), 30)])
        shapes.append(shape)
    return shapes


def test_pixels_agree_with_gdal(write_map, tmp_path):
    tool = shutil.which("gdal_rasterize")
    if tool is None:
        pytest.skip("gdal_rasterize is not installed")
    rng = np.random.default_rng(1)
    codes = list(GEO3AL.codes)
    rows = [(shape, {"GEN_GLG": codes[rng.integers(len(codes))], "TYPE": ""}) for shape in ragged(0)]
    rows = [
        (shape, {**row, "V": GEO3AL.codes[row["GEN_GLG"]]}) for shape, row in rows if row["GEN_GLG"] not in GEO3AL.gaps
    ]
    path = write_map(rows)
    made = burn(path, resolution=0.01)
    extent = [str(side) for side in (80, 44, 85, 46)]
    out = tmp_path / "gdal.tif"
    options = ["-q", "-a", "V", "-init", "255", "-ot", "Byte", "-te", *extent, "-ts", "500", "200"]
    subprocess.run([tool, *options, str(path), str(out)], check=True)
    with rasterio.open(out) as raster:
        assert (raster.read(1) == made.values).all()


def test_pixels_agree_with_their_centres(write_map):
    shapes = ragged(2, count=6)
    rows = [(shape, {"GEN_GLG": code, "TYPE": ""}) for shape, code in zip(shapes, "COSDPK", strict=True)]
    made = burn(write_map(rows), resolution=0.05)
    lat, lon = 46 - 0.025 - 0.05 * np.arange(40), 80 + 0.025 + 0.05 * np.arange(100)
    for row in range(0, 40, 3):
        for column in range(0, 100, 7):
            here = Point(lon[column], lat[row])
            over = [code for shape, code in zip(shapes, "COSDPK", strict=True) if shape.contains(here)]
            assert made.values[row, column] == (GEO3AL.codes[over[-1]] if over else 255)


def test_a_projected_map_is_reprojected(write_map):
    """A tilted square in a Lambert conformal system: inside and outside are known from pyproj."""
    lambert = "+proj=lcc +lat_1=30 +lat_2=62 +lon_0=105 +lat_0=0 +datum=WGS84 +units=m"
    forward = Transformer.from_crs("EPSG:4326", lambert, always_xy=True)
    x, y = forward.transform(82.5, 45)
    square = box(x - 60e3, y - 60e3, x + 60e3, y + 60e3)
    made = burn(write_map([(square, {"GEN_GLG": "D", "TYPE": ""})], crs=lambert), resolution=0.02)
    lat, lon = np.meshgrid(46 - 0.01 - 0.02 * np.arange(100), 80 + 0.01 + 0.02 * np.arange(250), indexing="ij")
    east, north = forward.transform(lon, lat)
    inside = (abs(east - x) < 60e3) & (abs(north - y) < 60e3)
    assert (made.values[inside] == 6).all()
    assert (made.values[~inside] == 255).all()
    assert made.maps[0].crs != "EPSG:4326"


def test_a_long_edge_in_a_projection_bends(write_map):
    """A neatline of 1000 km along a Lambert ordinate sags by kilometres from the straight line between its ends."""
    lambert = "+proj=lcc +lat_1=30 +lat_2=62 +lon_0=82 +lat_0=45 +datum=WGS84 +units=m"
    made = rasterize(
        [(write_map([(box(-500e3, -500e3, 500e3, 0), {"GEN_GLG": "D", "TYPE": ""})], crs=lambert), GEO3AL)],
        Region(76, 44.5, 88, 46),
        0.01,
    )
    back = Transformer.from_crs(lambert, "EPSG:4326", always_xy=True)
    _, edge = back.transform(np.linspace(-450e3, 450e3, 7), np.zeros(7))
    lon, _ = back.transform(np.linspace(-450e3, 450e3, 7), np.zeros(7))
    assert max(edge) - min(edge) > 0.1
    for x, y in zip(lon, edge, strict=True):
        column = int((x - 76) / 0.01)
        last = np.flatnonzero(made.values[:, column] == 6)[0]
        assert abs(46 - last * 0.01 - y) < 0.012


def fsu_shapefile(write_map, frame_crs=None):
    return write_map(
        [(box(80, 44, 82, 46), {"Glg": "C"}), (box(82, 44, 85, 46), {"Glg": "oth"})], "fsu_geol.shp", frame_crs
    )


def test_a_missing_prj_is_replaced_by_the_legends_system(write_map):
    """Pulkovo 1942 lies some hundred metres beside WGS 84 here; the distance is from PROJ."""
    path = fsu_shapefile(write_map)
    assert not path.with_suffix(".prj").exists()
    made = burn(path, load_legend("fsu_geol"), Region(79.99, 43.99, 80.01, 44.01), 1 / 36000)
    assert made.maps[0].crs == "EPSG:4284"
    west, south = Transformer.from_crs("EPSG:4284", "EPSG:4326", always_xy=True).transform(80, 44)
    assert abs(west - 80) > 2e-4  # a shift is due at all
    rows, columns = np.nonzero(made.values == 7)
    assert 79.99 + columns.min() / 36000 == pytest.approx(west, abs=3e-5)
    assert 44.01 - (rows.max() + 1) / 36000 == pytest.approx(south, abs=3e-5)


def test_a_map_that_states_its_system_is_believed(write_map):
    made = burn(fsu_shapefile(write_map, "EPSG:4326"), load_legend("fsu_geol"))
    assert made.maps[0].crs == "EPSG:4326"
    assert (made.values[:, :20] == 7).all()


def test_a_map_without_a_system_is_refused(write_map):
    path = write_map([(box(80, 44, 82, 46), {"GEN_GLG": "C", "TYPE": ""})], "bare.shp", None)
    with pytest.raises(InputError, match=r"coordinate reference system[\s\S]*\.prj"):
        burn(path)


def test_a_field_in_other_case_is_used_and_reported(write_map, caplog):
    path = write_map([(box(80, 44, 82, 46), {"GLG": "C"})])
    with caplog.at_level(logging.INFO, logger="gravmap"):
        made = burn(path, load_legend("fsu_geol"))
    assert (made.values[:, :20] == 7).all()
    assert made.maps[0].field == "GLG"
    assert "GLG" in caplog.text


def test_an_earlier_map_wins_but_shows_through_its_gaps(write_map):
    first = write_map(
        [(box(80, 44, 82, 46), {"GEN_GLG": "C", "TYPE": ""}), (box(82, 44, 83, 46), {"GEN_GLG": "oth", "TYPE": ""}),
         (box(83, 44, 84, 46), {"GEN_GLG": "Pz", "TYPE": ""})], "first.gpkg",
    )  # fmt: skip
    second = write_map([(box(81, 44, 85, 46), {"GEN_GLG": "D", "TYPE": ""})], "second.gpkg")
    made = rasterize([(first, GEO3AL), (second, GEO3AL)], HERE, 0.1)
    # C before D; "oth" is a gap, so D; Pz is an age, if a useless one, so nothing; then D.
    assert (made.values[:, 5::10] == [7, 7, 6, 255, 6]).all()
    other = rasterize([(second, GEO3AL), (first, GEO3AL)], HERE, 0.1)
    assert (other.values[:, 5::10] == [7, 6, 6, 6, 6]).all()
    assert [entry["file"] for entry in made.legend.sources] == ["first.gpkg", "second.gpkg"]
    assert made.legend.sources[0]["codes"]["oth"] == "gap"


def test_maps_of_different_class_tables_are_refused(patchwork):
    mine = read_legend(
        'name="x"\n[[class]]\nindex=1\nname="a"\ncolour="#000000"\n[map]\nfield="GEN_GLG"\n[map.codes]\nC=1', "x"
    )
    with pytest.raises(InputError, match="class tables: basement10 and x"):
        rasterize([(patchwork, GEO3AL), (patchwork, mine)], HERE, 0.1)
    old = read_legend('name="x"\nclasses="bedrock10"\n[map]\nfield="GEN_GLG"\n[map.codes]\nC=7', "x")
    with pytest.raises(InputError, match="add --classes bedrock10"):
        rasterize([(patchwork, GEO3AL), (patchwork, old)], HERE, 0.1)


def test_invalid_polygons_are_mended_and_counted(write_map, bow_tie):
    path = write_map([(bow_tie, {"GEN_GLG": "D", "TYPE": ""}), (box(83, 44, 84, 46), {"GEN_GLG": "C", "TYPE": ""})])
    made = burn(path, resolution=0.05)
    assert made.maps[0].mended == 1
    lat, lon = np.meshgrid(46 - 0.025 - 0.05 * np.arange(40), 80 + 0.025 + 0.05 * np.arange(100), indexing="ij")
    inside = (abs(lat - 45) < abs(lon - 81) - 1e-9) & (lon < 82)  # the triangles open to the west and the east
    beside = (abs(lat - 45) > abs(lon - 81) + 1e-9) | (lon > 82)
    got = made.values == 6
    assert got[inside].all()
    assert not got[beside].any()


def test_both_lobes_of_a_bow_tie_survive_reprojection(write_map, bow_tie):
    """GEOS drops a lobe when the edges of an invalid polygon are cut up, which reprojection does."""
    rows = [(bow_tie, {"GEN_GLG": "D", "TYPE": ""}), (box(83, 44, 84, 46), {"GEN_GLG": "C", "TYPE": ""})]
    plain = burn(write_map(rows), resolution=0.05)
    utm = geopandas.GeoSeries([shape for shape, _ in rows], crs="EPSG:4326").to_crs("EPSG:32645")
    projected = write_map(list(zip(utm, [row for _, row in rows], strict=True)), name="utm.gpkg", crs="EPSG:32645")
    made = burn(projected, resolution=0.05)
    assert made.maps[0].mended == 1
    assert made.class_km2[6] == pytest.approx(plain.class_km2[6], rel=0.02)


def test_unknown_codes_are_named_with_their_area(write_map, caplog):
    unknown = box(82, 44, 83, 46)
    path = write_map(
        [(box(80, 44, 82, 46), {"GEN_GLG": "C ", "TYPE": ""}), (unknown, {"GEN_GLG": "Zz", "TYPE": ""}),
         (box(83, 44, 84, 46), {"GEN_GLG": None, "TYPE": None})],
    )  # fmt: skip
    made = burn(path)
    assert (made.values[:, 5::10] == [7, 7, 255, 255, 255]).all()
    area = abs(Geod(ellps="WGS84").geometry_area_perimeter(unknown.segmentize(0.01))[0]) / 1e6
    found = {entry.code: entry for entry in made.unknown}
    assert set(found) == {"Zz", "(blank)"}
    assert found["Zz"].area_km2 == pytest.approx(area, rel=1e-6)
    assert found["Zz"].polygons == 1
    assert "Zz" in caplog.text
    assert f"{area:,.0f} km²" in caplog.text


def test_a_map_of_unknown_codes_alone_is_refused(write_map):
    path = write_map([(box(80, 44, 82, 46), {"GEN_GLG": "Carboniferous", "TYPE": ""})])
    with pytest.raises(InputError, match="Carboniferous"):
        burn(path)


def test_whole_numbers_are_codes_too(write_map):
    for name, values in (("ints.gpkg", [7, 0]), ("floats.gpkg", [7.0, 0.0]), ("text.gpkg", ["7", " 0 "])):
        path = write_map(
            [(box(80, 44, 82, 46), {"class": values[0]}), (box(82, 44, 85, 46), {"class": values[1]})], name
        )
        made = burn(path, load_legend("bedrock10"))
        assert (made.values[:, 5::10] == [7, 7, 0, 0, 0]).all()


def test_the_wrong_field_or_layer_is_refused(patchwork, write_map, tmp_path):
    with pytest.raises(InputError, match=r"Glg.*GEN_GLG, TYPE"):
        burn(patchwork, load_legend("fsu_geol"))
    doubled = geopandas.GeoDataFrame({"glg": ["C"], "GLg": ["D"]}, geometry=[box(80, 44, 82, 46)], crs="EPSG:4326")
    doubled.to_file(tmp_path / "doubled.geojson")  # GeoJSON keeps names that differ by case alone
    with pytest.raises(InputError, match="--field"):
        burn(tmp_path / "doubled.geojson", load_legend("fsu_geol"))
    with pytest.raises(InputError, match=r"no \[map\]"):
        burn(patchwork, read_legend('name="x"\n[[class]]\nindex=1\nname="a"\ncolour="#000000"', "x"))


@pytest.mark.parametrize("shape", [Point(81, 45), LineString([(80, 44), (85, 46)])])
def test_points_and_lines_are_refused(write_map, shape):
    with pytest.raises(InputError, match=shape.geom_type):
        burn(write_map([(shape, {"GEN_GLG": "C", "TYPE": ""})]))


def test_the_layer_with_the_field_is_found(write_map, tmp_path):
    path = write_map([(box(80, 44, 82, 46), {"GEN_GLG": "C", "TYPE": ""})])
    faults = geopandas.GeoDataFrame({"name": ["f"]}, geometry=[LineString([(80, 44), (85, 46)])], crs="EPSG:4326")
    faults.to_file(path, layer="faults")
    assert (burn(path).values[:, :20] == 7).all()


def test_a_zip_is_opened(write_map, tmp_path):
    path = write_map([(box(80, 44, 82, 46), {"GEN_GLG": "C", "TYPE": ""})], "geo3al.shp")
    folder = tmp_path / "inside"
    folder.mkdir()
    for part in tmp_path.glob("geo3al.*"):
        part.rename(folder / part.name)
    archive = shutil.make_archive(str(tmp_path / "geo3al"), "zip", folder)
    assert (burn(tmp_path / "geo3al.zip").values[:, :20] == 7).all()
    with open(archive, "r+b") as stream:
        stream.truncate(200)
    with pytest.raises(InputError, match="zip"):
        burn(tmp_path / "geo3al.zip")
    assert not path.exists()


def test_a_map_elsewhere_is_refused(patchwork):
    with pytest.raises(InputError, match=r"80E-84E 44N-46N"):
        burn(patchwork, region=Region(10, 44, 12, 46))


def test_of_two_maps_one_may_lie_elsewhere(patchwork, write_map, caplog):
    far = write_map([(box(10, 44, 12, 46), {"GEN_GLG": "C", "TYPE": ""})], "far.gpkg")
    made = rasterize([(far, GEO3AL), (patchwork, GEO3AL)], HERE, 0.1)
    assert (made.values[:, 5::10] == [7, 0, 0, 10, 255]).all()
    assert "far.gpkg" in caplog.text


def test_missing_broken_and_empty_files(tmp_path, write_map):
    with pytest.raises(InputError, match="missing"):
        burn(tmp_path / "none.gpkg")
    (tmp_path / "page.shp").write_text("<html>403</html>")
    with pytest.raises(InputError, match="GDAL"):
        burn(tmp_path / "page.shp")
    empty = geopandas.GeoDataFrame({"GEN_GLG": [], "TYPE": []}, geometry=[], crs="EPSG:4326")
    empty.to_file(tmp_path / "empty.gpkg")
    with pytest.raises(InputError, match="nothing"):
        burn(tmp_path / "empty.gpkg")
    with pytest.raises(InputError, match="No map"):
        rasterize([], HERE)


def test_a_raster_that_does_not_divide_the_region_reaches_beyond():
    rows, columns, bounds = grid_shape(Region(80, 44, 81, 45), 0.3)
    assert (rows, columns) == (4, 4)
    assert bounds == pytest.approx((80, 43.8, 81.2, 45))
    assert grid_shape(Region(65, 40, 95, 55), 15 / 3600) == (3600, 7200, (65, 40, 95, 55))
    for bad in (0, -1, 2):
        with pytest.raises(OptionError):
            grid_shape(Region(80, 44, 81, 45), bad)


def test_transform_of_the_grid_is_the_regions(patchwork):
    made = burn(patchwork, resolution=0.25)
    assert from_bounds(*made.bounds_wsen, *made.values.shape[::-1]).a == pytest.approx(0.25)


ACROSS = Polygon([(178, 60), (-178, 60), (-178, 66), (178, 66)])
CUT = [(box(176, 60, 180, 66), "C"), (box(-180, 60, -176, 66), "Q")]


@pytest.mark.parametrize(
    ("rows", "region", "expected"),
    [
        (CUT, (175, 60, 185, 66), [255, 7, 7, 7, 7, 0, 0, 0, 0, 255]),
        ([(box(176, 60, 180, 66), "C"), (box(180, 60, 184, 66), "Q")], (-180, 60, -175, 66), [0, 0, 0, 0, 255]),
        ([(box(356, 0, 360, 6), "C"), (box(0, 0, 4, 6), "Q")], (-3, 0, 3, 6), [7, 7, 7, 0, 0, 0]),
        ([(ACROSS, "C")], (175, 60, 185, 66), [255, 255, 255, 7, 7, 7, 7, 255, 255, 255]),
        ([(ACROSS, "C"), (box(-179, 60, -178, 66), "Q")], (-180, 60, -176, 66), [7, 0, 255, 255]),
        ([(ACROSS, "C"), (box(80, 60, 81, 66), "Q")], (80, 60, 83, 66), [0, 255, 255]),
        ([(box(-180, -90, 180, 90), "C")], (178, 60, 182, 66), [7, 7, 7, 7]),
    ],
)
def test_longitudes_are_turned_into_the_count_of_the_region(write_map, rows, region, expected):
    path = write_map([(shape, {"GEN_GLG": code, "TYPE": ""}) for shape, code in rows])
    assert burn(path, region=Region(*region), resolution=1.0).values[3].tolist() == expected


@pytest.mark.parametrize("crs", ["EPSG:3571", "EPSG:3857", "EPSG:6931"])
def test_projected_maps_at_the_antimeridian(tmp_path, crs):
    """The three projections are cut at 180 degrees, at Greenwich, and nowhere."""
    rows = geopandas.GeoSeries([shape for shape, _ in CUT], crs="EPSG:4326").segmentize(0.5).to_crs(crs)
    path = tmp_path / "map.gpkg"
    geopandas.GeoDataFrame({"GEN_GLG": ["C", "Q"], "TYPE": ""}, geometry=rows).to_file(path)
    assert burn(path, region=Region(175, 60, 185, 66), resolution=1.0).values[3].tolist() == [
        255,
        *[7] * 4,
        *[0] * 4,
        255,
    ]


def test_a_polygon_around_the_pole_includes_it(tmp_path):
    path = tmp_path / "map.gpkg"
    ring = Point(0, 0).buffer(1_100_000).difference(Point(0, 0).buffer(500_000))
    geopandas.GeoDataFrame({"GEN_GLG": ["C"], "TYPE": ""}, geometry=[ring], crs="EPSG:3413").to_file(path)
    values = burn(path, region=Region(170, 78, 190, 90), resolution=1.0).values
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3413", always_xy=True).transform([180] * 12, np.arange(89.5, 78, -1))
    inside = (np.hypot(x, y) > 500_000) & (np.hypot(x, y) < 1_100_000)
    assert 4 < inside.sum() < 8
    assert ((values == 7) == inside[:, None]).all()
