import io
import json
import re
import shutil

import numpy as np
import pyarrow.parquet as parquet
import pytest
import rasterio

from gravmap.errors import InputError, OptionError
from gravmap.files import sha256, write_checksummed_json, write_json
from gravmap.geology import load_legend, open_labels
from gravmap.geology.labels import legend_path, write_index_raster
from gravmap.geology.legend_file import read_legend, write_legend
from gravmap.gravity import open_fields, write_fields
from gravmap.regions import Region
from gravmap.tiling import load_arrays, make_tiles
from gravmap.tiling.label_statistics import small_bodies
from gravmap.tiling.resample import bilinear, nearest
from gravmap.tiling.tileset import add_split
from gravmap.tiling.training_arrays import pack, refuse_stale, stale_files

KEYS = {
    "fields", "field_valid", "field_nodes_wsen", "labels", "label_bounds_wsen", "small", "role", "windows",
    "window_scale_deg", "window_role", "meta",
}  # fmt: skip


KEPT = {"fields.nc", "labels.tif", "labels.legend.toml"}


@pytest.fixture(scope="module")
def tiles(sources):
    folder = sources / "handed"
    make_tiles(sources / "fields.nc", sources / "labels.tif", folder, sizes_deg=[1, 5], size_px=64)
    return folder


def test_the_contract(tiles, sources):
    arrays = load_arrays(tiles, fold=1)
    assert set(arrays) == KEYS
    shapes = {name: (array.shape, array.dtype.name) for name, array in arrays.items() if name != "meta"}
    count = len(arrays["windows"])
    assert shapes == {
        "fields": ((1, 51, 81), "float32"),
        "field_valid": ((51, 81), "bool"),
        "field_nodes_wsen": ((4,), "float64"),
        "labels": ((250, 400), "uint8"),
        "label_bounds_wsen": ((4,), "float64"),
        "small": ((250, 400), "uint8"),
        "role": ((250, 400), "uint8"),
        "windows": ((count, 4), "float64"),
        "window_scale_deg": ((count,), "float64"),
        "window_role": ((count,), "uint8"),
    }
    assert (arrays["fields"][0] == open_fields(sources / "fields.nc")["residual_10km"].values[::-1]).all()
    labels = open_labels(sources / "labels.tif")
    assert (arrays["labels"] == labels.values).all()
    # Bodies are measured without what is held out, or its labels would weigh in the loss.
    learned_from = np.where(arrays["role"] == 0, labels.values, 255).astype(np.uint8)
    assert (arrays["small"] == small_bodies(learned_from, labels.bounds_wsen)).all()
    assert (arrays["small"] != small_bodies(labels.values, labels.bounds_wsen))[arrays["role"] == 0].any()
    assert arrays["label_bounds_wsen"] == pytest.approx((80, 43, 88, 48))
    meta = arrays["meta"]
    assert json.loads(json.dumps(meta)) == meta
    assert meta["channels"] == ["residual_10km"]
    assert meta["channel_units"] == ["mGal"]
    assert [entry["index"] for entry in meta["classes"]] == list(range(1, 11))
    assert meta["classes"][6] == {"index": 7, "name": "Carboniferous", "colour": "#67A599", "age": "358.9-298.9 Ma"}
    assert meta["tile_size_px"] == 64
    assert meta["region_wsen"] == [80, 43, 88, 48]
    assert meta["field_recipe"]["quantity"] == "bouguer"
    assert {"name": "blocks", "fold": 1, "folds": 5, "buffer_deg": 0.25, "seed": 0}.items() <= meta["split"].items()
    assert read_legend(meta["legend_toml"], "meta").classes == load_legend("bedrock10").classes
    assert {"gravity", "fields", "labels"} <= {entry["role"] for entry in meta["sources"]}


def test_every_window_has_something_to_learn_from(tiles):
    for fold in range(5):
        arrays = load_arrays(tiles, fold=fold)
        assert (arrays["window_role"] == 0).all()
        usable = (arrays["role"] == 0) & (arrays["labels"] > 0) & (arrays["labels"] < 255)
        for west, south, east, north in arrays["windows"]:
            rows = slice(round((48 - north) / 0.02), round((48 - south) / 0.02))
            assert usable[rows, round((west - 80) / 0.02) : round((east - 80) / 0.02)].any()
        assert set(arrays["window_scale_deg"]) == {1.0, 5.0}
        assert {0, 1, 2, 3} == set(np.unique(arrays["role"]))


