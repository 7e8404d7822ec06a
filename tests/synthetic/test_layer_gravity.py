"""Gravity of layers against slabs, prisms and point masses, none of which know a spectrum."""

import numpy as np
import pytest

from gravmap.synthetic.layers import (
    Layer,
    fade_window,
    low_pass,
    plane_gravity,
    plane_transfer_function,
    sphere_gravity,
    sphere_transfer_function,
)

G = 6.67430e-11
SEMI_MAJOR_M, ECCENTRICITY_SQUARED = 6_378_137.0, 0.00669437999014  # WGS 84


def prism_mgal(x, y, west, east, south, north, top, bottom, density):
    """Vertical attraction of a right prism at (x, y, 0); depths positive down. Nagy, Papp and Benedek 2000, eq. 8."""
    total = 0.0
    for i, dx in enumerate((west - x, east - x)):
        for j, dy in enumerate((south - y, north - y)):
            for k, dz in enumerate((top, bottom)):
                r = np.sqrt(dx**2 + dy**2 + dz**2)
                corner = dx * np.log(dy + r) + dy * np.log(dx + r) - dz * np.arctan2(dx * dy, dz * r)
                total = total + (-1) ** (i + j + k + 1) * corner
    return -1e5 * G * density * total


def plane_grid(shape, spacing):
    y, x = (spacing * (np.arange(size) - (size - 1) / 2) for size in shape)
    return np.meshgrid(y, x, indexing="ij")


def test_prism_formula_used_here_tends_to_the_slab():
    wide = prism_mgal(0.0, 0.0, -5e6, 5e6, -5e6, 5e6, 1e-3, 1000.0, 1000.0)
    assert wide == pytest.approx(2e5 * np.pi * G * 1000.0 * 1000.0, rel=1e-3)
    assert wide > 0


def test_a_layer_without_sides_is_the_bouguer_slab():
    slab = 41.93  # mGal: 2 pi G times 1 km of 1000 kg/m3, as every textbook has it
    assert plane_transfer_function(np.zeros(1), 3000.0, 4000.0)[0] * 1000 == pytest.approx(slab, abs=0.01)
    layer = Layer(500.0, 1500.0, np.full((20, 30), 1000.0))
    assert plane_gravity([layer], (2000.0, 2000.0), np.ones((20, 30))) == pytest.approx(slab, abs=0.01)


def test_the_symbol_is_the_sum_of_thin_sheets():
    k = np.array([0.0, 1e-6, 1e-4, 1e-3])
    depth = np.linspace(2000, 5000, 30001)
    sheets = np.trapezoid(2e5 * np.pi * G * np.exp(-k[:, None] * depth), depth, axis=1)
    assert plane_transfer_function(k, 2000.0, 5000.0) == pytest.approx(sheets, rel=1e-7)


def test_the_sphere_is_a_plane_at_short_waves_and_a_shell_at_the_mean():
    radius = 6.371e6
    q = np.array([500.0, 2000.0])
    flat = plane_transfer_function(q / radius, 5e3, 15e3)
    assert sphere_transfer_function(q, radius, 5e3, 15e3) == pytest.approx(flat, rel=5e-3)
    shell = 4 / 3 * np.pi * ((radius - 5e3) ** 3 - (radius - 15e3) ** 3) * G / radius**2 * 1e5
    assert sphere_transfer_function(np.array([0.5]), radius, 5e3, 15e3)[0] == pytest.approx(shell, rel=1e-9)


@pytest.mark.parametrize(("top", "bottom", "tolerance"), [(500.0, 1500.0, 0.02), (2e3, 7e3, 1e-3), (8e3, 20e3, 2e-4)])
def test_plane_gravity_against_the_prism_formula(top, bottom, tolerance):
    spacing, shape = 2000.0, (120, 150)
    y, x = plane_grid(shape, spacing)
    # Two bodies of opposite sign: their mean is zero, so no endless slab takes part.
    bodies = [(-60e3, -20e3, -40e3, -8e3, 300.0), (28e3, 68e3, 14e3, 46e3, -300.0)]
    contrast, expected = np.zeros(shape), np.zeros(shape)
    for west, east, south, north, density in bodies:
        inside = (x > west) & (x < east) & (y > south) & (y < north)
        assert inside.sum() * spacing**2 == (east - west) * (north - south)  # whole cells
        contrast[inside] = density
        expected += prism_mgal(x, y, west, east, south, north, top, bottom, density)
    half = (top + bottom) / 2
    layers = [Layer(top, half, contrast), Layer(half, bottom, contrast)]
    found = plane_gravity(layers, (spacing, spacing), fade_window(shape, (6, 6)), gap=1.0)
    away = np.ones(shape, dtype=bool)
    for west, east, south, north, _ in bodies:
        # A node nearer than a cell to a vertical side sees the side rounded by the spectrum: left out when shallow.
        near = (x > west - spacing) & (x < east + spacing) & (y > south - spacing) & (y < north + spacing)
        deep = (x > west + spacing) & (x < east - spacing) & (y > south + spacing) & (y < north - spacing)
        away &= ~near | deep
    inner = np.zeros(shape, dtype=bool)
    inner[12:-12, 12:-12] = True
    error = np.abs(found - expected)[inner & away].max() / np.abs(expected).max()
    assert error < tolerance


