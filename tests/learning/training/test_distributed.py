import csv
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from gravmap.errors import DeviceError, InputError
from gravmap.learning import RegionDataset, TrainConfig, load_model, train
from gravmap.learning.calibration.applicability import read_area_of_applicability
from gravmap.learning.calibration.temperature import read_calibration
from gravmap.learning.sampling.augmentation import Augmentation
from gravmap.learning.training.distributed import Group, choose_device, group_variables, process_group
from gravmap.learning.training.launch import launch
from gravmap.learning.training.trainer import Trainer
from toys.dataset import make_arrays
from toys.processes import running_workers

SHORT = TrainConfig(model="ggmnet-tiny", epochs=1, steps=2, batch_size=4, lr=3e-3, seed=1)


def curve(folder):
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    return [tuple(float(row[name]) for name in ("loss", "train_fwiou", "tune_fwiou")) for row in rows]


# Batch statistics are frozen: synchronised ones do not exist on a CPU. Optimisers change in between, and all
# processes change together.
ALIKE = dataclasses.replace(SHORT, epochs=2, steps=12, freeze_statistics=True, schedule="adam-sgd", switch="epoch:1")


@pytest.fixture(scope="module")
def uneven():
    """Some crops have few labels, so that a mean of the processes' means would be another number."""
    arrays = make_arrays()
    arrays["labels"][:, :30] = 0
    return RegionDataset.from_arrays(arrays)


@pytest.fixture(scope="module")
def alone(uneven, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    return folder, train(uneven, folder, ALIKE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "victim",
    [None, 0, 1],
    ids=["nobody dies", "the first dies", "the second dies"],
)
def test_two_processes_with_two_crops_are_one_with_four(uneven, alone, tmp_path, caplog, victim):
    """Also when one of them is killed, which costs no more than its epoch."""
    folder, expected = alone
    reports, killed = [], []

    def listener(done, total, note=""):
        reports.append((done, total))
        # Far from the end of the second epoch: progress arrives five times a second.
        if victim is not None and "epoch 2/2" in note and not killed:
            killed.append(sorted(running_workers(), key=int)[victim])
            os.kill(int(killed[0]), signal.SIGKILL)

    shared = launch(uneven, tmp_path / "two", ALIKE, 2, listener)
    assert reports[-1][0] == reports[-1][1] > 24  # steps, and windows of the scores
    assert len(killed) == (victim is not None)
    assert ("was ended by SIGKILL; resuming after the last complete epoch" in caplog.text) is bool(killed)
    np.testing.assert_allclose(curve(tmp_path / "two"), curve(folder), rtol=1e-4)
    assert shared["test"]["places"] == expected["test"]["places"] > 50
    np.testing.assert_allclose(shared["test"]["confusion"], expected["test"]["confusion"], atol=1)
    # The final evaluation is of the same data, and written once.
    records = [read_calibration(path).record for path in (folder, tmp_path / "two")]
    assert records[0]["temperatures"] == pytest.approx(records[1]["temperatures"], rel=1e-2)
    for role in ("tune", "test"):
        assert records[0][role]["nodes"] == records[1][role]["nodes"]
        assert records[0][role]["after"]["nll"] == pytest.approx(records[1][role]["after"]["nll"], rel=1e-3)
    assert np.array_equal(*(read_area_of_applicability(path).training_features for path in (folder, tmp_path / "two")))
    one, other = (load_model(path)[0].state_dict() for path in (folder, tmp_path / "two"))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=2e-3, atol=1e-4)


@pytest.mark.slow
def test_processes_without_synchronised_statistics_still_agree(area, tmp_path):
    result = launch(area, tmp_path / "run", SHORT, 2)
    network, spec = load_model(tmp_path / "run")
    assert spec.scores["test"] == result["test"]
    assert torch.isfinite(torch.cat([value.flatten().float() for value in network.state_dict().values()])).all()


