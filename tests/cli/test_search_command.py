"""`gravmap search`: its files for the other commands, its output, and what it refuses."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from gravmap.errors import GravmapError
from gravmap.learning.training.trainer import Trainer
from gravmap.network.presets import tiny
from gravmap.search import loop
from gravmap.search.config import SearchConfig
from gravmap.search.space import SearchSpace
from gravmap.search.supernet import Supernet
from gravmap_cli import gravmap
from toys.dataset import make_arrays

SHORT = (
    "search", "--device", "cpu", "--thin", "--depth", "3", "--size", "64", "--batch-size", "2",
    "--steps-per-epoch", "1",    "--pretrain-epochs", "1", "--epochs", "1",
)  # fmt: skip
TRIALS = ("--compare-epochs", "1", "--compare-steps", "1", "--compare-seeds", "1")


def narrow(depth):
    thin = tiny()
    return SearchSpace(depth, (1, 2), encoder=thin.encoder, head=thin.head, arm_norm=thin.arm_norm)


class Place:
    """A workspace whose tile set is `arrays`."""

    def __init__(self, root, arrays):
        self.root, self.arrays = root, arrays
        (root / "data" / "tiles").mkdir(parents=True)
        (root / "data" / "tiles" / "index.json").write_text("{}")

    def __call__(self, *args):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("gravmap.tiling.load_arrays", lambda folder, **options: self.arrays)
            # Two narrow widths to choose from instead of four: a fiftieth of the weights.
            patch.setattr(SearchConfig, "space", property(lambda config: narrow(config.depth)))
            return CliRunner().invoke(gravmap, ["-w", str(self.root), *args])


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path, make_arrays())


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A workspace where a search was made, with random architectures and a comparison beside."""
    place = Place(tmp_path_factory.mktemp("workspace"), make_arrays())
    done = place(*SHORT, "--name", "one", "--random", "1", "--compare", *TRIALS, "--json")
    assert done.exit_code == 0, done.output
    return place, done


def test_a_search_from_beginning_to_end(searched):
    place, done = searched
    run = place.root / "runs" / "one"
    assert {path.name for path in run.iterdir()} == {
        "architecture.json", "architecture.png", "architecture.md", "search.json", "metrics.csv", "entropies.png",
        "last.safetensors", "last.json", "random", "compare", "compare.json", "compare.md",
    }  # fmt: skip
    for picture in ("architecture.png", "entropies.png"):
        assert (run / picture).read_bytes().startswith(b"\x89PNG")
    assert "| all | " in (run / "architecture.md").read_text()
    reported = json.loads(done.stdout)
    assert reported["complete"]
    assert reported["comparison"] == json.loads((run / "compare.json").read_text())
    assert reported["random"] == [str(run / "random" / "00.json")]
    assert "measured here: about" in done.stderr
    assert "in two halves" in done.stderr
    assert "gravmap train --architecture" in done.stderr
    assert reported["comparison"]["told"] in done.stderr
    # No network, so nothing that `predict` would take for the newest.
    assert not (place.root / "runs" / "latest").exists()


def test_train_reads_the_architecture_and_predict_refuses_a_search(searched, tmp_path):
    place, _ = searched
    file = place.root / "runs" / "one" / "architecture.json"
    other = Place(tmp_path, make_arrays())
    short = ("--size", "64", "--epochs", "1", "--steps-per-epoch", "1", "--batch-size", "2", "--device", "cpu")
    done = other("train", "--architecture", str(file), *short, "--name", "made")
    assert done.exit_code == 0, done.output
    model = json.loads((tmp_path / "runs" / "made" / "model.json").read_text())
    assert model["architecture"] == json.loads(file.read_text())
    (place.root / "data" / "fields.nc").touch()
    refused = place("predict", "--region", "junggar", "--run", "one")
    assert refused.exit_code == 3
    assert "one is an architecture search" in refused.output
    assert f"gravmap train --architecture {file}" in refused.output
    # A search is no run that training could go on with.
    assert "No run in" in place("train", "--resume").output


