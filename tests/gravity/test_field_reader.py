import json
import shutil

import numpy as np
import pytest
import xarray as xr
from scipy.interpolate import RegularGridInterpolator

from gravmap.errors import InputError
from gravmap.gravity import open_fields, write_fields
from gravmap.gravity.field_reader import FieldReader, fields_region, read_fields

RECIPE, SOURCES = {"quantity": "bouguer", "heights_m": [10000.0]}, [{"path": "made.nc", "source": "a test"}]


@pytest.fixture(scope="module")
def fields_file(tmp_path_factory):
    """80-88 E, 43-48 N, 6 arc-minutes."""
    lat, lon = np.round(np.arange(43, 48.01, 0.1), 9), np.round(np.arange(80, 88.01, 0.1), 9)
    rng = np.random.default_rng(0)
    fields = {
        name: xr.DataArray(rng.normal(0, 10, (51, 81)).astype(np.float32), dims=("lat", "lon"), attrs={"units": "mGal"})
        for name in ("bouguer", "regional_10km", "residual_10km")
    }
    attrs = {"gravmap_recipe": json.dumps(RECIPE), "gravmap_sources": json.dumps(SOURCES)}
    path = tmp_path_factory.mktemp("fields") / "fields.nc"
    write_fields(xr.Dataset(fields, coords={"lat": lat, "lon": lon}, attrs=attrs), path)
    return path


def test_fields_are_north_up_and_the_residual_by_default(fields_file):
    grid = read_fields(fields_file)
    assert grid.channels == ("residual_10km",)
    assert grid.values.shape == (1, 51, 81)
    assert grid.values.dtype == np.float32
    assert grid.nodes_wsen == pytest.approx((80, 43, 88, 48))
    assert grid.region.bounds_wsen == (80, 43, 88, 48)
    with xr.open_dataset(fields_file) as stored:
        north_west = stored["residual_10km"].sel(lat=48, lon=80, method="nearest")
        assert grid.values[0, 0, 0] == north_west
    assert grid.recipe["heights_m"] == [10000.0]
    assert grid.sources[0]["source"] == "a test"


def test_channels_come_in_the_order_given(fields_file):
    grid = read_fields(fields_file, ["regional_10km", "bouguer"])
    fields = open_fields(fields_file)
    assert (grid.values[1] == fields["bouguer"].values[::-1]).all()
    assert (grid.values[0] == fields["regional_10km"].values[::-1]).all()


def test_each_channel_has_its_unit(fields_file, tmp_path):
    fields = open_fields(fields_file)
    fields["fault_distance"] = fields["bouguer"].copy().assign_attrs(units="km")
    write_fields(fields, tmp_path / "fields.nc")
    grid = read_fields(tmp_path / "fields.nc", ["fault_distance", "residual_10km"])
    assert grid.units == ("km", "mGal")


def test_missing_files_and_channels(fields_file, tmp_path):
    with pytest.raises(InputError, match="gravmap residual"):
        read_fields(tmp_path / "fields.nc")
    with pytest.raises(InputError, match=r"residual_20km.*residual_10km"):
        read_fields(fields_file, ["residual_20km"])
    write_fields(open_fields(fields_file)[["bouguer"]], tmp_path / "bare.nc")
    with pytest.raises(InputError, match="no residual"):
        read_fields(tmp_path / "bare.nc")


def test_the_default_residual_is_that_of_10_km(fields_file, tmp_path):
    """Of the heights that a network on simulated crusts reads, too."""
    fields = open_fields(fields_file)
    lower = fields.rename(residual_10km="residual_5km")[["bouguer", "residual_5km"]]
    write_fields(lower.assign(residual_10km=fields["residual_10km"]), tmp_path / "several.nc")
    assert read_fields(tmp_path / "several.nc").channels == ("residual_10km",)
    write_fields(lower, tmp_path / "one.nc")
    assert read_fields(tmp_path / "one.nc").channels == ("residual_5km",)


def test_a_pixel_registered_grid_covers_its_half_cells(fields_file, tmp_path):
    fields = open_fields(fields_file).isel(lat=slice(0, 50), lon=slice(0, 80))
    shifted = fields.assign_coords(lat=fields["lat"] + 0.05, lon=fields["lon"] + 0.05)
    write_fields(shifted, tmp_path / "pixel.nc")
    assert fields_region(tmp_path / "pixel.nc").bounds_wsen == (80, 43, 88, 48)
    assert read_fields(tmp_path / "pixel.nc").nodes_wsen == pytest.approx((80.05, 43.05, 87.95, 47.95))


