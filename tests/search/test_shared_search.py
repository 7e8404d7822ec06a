"""Architecture search by the processes of a group: the steps are those of one process, and the first one writes."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from gravmap.errors import OptionError
from gravmap.learning import RegionDataset
from gravmap.learning.training import gradient_accumulation
from gravmap.learning.training.checkpoint import read_pair
from gravmap.learning.training.distributed import Group
from gravmap.learning.training.gradient_accumulation import GradientSum
from gravmap.search import loop
from gravmap.search.config import SearchConfig
from gravmap.search.decoding import candidates
from gravmap.search.loop import launch_search, read_search, score_candidates, search
from gravmap.search.state import SearchState
from gravmap.search.steps import SEARCH_WIDTHS
from toys.dataset import make_arrays
from toys.processes import forked, in_group, running_workers
from toys.workspace import make_tiled

SHORT = SearchConfig(
    depth=3, chis=(1, 2), thin=True, pretrain_epochs=1, epochs=2, steps=2, batch_size=4, tile_size_px=64, seed=5,
    sampled_paths=2, calibration_batches=1, score_batches=2, architecture_lr=0.01, flops_weight=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def uneven():
    """Some crops have few labels, so that a mean of the processes' means would be another number."""
    arrays = make_arrays()
    arrays["labels"][:, :30] = 0
    return RegionDataset.from_arrays(arrays)


@pytest.fixture(autouse=True)
def unpainted(monkeypatch):
    for name in ("draw_architecture", "draw_entropies"):
        monkeypatch.setattr(loop, name, lambda *args, **options: None)
    monkeypatch.setattr(loop, "cost_by_part", lambda *args, **options: [])


def with_fixed_statistics(state):
    """Batch normalisation by the running statistics: synchronised ones do not exist on a CPU."""
    state.start_epoch()
    for layer in state.supernet.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eval()


def six_steps(dataset, group):
    """Losses and parameters after two steps of the weights alone and four of both."""
    state = SearchState(dataset, SHORT, group)
    losses = []
    for index in range(6):
        if index in (0, 2):
            with_fixed_statistics(state)
        if index == 2:
            state.end_pretraining()
        losses.append(state.step(index, index / 6))
    supernet = state.supernet
    kinds = supernet.weight_parameters(), supernet.architecture_parameters()
    return losses, [torch.cat([each.detach().flatten() for each in kind]).numpy() for kind in kinds]


def test_both_processes_take_the_steps_of_one(uneven):
    """Weights and architecture parameters, at the same sampled widths."""
    expected, (weights, choices) = six_steps(uneven, Group())
    assert expected[0][1] is None
    assert expected[-1][1] is not None
    initial = SearchState(uneven, SHORT).supernet
    before = torch.cat([each.detach().flatten() for each in initial.architecture_parameters()]).numpy()
    assert np.abs(choices - before).max() > 0.02
    results = forked(*in_group(lambda group: six_steps(uneven, group)))
    for losses, found in results:
        np.testing.assert_allclose(np.array(losses, float), np.array(expected, float), rtol=1e-4)  # None is NaN
        np.testing.assert_allclose(found[0], weights, atol=1e-4)
        np.testing.assert_allclose(found[1], choices, atol=1e-4)
        assert all(np.array_equal(one, other) for one, other in zip(found, results[0][1], strict=True))


def test_buckets_are_summed_within_the_last_backward_pass(uneven, monkeypatch):
    """But for the last ones: parameters that have no gradient in some passes."""
    monkeypatch.setattr(gradient_accumulation, "BUCKET_BYTES", 2**16)

    def run(group):
        launched, finish = [], GradientSum.finish

        def counting(sums):
            launched.append((len(sums._waits), len(sums._buckets)))
            finish(sums)

        GradientSum.finish = counting
        six_steps(uneven, group)
        return launched

    for launched in forked(*in_group(run)):
        for early, buckets in launched:
            assert early >= buckets - 3
        assert max(buckets for _, buckets in launched) > 10


def course(folder):
    """State after the last epoch and its history, without times."""
    tensors, state = read_pair(folder, "last")
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in state["history"]]
    return {name: value.numpy().tobytes() for name, value in tensors.items()}, rows


