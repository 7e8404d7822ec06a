import json

import geopandas
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from shapely.geometry import box

from gravmap.geology import load_legend, open_labels
from gravmap.geology.labels import write_index_raster
from gravmap.geology.legend_file import write_legend
from gravmap.gravity import write_fields
from gravmap.tiling import load_arrays
from gravmap_cli import gravmap

SMALL = ["--window", "2.5deg", "--size", "32"]


def call(workspace, *words):
    return CliRunner().invoke(gravmap, ["-w", str(workspace), "tile", *map(str, words)])


@pytest.fixture
def workspace(tmp_path):
    lat, lon = np.linspace(43, 48, 51), np.linspace(80, 88, 81)
    values = np.random.default_rng(0).normal(0, 20, (51, 81)).astype(np.float32)
    field = xr.DataArray(values, dims=("lat", "lon"), coords={"lat": lat, "lon": lon}, attrs={"units": "mGal"})
    attrs = {"gravmap_recipe": json.dumps({"quantity": "bouguer"}), "gravmap_sources": "[]"}
    write_fields(xr.Dataset({"bouguer": field, "residual_10km": field}, attrs=attrs), tmp_path / "data" / "fields.nc")
    classes = np.random.default_rng(1).integers(0, 11, (10, 16)).repeat(5, 0).repeat(5, 1).astype(np.uint8)
    write_index_raster(tmp_path / "data" / "labels.tif", classes, (80, 43, 88, 48), load_legend("bedrock10"))
    write_legend(load_legend("bedrock10"), tmp_path / "data" / "labels.legend.toml")
    return tmp_path


def test_tiles_and_index(workspace):
    done = call(workspace, *SMALL)
    assert done.exit_code == 0, done.output
    assert "18 windows" in done.output
    assert "Split blocks: 5 folds" in done.output
    table = geopandas.read_parquet(workspace / "data" / "tiles" / "index.parquet")
    assert len(table) == 18
    assert len(list((workspace / "data" / "tiles").rglob("*_field.tif"))) == 18
    assert load_arrays(workspace / "data" / "tiles")["fields"].shape == (1, 51, 81)


def test_results_as_json(workspace):
    done = CliRunner().invoke(gravmap, ["-w", str(workspace), "tile", "--index-only", "--json"])
    printed = json.loads(done.stdout)
    assert printed["windows"] == 40 + 3
    assert [scale["name"] for scale in printed["scales"]] == ["1deg", "5deg"]
    leaks = {split["name"]: split["leak"] for split in printed["splits"]}
    assert (leaks["blocks"], leaks["strict"]) == (0, 0)
    assert leaks["random"] > 0.5
    assert any("15deg" in note for note in printed["notes"])
    assert "15deg" in done.stderr


def test_index_only_options_reach_the_index(workspace):
    words = [
        "--index-only",
        "--window",
        "2deg",
        "--stride",
        "1deg",
        "--block",
        "1deg",
        "--folds",
        "4",
        "--buffer",
        "0.1deg",
    ]
    done = call(workspace, *words, "--seed", "3", "--split", "blocks")
    assert done.exit_code == 0, done.output
    header = json.loads((workspace / "data" / "tiles" / "index.json").read_text())
    (split,) = header["splits"]
    assert (split["name"], split["folds"], split["seed"], split["buffer_deg"]) == ("blocks", 4, 3, 0.1)
    assert np.array(split["fold_of_block"]).shape == (5, 8)
    assert header["tiles"] is False
    assert not list((workspace / "data" / "tiles").rglob("*.tif"))


def test_windows_with_little_bedrock_are_named(workspace):
    values = np.zeros((50, 80), dtype=np.uint8)
    values[:, ::16] = 4  # every 1.6 degrees: a window of one degree holds at most a tenth, and some hold none
    values[:, 40:] = 7
    write_index_raster(workspace / "data" / "labels.tif", values, (80, 43, 88, 48), load_legend("bedrock10"))
    words = ["-w", str(workspace), "tile", "--index-only", "--window", "1deg", "--window", "5deg", "--json"]
    done = CliRunner().invoke(gravmap, words)
    printed = json.loads(done.stdout)
    table = geopandas.read_parquet(workspace / "data" / "tiles" / "index.parquet")
    # Columns of one degree from 80 E: cells 0, 16 and 32 hold bedrock, so columns 2 has none (20 to 29).
    assert printed["set_apart"]["1deg"] == [f"1deg/r{row:03d}_c002" for row in range(5)]
    assert printed["set_apart"]["5deg"] == []
    assert printed["windows_set_apart"] == 5 == np.count_nonzero(~table["effective"])
    assert "5 windows have under 10 % bedrock and are set apart:" in done.stderr
    assert "5 of 1deg: r000_c002 r001_c002" in done.stderr


