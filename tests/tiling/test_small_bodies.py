import numpy as np
import pytest
from pyproj import Geod
from shapely.geometry import box

from gravmap.tiling.label_statistics import small_bodies

BOUNDS = (80, 44, 90, 49)  # cells of 0.1 degrees are about 88 km2


def test_a_body_is_small_by_its_area_on_the_ellipsoid():
    labels = np.zeros((50, 100), dtype=np.uint8)
    labels[10:14, 10:15] = 7  # 20 cells: about 1750 km2
    labels[30:34, 10:14] = 7  # 16 cells: about 1400 km2
    labels[0, 0:2] = 3
    cells = box(81, 47.6, 81.5, 48).segmentize(0.001), box(81, 45.6, 81.4, 46).segmentize(0.001)
    areas = [abs(Geod(ellps="WGS84").geometry_area_perimeter(shape)[0]) / 1e6 for shape in cells]
    small = small_bodies(labels, BOUNDS)
    assert areas[1] < 1600
    assert small[30:34, 10:14].all()
    assert small[0, 0:2].all()
    assert small[10:14, 10:15].all() == (areas[0] < 1600)
    assert small.sum() == 18 + 20 * (areas[0] < 1600)
    # The limit is the area, to the last km2.
    assert small_bodies(labels, BOUNDS, areas[1] - 0.1)[32, 12] == 0
    assert small_bodies(labels, BOUNDS, areas[1] + 0.1)[32, 12] == 1


def test_diagonal_neighbours_are_one_body_and_other_classes_are_not():
    dyke = np.zeros((50, 100), dtype=np.uint8)
    dyke[np.arange(30), np.arange(30)] = 10
    assert small_bodies(dyke, BOUNDS).sum() == 0  # 30 cells in a line
    dyke[15, 15] = 9
    assert small_bodies(dyke, BOUNDS).sum() == 30  # cut into 15, 1 and 14


def test_cover_and_unusable_cells_have_no_bodies():
    labels = np.full((50, 100), 255, dtype=np.uint8)
    labels[5, 5] = 0
    assert not small_bodies(labels, BOUNDS).any()


def test_against_a_flood_fill():
    labels = np.random.default_rng(0).choice([0, 1, 2, 255], size=(24, 30)).astype(np.uint8)
    small = small_bodies(labels, (*BOUNDS[:2], 83, 46.4), 700)
    seen = np.zeros(labels.shape, dtype=bool)
    area = 86.6  # every cell here has 85.6 to 88 km2, and eight of them make the limit
    for start in np.argwhere((labels > 0) & (labels < 255)):
        if seen[tuple(start)]:
            continue
        body, queue = [], [tuple(start)]
        seen[tuple(start)] = True
        while queue:
            row, column = queue.pop()
            body.append((row, column))
            for r in range(max(row - 1, 0), min(row + 2, 24)):
                for c in range(max(column - 1, 0), min(column + 2, 30)):
                    if not seen[r, c] and labels[r, c] == labels[row, column]:
                        seen[r, c] = True
                        queue.append((r, c))
        expected = len(body) * area < 700 if len(body) != 8 else None
        if expected is not None:
            assert all(small[cell] == expected for cell in body)


@pytest.mark.parametrize("count", [1, 400])
def test_many_bodies(count):
    labels = np.zeros((100, 100), dtype=np.uint8)
    labels[::2, ::2] = 5
    assert small_bodies(labels, BOUNDS, count).sum() == (0 if count == 1 else 2500)