def test_every_bedrock_cell_is_scored_in_one_fold(tiles):
    scored = sum((load_arrays(tiles, fold=fold)["role"] == 2).astype(int) for fold in range(5))
    labels = load_arrays(tiles)["labels"]
    assert (scored[(labels > 0) & (labels < 255)] == 1).all()


def test_the_random_split_gives_roles_to_windows(tiles):
    arrays = load_arrays(tiles, split="random", fold=2)
    assert (arrays["role"] == 0).all()
    assert set(arrays["window_role"]) == {0, 1, 2}
    share = np.mean(arrays["window_role"] != 0)
    assert share == pytest.approx(0.15, abs=0.02)
    assert arrays["meta"]["split"]["leak"] > 0.5
    other = load_arrays(tiles, split="random", fold=3)["window_role"]
    assert (other != arrays["window_role"]).any()


def test_the_arrays_agree_with_the_tile_files(tiles):
    """A network fed from the native grids sees what the tile files hold: to 0.01 mGal, and label for label."""
    arrays = load_arrays(tiles)
    with rasterio.open(tiles / "5deg" / "r000_c001_field.tif") as field:
        window = Region(*field.bounds)
        assert window.bounds_wsen == pytest.approx((82.5, 43, 87.5, 48))
        again = bilinear(arrays["fields"][0], tuple(arrays["field_nodes_wsen"]), window, 64)
        assert np.abs(field.read(1) - again).max() < 0.001
    bounds = tuple(arrays["label_bounds_wsen"])
    # A tile serves every fold: its small bodies are those of the whole raster.
    for kind, values in (("label", arrays["labels"]), ("small", small_bodies(arrays["labels"], bounds))):
        with rasterio.open(tiles / "5deg" / f"r000_c001_{kind}.tif") as tile:
            assert (tile.read(1) == nearest(values, bounds, window, 64)).all()


def test_an_index_alone_hands_over_the_same(tiles, sources):
    bare = sources / "bare"
    make_tiles(
        sources / "fields.nc",
        sources / "labels.tif",
        bare,
        sizes_deg=[1, 5],
        size_px=64,
        index_only=True,
        overwrite=True,
    )
    one, other = load_arrays(tiles), load_arrays(bare)
    for name in KEYS - {"meta"}:
        assert (one[name] == other[name]).all()
    assert one["meta"] == other["meta"]