def test_a_stopped_run_is_resumed(workspace, monkeypatch):
    from gravmap.tiling.resumable_folder import ResumableFolder

    finish, noted = ResumableFolder.finish, []

    def failing(self, name, sums):
        if len(noted) == 5:
            raise OSError(28, "No space left on device", name)
        finish(self, name, sums)
        noted.append(name)

    with monkeypatch.context() as patch:
        patch.setattr(ResumableFolder, "finish", failing)
        done = call(workspace, *SMALL)
    assert done.exit_code == 1
    assert "disk is full" in done.output
    assert "Traceback" not in done.output
    train = CliRunner().invoke(gravmap, ["-w", str(workspace), "train", "--gpus", "0"])
    assert train.exit_code == 3
    assert "5 tiles are finished" in train.output
    done = call(workspace, *SMALL)
    assert done.exit_code == 0, done.output
    assert "5 of 18 tiles" in done.output
    assert not (workspace / "data" / "tiles.partial").exists()


def test_tiles_are_laid_out_for_others(workspace):
    done = call(workspace, *SMALL, "--format", "esri")
    assert done.exit_code == 0, done.output
    assert (workspace / "data" / "tiles_esri" / "esri_model_definition.emd").exists()
    index = (workspace / "data" / "tiles" / "index.json").stat().st_mtime_ns
    done = call(workspace, *SMALL, "--format", "torchgeo")
    assert done.exit_code == 0, done.output
    assert len(list((workspace / "data" / "tiles_torchgeo" / "2.5deg" / "masks").iterdir())) == 18
    assert (workspace / "data" / "tiles" / "index.json").stat().st_mtime_ns == index
    # Windows other than those of the existing set are refused.
    assert call(workspace, "--window", "5deg", "--size", "32", "--format", "torchgeo", "--overwrite").exit_code == 0
    assert call(workspace, *SMALL, "--format", "torchgeo").exit_code == 3
    assert call(workspace, *SMALL, "--format", "esri", "--index-only").exit_code == 2


def test_a_dry_run_estimates_count_disk_and_time(workspace):
    done = call(workspace, "-n")
    assert done.exit_code == 0
    for word in ("43 windows", "GB", "minutes", "left out"):
        assert word in done.output
    assert not (workspace / "data" / "tiles").exists()
    (workspace / "data" / "labels.tif").unlink()
    done = call(workspace, "-n")
    assert done.exit_code == 3
    assert "No geological map" in done.output


def test_nothing_is_replaced_without_overwrite(workspace):
    assert call(workspace, "--index-only").exit_code == 0
    assert call(workspace, "--index-only").exit_code == 3
    assert call(workspace, "--index-only", "--overwrite").exit_code == 0


def test_missing_labels_are_made_from_the_fetched_map(workspace):
    (workspace / "data" / "labels.tif").unlink()
    (workspace / "data" / "labels.legend.toml").unlink()
    none = call(workspace, *SMALL)
    assert none.exit_code == 3
    assert "gravmap fetch" in none.output
    codes = ["Cm", "O", "S", "D", "C", "P", "K", "Pi", "Q", "Pt"]
    shapes = [box(80 + 0.5 * k, 43 + 0.5 * r, 80.5 + 0.5 * k, 43.5 + 0.5 * r) for k in range(16) for r in range(10)]
    frame = geopandas.GeoDataFrame({"Glg": (codes * 16)[: len(shapes)]}, geometry=shapes)
    (workspace / "data" / "raw").mkdir()
    frame.to_file(workspace / "data" / "raw" / "fsu_geol.shp")
    done = call(workspace, *SMALL)
    assert done.exit_code == 0, done.output
    labels = open_labels(workspace / "data" / "labels.tif")
    assert labels.values.shape == (1200, 1920)  # 15 arc-seconds
    assert labels.legend.sources[0]["legend"] == "fsu_geol"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--window", "1"], 2, "no unit"),
        (["--window", "1deg", "--stride", "2deg"], 2, "gaps"),
        (
            ["--window", "1deg", "--window", "2deg", "--window", "3deg", "--stride", "1deg", "--stride", "1deg"],
            2,
            "strides",
        ),
        (["--size", "4"], 2, "16"),
        (["--folds", "2"], 2, "3"),
        (["--split", "mine"], 2, "strict"),
        (["--block", "4deg"], 3, "--block"),
        (["--buffer", "-1deg"], 2, "negative"),
    ],
)
def test_bad_options(workspace, words, status, message):
    assert call(workspace, *words, "-n").exit_code == status
    done = call(workspace, *words)
    assert done.exit_code == status, done.output
    assert message in done.output
    assert not (workspace / "data" / "tiles").exists()


def test_a_missing_earlier_step_is_named(tmp_path):
    done = call(tmp_path)
    assert done.exit_code == 3
    assert "gravmap residual --height 10km" in done.output


def test_a_training_set_that_went_stale_is_refused(workspace):
    assert call(workspace, "--index-only").exit_code == 0
    write_index_raster(
        workspace / "data" / "labels.tif", np.ones((50, 80), dtype=np.uint8), (80, 43, 88, 48), load_legend("bedrock10")
    )
    from gravmap.errors import InputError

    with pytest.raises(InputError, match="gravmap tile"):
        load_arrays(workspace / "data" / "tiles")
