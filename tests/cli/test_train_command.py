import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

from gravmap_cli import gravmap

SHORT = ("train", "--device", "cpu", "--model", "ggmnet-tiny", "--epochs", "2", "--steps", "1", "--batch-size", "2")


@pytest.fixture
def arrays():
    """Four degrees with a field that rises to the east, and a boundary in the middle."""
    lon = np.linspace(80, 84, 41)
    columns = np.arange(80)
    role = np.zeros((80, 80), np.uint8)
    role[:20, 30:50], role[60:, 30:50] = 1, 2
    windows = np.array(
        [[80.0 + west, 42.0 + south, 82.0 + west, 44.0 + south] for south in range(3) for west in range(3)]
    )
    return {
        "fields": np.broadcast_to((lon - 82) * 10, (1, 41, 41)).astype(np.float32),
        "field_valid": np.ones((41, 41), bool),
        "field_nodes_wsen": np.array([80.0, 42.0, 84.0, 46.0]),
        "labels": np.broadcast_to(np.where(columns < 40, 1, 2), (80, 80)).astype(np.uint8),
        "label_bounds_wsen": np.array([80.0, 42.0, 84.0, 46.0]),
        "small": np.zeros((80, 80), np.uint8),
        "role": role,
        "windows": windows,
        "window_scale_deg": np.full(9, 2.0),
        "window_role": np.zeros(9, np.uint8),
        "meta": {
            "channels": ["residual_10km"],
            "classes": [
                {"index": 1, "name": "west", "colour": "#AA0000", "age": ""},
                {"index": 2, "name": "east", "colour": "#0000AA", "age": ""},
            ],
            "tile_size_px": 48,
            "region_wsen": [80.0, 42.0, 84.0, 46.0],
            "field_recipe": {"method": "regional"},
            "sources": [],
            "split": {"name": "blocks", "fold": 0},
            "legend_toml": "",
        },
    }


@pytest.fixture
def gravmap_in(tmp_path, arrays, monkeypatch):
    """The command line in a workspace whose tile set hands over `arrays`; `asked` is what was asked of it."""
    (tmp_path / "data" / "tiles").mkdir(parents=True)
    (tmp_path / "data" / "tiles" / "index.json").write_text("{}")

    def load_arrays(folder, *, channels=None, split="blocks", fold=0):
        run.asked.append((channels, split, fold))
        return arrays

    def run(*args):
        return CliRunner().invoke(gravmap, ["-w", str(tmp_path), *args])

    run.asked = []
    monkeypatch.setattr("gravmap.tiling.load_arrays", load_arrays)
    return run


def test_trains_and_leaves_a_run_that_latest_names(gravmap_in, tmp_path):
    done = gravmap_in(*SHORT, "--name", "first", "--seed", "3")
    assert done.exit_code == 0, done.output
    run = tmp_path / "runs" / "first"
    assert {path.name for path in run.iterdir()} == {
        "model.safetensors", "model.json", "last.safetensors", "last.json", "metrics.csv", "curves.png", "scores.json",
    }  # fmt: skip
    assert (tmp_path / "runs" / "latest").read_text() == "first\n"
    assert "One step takes" in done.output
    assert "nodes of the test blocks: accuracy" in done.output
    assert json.loads((run / "model.json").read_text())["seed"] == 3
    assert gravmap_in.asked == [(None, "blocks", 0)]


def test_json_is_the_scores(gravmap_in, tmp_path):
    done = gravmap_in(*SHORT, "--name", "a", "--json", "--input", "residual_10km, bouguer", "--fold", "2")
    told = json.loads(done.stdout)
    assert told["test"] == json.loads((tmp_path / "runs" / "a" / "scores.json").read_text())["test"]
    assert gravmap_in.asked == [(["residual_10km", "bouguer"], "blocks", 2)]


def test_a_run_is_not_replaced_unless_told(gravmap_in, tmp_path):
    assert gravmap_in(*SHORT, "--name", "a").exit_code == 0
    (tmp_path / "runs" / "a" / "old.txt").write_text("")
    again = gravmap_in(*SHORT, "--name", "a")
    assert again.exit_code == 3
    assert "--overwrite" in again.output
    assert (tmp_path / "runs" / "a" / "old.txt").exists()
    assert gravmap_in(*SHORT, "--name", "a", "--overwrite").exit_code == 0
    assert not (tmp_path / "runs" / "a" / "old.txt").exists()


