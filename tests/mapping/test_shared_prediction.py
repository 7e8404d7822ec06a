"""Prediction by the processes of a group: they share the windows, and the first one writes the map."""

import json
import os
import signal
import subprocess
import sys

import pytest

from gravmap.errors import InputError
from gravmap.mapping import Options, inference, predict
from gravmap.mapping.inference import RESUME_HINT, InferenceTask, join_inference
from gravmap.mapping.record.provenance import read_provenance
from toys.map import BOX, layers, make_project, same
from toys.processes import forked, in_group


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("shared")
    make_project(root)
    return root


@pytest.fixture
def alone(project, rasters_only):
    if not (project / "alone").exists():
        predict(project / "fields.nc", project / "run", BOX, project / "alone")
    return layers(project / "alone")


def shared(project, folder, before_write=lambda group, written: None, **options):
    """What each of the processes of a group does; it returns the windows that it wrote, and the error."""

    def run(group):
        written, write = [], inference._write

        def noting(path, values):
            before_write(group, written)
            written.append(path.stem)
            return write(path, values)

        inference._write = noting
        try:
            if group.rank:
                join_inference(group)
            else:
                predict(
                    project / "fields.nc", project / "run", BOX, folder,
                    options=Options(device="cpu", processes=2, **options), group=group,
                )  # fmt: skip
        except Exception as error:
            return written, f"{type(error).__name__}: {error}"
        return written, None

    return run


@pytest.mark.parametrize("options", [{}, pytest.param({"batch_size": 3}, marks=pytest.mark.slow)])
def test_two_processes_share_the_windows_of_a_map(project, alone, tmp_path, options):
    first, second = forked(*in_group(shared(project, tmp_path / "map", **options)))
    assert first[1] is second[1] is None
    assert abs(len(first[0]) - len(second[0])) <= 1
    assert len(second[0]) > 5
    assert not set(first[0]) & set(second[0])
    assert [path.name for path in tmp_path.iterdir()] == ["map"]
    if options:  # batches of other windows: equal but for rounding
        assert abs(layers(tmp_path / "map")["probability"].astype(int) - alone["probability"]).max() <= 1
    else:
        assert same(layers(tmp_path / "map"), alone)


def test_a_process_that_dies_ends_the_others_and_its_windows_are_kept(project, alone, tmp_path):
    def die(group, written):
        if group.rank and len(written) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    (_, error), status = forked(*in_group(shared(project, tmp_path / "map", die), resume=RESUME_HINT))
    assert status == -signal.SIGKILL
    assert error.startswith("PeerError: Process 0 lost its connection to another process in windows, batch 3 of ")
    assert error.endswith(RESUME_HINT)
    made = predict(project / "fields.nc", project / "run", BOX, tmp_path / "map")
    assert made.resumed == 4  # two of each process
    assert same(layers(tmp_path / "map"), alone)


def test_an_error_before_the_windows_ends_the_others(project, tmp_path):
    (_, error), (_, other) = forked(*in_group(shared(project, tmp_path / "map", scales_deg=(3.0,))))
    assert "was not trained on windows of 3" in error
    assert other.startswith("PeerError: Process 1 lost its connection")


def test_a_process_without_the_files_of_the_first_says_so(project, tmp_path):
    def run(group):
        task = InferenceTask(project / "fields.nc", (), (), None, None, tmp_path / "elsewhere")
        if not group.rank:
            return group.broadcast(task)
        with pytest.raises(InputError, match="elsewhere, which the first process writes, does not exist for process 1"):
            join_inference(group)
        return True

    assert forked(*in_group(run))[1] is True


@pytest.mark.slow
def test_processes_that_torchrun_starts_make_one_map(project, alone, tmp_path):
    """Also what is printed is that of one process, and a dry run ends in all."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "data").symlink_to(project)
    (tmp_path / "runs" / "run").symlink_to(project / "run")

    def torchrun(*words):
        # Without `--`, torchrun takes --run for an abbreviation of an option of its own.
        command = [
            "-m",
            "--",
            "gravmap_cli",
            "-w",
            tmp_path,
            "predict",
            "--bbox",
            *BOX.bounds_wsen,
            "--run",
            "run",
            *words,
        ]
        agent = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, *command]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run([*map(str, agent)], capture_output=True, text=True, env=environment, timeout=180)

    dry = torchrun("--device", "cpu", "-n", "--json")
    assert dry.returncode == 0, dry.stderr
    assert json.loads(dry.stdout)["cells"] == [21, 31]
    refused = torchrun("--device", "cpu", "--window", "3deg")
    assert refused.returncode == 1  # torchrun's own
    assert refused.stderr.count("Error: The network was not trained on windows of 3") == 1
    assert "unexpected" not in refused.stderr
    made = torchrun("--device", "cpu", "--json", "-o", tmp_path / "map")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["windows"] > 5
    assert made.stderr.count("every cell is predicted") == 1
    assert same(layers(tmp_path / "map"), alone)
    assert read_provenance(tmp_path / "map")["settings"]["processes"] == 2
