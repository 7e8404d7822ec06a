import sqlite3

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Geod
from rasterio.features import rasterize

from gravmap.mapping.layers import COVERED, EXTRAPOLATED, NEAR, OUTCROP, Block
from toys.layers import LEGEND, cut, grid, random_map, write_map

SHAPE = 150, 330


def polygons_of(files):
    return geopandas.read_file(files.paths["lithology.gpkg"], layer="lithology")


@pytest.fixture(scope="module")
def whole():
    return random_map(*SHAPE)


@pytest.fixture(scope="module")
def files(whole, tmp_path_factory):
    return write_map(tmp_path_factory.mktemp("map"), cut(whole, 64), grid(*SHAPE))


@pytest.fixture(scope="module")
def polygons(files):
    return polygons_of(files)


def burned(polygons, values, shape, cells=None):
    west, _, _, north = (cells or grid(*shape)).bounds_wsen
    step = (cells or grid(*shape)).spacing_deg[0]
    place = rasterio.transform.from_origin(west, north, step, step)
    return rasterize(zip(polygons.geometry, values, strict=True), out_shape=shape, transform=place, dtype="int32")


def test_they_are_valid_and_cover_the_map_once(polygons, files):
    assert polygons.is_valid.all()
    assert set(polygons.geom_type) == {"Polygon"}
    assert polygons.crs.to_epsg() == 4326
    cell = (1 / 30) ** 2
    assert shapely.area(polygons.geometry.values).sum() == pytest.approx(files.summary.cells * cell)
    assert shapely.union_all(polygons.geometry.values).area == pytest.approx(files.summary.cells * cell)


def test_areas_add_up_to_the_rasters(polygons, files):
    assert polygons.area_km2.sum() == pytest.approx(files.summary.km2, rel=1e-9)
    mapped = files.summary.evidence[OUTCROP - 1]
    assert polygons.area_km2[polygons.mapped].sum() == pytest.approx(mapped.km2, rel=1e-9)
    for area in files.summary.classes:
        assert polygons.area_km2[polygons["class"] == area.value].sum() == pytest.approx(area.km2, rel=0.01)


def test_areas_are_those_of_geodesics(polygons):
    # Geodesics between points a cell apart: a longer edge along a parallel would bulge poleward.
    dense = shapely.segmentize(polygons.geometry.values, 1 / 30)
    geod = Geod(ellps="WGS84")
    areas = [abs(geod.geometry_area_perimeter(shapely.geometry.polygon.orient(one))[0]) / 1e6 for one in dense]
    assert np.allclose(areas, polygons.area_km2, rtol=1e-5)


def test_classes_are_the_rasters_but_for_slivers(polygons, whole):
    classes = burned(polygons, polygons["class"], SHAPE)
    there = whole.lithology != 255
    assert ((classes > 0) == there).all()
    outcrop = whole.evidence == OUTCROP
    assert (burned(polygons, polygons.mapped + 1, SHAPE)[there] == outcrop[there] + 1).all()
    # Mapped cells never change, however small their patch.
    assert (classes[outcrop] == whole.lithology[outcrop]).all()
    moved = there & (classes != whole.lithology)
    assert 0 < moved.sum() < 0.005 * there.sum()


def test_the_attributes_of_a_polygon_are_those_of_its_cells(polygons, whole, files):
    owner = burned(polygons, np.arange(1, len(polygons) + 1), SHAPE)
    with rasterio.open(files.paths["probability.tif"]) as raster:
        probability = raster.read() / 200
    rows = np.indices(SHAPE)[0]
    weight = np.cos(np.radians(48 - (rows + 0.5) / 30))  # areas of cells up to a thousandth within so small a polygon
    names = [each.name for each in files.summary.evidence]
    for place in np.random.default_rng(0).choice(len(polygons), 60, replace=False):
        row, inside = polygons.iloc[place], owner == place + 1
        entry = LEGEND.bedrock[row["class"] - 1]
        assert (row["name"], row["age"], row["colour"]) == (entry.name, entry.age, entry.colour)
        mean = np.average(probability[row["class"] - 1][inside], weights=weight[inside])
        assert row.mean_probability == pytest.approx(mean, abs=2e-4)
        extrapolated = np.average(whole.evidence[inside] == EXTRAPOLATED, weights=weight[inside])
        assert row.share_extrapolated == pytest.approx(extrapolated, abs=2e-4)
        by_value = [weight[inside & (whole.evidence == value)].sum() for value in range(1, 5)]
        assert row.evidence == names[int(np.argmax(by_value))]


