"""What every command shares: statuses, gravmap.toml, -w on either side of the name, plain words for faults."""

import errno
import logging
import signal
import subprocess
import sys
import time
import warnings

import click
import pytest

import gravmap_cli
from gravmap.errors import DeviceError, DownloadError, InputError
from gravmap_cli import session
from gravmap_cli.options import LENGTH, chosen_region, option, region_options
from gravmap_cli.session import command_options
from toys.commands import group_of


@click.command("probe")
@option("--height", "heights", type=LENGTH, multiple=True, default=["10km"])
@click.option("--epochs", type=int, default=1)
@click.option("--raise", "raised")
@region_options
@command_options()
def probe(session, heights, epochs, raised, region, bbox):
    faults = {
        "input": InputError("found.", "do this."),
        "download": DownloadError("found."),
        "device": DeviceError("found."),
        "bug": KeyError("oops"),
        "disk": OSError(errno.ENOSPC, "No space left on device", "x.tif"),
        "memory": MemoryError(),
        "cuda": RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported."),
        "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        "cudnn": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        "nccl": RuntimeError(
            "NCCL error in: ProcessGroupNCCL.cpp:3690, unhandled cuda error, NCCL version 2.28.9\n"
            "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'"
        ),
        "interrupt": KeyboardInterrupt(),
    }
    if raised == "torch":
        import torch

        torch.empty(1 << 50)
    if raised:
        raise faults[raised]
    box = chosen_region(session, region, bbox)
    session.say("words")
    session.result({"heights": heights, "epochs": epochs, "root": str(session.workspace.root), "box": str(box)})


group = group_of(probe)


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["gravmap", *args])
        with pytest.raises(SystemExit) as exit_info:
            group(list(args), prog_name="gravmap")
        captured = capsys.readouterr()
        return exit_info.value.code, captured.out, captured.err

    return call


@pytest.mark.parametrize(
    ("raised", "status", "words"),
    [
        ("input", 3, "Error: found.\ndo this."),
        ("download", 4, "found."),
        ("device", 5, "found."),
        ("bug", 1, "bug in gravmap"),
        ("disk", 1, "disk is full: x.tif"),
        ("memory", 5, "Not enough memory"),
        ("torch", 5, "Not enough memory: you tried to allocate 45035"),
        ("cuda", 5, "Not enough memory: CUDA error: out of memory.\nReduce"),
        ("cublas", 5, "Not enough memory: CUDA error: CUBLAS_STATUS_ALLOC_FAILED"),
        ("cudnn", 5, "Not enough memory: cuDNN error: CUDNN_STATUS_ALLOC_FAILED.\nReduce"),
        ("nccl", 5, "Not enough memory: Cuda failure 2 'out of memory'.\nReduce"),
        ("interrupt", 130, "Interrupted"),
    ],
)
def test_every_fault_has_its_status_and_no_traceback(run, raised, status, words):
    code, _, err = run("probe", "--raise", raised)
    assert code == status
    assert words in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) <= 2


def test_vv_shows_the_traceback(run):
    assert "Traceback" in run("probe", "--raise", "bug", "-vv")[2]
    assert "Traceback" in run("-vv", "probe", "--raise", "input")[2]


def test_json_leaves_stdout_to_the_result(run):
    import json

    code, out, err = run("probe", "--json")
    assert code == 0
    assert json.loads(out)["epochs"] == 1
    assert "words" in err


def test_quiet_prints_nothing(run):
    assert run("probe", "-q") == (0, "", "")
    assert run("-q", "probe") == (0, "", "")


@pytest.mark.parametrize("args", [("-w", "here", "probe"), ("probe", "-w", "here"), ("probe", "--workspace=here")])
def test_the_workspace_may_stand_on_either_side(run, args, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "gravmap.toml").write_text("[probe]\nepochs = 7\n")
    _, out, _ = run(*args, "--json")
    assert '"root": "here"' in out
    assert '"epochs": 7' in out


def test_flag_beats_environment_beats_file_beats_default(run, tmp_path, monkeypatch):
    (tmp_path / "gravmap.toml").write_text('[probe]\nepochs = 2\nheight = "5km"\n')
    assert '"epochs": 2' in run("probe", "--json")[1]
    assert "5000.0" in run("probe", "--json")[1]
    monkeypatch.setenv("GRAVMAP_PROBE_EPOCHS", "3")
    assert '"epochs": 3' in run("probe", "--json")[1]
    assert '"epochs": 4' in run("probe", "--json", "--epochs", "4")[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[probe]\nepoch = 2\n", "'epochs'"),
        ("[prob]\nepochs = 2\n", "'probe'"),
        ("[probe\n", "TOML"),
        ("epochs = 2\n", "epochs"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(run, tmp_path, text, words):
    (tmp_path / "gravmap.toml").write_text(text)
    code, _, err = run("probe")
    assert code == 2
    assert words in err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--height", "10"], "km"),
        (["--region", "jungar"], "junggar"),
        (["--bbox", "92", "43", "81", "48"], "west"),
        (["--region", "junggar", "--bbox", "81", "43", "92", "48"], "exclude"),
    ],
)
def test_a_wrong_option_is_a_usage_error(run, args, words):
    code, _, err = run("probe", *args)
    assert code == 2
    assert words in err


def test_negative_degrees_are_numbers_not_flags(run):
    assert '"box": "10W-5W 5S-5N"' in run("probe", "--json", "--bbox", "-10", "-5", "-5", "5")[1]


