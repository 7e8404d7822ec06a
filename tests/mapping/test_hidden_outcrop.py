"""Outcrop of a region, hidden block by block from a network that was not trained on it."""

import json

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

import gravmap_cli
from gravmap.errors import InputError
from gravmap.geology import load_legend
from gravmap.geology.labels import LabelFile
from gravmap.gravity.field_reader import FieldReader
from gravmap.lattice import spacing_yx_km
from gravmap.learning.data.label_diffusion import class_probabilities
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.mapping import Options, predict
from gravmap.mapping.scoring.hidden_outcrop import score_hidden_outcrop
from gravmap.progress import silent
from gravmap.regions import Region
from gravmap.synthetic import make_crust
from gravmap.synthetic.files import write_crust
from gravmap.tiling.blocks import split_blocks
from gravmap.workspace import SHIPPED, Workspace
from gravmap_cli.predict_checks import CrustChecks
from toys.map import BOX
from toys.outcrop import make_labels, make_outcrop_project

WHOLE = Region(79, 42, 86, 48)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_outcrop_project(tmp_path_factory.mktemp("hidden"))


@pytest.fixture(scope="module")
def found(project):
    return score_hidden_outcrop(
        project / "fields.nc", project / "labels.tif", [project / "null", project / "trained"], WHOLE
    )


def test_a_network_that_adds_nothing_scores_as_label_diffusion(found):
    """It reads the class scores of the diffused outcrop: if it saw the hidden outcrop, it would name all of it."""
    null, trained = found
    assert (null["run"], trained["run"]) == ("null", "trained")
    assert null["baselines"] == trained["baselines"]
    for measure in ("pa", "mpa", "fwiou"):
        assert null["scores"][measure] == pytest.approx(null["baselines"]["label_diffusion"][measure], abs=0.01)
        assert null["scores"][measure] < 0.8
    assert null["scores"]["pa"] != trained["scores"]["pa"]


def test_null_models_are_scored_as_by_hand(project, found):
    """Fold by fold: outcrop of test blocks, tuning blocks and buffer hidden, its neighbours diffused, nodes counted."""
    with FieldReader(project / "fields.nc") as fields:
        lat, lon = fields.lat, fields.lon
    with LabelFile(project / "labels.tif") as labels:
        mapped = labels.sample(lat, lon)
    mapped[mapped == 255] = 0
    half = (lon[1] - lon[0]) / 2
    bounds = lon[0] - half, lat[-1] - half, lon[-1] + half, lat[0] + half
    split = split_blocks(mapped, bounds, Region(*bounds))
    assert (found[0]["folds"], found[0]["buffer_deg"]) == (split.folds, split.buffer_deg)
    matrix = np.zeros((10, 10), int)
    for fold in range(split.folds):
        roles = split.roles(fold, mapped.shape, bounds)
        chances = class_probabilities(np.where(roles == 0, mapped, 0), spacing_yx_km(lat, lon), 10)
        test = (roles == 2) & (mapped > 0)
        matrix += confusion(mapped[test].astype(int) - 1, chances.argmax(0)[test], 10)
    expected = scores(matrix)
    assert found[0]["places"] == matrix.sum()
    for measure in ("pa", "mpa", "fwiou"):
        assert found[0]["baselines"]["label_diffusion"][measure] == pytest.approx(expected[measure], abs=2e-3)


def test_too_little_outcrop_is_an_error_and_a_map_without_a_test(project, tmp_path, monkeypatch):
    values = np.zeros((120, 140), np.uint8)
    values[:10, :10], values[10:12, :10] = 1, 2  # one block
    make_labels(tmp_path / "labels.tif", values=values)
    arguments = project / "fields.nc", tmp_path / "labels.tif", [project / "null"], WHOLE
    with pytest.raises(InputError, match="Only 1 blocks"):
        score_hidden_outcrop(*arguments)
    # `predict` makes the map all the same.
    monkeypatch.setattr("gravmap_cli.predict_checks._verdict", lambda *_: {"state": "not known"})
    fields, labels, runs, region = arguments
    check = CrustChecks({"run": {}}, tuple(runs)).function(fields, labels, region, tmp_path, "cpu")
    assert "Only 1 blocks" in check(silent).hidden_outcrop[0]["left_out"]
    values[60:64, 60:80] = 3
    make_labels(tmp_path / "others.tif", values=values, legend=load_legend("basement10"))
    with pytest.raises(InputError, match="class"):
        score_hidden_outcrop(project / "fields.nc", tmp_path / "others.tif", *arguments[2:])
    with pytest.raises(InputError, match="fewer than 2 x 2 nodes"):
        score_hidden_outcrop(*arguments[:3], Region(80.01, 43.01, 80.02, 43.02))


@pytest.mark.slow
def test_on_a_crust_the_shipped_network_beats_null_models_and_evaluate_says_so(tmp_path):
    def call(*words):
        done = CliRunner().invoke(gravmap_cli.gravmap, ["-w", str(tmp_path), *words])
        assert done.exit_code == 0, done.output
        return done

    files = write_crust(make_crust(3, (180, 240)), tmp_path / "raw")
    call("residual", str(files["gravity"]), "--height", "10km")
    call("rasterize", "--map", str(files["map"]), "crust")
    assert "The network adds" in call("evaluate", SHIPPED).output
    (record,) = json.loads(call("-q", "evaluate", SHIPPED, "--json").stdout)["hidden_outcrop"]
    best = max(row["pa"] for row in record["baselines"].values())
    assert record["scores"]["pa"] > best + 0.03
    assert not list(tmp_path.glob("runs/*"))
    assert Workspace(tmp_path).run(SHIPPED).name == record["run"]


def test_a_map_has_the_classes_of_label_diffusion_and_of_the_second_chance(project, tmp_path):
    made = predict(
        project / "fields.nc", project / "null", BOX, tmp_path / "map", labels_path=project / "labels.tif",
        options=Options(device="cpu", scales_deg=(5.0,)),
    )  # fmt: skip
    layers = {}
    for name in ("lithology", "null_model", "second_class", "evidence"):
        with rasterio.open(made.folder / f"{name}.tif") as raster:
            layers[name] = raster.read(1)
    with rasterio.open(made.folder / "probability.tif") as raster:
        chances = raster.read().astype(int)
    outcrop, known = layers["evidence"] == 1, layers["lithology"] != 255
    assert (layers["null_model"] == layers["lithology"])[outcrop].all()
    # This network adds nothing to label diffusion; windows, blended, move a border by a cell at most.
    assert (layers["null_model"] == layers["lithology"])[known & ~outcrop].mean() > 0.97
    ranked = np.sort(chances, axis=0)
    second = np.take_along_axis(chances, layers["second_class"][None].astype(int) - 1, 0)[0]
    assert (second == ranked[-2])[known].all()
    assert (made.folder / "comparison.png").exists()
    assert {"second_class.qml", "null_model.qml", "null_model.tif.aux.xml"} <= set(made.files)
