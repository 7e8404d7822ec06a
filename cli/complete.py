"""What the shell offers as values of options: names of regions, runs, networks, legends, priors and recipes.

Names come from the package and from the workspace of the line being typed. docs/settings.md has how to switch it on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from gravmap.errors import GravmapError
from gravmap.regions import named_regions
from gravmap.workspace import SHIPPED, Workspace

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _names(known: Callable[[Workspace], Iterable[str]], files: bool = False) -> Completer:
    """Offer names that begin with what was typed; where there is none, files, if the option takes them."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            found = [name for name in known(_workspace(ctx)) if name.startswith(incomplete)]
        except (GravmapError, OSError):
            found = []  # a broken file is for the command to report
        if files and not found:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(name) for name in found]

    return complete


def _workspace(ctx: click.Context) -> Workspace:
    """The workspace typed before or after the command, else the current folder."""
    each: click.Context | None = ctx
    while each is not None:
        if root := each.params.get("workspace"):
            return Workspace(Path(root))
        each = each.parent
    return Workspace(Path())


def _runs(workspace: Workspace) -> list[str]:
    return [*sorted(path.parent.name for path in workspace.runs.glob("*/model.json")), SHIPPED]


def _shipped(folder: str) -> list[str]:
    found = resources.files("gravmap").joinpath(*folder.split("/")).iterdir()
    return sorted(each.name.removesuffix(".toml") for each in found if each.name.endswith(".toml"))


# Written out, because the library's lists load torch, which takes seconds; a test compares them.
NETWORKS = (
    *("ggmnet", "ggmnet-small", "ggmnet-tiny", "ggmnet-grid"),
    *("ggmnet-a", "ggmnet-b", "ggmnet-c", "ggmnet-d", "ggmnet-e"),
    *("ggmnet-16", "ggmnet-18", "ggmnet-20", "ggmnet-22", "ggmnet-24"),
    *("unet", "residual-unet", "hrnetv1-w32", "bisenet-resnet18", "deeplabv3plus-resnet50"),
)
RECIPES = ("default", "paper", "cpu", "crusts")
CLASS_TABLES = ("basement10", "bedrock10")

regions = _names(lambda workspace: named_regions(workspace.regions))
runs = _names(_runs)
networks = _names(lambda workspace: NETWORKS)
legends = _names(lambda workspace: _shipped("geology/legends"), files=True)
class_tables = _names(lambda workspace: CLASS_TABLES, files=True)
priors = _names(lambda workspace: _shipped("synthetic/priors"), files=True)
recipes = _names(lambda workspace: RECIPES, files=True)
