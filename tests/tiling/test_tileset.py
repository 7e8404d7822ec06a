import json
import shutil
import subprocess

import geopandas
import numpy as np
import pytest
import rasterio
from scipy.interpolate import RegularGridInterpolator

from gravmap.errors import GravmapError, InputError, OptionError
from gravmap.files import sha256
from gravmap.geology import load_legend, open_labels
from gravmap.geology.labels import write_index_raster
from gravmap.gravity import open_fields, write_fields
from gravmap.gravity.field_reader import read_fields
from gravmap.gravity.fields_file import hash_channels
from gravmap.tiling import make_tiles
from gravmap.tiling.label_statistics import small_bodies
from gravmap.tiling.tileset import plan_tiles

SIZE = 128


@pytest.fixture(scope="module")
def tiles(sources):
    folder = sources / "tiles"
    index = make_tiles(sources / "fields.nc", sources / "labels.tif", folder, sizes_deg=[2.5, 5, 10], size_px=SIZE)
    return folder, index


def table_of(tiles):
    return geopandas.read_parquet(tiles[0] / "index.parquet")


def test_the_index_names_every_tile(tiles):
    folder, index = tiles
    table = table_of(tiles)
    assert len(table) == index["windows"] == 6 * 3 + 3
    assert table.crs.to_epsg() == 4326
    for row in table.itertuples():
        assert row.geometry.bounds == pytest.approx((row.west, row.south, row.east, row.north))
        for kind in ("field", "label", "small"):
            assert (folder / getattr(row, f"{kind}_file")).exists()
        assert row.field_file == f"{row.scale_deg:g}deg/r{row.row:03d}_c{row.col:03d}_field.tif"
    assert len(list(folder.rglob("*.tif"))) == 3 * len(table)
    assert not list(folder.rglob("*partial*"))
    # 10 degrees do not fit into 8 x 5.
    assert "10deg" in index["notes"][0]


def test_the_header_names_its_sources(tiles, sources):
    header = json.loads((tiles[0] / "index.json").read_text())
    fields = sources / "fields.nc"
    read = hash_channels(fields, ["residual_10km"])
    assert set(read) == {"bouguer", "residual_10km"}
    assert header["sources"]["fields"] == {"path": "../fields.nc", "sha256": sha256(fields), "channels": read}
    assert header["sources"]["labels"] == {"path": "../labels.tif", "sha256": sha256(sources / "labels.tif")}
    assert header["field_recipe"]["heights_m"] == [10000.0]
    assert header["channel"] == "residual_10km"
    assert [entry["name"] for entry in header["classes"]] == [entry.name for entry in load_legend("bedrock10").classes]
    assert {split["name"] for split in header["splits"]} == {"blocks", "random"}
    assert (header["size_px"], header["tiles"]) == (SIZE, True)


def test_field_tiles_hold_the_interpolated_field(tiles, sources):
    grid = read_fields(sources / "fields.nc")
    scipy = RegularGridInterpolator(
        (np.linspace(43, 48, 51), np.linspace(80, 88, 81)), grid.values[0, ::-1].astype(float)
    )
    for row in table_of(tiles).iloc[::4].itertuples():
        with rasterio.open(tiles[0] / row.field_file) as tile:
            assert tile.crs.to_epsg() == 4326
            assert tuple(tile.bounds) == pytest.approx((row.west, row.south, row.east, row.north))
            assert tile.shape == (SIZE, SIZE)
            assert tile.dtypes == ("float32",)
            assert np.isnan(tile.nodata)
            assert tile.descriptions == ("residual_10km (mGal)",)
            rows, columns = np.mgrid[:SIZE, :SIZE]
            lon, lat = rasterio.transform.xy(tile.transform, rows.ravel(), columns.ravel())
            assert np.abs(tile.read(1).ravel() - scipy(np.column_stack([lat, lon]))).max() < 0.002


