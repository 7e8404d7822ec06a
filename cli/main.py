"""The `gravmap` group: finds commands, reads gravmap.toml, turns errors into lines and exit statuses."""

from __future__ import annotations

import difflib
import errno
import importlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from gravmap import __version__
from gravmap.errors import GravmapError, out_of_memory
from gravmap.files import full_disk, says_full_disk
from gravmap.outputs import no_permission

from .options import Group
from .session import LOG_OPTIONS, TYPED, WORKSPACE_OPTION, Session, configure_from_file, verbosity_of

# In the order a user meets them; the module has the name, `-` written `_`.
COMMANDS = (
    "demo",
    "crust",
    "fetch",
    "residual",
    "legend",
    "rasterize",
    "layer",
    "tile",
    "split",
    "search",
    "train",
    "evaluate",
    "prior-check",
    "predict",
    "run",
    "explore",
    "explain",
    "verify",
    "export",
    "reproduce",
    "doctor",
)


# The name is that of gravmap.learning.training.watch, which loads torch.
STEP_TIMEOUT = "GRAVMAP_STEP_TIMEOUT"
INTERRUPTED = "Interrupted. The file being written was discarded; finished files are kept."
GRACE_S = 2.0
"""Seconds after Ctrl-C in which a command may end by itself."""

# Not a docstring: `\b`, by which click keeps the lines of a paragraph, must be the backspace character.
HELP = """Map bedrock under cover from Bouguer gravity and the geological map around it.

\b
The steps, each of which reads what the one before wrote:
  gravmap fetch
  gravmap residual --height 10km
  gravmap rasterize
  gravmap tile
  gravmap train --gpus 4
  gravmap predict --region junggar
"""


class CommandGroup(Group):
    """Loads a command's module when it is needed, and is the one place where errors are caught."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{cmd_name.replace('-', '_')}", __package__)
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if not ctx.resilient_parsing:
            _warn_of_unknown_variables([*self.list_commands(ctx), str(name)])
        if command is not None and name is not None and not ctx.resilient_parsing:
            configure_from_file(ctx, name, command, rest)
        return name, command, rest

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        typed = list(args)  # parsing empties the list
        ctx = super().make_context(info_name, args, parent, **extra)
        ctx.meta[TYPED] = typed
        return ctx

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **extra)
        try:
            with _end_soon_after_interrupt():
                status = super().main(args, standalone_mode=False, **extra)
        except click.Abort:
            click.echo(INTERRUPTED, err=True)
            _exit(130)
        except click.ClickException as error:
            error.show()
            _exit(error.exit_code)
        except Exception as error:
            _exit(_report(error))
        sys.exit(status if isinstance(status, int) else 0)


def _warn_of_unknown_variables(names: Sequence[str]) -> None:
    """Warn of environment variables that look like gravmap's, and belong to no command."""
    known = ("GRAVMAP_WORKSPACE", "GRAVMAP_VERBOSE", "GRAVMAP_QUIET", STEP_TIMEOUT)
    commands = tuple(f"GRAVMAP_{name.replace('-', '_').upper()}_" for name in names)
    for name in sorted(os.environ):
        if name.startswith("GRAVMAP_") and name not in known and not name.startswith(commands):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            meant = f" Did you mean {near[0]}?" if near else ""
            click.echo(f"Warning: the environment variable {name} belongs to no command.{meant}", err=True)


@contextmanager
def _end_soon_after_interrupt() -> Iterator[None]:
    """End the process a few seconds after Ctrl-C, even in the middle of a long call into a library.

    Python raises KeyboardInterrupt only between two of its own instructions, and the backward pass of a large network
    is one that takes half a minute. The wakeup socket gets the number of a signal at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)

    def watch() -> None:
        while number := receiver.recv(1):
            if number[0] == signal.SIGINT:
                time.sleep(GRACE_S)
                for child in multiprocessing.active_children():
                    child.kill()
                sys.stderr.write(f"{INTERRUPTED}\n")
                sys.stderr.flush()
                os._exit(130)

    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        sender.close()  # ends the thread, unless it is counting the seconds


def _exit(status: int) -> NoReturn:
    """Exit after an error; at once where Python's end could wait for other processes of a training."""
    distributed = sys.modules.get("gravmap.learning.training.distributed")
    if distributed is not None:
        distributed.leave(status)
    sys.exit(status)


def _report(error: Exception) -> int:
    """Write an error as one or two lines (and its traceback with -vv); give the exit status."""
    if verbosity_of(sys.argv) >= 2:
        traceback.print_exception(error)
    known = _known(error)
    if known is None:
        click.echo(f"Error: unexpected {type(error).__name__}: {error}", err=True)
        click.echo("This is a bug in gravmap. Run again with -vv for the traceback, and report it.", err=True)
        return 1
    click.echo(f"Error: {known}", err=True)
    return known.exit_status


def _known(error: Exception) -> GravmapError | None:
    """The error as one of ours, or None when it is a bug."""
    if isinstance(error, GravmapError):
        return error
    if (known := out_of_memory(error)) is not None:
        return known
    if says_full_disk(error):
        return full_disk(getattr(error, "filename", None) or "a file")
    if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno == errno.EROFS):
        return no_permission(error.filename or error.strerror or error)
    return None


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "GRAVMAP", "max_content_width": 100},
    help=HELP,
    epilog="Start with `gravmap demo`: all steps on a synthetic crust, offline, in minutes.",
)
@click.version_option(__version__, message="gravmap %(version)s")
@WORKSPACE_OPTION
@LOG_OPTIONS
@click.pass_context
def gravmap(ctx: click.Context, workspace: str | None, verbose: int, quiet: bool) -> None:
    """Open the session that every command finds in its context."""
    ctx.obj = Session.start(workspace, verbose, quiet)
