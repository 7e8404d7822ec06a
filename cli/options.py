"""Options that mean the same in every command, and the types they are read with."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gravmap.errors import OptionError
from gravmap.regions import Region, find_region
from gravmap.units import parse_angle_deg, parse_length_m

from .session import Session

Function = TypeVar("Function", bound=Callable[..., Any])

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
            self.fail(f"{value!r} is no duration; write a number and s, min or h, such as 15min.", param, ctx)
        return float(match[1]) * {"s": 1.0, "min": 60.0, "h": 3600.0}[match[2]]


LENGTH = Length()
ANGLE = Angle()
DURATION = Duration()


def region_options(function: Function) -> Function:
    """The options --region NAME and --bbox W S E N; read them with :func:`chosen_region`."""
    function = click.option(
        "--bbox", type=float, nargs=4, metavar="W S E N", help="A box in degrees: west south east north."
    )(function)
    return click.option("--region", metavar="NAME", help="A named region: junggar, liu2024, tarim ...")(function)


def chosen_region(session: Session, region: str | None, bbox: tuple[float, ...] | None) -> Region | None:
    """The region the user named or boxed, or None when neither was given.

    Raises
    ------
    click.UsageError
        Both were given.
    OptionError
        The name is unknown or the box is no box.
    """
    if region is not None and bbox:
        raise click.UsageError("--region and --bbox exclude each other.")
    if bbox:
        return Region(*bbox)
    return find_region(region, session.workspace.regions) if region is not None else None


def overwrite_option(function: Function) -> Function:
    """The option --overwrite."""
    return click.option("--overwrite", is_flag=True, help="Replace files that exist (default: refuse, status 3).")(
        function
    )


def dry_run_option(function: Function) -> Function:
    """The option -n/--dry-run."""
    text = "Say what would be read and written, and what it would take; write nothing."
    return click.option("-n", "--dry-run", is_flag=True, help=text)(function)


def device_option(function: Function) -> Function:
    """The option --device of commands that run a trained network."""
    choice = click.Choice(["auto", "cpu", "cuda"])
    return click.option("--device", type=choice, default="auto", show_default=True, help="Where to compute.")(function)


def seed_option(function: Function) -> Function:
    """The option --seed."""
    return click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")(
        function
    )


def usable_cores() -> int:
    """Cores that this process may use; crusts are made on all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_name(name: str | None, kind: str) -> str:
    """The folder of a new run under runs/: the name asked for, or what it is and the time.

    Raises
    ------
    OptionError
        It is no name of a folder.
    """
    if name is None:
        return f"{kind.replace(':', '-')}-{time.strftime('%Y%m%d-%H%M%S')}"
    if Path(name).name != name or name in ("latest", ".", ".."):
        raise OptionError(f"{name!r} is no name of a folder in runs/.", "Use letters, digits, - and _.")
    return name
