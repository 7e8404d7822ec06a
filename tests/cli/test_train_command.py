import csv
import dataclasses
import json
import sys
import types

import numpy as np
import pytest
from click.testing import CliRunner

from gravmap_cli import gravmap

SHORT = (
    "train", "--device", "cpu", "--model", "ggmnet-tiny", "--epochs", "2", "--steps-per-epoch", "1",
    "--batch-size", "2",
)  # fmt: skip


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
    """The command line in a workspace whose tile set is `arrays`; `requested` lists what was read of it."""
    (tmp_path / "data" / "tiles").mkdir(parents=True)
    (tmp_path / "data" / "tiles" / "index.json").write_text("{}")

    def load_arrays(folder, *, channels=None, split="blocks", fold=0):
        run.requested.append((channels, split, fold))
        return arrays

    def run(*args):
        return CliRunner().invoke(gravmap, ["-w", str(tmp_path), *args])

    run.requested = []
    monkeypatch.setattr("gravmap.tiling.load_arrays", load_arrays)
    return run


def test_trains_and_leaves_a_run_that_latest_names(gravmap_in, tmp_path, monkeypatch):
    from gravmap.learning.training import finish

    def write(path, text):
        if path.name == "scores.json":  # marks a complete run: none is to be left that is not the newest
            assert (tmp_path / "runs" / "latest").read_text() == "first\n"
        write_text(path, text)

    write_text = finish.write_text
    monkeypatch.setattr(finish, "write_text", write)
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    (run / "model.json").write_text("{}")  # what a run leaves that is stopped before its first checkpoint
    done = gravmap_in(*SHORT, "--name", "first", "--seed", "3")
    assert done.exit_code == 0, done.output
    assert {path.name for path in run.iterdir()} == {
        "model.safetensors", "model.json", "last.safetensors", "last.json", "metrics.csv", "curves.png", "scores.json",
        "calibration.json", "reliability.png", "reach.safetensors",
    }  # fmt: skip
    assert (tmp_path / "runs" / "latest").read_text() == "first\n"
    assert "One step takes" in done.output
    assert "nodes of the test blocks: accuracy" in done.output
    short = json.loads((run / "scores.json").read_text())["calibration"]
    line = next(line for line in done.output.splitlines() if "calibration error" in line)
    assert f"{short['test_ece_before']:.3f}" in line
    assert f"{short['test_ece_after']:.3f}" in line
    assert json.loads((run / "model.json").read_text())["seed"] == 3
    assert gravmap_in.requested == [(None, "blocks", 0)]


def test_json_is_the_scores(gravmap_in, arrays, tmp_path):
    arrays["fields"] = np.repeat(arrays["fields"], 2, axis=0)
    arrays["meta"]["channels"] = ["residual_10km", "bouguer"]
    done = gravmap_in(*SHORT, "--name", "a", "--json", "--input", "residual_10km, bouguer", "--fold", "2")
    reported = json.loads(done.stdout)
    assert reported["test"] == json.loads((tmp_path / "runs" / "a" / "scores.json").read_text())["test"]
    assert gravmap_in.requested == [(["residual_10km", "bouguer"], "blocks", 2)]


