"""Every other format of gravity grids, tried on files written by the formats' own tools; and every way to be broken."""

import logging
import shutil
import struct
import subprocess

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import xarray as xr

from gravmap.errors import DeviceError, InputError
from gravmap.gravity import open_grid
from toys.grids import LAT, LON, VALUES, WRITERS, columns, gdf, surfer6, surfer7

HOLE = (3, 5)


def check(grid, lat=LAT, lon=LON, values=VALUES, tolerance=1e-5):
    assert grid.dims == ("lat", "lon")
    assert grid.dtype == np.float32
    np.testing.assert_allclose(grid.lat, lat, atol=1e-9)
    np.testing.assert_allclose(grid.lon, lon, atol=1e-9)
    np.testing.assert_allclose(grid.values, values, atol=tolerance)


def with_hole():
    values = VALUES.copy()
    values[HOLE] = np.nan
    return values


@pytest.mark.parametrize("kind", WRITERS)
def test_each_format(tmp_path, kind, caplog):
    with caplog.at_level(logging.WARNING, logger="gravmap"):
        check(open_grid(WRITERS[kind](tmp_path / "grid.dat")))
    if kind != "gdf":
        assert "degrees on WGS 84" in caplog.text
        assert "no unit; taken as mGal" in caplog.text


@pytest.mark.parametrize("kind", ["surfer6", "surfer7", "surfer ascii", "gdf", "columns"])
def test_holes(tmp_path, kind):
    check(open_grid(WRITERS[kind](tmp_path / "grid.dat", with_hole())), values=with_hole())


@pytest.mark.parametrize("kind", WRITERS)
def test_a_unit_can_be_stated(tmp_path, kind):
    path = WRITERS[kind](tmp_path / "grid.dat")
    check(open_grid(path, units="um/s2"), values=VALUES / 10)
    with pytest.raises(InputError, match="furlong") as caught:
        open_grid(path, units="furlong")
    assert "Known: mGal" in caught.value.hint


@pytest.mark.parametrize("kind", WRITERS)
def test_longitudes_to_360_and_across_the_antimeridian(tmp_path, kind):
    check(open_grid(WRITERS[kind](tmp_path / "a.dat", lon=LON + 200)), lon=LON - 160)
    check(open_grid(WRITERS[kind](tmp_path / "b.dat", lon=LON + 105)), lon=LON + 105)  # 175..184


@pytest.mark.parametrize("kind", WRITERS)
def test_swapped_axes(tmp_path, kind):
    with pytest.raises(InputError, match="swapped"):
        open_grid(WRITERS[kind](tmp_path / "grid.dat", VALUES.T, lat=LON + 30, lon=LAT))


@pytest.mark.parametrize("kind", WRITERS)
def test_metres_are_refused(tmp_path, kind):
    with pytest.raises(InputError, match="not degrees") as caught:
        open_grid(
            WRITERS[kind](
                tmp_path / "grid.dat", lat=LAT * 1e5, lon=LON * 1e4, **({"step": 5e4} if kind == "gdf" else {})
            )
        )
    assert "gdalwarp -s_srs" in caught.value.hint


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("change", "words"), [(0, "constant"), (1e6, "beyond any gravity anomaly"), (None, "absolute gravity")]
)
def test_values_that_cannot_be(tmp_path, kind, change, words):
    values = VALUES + 980_500 if change is None else VALUES * change + 5
    with pytest.raises(InputError, match=words):
        open_grid(WRITERS[kind](tmp_path / "grid.dat", values.astype("f8")))


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5, 0.97])
def test_truncated(tmp_path, kind, fraction):
    path = WRITERS[kind](tmp_path / "grid.dat")
    body = path.read_bytes()
    path.write_bytes(body[: int(fraction * len(body))])
    with pytest.raises(InputError):
        open_grid(path)


@pytest.mark.parametrize("kind", ["surfer6", "surfer7", "surfer ascii"])
def test_too_few_nodes(tmp_path, kind):
    with pytest.raises(InputError, match="at least 4 by 4"):
        open_grid(WRITERS[kind](tmp_path / "grid.dat", VALUES[:3], lat=LAT[:3]))


