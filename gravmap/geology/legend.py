"""Legends: what the codes of a geological map mean, as classes of bedrock.

Codes are matched exactly, after both sides went through :func:`normalize_code`: ``C`` is not ``Cz`` and not ``c``.
A legend may read ages instead of codes (:mod:`gravmap.geology.ages`). How a legend is written down is in
:mod:`gravmap.geology.legend_file`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from typing import Any

from gravmap.errors import OptionError
from gravmap.geology.ages import AGE_PAIR_SEPARATOR, UnknownAge, class_of_span, parse_age
from gravmap.lattice import COVER


def normalize_code(text: str) -> str:
    """A code as it is compared: Unicode's composed form (NFC), without white space at its ends. Case stays."""
    return unicodedata.normalize("NFC", text).strip()


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

    @property
    def span_ma(self) -> tuple[float, float] | None:
        """Older and younger end in million years; None when the class is no age."""
        if not self.age.endswith(" Ma"):
            return None
        older, younger = self.age.removesuffix(" Ma").split("-")
        return float(older), float(younger)


@dataclass(frozen=True)
class Override:
    """What the codes of a second field do to the class that the first field gave.

    Attributes
    ----------
    field : str
        Name of the second field.
    codes : dict of str to int or None
        Class index, or None to keep the first field's class.
    unless : dict of str to frozenset of str or int
        Codes of the first field (text), or classes it gives (numbers), that the override leaves alone.
    """

    field: str
    codes: dict[str, int | None]
    unless: dict[str, frozenset[str | int]]


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
    other_fields : dict of str to dict of str to int
        Other fields of the same map, each with codes of its own; see :func:`replace_field`.
    ages : tuple of tuple of str
        Fields that give the age, for a legend that reads ages: the first entry of which the map has all fields is
        taken. One field holds the whole age, two the oldest and the youngest. `codes` are then exceptions.
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
    other_fields: dict[str, dict[str, int]] = dataclass_field(default_factory=dict)
    ages: tuple[tuple[str, ...], ...] = ()
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

    @property
    def field_candidates(self) -> tuple[tuple[str, ...], ...]:
        """The fields that may hold the code, in order of preference; none in a bare class table."""
        return self.ages or (((self.field,),) if self.field else ())

    @property
    def field_names(self) -> str:
        """The field or fields looked for, as ``--field`` would name them."""
        return " or ".join(",".join(names) for names in self.field_candidates)

    def find_fields(self, names: Iterable[str]) -> tuple[str, ...] | None:
        """The first of the candidates whose fields are all among `names`, whatever their case; None: there is none."""
        there = {name.casefold() for name in names}
        return next(
            (fields for fields in self.field_candidates if all(name.casefold() in there for name in fields)), None
        )

    def classify(self, code: str, others: dict[str, str] | None = None) -> int | None:
        """The class index of a polygon.

        Parameters
        ----------
        code : str
            Value of the legend's field as :func:`normalize_code` gives it, or the two ages of :func:`join_ages`.
        others : dict of str to str, optional
            Values of the override fields.

        Returns
        -------
        int or None
            Class index, 255 when not usable, None when the legend does not know the code.
        """
        index = self._by_first_field(code)
        if index is None:
            return None
        for override in self.overrides:
            other = (others or {}).get(override.field, "")
            decided = override.codes.get(other)
            if decided is not None and not {code, index} & override.unless[other]:
                return decided
        return index

    def _by_first_field(self, code: str) -> int | None:
        if code in self.codes or not self.ages:
            return self.codes.get(code)
        try:
            return self.class_of_age(*parse_age(code))[0]
        except UnknownAge:
            return None

    def class_of_age(self, older_ma: float, younger_ma: float) -> tuple[int, float]:
        """Class index and its share of a span of time (:func:`gravmap.geology.ages.class_of_span`)."""
        spans = [(entry.index, *entry.span_ma) for entry in self.classes if entry.span_ma is not None]
        return class_of_span(older_ma, younger_ma, spans)


def join_ages(values: Sequence[str]) -> str:
    """The code of a polygon whose age stands in one or two fields; empty when they are."""
    if len(values) == 1 or not any(values):
        return values[0]
    return AGE_PAIR_SEPARATOR.join(_short(value) for value in values).strip()


def _short(value: str) -> str:
    """A number without the tail of a single-precision float."""
    try:
        return f"{float(value):.7g}"
    except ValueError:
        return value


def replace_field(legend: Legend, name: str) -> Legend:
    """The same legend, reading another field of the map.

    Parameters
    ----------
    legend : Legend
        When it has codes of that field (`other_fields`), these are taken; else its codes stay.
    name : str
        The field; for a legend that reads ages, also the two with the oldest and the youngest age, a comma between.

    Raises
    ------
    OptionError
        More than two fields, or two for a legend that reads codes.
    """
    names = tuple(part.strip() for part in name.split(","))
    if len(names) > (2 if legend.ages else 1) or not all(names):
        raise OptionError(
            f"--field {name} names {len(names)} fields.",
            f"The legend {legend.name} reads "
            + ("one age, or the oldest and the youngest: b_age,t_age." if legend.ages else "one field."),
        )
    if legend.ages:
        return replace(legend, ages=(names,))
    own = next((other for other in legend.other_fields if other.casefold() == name.casefold()), None)
    if own is None or name.casefold() == legend.field.casefold():
        return replace(legend, field=name)
    rest = {other: codes for other, codes in legend.other_fields.items() if other != own}
    return replace(legend, field=name, codes=legend.other_fields[own], other_fields={legend.field: legend.codes} | rest)
