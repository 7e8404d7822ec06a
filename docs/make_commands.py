"""Write docs/commands.md from the commands' own help."""

from __future__ import annotations

from pathlib import Path

import click

from gravmap_cli import gravmap

HEADER = "# Commands\n\nWritten from `--help` by `make docs`; `tests/test_readme.py` fails when it is behind.\n"


def text() -> str:
    """The whole page."""
    settings = {**gravmap.context_settings, "terminal_width": 100, "max_content_width": 100}
    group_context = click.Context(gravmap, info_name="gravmap", **settings)
    parts = [HEADER, "\n## gravmap\n", block(gravmap.get_help(group_context))]
    for name in gravmap.list_commands(group_context):
        command = gravmap.get_command(group_context, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=group_context, **settings)
        parts += [f"\n## gravmap {name}\n", block(command.get_help(context))]
    return "".join(parts)


def block(body: str) -> str:
    """A fenced block."""
    return f"\n```text\n{body}\n```\n"


if __name__ == "__main__":
    Path(__file__).with_name("commands.md").write_text(text(), encoding="utf-8")
