"""Index rasters: single-band uint8 GeoTIFF whose values are classes, with palette, names and nodata inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.shutil import copy as copy_raster
from rasterio.transform import from_bounds

from gravmap import __version__
from gravmap.files import atomic_path
from gravmap.geology.areas import row_cell_areas_km2
from gravmap.geology.class_table import Tally, auxiliary_xml, palette, rows_of
from gravmap.geology.legend import UNUSABLE, Legend


def write_index_raster(
    path: Path,
    values: NDArray[np.uint8],
    bounds_wsen: tuple[float, float, float, float],
    legend: Legend,
    *,
    tags: Mapping[str, Any] | None = None,
    overviews: bool = False,
    cog: bool = False,
) -> None:
    """Write a raster of class indices that GIS software shows with its colours and names.

    GeoTIFF, uint8, EPSG:4326, DEFLATE, 512 x 512 blocks, palette, nodata 255. The class names go to
    ``<path>.aux.xml``, where GDAL looks for them, with a table of the cells and the area of every class: TIFF has no
    place for either.

    Parameters
    ----------
    path : Path
        The file; replaced whole when it exists.
    values : ndarray, shape (rows, columns), uint8
        North-up: row 0 northernmost.
    bounds_wsen : tuple of float
        Outer edges of the cells: west, south, east, north, degrees.
    legend : Legend
        Gives colours and names.
    tags : mapping, optional
        Further tags; what is no string is written as JSON.
    overviews : bool
        Add reduced copies (the most frequent class of each square).
    cog : bool
        Write a cloud-optimized GeoTIFF; it always has overviews.
    """
    height, width = values.shape
    west, south, east, north = bounds_wsen
    rows = rows_of(legend)
    tally = Tally()
    tally.add(values, row_cell_areas_km2(south, north, height, (east - west) / width)[:, None])
    profile = {
        "driver": "GTiff",
        "width": width,
        "height": height,
        "count": 1,
        "dtype": "uint8",
        "crs": "EPSG:4326",
        "transform": from_bounds(*bounds_wsen, width, height),
        "nodata": UNUSABLE,
        "compress": "deflate",
    }
    if min(height, width) >= 512:  # a block larger than the raster only adds padding
        profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512}
    factors = [2**k for k in range(1, 8) if max(height, width) > 256 * 2**k]
    with atomic_path(path) as temporary:
        target = temporary.with_name(f"{temporary.stem}-plain.tif") if cog else temporary
        try:
            with rasterio.open(target, "w", **profile) as raster:
                # The palette first: TIFF cannot be told that it is one once pixels are written.
                raster.write_colormap(1, palette(rows))
                raster.write(np.ascontiguousarray(values, dtype=np.uint8), 1)
                raster.set_band_description(1, "class index")
                raster.update_tags(**_text_tags({"GRAVMAP_LEGEND": legend.name, **(tags or {})}))
                if overviews and not cog and factors:
                    raster.build_overviews(factors, Resampling.mode)
            if cog:
                options = {"compress": "deflate", "blocksize": 512, "overview_resampling": "mode"}
                copy_raster(target, temporary, driver="COG", **options)
        finally:
            if cog:
                target.unlink(missing_ok=True)
        table = auxiliary_xml(rows, tally)
        temporary.with_name(temporary.name + ".aux.xml").write_text(table, encoding="utf-8")


def _text_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    plain = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in tags.items()
    }
    return {"GRAVMAP_VERSION": __version__, **plain}
