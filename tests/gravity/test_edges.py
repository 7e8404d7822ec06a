"""Edge effects: the estimated error has the size of the true one, and trimming bounds it."""

import numpy as np
import pytest

from gravmap.errors import OptionError
from gravmap.gravity import residual_fields
from gravmap.gravity.edges import Trim, edge_error, relative_edge_error
from gravmap.regions import Region


@pytest.fixture(scope="module")
def masses():
    """A field that does not end at the grid's edge: 600 masses, 8 to 150 km deep, in and around it."""
    rng = np.random.default_rng(5)
    depth = np.exp(rng.uniform(np.log(8), np.log(150), 600)) * 1e3
    return list(zip(rng.uniform(64, 96, 600), rng.uniform(34, 61, 600), depth, rng.normal(0, 30, 600), strict=True))


@pytest.fixture(scope="module")
def seen(masses, point_masses):
    lat, lon = np.arange(41, 54, 0.1), np.arange(71, 89, 0.1)
    return [point_masses(masses, lat, lon, height) for height in (0.0, 10e3, 20e3)]


@pytest.fixture(scope="module")
def fields(seen):
    return residual_fields(seen[0], [10e3, 20e3])


@pytest.mark.parametrize(("height", "name"), [(1, "10km"), (2, "20km")])
def test_the_estimate_is_of_the_size_of_the_error(seen, fields, height, name):
    error = (fields[f"regional_{name}"] - seen[height]).values
    estimate = fields[f"edge_error_{name}"].values
    assert fields[f"edge_error_{name}"].attrs["units"] == "mGal"
    y, x = np.indices(error.shape)
    rows = np.minimum(y, error.shape[0] - 1 - y)
    rim = np.minimum(rows, np.minimum(x, error.shape[1] - 1 - x))
    for part in (rim < 2, (rim >= 4) & (rim < 10), rim > 20):
        found, estimated = (np.sqrt(np.mean(np.square(values[part]))) for values in (error, estimate))
        assert estimated / 2.5 < found < estimated * 2.5


def test_it_falls_with_distance_and_with_what_is_known():
    d = np.array([0.0, 10, 50, 100, 500])
    for height_m in (2e3, 10e3, 40e3, 500e3):
        error = relative_edge_error(d, height_m)
        assert (np.diff(error) < 0).all()
        assert 0 < error[-1] < error[0] < 0.3
        assert (relative_edge_error(d, height_m, globe=True) <= error).all()
    lat, lon = np.arange(40, 50, 0.5), np.arange(70, 80, 0.5)
    blind, seen = (edge_error(lat, lon, known, 10e3, 8.0) for known in ((0, 0, 0, 0), (5, 5, 5, 5)))
    assert blind.shape == (20, 20)
    assert (seen < blind).all()
    assert blind[0, 0] == pytest.approx(8 * 0.28 * 2**0.5, rel=0.02)


def test_no_estimate_where_enough_is_known(seen):
    part = residual_fields(seen[0], [10e3], Region(75, 44, 85, 51))
    assert list(part) == ["bouguer", "regional_10km", "residual_10km"]


def test_a_width_is_counted_from_the_end_of_the_data(seen, fields):
    cut = residual_fields(seen[0], [10e3], trim=Trim(width_deg=1.0))
    assert float(cut.lat[0]) == pytest.approx(42)
    assert float(cut.lon[-1]) == pytest.approx(float(seen[0].lon[-1]) - 1)
    # The rim still helped to continue what is left.
    np.testing.assert_allclose(cut.regional_10km, fields.regional_10km.sel(lat=cut.lat, lon=cut.lon), atol=0.02)
    # A margin that is known already counts.
    wide = residual_fields(seen[0], [10e3], Region(75, 44, 85, 51), trim=Trim(width_deg=1.0))
    assert wide.sizes == residual_fields(seen[0], [10e3], Region(75, 44, 85, 51)).sizes


def test_trimming_bounds_the_relative_error(seen, fields):
    cut = residual_fields(seen[0], [10e3, 20e3], trim=Trim(max_relative_error=0.08))
    assert 0 < cut.bouguer.size < fields.bouguer.size
    for name in ("10km", "20km"):
        kept = fields[f"edge_error_{name}"].sel(lat=cut.lat, lon=cut.lon)
        assert float(kept.max()) <= 0.0801 * float(np.sqrt((fields[f"residual_{name}"].astype(float) ** 2).mean()))


@pytest.mark.parametrize("trim", [Trim(width_deg=7.0), Trim(max_relative_error=1e-4)])
def test_nothing_left(seen, trim):
    with pytest.raises(OptionError, match="leaves nothing"):
        residual_fields(seen[0], [10e3], trim=trim)


def test_bands_add_up(seen):
    fields = residual_fields(seen[0], [5e3, 10e3, 40e3], with_bands=True)
    assert [name for name in fields if name.startswith("band")] == ["band_5km_10km", "band_10km_40km"]
    total = fields.residual_5km + fields.band_5km_10km + fields.band_10km_40km
    np.testing.assert_allclose(total, fields.residual_40km, atol=1e-4)
    assert fields.band_10km_40km.attrs["units"] == "mGal"
