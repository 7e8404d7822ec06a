"""The tiles themselves: GeoTIFFs of field, label and small bodies, cut and compressed in memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import DatasetWriter, MemoryFile
from rasterio.transform import from_bounds

from gravmap.geology import Labels
from gravmap.geology.class_table import palette, rows_of
from gravmap.geology.legend import UNUSABLE
from gravmap.regions import Region
from gravmap.tiling.field_grid import FieldGrid
from gravmap.tiling.resample import bilinear, nearest
from gravmap.tiling.windows import Scale

# Field tiles keep steps of 2^-9 mGal, so are off by 0.001 mGal at most: a thousandth of what the best gravity is off.
FIELD_STEP_MGAL = 2.0**-9

KINDS = ("field", "label", "small")


@dataclass(frozen=True)
class Tile:
    """One window and its place in its scale: row from the north, column from the west."""

    scale: Scale
    row: int
    column: int
    window: Region

    @property
    def name(self) -> str:
        """Folder and first part of the tile's file names: ``5deg/r000_c003``."""
        return f"{self.scale.name}/r{self.row:03d}_c{self.column:03d}"

    def file(self, kind: str) -> str:
        """The tile's file of one of KINDS, as seen from the tile set's folder."""
        return f"{self.name}_{kind}.tif"


def cut_tile(tile: Tile, grid: FieldGrid, raster: Labels, small: NDArray[np.uint8], size_px: int) -> dict[str, bytes]:
    """The three GeoTIFFs of one window, as bytes.

    Fields are interpolated bilinearly between nodes and kept to 2^-9 mGal; labels and the mask of small
    bodies take the value of the cell under each pixel's centre. GDAL compresses outside Python's lock, so
    several threads may cut side by side.

    Parameters
    ----------
    tile : Tile
        The window.
    grid : FieldGrid
        Its first channel is cut.
    raster : Labels
        Labels, with the legend that gives the palette.
    small : ndarray, shape of the labels, uint8
        1 in small bodies.
    size_px : int
        Pixels a side.

    Returns
    -------
    dict
        Kind (``field``, ``label``, ``small``) to the bytes of its file; the same input gives the same bytes.
    """
    field = bilinear(grid.values[0], grid.nodes_wsen, tile.window, size_px)
    field *= 1 / FIELD_STEP_MGAL
    np.rint(field, out=field)
    field *= FIELD_STEP_MGAL
    label = nearest(raster.values, raster.bounds_wsen, tile.window, size_px)
    mask = nearest(small, raster.bounds_wsen, tile.window, size_px, outside=0)

    def describe_field(target: DatasetWriter) -> None:
        target.set_band_description(1, f"{grid.channels[0]} ({grid.units[0]})")
        target.units = (grid.units[0],)

    def describe_label(target: DatasetWriter) -> None:
        target.write_colormap(1, palette(rows_of(raster.legend)))
        target.set_band_description(1, "class index")
        target.update_tags(GRAVMAP_LEGEND=raster.legend.name)

    def describe_mask(target: DatasetWriter) -> None:
        target.set_band_description(1, "1 in bodies under 1600 km2")

    # Differences along a row (predictor 2) deflate as small as GDAL's predictor for floats, in half the time.
    return {
        "field": _geotiff(field, tile.window, describe_field, nodata=float("nan"), predictor=2),
        "label": _geotiff(label, tile.window, describe_label, nodata=UNUSABLE),
        "small": _geotiff(mask, tile.window, describe_mask),
    }


@functools.cache
def _wgs84() -> CRS:
    return CRS.from_epsg(4326)


def _geotiff(values: NDArray[Any], window: Region, describe: Callable[[DatasetWriter], None], **options: Any) -> bytes:
    size_px = len(values)
    profile = {
        "driver": "GTiff",
        "width": size_px,
        "height": size_px,
        "count": 1,
        "dtype": values.dtype.name,
        "crs": _wgs84(),
        "transform": from_bounds(*window.bounds_wsen, size_px, size_px),
        "compress": "deflate",
        "zlevel": 1,
    }
    if size_px >= 512:  # a block larger than the raster only adds padding
        profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512}
    with MemoryFile() as memory:
        with memory.open(**profile, **options) as target:
            describe(target)  # first: TIFF cannot be told of a palette once pixels are written
            target.write(values, 1)
        return bytes(memory.getbuffer())