def searching(dataset, folder, config=SHORT, **options):
    """What each process of a group does; returns what it found, and the architectures that it scored."""

    def run(group):
        scored, recalibrate = [], loop.recalibrate

        def noting(supernet, architecture, batches):
            scored.append(architecture)
            return recalibrate(supernet, architecture, batches)

        loop.recalibrate = noting
        found = search(dataset, folder if group.rank == 0 else folder / "none", config, group=group, **options)
        return {**found, "seconds": 0}, scored

    return run


def test_the_first_process_writes_what_all_find(uneven, tmp_path):
    (found, first), (same, second) = forked(*in_group(searching(uneven, tmp_path / "run")))
    assert found == same == {**read_search(tmp_path / "run"), "seconds": 0}
    assert not (tmp_path / "run" / "none").exists()
    assert abs(len(first) - len(second)) <= 1
    assert not set(first) & set(second)
    assert len(first) + len(second) == len(found["candidates"])
    assert [row["phase"] for row in found["entropies"]] == ["pretrain", "search", "search"]


def test_running_statistics_are_averaged_after_an_epoch(uneven):
    """On CPUs each process has its own; a checkpoint has one."""

    def run(group):
        state = SearchState(uneven, SHORT, group)
        state.start_epoch()
        state.step(0, 0.0)
        layer = state.supernet.heads.norm
        before = layer.running_mean.clone().numpy()
        state.end_epoch([(1.0, None)], 1.0)
        return before, layer.running_mean.numpy()

    (first, averaged), (second, same) = forked(*in_group(run))
    assert not np.array_equal(first, second)
    assert np.array_equal(averaged, same)
    np.testing.assert_allclose(averaged, (first + second) / 2, rtol=1e-5)


@pytest.mark.slow
def test_another_number_of_processes_resumes(uneven, tmp_path):
    """Running statistics, which differ on CPUs, are averaged before they are saved."""
    shorter = dataclasses.replace(SHORT, epochs=1)
    forked(*in_group(searching(uneven, tmp_path / "run", shorter)))
    tensors, history = course(tmp_path / "run")
    search(uneven, tmp_path / "run", SHORT, resume=True)
    after, longer = course(tmp_path / "run")
    assert (len(history), longer[:2]) == (2, history)
    assert len(longer) == 3
    assert tensors != after

    def resumed(group):
        state = SearchState(uneven, dataclasses.replace(SHORT, epochs=3), group)
        state.restore(tmp_path / "run")
        state.start_epoch()
        state.step(0, 0.0)
        return state.epoch, state.supernet.arch["alpha_0"].detach().numpy()

    (epoch, alpha), (same, other) = forked(*in_group(resumed))
    assert epoch == same == 3
    assert np.array_equal(alpha, other)


def test_a_process_that_dies_ends_the_others(uneven, tmp_path):
    def run(group):
        take, steps = SearchState.step, []

        def step(state, index, fraction):
            steps.append(index)
            if group.rank and len(steps) == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            return take(state, index, fraction)

        SearchState.step = step
        try:
            search(uneven, tmp_path / "run", SHORT, group=group)
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    error, status = forked(*in_group(run))
    assert status == -signal.SIGKILL
    assert error.startswith("PeerError: Process 0 lost its connection to another process in epoch 2, step 2")
    assert "--resume continues after the last complete epoch" in error
    assert read_pair(tmp_path / "run", "last")[1]["epoch"] == 1


def test_the_clock_of_the_first_process_ends_all(uneven, tmp_path):
    """Also where that of another one is ahead: they must take the same steps, at the same temperature."""

    def run(group):
        seconds = [0.0]

        class Clock:
            @staticmethod
            def monotonic():
                return seconds[0]

        def step(state, index, fraction):
            seconds[0] += 1.0 + 9 * group.rank
            fractions.append(fraction)
            return 1.0, None if state.pretraining else 1.0

        fractions = []
        loop.time = Clock
        SearchState.step = step
        state = SearchState(uneven, dataclasses.replace(SHORT, steps=100, time_limit_s=30.0), group)
        loop._run_epochs(state, tmp_path, lambda *report: None)
        return fractions, state.epoch

    first, second = forked(*in_group(run))
    assert first == second
    assert len(first[0]) == 19


