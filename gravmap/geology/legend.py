"""Legends: the crosswalk from the codes of a geological map to bedrock classes.

Codes are matched exactly after normalisation (:func:`normalize_code`): ``C`` is neither ``Cz`` nor ``c``. A legend may
read ages instead of codes (:mod:`gravmap.geology.ages`). :mod:`gravmap.geology.legend_file` has the TOML format.
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

    @property
    def span_ma(self) -> tuple[float, float] | None:
        """Older and younger end in Ma; None if the class is not an age."""
        if not self.age.endswith(" Ma"):
            return None
        older, younger = self.age.removesuffix(" Ma").split("-")
        return float(older), float(younger)


@dataclass(frozen=True)
class Override:
    """Rules by which the codes of a second field replace the class from the first field.

    Attributes
    ----------
    field : str
        Name of the second field.
    codes : dict of str to int or None
        Class index, or None to keep the class from the first field.
    unless : dict of str to frozenset of str or int
        Exceptions: codes of the first field (str) or classes from it (int) to which the rule does not apply.
    """

    field: str
    codes: dict[str, int | None]
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
    field : str
        The field of the map with the code; empty for a class table without crosswalk.
    codes : dict of str to int
        Code to class index; 255 is not usable.
    other_fields : dict of str to dict of str to int
        Codes of other fields of the same map; see :func:`replace_field`.
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
        index = self._by_first_field(code)
        if index is None:
            return None
        for override in self.overrides:
            other = (others or {}).get(override.field, "")
            replacement = override.codes.get(other)
            if replacement is not None and not {code, index} & override.unless[other]:
                return replacement
        return index

    def _by_first_field(self, code: str) -> int | None:
        if code in self.codes or not self.ages:
            return self.codes.get(code)
        try:
            return self.class_of_age(*parse_age(code))[0]
        except UnknownAge:
            return None

    def class_of_age(self, older_ma: float, younger_ma: float) -> tuple[int, float]:
        """Class of a time span and its fraction of the span (:func:`gravmap.geology.ages.class_of_span`)."""
        spans = [(entry.index, *entry.span_ma) for entry in self.classes if entry.span_ma is not None]
        return class_of_span(older_ma, younger_ma, spans)


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
    rest = {other: codes for other, codes in legend.other_fields.items() if other != own}
    return replace(legend, field=name, codes=legend.other_fields[own], other_fields={legend.field: legend.codes} | rest)
