import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gravmap.errors import OptionError
from gravmap.gravity.field_reader import nodes_region
from gravmap.regions import Region, find_region
from gravmap.tiling.windows import plan_scales, windows

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


@st.composite
def laid_out(draw):
    """A region, a size that fits, and a stride that leaves no gap; often round numbers, where rounding bites."""
    whole = st.integers(1, 300).map(lambda tenths: tenths / 10)
    any_of = st.one_of(whole, st.floats(0.3, 30, allow_subnormal=False))
    west, south = draw(st.one_of(st.integers(-180, 150), st.floats(-180, 150))), draw(st.floats(-80, 50))
    region = Region(west, south, west + draw(any_of), south + draw(any_of))
    shorter = min(region.width_deg, region.height_deg)
    size = draw(st.one_of(st.just(shorter), st.floats(0.1, 1).map(lambda fraction: fraction * shorter)))
    return region, size, size * draw(st.one_of(st.sampled_from([1, 0.5, 0.25]), st.floats(0.2, 1)))


@given(laid_out(), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def check_coverage(layout, fractions):
    """No point is missed, the rim included; no window reaches outside, none is laid twice, the count is known."""
    region, size, stride = layout
    laid = windows(region, size, stride)
    sides = np.array([window.bounds_wsen for window in laid])
    eps = 1e-9 * (1 + abs(region.west) + abs(region.east))
    assert all(region.contains(window, eps) for window in laid)
    assert np.allclose(sides[:, 2] - sides[:, 0], size, atol=1e-5)
    assert np.allclose(sides[:, 3] - sides[:, 1], size, atol=1e-5)
    assert len(np.unique(sides.round(7), axis=0)) == len(laid)
    (scale,), _ = plan_scales(region, [size], [stride])
    assert len(laid) == scale.rows * scale.columns
    x, y = np.array([*fractions, (0, 0), (0, 1), (1, 0), (1, 1)]).T
    lon, lat = region.west + x * region.width_deg, region.south + y * region.height_deg
    eps = 2e-6  # what a window may fall short of the far edge: a fifth of a metre
    inside = (
        (sides[:, 0] <= lon[:, None] + eps) & (lon[:, None] <= sides[:, 2] + eps)
        & (sides[:, 1] <= lat[:, None] + eps) & (lat[:, None] <= sides[:, 3] + eps)
    )  # fmt: skip
    assert inside.any(axis=1).all()


@pytest.mark.parametrize("examples", [25, pytest.param(150, marks=pytest.mark.slow)])
def test_every_point_of_any_region_is_covered(examples):
    settings(max_examples=examples, deadline=None)(check_coverage)()


@given(
    spacing=st.sampled_from([1 / 60, 1 / 30, 1 / 20, 0.05, 0.1, 0.25, 0.5]),
    first=st.tuples(st.integers(-3000, 2500), st.integers(-1500, 1000)),
    cells=st.tuples(st.integers(20, 300), st.integers(20, 300)),
    size=st.floats(0.2, 1),
)
def check_registrations(spacing, first, cells, size):
    """n + 1 nodes on the lines, or n nodes between them: one region, the same windows, every node in one of them."""
    scale = min(1.0, 80 / (1500 * spacing))  # keep it on the globe
    west, south = round(first[0] * scale) * spacing, round(first[1] * scale) * spacing
    if west + cells[0] * spacing > 180 or west < -180 or south + cells[1] * spacing > 90 or south < -90:
        return
    line = [start + spacing * np.arange(count + 1) for start, count in zip((west, south), cells, strict=True)]
    between = [axis[:-1] + spacing / 2 for axis in line]
    gridline, pixel = nodes_region(line[1], line[0]), nodes_region(between[1], between[0])
    assert gridline.bounds_wsen == pytest.approx(pixel.bounds_wsen, abs=1e-8)
    side = size * min(gridline.width_deg, gridline.height_deg)
    laid = windows(gridline, side, side / 2)
    assert np.allclose([w.bounds_wsen for w in laid], [w.bounds_wsen for w in windows(pixel, side, side / 2)])
    for axis, (low, high) in zip(line, ((0, 2), (1, 3)), strict=True):
        sides = np.array([window.bounds_wsen for window in laid])
        inside = (sides[:, low] <= axis[:, None] + 2e-6) & (axis[:, None] <= sides[:, high] + 2e-6)
        assert inside.any(axis=1).all()


@pytest.mark.parametrize("examples", [30, pytest.param(100, marks=pytest.mark.slow)])
def test_both_registrations_of_any_grid_give_the_same_windows(examples):
    settings(max_examples=examples, deadline=None)(check_registrations)()


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


def test_sizes_that_do_not_fit_are_left_out_with_a_note():
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


def test_a_region_with_small_windows_alone_is_offered_larger_ones():
    scales, notes = plan_scales(Region(80, 43, 86, 47))
    assert [scale.size_deg for scale in scales] == [1.0]
    assert notes[-1] == "`--window 2deg` makes windows that show a network more of the surroundings."
    assert not any("--window" in note for note in plan_scales(Region(80, 43, 92, 51))[1])  # 5 degrees fit
