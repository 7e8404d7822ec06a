"""The Dataset of fields: its variables, the effect of the margin, and the round trip through its file."""

import json
import subprocess

import numpy as np
import pytest
import xarray as xr

from gravmap.errors import InputError, OptionError
from gravmap.gravity import open_fields, residual_fields, upward_continue, write_fields
from gravmap.gravity.fields_file import field_recipe, field_sources
from gravmap.gravity.long_wavelength import LongWavelengthField
from gravmap.regions import Region

REGION = Region(74, 43, 86, 52)


@pytest.fixture(scope="module")
def fields(truth):
    return residual_fields(truth.at(0), [20e3, 10e3], REGION, sources=[{"path": "grid.nc", "sha256": "0" * 64}])


def test_what_is_in_it(fields):
    assert list(fields) == ["bouguer", "regional_10km", "residual_10km", "regional_20km", "residual_20km"]
    for name, field in fields.items():
        assert field.dims == ("lat", "lon"), name
        assert field.dtype == np.float32
        assert field.attrs["units"] == "mGal"
    assert fields.regional_10km.attrs["height_m"] == 10e3
    assert fields.residual_10km.attrs["height_m"] == 0
    np.testing.assert_allclose(fields.bouguer - fields.regional_20km, fields.residual_20km, atol=1e-4)
    assert (fields.lon.min(), fields.lon.max()) == pytest.approx((74, 86), abs=0.067)


def test_it_is_the_truth(fields, truth, relative_error):
    inside = {"lat": fields.lat, "lon": fields.lon}
    field = truth.at(0).sel(inside)
    for height_m, name in ((10e3, "regional_10km"), (20e3, "regional_20km")):
        assert relative_error(fields[name], field, truth.at(height_m).sel(inside)) < 0.003


def test_a_margin_makes_the_rim_right(truth, relative_error):
    field, regional = truth.at(0), truth.at(10e3)
    tight = Region(77, 45, 83, 49.5)
    inside = {"lat": slice(45 - 1e-9, 49.5 + 1e-9), "lon": slice(77 - 1e-9, 83 + 1e-9)}
    errors = {
        margin: relative_error(
            residual_fields(field, [10e3], tight, margin_deg=margin).regional_10km,
            field.sel(inside),
            regional.sel(inside),
        )
        for margin in (0, 5)
    }
    assert errors[5] < 0.003
    assert errors[0] > 10 * errors[5]


def test_remove_restore_with_a_global_grid(point_masses, truth, relative_error):
    masses = (
        (80.0, 46.6, 120e3, 50.0),
        (70.0, 50.0, 400e3, 80.0),
        (95.0, 41.0, 700e3, -90.0),
        (20.0, -40.0, 900e3, 60.0),
    )
    low = LongWavelengthField(point_masses(masses, np.arange(-89.5, 90), np.arange(-179.5, 180), 0.0))
    field, regional = (point_masses(masses, truth.lat, truth.lon, height_m) for height_m in (0.0, 10e3))
    inside = {"lat": slice(45 - 1e-9, 50 + 1e-9), "lon": slice(77 - 1e-9, 84 + 1e-9)}
    errors = [
        relative_error(
            residual_fields(field, [10e3], Region(77, 45, 84, 50), long_wavelength=choice).regional_10km,
            field.sel(inside),
            regional.sel(inside),
        )
        for choice in (None, low)
    ]
    # A part of a long wave looks like a plane from inside: only the globe tells how it decays.
    assert errors[0] > 0.01
    assert errors[1] < 0.004


def test_the_rim_is_reported_when_nothing_is_known_outside(truth, fields):
    assert "edge_note" not in fields.attrs
    whole = residual_fields(truth.at(0), [10e3])
    assert "west, south, east, north edge" in whole.attrs["edge_note"]
    assert list(whole.attrs["known_outside_deg_wsen"]) == [0, 0, 0, 0]
    # A coordinate or two short of the region is within the tolerance.
    corner = residual_fields(truth.at(0), [10e3], Region(70, 43, 86, 52))
    assert "beyond the west edge" in corner.attrs["edge_note"]


def test_the_whole_grid_is_plain_continuation(truth):
    field = truth.at(0)
    np.testing.assert_array_equal(
        residual_fields(field, [10e3]).regional_10km.values, upward_continue(field, 10e3).values
    )


def test_the_level_travels(truth):
    raised = residual_fields(truth.at(10e3, height_m=10e3), [5e3])
    assert raised.bouguer.attrs["height_m"] == 10e3
    assert raised.regional_5km.attrs["height_m"] == 15e3
    assert field_recipe(raised)["input_height_m"] == 10e3
    assert "to 15km" in raised.regional_5km.attrs["long_name"]


def test_derivatives_are_added_on_request(truth):
    fields = residual_fields(truth.at(0), [10e3], REGION, with_derivatives=True)
    names = ["vertical_derivative_2km", "east_derivative_2km", "north_derivative_2km", "horizontal_gradient_2km"]
    assert list(fields)[3:] == [*names, "tilt_2km", "analytic_signal_2km"]
    assert fields.tilt_2km.attrs["units"] == "radian"
    # Away from the edges the east derivative is the slope along a row.
    row = fields.regional_10km.isel(lat=60)
    assert fields.east_derivative_2km.attrs["units"] == "mGal/km"
    lower = upward_continue(truth.at(0), 2e3).sel(lat=row.lat, lon=row.lon)
    slope = np.gradient(lower.values, np.radians(1 / 15) * 6.39e3 * np.cos(np.radians(float(row.lat))))
    np.testing.assert_allclose(fields.east_derivative_2km.isel(lat=60).values[3:-3], slope[3:-3], atol=0.02)


