"""Scores and tables of the scripts in benchmarks/, on arrays small enough to check by hand."""

import importlib
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import special, stats

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
MODULES = (
    "over_crusts",
    "wrong_crusts",
    "cover_tables",
    "under_cover",
    "crusts_at_height",
    "thickness_methods",
    "cover_thickness",
)


@pytest.fixture(scope="module")
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        return SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})


def test_interval_over_crusts_is_student_s(scripts):
    values = np.array([7.0, 9.7, 9.8, 7.1, 4.6, 3.7, 8.3, 7.1])
    found = scripts.over_crusts.t_interval(values)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found["mean"] == pytest.approx(values.mean())
    assert (found["low"], found["high"]) == pytest.approx((theirs.low, theirs.high))
    assert scripts.over_crusts.t_interval(values[:1])["low"] is None


def test_network_meets_the_best_null_model_of_each_crust(scripts):
    # Two crusts of four cells, and a third without a cell: on each another null model is right.
    truth, crust = np.array([0, 0, 1, 1, 0, 0, 0, 1]), np.repeat([0, 1], 4)
    maps = {
        "network": np.array([0, 0, 1, 0, 0, 0, 0, 1]),  # 3 of 4, then 4 of 4
        "one": np.array([0, 0, 0, 0, 1, 1, 1, 1]),  # 2 of 4, then 1 of 4
        "other": np.array([1, 1, 1, 0, 0, 0, 0, 0]),  # 1 of 4, then 3 of 4
    }
    count = scripts.over_crusts.by_crust
    ours, *theirs = (count(truth, values, crust, 3, 2) for values in maps.values())
    found = scripts.over_crusts.gains(ours, {"one": theirs[0], "other": theirs[1]})
    assert found[:, 0].tolist() == [25.0, 25.0]
    # Of the first crust: recall of both classes (1, 1/2) against (1, 0), the better of the two.
    assert found[0, 1] == pytest.approx(75 - 50)
    pooled = scripts.over_crusts.best_of({"one": theirs[0].sum(0), "other": theirs[1].sum(0)})
    assert pooled[0] == 50.0  # 4 of 8


def test_each_kind_of_wrong_crusts_changes_one_thing(scripts):
    def differ(kind, seed=3):
        usual, changed = (flat(asdict(scripts.wrong_crusts.setting_of(each, seed))) for each in ("default", kind))
        return {name for name in usual if usual[name] != changed[name]}

    def flat(record):
        return {**record.pop("rocks"), **record}

    expected = {
        "default": set(),
        "means": {"mean"},
        "spreads": {"spread"},
        "gravity": {"low_pass_km", "noise_mgal"},
        "cover": {"cover_share"},
        "thick-cover": {"cover_deepest_km"},
        "thin-cover": {"cover_deepest_km"},
        "stiff-cover": {"cenozoic_scale_km", "mesozoic_scale_km"},
        "dense-cover": {"cenozoic_deficit", "mesozoic_deficit"},
        "belts-25": {"belt_width_km"},
        "belts-100": {"belt_width_km"},
        "loose-cover": {"cover_on_uplift"},
        "roots": {"moho_root_km"},
    }
    assert {kind: differ(kind) for kind in scripts.wrong_crusts.CHANGES} == expected


def test_class_means_are_moved_by_thirty_in_each_crust_anew(scripts):
    usual = np.array(scripts.wrong_crusts.setting_of("default", 0).rocks.mean)
    moved = np.array([scripts.wrong_crusts.setting_of("means", seed).rocks.mean for seed in range(30)]) - usual
    assert stats.kstest(moved.ravel(), "norm", args=(0, 30)).pvalue > 0.01
    assert np.array_equal(moved[5], scripts.wrong_crusts.setting_of("means", 5).rocks.mean - usual)


def test_classes_are_those_of_a_map(scripts):
    from gravmap.learning.calibration.temperature import Calibration

    by_distance = {"km": [10.0, 20.0], "temperature": [1.0, 4.0]}
    record = {"temperatures": {"16deg": 1.0}, "scales": [16.0], "by_distance": {"16deg": by_distance}}
    calibration = Calibration.from_record({**record, "offsets": [0.0, 0.9]})
    logits = np.array([[2.0, 0.0], [2.0, 0.0]], np.float32)
    held = SimpleNamespace(mean_logits=lambda scales, role: logits)
    judged = scripts.under_cover.EvaluatedNetwork(None, SimpleNamespace(scales_deg=[16.0]), calibration, False)
    calibrated = judged.calibrated(held, np.array([5.0, 50.0]))
    assert calibrated == pytest.approx(np.array([[2.0, 0.0], [0.5, 0.0]]))
    # The offset of 0.9 turns the second cell, far from outcrop and unsure, and not the first.
    assert judged.classes(calibrated).tolist() == [0, 1]


