"""Options that mean the same in every command, the types they are read with, and their headings and old names."""

from __future__ import annotations

import difflib
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from gravmap.errors import OptionError
from gravmap.regions import Region, find_region
from gravmap.units import parse_angle_deg, parse_length_m
from gravmap.workspace import check_name

from . import complete
from .session import DEPRECATED, Session

Function = TypeVar("Function", bound=Callable[..., Any])

_PRECEDENCE = [ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP]


class Option(click.Option):
    """An option with a heading in --help, with options that it excludes, and with old names that still work and warn.

    Of two options that exclude each other, one on the command line beats one of an environment variable, which beats
    one of gravmap.toml; two from the same place are the command's to refuse. An old name works wherever the new one
    does: on the command line, as a key of gravmap.toml, and as the environment variable that click derives from it. The
    variable of the new name follows the option: ``GRAVMAP_TRAIN_WINDOW``.

    Parameters
    ----------
    old_names : iterable of str
        Long options of earlier versions, such as ``--scales``.
    excludes : iterable of str
        Names of the parameters that cannot be given together with this one.
    """

    heading: str | None = None

    def __init__(
        self, *args: Any, old_names: Iterable[str] = (), excludes: Iterable[str] = (), **settings: Any
    ) -> None:
        super().__init__(*args, **settings)
        self.excludes = frozenset(excludes)
        for unwanted in ("default", "required", "show_default"):
            settings.pop(unwanted, None)
        # Never among the command's parameters: not in --help, and no argument of its function.
        self.old = tuple(click.Option([name], **settings) for name in old_names)

    @property
    def long_name(self) -> str:
        """The option as it is written: ``--window``."""
        return next(name for name in self.opts if name.startswith("--"))

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        super().add_to_parser(parser, ctx)
        for old in self.old:
            old.add_to_parser(parser, ctx)

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        value = super().resolve_envvar_value(ctx)
        if value is None and ctx.auto_envvar_prefix is not None and self.long_name:
            value = os.environ.get(_variable(ctx, self.long_name)) or None
        return value

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, ParameterSource]:
        value, source = self._consume(ctx, opts)
        if source in _PRECEDENCE[1:]:
            others = [each for each in ctx.command.params if isinstance(each, Option) and each.name in self.excludes]
            stronger = _PRECEDENCE[: _PRECEDENCE.index(source)]
            if any(other._consume(ctx, opts)[1] in stronger for other in others):
                return None, ParameterSource.DEFAULT  # such options have no default
        return value, source

    def _consume(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, ParameterSource]:
        value, source = super().consume_value(ctx, opts)
        for old in self.old:
            old_value, old_source = old.consume_value(ctx, opts)
            if old_source not in _PRECEDENCE:
                continue
            if old_source is source is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"{old.opts[0]} is the old name of {self.long_name}: give one of the two.", ctx)
            old_name, new_name = _spelling(ctx, old.opts[0], old_source), _spelling(ctx, self.long_name, old_source)
            ctx.meta.setdefault(DEPRECATED, []).append(f"{old_name} is deprecated: use {new_name}.")
            if source not in _PRECEDENCE or _PRECEDENCE.index(old_source) < _PRECEDENCE.index(source):
                value, source = old_value, old_source
        return value, source


def _variable(ctx: click.Context, name: str) -> str:
    return f"{ctx.auto_envvar_prefix}_{name.removeprefix('--').replace('-', '_').upper()}"


