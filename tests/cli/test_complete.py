"""Completion, asked for as a shell does: environment variables with the line, and what comes back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gravmap_cli import complete

PROGRAM = "import sys; sys.argv = ['gravmap']; from gravmap_cli import gravmap; gravmap(prog_name='gravmap')"


def offered(line, cwd="."):
    """What bash would show after this line, whose last word is being typed; values and their kinds."""
    words = line.split(" ")
    asked = {"_GRAVMAP_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=cwd, env={**os.environ, **asked}, capture_output=True, encoding="utf-8"
    )
    assert done.stderr == ""
    return [tuple(each.split(",", 1)) for each in done.stdout.split()]


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "regions.toml").write_text("mine = [81, 43, 92, 48]\n")
    for name in ("first", "second"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "model.json").write_text("{}")
    (tmp_path / "runs" / "stopped").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("gravmap pre", ["predict"]),
        ("gravmap predict --region mi", ["mine"]),
        ("gravmap residual --region turp", ["turpan-hami"]),
        ("gravmap predict --run ", ["first", "second", "crusts-central-asia"]),
        ("gravmap evaluate s", ["second"]),
        ("gravmap train --init cru", ["crusts-central-asia"]),
        ("gravmap train --model hr", ["hrnetv1-w32"]),
        ("gravmap train --recipe p", ["paper"]),
        ("gravmap rasterize --legend g", ["geo3al"]),
        ("gravmap legend check --classes be", ["bedrock10"]),
        ("gravmap crust --prior w", ["wide"]),
        ("gravmap train --device c", ["cpu", "cuda"]),
    ],
)
def test_values_are_completed(line, values, workspace):
    assert offered(line, workspace) == [("plain", value) for value in values]


def test_names_come_from_the_workspace_that_is_typed(workspace):
    for line in ("gravmap -w {} predict --run fi", "gravmap predict -w {} --run fi"):
        assert offered(line.format(workspace), workspace.parent) == [("plain", "first")]
    assert offered("gravmap predict --run fi", workspace.parent) == []


def test_files_are_offered_where_no_name_fits(workspace):
    assert offered("gravmap rasterize --legend my", workspace) == [("file", "my")]


def test_a_broken_file_of_regions_breaks_no_line(workspace):
    (workspace / "regions.toml").write_text("mine = [")
    assert offered("gravmap predict --region mi", workspace) == []


def test_the_names_are_those_of_the_library():
    from gravmap.geology.legend_file import load_legend, shipped_legends
    from gravmap.learning.training.recipes import RECIPES
    from gravmap.network.registry import ALIASES, MODELS

    assert sorted(complete.NETWORKS) == sorted([*MODELS, *ALIASES])
    assert sorted(complete.RECIPES) == sorted(RECIPES)
    legends = [load_legend(name) for name in shipped_legends()]
    assert list(complete.CLASS_TABLES) == [each.name for each in legends if each.table == each.name]


@pytest.mark.parametrize(("shell", "words"), [("bash", "complete"), ("zsh", "compdef"), ("fish", "complete")])
def test_the_line_of_the_documentation_prints_a_script(shell, words):
    asked = {"_GRAVMAP_COMPLETE": f"{shell}_source"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **asked}, capture_output=True, encoding="utf-8"
    )
    assert words in done.stdout
    page = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
    assert f"_GRAVMAP_COMPLETE={shell}_source" in page.read_text()
