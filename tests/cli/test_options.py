"""Old names of options: hidden, still working from every place a value may come from, with one warning."""

import json
import sys

import click
import pytest
from click.testing import CliRunner

from gravmap_cli.options import (
    Command,
    option,
    output_option,
    refuse_contradiction,
    report_device,
    window_option,
)
from gravmap_cli.session import Session, command_options
from toys.commands import group_of


@click.command("probe", cls=Command)
@window_option("Size.")
@option("--cover-masks", type=click.IntRange(min=1), old_names=["--cuts"])
@option("--fast", is_flag=True, old_names=["--quick"])
@output_option("A file.")
@command_options()
def probe(session, windows_deg, cover_masks, fast, output):
    source = click.get_current_context().get_parameter_source("windows_deg").name
    session.result({"windows": windows_deg, "masks": cover_masks, "fast": fast, "source": source})


group = group_of(probe)


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["gravmap", *args])
        with pytest.raises(SystemExit) as exit_info:
            group(["probe", *args], prog_name="gravmap")
        captured = capsys.readouterr()
        return exit_info.value.code, captured.out, captured.err

    return call


def test_an_old_name_means_the_new_one_and_warns_once(run):
    old = run("--scales", "5deg", "--scales", "10deg", "--cuts", "3", "--quick", "--json")
    new = run("--window", "5deg", "--window", "10deg", "--cover-masks", "3", "--fast", "--json")
    assert old[:2] == new[:2]
    assert json.loads(new[1]) == {"windows": [5.0, 10.0], "masks": 3, "fast": True, "source": "COMMANDLINE"}
    assert new[2] == ""
    assert [line.split(" is deprecated: use ") for line in old[2].splitlines()] == [
        ["Warning: --scales", "--window."],
        ["Warning: --cuts", "--cover-masks."],
        ["Warning: --quick", "--fast."],
    ]


def test_an_old_name_is_not_in_the_help(run):
    _, out, _ = run("--help")
    assert "--window" in out
    assert not any(name in out for name in ("--scales", "--cuts", "--quick"))


def test_old_and_new_name_together_are_a_usage_error(run):
    code, _, err = run("--scales", "5deg", "--window", "5deg")
    assert code == 2
    assert "--scales" in err
    assert "--window" in err


@pytest.mark.parametrize(("args", "status", "words"), [(["--scales", "5"], 2, "deg"), (["--cuts", "0"], 2, "x>=1")])
def test_a_value_under_an_old_name_is_checked_like_one_under_the_new(run, args, status, words):
    code, _, err = run(*args)
    assert code == status
    assert words in err


@pytest.mark.parametrize("key", ["window", "scales"])
@pytest.mark.parametrize("value", ['"5deg"', '["5deg", "10deg"]'])
def test_both_names_are_keys_of_the_file(run, tmp_path, key, value):
    (tmp_path / "gravmap.toml").write_text(f"[probe]\n{key} = {value}\n")
    code, out, err = run("--json")
    assert code == 0
    assert json.loads(out)["windows"] == [5.0, 10.0][: 1 + ("10" in value)]
    assert json.loads(out)["source"] == "DEFAULT_MAP"
    assert (err == "") == (key == "window")
    if key == "scales":
        assert err == "Warning: the key 'scales' of gravmap.toml is deprecated: use the key 'window' of gravmap.toml.\n"


@pytest.mark.parametrize("variable", ["GRAVMAP_PROBE_WINDOW", "GRAVMAP_PROBE_SCALES"])
def test_both_names_are_environment_variables(run, monkeypatch, variable):
    monkeypatch.setenv(variable, "5deg")
    code, out, err = run("--json")
    assert code == 0
    assert json.loads(out)["windows"] == [5.0]
    assert json.loads(out)["source"] == "ENVIRONMENT"
    assert (variable in err) == variable.endswith("SCALES")


@pytest.mark.parametrize(
    ("args", "variables", "text", "expected"),
    [
        # A flag beats an environment variable, which beats the file, whichever of them has the old name.
        (["--window", "1deg"], {"GRAVMAP_PROBE_SCALES": "2deg"}, "scales = '3deg'", 1.0),
        (["--scales", "1deg"], {"GRAVMAP_PROBE_WINDOW": "2deg"}, "window = '3deg'", 1.0),
        ([], {"GRAVMAP_PROBE_SCALES": "2deg"}, "window = '3deg'", 2.0),
        ([], {"GRAVMAP_PROBE_WINDOW": "2deg"}, "scales = '3deg'", 2.0),
        ([], {}, "window = '3deg'\nscales = '4deg'", 3.0),
    ],
)
def test_the_source_decides_before_the_name(run, tmp_path, monkeypatch, args, variables, text, expected):
    (tmp_path / "gravmap.toml").write_text(f"[probe]\n{text}\n")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert json.loads(run(*args, "--json")[1])["windows"] == [expected]


def test_a_misspelt_environment_variable_is_refused(run, monkeypatch):
    monkeypatch.setenv("GRAVMAP_PROBE_WIDNOW", "5deg")
    code, _, err = run()
    assert code == 2
    assert "GRAVMAP_PROBE_WIDNOW is no option of this command. Did you mean GRAVMAP_PROBE_WINDOW?" in err
    monkeypatch.delenv("GRAVMAP_PROBE_WIDNOW")
    monkeypatch.setenv("GRAVMAP_PROBES_WINDOW", "5deg")  # of another command
    assert run()[0] == 0


def test_a_variable_of_no_command_is_warned_of(monkeypatch, tmp_path):
    from gravmap.learning.training import watch
    from gravmap_cli import main

    assert main.STEP_TIMEOUT == watch.STEP_TIMEOUT
    for name in ("GRAVMAP_WORKSPCE", "GRAVMAP_RESIDAUL_HEIGHT", "GRAVMAP_STEP_TIMEOUT", "GRAVMAP_TRAIN_LR"):
        monkeypatch.setenv(name, "1")
    done = CliRunner().invoke(main.gravmap, ["-w", str(tmp_path), "layer", "list"])
    warned = [line for line in done.stderr.splitlines() if "belongs to no command" in line]
    assert ["GRAVMAP_RESIDAUL_HEIGHT" in warned[0], "Did you mean GRAVMAP_WORKSPACE?" in warned[1]] == [True, True]
    assert len(warned) == 2


def test_quiet_silences_the_warning(run):
    assert run("--scales", "5deg", "-q") == (0, "", "")


def test_an_unknown_key_is_answered_with_the_new_name(run, tmp_path):
    (tmp_path / "gravmap.toml").write_text("[probe]\nwindo = '5deg'\n")
    code, _, err = run()
    assert code == 2
    assert "'window'" in err


@pytest.mark.parametrize(("gpus", "device"), [(2, "cpu"), (0, "cuda")])
def test_gpus_and_device_that_differ_are_refused(gpus, device):
    with pytest.raises(click.UsageError, match=device):
        refuse_contradiction(gpus, device)
    for other in ("auto", "cuda" if gpus else "cpu"):
        refuse_contradiction(gpus, other)
        refuse_contradiction(None, device)


@pytest.mark.parametrize(
    ("device", "used", "reported"), [("auto", "cpu", True), ("auto", "cuda", False), ("cpu", "cpu", False)]
)
def test_a_fall_back_to_the_cpu_is_reported(capsys, tmp_path, device, used, reported):
    report_device(Session.start(str(tmp_path), 0, False), device, used)
    assert ("CPU" in capsys.readouterr().out) == reported
