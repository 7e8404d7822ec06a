import numpy as np
import pytest

from gravmap.errors import OptionError
from gravmap.regions import Region, find_region
from gravmap.tiling import plan_scales, windows
from gravmap.tiling.field_grid import nodes_region

STUDY = find_region("liu2024")


def test_the_papers_536_windows():
    counts = [len(windows(STUDY, size, stride)) for size, stride in ((1, 1), (5, 2.5), (10, 2.5), (15, 5))]
    assert counts == [450, 55, 27, 4]
    scales, notes = plan_scales(STUDY)
    assert [scale.rows * scale.columns for scale in scales] == counts
    assert sum(counts) == 536
    assert notes == []
    assert [scale.name for scale in scales] == ["1deg", "5deg", "10deg", "15deg"]


def test_windows_are_laid_from_the_north_west():
    laid = windows(STUDY, 5, 2.5)
    assert laid[0] == Region(65, 50, 70, 55)
    assert laid[1] == Region(67.5, 50, 72.5, 55)
    assert laid[11] == Region(65, 47.5, 70, 52.5)
    assert laid[-1] == Region(90, 40, 95, 45)


def test_every_point_of_any_region_is_covered():
    """Random regions, sizes and strides: no point is missed, no window reaches outside, none is laid twice."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        west, south = rng.uniform(-180, 150), rng.uniform(-80, 50)
        region = Region(west, south, west + rng.uniform(0.5, 30), south + rng.uniform(0.5, 30))
        size = rng.uniform(0.1, 1) * min(region.width_deg, region.height_deg)
        laid = windows(region, size, rng.uniform(0.3, 1) * size)
        sides = np.array([window.bounds_wsen for window in laid])
        assert all(region.contains(window, 1e-9) for window in laid)
        assert np.allclose(sides[:, 2] - sides[:, 0], size)
        assert np.allclose(sides[:, 3] - sides[:, 1], size)
        assert len(np.unique(sides.round(6), axis=0)) == len(laid)
        lon = np.concatenate(
            [rng.uniform(region.west, region.east, 50), [region.west, region.east, region.west, region.east]]
        )
        lat = np.concatenate(
            [rng.uniform(region.south, region.north, 50), [region.south, region.south, region.north, region.north]]
        )
        eps = 1e-9
        inside = (
            (sides[:, 0] <= lon[:, None] + eps) & (lon[:, None] <= sides[:, 2] + eps)
            & (sides[:, 1] <= lat[:, None] + eps) & (lat[:, None] <= sides[:, 3] + eps)
        )  # fmt: skip
        assert inside.any(axis=1).all()


def test_the_last_window_is_shifted_inwards():
    laid = windows(Region(0, 0, 7, 5), 5, 3)
    assert [window.west for window in laid] == [0, 2]
    assert laid[-1].east == 7
    # A step that just reaches the edge gives no second window there.
    assert len(windows(Region(0.1, 0, 0.1 + 3 * 0.1, 0.3), 0.1, 0.1)) == 9


def test_gridline_and_pixel_grids_give_the_same_region():
    step = 1 / 30
    gridline = nodes_region(40 + step * np.arange(451), 65 + step * np.arange(901))
    pixel = nodes_region(40 + step * (np.arange(450) + 0.5), 65 + step * (np.arange(900) + 0.5))
    assert gridline.bounds_wsen == pixel.bounds_wsen == STUDY.bounds_wsen
    assert windows(gridline, 5, 2.5) == windows(pixel, 5, 2.5)
    # Nodes that follow no multiple of their spacing are taken as they are.
    odd = nodes_region(40.3 * step + step * np.arange(11), 1000.3 * step + step * np.arange(11))
    assert odd.west == pytest.approx(1000.3 * step)


def test_sizes_that_do_not_fit_are_left_out_and_said():
    scales, notes = plan_scales(Region(80, 43, 88, 48))
    assert [scale.size_deg for scale in scales] == [1, 5]
    assert len(notes) == 2
    assert "10deg" in notes[0]
    (only,), (note,) = plan_scales(Region(80, 43, 80.8, 43.5))
    assert only.size_deg == pytest.approx(0.5)
    assert "30arcmin" in note
    assert len(windows(Region(80, 43, 80.8, 43.5), only.size_deg, only.stride_deg)) == only.rows * only.columns == 3


def test_strides_go_with_sizes():
    scales, _ = plan_scales(STUDY, [2, 4], [1])
    assert [(scale.size_deg, scale.stride_deg) for scale in scales] == [(2, 1), (4, 1)]
    scales, _ = plan_scales(STUDY, [5, 3])
    assert [scale.stride_deg for scale in scales] == [2.5, 1.5]
    for sizes, strides in (([1, 2, 3], [1, 1]), ([1, 1], []), ([2], [3]), ([2], [0]), ([0], [1]), ([-1], [])):
        with pytest.raises(OptionError):
            plan_scales(STUDY, sizes, strides)
    with pytest.raises(OptionError, match="does not fit"):
        windows(Region(0, 0, 1, 1), 2, 1)
