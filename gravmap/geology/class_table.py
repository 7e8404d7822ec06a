"""The table of a class raster: name, colour, cells and area of every value, where GDAL and QGIS look for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from gravmap.geology.legend import Legend

_ROWS_AT_A_TIME = 512


@dataclass(frozen=True)
class ClassRow:
    """One value of a class raster.

    Attributes
    ----------
    value : int
        In the raster.
    name : str
        In words.
    colour : str
        ``#RRGGBB``.
    """

    value: int
    name: str
    colour: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green, blue, 0 to 255."""
        return int(self.colour[1:3], 16), int(self.colour[3:5], 16), int(self.colour[5:7], 16)


@dataclass
class Tally:
    """How many cells have a value, and how much ground they cover; counted part by part.

    Attributes
    ----------
    cells : (256,) int64
        Cells of each value.
    km2 : (256,) float64
        Their area.
    """

    cells: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    km2: NDArray[np.float64] = field(default_factory=lambda: np.zeros(256))

    def add(self, values: NDArray[np.uint8], cell_km2: NDArray[np.float64]) -> None:
        """Count a part of the raster.

        Parameters
        ----------
        values : (h, w) uint8
            A part.
        cell_km2 : (h, 1) or (h, w) float64
            Area of each of its cells, km².
        """
        for start in range(0, len(values), _ROWS_AT_A_TIME):  # the areas are eight times as large as the values
            rows = slice(start, start + _ROWS_AT_A_TIME)
            part = values[rows]
            area = np.broadcast_to(cell_km2[rows], part.shape)
            self.cells += np.bincount(part.ravel(), minlength=256)
            self.km2 += np.bincount(part.ravel(), weights=area.ravel(), minlength=256)


def class_rows(legend: Legend) -> tuple[ClassRow, ...]:
    """The classes of a legend as rows of a table, in the legend's order."""
    return tuple(ClassRow(entry.index, entry.name, entry.colour) for entry in legend.classes)


def palette(rows: Iterable[ClassRow], nodata: int = 255) -> dict[int, tuple[int, int, int, int]]:
    """Value to red, green, blue, alpha; no data is transparent."""
    return {row.value: (*row.rgb, 255) for row in rows} | {nodata: (0, 0, 0, 0)}


# Type and use of a column in GDAL's raster attribute tables: GDALRATFieldType, GDALRATFieldUsage.
_WHOLE, _REAL, _TEXT = 0, 1, 2
_GENERIC, _COUNT, _NAME, _VALUE, _RED, _GREEN, _BLUE = 0, 1, 2, 5, 6, 7, 8


def auxiliary_xml(rows: Sequence[ClassRow], tally: Tally | None = None) -> str:
    """GDAL's auxiliary file of a class raster: the name of every value and, with a tally, its attribute table.

    Parameters
    ----------
    rows : sequence of ClassRow
        What the raster may hold.
    tally : Tally, optional
        Cells and areas; without it there is no table, only names.

    Returns
    -------
    str
        To be written to ``<raster>.aux.xml``: TIFF has no place for names.
    """
    names = {row.value: row.name for row in rows}
    lines = ["<CategoryNames>"]
    lines += [f"  <Category>{escape(names.get(value, ''))}</Category>" for value in range(max(names) + 1)]
    lines += ["</CategoryNames>", *(() if tally is None else _attribute_table(rows, tally))]
    inside = "\n".join(f"    {line}" for line in lines)
    return f'<PAMDataset>\n  <PAMRasterBand band="1">\n{inside}\n  </PAMRasterBand>\n</PAMDataset>\n'


def _attribute_table(rows: Sequence[ClassRow], tally: Tally) -> list[str]:
    columns = (
        ("Value", _WHOLE, _VALUE),
        ("Count", _WHOLE, _COUNT),
        ("Class", _TEXT, _NAME),
        ("Red", _WHOLE, _RED),
        ("Green", _WHOLE, _GREEN),
        ("Blue", _WHOLE, _BLUE),
        ("Area_km2", _REAL, _GENERIC),
    )
    lines = ['<GDALRasterAttributeTable tableType="thematic">']
    for number, (name, kind, use) in enumerate(columns):
        lines.append(
            f'  <FieldDefn index="{number}"><Name>{name}</Name><Type>{kind}</Type><Usage>{use}</Usage></FieldDefn>'
        )
    for number, row in enumerate(rows):
        area = f"{tally.km2[row.value]:.6f}"
        cells = (str(row.value), str(tally.cells[row.value]), escape(row.name), *map(str, row.rgb), area)
        lines.append(f'  <Row index="{number}">' + "".join(f"<F>{cell}</F>" for cell in cells) + "</Row>")
    return [*lines, "</GDALRasterAttributeTable>"]