def test_label_and_small_tiles_hold_the_native_cells(tiles, sources):
    labels = open_labels(sources / "labels.tif")
    small = small_bodies(labels.values, labels.bounds_wsen)
    for row in table_of(tiles).iloc[::4].itertuples():
        with rasterio.open(tiles[0] / row.label_file) as tile, rasterio.open(tiles[0] / row.small_file) as mask:
            assert tile.crs.to_epsg() == mask.crs.to_epsg() == 4326
            assert tile.transform == mask.transform
            assert tile.nodata == 255
            assert tile.colormap(1)[10] == (0xCE, 0x4D, 0xA0, 255)
            rows, columns = np.mgrid[:SIZE, :SIZE]
            lon, lat = (np.array(axis) for axis in rasterio.transform.xy(tile.transform, rows.ravel(), columns.ravel()))
            cell = np.floor((48 - lat) / 0.02 + 1e-6).astype(int), np.floor((lon - 80) / 0.02 + 1e-6).astype(int)
            assert (tile.read(1).ravel() == labels.values[cell]).all()
            assert (mask.read(1).ravel() == small[cell]).all()
    assert 0 < small.mean() < 1


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="gdalinfo is not installed")
def test_gdal_shows_a_label_tiles_names(tiles):
    path = tiles[0] / "5deg" / "r000_c000_label.tif"
    message = json.loads(subprocess.check_output(["gdalinfo", "-json", str(path)]))
    assert message["bands"][0]["categories"][7] == "Carboniferous"


def test_counts_and_fractions_are_those_of_the_labels(tiles, sources):
    values = open_labels(sources / "labels.tif").values
    lat, lon = 48 - 0.01 - 0.02 * np.arange(250), 80 + 0.01 + 0.02 * np.arange(400)
    for row in table_of(tiles).itertuples():
        # Where an edge runs through the centres of cells, they belong to the window south and east of it.
        inside = (lat < row.north + 1e-9) & (lat > row.south + 1e-9), (lon > row.west - 1e-9) & (lon < row.east - 1e-9)
        part = values[np.ix_(*inside)]
        for index in (*range(11), 255):
            assert getattr(row, f"cells_{index}") == np.count_nonzero(part == index)
        assert row.outcrop_share == pytest.approx(np.mean((part > 0) & (part < 255)))
        assert row.effective == (row.outcrop_share >= 0.1)
        assert row.blocks_fold in (-1, 0, 1, 2, 3, 4)
        assert row.random_role_fold0 in (0, 1, 2, 3)


def test_index_only_writes_the_same_index_and_no_tiles(tiles, sources, tmp_path):
    make_tiles(
        sources / "fields.nc",
        sources / "labels.tif",
        tmp_path / "t",
        sizes_deg=[2.5, 5, 10],
        size_px=SIZE,
        index_only=True,
    )
    assert sorted(entry.name for entry in (tmp_path / "t").iterdir()) == ["index.json", "index.parquet"]
    bare, full = geopandas.read_parquet(tmp_path / "t" / "index.parquet"), table_of(tiles)
    files = [f"{kind}_{what}" for kind in ("field", "label", "small") for what in ("file", "sha256")]
    assert bare.drop(columns=files).equals(full.drop(columns=files))
    assert bare["field_file"].isna().all()


def test_a_finished_set_is_replaced_only_with_overwrite(tiles, sources):
    before = (tiles[0] / "index.json").read_bytes()
    with pytest.raises(InputError, match="--overwrite"):
        make_tiles(sources / "fields.nc", sources / "labels.tif", tiles[0])
    assert (tiles[0] / "index.json").read_bytes() == before


def test_progress_is_reported_to_the_end(sources, tmp_path):
    reported = []
    make_tiles(
        sources / "fields.nc", sources / "labels.tif", tmp_path / "t", sizes_deg=[5], size_px=32,
        progress=lambda done, total, note="": reported.append((done, total)),
    )  # fmt: skip
    assert reported == [(1, 3), (2, 3), (3, 3)]


