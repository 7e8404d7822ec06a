"""The help of every command: it fits the terminal, cuts nothing, and has headings where there are many options."""

import re

import click
import pytest

import gravmap_cli

WIDTH = 80


def commands(group=gravmap_cli.gravmap, context=None):
    """Every command and sub-command, with a context of its own."""
    context = context or click.Context(group, info_name="gravmap", terminal_width=WIDTH, **group.context_settings)
    yield pytest.param(group, context, id=context.command_path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from commands(command, inner)
        else:
            yield pytest.param(command, inner, id=inner.command_path)


EVERY = list(commands())
GROUPS = [each for each in EVERY if isinstance(each.values[0], click.Group)]


@pytest.mark.parametrize(("command", "context"), EVERY)
def test_help_fits_the_terminal_and_shows_no_escape(command, context):
    text = command.get_help(context)
    assert r"\b" not in text
    assert "\b" not in text
    assert [line for line in text.splitlines() if len(line) > WIDTH] == []


@pytest.mark.parametrize(("group", "context"), GROUPS)
def test_the_list_of_commands_has_one_whole_line_for_each(group, context):
    section = group.get_help(context).partition("Commands:\n")[2].partition("\n\n")[0]
    names = group.list_commands(context)
    lines = section.splitlines()
    assert [line.split()[0] for line in lines] == names
    for name, line in zip(names, lines, strict=True):
        assert line.split(None, 1)[1] == group.get_command(context, name).short_help
        assert line.endswith(".")
        assert not line.endswith("...")


def test_the_group_shows_its_steps_line_by_line():
    command, context = EVERY[0].values
    lines = [line.strip() for line in command.get_help(context).splitlines()]
    start = lines.index("gravmap fetch")
    assert lines[start : start + 3] == ["gravmap fetch", "gravmap residual --height 10km", "gravmap rasterize"]


@pytest.mark.parametrize(
    ("name", "headings"),
    [
        ("train", ["Data", "Simulated crusts", "Network", "Optimisation", "Runtime", "Output", "Other options"]),
        ("predict", ["Data", "Network", "Map", "Runtime", "Output", "Other options"]),
        ("search", ["Data", "Network", "Optimisation", "Comparison", "Runtime", "Output", "Other options"]),
        ("tile", ["Windows", "Splits", "Output", "Other options"]),
        ("residual", ["Input", "Continuation", "Output", "Other options"]),
        ("export", ["Options"]),
    ],
)
def test_options_stand_under_headings(name, headings):
    command, context = next(each.values for each in EVERY if each.id == f"gravmap {name}")
    text = command.get_help(context)
    assert re.findall(r"^(\S.*):$", text, flags=re.MULTILINE) == headings
    visible = [each for each in command.get_params(context) if isinstance(each, click.Option) and not each.hidden]
    assert all(text.count(f"  {each.opts[0]}") for each in visible)


@pytest.mark.parametrize(
    "words",
    [
        "learning rate", "peak learning rate", "gradient accumulation", "micro-batch size", "fine-tune", "ensemble",
        "early-stopping patience", "test-time augmentation", "checkpoint", "data loader", "resume", "batch size",
        "baseline", "area of applicability",
    ],
)  # fmt: skip
def test_an_engineer_finds_the_words_of_the_field(words):
    text = " ".join(" ".join(each.values[0].get_help(each.values[1]) for each in EVERY).split())
    assert words in text.lower()


@pytest.mark.parametrize(("command", "context"), EVERY)
def test_names_are_the_same_in_every_command(command, context):
    options = {name: each for each in command.params for name in each.opts}
    if "--device" in options:
        assert options["--device"].type.choices == ("auto", "cpu", "cuda")
        assert options["--device"].default == "auto"
    if "--output" in options:
        assert "-o" in options["--output"].opts
    assert not set(options) & {"--scales", "--steps", "--cuts"}


@pytest.mark.parametrize(("command", "context"), EVERY)
def test_old_names_do_not_collide_with_parameters(command, context):
    names = {each.name for each in command.params}
    written = {name for each in command.params for name in each.opts}
    for each in command.params:
        for old in getattr(each, "old", ()):
            assert old.name not in names
            assert old.opts[0] not in written
            assert not re.search(rf"{old.opts[0]}\b(?!-)", command.get_help(context))


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("train", {"--scales": "--window", "--steps": "--steps-per-epoch", "--cuts": "--cover-masks"}),
        ("search", {"--scales": "--window", "--steps": "--steps-per-epoch"}),
        ("predict", {"--scales": "--window"}),
        ("explain", {"--scales": "--window", "--steps": "--integration-steps"}),
        ("reproduce", {"--steps": "--steps-per-epoch"}),
        ("tile", {}),
    ],
)
def test_old_names_of_earlier_versions(name, pairs):
    command = gravmap_cli.gravmap.get_command(None, name)
    assert {old.opts[0]: each.long_name for each in command.params for old in getattr(each, "old", ())} == pairs
