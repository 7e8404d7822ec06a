"""Units, levels and values that cannot be."""

import numpy as np
import pytest

from gravmap.errors import InputError
from gravmap.gravity.quantity import GRAVITY, check_anomaly, height_from_text


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("mGal", 1),
        ("milligal", 1),
        ("mgals", 1),
        ("m/s2", 1e5),
        ("m s-2", 1e5),
        ("m s^-2", 1e5),
        ("m/s^2", 1e5),
        ("m/s**2", 1e5),
        ("um/s2", 0.1),
        ("µm/s²", 0.1),
        ("gu", 0.1),
        ("uGal", 1e-3),
    ],
)
def test_units(unit, factor):
    assert GRAVITY.factor(unit, "here") == pytest.approx(factor)


@pytest.mark.parametrize("unit", ["m", "nT", "km/s", "1", "degrees", "mGal/m"])
def test_units_of_other_quantities_are_refused(unit):
    with pytest.raises(InputError, match="not a known unit of gravity"):
        GRAVITY.factor(unit, "here")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([np.nan, np.nan], "NaN"),
        ([3.0, 3.0], "constant"),
        ([980_100.0, 981_300.0], "absolute gravity"),
        ([-99_999.0, 12.0], "beyond any gravity anomaly"),
        ([np.inf, 12.0], "infinite"),
    ],
)
def test_values(values, words):
    with pytest.raises(InputError, match=words):
        check_anomaly(np.array(values), "file")


def test_a_unit_that_cannot_be_is_refused_with_the_one_that_fits():
    field = np.array([-500.0, -100.0, -8.0])
    for values, factor, hint in [(1e5 * field, 1e5, "--units mGal"), (1e-5 * field, 1.0, "--units m/s2")]:
        with pytest.raises(InputError) as refused:
            check_anomaly(values, "file", factor)
        assert hint in refused.value.hint
    check_anomaly(1e-5 * field, "file", unit_stated=True)


def test_ordinary_values_pass():
    check_anomaly(np.array([-529.0, 1005.0, np.nan]), "WGM2012")


@pytest.mark.parametrize(
    ("text", "height_m"),
    [
        ("complete spherical Bouguer disturbance at 10 km height, from EIGEN-6C4", 10_000),
        ("at 250 m ellipsoidal height", 250),
        ("at 10km height", 10_000),
        ("Bouguer anomaly at the Earth's surface", None),
        ("at 30 arc-min nodes", None),
    ],
)
def test_a_height_is_formatted(text, height_m):
    assert height_from_text(text) == height_m
