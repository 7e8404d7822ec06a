"""Every layout a gravity grid comes in, and every way it can be wrong."""

import logging

import netCDF4
import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.transform import from_bounds

from gravmap.errors import InputError, OptionError
from gravmap.gravity import open_grid
from gravmap.gravity.grid import crop, extent, refine, spacing_deg
from gravmap.regions import Region

LAT, LON = np.arange(40, 46.01, 0.5), np.arange(70, 79.01, 0.5)
Y, X = np.meshgrid(LAT, LON, indexing="ij")
VALUES = (2 * (Y - 40) + 7 * (X - 70) - 100).astype(np.float32)


def check(grid, lat=LAT, lon=LON, values=VALUES):
    assert grid.dims == ("lat", "lon")
    assert grid.dtype == np.float32
    assert grid.attrs["units"] == "mGal"
    np.testing.assert_allclose(grid.lat, lat, atol=1e-12)
    np.testing.assert_allclose(grid.lon, lon, atol=1e-12)
    np.testing.assert_allclose(grid.values, values, rtol=1e-6)


def cf(tmp_path, grid, name="grid.nc", **attrs):
    path = tmp_path / name
    grid = grid.copy()
    grid.attrs |= attrs
    grid.to_dataset(name=attrs.pop("name", "gravity")).to_netcdf(path, engine="netcdf4")
    return path


@pytest.fixture
def plain(make_grid):
    return make_grid(VALUES, LAT, LON)


def test_wgm2012s_layout_in_small(write_coards):
    step = 30
    lat, lon = np.arange(-90 * step, 90 * step + 1, 90) / step, np.arange(-180 * step, 180 * step + 1, 90) / step
    values = (np.cos(np.radians(lat))[:, None] * np.sin(np.radians(lon))[None, :] * 100).astype("f4")
    grid = open_grid(write_coards(values, lat, lon))
    check(grid, lat, lon, values)
    assert grid.attrs["height_m"] == 0
    assert spacing_deg(grid) == (3.0, 3.0)


def test_float32_coordinates_are_snapped(write_coards):
    lat, lon = np.arange(40 * 30, 55 * 30 + 1) / 30, np.arange(65 * 30, 95 * 30 + 1) / 30
    values = np.random.default_rng(0).normal(0, 50, (lat.size, lon.size)).astype("f4")
    grid = open_grid(write_coards(values, lat, lon))
    np.testing.assert_array_equal(grid.lat, np.arange(40 * 30, 55 * 30 + 1) / 30)
    np.testing.assert_array_equal(grid.lon, np.arange(65 * 30, 95 * 30 + 1) / 30)


def test_gmts_pixel_registration(write_coards):
    lat, lon = LAT[:-1] + 0.25, LON[:-1] + 0.25
    check(open_grid(write_coards(VALUES[:-1, :-1], lat, lon, node_offset=1)), lat, lon, VALUES[:-1, :-1])


def test_float64_coordinates_are_kept_bit_for_bit(tmp_path, make_grid):
    lat = 40 + 0.1 * np.arange(20)  # not the nearest floats to 40.1, 40.2 ...
    path = cf(tmp_path, make_grid(np.random.default_rng(0).normal(size=(20, 19)), lat, LON))
    assert open_grid(path).lat.values.tobytes() == lat.tobytes()


def test_either_order_either_direction(tmp_path, plain):
    check(open_grid(cf(tmp_path, plain.transpose())))
    check(open_grid(cf(tmp_path, plain[::-1], "down.nc")))
    check(open_grid(cf(tmp_path, plain[:, ::-1].rename(lat="Latitude", lon="Longitude"), "names.nc")))


def test_longitudes_beyond_180(tmp_path, make_grid):
    west = make_grid(VALUES, LAT, LON + 130)  # 200..209
    check(open_grid(cf(tmp_path, west)), lon=LON - 230)


def test_the_height_is_read_from_the_file_or_given(tmp_path, plain, caplog):
    assert open_grid(cf(tmp_path, plain, height_m=5000.0)).attrs["height_m"] == 5000
    del plain.attrs["height_m"]
    assert open_grid(cf(tmp_path, plain, "b.nc")).attrs["height_m"] == 0
    with caplog.at_level(logging.WARNING, logger="gravmap"):
        assert open_grid(cf(tmp_path, plain, "c.nc", long_name="disturbance at 10 km height")).attrs["height_m"] == 10e3
    assert "10 km height" in caplog.text
    assert open_grid(tmp_path / "c.nc", input_height_m=0.0).attrs["height_m"] == 0


