"""Where grids lie: the same nodes from every way to say it, or a refusal; and GeoTIFFs that do not fit their header."""

import logging
import math
import struct

import netCDF4
import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from rasterio.windows import Window

from gravmap.errors import DeviceError, InputError
from gravmap.gravity import open_grid
from gravmap.gravity.georeferencing import to_degrees

LAT, LON = 43.025 + 0.05 * np.arange(12), 82.025 + 0.05 * np.arange(16)
VALUES = (100 * np.sin(9 * LAT)[:, None] * np.cos(7 * LON)).astype(np.float32)
FERRO_DEG = 17 + 40 / 60  # PROJ's, west of Greenwich
PARIS_DEG = 2.33722917


def geotiff(path, crs="EPSG:4326", transform=None, values=VALUES[::-1], units="mGal", **more):
    transform = from_origin(82, 43.6, 0.05, 0.05) if transform is None else transform
    bands = values if values.ndim == 3 else values[None]
    shape = {"height": bands.shape[1], "width": bands.shape[2], "count": len(bands), "dtype": bands.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **shape, **more) as file:
        file.write(bands)
        file.units = [units] * len(bands)
    return path


def netcdf(path, lon=LON, lat=LAT, units=("degrees_east", "degrees_north"), mapping=None, names=("lon", "lat")):
    with netCDF4.Dataset(path, "w") as file:
        for name, axis, unit in zip(names, (lon, lat), units, strict=True):
            file.createDimension(name, len(axis))
            file.createVariable(name, "f8", (name,))[:] = axis
            if unit:
                file[name].units = unit
        variable = file.createVariable("z", "f4", names[::-1])
        variable[:] = VALUES
        variable.units = "mGal"
        if mapping:
            variable.grid_mapping = "crs"
            file.createVariable("crs", "i4").setncatts(mapping)
    return path


def check(grid):
    np.testing.assert_allclose(grid.lat, LAT, atol=1e-6)
    np.testing.assert_allclose(grid.lon, LON, atol=1e-6)
    np.testing.assert_array_equal(grid.values, VALUES)


GRAD = 10 / 9


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", None),
        ("EPSG:4326+5773", None),
        ("EPSG:4284", None),
        ("EPSG:4805", from_origin(82 + FERRO_DEG, 43.6, 0.05, 0.05)),
        ("EPSG:4807", from_origin((82 - PARIS_DEG) * GRAD, 43.6 * GRAD, 0.05 * GRAD, 0.05 * GRAD)),
    ],
)
def test_geotiffs_of_other_meridians_and_units(tmp_path, crs, transform):
    check(open_grid(geotiff(tmp_path / "g.tif", crs, transform)))


CF = {"grid_mapping_name": "latitude_longitude"}
ELLIPSOID = {"semi_major_axis": 6377397.155, "inverse_flattening": 299.1528128}


