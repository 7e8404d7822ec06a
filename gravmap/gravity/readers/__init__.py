"""Which format a grid is in, by its first bytes; each format has its reader, which reads it as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import xarray as xr

from gravmap.errors import InputError
from gravmap.gravity.quantity import GRAVITY, Quantity

_WHAT_OPENS = (
    "Grids open as netCDF (GMT, COARDS, CF), GeoTIFF, ICGEM .gdf, Surfer 6, 7 or ASCII, or lon lat value text."
)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# path, variable, stated unit, what is sought -> grid
Reader = Callable[[Path, str | None, str | None, Quantity], xr.DataArray]


def read(
    path: Path, variable: str | None = None, units: str | None = None, quantity: Quantity = GRAVITY
) -> xr.DataArray:
    """Read a file of any known format as it is, axes and unit included.

    Parameters
    ----------
    path : Path
        The file.
    variable : str, optional
        The netCDF variable, GeoTIFF band or text column.
    units : str, optional
        The unit of the numbers, where the file says none or a wrong one.
    quantity : Quantity
        What is sought in the file.

    Returns
    -------
    xr.DataArray
        Of netCDF lazy. Attributes: those of the variable, title and source of the file as ``file_title`` ...,
        ``variable``, and ``_factor``, how many of the quantity's own unit one unit of the file is.

    Raises
    ------
    InputError
        Missing, cut short, no grid, projected, or of an unknown unit.
    """
    return _reader(path)(path, variable, units, quantity)


def _reader(path: Path) -> Reader:
    """The reader of the format that a file begins like."""
    head = _first_bytes(path)
    if head.startswith(_TIFF):
        from gravmap.gravity.readers.geotiff import read_geotiff

        return read_geotiff
    if head.startswith((b"CDF", b"\x89HDF\r\n\x1a\n")):
        from gravmap.gravity.readers.netcdf import read_netcdf

        return read_netcdf
    if head.startswith((b"DSBB", b"DSRB", b"DSAA")):
        from gravmap.gravity.readers import surfer as read_surfer

        kinds: dict[bytes, Reader] = {
            b"DSBB": read_surfer.read_surfer6,
            b"DSRB": read_surfer.read_surfer7,
            b"DSAA": read_surfer.read_surfer_ascii,
        }
        return kinds[head[:4]]
    if b"\0" not in head:
        from gravmap.gravity.readers import text as read_text

        if b"end_of_head" in head:
            return read_text.read_gdf
        if read_text.looks_like_columns(path):
            return read_text.read_columns
    raise InputError(f"{path} is neither netCDF nor GeoTIFF nor any other grid known here.", _WHAT_OPENS)


def _first_bytes(path: Path) -> bytes:
    """The beginning of a file; what is no grid by it is refused: missing, empty, a web page."""
    if not path.is_file():
        raise InputError(f"{path} is {'a folder' if path.is_dir() else 'missing'}.", _WHAT_OPENS)
    with path.open("rb") as stream:
        head = stream.read(1 << 15)
    if not head:
        raise InputError(f"{path} is empty.", "Fetch or write it again.")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InputError(f"{path} is a web page, not a grid.", "The download went wrong: fetch it again.")
    return head