@pytest.mark.parametrize(("unit", "factor"), [("m s-2", 1e5), ("um/s2", 0.1), ("gu", 0.1)])
def test_units_are_converted(tmp_path, plain, unit, factor):
    path = cf(tmp_path, plain / factor, units=unit)
    grid = open_grid(path)
    np.testing.assert_allclose(grid.values, VALUES, rtol=1e-5)


def test_an_unknown_unit_is_refused(tmp_path, plain):
    with pytest.raises(InputError, match="furlong"):
        open_grid(cf(tmp_path, plain, units="furlong"))


def test_a_missing_unit_is_warned_about(tmp_path, plain, caplog):
    del plain.attrs["units"]
    with caplog.at_level(logging.WARNING, logger="gravmap"):
        check(open_grid(cf(tmp_path, plain)))
    assert "no unit" in caplog.text


def test_packed_integers(tmp_path, plain):
    path = tmp_path / "packed.nc"
    plain.to_dataset(name="g").to_netcdf(
        path, encoding={"g": {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -32768}}, engine="netcdf4"
    )
    np.testing.assert_allclose(open_grid(path).values, VALUES, atol=0.25)


def test_the_gravity_variable_is_found_or_required(tmp_path, plain):
    flag = xr.DataArray(np.zeros(VALUES.shape, "i1"), coords=plain.coords, attrs={"flag_values": [0, 1]})
    height = plain.copy()
    height.attrs = {"units": "m"}
    path = tmp_path / "several.nc"
    both = xr.Dataset(
        {"bouguer_disturbance": plain, "topographic_effect": plain + 1, "elevation": height, "flag": flag}
    )
    both.to_netcdf(path, engine="netcdf4")
    assert open_grid(path).attrs["variable"] == "bouguer_disturbance"
    np.testing.assert_allclose(open_grid(path, variable="topographic_effect").values, VALUES + 1)
    with pytest.raises(InputError, match="no variable 'nothing'"):
        open_grid(path, variable="nothing")
    twice = xr.Dataset({"eigen_bouguer": plain, "egm_bouguer": plain})
    twice.to_netcdf(tmp_path / "twice.nc", engine="netcdf4")
    with pytest.raises(InputError, match="--variable") as caught:
        open_grid(tmp_path / "twice.nc")
    assert "eigen_bouguer" in caught.value.message


def geotiff(
    path, values, bounds=(69.75, 39.75, 79.25, 46.25), crs="EPSG:4326", nodata=None, units=None, tags=None, **more
):
    values = np.atleast_3d(values.T).T
    height, width = values.shape[1:]
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=len(values), dtype=values.dtype, crs=crs,
        transform=from_bounds(*bounds, width, height), nodata=nodata, **more,
    ) as raster:  # fmt: skip
        raster.write(values)
        if units:
            raster.units = [units] * len(values)
        raster.update_tags(**(tags or {}))
    return path


def test_geotiff(tmp_path):
    values = VALUES[::-1].copy()
    values[0, 0] = -9999
    expected = VALUES.copy()
    expected[-1, 0] = np.nan
    path = geotiff(tmp_path / "g.tif", values, nodata=-9999, units="mGal", tags={"height_m": "3000"})
    grid = open_grid(path)
    check(grid, values=expected)
    assert grid.attrs["height_m"] == 3000


@pytest.mark.parametrize("point", ["Area", "Point"])
def test_a_geotiff_of_points_has_its_nodes_where_gdal_has_them(tmp_path, point):
    path = geotiff(tmp_path / "g.tif", VALUES[::-1], units="mGal", tags={"AREA_OR_POINT": point})
    with rasterio.open(path) as raster:
        lon, lat = raster.xy(0, 0)
    grid = open_grid(path)
    assert (float(grid.lon[0]), float(grid.lat[-1])) == pytest.approx((lon, lat))


def test_geotiff_without_unit_is_mgal_with_a_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="gravmap"):
        check(open_grid(geotiff(tmp_path / "g.tif", VALUES[::-1])))
    assert "mGal" in caplog.text


@pytest.mark.parametrize(
    ("options", "words"), [({"crs": None}, "no coordinate reference"), ({"crs": "EPSG:32645"}, "projected")]
)
def test_geotiffs_that_are_refused(tmp_path, options, words):
    with pytest.raises(InputError, match=words) as caught:
        open_grid(geotiff(tmp_path / "g.tif", VALUES[::-1], **options))
    assert "gdal" in caught.value.hint