@pytest.mark.parametrize(
    "options",
    [
        {"mapping": CF},
        {"mapping": CF | ELLIPSOID | {"longitude_of_prime_meridian": -FERRO_DEG}, "lon": LON + FERRO_DEG},
        {"mapping": {"crs_wkt": rasterio.crs.CRS.from_epsg(4326).to_wkt()}},
        {"lon": np.radians(LON), "lat": np.radians(LAT), "units": ("radian", "radians")},
        {"lon": LON * GRAD, "lat": LAT * GRAD, "units": ("gon", "grads")},
        {"lon": LON * 60, "lat": LAT * 60, "units": ("arcmin", "minutes")},
        {"names": ("x", "y"), "units": ("", "")},
        {"names": ("x", "y"), "units": ("user_x_unit", "user_y_unit")},
        {"units": ("", "")},
    ],
)
def test_netcdf_of_other_meridians_and_units(tmp_path, options):
    check(open_grid(netcdf(tmp_path / "g.nc", **options)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"units": ("km", "km")}, "projected: its axis .* is in km"),
        ({"units": ("metres", "metres")}, "projected"),
        ({"units": ("furlong", "furlong")}, "'furlong', which is not a unit of latitude"),
        ({"lon": np.radians(LON), "lat": np.radians(LAT), "units": ("", "")}, "may be radians"),
        ({"mapping": {"crs_wkt": rasterio.crs.CRS.from_epsg(32644).to_wkt()}}, "projected"),
        ({"mapping": CF | {"earth_radius": 1737400.0}}, "does not lie on the Earth"),
        ({"mapping": {"grid_mapping_name": "rotated_latitude_longitude", "grid_north_pole_latitude": 40.0,
                      "grid_north_pole_longitude": -170.0}}, "rotated pole"),
        ({"mapping": {"crs_wkt": "GEOGCS[nonsense"}}, "cannot be understood"),
    ],
)  # fmt: skip
def test_what_netcdf_is_refused_for(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        open_grid(netcdf(tmp_path / "g.nc", **options))


def test_axes_without_unit_and_system_are_reported(caplog):
    grid = xr.DataArray(VALUES, coords={"y": LAT, "x": LON}, dims=("y", "x"))
    with caplog.at_level(logging.WARNING, logger="gravmap"):
        to_degrees(grid, "a grid of test_axes_without_unit")
    assert "taken as degrees on WGS 84: y from 43.025 to 43.575, x from 82.025 to 82.775" in caplog.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crs": rasterio.crs.CRS.from_proj4("+proj=longlat +R=1737400 +no_defs")}, "not lie on the Earth.*1737 km"),
        ({"crs": "EPSG:32644"}, "not on latitude and longitude but projected"),
        ({"transform": rasterio.Affine.identity()}, "no georeferencing"),
        ({"transform": rasterio.Affine(0.05, 0.01, 82, 0.01, -0.05, 43.6)}, "rotated"),
        ({"crs": None}, "no coordinate reference system"),
    ],
)
def test_what_geotiff_is_refused_for(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        open_grid(geotiff(tmp_path / "g.tif", **options))


def test_ground_control_points_are_refused(tmp_path):
    corners = [GroundControlPoint(0, 0, 82, 43.6), GroundControlPoint(0, 16, 82.8, 43.6)]
    corners += [GroundControlPoint(12, 0, 82, 43), GroundControlPoint(12, 16, 82.8, 43)]
    shape = {"height": 12, "width": 16, "count": 1, "dtype": "float32"}
    with rasterio.open(tmp_path / "g.tif", "w", driver="GTiff", **shape) as file:
        file.write(VALUES, 1)
        file.gcps = (corners, rasterio.crs.CRS.from_epsg(4326))
    with pytest.raises(InputError, match=r"ground control points(.|\n)*gdalwarp"):
        open_grid(tmp_path / "g.tif")


def test_an_alpha_band_is_the_mask(tmp_path):
    alpha = np.full_like(VALUES, 255)
    alpha[:3] = 0
    path = geotiff(tmp_path / "g.tif", values=np.stack([np.where(alpha, VALUES[::-1], 0), alpha]), ALPHA="YES")
    with rasterio.open(path) as file:
        assert file.colorinterp[1] == ColorInterp.alpha
    grid = open_grid(path)
    assert np.isnan(grid.values[-3:]).all()
    np.testing.assert_array_equal(grid.values[:-3], VALUES[:-3])


@pytest.mark.parametrize(("count", "palette"), [(1, False), (1, True), (3, False), (4, False)])
def test_pictures_are_refused(tmp_path, count, palette):
    shades = np.abs(VALUES).astype(np.uint8)
    path = geotiff(tmp_path / "g.tif", values=np.stack([shades] * count), units="")
    if palette:
        with rasterio.open(path, "r+") as file:
            file.write_colormap(1, {0: (0, 0, 0), 1: (255, 0, 0)})
    with pytest.raises(InputError, match="not values of a field"):
        open_grid(path)


def test_blocks_that_are_not_stored_are_missing(tmp_path):
    shape = {"height": 32, "width": 32, "count": 1, "dtype": "float32", "crs": "EPSG:4326"}
    shape |= {"tiled": True, "blockxsize": 16, "blockysize": 16, "SPARSE_OK": True}
    with rasterio.open(
        tmp_path / "g.tif", "w", driver="GTiff", transform=from_origin(82, 44, 0.1, 0.1), **shape
    ) as file:
        file.write(np.arange(256, dtype=np.float32).reshape(16, 16), 1, window=Window(0, 0, 16, 16))
    assert np.isnan(open_grid(tmp_path / "g.tif").values).sum() == 3 * 256


def test_a_sparse_geotiff_of_a_huge_size_is_refused_before_it_is_read(tmp_path):
    shape = {"height": 400_000, "width": 400_000, "count": 1, "dtype": "float32", "crs": "EPSG:4326", "BIGTIFF": "YES"}
    shape |= {"tiled": True, "blockxsize": 4096, "blockysize": 4096, "SPARSE_OK": True}
    with rasterio.open(tmp_path / "g.tif", "w", driver="GTiff", transform=from_origin(0, 89, 1e-4, 1e-4), **shape):
        pass
    with pytest.raises(DeviceError, match="400000 x 400000 nodes takes 5120"):
        open_grid(tmp_path / "g.tif")


def tags_of(data):
    """Tag number -> (place of its value in a little-endian TIFF, format of a value, count)."""
    start = struct.unpack_from("<I", data, 4)[0]
    tags = {}
    for number in range(struct.unpack_from("<H", data, start)[0]):
        at = start + 2 + 12 * number
        tag, kind, count = struct.unpack_from("<HHI", data, at)
        form = {3: "<H", 4: "<I"}.get(kind, "<I")
        inside = count * struct.calcsize(form) <= 4
        tags[tag] = at + 8 if inside else struct.unpack_from("<I", data, at + 8)[0], form, count
    return tags


@pytest.mark.parametrize(
    ("tag", "change"),
    [
        (279, lambda size: size // 2),  # StripByteCounts
        (279, lambda size: size * 2),
        (273, lambda place: place + 100),  # StripOffsets
        (273, lambda place: place + 10**6),
        (256, lambda width: width - 1),  # ImageWidth
        (257, lambda height: height - 1),  # ImageLength
        (278, lambda rows: rows * 2),  # RowsPerStrip
    ],
)
def test_a_tiff_header_that_does_not_fit(tmp_path, tag, change):
    big = np.tile(VALUES, (5, 5))
    data = bytearray(geotiff(tmp_path / "g.tif", values=big, BLOCKYSIZE=8).read_bytes())
    place, form, _ = tags_of(data)[tag]
    struct.pack_into(form, data, place, change(struct.unpack_from(form, data, place)[0]))
    (tmp_path / "g.tif").write_bytes(data)
    with pytest.raises(InputError):
        open_grid(tmp_path / "g.tif")


@pytest.mark.parametrize(
    "more", [{"compress": "lzw"}, {"tiled": True, "blockxsize": 16, "blockysize": 16}, {"interleave": "band"}]
)
def test_sound_layouts_of_a_tiff(tmp_path, more):
    big = np.tile(VALUES, (5, 5))
    grid = open_grid(geotiff(tmp_path / "g.tif", values=np.stack([big, big]), **more), variable="2")
    np.testing.assert_array_equal(grid.values[::-1], big)


def test_the_meridian_of_paris():
    # Check the constant of the test against its definition, 2.5969213 grads.
    assert math.isclose(PARIS_DEG, 2.5969213 * 0.9, abs_tol=1e-8)