def test_pack_needs_numpy_alone_to_be_read(tiles, tmp_path):
    arrays = load_arrays(tiles, channels=["residual_10km", "bouguer"], fold=3)
    pack(tiles, tmp_path / "packed.npz", channels=["residual_10km", "bouguer"], fold=3)
    with np.load(tmp_path / "packed.npz", allow_pickle=False) as packed:
        assert set(packed.files) == KEYS
        for name in KEYS - {"meta"}:
            assert packed[name].dtype == arrays[name].dtype
            assert (packed[name] == arrays[name]).all()
        assert json.loads(str(packed["meta"])) == arrays["meta"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["packed.npz"]


def test_unknown_nodes_become_zero_and_invalid(sources, tmp_path):
    fields = open_fields(sources / "fields.nc")
    fields["residual_10km"][40, 7] = np.nan
    write_fields(fields, tmp_path / "fields.nc")
    make_tiles(tmp_path / "fields.nc", sources / "labels.tif", tmp_path / "t", sizes_deg=[5], index_only=True)
    arrays = load_arrays(tmp_path / "t")
    assert np.argwhere(~arrays["field_valid"]).tolist() == [[10, 7]]
    assert arrays["fields"][0, 10, 7] == 0
    assert np.isfinite(arrays["fields"]).all()


@pytest.mark.parametrize("name", ["fields.nc", "labels.tif"])
def test_changed_or_missing_sources_are_refused(sources, tmp_path, name):
    shutil.copytree(sources, tmp_path / "data", ignore=shutil.ignore_patterns("tiles", "handed", "bare"))
    data = tmp_path / "data"
    make_tiles(data / "fields.nc", data / "labels.tif", data / "tiles", sizes_deg=[5], index_only=True)
    # A workspace may be moved as a whole.
    data = data.rename(tmp_path / "moved")
    load_arrays(data / "tiles")
    if name == "fields.nc":
        fields = open_fields(data / name)
        write_fields(fields.assign(layer=fields["bouguer"]), data / name)
        found = load_arrays(data / "tiles", channels=["layer"])["meta"]["sources"]
        (entry,) = [each for each in found if each.get("role") == "fields"]
        assert entry["sha256"] == sha256(data / name), "a run records the fields as they are when it is trained"
        assert set(entry["channels"]) == {"bouguer", "layer"}
        write_fields(fields.assign(residual_10km=fields["residual_10km"] + 1), data / name)
    else:
        with (data / name).open("ab") as stream:
            stream.write(b" ")
    with pytest.raises(InputError, match=rf"{name} has changed[\s\S]*gravmap tile"):
        load_arrays(data / "tiles")
    (data / name).unlink()
    with pytest.raises(InputError, match=rf"{name} is missing[\s\S]*gravmap tile"):
        load_arrays(data / "tiles")


def test_labels_of_another_class_table_than_the_tiles_are_named(sources, tmp_path):
    shutil.copytree(sources, tmp_path / "data", ignore=lambda folder, names: set(names) - KEPT)
    labels, tiles = tmp_path / "data" / "labels.tif", tmp_path / "data" / "tiles"
    make_tiles(tmp_path / "data" / "fields.nc", labels, tiles, sizes_deg=[5], index_only=True)
    before, legend = open_labels(labels), load_legend("basement10")
    write_index_raster(labels, before.values, before.bounds_wsen, legend)
    write_legend(legend, legend_path(labels))
    with pytest.raises(InputError, match="from the classes of bedrock10 to those of basement10: class 9 is Mesozoic"):
        refuse_stale(tiles)


def test_a_tile_set_of_files_that_do_not_belong_together_is_refused(sources, tmp_path):
    shutil.copytree(sources, tmp_path / "data", ignore=lambda folder, names: set(names) - KEPT)
    place, tiles = tmp_path / "data", tmp_path / "data" / "tiles"
    make_tiles(place / "fields.nc", place / "labels.tif", tiles, sizes_deg=[5], index_only=True)
    add_split(tiles, "blocks", name="second", folds=3)  # which writes both files of the index
    refuse_stale(tiles)

    def refused(file, change, message):
        whole = file.read_bytes()
        file.write_bytes(change(whole))
        with pytest.raises(InputError, match=message):
            load_arrays(tiles)
        with pytest.raises(InputError, match=message):  # `split`
            refuse_stale(tiles)
        assert re.search(message, " ".join(stale_files(place / "labels.tif", tiles)))  # `doctor`
        file.write_bytes(whole)

    index, table = tiles / "index.json", tiles / "index.parquet"
    edited = "changed after it was written"
    refused(index, lambda text: text.replace(b'"seed": 0', b'"seed": 1', 1), edited)
    refused(index, lambda text: text.replace(b"record_sha256", b"recorc_sha256"), edited)
    other = parquet.read_table(table)
    moved = other.set_column(other.column_names.index("west"), "west", other["east"])
    refused(table, lambda _: _parquet(moved), r"index\.parquet is not the table that index\.json was written with")
    refused(place / "fields.nc", lambda content: content[:-1000], r"fields\.nc")
    # Split columns of a stopped `split --add`, which index.json does not name yet.
    parquet.write_table(other.append_column("third_fold", other["row"]), table)
    refuse_stale(tiles)
    # A label raster without the checksum of its legend, and an index without checksums, as of earlier versions.
    refused(place / "labels.legend.toml", lambda text: text.replace(b'"Devonian"', b'"Permian?"'), "has changed since")
    stored = json.loads(index.read_text())
    del stored["record_sha256"], stored["windows_sha256"]
    write_json(index, stored)
    refuse_stale(tiles)


def _parquet(table):
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()


def test_what_is_not_there_is_refused(tiles, tmp_path):
    with pytest.raises(InputError, match="gravmap tile"):
        load_arrays(tmp_path)
    (tmp_path / "index.json").write_text('{"format": 0}')
    with pytest.raises(InputError, match="format"):
        load_arrays(tmp_path)
    with pytest.raises(InputError, match=r"mine.*blocks, random, strict[\s\S]*--add blocks --name mine"):
        load_arrays(tiles, split="mine")
    with pytest.raises(OptionError, match="folds 0 to 4"):
        load_arrays(tiles, fold=5)
    with pytest.raises(InputError, match="residual_99km"):
        load_arrays(tiles, channels=["residual_99km"])
    text = (tiles / "index.json").read_text().replace('"../', f'"{tiles.parent}/')
    write_checksummed_json(tmp_path / "index.json", json.loads(text))
    (tmp_path / "index.parquet").write_text("no parquet")
    with pytest.raises(InputError, match=r"index\.parquet"):
        load_arrays(tmp_path)
