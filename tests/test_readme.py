import importlib.util
import subprocess
import sys
from pathlib import Path

import click

import gravmap_cli

ROOT = Path(__file__).resolve().parents[1]


def load():
    spec = importlib.util.spec_from_file_location("readme_commands", ROOT / "tests" / "readme_commands.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_has_the_commands_of_the_ci():
    assert load().commands() == {
        "install": "pip install .",
        "demo": "gravmap demo",
        "test": 'pip install ".[test]" && pytest',
    }


def test_ci_runs_the_commands_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    assert all(f"$(readme {name})" in script for name in ("install", "demo", "test"))
    # The README's test command and the slow tests come last, so that the last lines are pytest's.
    last = script.rstrip().splitlines()[-2:]
    assert last[0] == 'PIP_CONSTRAINT="$here/constraints.txt" bash -c "$test"'
    assert last[1] == 'pytest -m "slow and not network and not gpu and not peer"'


def test_every_command_is_in_the_readme_and_in_docs_commands():
    group = gravmap_cli.gravmap
    readme = (ROOT / "README.md").read_text()
    commands = (ROOT / "docs" / "commands.md").read_text()
    for name in names_of(group):
        assert name in readme, name
        assert f"\n## {name}\n" in commands, name


def names_of(group, above="gravmap"):
    context = click.Context(group)
    for name in group.list_commands(context):
        yield f"{above} {name}"
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from names_of(command, f"{above} {name}")


def test_docs_commands_is_up_to_date():
    # In a separate process: click caches a command's help option at its first use, which may be in another test.
    result = subprocess.run(
        [sys.executable, "-c", "import make_commands; print(make_commands.text(), end='')"],
        cwd=ROOT / "docs",
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == result.stdout, "run `make docs`"
