"""The label raster on disk: an index GeoTIFF written beside its legend, read back and checked."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioIOError
from rasterio.shutil import copy as copy_raster
from rasterio.transform import from_bounds
from rasterio.windows import Window

from gravmap import __version__
from gravmap.errors import InputError
from gravmap.files import atomic_path
from gravmap.geology.areas import row_cell_areas_km2
from gravmap.geology.class_table import Tally, auxiliary_xml, class_rows, palette
from gravmap.geology.legend import Legend
from gravmap.geology.legend_file import load_legend, write_legend
from gravmap.geology.rasterize_report import RasterizedMap
from gravmap.lattice import UNUSABLE, axis_cells


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
    rows = class_rows(legend)
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


log = logging.getLogger(__name__)

ROWS_AT_ONCE = 512


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
    write_legend(rasterized.legend, legend_path(path))
    write_index_raster(
        path, rasterized.values, rasterized.bounds_wsen, rasterized.legend, tags={"GRAVMAP_SOURCES": sources}
    )


class LabelFile:
    """A label raster on disk, read a part at a time; a context manager.

    Without the legend beside it the class table `bedrock10` is taken, with a warning.

    Attributes
    ----------
    path : Path
        The GeoTIFF.
    shape : (int, int)
        Rows and columns.
    bounds_wsen, resolution_deg, legend
        As in :class:`Labels`.

    Raises
    ------
    InputError
        The file is missing, no raster, has no or another coordinate system than EPSG:4326, more than
        one band, or another type than 8-bit integers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path = Path(path)
        if not path.exists():
            raise InputError(f"{path} is missing.", "`gravmap rasterize` makes it.")
        try:
            self._raster = rasterio.open(path)
        except RasterioIOError as error:
            raise _unreadable(path, error) from None
        try:
            _check_header(self._raster, path)
            self.legend = _legend_of(path)
        except BaseException:
            self._raster.close()
            raise
        west, south, east, north = self._raster.bounds
        self.bounds_wsen = (west, south, east, north)
        self.shape: tuple[int, int] = self._raster.shape
        self.resolution_deg = float(self._raster.transform.a)
        self._known = np.zeros(256, dtype=bool)
        self._known[[*(entry.index for entry in self.legend.classes), UNUSABLE]] = True

    def __enter__(self) -> LabelFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._raster.close()

    def read(self, rows: slice, columns: slice) -> Labels:
        """The labels of a rectangle of cells.

        Raises
        ------
        InputError
            The file is damaged, or holds values that its legend does not know.
        """
        try:
            values: NDArray[np.uint8] = self._raster.read(1, window=Window.from_slices(rows, columns))
        except RasterioIOError as error:
            raise _unreadable(self.path, error) from None
        fits = self._known[values]
        if not fits.all():
            strange = np.unique(values[~fits]).tolist()
            raise InputError(
                f"{self.path} holds the values {strange}, which the legend {self.legend.name} does not know.",
                f"Put the right legend at {legend_path(self.path)}.",
            )
        west, south, east, north = self.bounds_wsen
        tall, wide = (north - south) / self.shape[0], (east - west) / self.shape[1]
        bounds = (
            west + columns.start * wide,
            north - rows.stop * tall,
            west + columns.stop * wide,
            north - rows.start * tall,
        )
        return Labels(values, bounds, self.resolution_deg, self.legend)

    def check(self) -> None:
        """Look at every value once, some rows at a time; raises as :meth:`read` does."""
        for first in range(0, self.shape[0], ROWS_AT_ONCE):
            self.read(slice(first, min(first + ROWS_AT_ONCE, self.shape[0])), slice(0, self.shape[1]))

    def around(self, lat: NDArray[np.float64], lon: NDArray[np.float64], margin_yx_deg: tuple[float, float]) -> Labels:
        """The labels under points and within a margin around them; none where they do not reach.

        Parameters
        ----------
        lat, lon : (h,), (w,) float64
            Degrees.
        margin_yx_deg : (float, float)
            Along latitude and along longitude, degrees.
        """
        west, south, east, north = self.bounds_wsen
        (rows, columns), (margin_y, margin_x) = self.shape, margin_yx_deg
        down, right = rows / (north - south), columns / (east - west)
        top, bottom = (north - lat.max() - margin_y) * down, (north - lat.min() + margin_y) * down
        left, last = (lon.min() - margin_x - west) * right, (lon.max() + margin_x - west) * right
        return self.read(_part(top, bottom, rows), _part(left, last, columns))

    def at(self, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Label of the cell that each point of a grid lies in, (h, w); 255 outside the raster."""
        west, south, east, north = self.bounds_wsen
        row = axis_cells(lat, north, south, self.shape[0])
        column = axis_cells(lon, west, east, self.shape[1])
        inside = (row >= 0)[:, None] & (column >= 0)[None, :]
        row, column = np.maximum(row, 0), np.maximum(column, 0)
        part = self.read(
            slice(int(row.min()), int(row.max()) + 1), slice(int(column.min()), int(column.max()) + 1)
        ).values
        values = part[(row - row.min())[:, None], (column - column.min())[None, :]]
        return np.where(inside, values, UNUSABLE).astype(np.uint8)


def open_labels(path: Path) -> Labels:
    """Read a label raster and the legend beside it.

    Without the legend the class table `bedrock10` is taken, with a warning.

    Raises
    ------
    InputError
        As :class:`LabelFile`, and where the file holds values that its legend does not know.
    """
    with LabelFile(path) as file:
        return file.read(slice(0, file.shape[0]), slice(0, file.shape[1]))


def _check_header(raster: Any, path: Path) -> None:
    if raster.crs is None or raster.crs.to_epsg() != 4326:
        found = raster.crs.to_string() if raster.crs else "no coordinate system"
        raise InputError(f"{path} has {found}, not EPSG:4326.", "`gravmap rasterize` makes a label raster from a map.")
    if raster.count != 1 or raster.dtypes[0] != "uint8":
        raise InputError(
            f"{path} has {raster.count} band(s) of {raster.dtypes[0]}.", "Labels are one band of uint8 class indices."
        )
    if raster.transform.e >= 0 or raster.transform.b or raster.transform.d:
        raise InputError(f"{path} is not north-up.", "Warp it with gdalwarp, or make it with `gravmap rasterize`.")
    if raster.nodata is not None and raster.nodata != UNUSABLE:
        raise InputError(f"{path} has nodata {raster.nodata:g}.", "Nodata is 255 in a label raster; 0 is the cover.")


def _legend_of(path: Path) -> Legend:
    beside = legend_path(path)
    if beside.exists():
        return load_legend(beside)
    log.warning("%s is missing; the classes of %s are taken from the legend bedrock10.", beside, path.name)
    return load_legend("bedrock10")


def _unreadable(path: Path, error: RasterioIOError) -> InputError:
    return InputError(f"{path} is no raster: {error}.", "`gravmap rasterize` makes it anew.")


def _part(first: float, last: float, count: int) -> slice:
    """Cells between two positions, at least one of the raster's."""
    start = min(max(math.floor(first), 0), count - 1)
    return slice(start, max(min(math.ceil(last) + 1, count), start + 1))