def test_the_band_is_required(tmp_path):
    path = geotiff(tmp_path / "g.tif", np.stack([VALUES[::-1], VALUES[::-1] + 1]), units="mGal")
    with pytest.raises(InputError, match="2 bands"):
        open_grid(path)
    check(open_grid(path, variable="2"), values=VALUES + 1)


def test_a_truncated_geotiff(tmp_path):
    values = np.random.default_rng(0).normal(size=(300, 300)).astype("f4")
    path = geotiff(tmp_path / "g.tif", values, bounds=(70, 40, 80, 50), units="mGal")
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(InputError, match=r"truncated|cannot be read"):
        open_grid(path)


def test_a_truncated_netcdf3(write_coards):
    path = write_coards(VALUES, LAT, LON)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="truncated"):
        open_grid(path)


def test_a_truncated_netcdf4(tmp_path, plain):
    path = cf(tmp_path, plain)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"truncated|cannot be read"):
        open_grid(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>Not found</body></html>", "web page"),
        (b"lon lat value\nno numbers here\n", "supported format"),
        (b"\x00\x01\x02\x03" * 40, "supported format"),
        (b"lon lat value\n1 2 3\n", "only 1 points"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 50, "cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path, content, words):
    path = tmp_path / "grid.grd"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        open_grid(path)


def test_missing_and_folder(tmp_path):
    with pytest.raises(InputError, match="missing"):
        open_grid(tmp_path / "nothing.nc")
    with pytest.raises(InputError, match="folder"):
        open_grid(tmp_path)


def test_a_file_of_vectors(tmp_path):
    path = tmp_path / "stations.nc"
    xr.Dataset({"gravity": ("station", np.arange(5.0))}).to_netcdf(path, engine="netcdf4")
    with pytest.raises(InputError, match="no grid"):
        open_grid(path)


def test_swapped_axes(tmp_path, make_grid):
    wrong = make_grid(VALUES, LAT + 60, LON - 40)  # latitudes 100..106
    with pytest.raises(InputError, match="swapped"):
        open_grid(cf(tmp_path, wrong))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: np.full_like(v, np.nan), "NaN"),
        (lambda v: np.full_like(v, 5), "constant"),
        (lambda v: v + 980_500, "absolute gravity"),
        (lambda v: v * 1e4, "beyond any gravity anomaly"),
    ],
)
def test_values_that_cannot_be(tmp_path, make_grid, change, words):
    with pytest.raises(InputError, match=words):
        open_grid(cf(tmp_path, make_grid(change(VALUES), LAT, LON)))


def test_a_crs_that_is_projected(tmp_path, plain):
    data = plain.to_dataset(name="g")
    data["g"].attrs["grid_mapping"] = "crs"
    data["crs"] = ((), 0, {"grid_mapping_name": "transverse_mercator"})
    data.to_netcdf(tmp_path / "p.nc", engine="netcdf4")
    with pytest.raises(InputError, match="projected"):
        open_grid(tmp_path / "p.nc")


def test_crop_takes_the_nodes_inside(plain):
    part = crop(plain, Region(72, 41, 75, 44))
    np.testing.assert_allclose(part.lon, np.arange(72, 75.01, 0.5))
    np.testing.assert_allclose(part.lat, np.arange(41, 44.01, 0.5))
    wide = crop(plain, Region(72, 41, 75, 44), 2.0)
    assert extent(wide).bounds_wsen == (70.0, 40.0, 77.0, 46.0)


def test_a_crop_outside_is_refused_with_the_bounds(plain):
    with pytest.raises(InputError, match="70E-79E 40N-46N"):
        crop(plain, Region(60, 41, 75, 44))


def test_crop_covers_to_half_a_cell(make_grid):
    pixel = make_grid(VALUES, LAT + 0.25, LON + 0.25)  # nodes 40.25..46.25, cells 40..46.5
    assert crop(pixel, Region(70, 40, 79.5, 46.5)).shape == VALUES.shape
    with pytest.raises(InputError, match="outside"):
        crop(pixel, Region(69.7, 40, 79.5, 46.5))


def test_crop_smaller_than_a_cell(plain):
    with pytest.raises(InputError, match="smaller than"):
        crop(plain, Region(72.1, 41.1, 72.4, 41.4))


def test_longitudes_below_minus_180(tmp_path, make_grid):
    check(open_grid(cf(tmp_path, make_grid(VALUES, LAT, LON - 360))))


def test_a_large_float64_file_is_cast_where_it_is_read(tmp_path, make_grid, monkeypatch):
    from gravmap.gravity import grid as module

    path = tmp_path / "double.nc"
    make_grid(VALUES, LAT, LON).astype("f8").to_dataset(name="g").to_netcdf(path, engine="netcdf4")
    monkeypatch.setattr(module, "_READ_AT_ONCE", 100)
    assert not open_grid(path).variable._in_memory
    part = open_grid(path, region=Region(72, 41, 75, 44))
    assert part.dtype == np.float32
    assert part.variable._in_memory


