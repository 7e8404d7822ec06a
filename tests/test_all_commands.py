"""From a crust to the map of it, through the command line alone; what each command wrote is opened by others."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from click.testing import CliRunner

import gravmap_cli
from gravmap.synthetic import make_crust
from gravmap.synthetic.files import write_crust

pytestmark = pytest.mark.slow  # the tests of each command are quick

SHAPE = (72, 96)  # 2.4 x 3.2 degrees


def call(workspace, *words):
    return CliRunner().invoke(gravmap_cli.gravmap, ["-w", str(workspace), *words])


def must(workspace, *words):
    done = call(workspace, *words)
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace in which every command has run once, and the crust it ran on."""
    root = tmp_path_factory.mktemp("workspace")
    crust = make_crust(3, SHAPE, (84.0, 44.0), sub=1, margin=12)
    files = write_crust(crust, root / "data" / "raw")
    west, south, east, north = crust.bounds_wsen
    (root / "regions.toml").write_text(f"here = [{west}, {south}, {east}, {north}]\n")
    must(root, "residual", str(files["gravity"]), "--height", "10km")
    must(root, "rasterize", str(files["map"]), "--legend", "crust", "--resolution", "30arcsec")
    must(
        root, "tile", "--window", "1deg", "--window", "2deg", "--size", "64", "--block", "0.8deg", "--buffer", "0.05deg"
    )
    train = ["train", "--gpus", "0", "--model", "ggmnet-tiny", "--name", "short", "--epochs", "2"]
    must(root, *train, "--steps-per-epoch", "3", "--batch-size", "2")
    must(root, "predict", "--region", "here")
    return root, crust


def test_the_fields_add_up(workspace):
    root, crust = workspace
    with xr.open_dataset(root / "data" / "fields.nc") as fields:
        assert fields["bouguer"].dims == ("lat", "lon")
        assert np.allclose(fields["bouguer"], crust.gravity, atol=1e-4)
        assert np.allclose(fields["regional_10km"] + fields["residual_10km"], fields["bouguer"], atol=1e-3)
        assert {fields[name].attrs["units"] for name in ("bouguer", "regional_10km", "residual_10km")} == {"mGal"}
        # Upward continuation smooths: the residual holds the short wavelengths, so it averages out.
        assert float(fields["residual_10km"].std()) < float(fields["bouguer"].std())


def test_the_labels_are_the_crusts_own_surface(workspace):
    root, crust = workspace
    with rasterio.open(root / "data" / "labels.tif") as raster:
        assert raster.crs.to_epsg() == 4326
        assert raster.nodata == 255
        assert raster.dtypes == ("uint8",)
        values = raster.read(1)
        assert np.allclose(raster.bounds, crust.bounds_wsen)
    factor = values.shape[0] // SHAPE[0]
    assert (values[factor // 2 :: factor, factor // 2 :: factor] == crust.surface[::-1]).all()
    assert (root / "data" / "labels.legend.toml").exists()


def test_rio_reads_the_tags_of_the_labels(workspace):
    root, _ = workspace
    rio = Path(sys.executable).with_name("rio")
    done = subprocess.run(
        [rio, "info", str(root / "data" / "labels.tif"), "--tags"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["GRAVMAP_LEGEND"] == "crust"


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="GDAL's own tools are not installed")
@pytest.mark.parametrize("file", ["data/labels.tif", "maps/here/lithology.tif"])
def test_gdalinfo_reads_names_and_colours(workspace, file):
    root, _ = workspace
    done = subprocess.run(["gdalinfo", "-json", str(root / file)], capture_output=True, text=True, check=True)
    band = json.loads(done.stdout)["bands"][0]
    assert band["noDataValue"] == 255
    assert band["colorInterpretation"] == "Palette"
    plain = subprocess.run(["gdalinfo", str(root / file)], capture_output=True, text=True, check=True).stdout
    assert "6: Devonian" in plain
    assert "6: 203,140,55,255" in plain  # CB8C37


def test_the_tiles_are_where_the_index_has_them(workspace):
    import geopandas

    root, _ = workspace
    index = geopandas.read_parquet(root / "data" / "tiles" / "index.parquet")
    header = json.loads((root / "data" / "tiles" / "index.json").read_text())
    assert header["size_px"] == 64
    assert header["windows"] == len(index)
    assert set(index["scale_deg"]) == {1.0, 2.0}
    files = sorted((root / "data" / "tiles").rglob("*_field.tif"))
    assert len(files) == len(index)
    with rasterio.open(files[0]) as raster:
        assert raster.shape == (64, 64)
        assert raster.crs.to_epsg() == 4326


def test_the_run_rebuilds_the_network_alone(workspace):
    from gravmap.learning.training.checkpoint import load_model

    root, _ = workspace
    assert (root / "runs" / "latest").read_text().strip() == "short"
    network, spec = load_model(root / "runs" / "short")
    assert spec.channels == ["residual_10km"]
    assert sum(parameter.numel() for parameter in network.parameters()) > 1e4
    for file in (
        "metrics.csv",
        "curves.png",
        "scores.json",
        "calibration.json",
        "reliability.png",
        "reach.safetensors",
    ):
        assert (root / "runs" / "short" / file).stat().st_size > 0


def test_the_map_lies_on_the_nodes_of_the_gravity(workspace):
    root, crust = workspace
    folder = root / "maps" / "here"
    with rasterio.open(folder / "lithology.tif") as classes, rasterio.open(folder / "probability.tif") as shares:
        values = classes.read(1)
        assert values.shape == SHAPE == shares.shape
        assert np.allclose(classes.bounds, crust.bounds_wsen)
        assert classes.transform.almost_equals(shares.transform, 1e-9)
        assert shares.count == 10
        assert classes.colormap(1)[6][:3] == (0xCB, 0x8C, 0x37)
    # The mapped outcrop is shown as mapped; under cover every cell is one of the ten classes.
    surface = crust.surface[::-1]
    assert (values[surface > 0] == surface[surface > 0]).all()
    assert ((values >= 1) & (values <= 10)).all()
    sources = json.loads((folder / "provenance.json").read_text())
    assert {"fields", "labels", "model"} <= set(sources["inputs"])


@pytest.mark.parametrize(
    "words", [["rasterize", "x.gpkg", "--legend", "crust"], ["tile"], ["predict", "--region", "here"]]
)
def test_finished_steps_are_repeated_only_with_overwrite(workspace, words):
    root, _ = workspace
    if words[0] == "rasterize":
        words = ["rasterize", str(root / "data" / "raw" / "map.gpkg"), "--legend", "crust"]
    done = call(root, *words)
    assert done.exit_code == 3
    assert "--overwrite" in done.output


@pytest.mark.parametrize(
    ("words", "maker"),
    [
        (["residual", "--height", "10km"], "gravmap fetch"),
        (["rasterize"], "gravmap fetch"),
        (["tile"], "gravmap residual"),
        (["train", "--gpus", "0"], "gravmap tile"),
        (["predict", "--region", "junggar"], "gravmap residual"),
    ],
)
def test_every_missing_step_names_the_command_that_makes_it(tmp_path, words, maker):
    done = call(tmp_path, *words)
    assert done.exit_code == 3, done.output
    assert maker in done.output
    assert len(done.output.strip().splitlines()) <= 2
    assert "Traceback" not in done.output
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
