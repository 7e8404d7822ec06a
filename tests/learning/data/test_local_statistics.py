import numpy as np
import pytest

from gravmap.learning.data.local_statistics import WINDOWS_KM, local_statistics

KM = 6371 * np.pi / 180  # of a degree


def grid(north=55.0, west=80.0, ny=60, nx=90, step=1 / 15):
    return north - np.arange(ny) * step, west + np.arange(nx) * step


def by_hand(field, lat, lon, row, column, side):
    """Mean and deviation within a square on the ground, node by node."""
    step = lat[0] - lat[1]
    total = np.zeros(3)
    for r in range(len(lat)):
        down = abs(lat[r] - lat[row]) * KM
        tall = np.clip(side / 2 + step * KM / 2 - down, 0, min(step * KM, side))
        if tall <= 0:
            continue
        wide_step = step * KM * np.cos(np.radians(lat[r]))
        right = np.abs(lon - lon[column]) * KM * np.cos(np.radians(lat[r]))
        wide = np.clip(side / 2 + wide_step / 2 - right, 0, min(wide_step, side))
        known = np.isfinite(field[r])
        area, value = tall * wide[known], field[r][known]
        total += area.sum(), (area * value).sum(), (area * value**2).sum()
    mean = total[1] / total[0]
    return mean, np.sqrt(total[2] / total[0] - mean**2)


def test_means_and_deviations_are_those_within_kilometres():
    lat, lon = grid()
    field = np.random.default_rng(0).normal(0, 10, (60, 90))
    field[20:24, 30:33] = np.nan
    found = local_statistics(field[None], lat, lon)
    assert found.shape == (2 + 2 * len(WINDOWS_KM), 60, 90)
    for row, column in ((30, 45), (19, 31), (0, 0), (59, 60), (25, 89)):
        for number, side in enumerate(WINDOWS_KM):
            mean, deviation = by_hand(field, lat, lon, row, column, side)
            assert found[2 + 2 * number, row, column] == pytest.approx(mean, abs=1e-6)
            assert found[3 + 2 * number, row, column] == pytest.approx(deviation, abs=1e-6)
    np.testing.assert_array_equal(np.isnan(found), np.broadcast_to(np.isnan(field), found.shape))


def test_a_slope_is_per_kilometre_at_every_latitude():
    lat, lon = grid(north=70.0, ny=300)
    plane = 0.3 * (lat[:, None] - 60) * KM + 0.4 * (lon[None, :] - 80) * KM * np.cos(np.radians(lat))[:, None]
    # Along a parallel 0.4; along a meridian 0.3, less what the parallels' shrinking takes away.
    northward = 0.3 - 0.4 * np.radians(lon[None, :] - 80) * np.sin(np.radians(lat))[:, None]
    slope = local_statistics(plane[None], lat, lon)[1]
    np.testing.assert_allclose(slope[1:-1], np.hypot(0.4, northward)[1:-1], rtol=1e-4)
    # One-sided beside what is unknown, and right there too.
    plane[100, 40:43] = np.nan
    again = local_statistics(plane[None], lat, lon)[1]
    np.testing.assert_allclose(again[np.isfinite(again)], slope[np.isfinite(again)], rtol=1e-3)


def test_numbers_do_not_depend_on_the_spacing():
    def smooth(lat, lon):
        return 20 * np.sin(3 * lat)[:, None] + 15 * np.cos(2 * lon)[None, :]

    fine, coarse = grid(step=1 / 30, ny=121, nx=181), grid(step=1 / 15, ny=61, nx=91)
    one, other = (local_statistics(smooth(*axes)[None], *axes) for axes in (fine, coarse))
    inside = np.s_[:, 10:-10, 15:-15]
    spread = other[inside].std(axis=(1, 2))[:, None, None]
    # The deviation within a window loses the part of it within a node.
    assert np.abs((one[:, ::2, ::2][inside] - other[inside]) / spread).max() < 0.2


def test_a_part_gives_what_the_whole_does():
    lat, lon = grid(step=1 / 20, ny=120, nx=160)
    fields = np.random.default_rng(1).normal(0, 30, (2, 120, 160)).cumsum(axis=1)
    fields -= fields.mean(axis=(1, 2), keepdims=True)
    whole = local_statistics(fields, lat, lon)[:, 30:90, 40:120]
    margin = int(np.ceil((37.5 + 2 * KM / 20) / (KM / 20)))
    wide = int(np.ceil(margin / np.cos(np.radians(lat[30 - margin]))))
    part = np.s_[30 - margin : 90 + margin], np.s_[40 - wide : 120 + wide]
    found = local_statistics(fields[:, part[0], part[1]], lat[part[0]], lon[part[1]])
    np.testing.assert_allclose(found[:, margin:-margin, wide:-wide], whole, atol=1e-6)
