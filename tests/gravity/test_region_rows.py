"""Rows of a region by Range: every layout of netCDF-3, right to the bit; the whole file where it cannot be."""

import hashlib
import shutil
import subprocess

import netCDF4
import numpy as np
import pytest

from gravmap.errors import DownloadError
from gravmap.gravity import open_grid
from gravmap.gravity.fetch import fetch, fetched_gravity, provenance
from gravmap.gravity.netcdf3 import HeaderIsLonger, NotNetCDF3, parse_header
from gravmap.gravity.sources import Source, SourceFile
from gravmap.regions import Region

LAT, LON = np.arange(-90, 90.25, 0.5), np.arange(-180, 180.25, 0.5)
VALUES = np.random.default_rng(3).normal(0, 80, (LAT.size, LON.size)).astype("f4")
ROWS = Region(60, 35, 100, 60)
INSIDE = slice(250, 301)


@pytest.fixture
def toy(server_of_files):
    return server_of_files


def source(body, *urls):
    file = SourceFile("grid.grd", urls[0], urls[1:], len(body), hashlib.sha256(body).hexdigest(), ("434446",))
    return Source("toy", "gravity", "A toy", "netCDF", "Free.", "Me (2026)", "bring your own", (file,))


@pytest.fixture
def served(toy, write_coards):
    """A globe in WGM2012's layout on the toy server; gives its bytes."""
    toy.files["grid.grd"] = write_coards(VALUES, LAT, LON, "served.grd").read_bytes()
    return toy.files["grid.grd"]


def left_in(raw):
    return sorted(path.name for path in raw.iterdir())


def check(path, values=VALUES):
    grid = open_grid(path)
    np.testing.assert_array_equal(grid.lat, LAT[INSIDE])
    np.testing.assert_array_equal(grid.lon, LON)
    np.testing.assert_array_equal(grid.values, values[INSIDE])


def test_wgm2012s_layout(tmp_path, toy, served):
    raw = tmp_path / "raw"
    item = fetch(source(served, f"{toy.url}/good/grid.grd"), raw, rows=ROWS)
    check(item.main)
    assert item.main.name == "grid.rows_35_60.grd"
    assert left_in(raw) == ["grid.rows_35_60.grd", "grid.rows_35_60.grd.sha256"]
    # The header with the axes, and the rows: nothing else was sent.
    assert toy.sent == [1 << 16, 51 * LON.size * 4]
    assert "cannot be checked" in item.news[0]
    with netCDF4.Dataset(item.main) as file, netCDF4.Dataset(tmp_path / "served.grd") as whole:
        assert file.data_model == whole.data_model
        assert list(file.variables) == list(whole.variables)
        assert {name: v.dtype for name, v in file.variables.items()} == {n: v.dtype for n, v in whole.variables.items()}
        assert file.node_offset == 0
        assert "rows 250 to 300 of y" in file.cut_from
        assert f"{toy.url}/good/grid.grd" in file.cut_from
    # A smaller region is there already; a larger one is not.
    toy.asked.clear()
    assert "is there" in fetch(source(served, f"{toy.url}/good/grid.grd"), raw, rows=Region(70, 40, 80, 50)).news[0]
    assert toy.asked == []
    fetch(source(served, f"{toy.url}/good/grid.grd"), raw, rows=Region(70, 20, 80, 50))
    assert (raw / "grid.rows_20_50.grd").exists()


def test_rows_that_were_changed_are_got_again(tmp_path, toy, served):
    item = fetch(source(served, f"{toy.url}/good/grid.grd"), tmp_path / "raw", rows=ROWS)
    item.main.write_bytes(item.main.read_bytes()[:-4] + b"junk")
    check(fetch(source(served, f"{toy.url}/good/grid.grd"), tmp_path / "raw", rows=ROWS).main)


