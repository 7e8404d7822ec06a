"""Write one raster of a map: a plain tiled GeoTIFF for the blocks, converted to a cloud-optimized one at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.shutil import copy as copy_raster

from gravmap.files import atomic_path
from gravmap.geology.class_table import ClassRow, Tally, auxiliary_xml, palette
from gravmap.mapping.files.projection import cell_areas_km2
from gravmap.mapping.layers import NODATA

BLOCK_PX = 512
CACHE_BYTES = 64 << 20
"""GDAL's default cache is a twentieth of the machine's memory; a map is written once and not read again."""


@dataclass(frozen=True)
class Band:
    """One band of a layer.

    Attributes
    ----------
    name : str
        Description in the file.
    scale : float
        A value is the stored number times the scale, plus the offset.
    tags : dict of str to str
        Tags of the band.
    unit : str
        Unit of the values; empty for none.
    offset : float
        Value of the stored number 0.
    """

    name: str
    scale: float = 1.0
    tags: Mapping[str, str] = field(default_factory=dict)
    unit: str = ""
    offset: float = 0.0


@dataclass(frozen=True)
class Layer:
    """The bands of a raster of a map.

    Attributes
    ----------
    name : str
        File name without ``.tif``.
    bands : tuple of Band
        All of the type `dtype`, whose largest number is no data.
    rows : tuple of ClassRow, optional
        Values, names and colours of a class layer; None for a layer of continuous values.
    dtype : str
        ``uint8`` or ``uint16``.
    """

    name: str
    bands: tuple[Band, ...]
    rows: tuple[ClassRow, ...] | None = None
    dtype: str = "uint8"

    @property
    def nodata(self) -> int:
        """The number stored for no data."""
        return int(np.iinfo(self.dtype).max)

    @property
    def overviews(self) -> str:
        """Resampling of the overviews: the most frequent class, or the mean of continuous values."""
        return "average" if self.rows is None else "mode"


def create_raster(path: Path, layer: Layer, grid: Mapping[str, Any], tags: Mapping[str, str]) -> Any:
    """Open a plain tiled GeoTIFF for writing; cells that are not written are no data.

    Parameters
    ----------
    path : Path
        A temporary file.
    layer : Layer
        Bands, names, scales, palette.
    grid : mapping
        ``crs``, ``transform``, ``width`` and ``height`` for rasterio.
    tags : mapping
        Tags of the file.

    Returns
    -------
    rasterio.io.DatasetWriter
        The open raster.
    """
    raster = rasterio.open(
        path,
        "w+",
        driver="GTiff",
        dtype=layer.dtype,
        count=len(layer.bands),
        nodata=layer.nodata,
        tiled=True,
        blockxsize=BLOCK_PX,
        blockysize=BLOCK_PX,
        interleave="pixel",
        compress="deflate",
        zlevel=1,  # fast: the file is temporary
        sparse_ok=True,
        bigtiff="if_safer",
        # By default GDAL takes three or four bytes per pixel for red, green, blue and alpha.
        **({"photometric": "minisblack", "alpha": "no"} if layer.rows is None else {}),
        **grid,
    )
    if layer.rows is not None:
        # The palette first: GDAL cannot add it to a TIFF once pixels are written.
        raster.write_colormap(1, palette(layer.rows, NODATA))
    raster.update_tags(**tags)
    for number, band in enumerate(layer.bands, start=1):
        raster.set_band_description(number, band.name)
        raster.update_tags(number, **band.tags)
    raster.scales = tuple(band.scale for band in layer.bands)
    raster.offsets = tuple(band.offset for band in layer.bands)
    raster.units = tuple(band.unit for band in layer.bands)
    return raster


def quantise(
    values: NDArray[np.floating[Any]], scale: float, dtype: str = "uint8", offset: float = 0.0
) -> NDArray[Any]:
    """Convert values to the stored numbers: round((value - offset) / scale), from 0; the type's largest is for NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from gravmap.mapping.files.layer_file import quantise
    >>> quantise(np.array([0.0, 0.5, 9.0, np.nan]), 1 / 200)
    array([  0, 100, 254, 255], dtype=uint8)
    """
    known = np.isfinite(values)
    nodata = np.iinfo(dtype).max
    steps = np.clip(np.rint((np.where(known, values, offset) - offset) / scale), 0, nodata - 1)
    return np.where(known, steps, nodata).astype(dtype)


def write_statistics(path: Path, areas: bool) -> Tally:
    """Compute the statistics of a raster, write them into its tags, and count the cells of the first band.

    Minimum, maximum, mean and standard deviation of each band are exact, in stored numbers. Without them, GIS software
    shows grey or reads the whole raster first.

    Parameters
    ----------
    path : Path
        A complete plain raster.
    areas : bool
        Also sum the areas of the values of the first band.

    Returns
    -------
    Tally
        Cells and areas by value of the first band; areas are zero without `areas`.
    """
    tally = Tally()
    with rasterio.open(path, "r+") as raster:
        numbers = np.iinfo(raster.dtypes[0]).max + 1
        counts = np.zeros((raster.count, numbers), dtype=np.int64)
        for _, window in raster.block_windows(1):
            parts = raster.read(window=window)
            if areas:
                tally.add(parts[0], cell_areas_km2(raster.crs, raster.transform, window))
            for count, part in zip(counts, parts, strict=True):
                count += np.bincount(part.ravel(), minlength=numbers)
        for number, count in enumerate(counts, start=1):
            raster.update_tags(number, **_statistics(count))
    return tally


def _statistics(counts: NDArray[np.int64]) -> dict[str, str]:
    known, cells = counts[:-1], int(counts.sum())  # the last is no data
    present = np.flatnonzero(known)
    if not present.size:
        return {}
    mean = float(np.average(present, weights=known[present]))
    deviation = float(np.sqrt(np.average((present - mean) ** 2, weights=known[present])))
    values = {
        "MINIMUM": present[0],
        "MAXIMUM": present[-1],
        "MEAN": mean,
        "STDDEV": deviation,
        "VALID_PERCENT": 100 * int(known.sum()) / cells,
    }
    return {f"STATISTICS_{key}": f"{value:.12g}" for key, value in values.items()}


def write_cog(plain: Path, path: Path, layer: Layer, tally: Tally) -> None:
    """Copy a plain raster to a cloud-optimized one with overviews; a class layer gets its table in ``.aux.xml``."""
    options: dict[str, Any] = {"predictor": "YES"} if layer.rows is None else {}
    with atomic_path(path) as partial:
        copy_raster(
            plain,
            partial,
            driver="COG",
            compress="DEFLATE",
            blocksize=BLOCK_PX,
            overview_resampling=layer.overviews,
            **options,
        )
        if layer.rows is not None:
            table = auxiliary_xml(layer.rows, tally)
            partial.with_name(partial.name + ".aux.xml").write_text(table, encoding="utf-8")
