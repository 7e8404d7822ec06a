"""The tiles themselves: GeoTIFFs of field, label and small bodies, cut and written side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_bounds

from gravmap.geology import Labels, write_index_raster
from gravmap.progress import Progress
from gravmap.regions import Region
from gravmap.tiling.field_grid import FieldGrid
from gravmap.tiling.resample import bilinear, nearest
from gravmap.tiling.windows import Scale

# Field tiles keep steps of 2^-10 mGal: a hundred times finer than the best gravity, and half the disk.
FIELD_STEP_MGAL = 2.0**-10


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


def write_tiles(
    folder: Path,
    tiles: list[Tile],
    grid: FieldGrid,
    raster: Labels,
    small: NDArray[np.uint8],
    size_px: int,
    workers: int,
    progress: Progress,
) -> None:
    """Cut and write the tiles of every window.

    Fields are interpolated bilinearly between nodes and kept to 2^-10 mGal; labels and the mask of small
    bodies take the value of the cell under each pixel's centre.

    Parameters
    ----------
    folder : Path
        Where to write ``<scale>deg/r000_c000_{field,label,small}.tif``.
    tiles : list of Tile
        The windows.
    grid : FieldGrid
        Its first channel is written.
    raster : Labels
        Labels, with the legend that gives palette and names.
    small : ndarray, shape of the labels, uint8
        1 in small bodies.
    size_px : int
        Pixels a side.
    workers : int
        Threads; GDAL compresses outside Python's lock, so two fill two cores.
    progress : Progress
        Told after each tile.
    """
    for scale in {tile.scale.name for tile in tiles}:
        (folder / scale).mkdir()

    def one(tile: Tile) -> None:
        field = bilinear(grid.values[0], grid.nodes_wsen, tile.window, size_px)
        np.multiply(np.rint(field * (1 / FIELD_STEP_MGAL)), FIELD_STEP_MGAL, out=field)
        path = folder / tile.name
        _write_field(path.with_name(f"{path.name}_field.tif"), field, tile.window, grid.channels[0])
        label = nearest(raster.values, raster.bounds_wsen, tile.window, size_px)
        write_index_raster(path.with_name(f"{path.name}_label.tif"), label, tile.window.bounds_wsen, raster.legend)
        mask = nearest(small, raster.bounds_wsen, tile.window, size_px, outside=0)
        _write_mask(path.with_name(f"{path.name}_small.tif"), mask, tile.window)

    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        jobs = [pool.submit(one, tile) for tile in tiles]
        try:
            for done, job in enumerate(jobs, start=1):
                job.result()
                progress(done, len(jobs), tiles[done - 1].name)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _profile(window: Region, size_px: int, dtype: str) -> dict[str, Any]:
    profile = {
        "driver": "GTiff",
        "width": size_px,
        "height": size_px,
        "count": 1,
        "dtype": dtype,
        "crs": "EPSG:4326",
        "transform": from_bounds(*window.bounds_wsen, size_px, size_px),
        "compress": "deflate",
        "zlevel": 1,
    }
    return profile | ({"tiled": True, "blockxsize": 512, "blockysize": 512} if size_px >= 512 else {})


def _write_field(path: Path, field: NDArray[np.float32], window: Region, channel: str) -> None:
    with rasterio.open(path, "w", **_profile(window, len(field), "float32"), nodata=float("nan"), predictor=3) as tile:
        tile.write(field, 1)
        tile.set_band_description(1, f"{channel} (mGal)")
        tile.update_tags(1, UNITS="mGal")


def _write_mask(path: Path, mask: NDArray[np.uint8], window: Region) -> None:
    with rasterio.open(path, "w", **_profile(window, len(mask), "uint8")) as tile:
        tile.write(mask, 1)
        tile.set_band_description(1, "1 in bodies under 1600 km2")