@pytest.mark.parametrize(
    ("form", "unlimited", "extra", "descending", "kind"),
    [
        ("NETCDF3_64BIT_OFFSET", False, False, False, "f4"),
        ("NETCDF3_CLASSIC", True, False, False, "f4"),
        ("NETCDF3_CLASSIC", True, True, False, "i2"),  # records of two variables and the axis interleave, padded
        ("NETCDF3_CLASSIC", False, True, True, "f8"),
        ("NETCDF3_CLASSIC", False, True, False, "i2"),
    ],
)
def test_every_layout(tmp_path, toy, form, unlimited, extra, descending, kind):
    order = slice(None, None, -1) if descending else slice(None)
    values = np.round(VALUES[:, :-1]).astype(kind)  # an odd number of shorts is padded
    with netCDF4.Dataset(tmp_path / "served.grd", "w", format=form) as file:
        file.title = "ünïcode"
        file.numbers = np.array([1.5, 2.5, 3.5])
        file.createDimension("lat", None if unlimited else LAT.size)
        file.createDimension("lon", LON.size - 1)
        if extra:
            file.createVariable("crs", "i4", ()).grid_mapping_name = "latitude_longitude"
            file.createVariable("count", "i2", ("lat",))[:] = np.arange(LAT.size)
        file.createVariable("lat", "f8", ("lat",))[:] = LAT[order]
        file.createVariable("lon", "f8", ("lon",))[:] = LON[:-1]
        made = file.createVariable("g", kind, ("lat", "lon"), fill_value=-32768)
        made.setncatts({"units": "mGal", "actual_range": np.array([values.min(), values.max()], "f8")})
        made[:] = values[order]
    body = toy.files["grid.grd"] = (tmp_path / "served.grd").read_bytes()
    item = fetch(source(body, f"{toy.url}/good/grid.grd"), tmp_path / "raw", rows=ROWS)
    grid = open_grid(item.main)
    np.testing.assert_array_equal(grid.lat, LAT[INSIDE])
    np.testing.assert_array_equal(grid.values, values[INSIDE].astype("f4"))
    with netCDF4.Dataset(item.main) as file:
        assert file.title == "ünïcode"
        assert list(file.numbers) == [1.5, 2.5, 3.5]
        assert file.dimensions["lat"].isunlimited() == unlimited
        assert list(file["g"].actual_range) == [values[INSIDE].min(), values[INSIDE].max()]
        if extra:
            rows = np.flatnonzero((LAT[order] >= 35) & (LAT[order] <= 60))
            assert list(file["count"][:]) == list(np.arange(LAT.size)[rows])


@pytest.mark.parametrize("kind", ["norange", "refuses"])
def test_a_server_without_range_gives_the_whole_file(tmp_path, toy, served, kind):
    item = fetch(source(served, f"{toy.url}/{kind}/grid.grd"), tmp_path / "raw", rows=ROWS)
    assert left_in(tmp_path / "raw") == ["grid.grd"]
    assert "whole file" in item.news[0]
    assert "verified" in item.news[1]


def test_netcdf4_is_fetched_whole(tmp_path, toy):
    with netCDF4.Dataset(tmp_path / "n4.nc", "w") as file:
        file.createDimension("x", 5)
    body = toy.files["grid.grd"] = (tmp_path / "n4.nc").read_bytes()
    file = SourceFile("grid.grd", f"{toy.url}/good/grid.grd", (), len(body), hashlib.sha256(body).hexdigest())
    item = fetch(Source("toy", "gravity", *("x",) * 5, (file,)), tmp_path / "raw", rows=ROWS)
    assert item.main.read_bytes() == body
    assert "not netCDF-3" in item.news[0]


def test_a_cut_connection_is_gone_on_with(tmp_path, toy, served):
    toy.pieces = [1.0, 0.4, 0.5, 0.7, 1.0]
    check(fetch(source(served, f"{toy.url}/cut/grid.grd"), tmp_path / "raw", rows=ROWS).main)
    rows = 51 * LON.size * 4
    assert sum(toy.sent) == (1 << 16) + rows
    assert len(toy.asked) == 5


@pytest.mark.parametrize(
    ("kind", "words"),
    [("missing", "404"), ("html", "whole|web page"), ("short", "cut short"), ("long", "too much"), ("down", "500")],
)
def test_a_server_that_misbehaves(tmp_path, toy, served, kind, words):
    with pytest.raises(DownloadError, match=words):
        fetch(source(served, f"{toy.url}/{kind}/grid.grd"), tmp_path / "raw", rows=ROWS)
    assert left_in(tmp_path / "raw") == []