@pytest.mark.parametrize("kind", ["surfer6", "surfer7", "surfer ascii"])
@pytest.mark.parametrize("cut", [(13, 18), (12, 19)])
def test_a_surfer_header_with_fewer_nodes_than_values(tmp_path, kind, cut):
    path = WRITERS[kind](tmp_path / "grid.dat")
    body = bytearray(path.read_bytes())
    rows, columns = cut
    if kind == "surfer6":
        body[4:8] = struct.pack("<2h", columns, rows)
    elif kind == "surfer7":
        body[20:28] = struct.pack("<2i", rows, columns)
    else:
        body[5:10] = f"{columns} {rows}".encode()
    path.write_bytes(body)
    with pytest.raises(InputError, match=f"is too long: {rows} x {columns} nodes, but 247 values"):
        open_grid(path)


@pytest.mark.parametrize("kind", ["surfer6", "surfer7"])
def test_bytes_after_the_values_of_a_surfer_grid(tmp_path, kind):
    path = WRITERS[kind](tmp_path / "grid.dat")
    body = path.read_bytes()
    path.write_bytes(body[:-40] + b"\0" + body[-40:])
    with pytest.raises(InputError, match="is too long"):
        open_grid(path)


def test_a_surfer_grid_too_large_for_the_memory(tmp_path):
    path = tmp_path / "a.grd"
    path.write_bytes(b"DSBB" + struct.pack("<2h6d", 32767, 32767, 80, 84, 40, 44, -100, 0))
    with pytest.raises(InputError, match="is truncated: 32767 x 32767 nodes, but 0 values"):
        open_grid(path)
    with path.open("r+b") as stream, pytest.MonkeyPatch.context() as patch:
        stream.truncate(56 + 4 * 32767**2)
        patch.setattr("gravmap.files._available_memory", lambda: 8e9)
        with pytest.raises(DeviceError, match=r"takes 34\.4 GB of memory, and 8\.0 GB are available"):
            open_grid(path)


def test_surfer_7_of_version_2_blanks_one_value_only(tmp_path):
    path = surfer7(tmp_path / "a.grd", with_hole(), version=2, blank=-50.123)
    check(open_grid(path), values=with_hole())


def test_surfer_7_with_sections_that_are_not_known(tmp_path):
    check(open_grid(surfer7(tmp_path / "a.grd", extra=b"FLTI" + struct.pack("<i", 12) + b"x" * 12)))


def test_surfer_7_rotated_is_refused(tmp_path):
    with pytest.raises(InputError, match="rotated by 12"):
        open_grid(surfer7(tmp_path / "a.grd", rotation=12.0))


def test_a_wrong_range_in_a_surfer_header_is_warned_about(tmp_path, caplog):
    path = surfer6(tmp_path / "a.grd")
    body = bytearray(path.read_bytes())
    body[40:48] = struct.pack("<d", -500.0)
    path.write_bytes(body)
    with caplog.at_level(logging.WARNING, logger="gravmap"):
        open_grid(path)
    assert "range in its header is -500" in caplog.text


def test_gdf_units_level_and_model(tmp_path):
    grid = open_grid(gdf(tmp_path / "a.gdf", VALUES / 1e5 * 1e6, unit="um/s**2", level=10_000.0))
    check(grid, tolerance=1e-4)
    assert grid.attrs["height_m"] == 10_000
    assert grid.attrs["file_source"] == "EIGEN-6C4"
    with pytest.raises(InputError, match="'m'"):
        open_grid(gdf(tmp_path / "b.gdf", unit="m"))


def test_gdf_with_a_column_of_heights(tmp_path):
    grid = open_grid(gdf(tmp_path / "a.gdf", column="5000.0"))
    check(grid)
    assert grid.attrs["height_m"] == 5000


