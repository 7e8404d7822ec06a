"""The attribution of a map: the raster sums to the recorded difference, and the logit is that of the map."""

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
from gravmap.geology.labels import write_index_raster
from gravmap.geology.legend_file import write_legend
from gravmap.mapping.explain import explain
from gravmap.mapping.inference import InferenceTask, run_inference
from gravmap.mapping.predictor import Predictor
from gravmap.regions import Region
from toys.map import LEGEND, make_project

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
    record = made.record
    with Predictor(project / "fields.nc", project / "run", "cpu") as predictor:
        plan = predictor.plan(REGION, (1.0, 2.5))
        task = InferenceTask(
            project / "fields.nc", (project / "run",), plan.jobs, plan.grid.lat_deg, plan.grid.lon_deg, project
        )
        run_inference(task, predictor, lambda name, sums: None)
        names = [entry["name"] for entry in predictor.members[0].spec.classes]
        logits = blended(plan, project)
    mapped = np.bincount(logits.argmax(0).ravel(), minlength=len(names))
    assert record["class"] == names[mapped.argmax()]
    index = names.index(record["class"])
    assert record["logit"] == pytest.approx(float((logits[index] - logits.mean(0)).mean()), abs=1e-4)
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
    assert values.sum() == pytest.approx(record["sum"], abs=1e-4)
    assert record["sum"] + record["gap"] == pytest.approx(record["logit"] - record["baseline_logit"], abs=1e-6)
    assert made.complete
    assert (values != 0).any()
    assert values.size < 0.6 * 61 * 71, "only nodes under the windows"
    assert imread(made.files["attribution.png"])[..., :3].std() > 0.05
    for name, digest in record["outputs"].items():
        assert sha256(made.files[name]) == digest
    assert record["inputs"]["model"]["sha256"] == sha256(project / "run" / "model.safetensors")
    assert json.loads(made.files["attribution.json"].read_text()) == record


def blended(plan, folder):
    """Mean logits (K, ny, nx) of a plan's jobs, from the files of the jobs."""
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


def test_invalid_requests_are_refused(project, monkeypatch):
    monkeypatch.setattr(
        f"{explain.__module__}._draw", lambda path, *_: path.write_bytes(b"a picture, tested elsewhere")
    )
    with pytest.raises(OptionError, match="Jurassic"):
        explained(project, class_name="Jurassic")
    assert not (project / "why").exists()
    first = explained(project, class_name="Devonian", steps=1).record
    with pytest.raises(InputError, match="exists already"):
        explained(project)
    values = np.zeros((40, 40), np.uint8)  # 82-83E 44-45N
    values[:, 18:] = 255  # six of eleven nodes
    write_index_raster(project / "labels.tif", values, (82, 44, 83, 45), LEGEND)
    write_legend(LEGEND, project / "labels.legend.toml")
    options = {"steps": 1, "overwrite": True, "labels_path": project / "labels.tif"}
    again = explained(project, class_name="permian", **options)
    assert "55 % of the region's cells are unmapped, and not counted." in again.lines()
    again = again.record
    assert again["unmapped"] == pytest.approx(6 / 11)
    assert first["unmapped"] == 0
    assert again["inputs"]["labels"]["sha256"] == sha256(project / "labels.tif")
    assert again["class"] == "Permian"
    assert again["logit"] != first["logit"]
    shutil.copytree(project / "run", project / "second")
    with (
        Predictor(project / "fields.nc", [project / "run", project / "second"], "cpu") as several,
        pytest.raises(OptionError, match="Several"),
    ):
        explain(several, several.plan(REGION, (1.0,)), project / "both")


def test_the_command_and_its_dry_run(project):
    (project / "data").mkdir()
    (project / "fields.nc").rename(project / "data" / "fields.nc")
    (project / "runs").mkdir()
    (project / "run").rename(project / "runs" / "one")
    (project / "runs" / "latest").write_text("one\n")
    words = ["-w", str(project), "explain", "--bbox", "82", "44", "83", "44.5", "--window", "1deg"]
    words += ["--integration-steps", "2"]
    dry_run = CliRunner().invoke(gravmap_cli.gravmap, [*words, "-n"])
    assert dry_run.exit_code == 0, dry_run.output
    assert "passes of 64 px" in dry_run.output
    unknown = CliRunner().invoke(gravmap_cli.gravmap, [*words, "--class", "permain", "-n"])
    assert unknown.exit_code == 2
    assert "no class 'permain'. Did you mean Permian?" in unknown.output
    assert not (project / "maps").exists()
    done = CliRunner().invoke(gravmap_cli.gravmap, [*words, "--json"])
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    folder = project / "maps" / "bbox_82_44_83_44.5"
    assert {path.name for path in folder.iterdir()} == {"attribution.tif", "attribution.png", "attribution.json"}
    assert record["command"].startswith("gravmap")
    again = CliRunner().invoke(gravmap_cli.gravmap, words)
    assert again.exit_code == 3
    assert "--overwrite" in again.output
    nowhere = CliRunner().invoke(gravmap_cli.gravmap, ["-w", str(project), "explain"])
    assert nowhere.exit_code == 2
    assert "--region" in nowhere.output
