"""Statistics of fields and maps, compared with known laws and counts."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from gravmap.lattice import KM_PER_DEGREE
from gravmap.synthetic import draw_crust, load_prior
from gravmap.synthetic.measured import Measuring, measured_fields, surface_at
from gravmap.synthetic.prior import Draw
from gravmap.synthetic.statistics import field_statistics, map_statistics, outcrop_statistics, power_slope


def noise(shape, spacing_yx_km, exponent, seed=0):
    """White noise whose power was made to fall as k^exponent."""
    rng = np.random.default_rng(seed)
    k = np.hypot(np.fft.fftfreq(shape[0], spacing_yx_km[0])[:, None], np.fft.fftfreq(shape[1], spacing_yx_km[1]))
    k[0, 0] = 1
    return np.fft.ifft2(np.fft.fft2(rng.normal(size=shape)) * k ** (exponent / 2)).real


@pytest.mark.parametrize("exponent", [-2.0, -4.0])
def test_the_slope_is_the_exponent_of_the_noise(exponent):
    found = [power_slope(noise((150, 200), (3.7, 2.5), exponent, seed), (3.7, 2.5), 200, 20) for seed in range(6)]
    assert np.mean(found) == pytest.approx(exponent, abs=0.15)


def test_a_plane_does_not_change_the_slope():
    field = noise((120, 160), (3.7, 3.0), -3.0)
    tilted = field + 50 * np.linspace(0, 1, 120)[:, None] * field.std()
    assert power_slope(tilted, (3.7, 3.0), 400, 40) == pytest.approx(power_slope(field, (3.7, 3.0), 400, 40), abs=1e-6)


def test_no_slope_where_the_grid_holds_no_such_waves():
    field = noise((60, 60), (3.7, 2.5), -3.0)  # 222 x 150 km
    assert power_slope(field, (3.7, 2.5), 400, 100) is None
    assert power_slope(field, (3.7, 2.5), 100, 40) is not None
    assert power_slope(field, (27.8, 19.0), 100, 40) is None  # two nodes must go into the shortest


def test_an_outlier_changes_the_std_and_not_the_robust_std():
    quiet = np.random.default_rng(1).normal(0, 5, (200, 200))
    loud = quiet.copy()
    loud[:10, :10] = 200
    one, other = (field_statistics({"residual_10km": field}, (3.7, 2.5)) for field in (quiet, loud))
    assert one["residual_10km_robust"] == pytest.approx(5, rel=0.02)
    assert one["residual_10km_std"] == pytest.approx(5, rel=0.02)
    assert other["residual_10km_robust"] == pytest.approx(5, rel=0.02)
    assert other["residual_10km_std"] == pytest.approx(np.sqrt(25 + 0.0025 * 200**2), rel=0.02)


def test_fields_with_few_known_nodes_are_left_out():
    field = np.random.default_rng(2).normal(size=(40, 40))
    field[:8] = np.nan  # a fifth
    assert field_statistics({"bouguer": field}, (3.7, 2.5))["bouguer_std"] == pytest.approx(np.nanstd(field))
    field[:15] = np.nan
    assert field_statistics({"bouguer": field}, (3.7, 2.5)) == {}
    assert map_statistics(np.where(np.isnan(field), 255, 1).astype(np.uint8), (3.7, 2.5), 2) == {}


def test_outcrop_is_compared_with_cover_where_both_are_known():
    labels = np.full((20, 20), 255, np.uint8)
    labels[:5], labels[5:10] = 0, 3
    field = np.where(labels == 0, -4.0, np.where(labels == 3, 2.5, 90.0))
    assert outcrop_statistics({"residual_10km": field, "bouguer": field}, labels) == {"residual_10km_outcrop": 6.5}
    field[0], field[9] = np.nan, np.nan
    assert outcrop_statistics({"residual_10km": field}, labels) == {"residual_10km_outcrop": 6.5}
    field[1:5] = np.nan  # no cover is left
    assert outcrop_statistics({"residual_10km": field}, labels) == {}
    assert outcrop_statistics({"residual_10km": np.ones((20, 20))}, np.zeros((20, 20), np.uint8)) == {}


def test_roots_under_ranges_pull_gravity_over_outcrop_down():
    """The same crust with and without roots: isostasy has the sign that mountains have."""
    how = Measuring(0.0, (1 / 30, 1 / 30), (40e3,))
    found = {}
    for root in (0.0, 5.0):
        draws = {**load_prior().draws, "moho.root_km": Draw("fixed", root, 0.0, root, root)}
        crust = draw_crust(replace(load_prior(), draws=draws), 3, (120, 160))
        fields = measured_fields(crust, how)
        labels = surface_at(crust, fields["lat"].values, fields["lon"].values)
        assert np.array_equal(labels, crust.surface)  # the nodes are the cells
        found[root] = outcrop_statistics({"residual_40km": fields["residual_40km"].values}, labels)
    (without,), (rooted,) = (each.values() for each in found.values())
    assert rooted < without - 3


def test_cover_distances_and_percentages_are_counted():
    """One column of outcrop on the west: cells of cover lie 1, 2, ... steps from it."""
    labels = np.zeros((40, 101), np.uint8)
    labels[:, 0] = np.repeat([1, 3], [30, 10])
    found = map_statistics(labels, (3.7, 2.0), 3)
    assert found["cover_share"] == pytest.approx(100 * 100 / 101)
    steps = 2.0 * np.arange(1, 101)
    for quartile in (25, 50, 75):
        assert found[f"outcrop_distance_{quartile}"] == pytest.approx(np.percentile(np.tile(steps, 40), quartile))
    assert [found[f"share_{index}"] for index in (1, 2, 3)] == [75, 0, 25]


def test_unusable_cells_are_neither_cover_nor_outcrop():
    labels = np.ones((20, 20), np.uint8)
    labels[:4] = 255
    labels[4:12] = 0
    found = map_statistics(labels, (1.0, 1.0), 2)
    assert found["cover_share"] == 50
    # By area: rows of cover half as large as the others.
    row_km2 = np.where(np.arange(20) < 12, 1.0, 2.0)
    assert map_statistics(labels, (1.0, 1.0), 2, row_km2)["cover_share"] == pytest.approx(100 * 8 / (8 + 16))
    assert found["outcrop_distance_50"] == 4.5  # rows 1 to 8 from the outcrop below; the unusable ones do not count


def test_a_crust_is_measured_at_the_height_and_on_the_nodes_of_the_field():
    """A wave that runs east falls by exp(-k h) on its way up, and a residual holds what the next height takes."""
    crust = draw_crust(load_prior(), 0, (96, 128))
    lat, lon = crust.around["lat"].values, crust.around["lon"].values
    length_km, level, height = 90.0, 10.0, 10.0
    km = KM_PER_DEGREE * np.cos(np.radians(crust.gravity["lat"].values.mean()))
    k = 2 * np.pi / length_km
    wave = np.broadcast_to(10 * np.sin(k * km * lon), (lat.size, lon.size)).astype(np.float32)
    crust = replace(crust, around=crust.around.copy(data=wave))
    fields = measured_fields(crust, Measuring(1000 * level, (0.25, 0.2), (1000 * height,)))
    _, south, _, _ = crust.bounds_wsen
    assert float(fields["lat"][0]) == pytest.approx(south + 0.125)
    assert float(fields["lon"][1] - fields["lon"][0]) == pytest.approx(0.2)
    middle = fields.isel(lat=fields.sizes["lat"] // 2)
    here = 10 * np.sin(k * km * middle["lon"].values)
    # The level of a patch is not known above it; its waves are.
    bouguer, residual = (middle[name].values[4:-4] for name in ("bouguer", "residual_10km"))
    aloft = np.exp(-k * level) * here[4:-4]
    np.testing.assert_allclose(bouguer - bouguer.mean(), aloft - aloft.mean(), atol=0.15)
    lost = (1 - np.exp(-k * height)) * aloft
    np.testing.assert_allclose(residual - residual.mean(), lost - lost.mean(), atol=0.15)


def test_a_field_like_the_crusts_own_is_left_on_its_nodes():
    crust = draw_crust(load_prior(), 0, (40, 50))
    fields = measured_fields(crust, Measuring(0.0, (1 / 30, 1 / 30), (10_000.0,)))
    xr.testing.assert_allclose(fields["bouguer"].drop_vars("spatial_ref", errors="ignore"), _bare(crust.gravity))


def _bare(grid):
    return grid.drop_vars("spatial_ref", errors="ignore")


def test_a_coarse_grid_at_height_zero_cannot_be_compared():
    assert Measuring(0.0, (1 / 30, 1 / 30), ()).why_not() is None
    assert Measuring(0.0, (1 / 60, 1 / 60), ()).why_not() is None
    assert Measuring(10_000.0, (0.25, 0.25), ()).why_not() is None
    assert "15 arc-minutes apart" in Measuring(0.0, (0.25, 0.25), ()).why_not()