def test_tables_hold_what_was_measured(scripts):
    pair = {"mean": 7.12, "low": 5.44, "high": 8.8, "crusts": 8, "above": 8}
    chance = {**pair, "low": -0.4}
    network, foreign = scripts.cover_tables.NETWORK, scripts.cover_tables.SHIFTED_INPUT
    row = {
        "cells": 12345,
        "nulls": {"label diffusion": [43.4, 39.2, 27.8]},
        "network": {network: [50.6, 43.6, 33.7], foreign: [40.0, 30.0, 20.0]},
        "gain": {network: [7.2, 4.4, 5.9], foreign: [-3.4, -9.2, -7.8]},
        "paired": {network: {"pa": pair, "mpa": chance, "fwiou": pair}},
        "coverage": 0.8149,
        "ece": 0.0304,
    }
    strata = {name: row for name in ("all", "over 30 km", "cover over 2 km")}
    tables = {
        "scores": scripts.cover_tables.scores_table(strata),
        "paired": scripts.cover_tables.paired_table(strata, network),
        "wrong": scripts.cover_tables.wrong_table({"belts-25": strata}, network),
        "coverage": scripts.cover_tables.coverage_table({"belts-25": strata}),
    }
    for lines in tables.values():
        assert len({line.count("|") for line in lines}) == 1
    assert "50.6/43.6/33.7 (+7.2/+4.4/+5.9)" in tables["scores"][3]
    assert "**+7.1 (+5.4 to +8.8)**" in tables["paired"][2]
    assert tables["paired"][3].startswith("| MPA | +7.1 (-0.4 to +8.8) |")
    assert tables["wrong"][2].startswith("| belts of 25 km | 43.4/39.2/27.8 | 50.6/43.6/33.7 (+7.2/+4.4/+5.9) |")
    assert tables["coverage"][2] == "| belts of 25 km | 81 | 81 | 81 | 0.030 |"


def test_crusts_seen_from_height_keep_their_place(scripts):
    from gravmap.lattice import TEST
    from gravmap.learning.data.crust_data import crust_dataset

    rows, columns, step = 33, 49, scripts.crusts_at_height.NODE_STEP
    lon, lat = 80 + (np.arange(columns) + 0.5) / 30, 40 + (rows - np.arange(rows) - 0.5) / 30
    plane = (100 * lat[:, None] + lon[None, :]).astype(np.float32)  # each value identifies its node
    truth = (1 + (np.arange(columns) > 20) * np.ones((rows, 1), int)).astype(np.uint8)
    arrays = {
        "fields": np.stack([plane] * 3),
        "field_valid": np.ones((rows, columns), bool),
        "field_nodes_wsen": np.array([lon[0], lat[-1], lon[-1], lat[0]]),
        "labels": np.where(np.arange(rows)[:, None] < 16, truth, 0).astype(np.uint8),
        "label_bounds_wsen": np.array([80.0, 40.0, 80 + columns / 30, 40 + rows / 30]),
        "small": np.zeros((rows, columns), np.uint8),
        "role": np.zeros((rows, columns), np.uint8),
        "truth": truth,
        "cover_m": plane,
        "meta": {
            "channels": list(scripts.crusts_at_height.BANDS),
            "channel_units": ["mGal"] * 3,
            "classes": [{"index": n, "name": str(n), "colour": "#777777", "age": ""} for n in (1, 2)],
            "region_wsen": [80.0, 40.0, 80 + columns / 30, 40 + rows / 30],
            "field_recipe": {},
            "crust": {"seed": 0},
        },
    }
    seen = scripts.crusts_at_height.at_height(arrays)
    dataset = crust_dataset(seen, TEST, [1.0])
    assert dataset.channels[:3] == ["residual_10km", "residual_20km", "residual_40km"]
    assert dataset.node_lat[0] - dataset.node_lat[1] == pytest.approx(step / 30)
    assert dataset.fields[0] == pytest.approx(100 * dataset.node_lat[:, None] + dataset.node_lon[None, :], abs=1e-2)
    assert dataset.node_cover_km() == pytest.approx(dataset.fields[0] / 1000)
    known = dataset.fields[dataset.channels.index("outcrop_known")]
    assert known.all(axis=1).tolist() == [True, True, False, False, False]  # rows 0 and 8, not 16, 24 and 32


