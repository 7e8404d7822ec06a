"""Means and standard deviations over folds and seeds, compared with the standard library's statistics."""

import copy
import json
import statistics

import numpy as np
import pytest

from gravmap.learning.evaluation.metrics import scores
from gravmap.learning.evaluation.run_groups import (
    group_labels,
    group_runs,
    mean_scores,
    shared_settings,
    standard_deviations,
    summarise,
)

NAMES = ["a", "b", "c"]
MODEL = {
    "model": "ggmnet-tiny",
    "architecture": {"depth": 5},
    "inputs": [{"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 7.5}],
    "recipe": {"recipe": "default", "epochs": 100, "seed": 0, "device": "cpu", "inputs": None, "architecture": None},
    "tile_size_px": 128,
    "scales_deg": [2.5, 5.0],
    "split": {"name": "blocks", "fold": 0, "leak_of_fold": [0, 0]},
}


def changed(**changes):
    model = copy.deepcopy(MODEL)
    for key, value in changes.items():
        if isinstance(value, dict):
            model[key].update(value)
        else:
            model[key] = value
    return model


def record(run, fold, seed, matrix, **more):
    matrix = np.array(matrix)
    rows = [{"from_km": 20, "to_km": 30, "places": int(matrix.sum()), "mean_km": 25.0 + fold, "pa": 0.5, "mpa": 1.0}]
    rows += [{"from_km": 200, "to_km": None, "places": 1, "mean_km": 300.0, "pa": 0.0}]
    rows += [{"from_km": 0, "to_km": 0, "places": 2, "mean_km": 0.0, "pa": 1.0}] if fold else []
    found = {"scores": scores(matrix, NAMES), "confusion": matrix.tolist(), "distance": rows, "tune_fwiou": 0.2 + fold}
    return {"run": run, "fold": fold, "seed": seed, "setup": shared_settings(MODEL), **found, **more}


RUNS = [
    record("one", 0, 0, [[4, 0, 0], [2, 2, 0], [0, 0, 0]]),
    record("two", 0, 1, [[2, 2, 0], [0, 4, 0], [0, 0, 0]]),
    record("three", 1, 0, [[0, 8, 0], [0, 0, 0], [1, 0, 3]]),
]


def test_fold_seed_and_machine_do_not_split_a_group():
    same = [
        MODEL,
        changed(recipe={"seed": 3, "device": "cuda", "precision": "bfloat16"}),
        changed(split={"fold": 4}),
        changed(inputs=[{**MODEL["inputs"][0], "spread": 8.1}]),
    ]
    apart = [changed(recipe={"epochs": 9}), changed(split={"name": "random"}), changed(tile_size_px=256)]
    records = [{"setup": shared_settings(model)} for model in same + apart]
    assert [len(group) for group in group_runs(records)] == [4, 1, 1, 1]
    json.dumps(records)


def test_groups_with_equal_labels_get_distinguishing_settings():
    setups = [shared_settings(model) for model in (MODEL, changed(recipe={"epochs": 9}), changed(model="unet"))]
    assert group_labels(setups) == [
        "ggmnet-tiny, residual_10km, epochs 100",
        "ggmnet-tiny, residual_10km, epochs 9",
        "unet, residual_10km",
    ]


def test_means_are_over_seeds_first_then_over_folds():
    found, folds = [each["scores"] for each in RUNS], [each["fold"] for each in RUNS]
    got = mean_scores(found, folds)
    assert [each["pa"] for each in found] == [0.75, 0.75, 0.25]
    assert got["pa"] == pytest.approx(statistics.mean([statistics.mean([0.75, 0.75]), 0.25]))
    # Recall of a: 1 and 1/2 in the first fold, 0 in the second; b occurs in the first alone, c in the second.
    assert got["per_class"]["a"]["recall"] == pytest.approx((0.75 + 0) / 2)
    assert got["per_class"]["b"]["recall"] == pytest.approx(0.75)
    assert got["per_class"]["c"]["recall"] == pytest.approx(0.75)
    assert got["absent"] == []
    assert got["places"] == 8 + 12, "each fold's ground once, whatever the seeds"
    assert got["per_class"]["a"]["places"] == 4 + 8


def test_spreads():
    found, folds = [each["scores"] for each in RUNS], [each["fold"] for each in RUNS]
    got = standard_deviations(found, folds)
    assert got["pa"]["folds"] == pytest.approx(statistics.stdev([0.75, 0.25]))
    assert got["pa"]["seeds"] == pytest.approx(0)
    first = [found[0]["fwiou"], found[1]["fwiou"]]
    assert got["fwiou"]["seeds"] == pytest.approx(statistics.stdev(first))
    assert standard_deviations(found[:1], [0])["pa"] == {"folds": None, "seeds": None}


def test_a_group_together():
    got = summarise(RUNS, "tiny")
    assert got["confusion"] == [[6, 10, 0], [2, 6, 0], [1, 0, 3]]
    assert got["pooled"]["pa"] == pytest.approx(15 / 28)
    assert (got["folds"], got["seeds"], len(got["runs"])) == ([0, 1], [0, 1], 3)
    assert got["tune_fwiou"] == pytest.approx((0.2 + 0.2 + 1.2) / 3)
    assert [(row["to_km"], row["places"]) for row in got["distance"]] == [(0, 2), (30, 28), (None, 3)]
    assert got["distance"][1]["mean_km"] == pytest.approx((16 * 25 + 12 * 26) / 28)
    assert "baselines" not in got
    json.dumps(got, allow_nan=False)


def test_null_models_that_every_fold_has():
    nulls = [{"majority": each["scores"], "forest": each["scores"]} for each in RUNS]
    nulls[1] = {"majority": nulls[1]["majority"]}
    got = summarise([{**each, "baselines": null} for each, null in zip(RUNS, nulls, strict=True)], "tiny")
    assert list(got["baselines"]) == ["majority"]
    assert got["baselines"]["majority"]["pa"] == pytest.approx(0.5)