@pytest.mark.parametrize(("batch", "size", "message"), [(4, 3, "cannot be divided"), (4, 4, "leaves one for each")])
def test_a_batch_that_cannot_be_shared_is_refused(uneven, batch, size, message):
    with pytest.raises(OptionError, match=message):
        SearchState(uneven, dataclasses.replace(SHORT, batch_size=batch), Group(size=size))


def test_batch_normalisation_is_synchronised_on_gpus(uneven, monkeypatch):
    """It is then of another class; steps are the same, and the networks of the candidates do not synchronise."""
    losses = []
    for synchronised in (False, True):
        monkeypatch.setattr(Group, "synchronises_batch_norm", synchronised)
        state = SearchState(uneven, SHORT)
        assert any(isinstance(each, torch.nn.SyncBatchNorm) for each in state.supernet.modules()) is synchronised
        assert any(isinstance(each, torch.nn.BatchNorm2d) for each in state.supernet.modules()) is not synchronised
        state.start_epoch()
        state.end_pretraining()
        losses.append([state.step(index, 0.0) for index in range(2)])
        counts = [each for name, each in state.supernet.state_dict().items() if name.endswith("batches_tracked")]
        assert max(map(int, counts)) == 2 * len(SEARCH_WIDTHS)  # none in the steps of the architecture
    assert losses[0] == losses[1]
    networks, recalibrate = [], loop.recalibrate
    monkeypatch.setattr(loop, "recalibrate", lambda *given: networks.append(recalibrate(*given)) or networks[-1])
    decoded = candidates(state.supernet.architecture_logits(), state.supernet.space, np.random.default_rng(0), 1)
    assert score_candidates(state, decoded[:1])[0]["loss"] > 0
    assert not any(isinstance(each, torch.nn.SyncBatchNorm) for each in networks[0].modules())


@pytest.mark.slow
def test_a_search_whose_process_is_killed_goes_on_to_the_same_result(uneven, tmp_path, caplog):
    """Launched on this machine, as with --gpus 2."""
    (found, _), _ = forked(*in_group(searching(uneven, tmp_path / "whole")))
    killed = []

    def listener(done, total, note=""):
        if "epoch 3" in note and not killed:
            killed.append(sorted(running_workers(), key=int)[1])
            os.kill(int(killed[0]), signal.SIGKILL)

    launched = launch_search(uneven, tmp_path / "run", SHORT, 2, listener)
    assert "was ended by SIGKILL; resuming after the last complete epoch" in caplog.text
    assert killed
    assert not running_workers()
    assert course(tmp_path / "run") == course(tmp_path / "whole")
    assert launched["candidates"] == found["candidates"]


@pytest.mark.slow
def test_two_machines_search_together(tmp_path):
    """Two torchrun agents on this one, through the command line."""
    make_tiled(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = (
        "search", "--device", "cpu", "--thin", "--depth", 3, "--size", 32, "--batch-size", 4, "--steps-per-epoch", 1,
        "--pretrain-epochs", 1, "--epochs", 1, "--json", "--random", 1, "--compare", "--compare-epochs", 1,
        "--compare-steps", 1, "--compare-seeds", 1,
    )  # fmt: skip
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--nproc-per-node", 1,
             "--master-addr", "127.0.0.1", "--master-port", port]  # fmt: skip
    command = ["-m", "--", "gravmap_cli", "-w", tmp_path, *words]
    machines = [
        subprocess.Popen(
            [*map(str, [*agent, "--node-rank", machine, *command])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for machine in range(2)
    ]
    try:
        (reported, said), (nothing, _) = [machine.communicate(timeout=180) for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert nothing == ""
    found = json.loads(reported)
    assert said.count("Search over 3 cells a branch (thin) on 2 processes") == 1
    assert "Each of the 2 CPU processes normalises its own crops" in said
    (run,) = (tmp_path / "runs").iterdir()
    assert str(run) == found["run"]
    assert read_search(run)["candidates"] == found["candidates"]
    assert [row["name"] for row in found["comparison"]["architectures"]] == ["searched", "random-00"]
    assert json.loads((run / "compare.json").read_text()) == found["comparison"]
