"""The index of a tile set as others read it, and the tile files checked against it."""

import json
import shutil
import subprocess

import geopandas
import pyarrow.parquet
import pytest

from gravmap.errors import InputError
from gravmap.tiling import make_tiles
from gravmap.tiling.tile_files import verify_tiles


@pytest.fixture
def tiles(sources, tmp_path):
    make_tiles(sources / "fields.nc", sources / "labels.tif", tmp_path / "t", sizes_deg=[2.5, 5], size_px=32)
    return tmp_path / "t"


def test_the_checksums_are_those_of_sha256sum(tiles):
    table = geopandas.read_parquet(tiles / "index.parquet")
    row = table.iloc[4]
    for kind in ("field", "label", "small"):
        message = subprocess.check_output(["sha256sum", tiles / row[f"{kind}_file"]], text=True)
        assert message.split()[0] == row[f"{kind}_sha256"]


def test_damage_is_found(tiles):
    assert verify_tiles(tiles) == {}
    (tiles / "5deg" / "r000_c001_small.tif").unlink()
    with (tiles / "2.5deg" / "r000_c000_field.tif").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    expected = {"5deg/r000_c001_small.tif": "missing", "2.5deg/r000_c000_field.tif": "changed"}
    reported = []
    assert verify_tiles(tiles, progress=lambda done, total, note="": reported.append((done, total))) == expected
    assert reported[-1] == (63, 63)


def test_files_that_a_gis_leaves_beside_a_tile_are_accepted(tiles):
    (tiles / "5deg" / "r000_c001_field.tif.aux.xml").write_text("<PAMDataset/>")
    assert verify_tiles(tiles) == {}


def test_an_index_without_tiles_is_sound(sources, tmp_path):
    make_tiles(sources / "fields.nc", sources / "labels.tif", tmp_path / "t", sizes_deg=[5], index_only=True)
    assert verify_tiles(tmp_path / "t") == {}


@pytest.mark.parametrize("damage", ["gone", "short", "no checksums"])
def test_a_damaged_index_is_refused(tiles, damage):
    path = tiles / "index.parquet"
    if damage == "gone":
        path.unlink()
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-200])
    else:
        geopandas.read_parquet(path).drop(columns="field_sha256").to_parquet(path)
    with pytest.raises(InputError, match="gravmap tile --overwrite"):
        verify_tiles(tiles)


def test_the_index_is_valid_geoparquet(tiles):
    geo = json.loads(pyarrow.parquet.read_schema(tiles / "index.parquet").metadata[b"geo"])
    assert geo["version"] in ("1.0.0", "1.1.0")
    column = geo["columns"][geo["primary_column"]]
    assert (column["encoding"], column["geometry_types"]) == ("WKB", ["Polygon"])
    assert column["bbox"] == [80, 43, 88, 48]
    # A CRS is PROJJSON, or left out for OGC:CRS84; ours names EPSG:4326, whose WKB is read as x, y all the same.
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 4326}


@pytest.mark.skipif(
    shutil.which("ogrinfo") is None or b"Parquet" not in subprocess.check_output(["ogrinfo", "--formats"]),
    reason="no GDAL tools that read Parquet",
)
def test_ogrinfo_opens_the_index(tiles):
    message = subprocess.check_output(["ogrinfo", "-so", "-al", tiles / "index.parquet"], text=True)
    assert "Feature Count: 21" in message