def test_plane_gravity_with_the_crusts_own_filter_is_the_filtered_prism():
    """With the low pass the rounded sides cannot be seen any more: the tightest test of the whole chain."""
    spacing, fine, shape = 4000.0, 1000.0, (60, 72)
    top, bottom = 1000.0, 6000.0
    edges = (-48e3, 48e3, -32e3, 32e3)
    y, x = plane_grid(shape, spacing)
    inside = (x > edges[0]) & (x < edges[1]) & (y > edges[2]) & (y < edges[3])
    contrast = np.where(inside, 300.0, 0.0)
    mean = contrast.mean()
    keep = low_pass(30e3)
    found = plane_gravity([Layer(top, bottom, contrast - mean)], (spacing, spacing), np.ones(shape), filters=keep)
    # The same prism by its formula on a finer grid, filtered there.
    fine_y, fine_x = plane_grid((480, 576), fine)
    exact = prism_mgal(fine_x, fine_y, *edges, top, bottom, 300.0)
    k = 2 * np.pi * np.hypot(np.fft.fftfreq(480, fine)[:, None], np.fft.rfftfreq(576, fine)[None, :])
    exact = np.fft.irfft2(np.fft.rfft2(exact) * keep(k), s=exact.shape)
    # Coarse nodes lie between fine ones: interpolate (a field this smooth allows it).
    from scipy.interpolate import RectBivariateSpline

    expected = RectBivariateSpline(fine_y[:, 0], fine_x[0], exact)(y[:, 0], x[0])
    box = prism_mgal(x, y, *(spacing / 2 * np.array([-72, 72, -60, 60])), top, bottom, -mean)
    expected = (expected + box)[14:-14, 14:-14]
    error = found[14:-14, 14:-14] - expected
    assert np.abs(error).max() < 2e-3 * np.ptp(expected)


def test_no_periodic_image_reaches_the_inside():
    rng = np.random.default_rng(3)
    shape = (96, 120)
    # A rough field with a strong slope: the worst for a periodic transform.
    contrast = np.cumsum(rng.normal(0, 20, shape), axis=1) + np.linspace(-300, 300, shape[0])[:, None]
    layers = [Layer(0.0, 5e3, contrast), Layer(38e3, 42e3, contrast)]
    window = fade_window(shape, (12, 12))
    inner = (slice(24, -24), slice(24, -24))
    far = plane_gravity(layers, (3700.0, 2500.0), window, gap=3.0)[inner]
    usual = plane_gravity(layers, (3700.0, 2500.0), window)[inner] - far
    periodic = plane_gravity(layers, (3700.0, 2500.0), window, gap=0.0)[inner] - far
    assert usual.std() < 0.003 * far.std()
    assert periodic.std() > 2 * usual.std()


def test_more_margin_changes_little_inside():
    rng = np.random.default_rng(4)
    shape = (140, 160)
    contrast = np.cumsum(np.cumsum(rng.normal(0, 1, shape), axis=0), axis=1)
    contrast *= 60 / contrast.std()
    spacing = (3700.0, 2500.0)

    def gravity(cut):
        part = contrast[cut : shape[0] - cut, cut : shape[1] - cut]
        whole = plane_gravity([Layer(1e3, 8e3, part)], spacing, fade_window(part.shape, (12, 12)))
        return whole[50 - cut : 90 - cut, 50 - cut : 110 - cut]

    change = gravity(0) - gravity(25)  # 25 cells of margin against 50
    assert (change - change.mean()).std() < 0.1 * gravity(0).std()