def test_a_full_disk_is_seen_beforehand(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(GravmapError, match=r"take up to \d+\.\d [GM]B and .* has 0\.0 MB free"):
        make_tiles(sources / "fields.nc", sources / "labels.tif", tmp_path / "deep" / "t")
    assert list(tmp_path.iterdir()) == []


def test_the_plan_estimates_count_and_disk(sources, tiles):
    plan = plan_tiles(sources / "fields.nc", [2.5, 5], [], SIZE)
    assert plan.count == 21
    written = sum(path.stat().st_size for path in tiles[0].rglob("*.*"))
    assert 0.3 * plan.disk_bytes < written < plan.disk_bytes
    assert plan_tiles(sources / "fields.nc").size_px == 2048


def test_the_plan_names_the_default_input(sources, tmp_path):
    assert plan_tiles(sources / "fields.nc").channel == "residual_10km"
    fields = open_fields(sources / "fields.nc")
    other = fields.rename(residual_10km="residual_5km").assign(residual_20km=fields["residual_10km"])
    write_fields(other, tmp_path / "fields.nc")
    plan = plan_tiles(tmp_path / "fields.nc")
    assert plan.channel == "residual_5km"
    assert "no residual_10km: the tiles hold residual_5km" in plan.notes[-1]


def test_what_does_not_fit_is_refused(sources, tmp_path):
    fields, labels = sources / "fields.nc", sources / "labels.tif"
    with pytest.raises(InputError, match="gravmap residual"):
        make_tiles(tmp_path / "none.nc", labels, tmp_path / "t")
    with pytest.raises(InputError, match="gravmap rasterize"):
        make_tiles(fields, tmp_path / "none.tif", tmp_path / "t")
    for options in (
        {"size_px": 4},
        {"splits": ["folds"]},
        {"folds": 2},
        {"sizes_deg": [1, 2], "strides_deg": [1] * 3},
    ):
        with pytest.raises(OptionError):
            make_tiles(fields, labels, tmp_path / "t", **options)
    legend = load_legend("bedrock10")
    far, bare = tmp_path / "far.tif", tmp_path / "bare.tif"
    write_index_raster(far, np.full((50, 50), 7, dtype=np.uint8), (10, 43, 15, 48), legend)
    with pytest.raises(InputError, match="do not overlap"):
        make_tiles(fields, far, tmp_path / "t")
    write_index_raster(far, np.full((50, 50), 7, dtype=np.uint8), (-280, 43, -270, 48), legend)
    with pytest.raises(InputError, match="covers -280 to -270 degrees of longitude"):
        make_tiles(fields, far, tmp_path / "t")
    write_index_raster(bare, np.zeros((50, 50), dtype=np.uint8), (80, 43, 85, 48), legend)
    with pytest.raises(InputError, match="no bedrock"):
        make_tiles(fields, bare, tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_labels_counted_in_another_turn_than_the_fields_are_refused(sources, tmp_path):
    """Fields from 176 to 184 E, and labels of the world from -180 to 180: half of them would be lost."""
    fields = open_fields(sources / "fields.nc")
    write_fields(fields.assign_coords(lon=fields.lon + 96), tmp_path / "fields.nc")
    world = np.full((180, 360), 7, dtype=np.uint8)
    write_index_raster(tmp_path / "world.tif", world, (-180, -90, 180, 90), load_legend("bedrock10"))
    with pytest.raises(InputError, match="longitudes differ by 360 degrees"):
        make_tiles(tmp_path / "fields.nc", tmp_path / "world.tif", tmp_path / "t", sizes_deg=[5], size_px=32)


def test_labels_of_a_part_are_not_usable_elsewhere(sources, tmp_path, caplog):
    values = open_labels(sources / "labels.tif").values
    write_index_raster(tmp_path / "half.tif", values[:, :200], (80, 43, 84, 48), load_legend("bedrock10"))
    make_tiles(sources / "fields.nc", tmp_path / "half.tif", tmp_path / "t", sizes_deg=[5], size_px=32)
    assert "80E-84E 43N-48N" in caplog.text
    with rasterio.open(tmp_path / "t" / "5deg" / "r000_c001_label.tif") as tile:  # 82.5 to 87.5 E
        assert (tile.read(1)[:, 10:] == 255).all()
        assert (tile.read(1)[:, :9] != 255).any()
