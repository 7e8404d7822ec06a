import numpy as np
import pytest

from gravmap.errors import InputError
from gravmap.mapping.map_grid import map_grid
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


def test_the_printed_bounds_of_a_grid_are_inside_it():
    lat, lon = 42 + 1 / 60 + np.arange(90) / 30, 102.00049 + 1 / 60 + np.arange(60) / 30
    west = float(f"{lon[0] - 1 / 60:g}")
    assert west == 102  # an error message has six digits
    assert map_grid(lat, lon, Region(west, 42, 104, 45)).shape == (90, 60)
    with pytest.raises(InputError, match="outside the gravity"):
        map_grid(lat, lon, Region(101.997, 42, 104, 45))


def test_a_finer_map_has_its_upsampling():
    grid = map_grid(*GRIDLINE, Region(81, 43, 92, 48), 30 / 3600)
    assert grid.shape == (600, 1320)
    assert grid.upsampling == pytest.approx(4)
    assert np.allclose(grid.bounds_wsen, (81, 43, 92, 48))


@pytest.mark.parametrize("region", [Region(60, 43, 92, 48), Region(81, 43, 92, 56), Region(200, 43, 210, 48)])
def test_a_region_beyond_the_grid_is_refused(region):
    with pytest.raises(InputError, match="outside the gravity"):
        map_grid(*GRIDLINE, region)


def test_a_region_between_the_nodes_is_refused():
    with pytest.raises(InputError, match="nodes"):
        map_grid(*GRIDLINE, Region(81.001, 43, 81.002, 44))