def test_a_complete_search_is_only_compared_again(searched, monkeypatch):
    place, _ = searched
    again = place("search", "--resume")  # where it began
    assert again.exit_code == 3
    assert "The search one is complete" in again.output
    monkeypatch.setattr(loop, "search", None)
    monkeypatch.setattr(Trainer, "fit", None)
    done = place("search", "--resume", "--name", "one", "--device", "cpu", "--compare", *TRIALS)
    assert done.exit_code == 0, done.output
    for name in ("searched", "random-00"):
        assert f"  {name} " in done.output


@pytest.mark.parametrize(
    ("words", "status", "printed"),
    [
        (("--name", "one"), 3, "exists already"),
        (("--resume", "--depth", "4"), 2, "--depth: 3"),
        (("--resume", "--seed", "7"), 2, "--seed: 0"),
        (("--resume", "--name", "two"), 3, "There is no search 'two'"),
        (("--name", "a/b"), 2, "not a valid name"),
        (("--depth", "2"), 2, "not in the range"),
        (("--gpus", "1"), 2, "contradict"),
        (("--batch-size", "1"), 2, "not in the range"),
        (("--input", "magnetics"), 3, "no field 'magnetics'"),
        (("--window", "9deg"), 3, "labelled windows in both halves"),
    ],
)
def test_invalid_options_are_refused(searched, words, status, printed):
    place, _ = searched
    done = place("search", "--device", "cpu", *words)
    assert done.exit_code == status, done.output
    assert printed in done.output
    assert "Traceback" not in done.output


def test_without_a_gpu_only_a_dry_run_is_possible(place, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    refused = place("search")
    assert refused.exit_code == 5
    assert "--device cpu --thin" in refused.output
    done = place("search", "--dry-run", "--thin", "--depth", "3", "--json")
    assert done.exit_code == 0, done.output
    assert "an ESTIMATE, not measured" in done.stderr
    reported = json.loads(done.stdout)
    assert reported["gpu_seconds_estimated"] > 0
    assert reported["parameters"] == sum(each.numel() for each in Supernet(narrow(3), 1, 2).parameters())
    assert reported["memory_bytes"] > 12 * reported["parameters"]
    assert not (place.root / "runs").exists()


def test_a_dataset_that_cannot_be_halved_and_missing_tiles_are_refused(place):
    labels = np.zeros_like(place.arrays["labels"])
    labels[:3, :3] = 1
    place.arrays = {**place.arrays, "labels": labels}
    done = place(*SHORT)
    assert done.exit_code == 3
    assert "a search needs two halves" in done.output
    (place.root / "data" / "tiles" / "index.json").unlink()
    done = place(*SHORT)
    assert done.exit_code == 3
    assert "gravmap tile" in done.output


def test_several_gpus_are_several_processes(place, monkeypatch):
    """GPUs that do not exist are refused; a dry run without them estimates the share of one."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    launched = []

    def launch(dataset, run_dir, config, processes, progress, **options):
        launched.append((config.device, config.batch_size, processes, options))
        raise GravmapError("Far enough.")

    monkeypatch.setattr(loop, "launch_search", launch)
    options = [word for word in SHORT if word not in ("--device", "cpu")]
    assert "Far enough." in place(*options, "--gpus", "2", "--name", "two").output
    assert launched == [("cuda", 2, 2, {"resume": False})]
    refused = place(*options, "--gpus", "3", "--name", "three")
    assert refused.exit_code == 5
    assert "--gpus 3 was requested, but 2 CUDA device(s) were found.\nUse --gpus 2." in refused.output
    kept = place.root / "runs" / "two" / "kept.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("{}")
    refused = place(*options, "--gpus", "2", "--batch-size", "3", "--name", "two", "--overwrite")
    assert refused.exit_code == 2
    assert "A batch of 3 crops cannot be divided among 2 processes" in refused.output
    assert kept.exists()
    planned = place(*options, "--gpus", "3", "--batch-size", "6", "-n", "--json")
    assert planned.exit_code == 0, planned.output
    assert json.loads(planned.stdout)["config"]["batch_size"] == 6
    assert "activations of 2 crops it needs about" in planned.stderr
    assert "on each GPU" in planned.stderr