@pytest.mark.parametrize("level", ["inf", "nan", "above the ground", "1e12 m"])
def test_a_gdf_level_that_is_no_height(tmp_path, level):
    path = gdf(tmp_path / "a.gdf", height_over_ell=level)
    with pytest.raises(InputError, match=f"level '{level}', which is not a height in metres") as caught:
        open_grid(path)
    assert "--input-height" in caught.value.hint
    assert open_grid(path, input_height_m=0.0).attrs["height_m"] == 0


def test_gdf_levels_in_kilometres(tmp_path):
    assert open_grid(gdf(tmp_path / "a.gdf", height_over_ell="10 km")).attrs["height_m"] == 10_000
    path = gdf(tmp_path / "b.gdf", column="5.0")
    path.write_text(path.read_text().replace("[m]", "[km]"))
    assert open_grid(path).attrs["height_m"] == 5000


@pytest.mark.parametrize(("tag", "level"), [("2 km", 2000.0), ("250.5", 250.5), ("nan", None), ("high", None)])
def test_the_level_of_a_geotiff(tmp_path, tag, level):
    path = north_up(tmp_path)
    with rasterio.open(path, "r+") as raster:
        raster.crs = "EPSG:4326"
        raster.update_tags(height_m=tag)
    if level is None:
        with pytest.raises(InputError, match=f"level '{tag}'"):
            open_grid(path)
    else:
        assert open_grid(path).attrs["height_m"] == level


@pytest.mark.parametrize("gap", ["99999.000", "9999999.0", "-32768"])
def test_gdf_gap_values(tmp_path, gap):
    check(open_grid(gdf(tmp_path / "a.gdf", with_hole(), gap=gap)), values=with_hole())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("latitude_parallels", 12), ("longitude_parallels", 20), ("number_of_gridpoints", 999),
        ("gridstep", "0.25 degrees"),
        ("latlimit_north", "47.0"), ("latlimit_south", "39"), ("longlimit_west", "69.0"), ("longlimit_east", "80"),
    ],
)  # fmt: skip
def test_a_gdf_header_that_does_not_fit_its_numbers(tmp_path, key, value):
    with pytest.raises(InputError, match=f"{key} is .* in its header"):
        open_grid(gdf(tmp_path / "a.gdf", **{key: value}))


def test_gdf_of_two_arc_minutes_printed_with_six_digits(tmp_path):
    lat, lon = np.arange(1200, 1230) / 30, np.arange(2101, 2140) / 30
    values = np.random.default_rng(0).normal(0, 30, (lat.size, lon.size))
    grid = open_grid(gdf(tmp_path / "a.gdf", values, lat, lon, step=1 / 30))
    np.testing.assert_allclose(grid.lat, lat, atol=1e-13)  # printed 40.033333, meant 40 + 1/30
    np.testing.assert_allclose(grid.lon, lon, atol=1e-13)


@pytest.mark.parametrize(
    ("head", "mark"),
    [
        ("", ","), ("", "\t"), ("", ";"), ("", " , "),
        ("# made by hand\n# 2026\n", " "),
        ("lon,lat,bouguer\n", ","),
        ("# lon lat bouguer (mGal)\n", "  "),
        ('"Longitude" "Latitude" "g"\n', " "),
        ("> segment\n% note\n// note\nx y z\n", "   "),
        ("\ufefflon,lat,g [mGal]\r\n", ","),
    ],
)  # fmt: skip
def test_columns_in_every_dress(tmp_path, head, mark):
    check(open_grid(columns(tmp_path / "a.txt", head=head, mark=mark)))


def test_columns_in_any_order_of_lines_and_columns(tmp_path):
    rng = np.random.default_rng(0)
    check(open_grid(columns(tmp_path / "a.txt", order=rng)))
    path = tmp_path / "b.csv"
    rows = [f"{i},{VALUES[y, x]},{LAT[y]},{LON[x]}" for i, (y, x) in enumerate(np.ndindex(VALUES.shape))]
    path.write_text("station,g (um/s2),lat,lon\n" + "\n".join(rows))
    with pytest.raises(InputError, match="2 columns of values"):
        open_grid(path)
    check(open_grid(path, variable="g"), values=VALUES / 10)
    check(open_grid(path, variable="2"), values=VALUES / 10)
    with pytest.raises(InputError, match="no column 'h'"):
        open_grid(path, variable="h")