def test_short_inputs_and_an_architecture_of_ones_own(gravmap_in, arrays, tmp_path, monkeypatch):
    from gravmap.network.presets import tiny

    index = {"channel": "residual_10km"}
    monkeypatch.setattr("gravmap.tiling.training_arrays.read_index", lambda tiles: index)
    (tmp_path / "mine.json").write_text(json.dumps(tiny(deform=False).to_dict()))
    args = ("train", "--device", "cpu", "--architecture", str(tmp_path / "mine.json"), "--epochs", "1")
    done = gravmap_in(*args, "--steps-per-epoch", "1", "--batch-size", "2", "--name", "a", "--input", "rgb,scale")
    assert done.exit_code == 0, done.output
    assert gravmap_in.requested == [(["residual_10km"], "blocks", 0)]
    record = json.loads((tmp_path / "runs" / "a" / "model.json").read_text())
    assert (record["model"], record["architecture"]["deform"]) == ("mine", False)
    assert [channel["kind"] for channel in record["inputs"]] == ["rgb", "scale"]
    more = gravmap_in("train", "--device", "cpu", "--resume", "--epochs", "2", "--input", "rgb,scale")
    assert more.exit_code == 0, more.output
    other = gravmap_in("train", "--device", "cpu", "--resume", "--epochs", "3", "--input", "residual")
    assert other.exit_code == 2
    (tmp_path / "bad.toml").write_text('kind = "ggmnet"\ndepth = "5"\npaths = [[]]\nops = [["conv"]]\nchis = [[1]]\n')
    bad = gravmap_in("train", "--device", "cpu", "--architecture", str(tmp_path / "bad.toml"))
    assert bad.exit_code == 2
    assert "bad.toml" in bad.output
    assert "depth is '5'" in bad.output


def test_a_run_is_replaced_only_with_overwrite(gravmap_in, tmp_path):
    assert gravmap_in(*SHORT, "--name", "a").exit_code == 0
    (tmp_path / "runs" / "a" / "old.txt").write_text("")
    again = gravmap_in(*SHORT, "--name", "a")
    assert again.exit_code == 3
    assert "--overwrite" in again.output
    assert (tmp_path / "runs" / "a" / "old.txt").exists()
    assert gravmap_in(*SHORT, "--name", "a", "--overwrite").exit_code == 0
    assert not (tmp_path / "runs" / "a" / "old.txt").exists()


def test_resume_uses_the_options_of_the_run(gravmap_in, tmp_path):
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
    scores = tmp_path / "runs" / "a" / "scores.json"
    scores.write_text(json.dumps(json.loads(scores.read_text()) | {"epochs": 2}))  # a kill before the new ones
    assert gravmap_in("train", "--device", "cpu", "--resume", "--epochs", "3", "-n").exit_code == 0
    other = gravmap_in("train", "--device", "cpu", "--resume", "--name", "a", "--lr", "0.1")
    assert other.exit_code == 2
    assert "--lr: 0.003" in other.output
    assert gravmap_in("train", "--device", "cpu", "--resume", "--name", "none").exit_code == 3


