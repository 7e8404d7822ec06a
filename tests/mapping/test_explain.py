"""An explanation of a map: its raster sums to what its record says, and its logit is the map's own."""

import json
import shutil

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from matplotlib.image import imread

import gravmap_cli
from gravmap.errors import InputError, OptionError
from gravmap.files import sha256
from gravmap.mapping import Predictor
from gravmap.mapping.explain import explain
from gravmap.mapping.inference import InferenceTask, run_inference
from gravmap.regions import Region
from toys.map import make_project

REGION = Region(82, 44, 83, 44.5)


@pytest.fixture
def project(tmp_path):
    make_project(tmp_path)
    return tmp_path


def explained(project, folder="why", scales=(1.0,), steps=4, **more):
    with Predictor(project / "fields.nc", project / "run", "cpu") as predictor:
        return explain(predictor, predictor.plan(REGION, scales), project / folder, steps=steps, **more)


def test_the_logit_is_that_of_the_map_and_the_raster_sums_to_it(project):
    made = explained(project, scales=(1.0, 2.5))
    told = made.record
    with Predictor(project / "fields.nc", project / "run", "cpu") as predictor:
        plan = predictor.plan(REGION, (1.0, 2.5))
        task = InferenceTask(
            project / "fields.nc", (project / "run",), plan.jobs, plan.grid.lat_deg, plan.grid.lon_deg, project
        )
        run_inference(task, predictor, lambda name, sums: None)
        names = [entry["name"] for entry in predictor.members[0].spec.classes]
        logits = blended(plan, project)
    mapped = np.bincount(logits.argmax(0).ravel(), minlength=len(names))
    assert told["class"] == names[mapped.argmax()]
    index = names.index(told["class"])
    assert told["logit"] == pytest.approx(float((logits[index] - logits.mean(0)).mean()), abs=1e-4)
    with rasterio.open(made.files["attribution.tif"]) as raster:
        values = raster.read()
        assert raster.descriptions == ("residual_10km",)
        assert raster.crs.to_epsg() == 4326
        # Its cells are centred on the nodes of the fields, north up.
        column, row = ~raster.transform * (82.0, 44.0)
        assert (column % 1, row % 1) == pytest.approx((0.5, 0.5), abs=1e-6)
        west, south, east, north = raster.bounds
        assert west < 82
        assert south < 44
        assert east > 83
        assert north > 44.5
    assert np.isfinite(values).all()
    assert values.sum() == pytest.approx(told["sum"], abs=1e-4)
    assert told["sum"] + told["gap"] == pytest.approx(told["logit"] - told["baseline_logit"], abs=1e-6)
    assert made.complete
    assert (values != 0).any()
    assert values.size < 0.6 * 61 * 71, "only the ground that windows reach"
    assert imread(made.files["attribution.png"])[..., :3].std() > 0.05
    for name, digest in told["outputs"].items():
        assert sha256(made.files[name]) == digest
    assert told["inputs"]["model"]["sha256"] == sha256(project / "run" / "model.safetensors")
    assert json.loads(made.files["attribution.json"].read_text()) == told


def blended(plan, folder):
    """Mean logits (K, ny, nx) of a plan's jobs, straight from the files that prediction leaves."""
    from gravmap.learning.evaluation.mosaic import window_cells, window_weight

    grid, scales = plan.grid, {}
    for each in plan.jobs:
        rows, columns = window_cells(each.bounds_wsen, grid.lat_deg, grid.lon_deg)
        weight = window_weight(each.bounds_wsen, grid.lat_deg[rows], grid.lon_deg[columns])
        logits = np.load(folder / each.logits_file)
        total, weights = scales.setdefault(each.scale_deg, (np.zeros((len(logits), *grid.shape)), np.zeros(grid.shape)))
        total[:, rows, columns] += logits * weight
        weights[rows, columns] += weight
    return sum(total / weights for total, weights in scales.values()) / len(scales)


def test_what_cannot_be_explained_is_refused(project, monkeypatch):
    monkeypatch.setattr(
        f"{explain.__module__}._draw", lambda path, *_: path.write_bytes(b"a picture, which other tests look at")
    )
    with pytest.raises(OptionError, match="no class 'Jurassic'"):
        explained(project, class_name="Jurassic")
    assert not (project / "why").exists()
    first = explained(project, class_name="Devonian", steps=1).record
    with pytest.raises(InputError, match="exists already"):
        explained(project)
    again = explained(project, class_name="Permian", steps=1, overwrite=True).record
    assert again["class"] == "Permian"
    assert again["logit"] != first["logit"]
    shutil.copytree(project / "run", project / "second")
    with (
        Predictor(project / "fields.nc", [project / "run", project / "second"], "cpu") as several,
        pytest.raises(OptionError, match="Several"),
    ):
        explain(several, several.plan(REGION, (1.0,)), project / "both")


def test_the_command_tells_what_it_would_do_and_does_it(project):
    (project / "data").mkdir()
    (project / "fields.nc").rename(project / "data" / "fields.nc")
    (project / "runs").mkdir()
    (project / "run").rename(project / "runs" / "one")
    (project / "runs" / "latest").write_text("one\n")
    words = ["-w", str(project), "explain", "--bbox", "82", "44", "83", "44.5", "--window", "1deg"]
    words += ["--integration-steps", "2"]
    foretold = CliRunner().invoke(gravmap_cli.gravmap, [*words, "-n"])
    assert foretold.exit_code == 0, foretold.output
    assert "passes of 64 px" in foretold.output
    assert not (project / "maps").exists()
    done = CliRunner().invoke(gravmap_cli.gravmap, [*words, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    folder = project / "maps" / "bbox_82_44_83_44.5"
    assert {path.name for path in folder.iterdir()} == {"attribution.tif", "attribution.png", "attribution.json"}
    assert told["command"].startswith("gravmap")
    again = CliRunner().invoke(gravmap_cli.gravmap, words)
    assert again.exit_code == 3
    assert "--overwrite" in again.output
    nowhere = CliRunner().invoke(gravmap_cli.gravmap, ["-w", str(project), "explain"])
    assert nowhere.exit_code == 2
    assert "--region" in nowhere.output
