import json

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

import gravmap_cli
from gravmap.errors import InputError
from gravmap.learning.evaluation.null_models import NULL_MODELS
from gravmap.prior_check import check
from gravmap.workspace import SHIPPED, shipped_model
from gravmap_cli import demo
from gravmap_cli.session import Session

NULLS = [NULL_MODELS[key].title for key in ("nearest_outcrop", "label_diffusion")]
NETWORKS = ["GGMNet trained on this outcrop", "GGMNet trained on other crusts"]


@pytest.fixture
def small(monkeypatch):
    """The demo on a small crust, with two steps of training."""
    monkeypatch.setattr(demo, "SHAPE", (90, 150))
    monkeypatch.setattr(demo, "WINDOW", "2.5deg")
    monkeypatch.setattr(demo, "TILE_PX", 80)
    monkeypatch.setattr(demo, "TRAINING", ("--epochs", "1", "--steps-per-epoch", "2"))
    monkeypatch.setattr(check, "COUNT", 12)


def test_the_demo_runs_the_commands_of_a_real_project(tmp_path, small, monkeypatch):
    called = []

    def note(session, root, words):
        called.append((root, words[0]))
        if words[0] == "predict":
            raise InputError("Stopped here.")

    monkeypatch.setattr(Session, "run", note)
    root = tmp_path / "here"
    done = CliRunner().invoke(gravmap_cli.gravmap, ["demo", "-o", str(root)])
    assert "Stopped here." in done.output
    assert called == [(root, command) for command in ("residual", "rasterize", "tile", "train", "predict")]
    assert {"gravity.nc", "map.gpkg", "truth.tif"} <= {path.name for path in (root / "data" / "raw").iterdir()}

    # The same command again goes on where a demo was stopped; a complete one is replaced with --overwrite alone.
    again = CliRunner().invoke(gravmap_cli.gravmap, ["demo", "-o", str(root)])
    assert "Stopped here." in again.output
    (root / "under_cover.json").write_text("{}")
    again = CliRunner().invoke(gravmap_cli.gravmap, ["demo", "-o", str(root)])
    assert again.exit_code == 3
    assert "--overwrite" in again.output
    old = CliRunner().invoke(gravmap_cli.gravmap, ["demo", str(root)])
    assert old.exit_code == 3
    assert f"use -o {root}" in old.stderr


@pytest.mark.slow
def test_the_demo_scores_networks_beside_null_models(tmp_path, small):
    root = tmp_path / "here"
    done = CliRunner().invoke(gravmap_cli.gravmap, ["demo", str(root)])
    assert done.exit_code == 0, done.output
    for step in ("residual", "rasterize", "tile", "train", "predict"):
        assert f"$ gravmap -w {root} {step}" in done.output
    assert "gravmap fetch" in done.output
    saved = json.loads((root / "under_cover.json").read_text())
    scores = saved["scores"]
    assert list(scores) == [*NULLS, *NETWORKS]
    assert all(0 < row["all"]["pa"] < 1 for row in scores.values())
    # The scores are those of the maps where the truth is under cover, counted here from the rasters.
    with rasterio.open(root / "data" / "raw" / "truth.tif") as raster:
        truth = raster.read(1)
    for name, folder in zip(NETWORKS, ("demo", "demo-crusts"), strict=True):
        with rasterio.open(root / "maps" / folder / "lithology.tif") as raster:
            mapped = raster.read(1)
        with rasterio.open(root / "maps" / folder / "evidence.tif") as raster:
            hidden = raster.read(1) > 1
        assert hidden.sum() == saved["cells"]["all"] == sum(n for part, n in saved["cells"].items() if part != "all")
        assert scores[name]["all"]["pa"] == pytest.approx(np.mean(mapped[hidden] == truth[hidden]))
        assert (mapped[~hidden] == truth[~hidden]).all()
    # The table has every score.
    lines = done.output[done.output.index("Under cover, by distance to outcrop") :].splitlines()
    for name, row in scores.items():
        shown = [line.split()[-4:] for line in lines if line.startswith(f"  {name}")]
        assert shown == [[f"{100 * part[key]:.1f}" for part in row.values()] for key in ("pa", "mpa", "fwiou")]
    assert f"This is the best case for the {NETWORKS[1]}" in done.output
    assert "another seed, 0." in done.output
    for picture in ("demo.png", "maps/demo/map.png", "runs/outcrop/curves.png"):
        assert (root / picture).stat().st_size > 10_000
    # Both networks have one architecture and the same inputs; the thickness is known on crusts only.
    mine, shipped = (
        json.loads((folder / "model.json").read_text()) for folder in (root / "runs/outcrop", shipped_model())
    )
    assert {**mine["architecture"], "thickness": True} == shipped["architecture"]
    assert [each["field"] for each in mine["inputs"]] == [each["field"] for each in shipped["inputs"]]
    settings = json.loads((root / "maps" / "demo-crusts" / "provenance.json").read_text())["settings"]
    assert [verdict["crusts"] for verdict in settings["prior_verdicts"]] == [12]
    assert "prior_verdicts" not in json.loads((root / "maps/demo/provenance.json").read_text())["settings"]
    assert CliRunner().invoke(gravmap_cli.gravmap, ["-w", str(root), "verify"]).exit_code == 0


def test_a_seed_of_the_training_crusts_is_reported():
    from gravmap.reproduce.demo import describe_validity

    trained_on = json.loads((shipped_model(SHIPPED) / "model.json").read_text())["taught_on"]
    for seed in (trained_on["seeds"]["train"][5], trained_on["seeds"]["tune"][0]):
        assert "too high" in describe_validity(seed, trained_on)
    for seed in (0, trained_on["seeds"]["test"][0], max(trained_on["seeds"]["tune"]) + 1):
        assert "too high" not in describe_validity(seed, trained_on)
        assert f"another seed, {seed}." in describe_validity(seed, trained_on)
