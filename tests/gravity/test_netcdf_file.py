"""What a netCDF file says of its values in all its ways; and files that say what cannot be."""

import struct

import netCDF4
import numpy as np
import pytest

from gravmap.errors import DeviceError, InputError
from gravmap.gravity import grid as grid_module
from gravmap.gravity import open_grid
from gravmap.gravity.netcdf_layout import check_heaps
from gravmap.gravity.topography import topography_at_nodes
from gravmap.regions import Region

LAT, LON = 40 + np.arange(6) / 2, 70 + np.arange(8) / 2
VALUES = (np.arange(48).reshape(6, 8) * 2 - 60).astype("f4")
HOLE = (2, slice(3, 5))


def write(path, stored=VALUES, *, format="NETCDF4", fill=None, record=False, lat=LAT, lon=LON, attrs=(), **how):
    with netCDF4.Dataset(path, "w", format=format) as file:
        file.createDimension("lat", None if record else lat.size)
        file.createDimension("lon", lon.size)
        for name, axis, units in (("lat", lat, "degrees_north"), ("lon", lon, "degrees_east")):
            variable = file.createVariable(name, "f8", (name,))
            variable[:], variable.units = axis, units
        z = file.createVariable("bouguer", stored.dtype, ("lat", "lon"), fill_value=fill, **how)
        z.set_auto_maskandscale(False)
        z[:], z.units = stored, "mGal"
        z.setncatts(dict(attrs))
    return path


def with_hole(dtype, value, scale=1.0):
    stored = np.rint(VALUES / scale).astype(dtype)
    stored[HOLE] = value
    return stored


@pytest.mark.parametrize(
    ("stored", "attrs"),
    [
        (with_hole("f4", 9.96921e36), {}),
        (with_hole("f8", 9.969209968386869e36), {}),
        (with_hole("i2", -32767, 0.01), {"scale_factor": 0.01}),
        (with_hole("i4", -2147483647), {}),
        (with_hole("f4", -999.9), {"missing_value": -999.9}),
        (with_hole("f4", -999), {"missing_value": "-999"}),
        (with_hole("i2", -99), {"missing_value": "-99.0"}),
        (with_hole("f4", -999), {"missing_value": [-1e30, -999.0]}),
        (with_hole("f4", -999), {"valid_range": [-500.0, 500.0]}),
        (with_hole("f4", -999), {"valid_range": "-500, 500"}),
        (with_hole("f4", -999), {"valid_min": -500.0}),
        (with_hole("f8", 2000), {"valid_max": np.int16(500), "valid_min": np.nan}),
        (with_hole("i2", -31999, 0.01), {"scale_factor": 0.01, "valid_range": np.array([-30000, 30000], "i2")}),
        (with_hole("i2", -31999, 0.01), {"scale_factor": 0.01, "valid_range": np.array([-60.0, 300.0])}),
        (with_hole("i2", 31999, -0.01), {"scale_factor": -0.01, "valid_min": -60.0}),
        (with_hole("i1", -1), {"missing_value": np.int8(-1), "_Unsigned": "false"}),
    ],
)
def test_missing_values_said_in_every_way(tmp_path, stored, attrs):
    path = write(tmp_path / "a.nc", stored, attrs=attrs)
    expected = VALUES.copy()
    expected[HOLE] = np.nan
    np.testing.assert_allclose(open_grid(path).values, expected, atol=1e-5)


def test_missing_heights_are_read_by_the_same_code(tmp_path):
    path = write(tmp_path / "z.nc", with_hole("i2", -32767), attrs={"units": "m"})
    heights = topography_at_nodes(path, LAT, LON)
    assert np.isnan(heights[HOLE]).all()
    assert np.isnan(heights).sum() == 2


def test_bytes_and_unsigned_integers_use_their_whole_range(tmp_path):
    stored = (np.arange(48).reshape(6, 8) * 5).astype("u1")
    stored[0, 0] = 255
    np.testing.assert_array_equal(open_grid(write(tmp_path / "a.nc", stored)).values, stored)
    signed = stored.view("i1")
    path = write(tmp_path / "b.nc", signed, format="NETCDF3_CLASSIC", attrs={"_Unsigned": "true", "_FillValue": -1})
    expected = stored.astype("f4")
    expected[0, 0] = np.nan
    np.testing.assert_array_equal(open_grid(path).values, expected)


