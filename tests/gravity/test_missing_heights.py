"""Residuals that the fields lack are computed."""

import json

import numpy as np
import pytest
import xarray as xr

from gravmap.errors import InputError
from gravmap.files import sha256
from gravmap.gravity import open_fields, open_grid, residual_fields, write_fields
from gravmap.gravity.fields_file import field_recipe, hash_channels
from gravmap.gravity.missing_heights import (
    ADDED,
    add_heights,
    file_with_channels,
    missing_heights,
    path_with_heights,
)
from gravmap.regions import Region

REGION = Region(81.0, 44.0, 85.0, 47.0)


@pytest.fixture
def place(tmp_path):
    """A grid wider than the region in raw/, and its fields at one height."""
    lat, lon = np.arange(40, 51.01, 0.1), np.arange(77, 89.01, 0.1)
    rng = np.random.default_rng(0)
    values = np.cumsum(np.cumsum(rng.normal(size=(lat.size, lon.size)), 0), 1)
    values = 20 * (values - values.mean()) / values.std()
    raw = tmp_path / "raw"
    raw.mkdir()
    grid = xr.Dataset(
        {"bouguer": (("lat", "lon"), values.astype(np.float32), {"units": "mGal"})}, {"lat": lat, "lon": lon}
    )
    grid.to_netcdf(raw / "grid.nc", engine="netcdf4")
    source = {"path": "grid.nc", "sha256": sha256(raw / "grid.nc")}
    write_fields(residual_fields(open_grid(raw / "grid.nc"), [10e3], REGION, sources=[source]), tmp_path / "fields.nc")
    return tmp_path


def test_only_missing_residuals_are_listed(place):
    fields = place / "fields.nc"
    assert missing_heights(fields, ["residual_10km"]) == []
    assert missing_heights(fields, ["residual_40km", "residual_10km", "residual_5km"]) == [5e3, 40e3]
    assert missing_heights(fields, ["residual_5km", "fault_distance"]) == []
    assert missing_heights(fields, ["residual_high"]) == []


def test_they_are_those_of_residual_fields_from_the_source_grid(place):
    source = add_heights(place / "fields.nc", [5e3, 40e3], place / "more.nc", place / "raw")
    assert source == "grid.nc"
    at_once = residual_fields(open_grid(place / "raw" / "grid.nc"), [5e3, 10e3, 40e3], REGION)
    made = open_fields(place / "more.nc")
    for name in ("bouguer", "residual_5km", "residual_10km", "residual_40km", "regional_40km"):
        np.testing.assert_allclose(made[name].values, at_once[name].values, atol=2e-3)
    assert float(abs(made["residual_40km"]).max()) > 1
    assert field_recipe(made)["heights_m"] == [5e3, 10e3, 40e3]
    assert json.loads(made.attrs[ADDED])["fields_channels"] == hash_channels(place / "fields.nc")


def test_without_the_source_grid_the_gravity_in_the_file_is_used(place):
    (place / "raw" / "grid.nc").unlink()
    source = add_heights(place / "fields.nc", [5e3], place / "more.nc", place / "raw")
    assert "ends at the rim" in source
    own = open_fields(place / "fields.nc")
    wanted = residual_fields(own["bouguer"].assign_attrs(height_m=0.0), [5e3])["residual_5km"]
    np.testing.assert_allclose(open_fields(place / "more.nc")["residual_5km"].values, wanted.values, atol=1e-3)


def test_all_missing_heights_are_named_or_found_beside(place):
    fields, read = place / "fields.nc", ["residual_10km", "residual_5km", "residual_40km"]
    assert file_with_channels(fields, ["bouguer", "residual_10km"]) == fields
    with pytest.raises(InputError, match=r"fields.nc lacks residual_5km, residual_40km\.") as caught:
        file_with_channels(fields, read)
    assert "`gravmap residual GRID --height 10km --height 5km --height 40km --overwrite`" in caught.value.hint
    add_heights(fields, [5e3, 40e3], path_with_heights(fields, [5e3, 40e3]), place / "raw")
    assert file_with_channels(fields, read) == place / "fields-5km-40km.nc"
    changed = open_fields(fields)
    changed["bouguer"] = changed["bouguer"] + 1
    write_fields(changed, fields)
    with pytest.raises(InputError, match="lacks"):
        file_with_channels(fields, read)


def test_a_file_of_the_same_fields_is_kept_and_of_others_replaced(place):
    add_heights(place / "fields.nc", [5e3], place / "more.nc", place / "raw")
    first = (place / "more.nc").stat().st_mtime_ns
    add_heights(place / "fields.nc", [5e3], place / "more.nc", place / "raw")
    assert (place / "more.nc").stat().st_mtime_ns == first
    # A layer more is not in that file; one that was removed since does no harm.
    plain = open_fields(place / "fields.nc")
    write_fields(plain.assign(magnetic=plain["bouguer"]), place / "fields.nc")
    add_heights(place / "fields.nc", [5e3], place / "more.nc", place / "raw")
    first, before = (place / "more.nc").stat().st_mtime_ns, first
    assert first > before
    write_fields(plain, place / "fields.nc")
    add_heights(place / "fields.nc", [5e3], place / "more.nc", place / "raw")
    assert (place / "more.nc").stat().st_mtime_ns == first
    changed = open_fields(place / "fields.nc")
    changed["bouguer"] = changed["bouguer"] + 1
    write_fields(changed, place / "fields.nc")
    add_heights(place / "fields.nc", [5e3], place / "more.nc", place / "raw")
    assert (place / "more.nc").stat().st_mtime_ns > first
    assert "ends at the rim" in json.loads(open_fields(place / "more.nc").attrs[ADDED])["made_from"]