def test_columns_with_missing_nodes(tmp_path, caplog):
    gone = {0, 30, 31}
    expected = VALUES.copy()
    expected.ravel()[list(gone)] = np.nan
    with caplog.at_level(logging.WARNING, logger="gravmap"):
        check(open_grid(columns(tmp_path / "a.txt", keep=lambda at: at not in gone)), values=expected)
    assert "3 of its 13 x 19 nodes are missing" in caplog.text
    # A whole row and a whole column too.
    expected = VALUES.copy()
    expected[4], expected[:, 7] = np.nan, np.nan
    keep = lambda at: at // 19 != 4 and at % 19 != 7  # noqa: E731
    check(open_grid(columns(tmp_path / "b.txt", keep=keep)), values=expected)


def test_columns_with_a_node_twice(tmp_path):
    path = columns(tmp_path / "a.txt")
    path.write_text(path.read_text() + "71.5000 42.0000 3\n71.5000 42.0000 4\n")
    with pytest.raises(InputError, match=r"3 values at 71.5 42; 1 nodes"):
        open_grid(path)


def test_columns_of_stations(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "a.txt"
    np.savetxt(path, np.c_[rng.uniform(70, 80, 500), rng.uniform(40, 50, 500), rng.normal(0, 30, 500)])
    with pytest.raises(InputError, match="stations, not a grid"):
        open_grid(path)


def test_columns_that_are_uneven(tmp_path):
    lon = LON.copy()
    lon[8:] += 0.1
    with pytest.raises(InputError, match=r"lon is not evenly spaced: the step is 0.5 but 0.6 from 73.5 to 74.1"):
        open_grid(columns(tmp_path / "a.txt", lon=lon))


@pytest.mark.parametrize("form", ["{:.4f}", "{:.5f}", "{:.8f}", "{:.6e}", "{:.3f}"])
def test_coordinates_are_put_back_on_their_step(tmp_path, form):
    lat, lon = np.arange(1200, 1230) / 30, np.arange(2101, 2140) / 30
    values = np.random.default_rng(0).normal(0, 30, (lat.size, lon.size))
    grid = open_grid(columns(tmp_path / "a.txt", values, lat, lon, form=form))
    np.testing.assert_allclose(grid.lat, lat, atol=1e-13)
    np.testing.assert_allclose(grid.lon, lon, atol=1e-13)


@pytest.mark.parametrize(
    ("line", "words"), [("71.0 41.0 oops\n", "oops"), ("71.0 41.0\n", "columns"), ("nan 41 3\n", "no position")]
)
def test_columns_with_a_broken_line(tmp_path, line, words):
    path = columns(tmp_path / "a.txt")
    path.write_text(path.read_text() + line)
    with pytest.raises(InputError, match=words):
        open_grid(path)


def test_columns_cut_in_the_middle_of_a_number(tmp_path):
    path = columns(tmp_path / "a.txt")
    path.write_bytes(path.read_bytes()[:-40])
    body = path.read_bytes()
    path.write_bytes(body[: body.rindex(b".") + 2])
    with pytest.raises(InputError, match="truncated"):
        open_grid(path)


def north_up(tmp_path, values=VALUES):
    path = tmp_path / "g.tif"
    height, width = values.shape
    transform = rasterio.transform.from_bounds(69.75, 39.75, 79.25, 46.25, width, height)
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=1, dtype="float32", transform=transform,
        nodata=1.70141e38,
    ) as raster:  # fmt: skip
        raster.write(np.where(np.isnan(values), np.float32(1.70141e38), values)[::-1].astype("f4"), 1)
    return path


