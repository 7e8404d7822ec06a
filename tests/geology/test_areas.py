from itertools import pairwise

import numpy as np
import pytest
from pyproj import Geod

from gravmap.geology import class_areas_km2, row_cell_areas_km2


def geodesic_area_km2(west, south, east, north):
    """A box between meridians and parallels; its long sides are pieces short enough to follow the parallels."""
    steps = np.linspace(west, east, 2001)
    lon = np.concatenate([steps, steps[::-1]])
    lat = np.concatenate([np.full(2001, south), np.full(2001, north)])
    area, _ = Geod(ellps="WGS84").polygon_area_perimeter(lon, lat)
    return area / 1e6


@pytest.mark.parametrize(("south", "north"), [(40, 55), (-1, 1), (-60, -59.5), (89, 90)])
def test_cell_areas_are_those_of_the_ellipsoid(south, north):
    areas = row_cell_areas_km2(south, north, 6, 2.0)
    edges = np.linspace(north, south, 7)
    expected = [geodesic_area_km2(80, b, 82, a) for a, b in pairwise(edges)]
    assert np.allclose(areas, expected, rtol=1e-7)


def test_the_globe_has_its_known_area():
    assert row_cell_areas_km2(-90, 90, 180, 1.0).sum() * 360 == pytest.approx(510_065_621.72, rel=1e-9)


def test_class_areas_add_up():
    values = np.random.default_rng(0).choice([0, 3, 255], size=(90, 60)).astype(np.uint8)
    areas = class_areas_km2(values, (80, 44, 83, 48.5))
    assert set(areas) == {0, 3, 255}
    assert sum(areas.values()) == pytest.approx(geodesic_area_km2(80, 44, 83, 48.5), rel=1e-7)
    top = class_areas_km2(np.repeat(np.array([[1], [2]], dtype=np.uint8), 4, axis=1), (0, 0, 4, 60))
    assert top[1] < top[2]  # row 0 is the northern one