SMALL = grid(8, 10, north=45)


def drawn(text):
    return np.array([[int(letter) for letter in line] for line in text.split()], dtype=np.uint8)


def small_map(lithology, evidence, folder):
    probability = np.full((10, 8, 10), 0.05, dtype=np.float32)
    np.put_along_axis(probability, lithology[None].astype(int) - 1, 0.55, axis=0)
    uncertainty = {name: np.zeros((8, 10), dtype=np.float32) for name in ("entropy", "margin", "agreement")}
    return write_map(folder, [Block(0, 0, lithology, probability, uncertainty, evidence)], SMALL)


def test_slivers_go_to_predicted_neighbours_only(tmp_path):
    lithology = drawn("""
        1111111111
        1311122211
        1111122211
        4411111115
        1111111155
        6666666666
        6777666676
        6666666666""")
    evidence = np.full((8, 10), COVERED, dtype=np.uint8)
    evidence[5:] = OUTCROP
    evidence[6, 1:4] = NEAR  # three predicted cells of class 7, mapped rock all around
    kept = burned(found := polygons_of(small_map(lithology, evidence, tmp_path)), found["class"], (8, 10), SMALL)
    expected = lithology.copy()
    expected[1, 1] = expected[3, :2] = expected[3, 9] = expected[4, 8:] = 1
    assert (kept == expected).all()  # the one mapped cell of class 7 stays, and so do the three predicted ones
    three = found[(found["class"] == 7) & ~found.mapped]
    assert len(three) == 1
    assert three.evidence.item() == "within 25 km of mapped outcrop"
    # The mean includes the merged cells, whose predicted class was another one.
    one = found[(found["class"] == 1)].iloc[0]
    assert one.mean_probability < 0.55


def test_mapped_and_predicted_polygons_of_one_class_are_never_joined(tmp_path):
    lithology = np.full((8, 10), 4, dtype=np.uint8)
    evidence = np.full((8, 10), COVERED, dtype=np.uint8)
    evidence[:, :5] = OUTCROP
    found = polygons_of(small_map(lithology, evidence, tmp_path))
    assert sorted(found.mapped) == [False, True]
    assert [one.bounds for one in found.geometry[found.mapped]] == [pytest.approx((81, 45 - 8 / 30, 81 + 5 / 30, 45))]


def test_corners_that_touch_make_no_crossing(tmp_path):
    """Nothing but single cells: every outline meets itself."""
    toy = random_map(60, 80)
    rng = np.random.default_rng(1)
    toy.lithology[:] = rng.integers(1, 3, (60, 80))
    toy.evidence[:] = rng.choice([OUTCROP, COVERED], (60, 80))
    found = polygons_of(write_map(tmp_path, [toy], grid(60, 80)))
    assert found.is_valid.all()
    assert len(found) > 500


def test_a_map_without_a_cell_is_a_layer_without_a_polygon(tmp_path):
    files = write_map(tmp_path, [], grid(20, 20))
    assert len(polygons_of(files)) == 0
    assert files.summary.cells == 0


def test_the_style_lies_inside(files):
    with sqlite3.connect(files.paths["lithology.gpkg"]) as database:
        (row,) = database.execute(
            "SELECT f_table_name, f_geometry_column, useAsDefault, styleQML, styleSLD FROM layer_styles"
        ).fetchall()
        geometry = database.execute("SELECT table_name, column_name FROM gpkg_geometry_columns").fetchall()
    assert geometry == [row[:2]]
    assert row[2] == 1
    for entry in LEGEND.bedrock:
        assert entry.name in row[3]
        assert entry.colour in row[4]
