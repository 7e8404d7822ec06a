"""Legends: the crosswalk from the codes of a geological map to bedrock classes.

Codes are matched exactly after normalisation (:func:`normalize_code`): ``C`` is neither ``Cz`` nor ``c``. A legend may
read ages instead of codes (:mod:`gravmap.geology.ages`). :mod:`gravmap.geology.legend_file` has the TOML format.

A code has an age span and a rock type (:class:`MapUnit`), which the class table maps to a class
(:func:`class_of_unit`), so that one crosswalk serves every class table; or the index of a class of one table.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from typing import Any

from gravmap.errors import OptionError
from gravmap.geology.ages import AGE_PAIR_SEPARATOR, EARTH_MA, UnknownAge, class_of_span, parse_age
from gravmap.lattice import COVER, UNUSABLE

SEDIMENTARY, VOLCANIC, LOOSE = "sedimentary", "volcanic", "loose sediment"
INTRUSIVE = frozenset({"intrusive", "acid intrusive", "basic intrusive", "ultrabasic"})
"""Rock types that cut through older rock; ``intrusive`` is one whose composition the map does not give."""

ROCKS = (SEDIMENTARY, VOLCANIC, LOOSE, *sorted(INTRUSIVE))
"""The rock types that a legend may give a code."""


def normalize_code(text: str) -> str:
    """Normalise a code for comparison: Unicode NFC, without leading and trailing white space; case is kept."""
    return unicodedata.normalize("NFC", text).strip()


@dataclass(frozen=True)
class LegendClass:
    """One class of a label raster.

    Attributes
    ----------
    index : int
        Value in the raster: 0 cover, 1, 2, ... bedrock.
    name : str
        Name for display.
    age : str
        Age span, older end first (``"2500-538.8 Ma"``), or ``"any"``.
    colour : str
        ``#RRGGBB``.
    rank : str
        Eon, era, period, or lithology.
    uri : str
        Definition of the age, such as its entry in the ICS chart; may be empty.
    rocks : tuple of str
        For a class of rock types: those of :data:`ROCKS` that belong to it, whatever their age.
    intrusive_age : str
        For the cover: the age span of the intrusions that count as cover; empty if it is `age`.

    Examples
    --------
    >>> from gravmap.geology.legend import LegendClass
    >>> LegendClass(6, "Devonian", "419.2-358.9 Ma", "#CB8C37").span_ma
    (419.2, 358.9)
    """

    index: int
    name: str
    age: str
    colour: str
    rank: str = ""
    uri: str = ""
    rocks: tuple[str, ...] = ()
    intrusive_age: str = ""

    @property
    def span_ma(self) -> tuple[float, float] | None:
        """Older and younger end in Ma; None if the class is not an age."""
        return _span_of(self.age)

    @property
    def intrusive_span_ma(self) -> tuple[float, float] | None:
        """For the cover: the span of the intrusions that count as cover; None if it has no age."""
        return _span_of(self.intrusive_age or self.age)


def _span_of(age: str) -> tuple[float, float] | None:
    if not age.endswith(" Ma"):
        return None
    older, younger = age.removesuffix(" Ma").split("-")
    return float(older), float(younger)


@dataclass(frozen=True)
class MapUnit:
    """Age and rock type of a code of a map.

    Attributes
    ----------
    age_ma : tuple of float, optional
        Older and younger end, Ma; None if it is not known.
    rock : str
        One of :data:`ROCKS`.
    """

    age_ma: tuple[float, float] | None = None
    rock: str = SEDIMENTARY


def class_of_unit(unit: MapUnit, classes: Sequence[LegendClass]) -> int:
    """Class of a unit by its rock type and age.

    Loose sediment is cover, whatever its age, and so are intrusions of the age of the cover's `intrusive_age`. Other
    intrusions belong to the class that has their rock type, or are not usable without one. A class may also have other
    rock types, for units older than the cover. Else the age decides (:func:`gravmap.geology.ages.class_of_span`).

    Parameters
    ----------
    unit : MapUnit
        Age and rock type.
    classes : sequence of LegendClass
        The class table.

    Returns
    -------
    int
        Class index; 255 if not usable.

    Examples
    --------
    >>> from gravmap.geology import load_legend
    >>> from gravmap.geology.legend import MapUnit, class_of_unit
    >>> jurassic = (201.4, 145.0)
    >>> classes = load_legend("basement10").classes
    >>> class_of_unit(MapUnit(jurassic), classes), class_of_unit(MapUnit(jurassic, "acid intrusive"), classes)
    (0, 10)
    """
    cover = next((entry for entry in classes if entry.index == COVER), None)
    if unit.rock == LOOSE:
        return UNUSABLE if cover is None else COVER
    by_rock = next((entry.index for entry in classes if unit.rock in entry.rocks), UNUSABLE)
    intrusive = unit.rock in INTRUSIVE
    if intrusive or by_rock != UNUSABLE:
        limit = cover and (cover.intrusive_span_ma if intrusive else cover.span_ma)
        if limit and unit.age_ma and not class_of_span(*unit.age_ma, [(COVER, *limit), (1, EARTH_MA, limit[0])])[0]:
            return COVER
        return by_rock
    return class_of_age(*unit.age_ma, classes)[0] if unit.age_ma else UNUSABLE


def class_of_age(older_ma: float, younger_ma: float, classes: Sequence[LegendClass]) -> tuple[int, float]:
    """Class of a time span and its fraction of the span (:func:`gravmap.geology.ages.class_of_span`)."""
    return class_of_span(
        older_ma, younger_ma, [(entry.index, *entry.span_ma) for entry in classes if entry.span_ma is not None]
    )


@dataclass(frozen=True)
class Override:
    """Rules by which the codes of a second field replace the class from the first field.

    Attributes
    ----------
    field : str
        Name of the second field.
    codes : dict of str to int, str or None
        Class index; rock type (str), by which the age of the first field gets another class; or None to keep the class
        from the first field.
    unless : dict of str to frozenset of str or int
        Exceptions: codes of the first field (str) or classes from it (int) to which the rule does not apply.
    """

    field: str
    codes: dict[str, int | str | None]
    unless: dict[str, frozenset[str | int]]


@dataclass(frozen=True)
class Legend:
    """A class table and, for one map, the class of each code.

    Attributes
    ----------
    name : str
        Short name.
    classes : tuple of LegendClass
        Sorted by index; bedrock classes have the indices 1 .. K.
    table : str
        Name of the class table: that of a shipped one, with the age of the cover if it was changed
        (``"basement10-298.9Ma"``), or of the legend that has it.
    field : str
        The field of the map with the code; empty for a class table without crosswalk.
    codes : dict of str to int
        Code to class index; 255 is not usable.
    units : dict of str to MapUnit
        Age and rock type of the codes that have them; their class index in `codes` follows from these.
    other_fields : dict of str to dict of str to int
        Codes of other fields of the same map; see :func:`replace_field`.
    other_units : dict of str to dict of str to MapUnit
        Ages and rock types of these codes.
    ages : tuple of tuple of str
        For a legend that reads ages, the candidate fields: the first entry of which the map has all fields is used.
        One field has the whole age, two the oldest and the youngest. `codes` are then exceptions.
    overrides : tuple of Override
        Rules for second fields; the first that applies decides.
    gaps : frozenset of str
        Codes (all 255 in `codes`) of unmapped areas, such as water or no data.
    crs : str
        Coordinate reference system of a file without one; may be empty.
    title, citation : str
        For display.
    sources : tuple of dict
        In the legend of a label raster: the maps it was made from, with their crosswalks.

    Examples
    --------
    >>> from gravmap.geology.legend import Legend
    >>> from gravmap.geology.legend import LegendClass
    >>> classes = (LegendClass(0, "cover", "any", "#FFFFE0"), LegendClass(1, "granite", "any", "#E0115F"))
    >>> legend = Legend("mine", classes, field="UNIT", codes={"Q": 0, "gr": 1})
    >>> legend.classify("gr"), legend.classify("xx")
    (1, None)
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
    table: str = ""
    units: dict[str, MapUnit] = dataclass_field(default_factory=dict)
    other_units: dict[str, dict[str, MapUnit]] = dataclass_field(default_factory=dict)

    @property
    def bedrock(self) -> tuple[LegendClass, ...]:
        """The classes that a network predicts: all except cover."""
        return tuple(entry for entry in self.classes if entry.index != COVER)

    @property
    def field_candidates(self) -> tuple[tuple[str, ...], ...]:
        """Candidate fields for the code or the age, in order of preference; empty without a crosswalk."""
        return self.ages or (((self.field,),) if self.field else ())

    @property
    def field_names(self) -> str:
        """The candidate fields in the notation of ``--field``, for messages."""
        return " or ".join(",".join(names) for names in self.field_candidates)

    def find_fields(self, names: Iterable[str]) -> tuple[str, ...] | None:
        """The first candidate whose fields are all among `names`, ignoring case; None if there is none."""
        present = {name.casefold() for name in names}
        return next(
            (fields for fields in self.field_candidates if all(name.casefold() in present for name in fields)), None
        )

    def classify(self, code: str, others: dict[str, str] | None = None) -> int | None:
        """Class index of a polygon.

        Parameters
        ----------
        code : str
            Value of the field, from :func:`normalize_code`, or an age from :func:`join_ages`.
        others : dict of str to str, optional
            Values of the override fields.

        Returns
        -------
        int or None
            Class index, 255 if not usable, None for a code that is not in the legend.
        """
        found = self._by_first_field(code)
        if found is None:
            return None
        index, age_ma = found
        for override in self.overrides:
            other = (others or {}).get(override.field, "")
            replacement = override.codes.get(other)
            if replacement is None or {code, index} & override.unless[other]:
                continue
            return self._with_rock(index, age_ma, replacement) if isinstance(replacement, str) else replacement
        return index

    def _by_first_field(self, code: str) -> tuple[int, tuple[float, float] | None] | None:
        """Class by the first field, and the age if it is known."""
        if code in self.codes:
            return self.codes[code], self.units[code].age_ma if code in self.units else None
        if not self.ages:
            return None
        try:
            age_ma = parse_age(code)
        except UnknownAge:
            return None
        return self.class_of_age(*age_ma)[0], age_ma

    def _with_rock(self, index: int, age_ma: tuple[float, float] | None, rock: str) -> int:
        """Class of a unit of which another field gives the rock type."""
        if age_ma is None and (index == COVER or rock in (SEDIMENTARY, VOLCANIC)):
            return index
        return class_of_unit(MapUnit(age_ma, rock), self.classes)

    def class_of_age(self, older_ma: float, younger_ma: float) -> tuple[int, float]:
        """Class of a time span and its fraction of the span (:func:`gravmap.geology.ages.class_of_span`)."""
        return class_of_age(older_ma, younger_ma, self.classes)