@pytest.mark.skipif(shutil.which("gdal_translate") is None, reason="GDAL's tools are not installed")
@pytest.mark.parametrize("driver", ["GSBG", "GS7BG", "GSAG", "XYZ", "netCDF"])
@pytest.mark.parametrize("hole", [False, True])
def test_written_by_gdal(tmp_path, driver, hole):
    values = with_hole() if hole else VALUES
    source = north_up(tmp_path, values)
    more = ["-a_srs", "EPSG:4326"] if driver == "netCDF" else []
    subprocess.run(["gdal_translate", "-q", "-of", driver, *more, source, tmp_path / "out.grd"], check=True)
    check(open_grid(tmp_path / "out.grd"), values=values, tolerance=1e-3)


gmt = pytest.mark.skipif(shutil.which("gmt") is None, reason="GMT is not installed")


def run_gmt(folder, *arguments):
    subprocess.run(["gmt", *map(str, arguments)], check=True, cwd=folder, capture_output=True)


FORMULA = ("X", "70", "SUB", "7", "MUL", "Y", "40", "SUB", "2", "MUL", "ADD", "100", "SUB")


@pytest.mark.peer
@gmt
@pytest.mark.parametrize("code", ["nf", "nd", "cf", "cd", "ns+s0.5", "cs+s0.5", "sf"])
@pytest.mark.parametrize("pixel", [False, True])
@pytest.mark.parametrize("degrees", [False, True])
def test_written_by_gmt(tmp_path, code, pixel, degrees):
    where = ["-R69.75/79.25/39.75/46.25", "-rp"] if pixel else ["-R70/79/40/46"]
    run_gmt(tmp_path, "grdmath", *where, "-I0.5", *(["-fg"] if degrees else []), *FORMULA, "=", f"out.grd={code}")
    check(open_grid(tmp_path / "out.grd"), tolerance=0.26 if "s0.5" in code else 1e-4)


@pytest.mark.peer
@gmt
def test_gmts_unit_and_text(tmp_path):
    run_gmt(tmp_path, "grdmath", "-R70/79/40/46", "-I0.5", "-fg", *FORMULA, "=", "out.grd")
    run_gmt(tmp_path, "grdedit", "out.grd", "-D+zgravity [um/s2]")
    check(open_grid(tmp_path / "out.grd"), values=VALUES / 10)
    with (tmp_path / "out.txt").open("wb") as stream:
        subprocess.run(["gmt", "grd2xyz", "out.grd"], check=True, cwd=tmp_path, stdout=stream)
    check(open_grid(tmp_path / "out.txt"))


def test_gmt4_in_small(tmp_path):
    import netCDF4

    path = tmp_path / "gmt4.grd"
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("side", 2)
        file.createDimension("xysize", VALUES.size)
        for name, pair in (
            ("x_range", (70, 79)),
            ("y_range", (40, 46)),
            ("z_range", (-100, -25)),
            ("spacing", (0.5, 0.5)),
        ):
            file.createVariable(name, "f8", ("side",))[:] = pair
        file.createVariable("dimension", "i4", ("side",))[:] = VALUES.shape[::-1]
        z = file.createVariable("z", "f4", ("xysize",))
        z.scale_factor, z.add_offset, z.node_offset = 1.0, 0.0, 0
        z[:] = VALUES[::-1].ravel()  # from the north-west corner on
    check(open_grid(path))
    body = path.read_bytes()
    path.write_bytes(body[:-300])
    with pytest.raises(InputError, match="truncated"):
        open_grid(path)
    path.write_bytes(body)
    with netCDF4.Dataset(path, "a") as file:
        file["spacing"][:] = (0.5, 0.25)
    with pytest.raises(InputError, match=r"spacing of 0\.5 and 0\.25"):
        open_grid(path)
    with netCDF4.Dataset(path, "a") as file:
        file["dimension"][:] = (19, 12)
    with pytest.raises(InputError, match="has 247 values, but its header gives 12 x 19"):
        open_grid(path)


def points_as(line, hole="nan"):
    """Lines of text for every node, a hole at HOLE."""
    for row, lat in enumerate(LAT):
        for column, lon in enumerate(LON):
            value = hole if (row, column) == HOLE else f"{VALUES[row, column]:.3f}"
            yield line.format(lon=f"{lon:.2f}", lat=f"{lat:.2f}", value=value)