@pytest.mark.parametrize("start", [-180, 0])
@pytest.mark.parametrize("repeated", [0, 1])
def test_crop_goes_around_the_globe(make_grid, start, repeated):
    lat, lon = np.arange(-60, 61, 1.0), start + np.arange(360.0 + repeated)
    values = np.cos(np.radians(lat))[:, None] * np.cos(np.radians(lon) - 1)[None, :] * 100
    globe = make_grid(values, lat, lon)
    for west, east in ((-20, 15), (170, 180), (65, 95), (-180, -170)):
        part = crop(globe, Region(west, 10, east, 20), 5.0)
        np.testing.assert_allclose(part.lon, np.arange(west - 5, east + 5.5), atol=1e-9)
        expected = np.cos(np.radians(part.lat.values))[:, None] * np.cos(np.radians(part.lon.values) - 1) * 100
        np.testing.assert_allclose(part.values, expected, atol=1e-4)


def test_a_large_file_is_not_read_whole(write_coards, monkeypatch):
    from gravmap.gravity import grid as module

    monkeypatch.setattr(module, "_READ_AT_ONCE", 1000)
    lat, lon = np.arange(-90, 90.5, 0.5), np.arange(-180, 180.5, 0.5)
    values = np.random.default_rng(0).normal(0, 50, (lat.size, lon.size)).astype("f4")
    path = write_coards(values, lat, lon)
    whole = open_grid(path)
    assert not whole.variable._in_memory
    part = crop(whole, Region(65, 40, 95, 55))
    assert not part.variable._in_memory
    np.testing.assert_array_equal(part.values, values[260:291, 490:551])


def test_a_region_is_read_with_its_margin(write_coards):
    lat, lon = np.arange(-90, 90.5, 1), np.arange(-180, 180.5, 1)
    values = np.random.default_rng(0).normal(0, 50, (lat.size, lon.size)).astype("f4")
    part = open_grid(write_coards(values, lat, lon), region=Region(65, 40, 95, 55), margin_deg=3)
    assert extent(part).bounds_wsen == (62, 37, 98, 58)


def test_netcdf_written_by_gdal(tmp_path):
    # A netCDF from another tool: descending rows or not, names and attributes as GDAL chooses them.
    tif = geotiff(tmp_path / "g.tif", VALUES[::-1], units="mGal")
    import rasterio.shutil

    rasterio.shutil.copy(tif, tmp_path / "gdal.nc", driver="netCDF")
    with netCDF4.Dataset(tmp_path / "gdal.nc") as file:
        assert "lat" in file.variables
    check(open_grid(tmp_path / "gdal.nc"))


def waves(lat, lon):
    """Wavelengths of 4 and 5 degrees."""
    return 50 * np.sin(2 * np.pi * lat / 4)[:, None] * np.cos(2 * np.pi * lon / 5)[None, :] - 80


def test_a_refined_grid_is_the_field_between_its_nodes_and_unknown_beside_gaps():
    lat, lon = np.arange(40, 46.01, 0.25), np.arange(70, 79.01, 0.25)
    grid = xr.DataArray(waves(lat, lon), {"lat": lat, "lon": lon}, ("lat", "lon"), attrs={"units": "mGal"})
    grid[10, 12] = np.nan
    finer = refine(grid, 1 / 30)
    assert spacing_deg(finer) == pytest.approx((1 / 30, 1 / 30))
    assert (float(finer.lat[0]), float(finer.lon[0])) == (40, 70)
    assert float(finer.lat[-1]) <= 46 < float(finer.lat[-1]) + 1 / 30
    assert finer.attrs == {"units": "mGal", "resampled_from_deg": [0.25, 0.25]}
    error = finer.values - waves(finer.lat.values, finer.lon.values)
    near = (np.abs(finer.lat - lat[10]) < 0.249).values[:, None] & (np.abs(finer.lon - lon[12]) < 0.249).values[None, :]
    assert np.isnan(error[near]).all()
    assert np.isfinite(error[~near]).all()
    far = (np.abs(finer.lat - lat[10]) > 1.5).values[:, None] | (np.abs(finer.lon - lon[12]) > 1.5).values[None, :]
    assert np.abs(error[far]).max() < 0.05  # bilinear: 2
    with pytest.raises(OptionError, match="no finer"):
        refine(grid, 0.25)
