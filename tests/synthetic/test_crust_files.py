"""What a crust leaves on disk, opened by the programs that will read it."""

import json
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from rasterio.features import rasterize as burn

from gravmap.errors import GravmapError
from gravmap.geology import load_legend, rasterize
from gravmap.gravity import open_grid
from gravmap.regions import Region
from gravmap.synthetic import files, make_crust
from gravmap.synthetic.files import write_crust


@pytest.fixture(scope="module")
def crust():
    return make_crust(7, (48, 64), sub=1)


@pytest.fixture(scope="module")
def paths(crust, tmp_path_factory):
    return write_crust(crust, tmp_path_factory.mktemp("crust") / "deep" / "er")


def test_gravity_comes_back_bit_for_bit(crust, paths):
    grid = open_grid(paths["gravity"])
    np.testing.assert_array_equal(grid.values, crust.gravity.values)
    np.testing.assert_array_equal(grid.lat, crust.gravity.lat)
    np.testing.assert_array_equal(grid.lon, crust.gravity.lon)
    assert grid.attrs["units"] == "mGal"
    assert grid.attrs["height_m"] == 0


def test_gdal_sees_a_georeferenced_grid(crust, paths):
    with rasterio.open(f"netcdf:{paths['gravity']}:bouguer") as raster:
        assert raster.crs.to_epsg() == 4326
        assert tuple(raster.bounds) == pytest.approx(crust.bounds_wsen)
        np.testing.assert_array_equal(raster.read(1), crust.gravity.values[::-1])


def test_map_has_a_valid_polygon_per_class_with_the_legends_codes(crust, paths):
    legend = load_legend("crust")
    polygons = gpd.read_file(paths["map"])
    assert polygons.crs.to_epsg() == 4326
    assert polygons.is_valid.all()
    assert {legend.codes[code] for code in polygons["CLASS"]} == set(np.unique(crust.surface))
    assert len(polygons) == len(np.unique(crust.surface))
    west, south, east, north = crust.bounds_wsen
    assert sum(polygon.area for polygon in polygons.geometry) == pytest.approx(
        (east - west) * (north - south), rel=1e-9
    )


def test_map_burns_back_to_the_surface(crust, paths):
    polygons = gpd.read_file(paths["map"])
    codes = load_legend("crust").codes
    transform = rasterio.transform.from_bounds(*crust.bounds_wsen, 64, 48)
    pairs = [(row.geometry, codes[row.CLASS]) for row in polygons.itertuples()]
    burned = burn(pairs, out_shape=(48, 64), transform=transform, fill=255, dtype="uint8")
    np.testing.assert_array_equal(burned, crust.surface[::-1])


def test_the_map_is_read_by_gravmap_geology(crust, paths):
    labels = rasterize([(paths["map"], load_legend("crust"))], Region(*crust.bounds_wsen), 1 / 30)
    np.testing.assert_array_equal(labels.values, crust.surface[::-1])


def test_truth_is_a_north_up_index_raster(crust, paths):
    with rasterio.open(paths["truth"]) as raster:
        np.testing.assert_array_equal(raster.read(1), crust.truth[::-1])
        assert raster.crs.to_epsg() == 4326
        assert tuple(raster.bounds) == pytest.approx(crust.bounds_wsen)
        assert raster.colormap(1)[10][:3] == (0xCE, 0x4D, 0xA0)


def test_parameters_reproduce_the_crust(crust, paths):
    made = json.loads(paths["parameters"].read_text())
    assert made["seed"] == 7
    again = make_crust(
        made["seed"], tuple(made["shape"]), tuple(made["south_west"]), made["spacing_deg"], sub=made["sub"]
    )
    np.testing.assert_array_equal(again.truth, crust.truth)
    assert made["setting"]["rocks"]["mean"][9] == 2635


def test_a_second_crust_replaces_the_first(tmp_path, crust):
    other = make_crust(8, (16, 20), sub=1)
    write_crust(crust, tmp_path)
    paths = write_crust(other, tmp_path)
    assert open_grid(paths["gravity"]).shape == (16, 20)
    assert gpd.read_file(paths["map"]).total_bounds == pytest.approx(other.bounds_wsen)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "crust.json",
        "gravity.nc",
        "map.gpkg",
        "truth.tif",
        "truth.tif.aux.xml",
    ]


def test_a_failed_write_leaves_nothing_half_done(tmp_path, crust, monkeypatch):
    def full_disk(*args, **options):
        args[0]  # the frame
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gpd.GeoDataFrame, "to_file", full_disk)
    with pytest.raises(GravmapError, match="The disk is full"):
        write_crust(crust, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["gravity.nc"]


def test_a_map_needs_a_code_for_every_class(crust):
    bare = replace(load_legend("crust"), codes={"Q": 0})
    with pytest.raises(files.InputError, match="no code"):
        files.map_polygons(crust.surface, crust.bounds_wsen, bare)