def test_a_large_grid_is_masked_when_a_part_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(grid_module, "_READ_AT_ONCE", 10)
    path = write(tmp_path / "a.nc", with_hole("i2", -32767), attrs={"height_m": "2 km"})
    grid = open_grid(path, region=Region(71, 40.5, 72.5, 42))
    assert not grid.variable._in_memory
    assert grid.attrs["height_m"] == 2000
    assert np.isnan(grid.values).sum() == 2


@pytest.mark.parametrize(
    ("attrs", "words"),
    [
        ({"scale_factor": "0.01"}, "scale_factor = '0.01', which is not a number"),
        ({"add_offset": "x"}, "add_offset = 'x'"),
        ({"scale_factor": [1.0, 2.0]}, "2 numbers as scale_factor"),
        ({"scale_factor": 0.0}, "scale_factor 0"),
        ({"add_offset": np.nan}, "add_offset nan"),
        ({"missing_value": "unknown"}, "missing_value = 'unknown'"),
        ({"valid_range": [1.0, 2.0, 3.0]}, "valid_range = .* not 2 numbers"),
        ({"valid_range": [500.0, -500.0]}, "which no value is within"),
        ({"units": [1.0, 2.0]}, "not a known unit"),
        ({"height_m": "abc"}, "level 'abc', which is not a height"),
        ({"height_m": np.nan}, "level 'nan'"),
        ({"height_m": np.inf}, "level 'inf'"),
        ({"height_m": [1.0, 2.0]}, "not a height in metres"),
    ],
)
def test_attributes_that_say_nothing(tmp_path, attrs, words):
    with pytest.raises(InputError, match=words) as caught:
        open_grid(write(tmp_path / "a.nc", attrs=attrs))
    assert caught.value.hint


@pytest.mark.parametrize(("text", "level"), [("10 km", 1e4), ("250", 250.0), ("-3.5 m", -3.5), (np.float32([4]), 4.0)])
def test_heights_as_text(tmp_path, text, level):
    path = write(tmp_path / "a.nc", attrs={"height_m": text})
    assert open_grid(path).attrs["height_m"] == level
    assert open_grid(path, input_height_m=7.0).attrs["height_m"] == 7


def lengths(body):
    """Where the header of a classic file has its number of records, and the lengths of its two dimensions."""
    wide = body[3] == 5
    item = struct.Struct(">q" if wide else ">i")
    at, places = 4 + 2 * item.size + 4, [4]
    for _ in range(2):
        at += item.size + 4  # a name of three letters
        places.append(at)
        at += item.size
    return places, item


CLASSIC = ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"]


@pytest.mark.parametrize("format", CLASSIC)
@pytest.mark.parametrize("which", ["records", "lat", "lon"])
@pytest.mark.parametrize("by", [-2, -1, 1])
def test_a_classic_header_of_another_size_than_the_data(tmp_path, format, which, by):
    path = write(tmp_path / "a.nc", format=format, record=which == "records")
    body = bytearray(path.read_bytes())
    places, item = lengths(body)
    at = places[("records", "lat", "lon").index(which)]
    count = {"records": 6, "lat": 6, "lon": 8}[which]
    assert item.unpack_from(body, at) == (count,)
    item.pack_into(body, at, count + by)
    path.write_bytes(body)
    with pytest.raises(InputError, match=r"does not fit its data|truncated"):
        open_grid(path)


@pytest.mark.parametrize("by", [-2, -1, 1])
def test_a_classic_header_of_another_size_where_another_variable_is_the_last(tmp_path, by):
    path = write(tmp_path / "a.nc", format="NETCDF3_CLASSIC")
    with netCDF4.Dataset(path, "a") as file:
        file.createDimension("one", 1)
        file.createVariable("last", "f8", ("one",))[:] = 5
    body = bytearray(path.read_bytes())
    places, item = lengths(body)
    item.pack_into(body, places[1], 6 + by)
    path.write_bytes(body)
    with pytest.raises(InputError, match=rf"variable 'lat' has {48 + 8 * by} bytes by its dimensions, but 48 are"):
        open_grid(path)