def test_every_command_has_help_with_an_example():
    context = click.Context(gravmap_cli.gravmap)
    for name in gravmap_cli.gravmap.list_commands(context):
        command = gravmap_cli.gravmap.get_command(context, name)
        assert command.help, name
        text = command.get_help(click.Context(command, info_name=name))
        assert "Example" in text, name
        assert f"gravmap {name}" in text, name


def test_ctrl_c_in_a_running_command_ends_with_130(tmp_path):
    code = (
        "import time, click, sys\nfrom gravmap_cli.main import CommandGroup\n"
        "@click.group(cls=CommandGroup)\ndef g():\n    print('up', flush=True); time.sleep(30)\n"
        "sys.argv = ['gravmap', 'doctor']\ng(['doctor'])\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs deaf to Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stdout.readline().strip() == "up"
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "Traceback" not in err


def test_without_a_terminal_lines_give_the_time_left_of_new_work(capsys, monkeypatch):
    clock = iter([0.0, 1.0, 11.0, 31.0, 41.0, 61.0])
    monkeypatch.setattr(session.time, "monotonic", lambda: next(clock))
    tell = session._lines("work")
    tell(60, 100, "windows")  # sixty were there already
    tell(61, 100, "windows")  # one in ten seconds
    tell(63, 100, "windows")
    tell(2, 4, "blocks")  # another part: its own clock
    tell(3, 4, "blocks, about 7 s left")
    reported = capsys.readouterr().err.splitlines()
    assert reported == [
        "work: 61 %  windows  about 6 min left",
        "work: 63 %  windows  about 6 min left",
        "work: 50 %  blocks",
        "work: 75 %  blocks, about 7 s left",
    ]


STUCK = """
import hashlib
import click
from gravmap_cli import main
main.GRACE_S = 0.3
@click.group(cls=main.CommandGroup, invoke_without_command=True)
def group():
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000_000)  # minutes, without a signal being looked at
group([])
"""


def test_ctrl_c_ends_a_command_in_the_middle_of_a_long_call():
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout.readline() == "busy\n"
        time.sleep(0.2)  # until the call has begun
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Interrupted" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("typed", [("--region", "junggar"), ("--bbox", "81", "43", "92", "48")])
@pytest.mark.parametrize("stored", ["region = 'tarim'", "bbox = [75, 36, 90, 42]"])
def test_a_typed_region_beats_the_one_of_the_file(run, tmp_path, typed, stored):
    (tmp_path / "gravmap.toml").write_text(f"[probe]\n{stored}\n")
    code, out, err = run("probe", "--json", *typed)
    assert code == 0, err
    assert '"box": "81E-92E 43N-48N"' in out


def test_two_that_exclude_each_other_in_the_file_name_it(run, tmp_path):
    (tmp_path / "gravmap.toml").write_text("[probe]\nregion = 'tarim'\nbbox = [75, 36, 90, 42]\n")
    code, _, err = run("probe")
    assert code == 2
    assert "--region is set in gravmap.toml" in err


@pytest.mark.parametrize("variable", ["GRAVMAP_PROBE_HEIGHT", "GRAVMAP_PROBE_HEIGHTS"])
def test_a_repeated_option_may_be_an_environment_variable(run, monkeypatch, variable):
    monkeypatch.setenv(variable, "5km 20km")
    _, out, _ = run("probe", "--json")
    assert "5000.0,\n    20000.0\n" in out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("probe = 3", "probe is 3; it should be a table"),
        ("[probe]\nepochs = true", "epochs in [probe] is true; it should be text or a number"),
        ("[probe]\nepochs = [1, 2]", "epochs in [probe] is [1, 2]"),
        ("[probe]\nepochs = 'x'", "epochs in [probe]: 'x' is not a valid integer"),
        ("[probe]\nheight = {a = 1}", "height in [probe] is {"),
        ("[probe]\njson = 1", "json in [probe] is 1; it should be true or false"),
        ("[probe]\nbbox = [1, 2]", "bbox in [probe] is [1, 2]; it should be a list of 4"),
        ("a = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a = " + "9" * 5000, "thousands of digits"),
    ],
)
def test_a_value_of_the_file_that_no_option_takes_is_named(run, tmp_path, text, words):
    (tmp_path / "gravmap.toml").write_text(text + "\n")
    code, _, err = run("probe")
    assert code == 2
    assert "gravmap.toml" in err
    assert words in err


@pytest.mark.parametrize(("words", "meant"), [(["pedict"], "predict"), (["legend", "chek"], "check")])
def test_an_unknown_command_is_answered_with_the_nearest(monkeypatch, capsys, words, meant):
    monkeypatch.setattr(sys, "argv", ["gravmap", *words])
    with pytest.raises(SystemExit) as exit_info:
        gravmap_cli.gravmap(words, prog_name="gravmap")
    assert exit_info.value.code == 2
    assert f"Did you mean '{meant}'?" in capsys.readouterr().err


def test_what_libraries_warn_of_is_one_line_with_v(capsys):
    for verbosity, expected in ((1, "UserWarning: first\nrasterio._env: one\n"), (0, "")):
        session.Session.start(None, verbosity, False)
        warnings.warn("first\nsecond", stacklevel=1)
        logging.getLogger("rasterio._env").error("one\ntwo")
        assert capsys.readouterr().err == expected
