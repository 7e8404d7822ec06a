import numpy as np
import pytest
import rasterio
from rasterio.transform import from_bounds
from rasterio.warp import Resampling, reproject
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import map_coordinates

from gravmap.regions import Region
from gravmap.tiling.resample import bilinear, nearest, pixel_centres

NODES = (80.0, 43.0, 88.0, 48.0)


@pytest.fixture(scope="module")
def field():
    return np.random.default_rng(0).normal(0, 20, (51, 81)).astype(np.float32)


@pytest.mark.parametrize("window", [Region(82.05, 44.3, 83.05, 45.3), Region(80, 43, 85, 48), Region(87, 47, 88, 48)])
def test_fields_are_bilinear_between_nodes(field, window):
    lat, lon = pixel_centres(window, 64)
    scipy = RegularGridInterpolator((np.linspace(43, 48, 51), np.linspace(80, 88, 81)), field[::-1].astype(float))
    expected = scipy(np.stack(np.meshgrid(lat, lon, indexing="ij"), axis=-1))
    got = bilinear(field, NODES, window, 64)
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() < 1e-3


def test_a_plane_stays_a_plane(field):
    lat, lon = np.linspace(48, 43, 51), np.linspace(80, 88, 81)
    plane = (3 * lat[:, None] - 2 * lon[None]).astype(np.float32)
    window = Region(81.03, 43.9, 84.33, 47.2)
    y, x = pixel_centres(window, 128)
    assert np.allclose(bilinear(plane, NODES, window, 128), 3 * y[:, None] - 2 * x[None], atol=1e-4)


@pytest.mark.parametrize("corner", [(79.95, 47.05), (87.05, 47.05), (79.95, 42.95), (87.05, 42.95)])
def test_the_outer_half_cell_is_mirrored_at_the_nodes(field, corner):
    """A pixel-registered grid of 0.1 degrees: its window begins half a cell outside the first node."""
    window = Region(corner[0], corner[1], corner[0] + 1, corner[1] + 1)
    lat, lon = pixel_centres(window, 20)
    places = np.meshgrid((48 - lat) / 0.1, (lon - 80) / 0.1, indexing="ij")
    expected = map_coordinates(field.astype(float), places, order=1, mode="mirror")
    assert np.abs(bilinear(field, NODES, window, 20) - expected).max() < 1e-3


def test_unknown_nodes_stay_unknown(field):
    holed = field.copy()
    holed[25, 40] = np.nan
    got = bilinear(holed, NODES, Region(83, 44.5, 85, 46.5), 200)
    y, x = pixel_centres(Region(83, 44.5, 85, 46.5), 200)
    near = (abs(y[:, None] - 45.5) < 0.099) & (abs(x[None] - 84) < 0.099)
    assert np.isnan(got[near]).all()
    assert np.isfinite(got[~((abs(y[:, None] - 45.5) < 0.101) & (abs(x[None] - 84) < 0.101))]).all()


@pytest.mark.parametrize("window", [Region(82.013, 44.3, 83.013, 45.3), Region(79, 42, 89, 52), Region(80, 43, 85, 48)])
def test_labels_are_nearest_as_gdal_warps_them(window):
    values = np.random.default_rng(1).integers(0, 11, (250, 400)).astype(np.uint8)
    expected = np.full((300, 300), 255, dtype=np.uint8)
    reproject(
        values,
        expected,
        src_transform=from_bounds(80, 43, 88, 48, 400, 250),
        src_crs="EPSG:4326",
        dst_transform=from_bounds(*window.bounds_wsen, 300, 300),
        dst_crs="EPSG:4326",
        resampling=Resampling.nearest,
        dst_nodata=255,
        tolerance=0,
    )
    got = nearest(values, (80, 43, 88, 48), window, 300)
    y, x = pixel_centres(window, 300)
    # Where a centre falls on the line between two cells, either answer is right.
    clear = np.ix_(*(abs((axis / 0.02) % 1 - 0.5) < 0.499 for axis in (y - 43, x - 80)))
    assert (got[clear] == expected[clear]).all()
    assert got[clear].size > 0.5 * got.size


def test_a_centre_on_a_line_belongs_to_the_south_east():
    values = np.arange(16, dtype=np.uint8).reshape(4, 4)
    got = nearest(values, (0, 0, 4, 4), Region(0.5, 0.5, 3.5, 3.5), 3)
    assert (got == [[5, 6, 7], [9, 10, 11], [13, 14, 15]]).all()


def test_rasterio_puts_pixels_where_we_do(tmp_path):
    window = Region(81, 44, 83, 46)
    y, x = pixel_centres(window, 10)
    transform = from_bounds(*window.bounds_wsen, 10, 10)
    assert rasterio.transform.xy(transform, 3, 7) == pytest.approx((x[7], y[3]))
