"""Legends: what the codes of a geological map mean, as classes of bedrock.

Codes are matched exactly: ``C`` is not ``Cz`` and not ``c``. Only blanks that pad a code are dropped.
How a legend is written down is in :mod:`gravmap.geology.legend_file`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

from gravmap.files import write_text

COVER = 0
UNUSABLE = 255


@dataclass(frozen=True)
class LegendClass:
    """One class of a label raster.

    Attributes
    ----------
    index : int
        Value in the raster: 0 cover, 1, 2, ... bedrock.
    name : str
        As a map's legend prints it.
    age : str
        Span in million years, older end first (``"2500-538.8 Ma"``), or ``"any"``.
    colour : str
        ``#RRGGBB``.
    rank : str
        Eon, era, period, or lithology.
    uri : str
        Where the age is defined, such as its entry in the ICS chart; may be empty.
    """

    index: int
    name: str
    age: str
    colour: str
    rank: str = ""
    uri: str = ""


@dataclass(frozen=True)
class Override:
    """What the codes of a second field do to the class that the first field gave.

    Attributes
    ----------
    field : str
        Name of the second field.
    codes : dict of str to int or None
        Class index, or None to keep the first field's class.
    unless : dict of str to frozenset of str
        Codes of the first field that the override leaves alone.
    """

    field: str
    codes: dict[str, int | None]
    unless: dict[str, frozenset[str]]


@dataclass(frozen=True)
class Legend:
    """A table of classes and, for one map, which code means which class.

    Attributes
    ----------
    name : str
        Short name.
    classes : tuple of LegendClass
        By index; bedrock has the indices 1 .. K without a hole.
    field : str
        The map's field that holds the code; empty when the legend is a bare class table.
    codes : dict of str to int
        Code to class index; 255 is not usable.
    overrides : tuple of Override
        Second fields, the first that decides wins.
    gaps : frozenset of str
        Codes (all 255 in `codes`) that say nothing about the ground.
    crs : str
        Coordinate system of a file that does not say its own; may be empty.
    title, citation : str
        For people.
    sources : tuple of dict
        In the legend beside a label raster: the maps it was made from, with their crosswalks.
    """

    name: str
    classes: tuple[LegendClass, ...]
    field: str = ""
    codes: dict[str, int] = dataclass_field(default_factory=dict)
    overrides: tuple[Override, ...] = ()
    gaps: frozenset[str] = frozenset()
    crs: str = ""
    title: str = ""
    citation: str = ""
    sources: tuple[dict[str, Any], ...] = ()

    @property
    def bedrock(self) -> tuple[LegendClass, ...]:
        """The classes a network is taught: all but the cover."""
        return tuple(entry for entry in self.classes if entry.index != COVER)

    def classify(self, code: str, others: dict[str, str] | None = None) -> int | None:
        """The class index of a polygon.

        Parameters
        ----------
        code : str
            Value of the legend's field, padding blanks dropped.
        others : dict of str to str, optional
            Values of the override fields.

        Returns
        -------
        int or None
            Class index, 255 when not usable, None when the legend does not know the code.
        """
        if code not in self.codes:
            return None
        for override in self.overrides:
            other = (others or {}).get(override.field, "")
            decided = override.codes.get(other)
            if decided is not None and code not in override.unless[other]:
                return decided
        return self.codes[code]

    def text(self) -> str:
        """The legend as TOML that :func:`load_legend` reads back to an equal legend."""
        from gravmap.geology.legend_file import to_toml  # that file knows this one

        return to_toml(self)

    def write(self, path: Path) -> None:
        """Write the legend to a TOML file, whole or not at all."""
        write_text(path, self.text())


def replace_field(legend: Legend, name: str) -> Legend:
    """The same legend, reading its codes from another field."""
    return replace(legend, field=name)
