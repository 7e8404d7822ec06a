"""Random fields and the laws that shapes follow."""

import numpy as np
import pytest

from gravmap.synthetic import load_prior
from gravmap.synthetic.bedrock import _granites, _plutons
from gravmap.synthetic.geometry import RandomStreams, random_field, strike_plane

USUAL = load_prior().typical()


def nodes(shape, step):
    return np.meshgrid(step * np.arange(shape[0]), step * np.arange(shape[1]), indexing="ij")


def lag_correlation(field, lag, axis):
    a, b = np.take(field, range(field.shape[axis] - lag), axis), np.take(field, range(lag, field.shape[axis]), axis)
    return (a * b).mean() / (field**2).mean()


def test_fields_have_unit_variance_and_no_mean_over_many_draws():
    y, x = nodes((60, 60), 3.0)
    draws = np.array([random_field(np.random.default_rng(seed), y, x, 12.0, 2.0, 1.0, 3.0) for seed in range(60)])
    assert draws.mean() == pytest.approx(0, abs=0.05)
    assert draws.var() == pytest.approx(1, rel=0.1)


def test_fields_have_the_correlation_of_their_spectrum():
    """nu = 1 in two dimensions: correlation (r/L) K1(r/L), Matern's closed form."""
    from scipy.special import kv

    y, x = nodes((150, 150), 4.0)
    fields = [random_field(np.random.default_rng(seed), y, x, 20.0, 3.0, 1.0, 4.0) for seed in range(25)]
    for lag in (3, 6, 10):
        for axis, length in ((0, 20.0), (1, 60.0)):  # three times as long along the second coordinate
            found = np.mean([lag_correlation(field, lag, axis) for field in fields])
            r = 4.0 * lag / length
            assert found == pytest.approx(r * kv(1, r), abs=0.08)


def test_fields_do_not_repeat():
    y, x = nodes((200, 200), 4.0)
    fields = [random_field(np.random.default_rng(seed), y, x, 30.0, 1.0, 1.0, 4.0) for seed in range(20)]
    opposite = np.mean([(field[0] * field[-1]).mean() for field in fields])
    assert abs(opposite) < 0.15


def test_parts_have_streams_of_their_own():
    one, two = RandomStreams(3), RandomStreams(3)
    one.stream("a").standard_normal(1000)
    assert one.stream("b").standard_normal() == two.stream("b").standard_normal()
    assert one.stream("a").standard_normal() != one.stream("b").standard_normal()


def test_strike_is_where_the_across_coordinate_stands_still():
    y, x = nodes((120, 140), 3.0)
    plane = strike_plane(RandomStreams(4), y, x, 3.0, USUAL)
    slope_y, slope_x = np.gradient(plane.deep_across_km, 3.0)
    along = slope_x * np.cos(plane.strike_rad) + slope_y * np.sin(plane.strike_rad)
    across = -slope_x * np.sin(plane.strike_rad) + slope_y * np.cos(plane.strike_rad)
    assert np.abs(along).max() < 0.02 * np.abs(across).mean()


def test_granites_follow_the_thickness_law():
    """Cruden and McCaffrey 2001: T = 0.6(+-0.15) W^0.6(+-0.1), T and W in km."""
    y, x = nodes((420, 420), 2.0)
    plane = strike_plane(RandomStreams(6), y, x, 2.0, USUAL)
    counted = np.ones(y.shape, dtype=bool)
    body, thickness, count = _plutons(plane, counted, 0.12 * counted.size, _granites(plane, USUAL))
    assert (body > 0).mean() == pytest.approx(0.12, abs=0.002)
    numbers = np.arange(1, count + 1)
    area = np.bincount(body.ravel(), minlength=count + 1)[1:] * 4.0
    deepest = np.array([thickness[body == number].max(initial=0) for number in numbers])
    large = area > 60
    width = 2 * np.sqrt(area[large] / np.pi)
    power, factor = np.polyfit(np.log(width), np.log(deepest[large]), 1)
    assert power == pytest.approx(0.6, abs=0.15)
    assert 0.45 < np.exp(np.mean(np.log(deepest[large]) - 0.6 * np.log(width))) < 0.9
    assert factor < np.log(1.5)
