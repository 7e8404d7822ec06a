"""Filled cells, compared with GDAL, point in polygon, and counting by hand."""

import shutil
import subprocess

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
from pyproj import Geod
from rasterio.transform import from_bounds
from shapely.affinity import rotate
from shapely.geometry import MultiPolygon, Point, Polygon, box

from gravmap.geology.areas import row_cell_areas_km2
from gravmap.geology.scanline import BETWEEN, NO_OWNER, WITHIN, Canvas

BOUNDS, SHAPE = (80.0, 44.0, 85.0, 46.0), (20, 50)  # cells of 0.1 degree, centres at 0.05


def draw(shapes, numbers=None, shape=SHAPE, bounds=BOUNDS, **batches):
    numbers = np.arange(1, len(shapes) + 1) if numbers is None else np.asarray(numbers)
    classes = np.arange(numbers.max() + 1).astype(np.uint8)
    owners = np.where(classes > 0, 0, NO_OWNER)
    canvas = Canvas(shape, bounds, classes, owners, **batches)
    canvas.draw(np.asarray(shapes, dtype=object), numbers)
    return canvas


def by_rasterio(shapes, shape=SHAPE, bounds=BOUNDS):
    transform = from_bounds(*bounds, shape[1], shape[0])
    return rasterio.features.rasterize(
        ((one, number) for number, one in enumerate(shapes, start=1)), out_shape=shape, transform=transform, fill=0
    )


def by_gdal(shapes, folder, shape=SHAPE, bounds=BOUNDS):
    tool = shutil.which("gdal_rasterize")
    if tool is None:
        pytest.skip("gdal_rasterize is not installed")
    source, target = folder / "shapes.gpkg", folder / "gdal.tif"
    table = {"V": np.arange(1, len(shapes) + 1)}
    geopandas.GeoDataFrame(table, geometry=list(shapes), crs="EPSG:4326").to_file(source)
    place = ["-te", *map(str, bounds), "-ts", str(shape[1]), str(shape[0])]
    subprocess.run([tool, "-q", "-a", "V", "-init", "0", "-ot", "UInt16", *place, str(source), str(target)], check=True)
    with rasterio.open(target) as raster:
        return raster.read(1)


def on_halves(seed, count=60):
    """Triangles and steps, both ways around, some with a hole, all corners on centres, corners and sides of cells."""
    rng = np.random.default_rng(seed)
    shapes = []
    while len(shapes) < count:
        ring = rng.integers((-3, -3), (43, 19), (rng.integers(2, 5), 2))
        if len(ring) < 3 or rng.random() < 0.7:  # edges along rows and columns alone
            ring = np.repeat(ring, 2, axis=0)
            ring[1::2, 0] = np.roll(ring[::2, 0], -1)
        shape = Polygon(ring * 0.125 + (80, 44))
        middle = shape.representative_point() if shape.area > 0 else None
        if rng.random() < 0.5 and middle is not None:
            x, y = np.round((middle.x - 80) * 8) / 8 + 80, np.round((middle.y - 44) * 8) / 8 + 44
            hole = shapely.box(x - 0.125, y - 0.25, x + 0.375, y + 0.125, ccw=bool(rng.random() < 0.5))
            shape = Polygon(shape.exterior, [hole.exterior])
        if shape.area > 0 and shape.is_valid:
            shapes.append(shape)
    return shapes


