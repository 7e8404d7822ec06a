"""GDAL's raster attribute table of a class raster: name, colour, cell count and area of each value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from gravmap.files import write_text
from gravmap.geology.legend import Legend

_ROWS_PER_CHUNK = 512


@dataclass(frozen=True)
class ClassRow:
    """One value of a class raster.

    Attributes
    ----------
    value : int
        Value in the raster.
    name : str
        Class name.
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
    """Number and area of the cells of each value, accumulated over parts of a raster.

    Attributes
    ----------
    cells : (256,) int64
        Number of cells of each value.
    km2 : (256,) float64
        Their area, km².
    """

    cells: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    km2: NDArray[np.float64] = field(default_factory=lambda: np.zeros(256))

    def add(self, values: NDArray[np.uint8], cell_km2: NDArray[np.float64]) -> None:
        """Add a part of the raster.

        Parameters
        ----------
        values : (h, w) uint8
            Values of the cells.
        cell_km2 : (h, 1) or (h, w) float64
            Areas of the cells, km².
        """
        for start in range(0, len(values), _ROWS_PER_CHUNK):  # float64 areas take eight times the memory of the values
            rows = slice(start, start + _ROWS_PER_CHUNK)
            part = values[rows]
            area = np.broadcast_to(cell_km2[rows], part.shape)
            self.cells += np.bincount(part.ravel(), minlength=256)
            self.km2 += np.bincount(part.ravel(), weights=area.ravel(), minlength=256)


def class_rows(legend: Legend) -> tuple[ClassRow, ...]:
    """The classes of a legend as rows of a table, in their order."""
    return tuple(ClassRow(entry.index, entry.name, entry.colour) for entry in legend.classes)


def palette(rows: Iterable[ClassRow], nodata: int = 255) -> dict[int, tuple[int, int, int, int]]:
    """Colour map: value to red, green, blue, alpha; nodata is transparent."""
    return {row.value: (*row.rgb, 255) for row in rows} | {nodata: (0, 0, 0, 0)}


# Column types and usages of GDAL's raster attribute tables: GDALRATFieldType, GDALRATFieldUsage.
_WHOLE, _REAL, _TEXT = 0, 1, 2
_GENERIC, _COUNT, _NAME, _VALUE, _RED, _GREEN, _BLUE = 0, 1, 2, 5, 6, 7, 8


def auxiliary_xml(rows: Sequence[ClassRow], tally: Tally | None = None) -> str:
    """GDAL auxiliary XML of a class raster: category names and, with a tally, the attribute table.

    Parameters
    ----------
    rows : sequence of ClassRow
        Values of the raster.
    tally : Tally, optional
        Cell counts and areas for the attribute table.

    Returns
    -------
    str
        Content of ``<raster>.aux.xml``; TIFF itself cannot store category names.
    """
    names = {row.value: row.name for row in rows}
    lines = ["<CategoryNames>"]
    lines += [f"  <Category>{escape(names.get(value, ''))}</Category>" for value in range(max(names) + 1)]
    lines += ["</CategoryNames>", *(() if tally is None else _attribute_table(rows, tally))]
    inside = "\n".join(f"    {line}" for line in lines)
    return f'<PAMDataset>\n  <PAMRasterBand band="1">\n{inside}\n  </PAMRasterBand>\n</PAMDataset>\n'


def add_tag(raster: Path, name: str, value: str) -> None:
    """Add a tag to the auxiliary XML of a class raster; GDAL returns it with those of the TIFF, which is unchanged."""
    path = raster.with_name(f"{raster.name}.aux.xml")
    tag = f'  <Metadata>\n    <MDI key="{name}">{escape(value)}</MDI>\n  </Metadata>\n'
    write_text(path, path.read_text(encoding="utf-8").replace("  <PAMRasterBand", f"{tag}  <PAMRasterBand", 1))


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