@pytest.mark.parametrize("frozen", [False, True])
def test_statistics_of_each_process_are_said(area, tmp_path, caplog, monkeypatch, frozen):
    """One and two processes train other networks on a CPU, unless statistics are frozen."""
    monkeypatch.setattr(Trainer, "train_step", lambda *arguments, **options: 1 / 0)
    trainer = Trainer(area, tmp_path, dataclasses.replace(SHORT, freeze_statistics=frozen), Group(size=2))
    with pytest.raises(ZeroDivisionError):
        trainer.fit()
    assert ("Each of the 2 CPU processes normalises its own crops" in caplog.text) is not frozen


# What torchrun does: a process each, with the group in its variables.
JOINING = """
import sys
from pathlib import Path
from gravmap.learning import RegionDataset, TrainConfig, train
from gravmap.learning.training.distributed import process_group
folder = Path(sys.argv[1])
config = TrainConfig(model="ggmnet-tiny", epochs=1, steps=2, batch_size=4, seed=1)
with process_group("cpu") as group:
    run = Path(group.broadcast(str(folder / f"run-of-{group.rank}")))
    print(train(RegionDataset.load(folder / "area.npz"), run, config, group=group)["test"])
"""


@pytest.mark.slow
def test_processes_started_by_torchrun_join(area, tmp_path):
    area.save(tmp_path / "area.npz")
    (tmp_path / "joining.py").write_text(JOINING)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    group = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        subprocess.Popen(
            [sys.executable, tmp_path / "joining.py", tmp_path],
            env={**group, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    reports = [process.communicate(timeout=180)[0] for process in started]
    assert reports[0] == reports[1]
    assert "confusion" in reports[0]
    assert sorted(path.name for path in tmp_path.glob("run*")) == ["run-of-0"]


@pytest.mark.slow
def test_an_error_of_a_worker_is_raised_in_the_parent(area, tmp_path):
    with pytest.raises(InputError, match="of 5 degrees") as caught:
        launch(area, tmp_path / "run", TrainConfig(model="ggmnet-tiny", scales_deg=[5.0]), 2)
    assert caught.value.hint


@pytest.mark.slow
def test_a_workers_bug_keeps_its_traceback(area, tmp_path):
    broken = TrainConfig(model="ggmnet-tiny", batch_size=4, augmentation=Augmentation(noise=(3.0, 1.0)))
    with pytest.raises(RuntimeError, match="high - low"):
        launch(area, tmp_path / "run", broken, 2)


@pytest.mark.slow
def test_ctrl_c_ends_all(area, tmp_path):
    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)

    def listener(done, total, note=""):
        if done >= 2 and not pressed.is_set():
            assert len(running_workers()) == 2
            pressed.set()
            pressed.at = time.monotonic()
            threading.Timer(0.1, interrupt).start()

    pressed = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    long = TrainConfig(model="ggmnet-tiny", epochs=1000, steps=5, batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        launch(area, tmp_path / "run", long, 2, listener)
    assert time.monotonic() - pressed.at < 10
    assert signal.getsignal(signal.SIGINT) is before
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and running_workers():
        time.sleep(0.1)
    assert not running_workers()


def test_the_device_is_chosen():
    assert choose_device(None, None, 4) == ("cuda", 4)
    assert choose_device(2, None, 4) == ("cuda", 2)
    assert choose_device(None, "cuda", 1) == ("cuda", 1)
    assert choose_device(0, None, 4) == ("cpu", 1)
    assert choose_device(None, "cpu", 4) == ("cpu", 1)


@pytest.mark.parametrize(("gpus", "found", "hint"), [(4, 0, "--gpus 0"), (None, 0, "--device cpu"), (4, 1, "--gpus 1")])
def test_too_few_devices_name_the_flag_that_runs(gpus, found, hint):
    with pytest.raises(DeviceError) as caught:
        choose_device(gpus, None, found)
    assert caught.value.exit_status == 5
    assert hint in caught.value.hint


def test_groups_of_torchrun_and_slurm_are_recognised():
    torchrun = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "n1", "MASTER_PORT": "29500"}
    assert group_variables({**torchrun, "HOME": "/"}) == torchrun
    assert group_variables({"HOME": "/"}) is None
    slurm = {
        "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1",
        "SLURM_STEP_NODELIST": "gpu[07-08,11]", "SLURM_JOB_ID": "123456",
    }  # fmt: skip
    assert group_variables(slurm) == {
        "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu07", "MASTER_PORT": "23456",
    }  # fmt: skip
    assert group_variables({**slurm, "SLURM_STEP_NODELIST": "node3"})["MASTER_ADDR"] == "node3"
    # A batch script without srun is one process, whatever was reserved.
    assert group_variables({**slurm, "SLURM_STEP_NUM_TASKS": "1"}) is None
    del slurm["SLURM_STEP_NUM_TASKS"]
    assert group_variables(slurm) is None
    # The name of the first node: up to the first comma between names, with the first number of each range.
    for nodes, first in [
        ("r[1-2]n[07-08,11],r3n1", "r1n07"),
        ("login,gpu[1-2]", "login"),
        ("a-b.c[03]-ib", "a-b.c03-ib"),
    ]:
        assert (
            group_variables({**slurm, "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NODELIST": nodes})["MASTER_ADDR"]
            == first
        )


# The second of two tasks on the second of two nodes; a job that shows each task one GPU sets no other variable.
SRUN = {
    "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "123456",
}  # fmt: skip
# srun started one torchrun on each of the two nodes, with two processes.
SRUN_TORCHRUN = {
    **SRUN, "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0", "TORCHELASTIC_RUN_ID": "none",
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu07", "MASTER_PORT": "29500",
}  # fmt: skip


@pytest.fixture
def cuda_group(monkeypatch):
    """Join a group of CUDA processes in an environment; return the group, and what was called in which order."""

    def run(environment, devices):
        for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_"))]:
            monkeypatch.delenv(name)
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.setenv(name, "")  # the group sets it, and monkeypatch restores it
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        ones = torch.ones
        monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(("set_device", device.index)))
        monkeypatch.setattr(torch, "ones", lambda *shape, device: ones(*shape))
        monkeypatch.setattr(torch.distributed, "init_process_group", init)
        monkeypatch.setattr(
            torch.distributed, "all_reduce", lambda tensor: calls.append(("all_reduce", tensor.numel()))
        )
        monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
        with process_group("cuda") as group:
            return group, calls

    def init(backend, *, rank, world_size, timeout, device_id):
        calls.append((backend, rank, world_size, device_id.index))
        if run.fails:
            raise torch.distributed.DistBackendError(run.fails)

    calls, run.fails = [], None
    return run


