import json
import re
import sys

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

import gravmap_cli
from gravmap.geology.labels import write_index_raster
from gravmap.geology.legend_file import write_legend
from gravmap.gravity import residual_fields, write_fields
from toys.map import LEGEND, gravity, make_project, make_run


def call(tmp_path, *args):
    return CliRunner().invoke(gravmap_cli.gravmap, ["-w", str(tmp_path), "predict", *args])


def test_without_a_region_the_known_ones_are_listed(tmp_path):
    done = call(tmp_path)
    assert done.exit_code == 2
    assert "junggar" in done.output


def test_a_missing_step_is_named(tmp_path):
    done = call(tmp_path, "--region", "junggar")
    assert done.exit_code == 3
    assert "gravmap residual --height 10km" in done.output
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fields.nc").write_bytes(b"not a netCDF")
    done = call(tmp_path, "--region", "junggar")
    assert done.exit_code == 3
    assert "gravmap train" in done.output


@pytest.mark.parametrize("box", [("92", "43", "81", "48"), ("81", "43", "92")])
def test_an_invalid_box_is_refused(tmp_path, box):
    assert call(tmp_path, "--bbox", *box).exit_code == 2


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "data").mkdir()
    fields = make_project(tmp_path / "data")
    (tmp_path / "runs").mkdir()
    (tmp_path / "data" / "run").rename(tmp_path / "runs" / "first")
    make_run(tmp_path / "runs" / "second", fields, seed=3)
    (tmp_path / "runs" / "latest").write_text("first\n")
    (tmp_path / "regions.toml").write_text("here = [81, 44, 84, 46]\n")
    return tmp_path


def test_a_dry_run_estimates_the_cost_of_every_window_size(workspace):
    dry = call(workspace, "--region", "here", "--dry-run", "--json")
    assert dry.exit_code == 0, dry.output
    reported = json.loads(dry.stdout)
    assert reported["cells"] == [21, 31]
    assert {name: scale["chosen"] for name, scale in reported["scales"].items()} == {
        "1deg": False,
        "2.5deg": True,
        "5deg": True,
    }
    assert reported["windows"] == sum(scale["windows"] for scale in reported["scales"].values() if scale["chosen"])
    assert reported["disk_bytes"] > 0
    assert reported["network_bytes"] > 1e6
    assert not (workspace / "maps").exists()
    words = call(workspace, "--region", "here", "--dry-run").stdout
    assert re.search(r"not chosen\s+1deg: \d+ windows of 64 px, about", words)
    assert "MB of memory" in words


def test_a_map_through_the_command_line(workspace):
    done = call(workspace, "--region", "here", "--json")
    assert done.exit_code == 0, done.output
    assert "labels.tif is missing, so every cell is predicted" in done.stderr
    assert "The network is first, the newest run; --run crusts-central-asia takes the one shipped" in done.stderr
    reported = json.loads(done.stdout)
    assert reported["files"]["lithology.tif"] == str(workspace / "maps" / "here" / "lithology.tif")
    assert sum(share["cells"] for share in reported["summary"]["classes"]) == 21 * 31
    record = json.loads((workspace / "maps" / "here" / "provenance.json").read_text())
    assert record["command"].endswith("predict --region here --json")
    assert call(workspace, "--region", "here").exit_code == 3
    assert reported["verdict"] == record["verdict"]
    again = call(workspace, "--region", "here", "--overwrite")
    assert again.exit_code == 0
    sentence = record["verdict"]["sentence"]
    assert again.output.rstrip().endswith(f"Read {workspace / 'maps' / 'here' / 'report.html'} first.")
    assert sentence in again.output
    assert call(workspace, "--bbox", "60", "44", "84", "46").exit_code == 3
    # Fields of another level: refused, in two lines.
    fields = residual_fields(gravity().assign_attrs(height_m=5e3), [10_000.0])
    write_fields(fields, workspace / "data" / "fields.nc")
    refused = call(workspace, "--region", "here", "--overwrite")
    assert refused.exit_code == 3
    assert "another recipe" in refused.output
    assert len([line for line in refused.output.strip().splitlines() if "newest run" not in line]) <= 3