def test_the_next_mirror_is_tried(tmp_path, toy, served):
    check(
        fetch(
            source(served, f"{toy.url}/missing/grid.grd", f"{toy.url}/good/grid.grd"), tmp_path / "raw", rows=ROWS
        ).main
    )


def test_a_file_that_changes_between_header_and_rows(tmp_path, toy, served, monkeypatch):
    from gravmap.gravity import region_rows

    real = region_rows.download

    def change(job, progress):
        toy.files["grid.grd"] = served[:-4] + b"\0\0\0\0"
        return real(job, progress)

    monkeypatch.setattr(region_rows, "download", change)
    with pytest.raises(DownloadError, match="changed on the server"):
        fetch(source(served, f"{toy.url}/good/grid.grd"), tmp_path / "raw", rows=ROWS)
    assert left_in(tmp_path / "raw") == []


def test_values_that_are_no_gravity_are_not_kept(tmp_path, toy, write_coards):
    body = toy.files["grid.grd"] = write_coards(VALUES * 1e6, LAT, LON, "served.grd").read_bytes()
    with pytest.raises(DownloadError, match="beyond any gravity anomaly"):
        fetch(source(body, f"{toy.url}/good/grid.grd"), tmp_path / "raw", rows=ROWS)
    assert left_in(tmp_path / "raw") == []


def test_the_best_rows_are_found_later(tmp_path, toy, served, monkeypatch):
    from gravmap.gravity import sources

    known = source(served, f"{toy.url}/good/grid.grd")
    monkeypatch.setattr(sources, "known_sources", lambda: {"toy": known})
    for rows in (ROWS, Region(0, -60, 10, -10), Region(60, 45, 70, 60)):
        fetch(known, tmp_path / "raw", rows=rows)
    assert fetched_gravity(tmp_path / "raw", Region(65, 40, 95, 55), 5).name == "grid.rows_35_60.grd"
    assert fetched_gravity(tmp_path / "raw", Region(65, 50, 95, 55), 5).name == "grid.rows_35_60.grd"
    assert fetched_gravity(tmp_path / "raw", Region(65, -50, 95, -40), 5).name == "grid.rows_-60_-10.grd"
    entry = provenance(tmp_path / "raw" / "grid.rows_35_60.grd", tmp_path / "raw")
    assert entry["citation"] == "Me (2026)"
    # The whole file comes first as soon as it is there.
    fetch(known, tmp_path / "raw")
    assert fetched_gravity(tmp_path / "raw", ROWS).name == "grid.grd"


def test_headers_that_are_none(write_coards):
    body = write_coards(VALUES[:9, :9], LAT[:9], LON[:9]).read_bytes()
    parse_header(body)
    for size in (3, 8, 40, 200):
        with pytest.raises(HeaderIsLonger):
            parse_header(body[:size])
    for wrong in (b"CDF\x05" + body[4:], b"\x89HDF" + body[4:], body[:8] + b"\0\0\0\x0d" + body[12:]):
        with pytest.raises(NotNetCDF3):
            parse_header(wrong)


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("gmt") is None, reason="GMT is not installed")
def test_a_file_written_by_gmt(tmp_path, toy):
    path = tmp_path / "gmt.grd"
    subprocess.run(
        ["gmt", "grdmath", "-R-180/180/-90/90", "-I1", "-fg", "--IO_NC4_CHUNK_SIZE=classic",
         "X", "ABS", "Y", "ADD", "=", f"{path}=nf"],
        check=True, cwd=tmp_path,
    )  # fmt: skip
    body = toy.files["grid.grd"] = path.read_bytes()
    grid = open_grid(fetch(source(body, f"{toy.url}/good/grid.grd"), tmp_path / "raw", rows=ROWS).main)
    np.testing.assert_array_equal(grid.values, grid.lat.values[:, None] + abs(grid.lon.values))
    assert (float(grid.lat[0]), float(grid.lat[-1])) == (35, 60)