def test_tall_region_against_point_masses_on_the_ellipsoid():
    lat, lon = np.arange(40, 56.05, 0.1), np.arange(70, 90.05, 0.1)
    top, bottom = 6e3, 16e3
    contrast = np.zeros((lat.size, lon.size))
    masses = []
    # One body in the south, its opposite in the north: cos(latitude) differs by a quarter between them.
    for south, west, density in ((43.05, 76.05, 200.0), (51.55, 82.05, -200.0)):
        north, east = south + 1.5, west + 2.0
        inside = (lat[:, None] > south) & (lat[:, None] < north) & (lon[None, :] > west) & (lon[None, :] < east)
        contrast[inside] = density
        masses.append((south, north, west, east, density))
    assert contrast.mean() == pytest.approx(0, abs=1e-9)  # so no endless slab takes part
    layers = [Layer(top, 11e3, contrast), Layer(11e3, bottom, contrast)]
    found = sphere_gravity(layers, lat, lon, np.ones_like(contrast))
    rows, columns = np.meshgrid(np.arange(22, lat.size - 22, 9), np.arange(40, lon.size - 40, 9), indexing="ij")
    expected = sum(body_of_point_masses(lat[rows], lon[columns], *mass, top, bottom) for mass in masses)
    error = found[rows, columns] - expected
    assert np.abs(expected).max() > 50
    # Measured 0.8 % here, where a cell is 11 km and the body begins at 6 km, and 0.3 % on cells half as wide.
    assert np.abs(error).max() < 0.01 * np.abs(expected).max()


def body_of_point_masses(lat, lon, south, north, west, east, density, top, bottom, step=0.05, sheets=8):
    """Attraction (mGal, along the inward normal, at height 0) of a body cut into point masses."""

    def place(lat_deg, lon_deg, height):
        phi, lam = np.radians(lat_deg), np.radians(lon_deg)
        n = SEMI_MAJOR_M / np.sqrt(1 - ECCENTRICITY_SQUARED * np.sin(phi) ** 2)
        return np.stack(
            [
                (n + height) * np.cos(phi) * np.cos(lam),
                (n + height) * np.cos(phi) * np.sin(lam),
                (n * (1 - ECCENTRICITY_SQUARED) + height) * np.sin(phi),
            ]
        )

    points = place(lat.ravel(), lon.ravel(), 0.0)
    phi, lam = np.radians(lat.ravel()), np.radians(lon.ravel())
    up = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)])
    total = np.zeros(points.shape[1])
    lats, lons = np.arange(south + step / 2, north, step), np.arange(west + step / 2, east, step)
    thick = (bottom - top) / sheets
    for depth in top + thick * (np.arange(sheets) + 0.5):
        source_lat, source_lon = (part.ravel() for part in np.meshgrid(lats, lons, indexing="ij"))
        w2 = 1 - ECCENTRICITY_SQUARED * np.sin(np.radians(source_lat)) ** 2
        m, n = SEMI_MAJOR_M * (1 - ECCENTRICITY_SQUARED) / w2**1.5, SEMI_MAJOR_M / np.sqrt(w2)
        area = np.radians(step) ** 2 * (m - depth) * (n - depth) * np.cos(np.radians(source_lat))
        sources = place(source_lat, source_lon, -depth)
        away = points[:, :, None] - sources[:, None, :]
        distance = np.sqrt((away**2).sum(axis=0))
        total += (density * area * thick * (away * up[:, :, None]).sum(axis=0) / distance**3).sum(axis=1)
    return (1e5 * G * total).reshape(lat.shape)


@pytest.mark.peer
def test_plane_gravity_against_harmonicas_prisms():
    harmonica = pytest.importorskip("harmonica")
    rng = np.random.default_rng(5)
    shape, spacing = (48, 56), 2000.0
    y, x = plane_grid(shape, spacing)
    contrast = np.repeat(np.repeat(rng.normal(0, 100, (6, 7)), 8, axis=0), 8, axis=1)
    contrast -= contrast.mean()
    half = spacing / 2
    prisms = np.stack([x - half, x + half, y - half, y + half, 0 * x - 7000, 0 * x - 2000], axis=-1).reshape(-1, 6)
    inner = (slice(10, -10), slice(10, -10))
    points = (x[inner].ravel(), y[inner].ravel(), np.zeros(x[inner].size))
    expected = harmonica.prism_gravity(points, prisms, contrast.ravel(), field="g_z").reshape(x[inner].shape)
    found = plane_gravity([Layer(2e3, 7e3, contrast)], (spacing, spacing), np.ones(shape), gap=2.0)[inner]
    assert np.abs(found - expected).max() < 2e-3 * np.abs(expected).max()