def _refuse_unknown_variables(ctx: click.Context, parameters: Iterable[click.Parameter]) -> None:
    """Refuse an environment variable of a command that is none of its options: it would be ignored in silence."""
    known: dict[str, None] = {}
    for each in parameters:
        old = [name for one in getattr(each, "old", ()) for name in one.opts]
        for name in (str(each.name), *each.opts, *each.secondary_opts, *old):
            known[_variable(ctx, name)] = None
    for name in sorted(os.environ):
        if name.startswith(f"{ctx.auto_envvar_prefix}_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"The environment variable {name} is no option of this command.{meant}", ctx)


def _spelling(ctx: click.Context, name: str, source: ParameterSource) -> str:
    """An option as it is written where its value came from."""
    if source is ParameterSource.ENVIRONMENT:
        return _variable(ctx, name)
    if source is ParameterSource.DEFAULT_MAP:
        return f"the key {name.removeprefix('--')!r} of gravmap.toml"
    return name


option = partial(click.option, cls=Option)


class Command(click.Command):
    """A command whose options are listed under headings in --help.

    Twelve lines of our own: cloup and rich-click do this too, but cloup refuses any context or formatter but its own
    (docs/make_commands.py and tools such as sphinx-click use click's) and takes half as long again to import as click
    alone, and rich-click loads rich for --help.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.auto_envvar_prefix is not None and not ctx.resilient_parsing:
            _refuse_unknown_variables(ctx, self.get_params(ctx))
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        parameters = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        # Options without a heading come last: those that every command has.
        grouped = any(getattr(each, "heading", None) for each in parameters)
        for parameter in sorted(parameters, key=lambda each: getattr(each, "heading", None) is None):
            record = parameter.get_help_record(ctx)
            if record is not None:
                heading = getattr(parameter, "heading", None) or ("Other options" if grouped else "Options")
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class Group(click.Group):
    """A group of commands that suggests the nearest one for an unknown name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        name = args[0]
        if name not in known and name[:1] not in ("-", "") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(name.lower(), known, n=1)
            meant = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
            ctx.fail(f"No such command {name!r}. {meant}")
        return super().resolve_command(ctx, args)


def option_group(heading: str, *options: Callable[[Any], Any]) -> Callable[[Function], Function]:
    """Decorate a command's function with options listed under one heading in --help."""
    return _with(options, heading=heading)


def hidden(*options: Callable[[Any], Any]) -> Callable[[Function], Function]:
    """Decorate a command's function with options that still work and are not in --help."""
    return _with(options, hidden=True)


def _with(options: Sequence[Callable[[Any], Any]], **attributes: Any) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        for add in reversed(options):
            before = len(getattr(function, "__click_params__", []))
            function = add(function)
            for parameter in function.__click_params__[before:]:  # type: ignore[attr-defined]
                for name, value in attributes.items():
                    setattr(parameter, name, value)
        return function

    return decorate


# Newer clicks know the type a ParamType gives; older ones cannot be subscripted when the code runs.
if TYPE_CHECKING:
    FloatType = click.ParamType[float]
else:
    FloatType = click.ParamType


class Length(FloatType):
    """A length with its unit, read as metres."""

    name = "length"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):  # a default that click converts a second time
            return value
        try:
            return parse_length_m(str(value))
        except OptionError as error:
            self.fail(str(error), param, ctx)


class Angle(FloatType):
    """An angle with its unit, read as degrees."""

    name = "angle"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_angle_deg(str(value))
        except OptionError as error:
            self.fail(str(error), param, ctx)


