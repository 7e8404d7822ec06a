"""Write docs/commands.md from the commands' own help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gravmap_cli import gravmap

HEADER = "# Commands\n\nGenerated from `--help` by `make docs`; `tests/test_readme.py` fails if it is out of date.\n"


def text() -> str:
    """The page as Markdown."""
    settings = {**gravmap.context_settings, "terminal_width": 100, "max_content_width": 100}
    group_context = click.Context(gravmap, info_name="gravmap", **settings)
    parts = [HEADER, "\n## gravmap\n", block(gravmap.get_help(group_context))]
    parts += commands(gravmap, group_context, "gravmap", settings)
    return "".join(parts)


def commands(group: click.Group, context: click.Context, above: str, settings: Any) -> list[str]:
    """A section for each command of a group, recursively."""
    parts = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context, **settings)
        parts += [f"\n## {above} {name}\n", block(command.get_help(inner))]
        if isinstance(command, click.Group):
            parts += commands(command, inner, f"{above} {name}", settings)
    return parts


def block(body: str) -> str:
    """A fenced block."""
    return f"\n```text\n{body}\n```\n"


if __name__ == "__main__":
    Path(__file__).with_name("commands.md").write_text(text(), encoding="utf-8")
