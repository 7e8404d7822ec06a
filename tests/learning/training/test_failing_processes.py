"""Training processes that fail, are killed or hang: what the user sees, how soon, and that none is left."""

import csv
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gravmap.errors import GravmapError, OptionError
from gravmap.files import write_json
from gravmap.learning import TrainConfig
from gravmap.learning.training import distributed
from gravmap.learning.training.distributed import Group
from gravmap.learning.training.launch import KilledError, _first_errors, launch, run_in_processes
from gravmap.learning.training.watch import STEP_TIMEOUT, PeerError, Watch
from gravmap_cli import gravmap
from toys import faults
from toys.faults import Fault, killed_second
from toys.processes import forked, in_group, running_workers
from toys.workspace import call, make_tiled

SOON_S = 20.0
TWELVE = TrainConfig(model="ggmnet-tiny", epochs=2, steps=6, batch_size=8, seed=1)


@pytest.fixture
def failing(area, tmp_path, monkeypatch):
    """Launch a training with a fault; return the error and the seconds from the fault's last step to it."""

    def run(fault, processes=2):
        last = time.monotonic()

        def listener(done, total, note=""):
            nonlocal last
            last = time.monotonic()

        monkeypatch.setattr("gravmap.learning.training.launch._worker", fault)
        with pytest.raises((GravmapError, RuntimeError)) as caught:
            launch(area, tmp_path / "run", TWELVE, processes, listener)
        seconds = time.monotonic() - last
        assert not running_workers()
        return caught.value, seconds

    return run


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_the_error_of_the_process_that_fails_is_the_users(failing, processes):
    """Whichever it is, and wherever in the training; the others only lose their connection."""
    rank, step = np.random.default_rng(processes).integers((processes, 12))
    error, seconds = failing(Fault("raise", int(rank), int(step)), processes)
    assert f"ZeroDivisionError: process {rank} fails at step {step}" in str(error)
    assert seconds < SOON_S


@pytest.mark.slow
def test_a_process_that_aborts_itself_is_not_started_again(failing, caplog):
    error, seconds = failing(Fault("abort", 1, 3))
    assert "Process 1 aborted" in str(error)
    assert "restarting" not in caplog.text
    assert seconds < SOON_S


@pytest.mark.slow
def test_a_process_that_hangs_says_where(failing):
    error, seconds = failing(Fault("hang", 1, 8, timeout_s=8.0))
    assert re.search(r"Process 1 has made no progress for \d+ s in epoch 2, step 3, at .*faults.py:\d+", str(error))
    assert "--resume" in error.hint
    assert STEP_TIMEOUT in error.hint
    assert seconds < SOON_S


@pytest.mark.slow
def test_a_process_that_is_frozen_is_missed_by_the_others(failing):
    error, _ = failing(Fault("freeze", 0, 8, timeout_s=2.0))  # torch waits 30 s for it to end
    assert "Process 1 has waited" in str(error)
    assert "for the other processes in epoch 2, step 3" in str(error)


@pytest.mark.slow
def test_a_process_that_a_signal_ends_is_named_with_what_to_do_next():
    with pytest.raises(KilledError, match="Process 1 was ended by SIGKILL") as caught:
        run_in_processes(killed_second, (), "cpu", 2, resume="Start it again.")
    assert caught.value.hint.endswith("Start it again.")
    assert not running_workers()


@pytest.mark.slow
def test_no_process_outlives_the_one_that_started_it(tmp_path):
    """Two commands would write one folder otherwise: a lock ends with its process."""
    main = subprocess.Popen(
        [sys.executable, Path(faults.__file__), tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(faults.__file__).parents[1]), *sys.path])},
    )
    try:
        pids = [tmp_path / f"{rank}.pid" for rank in range(2)]
        wait_until(lambda: all(path.exists() and path.read_text() for path in pids), 60)
    finally:
        main.kill()
        main.communicate()
    wait_until(lambda: not any(Path(f"/proc/{path.read_text()}").exists() for path in pids), SOON_S)


def wait_until(holds, seconds):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_first_error_that_is_no_consequence_is_reported(tmp_path):
    for order, (rank, kind) in enumerate([(1, "PeerError"), (2, None), (0, "InputError")]):
        path = tmp_path / f"error-{rank}.json"
        write_json(path, {"type": kind, "message": f"of {rank}", "hint": None, "traceback": ""})
        os.utime(path, ns=(order, order))
    cause, consequence = _first_errors(tmp_path)
    assert (type(cause), str(cause).strip()) == (RuntimeError, "of 2")
    assert str(consequence) == "of 1"


def fails_second(group):
    if group.rank == 1:
        raise ZeroDivisionError("the cause")
    started = time.monotonic()
    try:
        group.sum_array(np.zeros(1, np.float32))
    except PeerError as error:
        return str(error), time.monotonic() - started
    return None


def test_the_end_of_another_process_is_told_from_a_bug():
    (message, seconds), status = forked(*in_group(fails_second))
    assert "Process 0 lost its connection to another process" in message
    assert seconds < SOON_S
    assert status == 1


