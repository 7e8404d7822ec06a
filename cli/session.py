"""What every command shares: the workspace, verbosity, progress bars, gravmap.toml."""

from __future__ import annotations

import difflib
import json
import logging
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from gravmap.errors import InputError
from gravmap.outputs import check_outputs, writing
from gravmap.progress import Progress, describe_time
from gravmap.records import read_record
from gravmap.workspace import Workspace

# Keys of the context's meta: the arguments as typed, and warnings about deprecated names.
TYPED = "gravmap.typed"
DEPRECATED = "gravmap.deprecated"

Function = TypeVar("Function", bound=Callable[..., Any])

WORKSPACE_OPTION = click.option(
    "-w",
    "--workspace",
    metavar="DIR",
    envvar="GRAVMAP_WORKSPACE",
    help="Folder of data/, runs/ and maps/ (default: the current folder).",
)


def LOG_OPTIONS(function: Function) -> Function:
    """The options -v and -q."""
    function = click.option("-q", "--quiet", is_flag=True, help="Print errors only.")(function)
    return click.option("-v", "--verbose", count=True, help="Print more; -vv also shows tracebacks.")(function)


@dataclass
class Session:
    """One run of one command.

    Attributes
    ----------
    workspace : Workspace
        Where files are.
    verbosity : int
        -1 quiet, 0 normal, 1 verbose, 2 debug.
    json : bool
        Results go to stdout as JSON; nothing else does.
    """

    workspace: Workspace
    verbosity: int = 0
    json: bool = False

    @classmethod
    def start(cls, workspace: str | None, verbose: int, quiet: bool) -> Session:
        """Open a session and point the library's log at stderr."""
        session = cls(Workspace(Path(workspace or ".")), -1 if quiet else verbose)
        session._point_log()
        return session

    def _point_log(self) -> None:
        levels = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}
        logger = logging.getLogger("gravmap")
        logger.handlers[:] = [_StderrHandler()]
        logger.setLevel(levels.get(self.verbosity, logging.DEBUG))
        logger.propagate = False
        # What libraries log is for those who look for a cause; without a handler Python would print it.
        root = logging.getLogger()
        root.handlers[:] = [each for each in root.handlers if not isinstance(each, _LibraryHandler)]
        root.addHandler(_LibraryHandler(logging.WARNING if self.verbosity >= 1 else logging.CRITICAL + 1))
        warnings.showwarning = _log_warning
        os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of training processes, which have no log

    def refine(self, workspace: str | None, verbose: int, quiet: bool, as_json: bool) -> None:
        """Take the options given after the command's name; they override those before it."""
        if workspace is not None:
            self.workspace = Workspace(Path(workspace))
        if verbose or quiet:
            self.verbosity = -1 if quiet else verbose
        self.json = as_json
        self._point_log()

    @property
    def command_line(self) -> str:
        """The command as typed, for the records of its output."""
        return shlex.join(["gravmap", *click.get_current_context().meta.get(TYPED, [])])

    def say(self, text: str) -> None:
        """Print a line for people: on stdout, or on stderr when stdout is for JSON."""
        if self.verbosity >= 0:
            click.echo(text, err=self.json)

    def warn(self, text: str) -> None:
        """Print a warning on stderr."""
        if self.verbosity >= 0:
            click.echo(f"Warning: {text}", err=True)

    def result(self, value: dict[str, Any]) -> None:
        """Print a machine-readable result when ``--json`` was given."""
        if self.json:
            click.echo(json.dumps(value, indent=2, ensure_ascii=False))

    def run(self, root: Path, words: Sequence[str]) -> None:
        """Run another gravmap command in the workspace `root`, printed as a user would type it."""
        where = ["-w", str(root)]
        self.say(f"\n$ {shlex.join(['gravmap', *where, *words])}")
        verbosity = ["-q"] if self.verbosity < 0 or self.json else ["-v"] * self.verbosity
        group = click.get_current_context().find_root().command
        group.main([*where, *words, *verbosity], standalone_mode=False)

    def writing(
        self,
        outputs: Iterable[Path] = (),
        inputs: Iterable[Path | None] = (),
        overwrite: bool = False,
        dry_run: bool = False,
        *,
        folders: Iterable[Path] = (),
        lock: Path | None = None,
    ) -> None:
        """Check what this command writes, and lock it until it ends unless it is a dry run.

        See :func:`gravmap.outputs.writing`.
        """
        if dry_run:
            return check_outputs(outputs, inputs, overwrite, folders=folders)
        click.get_current_context().with_resource(writing(outputs, inputs, overwrite, folders=folders, lock=lock))

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """A progress listener for the library: a bar on a terminal, now and then a line elsewhere."""
        if self.verbosity < 0:
            yield lambda done, total, note="": None
        elif sys.stderr.isatty():
            with _bar(title) as listener:
                yield listener
        else:
            yield _lines(title)