def test_a_rectangle_of_nodes_is_that_part_of_the_whole(fields_file):
    whole = read_fields(fields_file, ["bouguer", "residual_10km"]).values
    with FieldReader(fields_file) as fields:
        assert fields.shape == (51, 81)
        for rows, columns in (
            (slice(0, 3), slice(5, 9)),
            (slice(40, 51), slice(80, 81)),
            (slice(None), slice(7, None)),
        ):
            part = fields.read(["bouguer", "residual_10km"], rows, columns)
            np.testing.assert_array_equal(part, whole[:, rows, columns])
        with pytest.raises(InputError, match="residual_20km"):
            fields.read(["residual_20km"])


def test_values_between_nodes_are_those_of_scipy(fields_file):
    with FieldReader(fields_file) as fields:
        values = fields.read(["bouguer"])[0].astype(np.float64)
        linear = RegularGridInterpolator((fields.lat[::-1], fields.lon), values[::-1])
        lat, lon = np.linspace(47.9, 43.2, 7), np.linspace(80.05, 87.7, 9)
        wanted = linear(tuple(np.meshgrid(lat, lon, indexing="ij")))
        np.testing.assert_allclose(fields.interpolate("bouguer", lat, lon), wanted, rtol=1e-4, atol=1e-4)
        rows, columns = fields.nearest(lat, lon)
        assert np.abs(fields.lat[rows] - lat).max() < 0.0501
        assert np.abs(fields.lon[columns] - lon).max() < 0.0501


def test_a_damaged_file_is_refused_by_name(fields_file, tmp_path):
    damaged = tmp_path / "damaged.nc"
    content = bytearray(fields_file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    damaged.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read_fields(damaged, ["bouguer", "regional_10km", "residual_10km"])


def turned(path, change, *, engine="netcdf4"):
    """Rewrite a file as another program would."""
    with xr.open_dataset(path) as stored:
        changed = change(stored.load())
    changed.to_netcdf(path, engine=engine)


def with_axis(name, change):
    def changed(stored):
        values = stored[name].values.copy()
        change(values)
        return stored.assign_coords({name: values})

    return changed


def fill_nan(values):
    values[3] = np.nan


def move_node(values):
    values[3] += 0.02


def too_far_north(values):
    values += 60


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda stored: stored.drop_vars("bouguer"), "was not made by gravmap"),
        (lambda stored: stored.rename(lat="y"), "was not made by gravmap"),
        (lambda stored: stored.drop_vars("lat"), "no coordinates along 'lat'"),
        (with_axis("lat", fill_nan), "axis 'lat' has values that are not finite"),
        (with_axis("lon", move_node), "axis 'lon' is not evenly spaced"),
        (with_axis("lat", too_far_north), "axis 'lat' runs from 103 to 108"),
        (lambda stored: stored.isel(lat=slice(0, 2)), "axis 'lat' has only 2 nodes"),
        (lambda stored: stored.assign_attrs(gravmap_recipe=3.0), "gravmap_recipe of .* is not text"),
        (lambda stored: stored.assign_attrs(gravmap_recipe="{"), "gravmap_recipe of .* is not valid JSON"),
        (lambda stored: stored.assign_attrs(gravmap_recipe="[1]"), "gravmap_recipe of .* a list"),
        (lambda stored: stored.assign_attrs(gravmap_recipe='{"heights_m": "10"}'), "heights_m"),
        (lambda stored: stored.assign_attrs(gravmap_recipe="[" * 5000), "nested too deeply"),
        (lambda stored: stored.assign_attrs(gravmap_sources='["a"]'), "gravmap_sources of "),
        (lambda stored: stored.assign_attrs(height_m="deep"), "level 'deep'"),
    ],
)
def test_fields_that_cannot_be_used(fields_file, tmp_path, change, words):
    path = shutil.copy(fields_file, tmp_path / "fields.nc")
    turned(path, change)
    with pytest.raises(InputError, match=words) as caught:
        FieldReader(path)
    assert "fields.nc" in caught.value.message
    assert "gravmap residual" in caught.value.hint


def test_fields_turned_over_by_another_program(fields_file, tmp_path):
    path = shutil.copy(fields_file, tmp_path / "fields.nc")
    turned(path, lambda stored: stored.transpose("lon", "lat").isel(lat=slice(None, None, -1)).assign(count=3))
    with FieldReader(path) as fields, FieldReader(fields_file) as original:
        assert fields.names == original.names
        np.testing.assert_array_equal(fields.lat, original.lat)
        rows, columns = slice(2, 30), slice(7, 20)
        np.testing.assert_array_equal(
            fields.read(["bouguer"], rows, columns), original.read(["bouguer"], rows, columns)
        )


def test_truncated_fields(fields_file, tmp_path):
    content = fields_file.read_bytes()
    for size in (0, 5, 100, len(content) // 2, len(content) - 10):
        (tmp_path / "cut.nc").write_bytes(content[:size])
        with pytest.raises(InputError, match=r"cut\.nc"):
            read_fields(tmp_path / "cut.nc")
    with pytest.raises(InputError, match="is a folder"):
        open_fields(tmp_path)
