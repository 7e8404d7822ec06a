"""Index rasters: single-band uint8 GeoTIFF whose values are classes, with palette, names and nodata inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.shutil import copy as copy_raster
from rasterio.transform import from_bounds

from gravmap import __version__
from gravmap.files import atomic_path
from gravmap.geology.legend import UNUSABLE, Legend


def palette(legend: Legend) -> dict[int, tuple[int, int, int, int]]:
    """Value to red, green, blue, alpha; 255 is transparent."""
    colours = {entry.index: (*(int(entry.colour[k : k + 2], 16) for k in (1, 3, 5)), 255) for entry in legend.classes}
    return {**colours, UNUSABLE: (0, 0, 0, 0)}  # type: ignore[dict-item]


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
    ``<path>.aux.xml``, where GDAL looks for them: TIFF has no place for names.

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
    rows, columns = values.shape
    profile = {
        "driver": "GTiff",
        "width": columns,
        "height": rows,
        "count": 1,
        "dtype": "uint8",
        "crs": "EPSG:4326",
        "transform": from_bounds(*bounds_wsen, columns, rows),
        "nodata": UNUSABLE,
        "compress": "deflate",
    }
    if min(rows, columns) >= 512:  # a block larger than the raster only adds padding
        profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512}
    factors = [2**k for k in range(1, 8) if max(rows, columns) > 256 * 2**k]
    with atomic_path(path) as temporary:
        target = temporary.with_name(f"{temporary.stem}-plain.tif") if cog else temporary
        try:
            with rasterio.open(target, "w", **profile) as raster:
                # The palette first: TIFF cannot be told that it is one once pixels are written.
                raster.write_colormap(1, palette(legend))
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
        temporary.with_name(temporary.name + ".aux.xml").write_text(category_xml(legend), encoding="utf-8")


def _text_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    plain = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in tags.items()
    }
    return {"GRAVMAP_VERSION": __version__, **plain}


def category_xml(legend: Legend) -> str:
    """GDAL's auxiliary file with the name of every class, for the first band."""
    names = {entry.index: entry.name for entry in legend.classes}
    lines = [f"      <Category>{escape(names.get(value, ''))}</Category>" for value in range(max(names) + 1)]
    inside = "\n".join(["    <CategoryNames>", *lines, "    </CategoryNames>"])
    return f'<PAMDataset>\n  <PAMRasterBand band="1">\n{inside}\n  </PAMRasterBand>\n</PAMDataset>\n'
