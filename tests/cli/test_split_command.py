import json
import subprocess
import sys

import geopandas
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from matplotlib.image import imread

from gravmap.geology import load_legend
from gravmap.geology.labels import write_index_raster
from gravmap.geology.legend_file import write_legend
from gravmap.gravity import write_fields
from gravmap.tiling import load_arrays
from gravmap_cli import gravmap


def call(workspace, *words):
    return CliRunner().invoke(gravmap, ["-w", str(workspace), *map(str, words)])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("split")
    lat, lon = np.linspace(43, 48, 51), np.linspace(80, 88, 81)
    values = np.random.default_rng(0).normal(0, 20, (51, 81)).astype(np.float32)
    field = xr.DataArray(values, dims=("lat", "lon"), coords={"lat": lat, "lon": lon}, attrs={"units": "mGal"})
    attrs = {"gravmap_recipe": json.dumps({"quantity": "bouguer"}), "gravmap_sources": "[]"}
    write_fields(xr.Dataset({"bouguer": field, "residual_10km": field}, attrs=attrs), root / "data" / "fields.nc")
    classes = np.random.default_rng(1).integers(0, 4, (10, 16)).repeat(5, 0).repeat(5, 1).astype(np.uint8)
    write_index_raster(root / "data" / "labels.tif", classes, (80, 43, 88, 48), load_legend("bedrock10"))
    write_legend(load_legend("bedrock10"), root / "data" / "labels.legend.toml")
    assert call(root, "tile", "--index-only").exit_code == 0
    return root


def test_the_report_measures_prints_and_draws(workspace, tmp_path):
    done = call(workspace, "split", "--report", "-o", tmp_path, "--json")
    assert done.exit_code == 0, done.output
    reported = json.loads(done.stdout)["splits"]
    assert {name: round(each["leak"], 2) for name, each in reported.items() if name != "random"} == {
        "blocks": 0,
        "strict": 0,
    }
    assert reported["random"]["leak"] > 0.5
    assert "labels of 0 % of the held-out bedrock" in done.stderr
    assert "Proterozoic" in done.stderr
    for name in reported:
        picture = imread(tmp_path / f"leak_{name}.png")
        assert picture.shape[1] > 1000
        colours = (255 * picture[..., :3]).round().astype(int) @ (65536, 256, 1)
        assert len(np.unique(colours)) > 5


def test_a_split_is_added_beside_the_others(workspace):
    before = geopandas.read_parquet(workspace / "data" / "tiles" / "index.parquet")
    words = ["split", "--add", "blocks", "--block", "1deg", "--folds", "4", "--seed", "7", "--name", "blocks-1deg"]
    done = call(workspace, *words)
    assert done.exit_code == 0, done.output
    assert "Split blocks-1deg: 4 folds of blocks of 1deg x 1deg" in done.output
    after = geopandas.read_parquet(workspace / "data" / "tiles" / "index.parquet")
    assert set(after) - set(before) == {"blocks-1deg_fold"}
    assert after.crs == before.crs
    assert after.geometry.equals(before.geometry)
    arrays = load_arrays(workspace / "data" / "tiles", split="blocks-1deg", fold=3)
    assert arrays["meta"]["split"]["block_deg"] == [1, 1]
    assert len(call(workspace, "split").output.splitlines()) == 4
    again = call(workspace, *words)
    assert again.exit_code == 3
    assert "--overwrite" in again.output
    assert call(workspace, *words, "--overwrite").exit_code == 0
    assert len(call(workspace, "split").output.splitlines()) == 4


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--split", "mine", "--report"], 3, "no split 'mine'"),
        (["--split", "mine"], 3, "--add blocks --name mine"),
        (["--split", "blocs"], 3, "Did you mean blocks?"),
        (["--add", "mine"], 2, "strict"),
        (["--name", "mine"], 2, "--add"),
        (["--add", "blocks", "--name", "../mine"], 2, "valid name of a split"),
        (["--add", "strict", "--name", "wide", "--block", "4deg"], 3, "--block"),
        (["--add", "blocks", "--name", "wide", "--buffer", "3deg"], 3, "to train on"),
    ],
)
def test_impossible_splits_are_refused(workspace, words, status, message):
    index = (workspace / "data" / "tiles" / "index.json").read_bytes()
    done = call(workspace, "split", *words)
    assert done.exit_code == status, done.output
    assert message in done.output
    assert (workspace / "data" / "tiles" / "index.json").read_bytes() == index


def test_without_tiles_the_step_before_is_named(tmp_path):
    done = call(tmp_path, "split")
    assert done.exit_code == 3
    assert "gravmap tile" in done.output


def test_the_report_never_loads_torch(workspace, tmp_path):
    code = (
        "import sys, gravmap_cli\ntry:\n"
        f"    gravmap_cli.gravmap(['-w', {str(workspace)!r}, 'split', '--report', '--split', 'blocks', "
        f"'-o', {str(tmp_path)!r}, '-q'])\n"
        "except SystemExit as end:\n    assert not end.code\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tiles_of_other_fields_are_noticed(workspace):
    fields = workspace / "data" / "fields.nc"
    whole = fields.read_bytes()
    with xr.open_dataset(fields) as opened:
        other = opened.load()
    other["bouguer"] = other["bouguer"] + np.float32(1)
    fields.unlink()
    other.to_netcdf(fields)
    try:
        done = call(workspace, "split")
    finally:
        fields.write_bytes(whole)
    assert done.exit_code == 3
    assert "fields.nc has changed since the tile set" in done.output
    assert "gravmap tile --overwrite" in done.output
