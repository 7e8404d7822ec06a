"""Readers of grid formats, chosen by the first bytes of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import xarray as xr

from gravmap.errors import InputError
from gravmap.gravity.quantity import GRAVITY, Quantity

_FORMATS = (
    "Supported: netCDF (GMT, COARDS, CF), GeoTIFF, ICGEM .gdf, Surfer 6, 7 or ASCII, ESRI ASCII and lon lat value text."
)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# path, variable, stated unit, quantity -> grid
Reader = Callable[[Path, str | None, str | None, Quantity], xr.DataArray]


def read(
    path: Path, variable: str | None = None, units: str | None = None, quantity: Quantity = GRAVITY
) -> xr.DataArray:
    """Read a file of any supported format, with its own axes and unit.

    Parameters
    ----------
    path : Path
        The file.
    variable : str, optional
        The netCDF variable, GeoTIFF band or text column.
    units : str, optional
        Unit of the values if the file has none or a wrong one.
    quantity : Quantity
        The quantity to read.

    Returns
    -------
    xr.DataArray
        Lazy for netCDF. Attributes: those of the variable, title and source of the file as ``file_title`` ...,
        ``variable``, and ``_factor``, the factor from the unit of the file to that of the quantity.

    Raises
    ------
    InputError
        The file is missing, truncated, not a grid, projected, or has an unknown unit.
    """
    return _reader(path)(path, variable, units, quantity)


def _reader(path: Path) -> Reader:
    """The reader for the first bytes of a file."""
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

        if head.lstrip()[:5].lower() == b"ncols":
            from gravmap.gravity.readers.geotiff import read_ascii_grid

            return read_ascii_grid
        if b"end_of_head" in head:
            return read_text.read_gdf
        if read_text.looks_like_columns(path):
            return read_text.read_columns
    raise InputError(f"{path} is not a grid of a supported format.", _FORMATS)


def _first_bytes(path: Path) -> bytes:
    """The first bytes of a file; raises InputError if it is missing, empty or a web page."""
    if not path.is_file():
        raise InputError(f"{path} is {'a folder' if path.is_dir() else 'missing'}.", _FORMATS)
    with path.open("rb") as stream:
        head = stream.read(1 << 15)
    if not head:
        raise InputError(f"{path} is empty.", "Download or write it again.")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InputError(f"{path} is a web page, not a grid.", "The download failed: download it again.")
    return head
