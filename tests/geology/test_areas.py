from itertools import pairwise

import numpy as np
import pytest
from pyproj import Geod
from shapely.geometry import MultiPolygon, Polygon, box
from shapely.geometry.polygon import orient

from gravmap.geology.areas import polygon_areas_km2, row_cell_areas_km2


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


def by_pyproj(shape):
    """pyproj joins points by geodesics: pieces this short leave no difference."""
    parts = [orient(part) for part in getattr(shape, "geoms", [shape])]
    return sum(Geod(ellps="WGS84").geometry_area_perimeter(part.segmentize(0.002))[0] for part in parts) / 1e6


@pytest.mark.parametrize(
    "shape",
    [
        box(80, 44, 81, 46),
        Polygon([(80.3, 44.2), (84.1, 44.5), (82.6, 45.8)]),
        Polygon([(80.3, 44.2), (82.6, 45.8), (84.1, 44.5)]),  # the other way round
        Polygon([(80, 44), (84, 44.5), (82, 46)], [[(81.5, 44.6), (82.5, 44.7), (82, 45.2)]]),
        MultiPolygon([box(80, -1, 81, 1), Polygon([(90, 50), (100, 51), (95, 58)])]),
        box(-80, -60, 80, 84),
    ],
)
def test_areas_of_polygons_are_pyprojs(shape):
    assert polygon_areas_km2(np.array([shape]))[0] == pytest.approx(by_pyproj(shape), rel=1e-7)


def test_areas_of_many_polygons_stay_with_their_owners():
    shapes = [
        Polygon(),
        box(80, 44, 81, 45),
        MultiPolygon([box(0, 0, 1, 1), box(2, 0, 3, 1)]),
        Polygon(),
        box(5, 60, 6, 61),
    ]
    areas = polygon_areas_km2(np.array(shapes, dtype=object))
    assert areas[[0, 3]].tolist() == [0, 0]
    assert areas[[1, 2, 4]] == pytest.approx([by_pyproj(shapes[k]) for k in (1, 2, 4)], rel=1e-7)
    assert polygon_areas_km2(np.empty(0, dtype=object)).shape == (0,)
