"""What the class field of boreholes holds: class names or indices, codes of a map through its legend, or ages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gravmap.errors import InputError
from gravmap.geology.ages import UnknownAge, is_age_name, parse_age
from gravmap.geology.legend import Legend, normalize_code
from gravmap.geology.legend_file import legends_of_sources, read_legend
from gravmap.geology.points import Points
from gravmap.geology.reclassify import with_classes
from gravmap.lattice import COVER
from gravmap.learning.data.dataset import RegionDataset

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_MOST_NAMED = 4


@dataclass(frozen=True)
class ClassReading:
    """How the values of the class field are read.

    Attributes
    ----------
    what : str
        In words: ``"class names"``, ``"ages"`` ...
    classes : dict of str to int
        Class index of each value that is read: 0 cover, 255 not usable.
    """

    what: str
    classes: dict[str, int]


def read_classes(points: Points, dataset: RegionDataset) -> ClassReading:
    """Find out what the class field of boreholes holds, one way for the whole field.

    The way that reads most of its values is taken: the names or indices of the classes, codes of the maps that the
    region was rasterized from, or ages (names of the ICS chart, or numbers with Ma; numbers without a unit where none
    is the index of a class). With `points.legend` the values are codes of that legend.

    Parameters
    ----------
    points : Points
        With `values`, and `legend` if they are codes of a map.
    dataset : RegionDataset
        With the classes of the region.

    Raises
    ------
    InputError
        The field mixes two of them, or the legend has no codes or another class table.
    """
    values = sorted({value for value in points.values if value})
    table = _class_table(dataset)
    if points.legend is not None:
        ways = _codes(values, _with_table(points.legend, table))
        if not ways:
            raise InputError(
                f"The legend {points.legend.name} has no codes: it is a class table.",
                "Give the legend of the map that the boreholes' codes are from.",
            )
    else:
        ways = [
            _names(values, dataset, table),
            *(_codes(values, table) if table else ()),
            _ages(values, dataset, table),
        ]
    best = max(ways, key=lambda way: len(way.classes))  # the first of the best
    for other in ways:
        missed = [value for value in values if value in other.classes and value not in best.classes]
        if missed:
            raise InputError(
                f"The field {points.field} of {points.path} mixes {best.what} ({_some(best.classes)}) with {other.what}"
                f" ({_some(missed)}).",
                "Write all of them in one way; ages as numbers need the unit Ma.",
            )
    return best


def _class_table(dataset: RegionDataset) -> Legend | None:
    text = str(dataset.meta.get("legend_toml", ""))
    return read_legend(text, "the legend of the tile set") if text else None


def _with_table(legend: Legend, table: Legend | None) -> Legend:
    return with_classes(legend, table) if table is not None and legend.field_candidates else legend


def _some(values: Sequence[str] | Mapping[str, int]) -> str:
    shown = list(values)[:_MOST_NAMED]
    return ", ".join(shown) + (", ..." if len(values) > _MOST_NAMED else "")


def _names(values: Sequence[str], dataset: RegionDataset, table: Legend | None) -> ClassReading:
    named = {normalize_code(str(entry["name"])).casefold(): int(entry["index"]) for entry in dataset.classes}
    if table is not None:
        named |= {normalize_code(each.name).casefold(): COVER for each in table.classes if each.index == COVER}
    numbered = {"0": COVER, **{str(entry["index"]): int(entry["index"]) for entry in dataset.classes}}
    found = {value: (named | numbered)[value.casefold()] for value in values if value.casefold() in named | numbered}
    indices = sum(value in numbered for value in found)
    what = "class indices" if found and indices == len(found) else "class names" + (" and indices" if indices else "")
    return ClassReading(what, found)


def _codes(values: Sequence[str], legend: Legend) -> list[ClassReading]:
    """Codes of a legend, or of each map in the legend of a label raster."""
    legends = [legend] if legend.field_candidates else legends_of_sources(legend)
    return [
        ClassReading(
            f"codes of the legend {each.name}",
            {value: index for value in values if (index := each.classify(value)) is not None},
        )
        for each in legends
    ]


def _ages(values: Sequence[str], dataset: RegionDataset, table: Legend | None) -> ClassReading:
    if table is None:
        return ClassReading("ages", {})
    indices = {"0", *(str(entry["index"]) for entry in dataset.classes)}
    bare = [value for value in values if _NUMBER.fullmatch(value)]
    found = {}
    for value in values:
        if not is_age_name(value) and (value not in bare or indices & set(bare)):
            continue
        try:
            found[value] = table.class_of_age(*parse_age(value))[0]
        except UnknownAge:
            continue
    return ClassReading("ages", found)
