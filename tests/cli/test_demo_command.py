import json

import pytest
from click.testing import CliRunner

import gravmap_cli
from gravmap_cli import demo


@pytest.fixture
def quick(monkeypatch):
    """The demo's road with two short epochs; its length is not what is tested."""
    training = ("--model", "ggmnet-tiny", "--epochs", "1", "--steps", "2", "--batch-size", "2")
    monkeypatch.setattr(demo, "TRAINING", training)
    monkeypatch.setattr(demo, "TILE_PX", 64)


def test_the_demo_runs_the_commands_of_a_real_project_and_scores_beside_null_models(tmp_path, quick):
    root = tmp_path / "here"
    done = CliRunner().invoke(gravmap_cli.gravmap, ["demo", str(root)])
    assert done.exit_code == 0, done.output
    for step in ("residual", "rasterize", "tile", "train", "predict"):
        assert f"$ gravmap -w {root} {step}" in done.output
    for null in ("majority class", "nearest outcrop", "label diffusion", "nearest in gravity"):
        assert null in done.output
    assert "expected\nto tie with the null models at best" in done.output
    assert "gravmap fetch" in done.output
    scores = json.loads((root / "maps" / "demo" / "under_cover.json").read_text())
    shares = [row["all"]["pa"] for row in scores["scores"].values()]
    assert len(shares) == 6
    assert all(0 < share < 1 for share in shares)
    # Nearest outcrop beats the commonest class on any crust with belts, or the scoring is upside down.
    assert (
        scores["scores"]["nearest outcrop, no gravity"]["all"]["fwiou"]
        > scores["scores"]["majority class"]["all"]["fwiou"]
    )
    for picture in ("maps/demo/demo.png", "maps/demo/map.png", "runs/demo/curves.png"):
        assert (root / picture).stat().st_size > 10_000

    again = CliRunner().invoke(gravmap_cli.gravmap, ["demo", str(root)])
    assert again.exit_code == 3
    assert "--overwrite" in again.output
    replaced = CliRunner().invoke(gravmap_cli.gravmap, ["demo", str(root), "--overwrite", "--json", "--seed", "1"])
    assert replaced.exit_code == 0, replaced.output
    assert json.loads(replaced.stdout)["scores"].keys() == scores["scores"].keys()
