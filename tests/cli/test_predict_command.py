import json

import pytest
import torch
from click.testing import CliRunner

import gravmap_cli
from gravmap.gravity import residual_fields, write_fields
from gravmap.learning.checkpoint import save_model
from gravmap.network import build
from toy_map import gravity, spec_for


def call(tmp_path, *args):
    return CliRunner().invoke(gravmap_cli.gravmap, ["-w", str(tmp_path), "predict", *args])


def test_without_a_region_it_says_which_there_are(tmp_path):
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
def test_a_box_that_is_no_box(tmp_path, box):
    assert call(tmp_path, "--bbox", *box).exit_code == 2


def test_dry_run_and_map_through_the_command_line(tmp_path):
    fields = residual_fields(gravity(), [10_000.0])
    write_fields(fields, tmp_path / "data" / "fields.nc")
    torch.manual_seed(0)
    network = build("unet", in_channels=1, classes=10)
    save_model(tmp_path / "runs" / "first", network, spec_for(fields, network))
    (tmp_path / "runs" / "latest").write_text("first\n")
    (tmp_path / "regions.toml").write_text("here = [81, 44, 84, 46]\n")

    dry = call(tmp_path, "--region", "here", "--dry-run", "--json")
    assert dry.exit_code == 0, dry.output
    assert json.loads(dry.stdout)["cells"] == [21, 31]
    assert not (tmp_path / "maps").exists()

    done = call(tmp_path, "--region", "here", "--json")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "maps" / "here" / "lithology.tif").exists()
    record = json.loads((tmp_path / "maps" / "here" / "provenance.json").read_text())
    assert record["command"].endswith("predict --region here --json")
    assert call(tmp_path, "--region", "here").exit_code == 3
    assert call(tmp_path, "--region", "here", "--overwrite").exit_code == 0
    assert call(tmp_path, "--bbox", "60", "44", "84", "46").exit_code == 3
    # Fields of another level: refused, in two lines.
    write_fields(residual_fields(gravity().assign_attrs(height_m=5e3), [10_000.0]), tmp_path / "data" / "fields.nc")
    refused = call(tmp_path, "--region", "here", "--overwrite")
    assert refused.exit_code == 3
    assert "another recipe" in refused.output
