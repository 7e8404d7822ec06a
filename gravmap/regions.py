"""Regions: boxes in longitude and latitude, in the order west, south, east, north, and named ones."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from gravmap.errors import InputError, OptionError
from gravmap.records import Bounds, parse_record, read_record
from gravmap.workspace import check_name


@dataclass(frozen=True)
class Region:
    """A box in degrees of longitude and latitude on WGS 84.

    Attributes
    ----------
    west, south, east, north : float
        Degrees; west < east and south < north. Across the antimeridian east is counted on beyond 180: 170 60 190 66.
    """

    west: float
    south: float
    east: float
    north: float

    def __post_init__(self) -> None:
        written = f"W {self.west:g} S {self.south:g} E {self.east:g} N {self.north:g}"
        order = "The order is west south east north (GMT's -R is west east south north)."
        if not all(math.isfinite(side) for side in self.bounds_wsen):
            raise OptionError(f"The box {written} has a side that is not finite.", order)
        if not -90 <= self.south < self.north <= 90:
            raise OptionError(
                f"The box {written} has invalid latitudes; -90 <= south < north <= 90 is required.", order
            )
        if self.west >= self.east:
            hint = ""
            if self.west > 0 > self.east >= -180:
                sides = " ".join(f"{side:g}" for side in (self.west, self.south, self.east + 360, self.north))
                hint = f"Across the antimeridian count on beyond 180: {sides}."
            raise OptionError(f"The box {written} has its west side east of its east side.", f"{order} {hint}".strip())
        if self.west < -180 or self.east > 360 or self.east - self.west > 360:
            raise OptionError(f"The box {written} has invalid longitudes.", order)

    @property
    def bounds_wsen(self) -> tuple[float, float, float, float]:
        """West, south, east, north, degrees."""
        return self.west, self.south, self.east, self.north

    @property
    def width_deg(self) -> float:
        """Extent in longitude, degrees."""
        return self.east - self.west

    @property
    def height_deg(self) -> float:
        """Extent in latitude, degrees."""
        return self.north - self.south

    def contains(self, other: Region, tolerance_deg: float = 1e-6) -> bool:
        """Whether `other` is inside this box, within `tolerance_deg`."""
        return (
            other.west >= self.west - tolerance_deg
            and other.south >= self.south - tolerance_deg
            and other.east <= self.east + tolerance_deg
            and other.north <= self.north + tolerance_deg
        )

    def intersection(self, other: Region) -> Region | None:
        """The intersection with another box, or None if they do not overlap."""
        west, south = max(self.west, other.west), max(self.south, other.south)
        east, north = min(self.east, other.east), min(self.north, other.north)
        return Region(west, south, east, north) if west < east and south < north else None

    def beyond(self, whole: Region, what: str) -> tuple[str, str]:
        """Words for a box that is not inside another one: how it lies, and the part that could be used.

        Parameters
        ----------
        whole : Region
            The other box.
        what : str
            What it is the extent of.

        Returns
        -------
        str, str
            Message and hint of an error.

        Examples
        --------
        >>> from gravmap.regions import Region
        >>> message, hint = Region(74, 36, 90, 42).beyond(Region(70, 37, 95, 52), "the grid")
        >>> message
        'The region 74E-90E 36N-42N is partly outside the grid (70E-95E 37N-52N).'
        >>> hint
        'Inside it is --bbox 74 37 90 42.'
        """
        inside = self.intersection(whole)
        how = "partly outside" if inside else "outside"
        box = "" if inside is None else " ".join(f"{side:g}" for side in inside.bounds_wsen)
        return (
            f"The region {self} is {how} {what} ({whole}).",
            f"Inside it is --bbox {box}." if inside else "Choose a --bbox W S E N inside it.",
        )

    def turned_into(self, west: float, east: float, tolerance_deg: float = 1e-6) -> Region:
        """The box with its longitudes turned by 360 degrees if it lies between `west` and `east` only then.

        Examples
        --------
        >>> from gravmap.regions import Region
        >>> Region(-170, 60, -160, 66).turned_into(150, 210).bounds_wsen
        (190, 60, 200, 66)
        """
        for turn in (0, 360, -360):
            inside = self.west + turn >= west - tolerance_deg and self.east + turn <= east + tolerance_deg
            if inside and self.west + turn >= -180 and self.east + turn <= 360:
                return Region(self.west + turn, self.south, self.east + turn, self.north) if turn else self
        return self

    def __str__(self) -> str:
        def side(value: float, positive: str, negative: str) -> str:
            return f"{abs(value):g}{positive if value >= 0 else negative}"

        return (
            f"{side(self.west, 'E', 'W')}-{side(self.east, 'E', 'W')} {side(self.south, 'N', 'S')}-"
            f"{side(self.north, 'N', 'S')}"
        )


def named_regions(own: Path | None = None) -> dict[str, Region]:
    """Named regions of gravmap and of a user's file.

    Parameters
    ----------
    own : Path, optional
        A TOML file with lines ``name = [west, south, east, north]``; ignored if missing.

    Raises
    ------
    InputError
        The user's file is not valid.
    """
    text = resources.files("gravmap").joinpath("regions.toml").read_text(encoding="utf-8")
    regions = _read(parse_record(text, dict[str, Bounds], "gravmap's own regions", toml=True), "gravmap's own regions")
    if own is not None and own.exists():
        regions |= _read(read_record(own, dict[str, Bounds], hint=_LINES), str(own))
    return regions


_LINES = "Write lines such as: mine = [81, 43, 92, 48] (west, south, east, north)."


def _read(table: dict[str, list[float]], where: str) -> dict[str, Region]:
    regions = {}
    for name, sides in table.items():
        try:
            regions[check_name(name, "a region")] = Region(*sides)
        except OptionError as error:
            message = error.message if repr(name) in error.message else f"{name}: {error.message}"
            raise InputError(f"{where}: {message}", error.hint) from None
    return regions


def find_region(name: str, own: Path | None = None) -> Region:
    """Look up a region by name.

    Raises
    ------
    OptionError
        There is no such region; the message has the closest and all known names.
    """
    regions = named_regions(own)
    if name in regions:
        return regions[name]
    near = difflib.get_close_matches(name.lower(), regions, n=1)
    suggestion = f" Did you mean {near[0]}?" if near else ""
    raise OptionError(
        f"There is no region {name!r}.{suggestion}",
        f"Known: {', '.join(regions)}. Or give --bbox W S E N, or add the name to regions.toml in the workspace.",
    )