def test_a_group_is_destroyed_after_success_only(monkeypatch):
    """With NCCL destroying it can wait for the processes that wait for the one that failed."""
    for name, value in zip(distributed._TORCHRUN, ("0", "1", "0", "127.0.0.1", "29500"), strict=True):
        monkeypatch.setenv(name, value)
    destroyed, statuses = [], []
    monkeypatch.setattr(distributed, "_connect", lambda *_: None)
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: destroyed.append(True))
    with pytest.raises(ZeroDivisionError), distributed.process_group("cpu"):
        raise ZeroDivisionError
    assert not destroyed
    monkeypatch.setattr(distributed.os, "_exit", statuses.append)
    distributed.leave(3)
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    distributed.leave(4)
    assert statuses == [4]
    with distributed.process_group("cpu"):
        pass
    assert destroyed


def test_the_command_line_reports_before_it_leaves_a_group(tmp_path, monkeypatch):
    printed = []
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed.os, "_exit", lambda status: printed.append((status, sys.stderr.getvalue())))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with pytest.raises(SystemExit):
        gravmap.main(["-w", str(tmp_path), "train", "--device", "cpu", "--resume"])
    ((status, said),) = printed
    assert status == 3
    assert "can be resumed" in said


@pytest.fixture
def watched(monkeypatch):
    """Watch with a limit of 0.2 s a step; `reported` has its error."""
    monkeypatch.setenv(STEP_TIMEOUT, "0.2")
    reported = []
    monkeypatch.setattr(distributed.os, "_exit", lambda status: watch.stop())
    watch = Watch(3, reported.append)
    yield watch, reported
    watch.stop()


def test_first_steps_and_scores_may_take_longer(watched):
    watch, reported = watched
    group = Group(rank=3, watch=watch)
    group.at("epoch 1, step 1", step=True)  # may compile
    time.sleep(0.1)
    group.at("the scores of epoch 1")
    time.sleep(0.5)
    group.at("epoch 2, step 1", step=True)  # ten times the step before
    time.sleep(0.6)
    assert not reported
    group.at("epoch 2, step 2", step=True)
    group.at("epoch 2, step 3", step=True)
    time.sleep(0.6)
    (error,) = reported
    assert "Process 3 has made no progress" in error.message
    assert "in epoch 2, step 3" in error.message
    assert not isinstance(error, PeerError)


def test_who_waits_gives_the_process_that_hangs_time_to_speak(watched):
    watch, reported = watched
    watch.at("epoch 1, step 1", step=True)
    watch.at("epoch 1, step 2", step=True)
    with watch.waiting():
        pass
    assert watch._limit_s() == pytest.approx(0.3)  # CUDA goes on waiting after the call
    time.sleep(0.6)
    assert isinstance(reported[0], PeerError)
    assert "has waited" in reported[0].message


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan"])
def test_an_invalid_timeout_is_refused(monkeypatch, text):
    monkeypatch.setenv(STEP_TIMEOUT, text)
    with pytest.raises(OptionError, match=STEP_TIMEOUT):
        Watch(0, print)


RECIPE = 'base = "default"\nfreeze_statistics = true\n'


def curve(run):
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    return [[float(row[name]) for name in ("epoch", "loss", "train_fwiou", "tune_fwiou")] for row in rows]


def descendants(parent):
    """Process ids of all that run below one."""
    found = []
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        found += [int(child), *descendants(child)]
    return found


@pytest.mark.slow
def test_two_machines_of_which_one_is_lost_and_comes_back(tmp_path):
    """Two torchrun agents on this one, with two processes each, train the network of one process."""
    make_tiled(tmp_path)
    (tmp_path / "frozen.toml").write_text(RECIPE)
    words = (
        "train", "--device", "cpu", "--model", "ggmnet-tiny", "--recipe", tmp_path / "frozen.toml", "--epochs", 3,
        "--steps-per-epoch", 30, "--batch-size", 4, "--precision", "float32", "--seed", 5,
    )  # fmt: skip
    shared = tmp_path / "runs" / "shared"

    def start():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--nproc-per-node", 2,
                 "--master-addr", "127.0.0.1", "--master-port", port]  # fmt: skip
        command = ["-m", "gravmap_cli", "-w", tmp_path, *words, "--name", "shared"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return [
            subprocess.Popen(
                [*map(str, [*agent, "--node-rank", machine, *command])],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
            for machine in range(2)
        ]

    machines = start()
    try:
        deadline = time.monotonic() + 300
        while not (shared / "last.json").exists():
            assert time.monotonic() < deadline
            assert machines[0].poll() is None, machines[0].communicate()[1]
            time.sleep(0.02)
        lost = [machines[1].pid, *descendants(machines[1].pid)]
        left = descendants(machines[0].pid)
        for process in lost:
            os.kill(process, signal.SIGKILL)
        started = time.monotonic()
        said = machines[0].communicate(timeout=120)[1]
        assert time.monotonic() - started < SOON_S
        assert machines[0].returncode == 1
        # It may not have left the first epoch's scores.
        place = r"(epoch 2, step \d+|the scores of epoch 1)"
        assert re.search(rf"Error: Process [01] lost its connection to another process in {place}", said)
        assert "--resume continues after the last complete epoch" in said
        assert not [process for process in left if Path(f"/proc/{process}").exists()]
        assert len(curve(shared)) == 1

        machines = start()
        for machine in machines:
            said = machine.communicate(timeout=300)[1]
            assert machine.returncode == 0, said
    finally:
        for machine in machines:
            machine.kill()
            machine.communicate()
    done = call(tmp_path, *words, "--name", "alone")
    assert done.exit_code == 0, done.output
    assert len(curve(shared)) == 3
    np.testing.assert_allclose(curve(shared), curve(tmp_path / "runs" / "alone"), rtol=1e-4)