def test_coverage_marks_where_the_regional_is_extrapolated(truth):
    field = truth.at(0)
    field[100:130, 150:180] = np.nan
    fields = residual_fields(field, [10e3], REGION)
    assert field_recipe(fields)["channels"] == ["bouguer", "regional_10km", "residual_10km"]
    row = np.abs(fields.lat.values - truth.lat[115]).argmin()
    column = np.abs(fields.lon.values - truth.lon[165]).argmin()
    coverage = fields.coverage.values
    assert coverage[row, column] < 0.3
    beside = coverage[row, column + 16]
    assert 0.3 < beside < 0.9
    assert coverage[row, -1] > 0.97


def test_holes_stay_holes(truth):
    field = truth.at(0)
    field[100:110, 150:155] = np.nan
    fields = residual_fields(field, [10e3], REGION)
    holes = np.isnan(field.sel(lat=fields.lat, lon=fields.lon).values)
    assert holes.sum() == 50
    for name in ("bouguer", "regional_10km", "residual_10km"):
        np.testing.assert_array_equal(np.isnan(fields[name]), holes)


def test_the_recipe_has_only_what_changes_the_values(truth, fields):
    recipe = field_recipe(fields)
    assert json.loads(json.dumps(recipe)) == recipe
    assert recipe["heights_m"] == [10e3, 20e3]
    assert recipe["spacing_deg"] == pytest.approx([1 / 15, 1 / 15], abs=1e-9)
    elsewhere = residual_fields(truth.at(0), [10e3, 20e3], Region(72, 42, 80, 50), margin_deg=1)
    assert field_recipe(elsewhere) == recipe
    assert field_recipe(residual_fields(truth.at(0), [10e3])) != recipe
    with pytest.raises(InputError, match="recipe"):
        field_recipe(xr.Dataset())


def test_it_comes_back_from_its_file(tmp_path, fields):
    path = tmp_path / "data" / "fields.nc"
    write_fields(fields, path)
    back = open_fields(path)
    assert list(back) == list(fields)
    for name in fields:
        np.testing.assert_array_equal(back[name].values, fields[name].values)
        assert back[name].attrs["long_name"] == fields[name].attrs["long_name"]
    for axis in ("lat", "lon"):
        assert back[axis].values.tobytes() == fields[axis].values.tobytes()
    assert field_recipe(back) == field_recipe(fields)
    assert field_sources(back) == [{"path": "grid.nc", "sha256": "0" * 64}]
    assert [item.name for item in path.parent.iterdir()] == ["fields.nc"]


def test_gdal_sees_where_it_is(tmp_path, fields):
    import rasterio

    write_fields(fields, tmp_path / "fields.nc")
    with rasterio.open(f"netcdf:{tmp_path / 'fields.nc'}:residual_10km") as raster:
        assert raster.crs.to_epsg() == 4326
        lon, lat = raster.xy(0, 0)
        assert (lon, lat) == pytest.approx((float(fields.lon[0]), float(fields.lat[-1])))
        # GDAL's rasters are north-up; ours ascend.
        np.testing.assert_array_equal(raster.read(1)[::-1], fields.residual_10km.values)


def test_ncdump_reads_it(tmp_path, fields):
    import shutil

    if shutil.which("ncdump") is None:
        pytest.skip("no ncdump here")
    write_fields(fields, tmp_path / "fields.nc")
    header = subprocess.run(["ncdump", "-h", tmp_path / "fields.nc"], capture_output=True, text=True, check=True).stdout
    assert 'Conventions = "CF-1.8"' in header
    assert 'residual_10km:units = "mGal"' in header


def test_what_open_fields_refuses(tmp_path, truth):
    with pytest.raises(InputError, match="missing") as caught:
        open_fields(tmp_path / "fields.nc")
    assert "gravmap residual" in caught.value.hint
    (tmp_path / "fields.nc").write_text("not netCDF")
    with pytest.raises(InputError, match="cannot be read"):
        open_fields(tmp_path / "fields.nc")
    truth.at(0).to_dataset(name="bouguer").to_netcdf(tmp_path / "other.nc", engine="netcdf4")
    with pytest.raises(InputError, match="not made by gravmap"):
        open_fields(tmp_path / "other.nc")


def test_invalid_regions_and_heights_are_refused(truth):
    with pytest.raises(InputError, match="70E"):
        residual_fields(truth.at(0), [10e3], Region(60, 43, 75, 50))
    with pytest.raises(OptionError):
        residual_fields(truth.at(0), [])
    with pytest.raises(OptionError):
        residual_fields(truth.at(0), [10e3, -1])
    empty = truth.at(0)
    empty.values[30:, 60:240] = np.nan
    with pytest.raises(InputError, match="NaN"):
        residual_fields(empty, [10e3], Region(75, 43, 85, 52))
