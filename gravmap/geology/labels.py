"""The label raster on disk: written beside its legend, read back and checked."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError

from gravmap.errors import InputError
from gravmap.geology.account import RasterizedMap
from gravmap.geology.index_raster import write_index_raster
from gravmap.geology.legend import UNUSABLE, Legend
from gravmap.geology.legend_file import load_legend

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labels:
    """A label raster.

    Attributes
    ----------
    values : ndarray, shape (rows, columns), uint8
        North-up; 0 cover, 1, 2, ... bedrock, 255 not usable.
    bounds_wsen : tuple of float
        Outer edges of the cells, degrees.
    resolution_deg : float
        Width of a cell.
    legend : Legend
        Its class table.
    """

    values: NDArray[np.uint8]
    bounds_wsen: tuple[float, float, float, float]
    resolution_deg: float
    legend: Legend


def legend_path(labels: Path) -> Path:
    """Where the legend of a label raster lies: ``labels.tif`` -> ``labels.legend.toml``."""
    return labels.with_name(f"{labels.stem}.legend.toml")


def write_labels(path: Path, rasterized: RasterizedMap) -> None:
    """Write a label raster and, beside it, its legend.

    Parameters
    ----------
    path : Path
        The GeoTIFF, such as ``data/labels.tif``.
    rasterized : RasterizedMap
        What :func:`gravmap.geology.rasterize` made.
    """
    sources = [
        {"file": entry.file, "sha256": entry.sha256, "legend": entry.legend, "field": entry.field}
        for entry in rasterized.maps
    ]
    # The legend first: a raster without its legend would be read with the default one.
    rasterized.legend.write(legend_path(path))
    write_index_raster(
        path, rasterized.values, rasterized.bounds_wsen, rasterized.legend, tags={"GRAVMAP_SOURCES": sources}
    )


def open_labels(path: Path) -> Labels:
    """Read a label raster and the legend beside it.

    Without the legend the class table `bedrock10` is taken, with a warning.

    Raises
    ------
    InputError
        The file is missing, no raster, has no or another coordinate system than EPSG:4326, more than
        one band, another type than 8-bit integers, or values that its legend does not know.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} is missing.", "`gravmap rasterize` makes it.")
    try:
        with rasterio.open(path) as raster:
            if raster.crs is None or raster.crs.to_epsg() != 4326:
                found = raster.crs.to_string() if raster.crs else "no coordinate system"
                raise InputError(
                    f"{path} has {found}, not EPSG:4326.", "`gravmap rasterize` makes a label raster from a map."
                )
            if raster.count != 1 or raster.dtypes[0] != "uint8":
                raise InputError(
                    f"{path} has {raster.count} band(s) of {raster.dtypes[0]}.",
                    "Labels are one band of uint8 class indices.",
                )
            if raster.transform.e >= 0 or raster.transform.b or raster.transform.d:
                raise InputError(
                    f"{path} is not north-up.", "Warp it with gdalwarp, or make it with `gravmap rasterize`."
                )
            values: NDArray[np.uint8] = raster.read(1)
            bounds, width, nodata = tuple(raster.bounds), raster.transform.a, raster.nodata
    except RasterioIOError as error:
        raise InputError(f"{path} is no raster: {error}.", "`gravmap rasterize` makes it anew.") from None
    beside = legend_path(path)
    if beside.exists():
        legend = load_legend(beside)
    else:
        legend = load_legend("bedrock10")
        log.warning("%s is missing; the classes of %s are taken from the legend bedrock10.", beside, path.name)
    if nodata is not None and nodata != UNUSABLE:
        raise InputError(f"{path} has nodata {nodata:g}.", "Nodata is 255 in a label raster; 0 is the cover.")
    known = np.zeros(256, dtype=bool)
    known[[*(entry.index for entry in legend.classes), UNUSABLE]] = True
    fits = known[values]
    if not fits.all():
        strange = np.unique(values[~fits]).tolist()
        raise InputError(
            f"{path} holds the values {strange}, which the legend {legend.name} does not know.",
            f"Put the right legend at {beside}.",
        )
    west, south, east, north = bounds
    return Labels(values, (west, south, east, north), float(width), legend)
