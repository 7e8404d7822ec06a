"""Which runs stand under which protocol, and which group is shown."""

import numpy as np

from gravmap.learning.evaluation.comparison import ScoredNodes
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.mapping.scoring.evaluate import Evaluated
from gravmap.mapping.scoring.protocols import NOT_TRAINED, protocols

INDEX = {
    "splits": [
        {"name": "strict", "kind": "strict", "folds": 3, "leak": 0.0},
        {"name": "blocks", "kind": "blocks", "folds": 5, "leak": 0.0},
        {"name": "random", "kind": "random", "folds": 5, "leak": 0.97},
    ]
}


def scored(run, share, *, model="unet", split="blocks", tune=0.1, fold=0, seed=0):
    """A run that names so much of 90 nodes in nine blocks right; nearest outcrop names half."""
    truth = np.arange(90) % 3
    rng = np.random.default_rng(seed)
    named = np.where(rng.permutation(90) < 90 * share, truth, (truth + 1) % 3)
    near = np.where(np.arange(90) % 2 == 0, truth, (truth + 1) % 3)
    setup = {"model": model, "inputs": [{"kind": "field", "field": "residual_10km"}], "recipe": {}, "size": 32,
             "scales": [2.0], "architecture": {}, "split": split}  # fmt: skip
    nodes = ScoredNodes(truth, named, {"nearest_outcrop": near}, np.arange(90) // 10 + 9 * fold)
    matrix = confusion(truth, named, 3)
    null = scores(confusion(truth, near, 3), ["a", "b", "c"])
    record = {"run": run, "fold": fold, "seed": seed, "setup": setup, "tune_fwiou": tune, "distance": [],
              "scores": scores(matrix, ["a", "b", "c"]), "confusion": matrix.tolist(),
              "baselines": {"nearest_outcrop": null}, "gravity_adds": []}  # fmt: skip
    return Evaluated(record, nodes)


def test_the_group_is_chosen_on_the_tuning_blocks():
    good_on_test, good_on_tune = scored("one", 0.9, tune=0.2), scored("two", 0.4, model="ggmnet", tune=0.3)
    for runs in ([good_on_test, good_on_tune], [good_on_tune, good_on_test]):
        found = protocols(runs, INDEX)["blocks"]
        assert found["group"] == "ggmnet, residual_10km"
        assert found["scores"]["pa"] == good_on_tune.record["scores"]["pa"]
        assert len(found["groups"]) == 2


def test_a_run_stands_under_its_own_protocol_alone():
    found = protocols([scored("one", 0.5), scored("two", 0.9, split="mine")], INDEX)
    assert list(found) == ["blocks", "random", "strict", "mine"]
    assert found["random"]["scores"] == found["strict"]["scores"] == NOT_TRAINED
    assert (found["random"]["leak"], found["random"]["folds"]) == (0.97, 5)
    assert found["mine"]["leak"] is None
    assert found["mine"]["scores"]["pa"] > found["blocks"]["scores"]["pa"]
    assert protocols([], {"splits": []}) == {
        name: {"kind": name, "leak": None, "folds": None, "scores": NOT_TRAINED} for name in ("blocks", "random")
    }


def test_what_gravity_adds_over_the_blocks_of_all_folds_and_seeds():
    """A block that two seeds were scored on counts once; other folds have other blocks."""
    runs = [scored("one", 0.9), scored("two", 0.7, seed=1), scored("three", 0.8, fold=1)]
    (group,) = protocols(runs, INDEX)["blocks"]["groups"]
    accuracy = next(each for each in group["gravity_adds"] if each["measure"] == "pa")
    assert accuracy["blocks"] == 18
    pooled = np.mean([each.record["scores"]["pa"] for each in runs])
    assert np.isclose(accuracy["mean"], pooled - 0.5)
    assert accuracy["low"] < accuracy["mean"] < accuracy["high"]
    assert accuracy["sentence"].startswith(
        "the network adds 30.0 points of accuracy over taking the class of the nearest"
    )
