"""Scores of a network that starts from outcrop: it sees that of training alone, on foreign gravity too."""

import json

import numpy as np
import pytest
import torch

from gravmap.geology.points import read_points
from gravmap.lattice import TEST, spacing_yx_km
from gravmap.learning.calibration.temperature import write_calibration
from gravmap.learning.data.dataset import RegionDataset, known_labels
from gravmap.learning.data.outcrop_context import context_names
from gravmap.learning.evaluation.baselines import label_diffusion
from gravmap.learning.evaluation.comparison import SHIFTED_INPUT
from gravmap.learning.evaluation.null_models import null_maps
from gravmap.learning.training.checkpoint import ModelSpec, save_model
from gravmap.mapping.scoring.evaluate import EvaluateOptions, evaluate_at_points, evaluate_run
from gravmap.mapping.scoring.finished_run import dataset_of_run
from gravmap.network.outcrop_start import with_outcrop_start
from gravmap.network.registry import build_from_dict
from gravmap.tiling import load_arrays
from toys.outcrop import planted_network, planted_thickness_m
from toys.workspace import call, make_tiled


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("scored")
    make_tiled(root)
    area = RegionDataset.from_arrays(load_arrays(root / "data" / "tiles", channels=["residual_10km"], fold=1))
    torch.manual_seed(0)
    network = build_from_dict(with_outcrop_start({"kind": "unet", "widths": [4, 8]}, (1, 4)), 6, 3)
    inputs = [{"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 7.0}]
    inputs += [{"kind": "field", "field": name, "unit": "1", "spread": 1.0} for name in context_names(3)]
    spec = ModelSpec(
        "unet", network.architecture.to_dict(), inputs, area.classes, 64, [2.0], {}, area.meta["split"], 0,
        area_sha256=area.fingerprint(),
    )  # fmt: skip
    save_model(root / "runs" / "null", network, spec)
    (root / "runs" / "null" / "scores.json").write_text("{}")
    return root


def test_the_dataset_of_such_a_run_shows_training_outcrop_alone(workspace):
    model = json.loads((workspace / "runs" / "null" / "model.json").read_text())
    dataset = dataset_of_run(model, workspace / "data" / "tiles")
    assert dataset.channels == ["residual_10km", *context_names(3)]
    assert ((dataset.fields[-1] == 1) == (known_labels(dataset) > 0)).all()
    labels, role = dataset.node_truth()
    assert ((role == TEST) & (labels > 0)).any()
    assert not dataset.fields[-1][role == TEST].any()


def test_before_it_has_learnt_anything_it_scores_as_label_diffusion_does(workspace):
    folder, tiles = workspace / "runs" / "null", workspace / "data" / "tiles"
    options = EvaluateOptions(baselines=True, importance=True, null_models=("label_diffusion", "nearest_outcrop"))
    record = evaluate_run(folder, tiles, options).record
    area = dataset_of_run(json.loads((folder / "model.json").read_text()), tiles)
    labels, role = area.node_truth()
    counted = (role == TEST) & (labels > 0) & (labels != 255)
    exact = (null_maps(area, which=["label_diffusion"])["label_diffusion"] == labels)[counted].mean()
    assert record["scores"]["pa"] == pytest.approx(exact, abs=0.02)  # pixels lie between the nodes
    # It reads no gravity yet: another place's changes nothing, another place's outcrop does.
    foreign = next(row for key, row in record["baselines"].items() if key == SHIFTED_INPUT)
    assert foreign["pa"] == record["scores"]["pa"]
    lost = {row["field"]: row["loss"]["pa"] for row in record["importance"]}
    assert lost["residual_10km"] == 0
    assert lost["mapped outcrop"] != 0
    assert np.isfinite(list(lost.values())).all()


def planted_run(workspace, tmp_path):
    """A network of simulated crusts with a planted thickness, whose interval is calibrated."""
    area = RegionDataset.from_arrays(load_arrays(workspace / "data" / "tiles", channels=["residual_10km"]))
    inputs = [{"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 10.0}]
    inputs += [{"kind": "field", "field": name, "unit": "1", "spread": 1.0} for name in context_names(3)]
    network, recipe = planted_network(3), {"quantity": "bouguer"}
    spec = ModelSpec(
        "unet", network.architecture.to_dict(), inputs, area.classes, 128, [2.0], recipe, {"name": "crusts"}, 0,
        taught_on={"on": "crusts", "prior": {"name": "wide", "sha256": "0" * 64, "text": ""}},
    )  # fmt: skip
    save_model(tmp_path / "planted", network, spec)
    interval = {"below": 0.5, "above": 2.0}
    write_calibration(tmp_path / "planted", {"temperatures": {"2deg": 1.0}, "scales": [2.0], "thickness": interval})
    return area


def test_a_network_of_crusts_is_scored_at_the_depths_of_boreholes(workspace, tmp_path):
    """The network is 100 m too thick at every borehole but one, which lies outside its interval."""
    area = planted_run(workspace, tmp_path)
    labels, _ = area.node_truth()
    rows, columns = (each[:40] for each in np.nonzero(labels == 0))
    truth = planted_thickness_m(area.fields[0, rows, columns])[0] - 100
    truth[7] += 9000
    lines = [
        f"{area.node_lon[column]},{area.node_lat[row]},{depth}"
        for row, column, depth in zip(rows, columns, truth, strict=True)
    ]
    on_outcrop = np.argwhere(labels == 1)[0]
    lines += [f"{area.node_lon[on_outcrop[1]]},{area.node_lat[on_outcrop[0]]},5", "81,44,", "10,44,7"]
    wells = tmp_path / "wells.csv"
    wells.write_text("\n".join(["lon,lat,depth_m", *lines, ""]))
    done = call(workspace, "evaluate", tmp_path / "planted", "--points", wells, "--json")
    assert done.exit_code == 0, done.output
    (record,) = json.loads(done.stdout)["at_points"]
    depth = record["points"]["depth"]
    assert depth["counts"]["scored"] == depth["nodes"] == 40
    assert (depth["counts"]["on_outcrop"], depth["counts"]["without_depth"], depth["counts"]["outside"]) == (1, 1, 1)
    assert depth["bias_m"] == pytest.approx(100 - 9000 / 40, abs=40)  # pixels lie between the nodes
    assert depth["rmse_m"] == pytest.approx(np.sqrt((39 * 100**2 + 8900**2) / 40), rel=0.05)
    assert depth["coverage"] == pytest.approx(39 / 40)
    said = call(workspace, "evaluate", tmp_path / "planted", "--points", wells).stdout
    assert "40 of 43 scored; 1 outside the area; 1 without a depth; 1 on mapped outcrop" in said
    assert not (tmp_path / "planted" / "evaluation.json").exists()


def test_a_network_of_a_region_has_no_thickness_to_score(workspace, tmp_path):
    (tmp_path / "wells.csv").write_text("lon,lat,depth_m,lith\n80.5,42.5,9,high\n83.1,45.2,8,low\n")
    options = EvaluateOptions(points=read_points(tmp_path / "wells.csv", "lith"), pictures=False)
    record = evaluate_run(workspace / "runs" / "null", workspace / "data" / "tiles", options).record
    assert record["points"]["scored"] == 2
    assert "was not trained with the thickness" in record["points"]["depth"]["left_out"]


def test_a_network_of_crusts_is_scored_at_the_classes_of_boreholes_under_cover(workspace, tmp_path):
    """The planted network adds nothing to label diffusion from all that is mapped."""
    area = planted_run(workspace, tmp_path)
    labels, _ = area.node_truth()
    known = np.where(labels == 255, 0, labels).astype(np.uint8)
    diffused = label_diffusion(known, spacing_yx_km(area.node_lat, area.node_lon))
    places = [*np.argwhere(labels == 0)[::9], np.argwhere(labels == 2)[0]]
    names = {each["index"]: each["name"] for each in area.classes}
    lines = [f"{area.node_lon[column]},{area.node_lat[row]},{names[diffused[row, column]]}" for row, column in places]
    (tmp_path / "wells.csv").write_text("\n".join(["lon,lat,lith", *lines, ""]))
    options = EvaluateOptions(points=read_points(tmp_path / "wells.csv", "lith"))
    found = evaluate_at_points(tmp_path / "planted", workspace / "data" / "tiles", options)["points"]
    assert (found["read"], found["scored"], found["not_under_cover"]) == (len(places), len(places) - 1, 1)
    assert found["scores"]["places"] == len(places) - 1 > 20
    assert found["scores"]["pa"] > 0.9  # pixels lie between the nodes
    assert "depth" not in found
