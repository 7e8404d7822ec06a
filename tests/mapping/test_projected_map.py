import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from gravmap.errors import OptionError
from gravmap.mapping.files.projection import cell_areas_km2, read_crs
from gravmap.mapping.files.writer import MapWriter
from toys.layers import BANDS, LEGEND, cut, grid, random_map, write_map

SHAPE = 150, 330  # the Junggar basin at 2 arc-minutes
CRS = "EPSG:32645"


@pytest.fixture(scope="module")
def whole():
    return random_map(*SHAPE)


@pytest.fixture(scope="module")
def flat(whole, tmp_path_factory):
    return write_map(tmp_path_factory.mktemp("flat"), cut(whole, 64), grid(*SHAPE), crs=CRS)


@pytest.fixture(scope="module")
def round_(whole, tmp_path_factory):
    return write_map(tmp_path_factory.mktemp("round"), cut(whole, 64), grid(*SHAPE))


def test_classes_keep_their_fractions(flat, round_):
    assert flat.summary.km2 == pytest.approx(round_.summary.km2, rel=1e-3)
    for kind in ("classes", "evidence"):
        for here, there in zip(getattr(flat.summary, kind), getattr(round_.summary, kind), strict=True):
            assert here.name == there.name
            assert here.km2 == pytest.approx(there.km2, rel=0.01)


def test_every_cell_has_all_values_of_the_cell_it_lies_in(flat, whole):
    with rasterio.open(flat.paths["lithology.tif"]) as raster:
        assert raster.crs.to_epsg() == 32645
        assert raster.transform.a == -raster.transform.e
        rows, cols = np.indices(raster.shape)
        x, y = raster.transform @ (cols + 0.5, rows + 0.5)
    lon, lat = pyproj.Transformer.from_crs(CRS, "EPSG:4326", always_xy=True).transform(x, y)
    row, col = np.floor((48 - lat) * 30).astype(int), np.floor((lon - 81) * 30).astype(int)
    inside = (row >= 0) & (row < SHAPE[0]) & (col >= 0) & (col < SHAPE[1])
    row, col = np.clip(row, 0, SHAPE[0] - 1), np.clip(col, 0, SHAPE[1] - 1)
    given = {
        "lithology.tif": whole.lithology,
        "evidence.tif": whole.evidence,
        "probability.tif": np.where(np.isnan(whole.probability), 255, np.rint(whole.probability * 200)),
    }
    for name, values in given.items():
        with rasterio.open(flat.paths[name]) as raster:
            found = raster.read()
        expected = np.where(inside, np.atleast_3d(values.T).T[:, row, col], 255)
        # A centre on the very edge of two cells may go to either.
        assert (found == expected).mean() > 0.9999
    # No cell of the map is passed over.
    assert len(set(zip(row[inside], col[inside], strict=True))) == SHAPE[0] * SHAPE[1]


def test_tables_and_polygons_count_the_cells_of_the_file(flat):
    with rasterio.open(flat.paths["lithology.tif"]) as raster:
        values = raster.read(1)
    polygons = geopandas.read_file(flat.paths["lithology.gpkg"], layer="lithology")
    assert polygons.crs.to_epsg() == 32645
    assert polygons.area_km2.sum() == pytest.approx(flat.summary.km2, rel=1e-9)
    for area in flat.summary.classes:
        assert area.cells == (values == area.value).sum()


@pytest.mark.parametrize(
    ("crs", "west", "north", "step"),
    [
        ("EPSG:4326", 81.0, 56.0, 0.25),
        ("EPSG:32645", 150_000, 6_000_000, 20_000),
        ("EPSG:3857", 9e6, 6e6, 20_000),  # a cell is half as wide on the Earth
        ("EPSG:2263", 900_000, 250_000, 50_000),  # US survey feet
        ("+proj=lcc +lat_1=42 +lat_2=48 +lat_0=45 +lon_0=86 +units=km", -400, 600, 20),
        ("+proj=utm +zone=1 +datum=WGS84", 195_000, 5_000_000, 20_000),  # over the antimeridian
    ],
)
def test_areas_are_those_of_geodesy(crs, west, north, step):
    system = read_crs(crs)
    window = Window(3, 5, 4, 3)
    areas = np.broadcast_to(cell_areas_km2(system, from_origin(west, north, step, step), window), (3, 4))
    degrees = pyproj.Transformer.from_crs(system.to_wkt(), "EPSG:4326", always_xy=True)
    along = np.linspace(0, step, 40)
    for row in range(3):
        for col in range(4):
            x, y = west + (3 + col) * step, north - (5 + row) * step
            ring_x = np.concatenate([x + along, np.full(40, x + step), x + along[::-1], np.full(40, x)])
            ring_y = np.concatenate([np.full(40, y), y - along, np.full(40, y - step), y - along[::-1]])
            area, _ = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(*degrees.transform(ring_x, ring_y))
            assert areas[row, col] == pytest.approx(abs(area) / 1e6, rel=2e-5)


@pytest.mark.parametrize(
    ("crs", "words"),
    [
        ("EPSG:999999", "PROJ does not know"),
        ("somewhere", "PROJ does not know"),
        ("EPSG:4978", "neither a projected system"),  # geocentric
        ("EPSG:4979", "neither a projected system"),  # with a height
        ("EPSG:4807", "neither a projected system"),  # in grads
        ("+proj=ortho +lat_0=-40 +lon_0=-90", "81 to 82 E, 47 to 48 N"),  # the other side of the globe
    ],
)
def test_an_unsuitable_coordinate_system_is_refused_before_anything_is_written(tmp_path, crs, words):
    with pytest.raises(OptionError, match=words):
        MapWriter(tmp_path / "map", grid(30, 30), LEGEND, bands=BANDS, tags={}, near_km=25, crs=crs)
    assert not (tmp_path / "map").exists()


def test_the_same_system_by_another_name_changes_nothing(tmp_path, whole, round_):
    other = write_map(tmp_path, [whole], grid(*SHAPE), crs="OGC:CRS84")
    with rasterio.open(other.paths["lithology.tif"]) as there, rasterio.open(round_.paths["lithology.tif"]) as here:
        assert there.bounds == pytest.approx(here.bounds)
        assert (there.read() == here.read()).all()