def test_unmapped_ground_is_told_and_mostly_unmapped_regions_are_refused(workspace):
    values = np.zeros((40, 60), np.uint8)  # 80-86E 43-47N
    values[:, 36:] = 255  # nodes from 83.6 to 84
    write_index_raster(workspace / "data" / "labels.tif", values, (80, 43, 86, 47), LEGEND)
    write_legend(LEGEND, workspace / "data" / "labels.legend.toml")
    some = call(workspace, "--region", "here", "--dry-run")
    assert some.exit_code == 0, some.output
    assert "16.1 % of the region is unmapped" in some.output
    assert "left blank; --fill-unmapped" in some.output
    filled = call(workspace, "--region", "here", "--fill-unmapped", "--dry-run", "--json")
    assert "predicted all the same" in filled.stderr
    assert json.loads(filled.stdout)["unmapped"] == pytest.approx(5 / 31)
    for dry in ([], ["--dry-run"]):
        refused = call(workspace, "--bbox", "83", "44", "85", "46", *dry)
        assert refused.exit_code == 3
        assert "71.4 % of the region is unmapped" in refused.output
        assert "--fill-unmapped" in refused.output
        assert not (workspace / "maps").exists()


@pytest.mark.slow
def test_options_reach_the_map(workspace):
    import geopandas
    from shapely import Point

    path = workspace / "basin.gpkg"
    geopandas.GeoDataFrame(geometry=[Point(82.5, 45).buffer(0.9)], crs="EPSG:4326").to_file(path)
    options = ["--run", "first", "--run", "second", "--flips", "--window", "2.5deg", "--resolution", "3arcmin"]
    options += ["--near", "10km", "--crs", "EPSG:32645", "-o", str(workspace / "elsewhere"), "--batch-size", "2"]
    done = call(workspace, "--polygon", str(path), *options)
    assert done.exit_code == 0, done.output
    assert "basin" in done.output
    with rasterio.open(workspace / "elsewhere" / "uncertainty.tif") as raster:
        assert raster.crs.to_epsg() == 32645
        assert "ensemble spread" in raster.descriptions
        assert raster.tags()["GRAVMAP_UPSAMPLING"] == "2"
        assert raster.tags()["GRAVMAP_SCALES"] == "2.5deg"
        assert 0.5 < (raster.read(1) != 255).mean() < 0.9  # about a disc in its square
    settings = json.loads((workspace / "elsewhere" / "provenance.json").read_text())["settings"]
    assert settings["near_km"] == 10
    assert settings["flips"] is True
    assert len(settings["runs"]) == 2


@pytest.mark.parametrize(
    ("words", "status", "reported"),
    [
        (["--region", "here", "--polygon", "x.gpkg"], 2, "excludes"),
        (["--polygon", "x.gpkg"], 3, "is missing"),
        (["--region", "here", "--near", "25"], 2, "unit"),
        (["--region", "here", "--gpus", "99"], 5, "gpus"),
        (["--region", "here", "--gpus", "2", "--device", "cpu"], 2, "exclude"),
        (["--region", "here", "--run", "third"], 3, "No trained network"),
        (["--region", "here", "-o", "/proc/nowhere/map"], 1, "/proc has 0.0 MB free"),
        (["--region", "here", "-o", "/dev/null/map"], 3, "is a file"),
    ],
)
def test_invalid_options_are_refused(workspace, words, status, reported):
    done = call(workspace, *words)
    assert done.exit_code == status, done.output
    assert reported in done.output
    assert "bug in gravmap" not in done.output


def test_explore_writes_the_page_with_the_map(workspace):
    pytest.importorskip("bokeh")
    done = call(workspace, "--region", "here", "--window", "5deg", "--explore", "--json")
    assert done.exit_code == 0, done.output
    files = json.loads(done.stdout)["files"]
    assert files["explore.html"] == str(workspace / "maps" / "here" / "explore.html")
    record = json.loads((workspace / "maps" / "here" / "provenance.json").read_text())
    assert {"explore.html", "map.qgz", "gravity.tif"} <= set(record["outputs"])
    again = CliRunner().invoke(gravmap_cli.gravmap, ["explore", str(workspace / "maps" / "here")])
    assert "shows this map already" in again.output


@pytest.mark.parametrize("more", [(), ("-n",)])
def test_explore_without_bokeh_is_refused_before_any_window(workspace, monkeypatch, more):
    monkeypatch.setitem(sys.modules, "bokeh", None)
    done = call(workspace, "--region", "here", "--explore", *more)
    assert done.exit_code == 1
    assert 'pip install "gravmap[explore]"' in done.output
    assert not (workspace / "maps").exists()
