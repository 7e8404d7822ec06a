import numpy as np
import pytest
import rasterio

from gravmap.errors import InputError
from gravmap.mapping.raster import MapGrid, map_grid, write_probability
from gravmap.regions import Region

GRIDLINE = np.arange(40, 55 + 1e-9, 1 / 30), np.arange(65, 95 + 1e-9, 1 / 30)
PIXEL = GRIDLINE[0][:-1] + 1 / 60, GRIDLINE[1][:-1] + 1 / 60


def test_cells_are_centred_on_the_nodes_of_a_gridline_grid():
    grid = map_grid(*GRIDLINE, Region(81, 43, 92, 48))
    assert grid.shape == (151, 331)
    assert grid.lat_deg[0] == pytest.approx(48)
    assert grid.lon_deg[-1] == pytest.approx(92)
    assert np.allclose(grid.bounds_wsen, (81 - 1 / 60, 43 - 1 / 60, 92 + 1 / 60, 48 + 1 / 60))


def test_cells_of_a_pixel_grid_fill_the_region():
    grid = map_grid(*PIXEL, Region(81, 43, 92, 48))
    assert grid.shape == (150, 330)
    assert np.allclose(grid.bounds_wsen, (81, 43, 92, 48))
    # The whole study area is inside its own pixel-registered grid, though the nodes stop half a cell short of it.
    assert map_grid(*PIXEL, Region(65, 40, 95, 55)).shape == (450, 900)


def test_a_finer_map_says_by_how_much():
    grid = map_grid(*GRIDLINE, Region(81, 43, 92, 48), 30 / 3600)
    assert grid.shape == (600, 1320)
    assert grid.upsampling == pytest.approx(4)
    assert np.allclose(grid.bounds_wsen, (81, 43, 92, 48))


@pytest.mark.parametrize("region", [Region(60, 43, 92, 48), Region(81, 43, 92, 56), Region(200, 43, 210, 48)])
def test_a_region_beyond_the_grid_is_refused(region):
    with pytest.raises(InputError, match="beyond"):
        map_grid(*GRIDLINE, region)


def test_a_region_between_the_nodes_is_refused():
    with pytest.raises(InputError, match="nodes"):
        map_grid(*GRIDLINE, Region(81.001, 43, 81.002, 44))


def test_probability_file(tmp_path):
    lat, lon = np.array([45.75, 45.25]), np.array([84.25, 84.75, 85.25])
    probability = np.zeros((2, 2, 3), np.float32)
    probability[0] = [[0, 0.25, 0.5], [0.75, 1, np.nan]]
    probability[1] = 1 - probability[0]
    path = tmp_path / "probability.tif"
    write_probability(path, probability, MapGrid(lat, lon, (0.5, 0.5), 1), ["Permian", "Devonian"], {"MADE": "here"})
    with rasterio.open(path) as raster:
        assert raster.crs.to_epsg() == 4326
        assert raster.bounds == (84, 45, 85.5, 46)
        assert raster.nodata == 255
        assert raster.descriptions == ("Permian", "Devonian")
        assert raster.tags()["MADE"] == "here"
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        stored = raster.read(1)
        assert stored.tolist() == [[0, 50, 100], [150, 200, 255]]
        assert raster.scales == (1 / 200, 1 / 200)
        # The cell whose centre is 84.75E 45.75N holds what was predicted there.
        assert next(raster.sample([(84.75, 45.75)]))[0] == 50
    assert [entry.name for entry in tmp_path.iterdir()] == ["probability.tif"]