def test_dry_run_writes_nothing(gravmap_in, tmp_path):
    done = gravmap_in(*SHORT, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "Would write" in done.output
    assert "One step takes" in done.output
    assert not (tmp_path / "runs").exists()


def test_without_a_gpu_the_flag_that_runs_is_named(gravmap_in, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    for args in (("train",), ("train", "--gpus", "4"), ("train", "--device", "cuda"), ("train", "--device", "auto")):
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


def test_the_recipe_of_the_paper_needs_no_other_option(gravmap_in, arrays, tmp_path, monkeypatch):
    """Colours, random windows with their leak, float32, 4 crops per GPU; and so has a recipe file based on it."""
    monkeypatch.setattr("gravmap.tiling.training_arrays.read_index", lambda tiles: {"channel": "residual_10km"})
    arrays["role"][:] = 0
    arrays["window_role"][[1, 4]] = 1, 2
    arrays["meta"]["split"] = {"name": "random", "fold": 0}
    (tmp_path / "mine.toml").write_text('base = "paper"\nepochs = 2\n')
    for recipe, epochs in (("paper", 600), (str(tmp_path / "mine.toml"), 2)):
        done = gravmap_in("train", "--gpus", "0", "--size", "64", "-n", "--json", "--recipe", recipe)
        assert done.exit_code == 0, done.output
        assert gravmap_in.requested[-1] == (["residual_10km"], "random", 0)
        leak = f"leaks, accepted by --recipe {recipe}: in fold 0 training sees the labels of 100.0 %"
        assert len([line for line in done.stderr.splitlines() if leak in line]) == 1
        config = json.loads(done.stdout)["config"]
        assert (config["inputs"], config["precision"], config["model"]) == (["rgb:residual_10km"], "float32", "ggmnet")
        assert (config["batch_size"], config["topk_base"], config["topk_share"]) == (4, "all", 0.15)
        assert (config["epochs"], config["time_limit_s"], config["scales_deg"]) == (epochs, None, None)
        assert json.loads(done.stdout)["would_write"].startswith(str(tmp_path / "runs" / "ggmnet-2"))
        other = gravmap_in("train", "--gpus", "0", "--size", "64", "-n", "--recipe", recipe, "--split", "mine")
        assert other.exit_code == 3  # the recipe accepts the leak of its own split alone
        assert "--allow-leak" in other.output


def test_the_batch_of_the_paper_grows_with_the_gpus(gravmap_in, monkeypatch):
    """The plan for 4 GPUs measures the share of one, and says so."""
    from gravmap.learning.training.run import estimate_cost

    monkeypatch.setattr("gravmap.tiling.training_arrays.read_index", lambda tiles: {"channel": "residual_10km"})
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    on_cpu = dataclasses.replace

    def estimate(dataset, config, processes):
        assert config.device == "cuda"
        return estimate_cost(dataset, on_cpu(config, device="cpu"), processes)

    monkeypatch.setattr("gravmap.learning.training.run.estimate_cost", estimate)
    done = gravmap_in("train", "--gpus", "4", "--recipe", "paper", "--model", "ggmnet-tiny", "-n", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["config"]["batch_size"] == 16
    assert "One process with its 4 crops of a step takes" in done.stderr
    assert "600 epochs of 1 step:" in done.stderr
    odd = gravmap_in("train", "--gpus", "4", "--recipe", "paper", "--batch-size", "6", "-n")
    assert odd.exit_code == 2
    assert "cannot be divided among 4 processes" in odd.output


def test_the_plan_for_gpus_of_another_machine_is_shown_and_the_training_refused(gravmap_in, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    words = ("train", "--gpus", "4", "--model", "ggmnet-tiny")
    done = gravmap_in(*words, "-n", "--json")
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    assert (plan["seconds"], plan["config"]["device"], plan["config"]["batch_size"]) == (None, "cuda", 16)
    assert "how long it takes is not known here" in done.stderr
    assert gravmap_in(*words).exit_code == 5
    assert gravmap_in("train", "-n").exit_code == 5


def test_on_a_cpu_the_default_is_a_small_network_at_the_resolution_of_the_grid(gravmap_in, arrays, tmp_path):
    def plan(*args):
        done = gravmap_in("train", *args, "-n", "--json")
        assert done.exit_code == 0, done.output
        config = json.loads(done.stdout)["config"]
        return [config[key] for key in ("recipe", "model", "tile_size_px", "time_limit_s")], done.stderr

    arrays["meta"]["tile_size_px"] = 256
    for args in (("--gpus", "0"), ("--device", "cpu")):
        found, printed = plan(*args)
        assert found == ["cpu", "ggmnet-small", 128, 7200.0]
        (line,) = [line for line in printed.splitlines() if "--recipe cpu" in line]
        assert "at most 2.0 h (--time-limit)" in line
        assert "`gravmap train --gpus 0 --recipe default`" in line
    assert plan("--gpus", "0", "--time-limit", "90min")[0] == ["cpu", "ggmnet-small", 128, 5400.0]
    assert plan("--gpus", "0", "--epochs", "9")[0] == ["cpu", "ggmnet-small", 128, None]
    tiny = plan("--gpus", "0", "--recipe", "cpu", "--model", "ggmnet-tiny", "--size", "64")
    assert tiny[0] == ["cpu", "ggmnet-tiny", 64, 7200.0]
    assert "On a CPU the default" not in tiny[1]
    for args in (("--model", "ggmnet-tiny"), ("--size", "64", "--epochs", "1")):
        found, printed = plan("--gpus", "0", *args)
        assert (found[0], found[3]) == ("default", None)
        assert "On a CPU the default" not in printed


def test_weights_are_fine_tuned_on_their_own_channels_and_classes_alone(gravmap_in, arrays, tmp_path, monkeypatch):
    monkeypatch.setattr("gravmap.tiling.training_arrays.read_index", lambda tiles: {"channel": "residual_10km"})
    assert gravmap_in(*SHORT, "--name", "a").exit_code == 0
    (tmp_path / "runs" / "b").mkdir()
    # Quiet, nothing is measured before the old run is removed.
    tune = ("train", "-q", "--gpus", "0", "--init", "a", "--epochs", "1", "--name", "b", "--overwrite")
    for words in (("--input", "rgb"), ("--recipe", "paper")):
        done = gravmap_in(*tune, *words)
        assert done.exit_code == 2, done.output
        assert "a was trained with other channels: residual_10km; this run has rgb:residual_10km." in done.output
        assert "--input residual_10km." in done.output
    assert gravmap_in(*tune, "--recipe", "paper", "--input", "residual_10km", "-n").exit_code == 0
    arrays["meta"]["classes"][1]["name"] = "elsewhere"
    done = gravmap_in(*tune)
    assert done.exit_code == 3
    assert "elsewhere" in done.output
    assert not list((tmp_path / "runs" / "b").iterdir())


@pytest.mark.slow
def test_a_resumed_run_keeps_the_default_of_a_cpu(gravmap_in, tmp_path):
    done = gravmap_in("train", "--gpus", "0", "--epochs", "1", "--steps-per-epoch", "1")
    assert done.exit_code == 0, done.output
    (run,) = (tmp_path / "runs").glob("ggmnet-small-*")
    more = gravmap_in("train", "--gpus", "0", "--resume", "--epochs", "2")
    assert more.exit_code == 0, more.output
    config = json.loads((run / "last.json").read_text())["config"]
    assert [config[key] for key in ("recipe", "tile_size_px", "scales_deg", "epochs")] == ["cpu", 128, [2.0], 2]


def test_windows_that_train_are_counted(gravmap_in, arrays):
    """Not those that are held out, of another size, or without a label that may be seen."""
    arrays["window_scale_deg"][:2] = 1.0
    arrays["window_role"][8] = 2
    arrays["labels"] = arrays["labels"].copy()
    arrays["labels"][20:60, :40] = 0  # the window in the middle of the west
    done = gravmap_in(*SHORT, "-n", "--allow-leak")
    assert "; 7 training windows of 1deg, 2deg, " in done.output, done.output
    assert "leaks, accepted by --allow-leak" in done.output
    done = gravmap_in(*SHORT, "-n", "--allow-leak", "--window", "2deg")
    assert "; 5 training windows of 2deg, " in done.output


@pytest.mark.parametrize(
    ("args", "printed"),
    [
        (("--device", "cpu", "--gpus", "2"), "contradict"),
        (("--device", "cuda", "--gpus", "0"), "contradict"),
        (("--device", "cpu", "--model", "resnet"), "no model named 'resnet'"),
        (("--device", "cpu", "--time-limit", "15"), "not a duration"),
        (("--device", "cpu", "--name", "../away"), "not a valid name"),
        (("--device", "cpu", "--batch-size", "1"), "one crop"),
    ],
)
def test_invalid_options_are_refused(gravmap_in, args, printed):
    done = gravmap_in("train", *args)
    assert done.exit_code == 2, done.output
    assert printed in done.output


def test_a_time_limit_for_few_steps_is_warned_of():
    from gravmap.learning import make_config
    from gravmap.learning.training.state import TrainingCost
    from gravmap_cli.train_report import _estimate

    cost = TrainingCost(2.0, 50, 0.1, 10.0, 30.0, 64, measuring_s=10.0)
    for limit, steps in ((150, "50"), (3340, "1500")):
        text, seconds = _estimate(cost, make_config(time_limit_s=limit, epochs=600))
        assert f"scores included, which is about {steps} steps." in text
        assert ("teach a network little" in text) == (steps == "50")
        assert seconds == limit


def test_a_time_limit_is_read_with_its_unit(gravmap_in):
    done = gravmap_in(*SHORT, "--time-limit", "90s", "--epochs", "1000000", "--dry-run", "--json")
    assert json.loads(done.stdout)["config"]["time_limit_s"] == 90.0
    assert json.loads(done.stdout)["seconds"] == 90.0


def test_an_interrupted_run_keeps_what_it_has(gravmap_in, tmp_path, monkeypatch):
    from gravmap.learning.training.trainer import Trainer

    def stop(self, *args, **options):
        ended(self, *args, **options)
        if self.state.epoch == 1:
            raise KeyboardInterrupt

    ended = Trainer.end_epoch
    monkeypatch.setattr(Trainer, "end_epoch", stop)
    done = gravmap_in(*SHORT, "--name", "a")
    assert done.exit_code == 130
    assert (tmp_path / "runs" / "latest").read_text() == "a\n"
    monkeypatch.setattr(Trainer, "end_epoch", ended)
    other = gravmap_in(*SHORT, "--name", "a", "--lr", "0.1")
    assert other.exit_code == 3
    assert "gravmap train --resume --name a" in other.output
    (tmp_path / "runs" / "latest").write_text("b\n")
    weights = tmp_path / "runs" / "a" / "last.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-9])
    assert gravmap_in("train", "--device", "cpu", "--resume").exit_code == 3
    assert (tmp_path / "runs" / "latest").read_text() == "b\n"  # a resumed run that fails changes nothing
    weights.write_bytes(whole)
    same = gravmap_in(*SHORT, "--name", "a")
    assert same.exit_code == 0, same.output
    assert "a was stopped with the same options: it is resumed after its last whole epoch" in same.output
    assert (tmp_path / "runs" / "latest").read_text() == "a\n"
    # Complete now: the dry run refuses what the command refuses.
    complete = gravmap_in("train", "--device", "cpu", "--resume", "-n")
    assert complete.exit_code == 3
    assert "is complete" in complete.output
    assert gravmap_in(*SHORT, "--name", "a", "-n").exit_code == 3


def test_a_run_is_not_replaced_by_one_that_reads_it(gravmap_in, tmp_path):
    from gravmap.network.presets import tiny

    file = tmp_path / "runs" / "a" / "architecture.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(tiny(deform=False).to_dict()))
    done = gravmap_in("train", "--device", "cpu", "--architecture", str(file), "--name", "a", "--overwrite")
    assert done.exit_code == 3
    assert "is read by this command, and lies in" in done.output
    assert file.exists()


def test_options_override_a_recipe(gravmap_in, tmp_path, monkeypatch):
    monkeypatch.setattr("gravmap.tiling.training_arrays.read_index", lambda tiles: {"channel": "residual_10km"})

    def config_of(*args):
        done = gravmap_in("train", "--device", "cpu", "--model", "ggmnet-tiny", "--dry-run", "--json", *args)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)["config"], done.stderr

    ours, printed = config_of()
    assert (ours["recipe"], ours["schedule"], ours["epochs"], ours["patience"]) == ("default", "adam-sgd", 600, 100)
    assert "Recipe default: Adam, learning rate 0.001, then SGD at a plateau, between epochs 50 and 300." in printed
    papers, _ = config_of("--recipe", "paper", "--lr", "0.01", "--batch-size", "4")
    assert (papers["topk_base"], papers["lr"], papers["batch_size"], papers["epochs"]) == ("all", 0.01, 4, 600)
    assert papers["augmentation"]["picture"]
    assert gravmap_in.requested[-1] == (["residual_10km"], "random", 0)
    more, _ = config_of("--recipe", "paper", "--input", "residual_10km", "--split", "strict", "--precision", "bfloat16")
    assert (more["inputs"], more["precision"]) == (["residual_10km"], "bfloat16")
    assert gravmap_in.requested[-1] == (["residual_10km"], "strict", 0)
    short, printed = config_of("--time-limit", "60s")
    assert (short["schedule"], short["patience"]) == ("cosine", None)
    assert "cosine" in printed
    (tmp_path / "mine.toml").write_text('switch = "epoch:80"\nbatch_size = 6\nprecision = "bfloat16"\n')
    mine, printed = config_of("--recipe", str(tmp_path / "mine.toml"), "--precision", "float32")
    assert (mine["switch"], mine["batch_size"], mine["precision"]) == ("epoch:80", 6, "float32")
    assert "then SGD after epoch 80" in printed
    (tmp_path / "gravmap.toml").write_text('[train]\nrecipe = "paper"\nlr = 0.5\n')
    assert config_of()[0]["lr"] == 0.5


def test_a_recipe_that_does_not_exist_is_refused(gravmap_in, tmp_path):
    done = gravmap_in(*SHORT, "--recipe", "papers")
    assert done.exit_code == 2
    assert "default, paper" in done.output
    (tmp_path / "mine.toml").write_text("epoch = 3\n")
    done = gravmap_in(*SHORT, "--recipe", str(tmp_path / "mine.toml"))
    assert done.exit_code == 3
    assert "Did you mean 'epochs'?" in done.output


def test_a_resumed_run_keeps_its_recipe(gravmap_in, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('schedule = "adam-sgd"\nswitch = "epoch:1"\n')
    assert gravmap_in(*SHORT, "--name", "a", "--recipe", str(recipe)).exit_code == 0
    recipe.unlink()
    done = gravmap_in("train", "--device", "cpu", "--resume", "--epochs", "3")
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader((tmp_path / "runs" / "a" / "metrics.csv").open()))
    assert [row["phase"] for row in rows] == ["adam", "sgd", "sgd"]
    done = gravmap_in("train", "--device", "cpu", "--resume", "--epochs", "4", "--recipe", "paper")
    assert done.exit_code == 2
    assert "--recipe" in done.output


def test_classes_are_scored_one_by_one(gravmap_in):
    done = gravmap_in(*SHORT, "--name", "a")
    table = done.output[done.output.index("Scores by class on the test blocks") :].splitlines()[1:4]
    assert table[0].split() == ["nodes", "recall", "precision", "IoU"]
    assert [row.split()[0] for row in table[1:]] == ["west", "east"]
    assert len({len(row) for row in table}) == 1


def test_a_missing_tensorboard_is_reported_before_training(gravmap_in, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    done = gravmap_in(*SHORT, "--tensorboard")
    assert done.exit_code == 2
    assert "gravmap[tensorboard]" in done.output
    assert not (tmp_path / "runs").exists()


def test_tensorboard_gets_the_rows_of_the_csv(gravmap_in, tmp_path, monkeypatch):
    points = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            points.append((folder, purge_step))

        def add_scalar(self, name, value, epoch):
            points.append((name, value, epoch))

        def flush(self):
            pass

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    assert gravmap_in(*SHORT, "--tensorboard", "--name", "a").exit_code == 0
    assert points[0] == (str(tmp_path / "runs" / "a" / "tensorboard"), 1)
    rows = list(csv.DictReader((tmp_path / "runs" / "a" / "metrics.csv").open()))
    for column, curve in (("loss", "training/loss"), ("train_fwiou", "training/fwiou"), ("tune_miou", "tuning/miou")):
        assert [point[1:] for point in points if point[0] == curve] == [
            (float(row[column]), index + 1) for index, row in enumerate(rows)
        ]