def survey_lines():
    yield "/ ----------\n/ XYZ EXPORT [survey]\n/   LON   LAT   BOUGUER\n/====== ====== ======="
    for number, part in enumerate(np.array_split(list(points_as("{lon:>9} {lat:>9} {value:>9}", "*")), LAT.size)):
        yield f"\nLine {number + 1}"
        yield from part


@pytest.mark.parametrize(
    "lines",
    [
        ["lon;lat;bouguer", *(line.replace(".", ",") for line in points_as("{lon};{lat};{value}", ""))],
        [line.replace(".", ",") for line in points_as("{lon}\t{lat}\t{value}", "NA")],
        survey_lines(),
        ["lon,lat,bouguer", *points_as("{lon},{lat},{value}", "")],
        points_as("{lon} {lat} {value}", "*"),
        ['"lon","lat","bouguer"', *points_as('"{lon}","{lat}",{value}', "NA")],
    ],
    ids=["semicolon and decimal comma", "tab and decimal comma", "Oasis montaj", "blank", "star", "quoted, NA"],
)
def test_columns_of_other_programs(tmp_path, lines):
    (tmp_path / "g.txt").write_text("\n".join(lines) + "\n")
    check(open_grid(tmp_path / "g.txt"), values=with_hole(), tolerance=1e-3)