def test_inversion_recovers_a_layer_whose_gravity_is_known_in_closed_form(scripts):
    methods = scripts.thickness_methods
    # Base at 2 km + 0.6 km cos(k x), 128 km long, 300 kg/m3 lighter than the rock: exp(a cos) in Bessel functions.
    cell_km, wavenumber, mean, amplitude, contrast = 2.0, 2 * np.pi / 128, 2.0, 0.6, 300.0
    x = (np.arange(128) + 0.5) * cell_km
    gravity = np.full(128, mean)
    for n in range(1, 25):
        k = n * wavenumber
        gravity -= 2 * (-1) ** n * special.iv(n, k * amplitude) * np.exp(-k * mean) / k * np.cos(k * x)
    gravity = np.tile(-2 * np.pi * 6.6743e-11 * 1e8 * contrast * gravity, (4, 1))  # mGal
    layer = np.tile(mean + amplitude * np.cos(wavenumber * x), (4, 1))
    assert methods.parker(layer, contrast, (cell_km, cell_km)) == pytest.approx(gravity, abs=1e-6)
    found = methods.invert(gravity, contrast, (cell_km, cell_km), cutoff_km=25.0, tolerance_km=1e-5)
    assert found == pytest.approx(layer, abs=1e-4)
    slab = -gravity / (methods.SLAB_MGAL * contrast)
    assert np.abs(slab - layer).max() > 0.05  # the higher terms matter


def test_slab_finds_planted_contrast_above_a_regional_field(scripts):
    methods = scripts.thickness_methods
    rows, columns = np.mgrid[:60, :60]
    thickness = np.where((rows // 6 + columns // 6) % 3 == 0, 1.0 + rows % 6 / 5, 0.0)
    regional = 30 + 0.5 * rows - 0.3 * columns
    noise = np.random.default_rng(0).normal(0, 40, thickness.shape)
    fields = dict.fromkeys(methods.CHANNELS, noise) | {"bouguer": regional - 350 * methods.SLAB_MGAL * thickness}
    view = methods.View(fields, thickness > 0, np.ones(thickness.shape), thickness, (4.0, 4.0))
    left = methods.anomaly(view, "bouguer", "outcrop 15 km")[thickness == 0]
    assert np.abs(left).mean() < 0.1 * np.abs(methods.anomaly(view, "bouguer", "outcrop")[thickness == 0]).mean()
    found = methods.Slab.fit([view])
    assert (found.field, found.level) == ("bouguer", "outcrop 15 km")
    assert found.contrast == pytest.approx(350, rel=0.05)


def test_monotone_thickness_has_an_interval(scripts):
    rng = np.random.default_rng(0)
    distance = rng.uniform(0, 50, 20_000)
    thickness = rng.uniform(0, 0.1 * distance)
    found = scripts.thickness_methods.Monotone.fit(distance, thickness, bins=100).predict(np.array([20.0, 40.0]))
    assert found == pytest.approx(np.array([[0.2, 1.0, 1.8], [0.4, 2.0, 3.6]]), rel=0.1)


def test_thickness_is_measured_against_the_best_simple_method_of_each_crust(scripts):
    benchmark = scripts.cover_thickness
    truth = np.array([1.0, 2.0])
    simple = dict(zip(benchmark.SIMPLE, (truth + 1.0, truth + 0.5, truth + 2.0), strict=True))
    quantiles = np.stack([truth - 1, truth + 0.25, truth + 1], axis=1)
    predictions = simple | {benchmark.NETWORK: quantiles}
    view = SimpleNamespace(truth=truth)
    assert benchmark.reductions(benchmark.NETWORK, [predictions], [view]) == pytest.approx([50.0])
    strata = {name: (10 * truth, table) for name, table in benchmark.STRATA.items()}
    scored = {name: benchmark.thickness_scores(each, truth, strata) for name, each in predictions.items()}
    tables = scripts.cover_tables
    lines = tables.thickness_table(scored)
    assert lines[-1] == "| network | 250 | +250 | 250 | 1.00 | 100 % | 2000 |"
    assert tables.thickness_strata_table(scored, "distance", "coverage")[2:] == [
        "| network | 100 | 100 | - |",
        "| cells | 1 | 1 | 0 |",
    ]
    kinds = tables.thickness_kinds_table({"cover": {"methods": scored}}, benchmark.SIMPLE)
    assert kinds[-1] == "| more cover: 80 % | 1000 | 500 | 2000 | 250 (100 %) | -50 % |"