@contextmanager
def _bar(title: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(title), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[note]}"))
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task, left = bar.add_task(title, total=None, note=""), _TimeLeft()

        def listener(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note + left(done, total, note, time.monotonic()))

        yield listener


class _TimeLeft:
    """The time left, from the speed so far; empty where the note of the library has a better estimate."""

    def __init__(self) -> None:
        # Of the current part of the work: its start, what was done then, and its size.
        self.since, self.first, self.whole = 0.0, 0, -1

    def __call__(self, done: int, total: int, note: str, now: float) -> str:
        if total != self.whole or done < self.first:
            self.since, self.first, self.whole = now, done, total
        if not total or done <= self.first or "left" in note:
            return ""
        return f"  about {describe_time((now - self.since) / (done - self.first) * (total - done))} left"


def _lines(title: str, every_s: float = 10.0) -> Progress:
    last, time_left = time.monotonic(), _TimeLeft()

    def listener(done: int, total: int, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        left = time_left(done, total, note, now)
        if now - last >= every_s:
            last = now
            percent = f" {100 * done / total:.0f} %" if total else f" {done}"
            click.echo(f"{title}:{percent}{'  ' + note if note else ''}{left}", err=True)

    return listener


def _log_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Log a Python warning as one line with -v; what concerns users has been said in gravmap's own words."""
    logging.getLogger("gravmap").info("%s: %s", category.__name__, str(message).partition("\n")[0])


class _LibraryHandler(logging.Handler):
    """Prints what other libraries log, one line each."""

    def emit(self, record: logging.LogRecord) -> None:
        first = record.getMessage().partition("\n")[0]
        click.echo(f"{record.name}: {first}", err=True)


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        prefix = f"{record.levelname.capitalize()}: " if record.levelno >= logging.WARNING else ""
        click.echo(f"{prefix}{record.getMessage()}", err=True)


def command_options(json_output: bool = True) -> Callable[[Function], Function]:
    """Options of every command: -w, -v, -q and, where there is a result to read, --json.

    The decorated function takes the :class:`Session` as its first argument.
    """

    def decorate(function: Function) -> Function:
        import functools

        @functools.wraps(function)
        def run(
            *args: Any, workspace: str | None, verbose: int, quiet: bool, json: bool = False, **options: Any
        ) -> Any:
            session = click.get_current_context().find_object(Session) or Session.start(None, 0, False)
            session.refine(workspace, verbose, quiet, json)
            for text in click.get_current_context().meta.pop(DEPRECATED, []):
                session.warn(text)
            return function(session, *args, **options)

        wrapped: Any = LOG_OPTIONS(run)
        wrapped = WORKSPACE_OPTION(wrapped)
        if json_output:
            wrapped = click.option("--json", is_flag=True, help="Print the result as JSON on stdout.")(wrapped)
        decorated: Function = wrapped
        return decorated

    return decorate


def verbosity_of(argv: list[str]) -> int:
    """How often -v was given, counted in the bare arguments: errors may come before parsing ends."""
    return sum(
        arg.count("v") if arg.startswith("-v") and set(arg[1:]) == {"v"} else int(arg == "--verbose") for arg in argv
    )


def _workspace_in(args: list[str]) -> str | None:
    """The workspace named after the command's name; needed before the options are parsed."""
    for index, arg in enumerate(args):
        if arg in ("-w", "--workspace") and index + 1 < len(args):
            return args[index + 1]
        if arg.startswith("--workspace="):
            return arg.partition("=")[2]
        if arg.startswith("-w") and not arg.startswith("--") and len(arg) > 2:
            return arg[2:]
    return None


def configure_from_file(ctx: click.Context, name: str, command: click.Command, args: list[str]) -> None:
    """Make the workspace's gravmap.toml the defaults of `command`.

    The file has one table per command with its long options as keys. A flag beats an environment
    variable, which beats the file, which beats the built-in default (click's own order).

    Raises
    ------
    click.UsageError
        The file is not valid TOML, or a key is unknown; the nearest known key is named.
    """
    # The group's own callback has not run yet: its parsed options are in its context.
    root = _workspace_in(args) or ctx.params.get("workspace") or "."
    workspace = Workspace(Path(root))
    if not workspace.config.exists():
        return
    try:
        table = read_record(workspace.config, dict[str, dict[str, Any]])
    except InputError as error:
        raise click.UsageError(str(error)) from None
    group = ctx.command
    assert isinstance(group, click.Group)
    known_tables = group.list_commands(ctx)
    for table_name in table:
        if table_name not in known_tables:
            raise click.UsageError(_unknown(table_name, known_tables, workspace.config, "the file"))
    defaults = _defaults(ctx, command, table.get(name, {}), workspace.config, name)
    ctx.default_map = {**(ctx.default_map or {}), name: defaults}


def _defaults(ctx: click.Context, command: click.Command, table: Any, path: Path, where: str) -> dict[str, Any]:
    """A command's table as click wants its defaults; of a group, a table for each of its commands."""
    known = {
        name.removeprefix("--"): parameter
        for parameter in command.params
        for name in parameter.opts
        if name.startswith("--") and parameter.name != "workspace"
    }
    # Old names of options are accepted too; the option warns.
    old = {
        each.opts[0].removeprefix("--"): each for parameter in command.params for each in getattr(parameter, "old", ())
    }
    inner = command.list_commands(ctx) if isinstance(command, click.Group) else []
    defaults: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(command, click.Group) and key in inner and isinstance(value, dict):
            found = command.get_command(ctx, key)
            assert found is not None
            defaults[key] = _defaults(ctx, found, value, path, f"{where}.{key}")
            continue
        parameter = known.get(key.replace("_", "-")) or old.get(key.replace("_", "-"))
        if parameter is None or parameter.name is None:
            raise click.UsageError(_unknown(key, [*known, *inner], path, f"[{where}]"))
        defaults[parameter.name] = _as_typed(ctx, parameter, value, f"{path}: {key} in [{where}]")
    return defaults


def _as_typed(ctx: click.Context, parameter: click.Parameter, value: Any, what: str) -> Any:
    """A value of gravmap.toml as it would be typed, after a check that the option takes it."""
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise click.UsageError(f"{what} is {_toml(value)}; it should be true or false.")
        return value
    # A lone value for an option that may be repeated is a list of one.
    repeated = bool(getattr(parameter, "multiple", False))
    rows = value if repeated and isinstance(value, list) and (parameter.nargs == 1 or _nested(value)) else [value]
    typed = []
    for row in rows:
        words = row if parameter.nargs != 1 and isinstance(row, list) else [row]
        if len(words) != parameter.nargs or not all(_is_word(word) for word in words):
            wanted = "text or a number" if parameter.nargs == 1 else f"a list of {parameter.nargs}"
            raise click.UsageError(f"{what} is {_toml(row)}; it should be {wanted}.")
        texts = [str(word) for word in words]
        try:
            parameter.type(tuple(texts) if parameter.type.is_composite else texts[0], parameter, ctx)
        except click.BadParameter as error:
            raise click.UsageError(f"{what}: {error.message}") from None
        typed.append(texts[0] if parameter.nargs == 1 else tuple(texts))
    return typed if repeated else typed[0]


def _nested(value: list[Any]) -> bool:
    return all(isinstance(row, list) for row in value)


def _is_word(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _toml(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _unknown(key: str, known: list[str], path: Path, where: str) -> str:
    near = difflib.get_close_matches(key.replace("_", "-"), known, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(known)}."
    return f"{path}: unknown key {key!r} in {where}.{meant}"