def join_ages(values: Sequence[str]) -> str:
    """The age of a polygon as one text, from one or two fields; empty if they are."""
    if len(values) == 1 or not any(values):
        return values[0]
    return AGE_PAIR_SEPARATOR.join(_short(value) for value in values).strip()


def _short(value: str) -> str:
    """A number with the digits of a single-precision float."""
    try:
        return f"{float(value):.7g}"
    except ValueError:
        return value


def replace_field(legend: Legend, name: str) -> Legend:
    """The same legend for another field of the map.

    Parameters
    ----------
    legend : Legend
        If it has codes for that field (`other_fields`) these are used, otherwise its codes are kept.
    name : str
        The field; for a legend that reads ages, also the fields of the oldest and the youngest age, comma-separated.

    Raises
    ------
    OptionError
        More than two fields, or two for a legend that reads codes.
    """
    names = tuple(part.strip() for part in name.split(","))
    if len(names) > (2 if legend.ages else 1) or not all(names):
        raise OptionError(
            f"--field {name} has {len(names)} fields.",
            f"The legend {legend.name} reads "
            + ("one field, or the oldest and the youngest age: b_age,t_age." if legend.ages else "one field."),
        )
    if legend.ages:
        return replace(legend, ages=(names,))
    own = next((other for other in legend.other_fields if other.casefold() == name.casefold()), None)
    if own is None or name.casefold() == legend.field.casefold():
        return replace(legend, field=name)

    def swapped(current: Any, others: dict[str, Any]) -> dict[str, Any]:
        return {legend.field: current} | {other: entry for other, entry in others.items() if other != own}

    return replace(
        legend,
        field=name,
        codes=legend.other_fields[own],
        units=legend.other_units[own],
        other_fields=swapped(legend.codes, legend.other_fields),
        other_units=swapped(legend.units, legend.other_units),
    )