@pytest.mark.parametrize("format", CLASSIC)
@pytest.mark.parametrize("record", [False, True])
def test_bytes_beyond_the_end_of_a_classic_file(tmp_path, format, record):
    path = write(tmp_path / "a.nc", np.round(VALUES).astype("i2")[:, :7], lon=LON[:7], format=format, record=record)
    body = path.read_bytes()
    np.testing.assert_array_equal(open_grid(path).values, VALUES[:, :7])
    path.write_bytes(body + bytes(-len(body) % 512))  # padded to a block
    np.testing.assert_array_equal(open_grid(path).values, VALUES[:, :7])
    for damaged in (body + b"\1" * 60, body[:-60] + b"\1" + body[-60:], body[:-4]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"does not fit its data|truncated"):
            open_grid(path)


def test_a_header_that_ends_early_or_is_of_another_version(tmp_path):
    path = write(tmp_path / "a.nc", format="NETCDF3_CLASSIC")
    body = path.read_bytes()
    for damaged in (body[:3], body[:60], body[:3] + b"\7" + body[4:], body[:12] + b"\x7f" + body[13:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"damaged header"):
            open_grid(path)


@pytest.mark.parametrize(
    ("side", "words"), [(10**9, "axis of 1000000000 values"), (10**7, "too few for the 10000000 x 10000000 values")]
)
def test_more_nodes_than_a_file_can_hold(tmp_path, side, words):
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        for name in ("lat", "lon"):
            file.createDimension(name, side)
            file.createVariable(name, "f8", (name,), chunksizes=(1000,))
        file.createVariable("bouguer", "f4", ("lat", "lon"), chunksizes=(100, 100))
    with pytest.raises(InputError, match=words):
        open_grid(tmp_path / "a.nc")


def test_more_nodes_than_the_memory_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("gravmap.files._MEMORY_UNCHECKED_BYTES", 0)
    monkeypatch.setattr("gravmap.files._available_memory", lambda: 300.0)
    with pytest.raises(DeviceError, match=r"'bouguer', of 6 x 8 values takes 0\.0 MB of memory") as caught:
        open_grid(write(tmp_path / "a.nc"))
    assert "--bbox" in caught.value.hint


def test_damage_found_when_values_are_read(tmp_path):
    values = np.random.default_rng(0).normal(0, 30, (60, 80)).astype("f4")
    lat, lon = 40 + np.arange(60) / 20, 70 + np.arange(80) / 20
    path = write(tmp_path / "a.nc", values, lat=lat, lon=lon, zlib=True)
    body = bytearray(path.read_bytes())
    body[len(body) * 3 // 4 : len(body) * 3 // 4 + 400] = bytes(400)
    path.write_bytes(body)
    with pytest.raises(InputError, match="variable 'bouguer', cannot be read") as caught:
        open_grid(path)
    assert "copy it again" in caught.value.hint


def test_a_heap_that_the_library_reads_without_end(tmp_path):
    """Free space of size 0 in a global heap, where the names of attributes are."""
    path = write(tmp_path / "a.nc")
    body = bytearray(path.read_bytes())
    at = body.index(b"GCOL") + 16
    while struct.unpack_from("<H", body, at)[0]:
        length = struct.unpack_from("<Q", body, at + 8)[0]
        at += 16 + length + -length % 8
    body[at + 8 : at + 16] = bytes(8)
    path.write_bytes(body)
    with pytest.raises(InputError, match="heap of it is damaged"):
        check_heaps(path, "")  # not open_netcdf, which would not end if it failed


def test_a_value_beyond_the_stated_range_is_warned_about(tmp_path, caplog):
    open_grid(write(tmp_path / "a.nc", attrs={"actual_range": [-60.0, 34.0]}))
    assert "range in its header" not in caplog.text
    open_grid(write(tmp_path / "b.nc", with_hole("f4", -500), attrs={"actual_range": [-60.0, 34.0]}))
    assert "range in its header is -60 to 34 mGal, that of its values -500 to 34" in caplog.text
