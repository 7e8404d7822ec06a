"""Scores of a network that starts from outcrop: it sees that of training alone, on foreign gravity too."""

import json

import numpy as np
import pytest
import torch

from gravmap.lattice import TEST
from gravmap.learning.data.dataset import RegionDataset, known_labels
from gravmap.learning.data.outcrop_context import context_names
from gravmap.learning.evaluation.comparison import SHIFTED_INPUT
from gravmap.learning.evaluation.null_models import null_maps
from gravmap.learning.training.checkpoint import ModelSpec, save_model
from gravmap.mapping.scoring.evaluate import EvaluateOptions, evaluate_run
from gravmap.mapping.scoring.finished_run import dataset_of_run
from gravmap.network.outcrop_start import with_outcrop_start
from gravmap.network.registry import build_from_dict
from gravmap.tiling import load_arrays
from toys.workspace import make_tiled


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
