import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch

from gravmap.errors import DeviceError, InputError
from gravmap.learning import TrainConfig, load_model
from gravmap.learning.distributed import device_for, group_variables, launch
from gravmap.learning.sampler import Augmentation

SHORT = TrainConfig(model="ggmnet-tiny", epochs=1, steps=2, batch_size=4, lr=3e-3, seed=1)

# Two steps with frozen batch statistics (synchronised ones do not exist on a CPU), so that what a crop
# gives does not depend on its neighbours; the weights after them are those of every step's whole batch.
STEPS = textwrap.dedent("""
    import sys
    from dataclasses import replace
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from safetensors.torch import save_file
    from gravmap.learning import Area, TrainConfig
    from gravmap.learning.distributed import joined
    from gravmap.learning.run import Run
    folder = Path(sys.argv[1])
    with joined("cpu") as group:
        config = TrainConfig(model="ggmnet-tiny", batch_size=4, seed=1, hard_until=0.0)
        run = Run(Area.load(folder / "area.npz"), folder, config, group)
        run.begin_epoch()
        run.trained.eval()
        for index in range(2):
            run.progress = 0.05
            run.train_step(index, 0.0)
        losses = {"sums": run._sums.clone()}
        save_file(run.network.state_dict() | losses, folder / f"after-{group.size}-{group.rank}.safetensors")
""")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_processes(count, folder, environment):
    script = folder / "steps.py"
    script.write_text(STEPS)
    started = [
        subprocess.Popen([sys.executable, script, folder], env={**os.environ, **environment(rank)})
        for rank in range(count)
    ]
    assert [process.wait(timeout=120) for process in started] == [0] * count


def test_two_processes_with_two_crops_are_one_with_four(area, tmp_path):
    from safetensors.torch import load_file

    # One rank gets a crop without labels now and then, as small windows beside held-out blocks do.
    area.labels[:, :30] = 0
    area.save(tmp_path / "area.npz")
    port = str(free_port())
    run_processes(1, tmp_path, lambda rank: {})
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    run_processes(2, tmp_path, lambda rank: common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
    alone, first, second = (load_file(tmp_path / f"after-{name}.safetensors") for name in ("1-0", "2-0", "2-1"))
    torch.testing.assert_close(first["sums"], alone["sums"], rtol=1e-5, atol=0)
    for name, value in alone.items():
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
        if value.is_floating_point():
            torch.testing.assert_close(first[name], value, rtol=2e-3, atol=2e-5, msg=name)


def test_a_run_with_two_processes_from_start_to_end(area, tmp_path):
    told = []
    result = launch(area, tmp_path / "run", SHORT, 2, lambda done, total, note="": told.append((done, total)))
    assert result["epochs"] == 1
    assert result["test"]["places"] > 50
    assert told[-1] == (2, 2)
    network, spec = load_model(tmp_path / "run")
    assert spec.scores["test"] == result["test"]
    assert torch.isfinite(torch.cat([value.flatten().float() for value in network.state_dict().values()])).all()


def test_a_workers_error_comes_back_as_ours(area, tmp_path):
    with pytest.raises(InputError, match="of 5 degrees") as caught:
        launch(area, tmp_path / "run", TrainConfig(model="ggmnet-tiny", scales_deg=[5.0]), 2)
    assert caught.value.hint


def test_a_workers_bug_keeps_its_traceback(area, tmp_path):
    broken = TrainConfig(model="ggmnet-tiny", batch_size=4, augmentation=Augmentation(noise=(3.0,)))
    with pytest.raises(RuntimeError, match="uniform"):
        launch(area, tmp_path / "run", broken, 2)


def test_ctrl_c_ends_all(area, tmp_path):
    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)

    def listener(done, total, note=""):
        if done >= 2 and not pressed.is_set():
            pressed.set()
            threading.Timer(0.1, interrupt).start()

    pressed = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    long = TrainConfig(model="ggmnet-tiny", epochs=1000, steps=5, batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        launch(area, tmp_path / "run", long, 2, listener)
    assert signal.getsignal(signal.SIGINT) is before
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and workers_of(tmp_path):
        time.sleep(0.1)
    assert not workers_of(tmp_path)


def workers_of(folder):
    """Children of this process that still run spawned Python."""
    children = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = open(f"/proc/{entry}/stat").read().rsplit(")", 1)[1].split()
                command = open(f"/proc/{entry}/cmdline").read()
            except OSError:
                continue
            if fields[1] == str(os.getpid()) and fields[0] != "Z" and "spawn_main" in command:
                children.append(entry)
    return children


def test_where_to_train():
    assert device_for(None, None, 4) == ("cuda", 4)
    assert device_for(2, None, 4) == ("cuda", 2)
    assert device_for(None, "cuda", 1) == ("cuda", 1)
    assert device_for(0, None, 4) == ("cpu", 1)
    assert device_for(None, "cpu", 4) == ("cpu", 1)


@pytest.mark.parametrize(("gpus", "found", "hint"), [(4, 0, "--gpus 0"), (None, 0, "--device cpu"), (4, 1, "--gpus 1")])
def test_too_few_devices_name_the_flag_that_runs(gpus, found, hint):
    with pytest.raises(DeviceError) as caught:
        device_for(gpus, None, found)
    assert caught.value.exit_status == 5
    assert hint in caught.value.hint


def test_groups_that_others_started():
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
