"""A run that was killed and resumed equals an uninterrupted one."""

import dataclasses
import functools
import json
import os
import random
import resource
import shutil
import signal
import threading

import pytest
import safetensors.torch

from gravmap.errors import GravmapError, InputError
from gravmap.learning import TrainConfig
from gravmap.learning import train as train_and_draw
from gravmap.learning.training import checkpoint
from gravmap.learning.training.checkpoint import read_pair
from gravmap.network.presets import tiny
from toys.processes import forked

train = functools.partial(train_and_draw, pictures=False)  # drawing takes longer than a few steps

# Without deformable convolutions, which on a CPU are most of a step and keep no state of their own.
# Adam for two epochs, then SGD with a warm-up of one and a step down after two.
TWO = TrainConfig(
    model="tiny", architecture=tiny(deform=False).to_dict(), epochs=5, steps=2, batch_size=2, seed=1, lr=3e-3,
    schedule="adam-sgd", switch="epoch:2",
    sgd_warmup_epochs=1.0, sgd_milestones=(2,), topk_warmup=0.3,
)  # fmt: skip


def outcome(folder):
    """Everything a run results in: tensors, history without times, and scores."""
    tensors, record = read_pair(folder, "last")
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in record["history"]]
    kept, _ = read_pair(folder, "model")
    scores = json.loads((folder / "scores.json").read_text())
    del scores["seconds"]
    return (
        {name: value.numpy().tobytes() for name, value in {**tensors, **kept}.items()},
        rows,
        scores,
        (record["phase"], record["phase_began"], record["step"]),
    )


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def go(area, folder, config=TWO, listener=lambda done, total, note="": None):
    resume = (folder / "last.json").exists() or (folder / "last.safetensors").exists()
    train(area, folder, config, listener, resume=resume)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    from gravmap.learning import RegionDataset
    from toys.dataset import make_arrays

    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    train(RegionDataset.from_arrays(make_arrays()), folder, TWO)
    return outcome(folder)


def test_the_uninterrupted_run_switches_optimizers(uninterrupted):
    tensors, rows, _, where = uninterrupted
    assert [row["phase"] for row in rows] == ["adam", "adam", "sgd", "sgd", "sgd"]
    # The learning rate of each epoch's last step.
    assert [row["lr"] for row in rows] == pytest.approx([3e-3, 3e-3, 3e-3 * 0.55, 3e-3, 3e-4])
    assert where == ("sgd", 2, 10)
    assert any(name.endswith("momentum_buffer") for name in tensors)
    assert not any(name.endswith("exp_avg") for name in tensors)


@pytest.mark.slow
def test_killed_at_a_step_and_at_random_moments(area, tmp_path, uninterrupted):
    folder = tmp_path / "run"

    def at_random():
        # Anywhere: within a step, while scoring, while writing.
        threading.Timer(random.SystemRandom().uniform(0.05, 0.8), die).start()
        go(area, folder)

    killed = forked(lambda: go(area, folder, listener=lambda done, total, note="": done == 5 and die()))
    assert killed == [-signal.SIGKILL]
    assert read_pair(folder, "last")[1]["epoch"] == 2  # SGD has taken over, and taken one step that is lost
    for _ in range(4):
        if not (folder / "scores.json").exists():
            forked(at_random)
    if not (folder / "scores.json").exists():
        go(area, folder)
    assert outcome(folder) == uninterrupted


@pytest.mark.parametrize(("where", "epoch"), [("in the weights", 3), ("between the files", 2)])
def test_killed_while_the_checkpoint_is_written(area, tmp_path, monkeypatch, uninterrupted, where, epoch):
    folder = tmp_path / "run"
    save, write = safetensors.torch.save_file, checkpoint.write_json

    def half(tensors, path, metadata):
        save(tensors, path, metadata=metadata)
        if "last" in path.name and json.loads(metadata["gravmap"])["epoch"] == epoch:
            os.truncate(path, path.stat().st_size // 2)
            die()

    def never(path, value):
        if path.name == "last.json" and value["epoch"] == epoch:
            die()
        write(path, value)

    def killed():
        if where == "in the weights":
            safetensors.torch.save_file = half
        else:
            checkpoint.write_json = never
        go(area, folder)

    assert forked(killed) == [-signal.SIGKILL]
    # The old state, whole, or the new one from the weights' own header.
    assert read_pair(folder, "last")[1]["epoch"] == (epoch - 1 if where == "in the weights" else epoch)
    go(area, folder)
    assert outcome(folder) == uninterrupted
    assert not list(folder.glob(".*"))


def test_a_full_disk_leaves_the_old_checkpoint(area, tmp_path, uninterrupted):
    folder = tmp_path / "run"

    def filled(done, total, note=""):
        if done == 6:  # in the third epoch: from now on the kernel writes nothing longer than 100 kB
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    def full():
        shutil.disk_usage = lambda path: shutil._ntuple_diskusage(10**9, 10**9, 0)
        try:
            go(area, folder, listener=filled)
        except GravmapError as error:
            return str(error)

    assert "The disk is full" in forked(full)[0]
    assert read_pair(folder, "last")[1]["epoch"] == 2
    assert not list(folder.glob(".*"))
    go(area, folder)
    assert outcome(folder) == uninterrupted


def test_a_checkpoint_of_another_version_is_refused(area, tmp_path):
    folder = tmp_path / "run"
    train(area, folder, dataclasses.replace(TWO, epochs=1))
    tensors, record = read_pair(folder, "last")
    for key in ("phase_began", "phase", "weights_sha256"):
        record.pop(key, None)
    record["versions"]["gravmap"] = "0.0.7"
    checkpoint.write_pair(folder, "last", tensors, record)
    with pytest.raises(InputError, match=r"written by gravmap 0\.0\.7, does not fit"):
        train(area, folder, TWO, resume=True)


def test_a_checkpoint_of_another_network_is_refused(area, tmp_path):
    train(area, tmp_path / "run", dataclasses.replace(TWO, epochs=1))
    with pytest.raises(InputError, match="does not fit"):
        train(area, tmp_path / "run", dataclasses.replace(TWO, model="unet", architecture=None), resume=True)