def test_resume_goes_on_with_the_options_of_the_run(gravmap_in, tmp_path):
    assert gravmap_in(*SHORT, "--name", "a", "--lr", "0.003").exit_code == 0
    complete = gravmap_in("train", "--device", "cpu", "--resume")
    assert complete.exit_code == 3
    assert "complete" in complete.output
    done = gravmap_in("train", "--device", "cpu", "--resume", "--epochs", "3")
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader((tmp_path / "runs" / "a" / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    recipe = json.loads((tmp_path / "runs" / "a" / "last.json").read_text())["config"]
    assert (recipe["lr"], recipe["steps"], recipe["model"]) == (0.003, 1, "ggmnet-tiny")
    other = gravmap_in("train", "--device", "cpu", "--resume", "--name", "a", "--lr", "0.1")
    assert other.exit_code == 2
    assert "began with another --lr: 0.003" in other.output
    assert gravmap_in("train", "--device", "cpu", "--resume", "--name", "none").exit_code == 3


def test_dry_run_writes_nothing(gravmap_in, tmp_path):
    done = gravmap_in(*SHORT, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "Would write" in done.output
    assert "One step takes" in done.output
    assert not (tmp_path / "runs").exists()


def test_without_a_gpu_the_flag_that_runs_is_named(gravmap_in, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    for args in (("train",), ("train", "--gpus", "4"), ("train", "--device", "cuda")):
        done = gravmap_in(*args)
        assert done.exit_code == 5, done.output
        assert "--gpus 0 or --device cpu" in done.output
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    done = gravmap_in("train", "--gpus", "4")
    assert done.exit_code == 5
    assert "--gpus 1" in done.output


def test_a_missing_tile_set_names_its_command(tmp_path):
    done = CliRunner().invoke(gravmap, ["-w", str(tmp_path), "train", "--device", "cpu"])
    assert done.exit_code == 3
    assert "`gravmap tile` makes it" in done.output


def test_a_leaking_split_needs_leave(gravmap_in, arrays):
    """What counts is what is measured on the arrays, not what the split is called."""
    arrays["role"][:] = 0
    arrays["window_role"][[1, 4]] = 1, 2
    done = gravmap_in(*SHORT)
    assert done.exit_code == 3
    assert "100.0 % of the held-out bedrock" in done.output
    assert "--allow-leak" in done.output
    assert gravmap_in(*SHORT, "--allow-leak", "--dry-run").exit_code == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--device", "cpu", "--gpus", "2"), "contradict"),
        (("--device", "cuda", "--gpus", "0"), "contradict"),
        (("--device", "cpu", "--model", "resnet"), "no model named 'resnet'"),
        (("--device", "cpu", "--time-limit", "15"), "no duration"),
        (("--device", "cpu", "--name", "../away"), "no name of a folder"),
        (("--device", "cpu", "--batch-size", "1"), "one crop"),
    ],
)
def test_options_that_make_no_sense(gravmap_in, args, said):
    done = gravmap_in("train", *args)
    assert done.exit_code == 2, done.output
    assert said in done.output


def test_a_time_limit_is_read_with_its_unit(gravmap_in):
    done = gravmap_in(*SHORT, "--time-limit", "90s", "--epochs", "1000000", "--dry-run", "--json")
    assert json.loads(done.stdout)["config"]["time_limit_s"] == 90.0
    assert json.loads(done.stdout)["seconds"] == 90.0


def test_an_interrupted_run_keeps_what_it_has(gravmap_in, tmp_path, monkeypatch):
    from gravmap.learning.run import Run

    def stop(self, *args, **options):
        ended(self, *args, **options)
        if self.epoch == 1:
            raise KeyboardInterrupt

    ended = Run.end_epoch
    monkeypatch.setattr(Run, "end_epoch", stop)
    done = gravmap_in(*SHORT, "--name", "a")
    assert done.exit_code == 130
    assert (tmp_path / "runs" / "latest").read_text() == "a\n"
    monkeypatch.setattr(Run, "end_epoch", ended)
    assert gravmap_in("train", "--device", "cpu", "--resume").exit_code == 0