@pytest.mark.parametrize("word", ["NA", "--5", "1_0", "1 2"])
def test_words_of_an_esri_ascii_grid_that_gdal_would_take_as_zero_are_refused(tmp_path, word):
    path = tmp_path / "grid.asc"
    rows = [["1.5"] * 6 for _ in range(5)]
    rows[2][3] = word
    head = "ncols 6\nnrows 5\nxllcenter 70\nyllcenter 40\ncellsize 0.5\nNODATA_value -9999\n"
    path.write_text(head + "".join(" ".join(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"is not a number|has 31 values"):
        open_grid(path)


def test_a_header_line_of_an_esri_ascii_grid_without_a_number_is_refused(tmp_path):
    path = tmp_path / "grid.asc"
    path.write_text("ncols 4\nnrows 4\nxllcenter 70\nyllcenter\ncellsize 0.5\n" + "1 2 3 4\n" * 4)
    with pytest.raises(InputError, match="'yllcenter' has no number"):
        open_grid(path)


def test_an_underscore_in_a_surfer_ascii_grid_is_refused(tmp_path):
    path = tmp_path / "grid.grd"
    path.write_text("DSAA\n4 4\n70 73\n40 43\n1 10\n" + "1 2 3 4\n5 6 1_0 8\n" * 2)
    with pytest.raises(InputError, match="'_' in a number"):
        open_grid(path)


def test_blocks_that_a_geotiff_does_not_store_are_told(tmp_path, caplog):
    path = tmp_path / "sparse.tif"
    profile = {"driver": "GTiff", "height": 32, "width": 32, "count": 1, "dtype": "float32", "crs": "EPSG:4326"}
    profile |= {"transform": rasterio.transform.from_origin(70, 50, 0.1, 0.1), "SPARSE_OK": True}
    with rasterio.open(path, "w", **profile, tiled=True, blockxsize=16, blockysize=16) as raster:
        raster.write(
            np.arange(512, dtype=np.float32).reshape(16, 32) / 4, 1, window=rasterio.windows.Window(0, 0, 32, 16)
        )
    grid = open_grid(path, units="mGal")
    assert np.isnan(grid.values[:16]).all()
    assert np.isfinite(grid.values[16:]).all()
    assert "2 of its 4 blocks are not stored" in caplog.text


@pytest.mark.parametrize("word", ['0,"', "'"])
def test_an_unpaired_quote_in_a_number_is_refused(tmp_path, word):
    path = tmp_path / "grid.csv"
    lines = [f"{70 + i / 2:.1f};{40 + j / 2:.1f};{i + j:.2f}".replace(".", ",") for j in range(5) for i in range(6)]
    lines[9] = lines[9].rpartition(";")[0] + ";" + word
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match="cannot be read as 3 columns"):
        open_grid(path)


def test_an_esri_ascii_grid(tmp_path):
    rows = np.where(np.isnan(with_hole()), -9999, with_hole())[::-1]
    head = "ncols 19\nnrows 13\nxllcenter 70\nyllcenter 40\ncellsize 0.5\nNODATA_value -9999\n"
    text = head + "\n".join(" ".join(f"{value:.3f}" for value in row) for row in rows) + "\n"
    (tmp_path / "g.asc").write_text(text)
    check(open_grid(tmp_path / "g.asc"), values=with_hole(), tolerance=1e-3)
    (tmp_path / "cut.asc").write_text(text[:-300])
    with pytest.raises(InputError, match="truncated"):
        open_grid(tmp_path / "cut.asc")


@pytest.mark.parametrize("cut", [2, 4, 6])
@pytest.mark.parametrize("kind", ["columns", "surfer_ascii", "gdf"])
def test_a_file_cut_inside_its_last_number(tmp_path, kind, cut):
    if kind == "surfer_ascii":
        body = "\n".join(" ".join(f"{value:.3f}" for value in row) for row in VALUES)
        text = f"DSAA\n19 13\n70 79\n40 46\n{VALUES.min()} {VALUES.max()}\n{body}\n"
    else:
        text = WRITERS[kind](tmp_path / "whole").read_text()
    (tmp_path / "cut").write_text(text[:-cut])
    with pytest.raises(InputError, match=r"inside its last number|truncated"):
        open_grid(tmp_path / "cut")
    (tmp_path / "no newline").write_text(text[:-1])
    open_grid(tmp_path / "no newline")


@pytest.mark.parametrize(
    ("token", "words"),
    [("1e38 40.5 3", "which is no position"), ("70.0 40.5 x", "cannot be read"), ("nan 40 1", "no position")],
)
def test_columns_with_a_token_that_is_no_number(tmp_path, token, words):
    lines = list(points_as("{lon} {lat} {value}"))
    (tmp_path / "g.xyz").write_text("\n".join([*lines[:50], token, *lines[51:]]) + "\n")
    with pytest.raises(InputError, match=words):
        open_grid(tmp_path / "g.xyz")


def test_signaling_nan_is_no_number(tmp_path):
    lines = list(points_as("{lon} {lat} {value}"))
    (tmp_path / "g.xyz").write_text("\n".join([lines[0].rsplit(" ", 1)[0] + " sNaN", *lines[1:]]) + "\n")
    assert np.isnan(open_grid(tmp_path / "g.xyz").values[0, 0])
    path = WRITERS["gdf"](tmp_path / "g.gdf")
    path.write_text(path.read_text().replace("99999.000", "sNaN", 1))
    check(open_grid(path))


def test_coordinates_that_span_an_absurd_grid(tmp_path):
    lines = [f"{lon!r} {lat} 1.0" for lat in range(4) for lon in (0.0, 1e-9, 2e-9, 1e8)]
    (tmp_path / "g.xyz").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match="Most of the grid is missing"):
        open_grid(tmp_path / "g.xyz")


def test_bounds_of_cells_and_other_quantities_are_not_the_grid(tmp_path):
    lat_bounds, lon_bounds = (np.stack([axis - 0.25, axis + 0.25], 1) for axis in (LAT, LON))
    grid = xr.Dataset(
        {
            "g": (("lat", "lon"), VALUES, {"units": "mGal"}),
            "height": (("lat", "lon"), VALUES, {"units": "m"}),
            "lat_bnds": (("lat", "side"), lat_bounds),
            "lon_limits": (("lon", "side"), lon_bounds),
        },
        coords={"lat": ("lat", LAT, {"bounds": "lat_bnds"}), "lon": ("lon", LON)},
    )
    grid.to_netcdf(tmp_path / "g.nc")
    check(open_grid(tmp_path / "g.nc"))