CASES = {
    "a hole": [Polygon(box(80.3, 44.2, 83, 45.6).exterior, [box(81, 44.6, 82, 45.2).exterior])],
    "a hole on centres": [
        Polygon(box(80.25, 44.25, 83.25, 45.75).exterior, [box(81.25, 44.75, 82.25, 45.25).exterior])
    ],
    "an island in a hole": [
        MultiPolygon([
            Polygon(box(80, 44, 84, 46).exterior, [box(81, 44.5, 83, 45.5).exterior]), box(81.5, 44.8, 82.5, 45.2)
        ])
    ],
    "two parts": [MultiPolygon([box(80.2, 44.1, 81, 45), rotate(box(82, 44.5, 84, 45.5), 20)])],
    "shared edges": [box(80 + k * 0.37, 44, 80.37 + k * 0.37, 46) for k in range(12)],
    "shared edges through centres": [box(80.05 + k, 44.05, 81.05 + k, 45.95) for k in range(4)],
    "shared edges along rows of centres": [box(80, 44.05 + k / 2, 85, 44.55 + k / 2) for k in range(3)],
    "slivers": [
        box(80.051, 44, 80.099, 46), box(81.04, 44, 81.06, 46), box(80, 45.051, 85, 45.099), box(80, 44.54, 85, 44.56),
        Polygon([(80, 44), (85, 46), (85, 45.99)]),
    ],
    "hardly an area": [box(82.05, 45.05, 82.05 + 1e-9, 45.05 + 1e-9), Polygon([(80, 44), (85, 46), (80, 44.001)])],
    "beyond the raster": [box(70, 40, 82, 45), Polygon([(84, 30), (120, 45), (84.5, 60)]), box(0, 0, 1, 1)],
    "all of it": [box(-180, -90, 180, 90)],
    "corners on edges": [Polygon([(80, 44), (82.5, 46), (85, 44)]), Polygon([(80, 46), (82.5, 44), (85, 46)])],
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_cells_are_those_of_gdal(case, tmp_path):
    mine = draw(CASES[case]).numbers
    assert (mine == by_rasterio(CASES[case])).all()
    assert (mine == by_gdal(CASES[case], tmp_path)).all()


@pytest.mark.parametrize("seed", range(6))
def test_cells_are_those_of_gdal_where_every_centre_is_a_tie(seed, tmp_path):
    # 1/8 and 1/4 degree are exact in binary: no rounding hides a tie.
    shape, bounds, shapes = (8, 20), (80.0, 44.0, 85.0, 46.0), on_halves(seed)
    mine = draw(shapes, shape=shape, bounds=bounds).numbers
    assert len(np.unique(mine)) > 3
    assert (mine == by_rasterio(shapes, shape, bounds)).all()
    assert (mine == by_gdal(shapes, tmp_path, shape, bounds)).all()


def crossed(seed, count=30):
    """Stars and knots: rings that cross themselves anyhow."""
    rng = np.random.default_rng(seed)
    return [Polygon(rng.uniform((80, 44), (85, 46), (rng.integers(4, 12), 2))) for _ in range(count)]


def test_outlines_that_cross_themselves_are_filled_as_gdal_fills_them(tmp_path):
    shapes = crossed(1)
    assert not shapely.is_valid(shapes).all()
    mine = draw(shapes, shape=(200, 500)).numbers
    assert (mine == by_gdal(shapes, tmp_path, (200, 500))).all()


def test_outlines_that_cross_themselves_are_filled_as_geos_mends_them():
    shape = crossed(5, 1)[0]
    mended = shapely.make_valid(shape)
    mine = draw([shape], shape=(100, 250)).numbers == 1
    lat, lon = 46 - 0.01 - 0.02 * np.arange(100), 80 + 0.01 + 0.02 * np.arange(250)
    inside = shapely.contains_xy(mended, *np.meshgrid(lon, lat))
    assert not shape.is_valid
    assert 0.1 < inside.mean() < 0.9
    assert (mine == inside).all()


def test_overlapping_parts_are_filled():
    both = MultiPolygon([box(80, 44, 82, 46), box(81, 44, 83, 46)])
    assert not both.is_valid
    assert (draw([both]).numbers[:, :30] == 1).all()


def test_a_common_outline_leaves_no_gap_and_no_overlap():
    """Whatever the outline, each cell has one of the two neighbours."""
    rng = np.random.default_rng(3)
    border = np.column_stack([np.linspace(80, 85, 60), 45 + rng.uniform(-0.5, 0.5, 60)])
    north = Polygon([*border, (85, 46), (80, 46)])
    south = Polygon([*border[::-1], (80, 44), (85, 44)])
    canvas = draw([north, south], shape=(400, 1000))
    assert (canvas.numbers > 0).all()
    assert not canvas.disputed.any()


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("cells_per_batch", [7, 1 << 19])
def test_a_common_edge_on_the_centres_of_a_row_is_no_overlap(order, cells_per_batch):
    shapes = [box(80, 44.125, 83, 45.125), box(80, 45.125, 83, 46), box(82, 44.125, 85, 45.125)][::order]
    canvas = draw(shapes, shape=(8, 20), cells_per_batch=cells_per_batch)
    disputed = (canvas.disputed & WITHIN) != 0
    # The third overlaps the first in four columns of rows 4 to 6; rows 3 and 7 lie on edges, 3 on one of two boxes.
    assert disputed[4:7].sum() == 12
    assert disputed[4:7, 8:12].all()
    assert not disputed[3, :8].any()
    assert not disputed[7].any()
    assert canvas.numbers[3:, :12].all()


def test_the_result_does_not_depend_on_the_batches():
    shapes = crossed(3)
    whole = draw(shapes)
    parts = draw(shapes, cells_per_batch=100, vertices_per_batch=20)
    np.testing.assert_array_equal(parts.numbers, whole.numbers)
    np.testing.assert_array_equal(parts.disputed, whole.disputed)
    assert len(np.unique(whole.numbers)) > 7


def geodesic_km2(shape):
    return abs(Geod(ellps="WGS84").geometry_area_perimeter(shape.segmentize(0.01))[0]) / 1e6


CELL_KM2 = row_cell_areas_km2(44, 46, 200, 0.01)


def test_disputed_area_is_the_overlap_of_different_classes():
    # 1 and 2 are of one class; 3 is another; 4 is a gap.
    classes, owners = np.array([255, 7, 7, 9, 255], dtype=np.uint8), np.array([NO_OWNER, 0, 0, 0, NO_OWNER])
    shapes = np.array([box(80, 44, 82, 46), box(81, 44, 83, 46), box(82.5, 44, 84, 46), box(80, 44, 85, 46)])
    canvas = Canvas((200, 500), BOUNDS, classes, owners)
    canvas.draw(shapes[3:], np.array([4]))
    canvas.draw(shapes[:3], np.array([1, 2, 3]))
    assert canvas.pop_disputed_km2(BETWEEN, CELL_KM2) == 0
    area = canvas.pop_disputed_km2(WITHIN, CELL_KM2)
    assert area == pytest.approx(geodesic_km2(box(82.5, 44, 83, 46)), rel=1e-6)
    assert canvas.pop_disputed_km2(WITHIN, CELL_KM2) == 0


@pytest.mark.parametrize("cells_per_batch", [50, 1 << 19])
def test_a_third_polygon_of_the_first_class_hides_no_overlap(cells_per_batch):
    classes, owners = np.array([255, 7, 9], dtype=np.uint8), np.array([NO_OWNER, 0, 0])
    canvas = Canvas((200, 500), BOUNDS, classes, owners, cells_per_batch=cells_per_batch)
    canvas.draw(np.array([box(80, 44, 82, 46), box(81, 44, 83, 46), box(80, 44, 85, 46)]), np.array([1, 2, 1]))
    area = canvas.pop_disputed_km2(WITHIN, CELL_KM2)
    assert area == pytest.approx(geodesic_km2(box(81, 44, 83, 46)), rel=1e-6)


def test_nothing_to_draw():
    canvas = draw([Polygon()], numbers=[1])
    canvas.draw(np.empty(0, dtype=object), np.empty(0, dtype=np.int64))
    assert not canvas.numbers.any()


def test_a_single_cell_needs_its_centre():
    for x, y, inside in ((82.05, 45.05, True), (82.01, 45.01, False)):
        assert draw([Point(x, y).buffer(0.02)]).numbers.any() == inside
