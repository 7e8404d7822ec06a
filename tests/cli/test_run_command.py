"""`gravmap run`: what is missing on the road to a map, in order; what is there is kept."""

import json

import pytest
import xarray as xr
from click.testing import CliRunner

from gravmap.synthetic import make_crust
from gravmap.synthetic.files import write_crust
from gravmap_cli import gravmap
from gravmap_cli.session import Session

RUN = "run-bbox_82.5_43.5_84.5_45"
BOX = ("--bbox", "82.5", "43.5", "84.5", "45")


def call(place, *words):
    return CliRunner().invoke(gravmap, ["-w", str(place), "run", *map(str, words)])


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_crust(make_crust(5, (72, 90), sub=1), tmp_path_factory.mktemp("raw"))


@pytest.fixture
def ran(monkeypatch):
    """Commands that were run, which leave the file that the next step looks for."""
    left = {
        "residual": "data/fields.png",
        "rasterize": "data/labels.tif",
        "tile": "data/tiles/index.json",
        "train": f"runs/{RUN}/scores.json",
        "evaluate": f"runs/{RUN}/evaluation.json",
    }
    commands = []

    def run(self, root, words):
        commands.append(words)
        if words[0] in left:
            (root / left[words[0]]).parent.mkdir(parents=True, exist_ok=True)
            (root / left[words[0]]).touch()

    monkeypatch.setattr(Session, "run", run)
    return commands


def test_from_nothing_every_step_is_named_and_nothing_is_written(tmp_path):
    done = call(tmp_path, "--region", "junggar", "-n", "--json")
    assert done.exit_code == 0, done.output
    steps = json.loads(done.stdout)["steps"]
    assert [step[0] for step in steps] == ["fetch", "residual", "fetch", "rasterize", "predict"]
    assert steps[1] == ["residual", "--height", "10km"]  # the study area of the paper holds the region
    assert steps[4] == ["predict", "--region", "junggar"]
    assert not list(tmp_path.iterdir())
    far = json.loads(call(tmp_path, "--bbox", "10", "40", "15", "44", "-n", "--json").stdout)["steps"]
    assert far[1][-5:] == ["--bbox", "10", "40", "15", "44"]


def test_it_goes_on_where_it_stopped(tmp_path, raw, ran):
    words = (*BOX, "--gravity", raw["gravity"], "--map", raw["map"])
    refused = call(tmp_path, *words)
    assert refused.exit_code == 2
    assert "What the codes of map.gpkg mean is not known" in refused.output
    assert "legend draft" in refused.output
    assert not ran
    done = call(tmp_path, *words, "--legend", "crust", "--train")
    assert done.exit_code == 0, done.output
    assert [each[0] for each in ran] == ["residual", "rasterize", "tile", "train", "evaluate", "predict"]
    assert ran[1] == ["rasterize", str(raw["map"]), "--legend", "crust"]
    assert done.output.index("Step 1 of 6") < done.output.index("Step 6 of 6")
    ran.clear()
    again = call(tmp_path, *words, "--legend", "crust", "--train")
    assert [each[0] for each in ran] == ["residual", "predict"], "labels and a run are there"
    assert ran[1][-2:] == ["--run", RUN]
    assert "with the newest run" in again.output
    # A training that was stopped has no scores: the same run is trained to its end, and only then scored.
    for name in ("scores.json", "evaluation.json"):
        (tmp_path / "runs" / RUN / name).unlink()
    ran.clear()
    call(tmp_path, *words, "--legend", "crust", "--train")
    assert [each[0] for each in ran] == ["residual", "train", "evaluate", "predict"]
    assert ran[1][1:3] == ["--name", RUN]
    page = tmp_path / "maps" / "bbox_82.5_43.5_84.5_45" / "report.html"
    page.parent.mkdir(parents=True)
    page.touch()
    ran.clear()
    call(tmp_path, *words)
    assert [each[0] for each in ran] == ["residual", "predict"]
    assert ran[1][-1] == "--overwrite", "the old map is of other fields"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ((), 2, "Name a region"),
        ((*BOX, "--legend", "crust"), 2, "add --map"),
        ((*BOX, "--gravity", "none.nc"), 3, "none.nc is missing"),
        (("--region", "atlantis"), 2, "atlantis"),
    ],
)
def test_refusals(tmp_path, words, status, message):
    done = call(tmp_path, *words)
    assert done.exit_code == status, done.output
    assert message in done.output


def test_a_grid_elsewhere_is_refused_before_any_step(tmp_path, raw, ran):
    done = call(tmp_path, "--region", "tarim", "--gravity", raw["gravity"])
    assert done.exit_code == 3
    assert "is outside" in done.output
    assert not ran


def test_a_grid_that_the_network_cannot_read_is_resampled_or_refused_before_any_step(tmp_path, raw, ran):
    with xr.open_dataset(raw["gravity"]) as grid:
        grid.isel(lat=slice(None, None, 3), lon=slice(None, None, 3)).to_netcdf(tmp_path / "coarse.nc")
        high = grid.copy()
        for name in high.data_vars:
            high[name].attrs["height_m"] = 10000.0
        high.to_netcdf(tmp_path / "high.nc")
    plan = call(tmp_path, *BOX, "--gravity", tmp_path / "coarse.nc", "--map", raw["map"], "--legend", "crust", "-n")
    assert "residual " + str(tmp_path / "coarse.nc") + " --resolution 2arcmin --height 10km" in plan.output
    assert "resample the gravity as crusts-central-asia reads it" in plan.output
    words = (*BOX, "--map", raw["map"], "--legend", "crust")
    refused = call(tmp_path, *words, "--gravity", tmp_path / "high.nc", "-n")
    assert refused.exit_code == 3
    assert "lies at a height of 10km" in refused.output
    assert "crusts-central-asia reads gravity at 0m" in refused.output
    # And so are fields that were made of it by hand.
    residual = ["-w", str(tmp_path), "residual", str(tmp_path / "high.nc"), "--height", "10km"]
    assert CliRunner().invoke(gravmap, residual).exit_code == 0
    assert "input_height_m: trained on 0.0, found 10000.0" in call(tmp_path, *words).output
    assert not ran


@pytest.mark.slow
def test_from_a_grid_and_a_map_to_the_report(tmp_path, raw):
    words = (*BOX, "--gravity", raw["gravity"], "--map", raw["map"], "--legend", "crust")
    done = call(tmp_path, *words)
    assert done.exit_code == 0, done.output
    page = tmp_path / "maps" / "bbox_82.5_43.5_84.5_45" / "report.html"
    assert page.exists()
    assert str(page) in done.output
    assert "there" in call(tmp_path, *words).output
    refused = call(tmp_path, "--region", "tarim")
    assert refused.exit_code == 3
    assert "fields.nc covers" in refused.output
    other = tmp_path / "other.nc"
    other.write_bytes(raw["gravity"].read_bytes())
    for words in (("--gravity", other), ("--map", tmp_path / "data" / "fields.nc", "--legend", "crust")):
        refused = call(tmp_path, *BOX, *words)
        assert refused.exit_code == 3
        assert "would not be read" in refused.output
