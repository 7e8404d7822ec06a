"""One raster of a map on its way to disk: plain tiles while blocks arrive, a cloud-optimized file at the end."""

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
"""GDAL would keep a twentieth of the machine's memory of what it has written; a map passes through once."""


@dataclass(frozen=True)
class Band:
    """One band of a layer.

    Attributes
    ----------
    name : str
        Its description in the file.
    scale : float
        A value is the stored number times this.
    tags : dict of str to str
        Written beside it.
    """

    name: str
    scale: float = 1.0
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """What a file of a map holds, whatever its cells.

    Attributes
    ----------
    name : str
        The file's name without ``.tif``.
    bands : tuple of Band
        uint8 each, 255 no data.
    rows : tuple of ClassRow, optional
        Values, names and colours of a layer of classes; None for measures.
    """

    name: str
    bands: tuple[Band, ...]
    rows: tuple[ClassRow, ...] | None = None

    @property
    def overviews(self) -> str:
        """How several cells become one: the most frequent class, or the mean of a measure."""
        return "average" if self.rows is None else "mode"


def create(path: Path, layer: Layer, place: Mapping[str, Any], tags: Mapping[str, str]) -> Any:
    """Open a plain tiled GeoTIFF for writing; what is never written is no data.

    Parameters
    ----------
    path : Path
        A working file.
    layer : Layer
        Bands, names, scales, palette.
    place : mapping
        ``crs``, ``transform``, ``width`` and ``height`` as rasterio takes them.
    tags : mapping
        Of the whole file.

    Returns
    -------
    rasterio.io.DatasetWriter
        Open; the caller closes it.
    """
    raster = rasterio.open(
        path,
        "w+",
        driver="GTiff",
        dtype="uint8",
        count=len(layer.bands),
        nodata=NODATA,
        tiled=True,
        blockxsize=BLOCK_PX,
        blockysize=BLOCK_PX,
        interleave="pixel",
        compress="deflate",
        zlevel=1,  # it lives for minutes
        sparse_ok=True,
        bigtiff="if_safer",
        # Three or four bytes are red, green, blue and alpha to TIFF unless it is told otherwise.
        **({"photometric": "minisblack", "alpha": "no"} if layer.rows is None else {}),
        **place,
    )
    if layer.rows is not None:
        # The palette first: TIFF cannot be told that it is one once pixels are written.
        raster.write_colormap(1, palette(layer.rows, NODATA))
    raster.update_tags(**tags)
    for number, band in enumerate(layer.bands, start=1):
        raster.set_band_description(number, band.name)
        raster.update_tags(number, **band.tags)
    raster.scales = tuple(band.scale for band in layer.bands)
    return raster


def stored(values: NDArray[np.floating[Any]], scale: float) -> NDArray[np.uint8]:
    """Values as a layer holds them: round(value / scale), at most 254; 255 where there is none."""
    known = np.isfinite(values)
    steps = np.clip(np.rint(np.where(known, values, 0) / scale), 0, NODATA - 1)
    return np.where(known, steps, NODATA).astype(np.uint8)


def survey(path: Path, areas: bool) -> Tally:
    """Go once through a finished plain file: statistics into it, and what its cells add up to.

    Every band's smallest, largest and mean value and its spread are exact, in stored numbers. Software that finds none
    draws grey, or reads the whole raster to find out.

    Parameters
    ----------
    path : Path
        A plain file, complete.
    areas : bool
        Add up the areas of the first band's values, too.

    Returns
    -------
    Tally
        Cells of the first band; areas when asked for, else zeros.
    """
    tally = Tally()
    with rasterio.open(path, "r+") as raster:
        counts = np.zeros((raster.count, 256), dtype=np.int64)
        for _, window in raster.block_windows(1):
            parts = raster.read(window=window)
            if areas:
                tally.add(parts[0], cell_areas_km2(raster.crs, raster.transform, window))
            for count, part in zip(counts, parts, strict=True):
                count += np.bincount(part.ravel(), minlength=256)
        for number, count in enumerate(counts, start=1):
            raster.update_tags(number, **_statistics(count))
    return tally


def _statistics(counts: NDArray[np.int64]) -> dict[str, str]:
    known, cells = counts[:NODATA], int(counts.sum())
    there = np.flatnonzero(known)
    if not there.size:
        return {}
    mean = float(np.average(there, weights=known[there]))
    spread = float(np.sqrt(np.average((there - mean) ** 2, weights=known[there])))
    values = {
        "MINIMUM": there[0],
        "MAXIMUM": there[-1],
        "MEAN": mean,
        "STDDEV": spread,
        "VALID_PERCENT": 100 * int(known.sum()) / cells,
    }
    return {f"STATISTICS_{key}": f"{value:.12g}" for key, value in values.items()}


def publish(plain: Path, path: Path, layer: Layer, tally: Tally) -> None:
    """Copy a plain file to a cloud-optimized one with overviews; beside a layer of classes goes its table."""
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
