import numpy as np
import pytest
import xarray as xr

from gravmap.errors import InputError
from gravmap.gravity import open_fields, write_fields
from gravmap.tiling import fields_region, read_field_grid


def test_fields_are_north_up_and_the_residual_by_default(sources):
    grid = read_field_grid(sources / "fields.nc")
    assert grid.channels == ("residual_10km",)
    assert grid.values.shape == (1, 51, 81)
    assert grid.values.dtype == np.float32
    assert grid.nodes_wsen == pytest.approx((80, 43, 88, 48))
    assert grid.region.bounds_wsen == (80, 43, 88, 48)
    with xr.open_dataset(sources / "fields.nc") as stored:
        north_west = stored["residual_10km"].sel(lat=48, lon=80, method="nearest")
        assert grid.values[0, 0, 0] == north_west
    assert grid.recipe["heights_m"] == [10000.0]
    assert grid.sources[0]["source"] == "a test"


def test_channels_come_in_the_order_asked(sources):
    grid = read_field_grid(sources / "fields.nc", ["regional_10km", "bouguer"])
    fields = open_fields(sources / "fields.nc")
    assert (grid.values[1] == fields["bouguer"].values[::-1]).all()
    assert (grid.values[0] == fields["regional_10km"].values[::-1]).all()


def test_each_channel_has_its_unit(sources, tmp_path):
    fields = open_fields(sources / "fields.nc")
    fields["fault_distance"] = fields["bouguer"].copy().assign_attrs(units="km")
    write_fields(fields, tmp_path / "fields.nc")
    grid = read_field_grid(tmp_path / "fields.nc", ["fault_distance", "residual_10km"])
    assert grid.units == ("km", "mGal")


def test_missing_files_and_channels(sources, tmp_path):
    with pytest.raises(InputError, match="gravmap residual"):
        read_field_grid(tmp_path / "fields.nc")
    with pytest.raises(InputError, match=r"residual_20km.*residual_10km"):
        read_field_grid(sources / "fields.nc", ["residual_20km"])
    write_fields(open_fields(sources / "fields.nc")[["bouguer"]], tmp_path / "bare.nc")
    with pytest.raises(InputError, match="no residual"):
        read_field_grid(tmp_path / "bare.nc")


def test_a_pixel_registered_grid_covers_its_half_cells(sources, tmp_path):
    fields = open_fields(sources / "fields.nc").isel(lat=slice(0, 50), lon=slice(0, 80))
    shifted = fields.assign_coords(lat=fields["lat"] + 0.05, lon=fields["lon"] + 0.05)
    write_fields(shifted, tmp_path / "pixel.nc")
    assert fields_region(tmp_path / "pixel.nc").bounds_wsen == (80, 43, 88, 48)
    assert read_field_grid(tmp_path / "pixel.nc").nodes_wsen == pytest.approx((80.05, 43.05, 87.95, 47.95))
