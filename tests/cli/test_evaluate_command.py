import json
import shutil

import numpy as np
import pytest

from toys.workspace import call, make_tiled, train

MEASURES = {"pa", "mpa", "mpa_all_classes", "miou", "fwiou", "per_class", "kappa", "macro_f1"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    make_tiled(root)
    train(root, "one")
    train(root, "two", "--seed", 1)
    train(root, "three", "--fold", 1)
    return root


@pytest.fixture
def workspace(made, tmp_path):
    return shutil.copytree(made, tmp_path / "ws")


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Pictures take longer than all the rest; one test takes this back."""
    from gravmap.mapping.scoring import evaluate, protocols

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "_draw", lambda *_: None)
        patch.setattr(protocols, "draw_group", lambda *_: None)
        yield patch


@pytest.fixture
def quick(monkeypatch):
    """Two null models instead of all: forests are tested elsewhere."""
    from gravmap.mapping.scoring import evaluate

    original = evaluate.null_maps
    some = ("majority", "nearest_outcrop")
    monkeypatch.setattr(
        evaluate, "null_maps", lambda area, role, seed, **how: original(area, role, seed=seed, which=some)
    )


@pytest.mark.slow
def test_all_finished_runs_in_groups(workspace, quick, undrawn):
    undrawn.undo()
    done = call(workspace, "evaluate", "--baselines", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["left_out"] == []
    blocks, random = result["protocols"]["blocks"], result["protocols"]["random"]
    assert list(result["protocols"])[:2] == ["blocks", "random"]
    assert (blocks["leak"], blocks["folds"], blocks["kind"]) == (0.0, 4, "blocks")
    assert random["leak"] > 0.5
    assert random["scores"] == "not trained"
    assert set(blocks["scores"]) >= MEASURES
    (group,) = blocks["groups"]
    assert [each["run"] for each in group["runs"]] == ["one", "three", "two"]
    own = {name: json.loads((workspace / "runs" / name / "scores.json").read_text())["test"] for name in _names(group)}
    first = (own["one"]["fwiou"] + own["two"]["fwiou"]) / 2
    assert blocks["scores"]["fwiou"] == pytest.approx((first + own["three"]["fwiou"]) / 2)
    assert blocks["spread"]["fwiou"]["seeds"] == pytest.approx(
        np.std([own["one"]["fwiou"], own["two"]["fwiou"]], ddof=1)
    )
    assert group["confusion"] == np.sum([own[name]["confusion"] for name in own], axis=0).tolist()
    assert set(blocks["baselines"]) == {"majority", "nearest_outcrop", "foreign_gravity"}
    assert set(blocks["baselines"]["majority"]) >= MEASURES
    assert "mean of 3 runs: 2 folds, 2 seeds" in done.stderr
    # The picture of the group is named after its first run.
    assert (workspace / "runs" / "group-one.png").stat().st_size > 10_000
    assert "group-one.png" in done.stderr
    assert "standard deviation between seeds" in done.stderr
    assert "not trained." in done.stderr
    assert "`gravmap train --split random --allow-leak` would train one." in done.stderr
    for name in own:
        record = json.loads((workspace / "runs" / name / "evaluation.json").read_text())
        assert record["scores"]["fwiou"] == pytest.approx(own[name]["fwiou"])
        assert record["confusion"] == own[name]["confusion"]
        assert {"confusion.png", "distance.png"} <= {path.name for path in (workspace / "runs" / name).iterdir()}
    # A sound workspace stays one, and tells when a score is of other weights.
    assert call(workspace, "verify", workspace / "runs" / "one").exit_code == 0
    path = workspace / "runs" / "one" / "evaluation.json"
    path.write_text(path.read_text().replace('"model_sha256": "', '"model_sha256": "x'))
    assert "evaluation.json" in call(workspace, "verify", workspace / "runs" / "one").stdout


@pytest.mark.slow
def test_a_dry_run_estimates_what_a_run_does(workspace, quick, monkeypatch):
    """The windows that networks are applied to are counted one by one; nothing is written before."""
    from gravmap.learning.evaluation import importance

    before = {path: path.stat().st_mtime_ns for path in workspace.rglob("*")}
    words = ["evaluate", "one", "three", "--baselines", "--importance"]
    done = call(workspace, *words, "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    assert {path: path.stat().st_mtime_ns for path in workspace.rglob("*")} == before
    result = json.loads(done.stdout)
    assert result["groups"] == [["one", "three"]]
    assert [(run["run"], run["split"], run["fold"]) for run in result["runs"]] == [
        ("one", "blocks", 0),
        ("three", "blocks", 1),
    ]
    assert "one, three." in done.stderr
    assert "and group-one.png into" in done.stderr
    assert "topography only (no grid of topography was given)" in done.stderr
    windows = []
    original = importance.NodePredictor.predict

    def counting(self, *args, **more):
        # Nine crops to a window.
        hook = self.network.register_forward_hook(lambda layer, given, out: windows.append(len(given[0]) // 9))
        try:
            return original(self, *args, **more)
        finally:
            hook.remove()

    monkeypatch.setattr(importance.NodePredictor, "predict", counting)
    scored = json.loads(call(workspace, *words, "--json").stdout)
    assert sum(windows) == sum(run["passes"] for run in result["runs"]) > 0
    assert scored["protocols"]["blocks"]["scores"]["places"] == sum(run["nodes"] for run in result["runs"])
    # Predictions are kept: only the importance of fields is measured anew.
    again = call(workspace, "evaluate", "one", "three", "--baselines", "-n")
    assert again.stdout.count("cached") == 2
    assert "passes of one window" not in again.stdout


def test_topography_beside_the_network(workspace, monkeypatch):
    """The null model that reads heights finds classes set by them; a grid that does not cover the region is refused."""
    pytest.importorskip("sklearn")
    import xarray as xr

    from gravmap.mapping.scoring import evaluate
    from toys.dataset import field_at

    original = evaluate.null_maps
    monkeypatch.setattr(
        evaluate, "null_maps", lambda area, role, **how: original(area, role, **how | {"which": ["topography_forest"]})
    )
    lat, lon = np.arange(41.5, 46.6, 0.05), np.arange(79.5, 84.6, 0.05)
    heights = 2000 + 1000 * np.tanh(field_at(lat[:, None], lon[None, :]))
    axes = {"coords": {"lat": lat, "lon": lon}, "dims": ("lat", "lon")}
    grid = xr.DataArray(heights, attrs={"units": "m"}, name="elevation", **axes)
    grid.to_netcdf(workspace / "heights.nc")
    done = call(workspace, "evaluate", "one", "--baselines", "--topography", workspace / "heights.nc")
    assert done.exit_code == 0, done.output
    assert "were left out" not in done.stdout
    record = json.loads((workspace / "runs" / "one" / "evaluation.json").read_text())
    assert record["baselines"]["topography_forest"]["pa"] > 0.9
    assert record["topography"] == {"file": str(workspace / "heights.nc"), "unknown_nodes": 0}
    assert call(workspace, "evaluate", "one", "--topography", workspace / "heights.nc").exit_code == 2
    grid[:, :60].to_netcdf(workspace / "west.nc")
    short = call(workspace, "evaluate", "one", "--baselines", "--topography", workspace / "west.nc")
    assert short.exit_code == 3
    assert "west.nc does not cover the region, 80E-84E 42N-46N: it covers 79.5E-82.45E" in short.stderr


def _names(group):
    return [each["run"] for each in group["runs"]]


def test_other_setups_and_protocols_stand_apart(workspace):
    train(workspace, "four", "--lr", "0.002")
    train(workspace, "liu", "--split", "random", "--allow-leak")
    done = call(workspace, "evaluate", "one", "four", "liu", "--json")
    assert done.exit_code == 0, done.output
    protocols = json.loads(done.stdout)["protocols"]
    blocks = protocols["blocks"]
    assert [each["label"] for each in blocks["groups"]] == [
        "ggmnet-tiny, residual_10km, lr 0.001",
        "ggmnet-tiny, residual_10km, lr 0.002",
    ]
    tuned = {each["label"]: each["tune_fwiou"] for each in blocks["groups"]}
    assert blocks["group"] == max(tuned, key=tuned.get), "chosen by the tuning blocks, not by the test blocks"
    assert "baselines" not in blocks
    assert protocols["random"]["scores"]["places"] > 0
    assert [each["run"] for each in protocols["random"]["groups"][0]["runs"]] == ["liu"]
    assert "seen" in done.stderr, "under random windows the scored ground is what training saw"
    assert "best group on the tuning blocks" in done.stderr


def test_a_run_that_cannot_be_scored(workspace):
    model = workspace / "runs" / "two" / "model.json"
    model.write_text(model.read_text().replace('"area_sha256": "', '"area_sha256": "0'))
    done = call(workspace, "evaluate")
    assert done.exit_code == 0, done.output
    assert "Warning: two is left out: The tile set " in done.stderr
    assert "mean of 2 runs" in done.stdout
    assert str(workspace / "runs" / "three") in done.stdout
    assert str(workspace / "runs" / "two") not in done.stdout.split("Wrote")[1]
    # Asked for by name it must be scored.
    refused = call(workspace, "evaluate", "two")
    assert refused.exit_code == 3
    assert "not the one two was trained on" in refused.stderr
    assert "Traceback" not in refused.output


def test_what_is_wrong_with_all_runs_is_reported_once(workspace):
    from toys.workspace import write_labels

    write_labels(workspace, seed=9)
    done = call(workspace, "evaluate")
    assert done.exit_code == 3
    assert done.stderr.count("has changed since the tile set") == 1
    assert len(done.stderr.strip().splitlines()) == 2


def test_importance_of_fields_and_area_weighting(workspace):
    done = call(workspace, "evaluate", "one", "--importance", "--area-weighted")
    assert done.exit_code == 0, done.output
    assert "Importance of the input fields of one, on the tuning blocks:" in done.stdout
    assert "residual_10km  " in done.stdout
    assert "WGS 84" in done.stdout
    record = json.loads((workspace / "runs" / "one" / "evaluation.json").read_text())
    assert record["counted_by"] == "km2"
    assert [row["field"] for row in record["importance"]] == ["residual_10km"]


def test_scores_at_boreholes_are_printed(workspace, tmp_path):
    wells = tmp_path / "wells.csv"
    wells.write_text("lon,lat,lith\n80.5,42.5,high\n83.1,45.2,low\n81,44,basalt\n10,44,low\nx,44,low\n")
    done = call(workspace, "evaluate", "one", "--points", wells, "--class-field", "lith")
    assert done.exit_code == 0, done.output
    assert (
        f"boreholes of {wells}: 2 of 5 scored; 1 outside the area; 1 without a position; 1 with a class" in done.stdout
    )
    assert "lith is read as class names." in done.stdout
    assert call(workspace, "evaluate", "--points", wells).exit_code == 2
    assert call(workspace, "evaluate", "--points", wells, "--legend", "geo3al").exit_code == 2
    unknown = call(workspace, "evaluate", "one", "--points", wells, "--class-field", "lith", "--legend", "geo3a")
    assert unknown.exit_code == 3
    assert "Did you mean geo3al?" in unknown.stderr
    missing = call(workspace, "evaluate", "--points", tmp_path / "no.csv", "--class-field", "lith")
    assert missing.exit_code == 3
    assert "no.csv is missing" in missing.stderr


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [(["fifth"], 3, "No trained network called 'fifth'"), (["--device", "cuda"], 5, "CUDA")],
)
def test_invalid_options_are_refused(workspace, words, status, message, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    done = call(workspace, "evaluate", *words)
    assert done.exit_code == status, done.output
    assert message in done.stderr


def test_an_empty_workspace(tmp_path):
    done = call(tmp_path, "evaluate")
    assert done.exit_code == 3
    assert "No finished run" in done.stderr
    assert "gravmap train" in done.stderr