class Duration(FloatType):
    """A duration with its unit, read as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"\s*(\d+\.?\d*)\s*(s|min|h)\s*", str(value))
        if match is None or float(match[1]) == 0:
            self.fail(f"{value!r} is not a duration; write a number and s, min or h, such as 15min.", param, ctx)
        return float(match[1]) * {"s": 1.0, "min": 60.0, "h": 3600.0}[match[2]]


LENGTH = Length()
ANGLE = Angle()
DURATION = Duration()


def region_options(function: Function) -> Function:
    """The options --region NAME and --bbox W S E N; read them with :func:`chosen_region`."""
    function = option(
        "--bbox",
        type=float,
        nargs=4,
        metavar="W S E N",
        excludes=("region", "polygon"),
        help="A box in degrees: west south east north.",
    )(function)
    return option(
        "--region",
        metavar="NAME",
        excludes=("bbox", "polygon"),
        shell_complete=complete.regions,
        help="A named region: junggar, liu2024, tarim ...",
    )(function)


def chosen_region(session: Session, region: str | None, bbox: tuple[float, ...] | None) -> Region | None:
    """The region named or boxed on the command line, or None where neither was given.

    Raises
    ------
    click.UsageError
        Both were given.
    OptionError
        The name is unknown or the box is invalid.
    """
    if region is not None and bbox:
        raise click.UsageError(f"--region and --bbox exclude each other{origin('region', 'bbox')}.")
    if bbox:
        return Region(*bbox)
    return find_region(region, session.workspace.regions) if region is not None else None


def map_name(region: str | None, bbox: tuple[float, ...] | None) -> str:
    """The name of a map: that of its region, or the sides of the box."""
    return region or "bbox_" + "_".join(f"{side:g}" for side in bbox or ())


overwrite_option = option("--overwrite", is_flag=True, help="Replace files that exist (default: refuse with status 3).")

dry_run_option = option(
    "-n",
    "--dry-run",
    is_flag=True,
    help="Report what would be read and written, and the time, memory and disk needed; write nothing.",
)

seed_option = option(
    "--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True, help="Random seed."
)


def output_option(help_text: str, metavar: str = "FILE") -> Callable[[Function], Function]:
    """The option -o/--output: where the result goes, as a path."""
    return option("-o", "--output", type=click.Path(path_type=Path), metavar=metavar, help=help_text)


def window_option(help_text: str, old_names: Sequence[str] = ("--scales",)) -> Callable[[Function], Function]:
    """The option --window, the side of a window in degrees, which may be repeated."""
    return option(
        "--window", "windows_deg", type=ANGLE, multiple=True, metavar="ANGLE", help=help_text, old_names=old_names
    )


def device_option(
    help_text: str = "Where to compute; auto: on the GPU, or on the CPU where there is none.",
) -> Callable[[Function], Function]:
    """The option --device."""
    choice = click.Choice(["auto", "cpu", "cuda"])
    return option("--device", type=choice, default="auto", show_default=True, help=help_text)


def origin(*names: str) -> str:
    """For messages: which of the parameters are not typed but from gravmap.toml or an environment variable, if any."""
    context = click.get_current_context(silent=True)
    words = {ParameterSource.DEFAULT_MAP: "in gravmap.toml", ParameterSource.ENVIRONMENT: "in an environment variable"}
    found = []
    for each in context.command.params if context else ():
        source = context.get_parameter_source(str(each.name)) if context and each.name in names else None
        if source in words:
            found.append(f"{max(each.opts, key=len)} is set {words[source]}")
    return f" ({', '.join(found)})" if found else ""


def given_on_command_line() -> dict[str, str]:
    """The options on the command line: the name of the parameter, and the option as it is written."""
    context = click.get_current_context()
    return {
        str(each.name): each.opts[0]
        for each in context.command.params
        if context.get_parameter_source(str(each.name)) is ParameterSource.COMMANDLINE
    }


def refuse_contradiction(gpus: int | None, device: str) -> None:
    """Refuse --gpus and --device where they name different devices.

    Raises
    ------
    click.UsageError
        They contradict each other.
    """
    if (device == "cpu" and gpus) or (device == "cuda" and gpus == 0):
        reason = f"contradict each other{origin('gpus', 'device')}: each excludes the other."
        raise click.UsageError(f"--gpus {gpus} and --device {device} {reason}")


def report_device(session: Session, device: str, used: str) -> None:
    """Print a line where --device auto fell back to the CPU."""
    if device == "auto" and used == "cpu":
        session.say("Computed on the CPU: no GPU was found.")


def usable_cores() -> int:
    """Cores that this process may use; crusts are simulated on all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_name(name: str | None, kind: str) -> str:
    """The folder of a new run under runs/: the given name, or its kind and the time.

    Raises
    ------
    OptionError
        The name is not that of a folder.
    """
    if name is None:
        # The kind may be the name of a file, or of a network in another run's record.
        return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', kind)[:60].strip('.-')}-{time.strftime('%Y%m%d-%H%M%S')}"
    if name == "latest":
        raise OptionError("'latest' is not a valid name of a run: runs/latest names the newest one.", "Choose another.")
    return check_name(name, "a run")
