"""`gravmap layer`, and a layer with missing values through every later command."""

import json
import shutil

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from gravmap.gravity import open_fields
from gravmap.gravity.fields_file import field_sources
from gravmap.learning.training.checkpoint import load_model
from gravmap.mapping.record.provenance import read_provenance
from toys.workspace import call, make_tiled, tile, train


def write_raster(path, missing_from=250, seed=0):
    """A layer of 0.02 degrees with mean 500, missing from a column on."""
    values = 500 + 40 * np.random.default_rng(seed).normal(size=(250, 250)).astype(np.float32)
    values[:, missing_from:] = -1
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=250, width=250, dtype="float32", crs="EPSG:4326",
        transform=from_origin(79.5, 46.5, 0.02, 0.02), nodata=-1,
    ) as raster:  # fmt: skip
        raster.write(values.astype(np.float32), 1)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A workspace with a layer that has no data east of 83.1, a tile set, and a run that reads it."""
    root = tmp_path_factory.mktemp("layers")
    make_tiled(root)
    path = write_raster(root / "mag.tif", 180)
    done = call(root, "layer", "add", path, "--name", "magnetic", "--units", "nT", "--licence", "CC0")
    assert done.exit_code == 0, done.output
    assert "22.0 % of the nodes have no data" in done.output
    assert "gravmap tile --overwrite" not in done.output, "the tile set does not hold the layer, so it is as it was"
    train(root, "one", "--input", "residual,magnetic")
    tile(root, "--overwrite")
    return root


def test_a_layer_is_listed_drawn_and_removed(root, tmp_path):
    (listed,) = json.loads(call(root, "layer", "list", "--json").stdout)["layers"]
    assert (listed["name"], listed["unit"], listed["licence"], listed["files"]) == (
        "magnetic",
        "nT",
        "CC0",
        ["mag.tif"],
    )
    assert listed["missing_fraction"] == pytest.approx(0.22, abs=0.01)
    assert (root / "data" / "layer_magnetic.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fields.nc").write_bytes((root / "data" / "fields.nc").read_bytes())
    assert call(tmp_path, "layer", "remove", "none").exit_code == 3
    assert call(tmp_path, "layer", "remove", "magnetic").exit_code == 0
    assert "no layers" in call(tmp_path, "layer", "list").output
    fields = open_fields(tmp_path / "data" / "fields.nc")
    assert "magnetic" not in fields
    assert field_sources(fields) == []


def test_a_layer_that_is_removed_changes_only_what_read_it(root, tmp_path):
    place = shutil.copytree(root, tmp_path / "place")

    def sound(*folder):
        return json.loads(call(place, "verify", place.joinpath(*folder), "--json").stdout)["sound"]

    assert sound("data", "tiles")
    assert sound("runs", "one")
    removed = call(place, "layer", "remove", "magnetic")
    assert "gravmap tile" not in removed.output
    assert sound("data", "tiles")
    assert not sound("runs", "one")


def test_options_that_make_no_sense_are_refused(root, tmp_path):
    path = write_raster(tmp_path / "other.tif")
    before = (root / "data" / "fields.nc").read_bytes()
    for words, status, printed in (
        ([], 2, "either a FILE or --distance"),
        ([path, "--distance", path], 2, "either a FILE or --distance"),
        ([path], 2, "--name is missing"),
        (["--distance", path, "--transform", "log"], 2, "--transform: only for a FILE"),
        ([path, "--name", "x", "--cap", "50km"], 2, "--cap: only for --distance"),
        ([path, "--name", "residual_10km"], 2, "meaning of its own"),
        ([path, "--name", "bouguer2", "--upward", "10"], 2, "10km"),
        ([path, "--name", "magnetic"], 3, "--overwrite"),
        ([tmp_path / "none.tif", "--name", "x"], 3, "missing"),
    ):
        done = call(root, "layer", "add", *words)
        assert (done.exit_code, printed in done.output) == (status, True), done.output
    dry = call(root, "layer", "add", path, "--name", "second", "-n", "--json")
    assert json.loads(dry.stdout)["would_add"] == "second"
    assert (root / "data" / "fields.nc").read_bytes() == before
    assert call(tmp_path, "layer", "add", path, "--name", "x").exit_code == 3  # no fields
    assert "gravmap residual" in call(tmp_path, "layer", "list").output


def test_a_network_reads_the_layer_and_its_mask(root):
    _, spec = load_model(root / "runs" / "one")
    assert spec.channels == ["residual_10km", "magnetic"]
    assert spec.input.width == 3
    assert spec.input.channels[1].centre == pytest.approx(500, abs=3)
    assert [each["layer"] for each in spec.sources if each.get("role") == "layer"] == ["magnetic"]


def test_maps_cover_what_the_layer_does_not_and_record_it(root):
    words = ["--bbox", 82, 43, 83.9, 45, "--window", "2deg", "--no-prior-check", "-o", root / "maps" / "east"]
    done = call(root, "predict", *words)
    assert done.exit_code == 0, done.output
    with rasterio.open(root / "maps" / "east" / "lithology.tif") as raster:
        assert (raster.read(1) != 255).all()
    record = read_provenance(root / "maps" / "east")
    (source,) = [each for each in record["sources"] if each["role"] == "layer"]
    assert (source["licence"], source["used_for"]) == ("CC0", ["the fields", "training one"])
    assert "one: magnetic is an input beside gravity." in record["deviations"]
    page = (root / "maps" / "east" / "report.html").read_text()
    assert "Layer magnetic" in page


def test_importance_and_explanation_treat_it_as_any_channel(root, tmp_path):
    done = call(root, "evaluate", "one", "--importance", "--json")
    assert done.exit_code == 0, done.output
    record = json.loads((root / "runs" / "one" / "evaluation.json").read_text())
    assert {row["field"] for row in record["importance"]} == {"residual_10km", "magnetic", "all fields"}
    done = call(
        root,
        "explain",
        "--bbox",
        82.5,
        43.5,
        83.5,
        44.5,
        "--window",
        "2deg",
        "-o",
        tmp_path / "why",
        "--integration-steps",
        2,
    )
    assert done.exit_code == 0, done.output
    why = json.loads((tmp_path / "why" / "attribution.json").read_text())
    assert list(why["fields"]) == ["residual_10km", "magnetic"]


def test_the_report_of_splits_says_what_channels_tell_of_the_place(root):
    done = call(root, "split", "--report", "--split", "blocks", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["location_r2"]
    assert set(found) == {"bouguer", "residual_10km", "magnetic"}
    assert "alone predicts" not in done.output


def test_a_layer_that_changed_on_disk_is_found_by_verify(root, tmp_path):
    assert call(root, "verify").exit_code == 0
    path = root / "mag.tif"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1] + b"x")
        for folder, found in ((root, 2), (root / "data" / "tiles", 1)):
            done = call(root, "verify", folder, "--json")
            assert done.exit_code == 3
            findings = [each for one in json.loads(done.stdout)["checked"] for each in one["findings"]]
            bad = [each["what"] for each in findings if each["state"] == "changed"]
            assert bad.count("layer magnetic, mag.tif") >= found
        path.unlink()
        gone = call(root, "verify")
        assert gone.exit_code == 0
        assert "gone" in gone.output
    finally:
        path.write_bytes(content)


def test_a_network_that_does_not_read_it_says_so(root):
    train(root, "plain")
    done = call(root, "predict", "--bbox", 82, 43, 83, 44, "--run", "plain", "--no-prior-check", "-n")
    assert "This map does not use magnetic" in done.output
    done = call(root, "predict", "--bbox", 82, 43, 83, 44, "--run", "one", "--no-prior-check", "-n")
    assert "This map does not use" not in done.output


def test_crusts_have_no_layers(root):
    done = call(root, "train", "--on", "crusts", "--input", "residual,magnetic", "--gpus", 0, "-n")
    assert done.exit_code == 2
    assert "gravity and outcrop alone" in done.output
