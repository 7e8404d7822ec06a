"""The table of a class raster read back from ``<raster>.aux.xml``: rasterio gives no access to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree


@dataclass(frozen=True)
class TableRow:
    """What the table says of one value.

    Attributes
    ----------
    name : str
        In words.
    cells : int
        Of the raster.
    km2 : float
        Their area.
    """

    name: str
    cells: int
    km2: float


def read_attribute_table(raster: Path) -> dict[int, TableRow]:
    """Read GDAL's raster attribute table of a raster.

    Parameters
    ----------
    raster : Path
        The raster; the table lies beside it.

    Returns
    -------
    dict of int to TableRow
        By value; empty where there is no table with the columns Value, Class, Count and Area_km2, or none readable.
    """
    path = raster.with_name(f"{raster.name}.aux.xml")
    try:
        table = ElementTree.parse(path).getroot().find(".//GDALRasterAttributeTable")
    except (OSError, ElementTree.ParseError):
        return {}
    if table is None:
        return {}
    heads = [str(head.findtext("Name")) for head in table.findall("FieldDefn")]
    rows = [dict(zip(heads, (cell.text or "" for cell in row.findall("F")), strict=False)) for row in table.iter("Row")]
    try:
        return {int(row["Value"]): TableRow(row["Class"], int(row["Count"]), float(row["Area_km2"])) for row in rows}
    except (KeyError, ValueError):
        return {}
