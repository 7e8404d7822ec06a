"""A network that reads outcrop context: report, record, attribution and refusals."""

import json
import shutil

import pytest
import rasterio
from click.testing import CliRunner

import gravmap_cli
from gravmap.mapping.explain import explain
from gravmap.mapping.predictor import Predictor
from gravmap.regions import Region
from toys.outcrop import make_outcrop_project


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return make_outcrop_project(tmp_path_factory.mktemp("outcrop"))


@pytest.fixture
def project(shared, tmp_path):
    shutil.copytree(shared, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_the_attribution_is_the_contribution_of_gravity(project):
    """It is zero for a network that ignores gravity, and sums to the difference of the logits for the other."""
    made = {}
    for name in ("null", "trained"):
        with Predictor(project / "fields.nc", project / name, "cpu") as predictor:
            plan = predictor.plan(Region(82, 44, 83, 44.5), (5.0,))
            made[name] = explain(predictor, plan, project / name, labels_path=project / "labels.tif", steps=8)
    ignoring, record = made["null"].record, made["trained"].record
    assert ignoring["logit"] == pytest.approx(ignoring["baseline_logit"], abs=1e-6)
    assert ignoring["sum"] == 0
    assert abs(record["logit"] - record["baseline_logit"]) > 0.01
    assert made["trained"].complete
    assert list(record["fields"]) == ["residual_10km"]
    assert record["inputs"]["labels"]["path"].endswith("labels.tif")
    with rasterio.open(project / "trained" / "attribution.tif") as raster:
        assert raster.count == 1
        assert raster.read(1).sum() == pytest.approx(record["sum"], abs=1e-4)


def test_the_finished_map_records_the_outcrop_context_and_verifies(project, monkeypatch):
    (project / "data").mkdir()
    (project / "runs").mkdir()
    for name in ("fields.nc", "labels.tif", "labels.legend.toml"):
        shutil.move(project / name, project / "data" / name)
    shutil.move(project / "trained", project / "runs" / "trained")
    monkeypatch.chdir(project)
    command_line = ["predict", "--bbox", "81", "44", "82", "45", "--run", "trained", "--window", "2.5deg", "-o", "map"]
    dry = CliRunner().invoke(gravmap_cli.gravmap, [*command_line, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    made = CliRunner().invoke(gravmap_cli.gravmap, command_line)
    assert made.exit_code == 0, made.output
    record = json.loads((project / "map" / "provenance.json").read_text())
    assert record["settings"]["starts_from_outcrop"] == [True]
    page = (project / "map" / "report.html").read_text()
    assert "the outcrop mapped around" in page
    assert "outcrop_3" not in page.split("<details")[0]
    checked = CliRunner().invoke(gravmap_cli.gravmap, ["verify", "map"])
    assert checked.exit_code == 0, checked.output
    (project / "data" / "labels.tif").unlink()
    for command in (command_line, [*command_line, "--dry-run"]):
        refused = CliRunner().invoke(gravmap_cli.gravmap, [*command, "--overwrite"])
        assert refused.exit_code == 3
        assert "starts from mapped outcrop" in refused.output
