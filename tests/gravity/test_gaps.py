"""Filling gaps: exact where the answer is known, smooth elsewhere, known values unchanged."""

import numpy as np
import pytest

from gravmap.errors import InputError
from gravmap.gravity import gaps
from gravmap.gravity.gaps import fill_gaps


def with_gaps(values, *boxes):
    copy = np.array(values, dtype=float)
    for box in boxes:
        copy[box] = np.nan
    return copy


def test_a_plane_is_found_again():
    y, x = np.mgrid[0:40, 0:50]
    plane = 3.0 * x - 2 * y + 7
    filled = fill_gaps(with_gaps(plane, np.s_[10:20, 10:30], np.s_[30, 40]))
    np.testing.assert_allclose(filled, plane, atol=1e-3)


def test_a_biharmonic_surface_is_found_again():
    # x² - y² and x³ - 3xy² are harmonic, x³ is biharmonic: a hole in it is filled exactly.
    y, x = np.mgrid[-20:20, -20:20] / 10
    surface = x**3 + x * y + 0.5 * y**2
    filled = fill_gaps(with_gaps(surface, np.s_[12:22, 15:25]))
    np.testing.assert_allclose(filled, surface, atol=1e-4)


def test_a_harmonic_surface_in_a_large_hole(monkeypatch):
    monkeypatch.setattr(gaps, "BIHARMONIC_CELLS", 50)
    y, x = np.mgrid[-20:20, -20:20] / 10
    surface = x**2 - y**2 + x * y
    filled = fill_gaps(with_gaps(surface, np.s_[8:30, 10:31]))
    np.testing.assert_allclose(filled, surface, atol=1e-4)


def test_known_values_are_bit_for_bit_the_same():
    values = np.random.default_rng(0).normal(size=(30, 30)).astype(np.float32)
    values[3:5, 20:29] = np.nan
    values[0, 0] = values[29, 15] = np.nan
    filled = fill_gaps(values)
    known = ~np.isnan(values)
    np.testing.assert_array_equal(filled[known], values[known])
    assert np.isfinite(filled).all()


def test_many_specks_and_a_missing_corner():
    y, x = np.mgrid[0:120, 0:150]
    surface = 50 * np.sin(x / 25) * np.cos(y / 30)
    values = surface.copy()
    values[np.random.default_rng(1).random(surface.shape) < 0.01] = np.nan
    values[:30, :40] = np.nan
    filled = fill_gaps(values)
    assert np.isfinite(filled).all()
    away = np.ones_like(surface, dtype=bool)
    away[:31, :41] = False
    assert np.abs(filled - surface)[away].max() < 0.2


def test_nothing_known():
    with pytest.raises(InputError, match="NaN"):
        fill_gaps(np.full((5, 5), np.nan))