@pytest.mark.parametrize(
    ("environment", "devices", "device"),
    [(SRUN, 1, 0), (SRUN, 2, 1), (SRUN_TORCHRUN, 2, 1)],
    ids=["one GPU visible per task", "all GPUs visible to each task", "torchrun in srun"],
)
def test_usual_ways_to_start_with_slurm(cuda_group, environment, devices, device):
    """The GPU is chosen and NCCL connected to it, before training takes its memory."""
    group, calls = cuda_group(environment, devices)
    assert (group.rank, group.size, group.device) == (3, 4, torch.device("cuda", device))
    assert calls == [("set_device", device), ("nccl", 3, 4, device), ("all_reduce", 1)]


@pytest.mark.parametrize(
    ("environment", "devices", "hint"),
    [(SRUN_TORCHRUN, 1, "Start 1 process"), (SRUN, 0, "--device cpu")],
)
def test_more_processes_than_gpus_are_refused(cuda_group, environment, devices, hint):
    with pytest.raises(DeviceError, match="Process 1 of this machine has no GPU") as caught:
        cuda_group(environment, devices)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("invalid usage. Duplicate GPU detected : rank 3 and rank 2", "the same GPU as another", "--gpus-per-task=1"),
        ("socketStartConnect: timed out", "could not be connected .* gpu07:23456: socketStart", "NCCL_SOCKET_IFNAME"),
    ],
)
def test_a_group_that_does_not_connect_says_why(cuda_group, text, message, hint):
    cuda_group.fails = text
    with pytest.raises(DeviceError, match=message) as caught:
        cuda_group(SRUN, 1)
    assert hint in caught.value.hint
