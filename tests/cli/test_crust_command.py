"""`gravmap crust`, as a user meets it."""

import json
from importlib import resources

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from PIL import Image

import gravmap_cli
from gravmap.gravity import open_grid
from gravmap.synthetic import draw_crust, load_prior

SMALL = ("--shape", "24", "32")


def run(tmp_path, *words):
    return CliRunner().invoke(gravmap_cli.gravmap, ["-w", str(tmp_path), "crust", *words])


def test_a_crust_is_written_and_is_that_of_training(tmp_path):
    found = run(tmp_path, *SMALL, "--seed", "3")
    assert found.exit_code == 0, found.output
    folder = tmp_path / "crusts" / "central-asia-3"
    assert {path.name for path in folder.iterdir()} == {
        "gravity.nc",
        "map.gpkg",
        "truth.tif",
        "truth.tif.aux.xml",
        "crust.json",
        "prior.toml",
        "crust.png",
    }
    crust = draw_crust(load_prior(), 3, (24, 32))
    np.testing.assert_array_equal(open_grid(folder / "gravity.nc").values, crust.gravity.values)
    with rasterio.open(folder / "truth.tif") as raster:
        np.testing.assert_array_equal(raster.read(1), crust.truth[::-1])
    made = json.loads((folder / "crust.json").read_text())
    assert made["prior"] == {"name": "central-asia", "sha256": load_prior().sha256}
    with Image.open(folder / "crust.png") as image:
        image.verify()
    assert "24 x 32 cells of 2 arc-minutes" in found.output
    assert f"Cover hides {100 * (crust.surface == 0).mean():.0f} %" in found.output
    assert "Acid intrusive" in found.output
    # Existing files are not overwritten without --overwrite.
    again = run(tmp_path, *SMALL, "--seed", "3")
    assert again.exit_code == 3
    assert "exists already" in again.output


@pytest.mark.slow
def test_the_prior_beside_a_crust_can_be_edited_and_drawn_from(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "prior.toml").write_text("old")
    (tmp_path / "one" / "notes.txt").write_text("mine")
    wide = ("--prior", "wide", "-o", str(tmp_path / "one"))
    assert run(tmp_path, *SMALL, *wide).exit_code == 3
    assert run(tmp_path, *SMALL, *wide, "--overwrite").exit_code == 0
    assert (tmp_path / "one" / "notes.txt").read_text() == "mine"
    text = (tmp_path / "one" / "prior.toml").read_text(encoding="utf-8")
    assert text == resources.files("gravmap.synthetic").joinpath("priors", "wide.toml").read_text(encoding="utf-8")
    mine = tmp_path / "mine.toml"
    mine.write_text(text.replace('name = "wide"', 'name = "flat"').replace("share = [0.15, 0.85]", "share = 0.9"))
    found = run(tmp_path, *SMALL, "--prior", str(mine), "--json")
    assert found.exit_code == 0, found.output
    printed = json.loads(found.stdout)
    assert printed["facts"]["cover_percent"] == pytest.approx(90, abs=0.2)
    assert printed["files"]["picture"].endswith("flat-0/crust.png")


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (("--prior", "central-asai"), 2, "Did you mean 'central-asia'"),
        (("--prior", "none.toml"), 3, "none.toml"),
        (("--shape", "8", "400"), 2, "16"),
        (("--seed", "-1"), 2, "-1"),
        (("--shape", "3000", "16"), 2, "98.9844 degrees"),
    ],
)
def test_invalid_options_are_refused(tmp_path, words, status, expected):
    found = run(tmp_path, *words)
    assert found.exit_code == status, found.output
    assert expected in found.output
    assert "Traceback" not in found.output
    assert not (tmp_path / "crusts").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "taken").write_text("mine")
    found = run(tmp_path, *SMALL, "-o", str(tmp_path / "taken"))
    assert found.exit_code == 3
    assert "is a file" in found.output
    assert (tmp_path / "taken").read_text() == "mine"
