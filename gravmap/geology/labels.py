"""Reading and writing label rasters: GeoTIFFs of class indices with their legend in a separate file."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from gravmap.classes import CLASS_TABLES, DEFAULT_CLASSES
from gravmap.errors import InputError
from gravmap.files import atomic_path, sha256
from gravmap.geology.areas import row_cell_areas_km2
from gravmap.geology.class_table import Tally, auxiliary_xml, class_rows, palette
from gravmap.geology.legend import Legend
from gravmap.geology.legend_file import load_legend, write_legend
from gravmap.geology.rasterize_report import RasterizedMap
from gravmap.lattice import COVER, UNUSABLE, axis_cells, turn_longitudes

log = logging.getLogger(__name__)

ROWS_PER_CHUNK = 512

TABLE_TAG = "GRAVMAP_CLASSES"
"""Tag of a class raster: name of its class table. Rasters of earlier versions of gravmap have none."""

COVER_TAG = "GRAVMAP_COVER_YOUNGER_THAN"
"""Tag of a label raster: the age down to which rocks count as cover, where the cover has an age."""

LEGEND_TAG = "GRAVMAP_LEGEND_SHA256"
"""Tag of a label raster: SHA-256 of the legend file beside it. Rasters of earlier versions of gravmap have none."""


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
    """Write a raster of class indices with the colours and names of the classes.

    GeoTIFF, uint8, EPSG:4326, DEFLATE, 512 x 512 blocks, colour map, nodata 255. Class names and a table of cell counts
    and areas are written to ``<path>.aux.xml``, where GDAL reads them; TIFF itself has no place for them.

    Parameters
    ----------
    path : Path
        The file; an existing one is replaced.
    values : ndarray, shape (rows, columns), uint8
        North-up: row 0 northernmost.
    bounds_wsen : tuple of float
        Outer edges of the cells: west, south, east, north, degrees.
    legend : Legend
        Colours and names.
    tags : mapping, optional
        Further tags; values that are not strings are written as JSON.
    overviews : bool
        Add overviews (mode resampling).
    cog : bool
        Write a cloud-optimized GeoTIFF, which always has overviews.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np, rasterio
    >>> from gravmap.geology import load_legend
    >>> from gravmap.geology.labels import write_index_raster
    >>> values = np.array([[0, 6], [6, 255]], dtype=np.uint8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_index_raster(Path(folder) / "a.tif", values, (80, 44, 82, 46), load_legend("basement10"))
    ...     with rasterio.open(Path(folder) / "a.tif") as raster:
    ...         raster.nodata, raster.colormap(1)[6]
    (255.0, (203, 140, 55, 255))
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
    if min(height, width) >= 512:  # blocks larger than the raster would only add padding
        profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512}
    factors = [2**k for k in range(1, 8) if max(height, width) > 256 * 2**k]
    with atomic_path(path) as temporary:
        target = temporary.with_name(f"{temporary.stem}-plain.tif") if cog else temporary
        try:
            with rasterio.open(target, "w", **profile) as raster:
                # TIFF needs the colour map before the pixels.
                raster.write_colormap(1, palette(rows))
                raster.write(np.ascontiguousarray(values, dtype=np.uint8), 1)
                raster.set_band_description(1, "class index")
                raster.update_tags(
                    **_text_tags(
                        {"GRAVMAP_LEGEND": legend.name, TABLE_TAG: legend.table or legend.name, **(tags or {})}
                    )
                )
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
        Cell size.
    legend : Legend
        The class table.

    Examples
    --------
    >>> import numpy as np
    >>> from gravmap.geology import load_legend
    >>> from gravmap.geology.labels import Labels
    >>> labels = Labels(np.array([[0, 6], [6, 255]], dtype=np.uint8), (80, 44, 82, 46), 1.0, load_legend("basement10"))
    >>> int(np.count_nonzero(labels.values == 6))
    2
    """

    values: NDArray[np.uint8]
    bounds_wsen: tuple[float, float, float, float]
    resolution_deg: float
    legend: Legend


def legend_path(labels: Path) -> Path:
    """Path of the legend of a label raster.

    Examples
    --------
    >>> from pathlib import Path
    >>> from gravmap.geology.labels import legend_path
    >>> legend_path(Path("labels.tif")).name
    'labels.legend.toml'
    """
    return labels.with_name(f"{labels.stem}.legend.toml")


def label_files(path: Path) -> list[Path]:
    """The files that :func:`write_labels` writes."""
    return [path, path.with_name(path.name + ".aux.xml"), legend_path(path)]


def write_labels(path: Path, rasterized: RasterizedMap) -> None:
    """Write a label raster, and its legend beside it.

    Parameters
    ----------
    path : Path
        The GeoTIFF, such as ``data/labels.tif``.
    rasterized : RasterizedMap
        From :func:`gravmap.geology.rasterize`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from gravmap.geology import load_legend, open_labels, write_labels
    >>> from gravmap.geology.rasterize_report import RasterizedMap
    >>> values = np.array([[0, 6], [6, 255]], dtype=np.uint8)
    >>> made = RasterizedMap(values, (80, 44, 82, 46), 1.0, load_legend("basement10"), maps=(), codes=())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_labels(Path(folder) / "labels.tif", made)
    ...     labels = open_labels(Path(folder) / "labels.tif")
    >>> labels.values.tolist(), labels.bounds_wsen
    ([[0, 6], [6, 255]], (80.0, 44.0, 82.0, 46.0))
    """
    sources = [
        {"file": entry.file, "sha256": entry.sha256, "legend": entry.legend, "field": entry.field}
        for entry in rasterized.maps
    ]
    # The legend first: a raster without one would be read with the default legend. The raster holds its checksum, so
    # that an old raster beside a new legend, after a kill between the two, is refused.
    write_legend(rasterized.legend, legend_path(path))
    tags = {"GRAVMAP_SOURCES": sources, LEGEND_TAG: sha256(legend_path(path))}
    cover = rasterized.legend.classes[0]
    if cover.index == COVER and cover.span_ma is not None:
        tags[COVER_TAG] = f"{cover.span_ma[0]:g} Ma"
    write_index_raster(path, rasterized.values, rasterized.bounds_wsen, rasterized.legend, tags=tags)


class LabelFile:
    """A label raster on disk, read in parts; a context manager.

    If its legend is missing, the class table `basement10` is used, with a warning.

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
        The file is missing or not a raster, is not in EPSG:4326, is not one band of uint8, or was made with another
        legend than the one beside it.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from gravmap.geology import load_legend
    >>> from gravmap.geology.labels import LabelFile
    >>> from gravmap.geology.labels import write_index_raster
    >>> values = np.array([[0, 6], [6, 255]], dtype=np.uint8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_index_raster(Path(folder) / "labels.tif", values, (80, 44, 82, 46), load_legend("basement10"))
    ...     with LabelFile(Path(folder) / "labels.tif") as file:
    ...         file.sample(np.array([45.5]), np.array([80.5, 81.5, 82.5]))
    array([[  0,   6, 255]], dtype=uint8)
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
            self.legend = _legend_of(path, self._raster)
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
        """Close the file."""
        self._raster.close()

    def read(self, rows: slice, columns: slice) -> Labels:
        """Read a rectangle of cells.

        Raises
        ------
        InputError
            The file is damaged, or has values that are not in its legend.
        """
        try:
            values: NDArray[np.uint8] = self._raster.read(1, window=Window.from_slices(rows, columns))
        except RasterioIOError as error:
            raise _unreadable(self.path, error) from None
        known = self._known[values]
        if not known.all():
            unknown = np.unique(values[~known]).tolist()
            raise InputError(
                f"{self.path} has the values {unknown}, which are not in the legend {self.legend.name}.",
                f"Put the right legend at {legend_path(self.path)}.",
            )
        west, south, east, north = self.bounds_wsen
        height, width = (north - south) / self.shape[0], (east - west) / self.shape[1]
        bounds = (
            west + columns.start * width,
            north - rows.stop * height,
            west + columns.stop * width,
            north - rows.start * height,
        )
        return Labels(values, bounds, self.resolution_deg, self.legend)

    def check(self) -> None:
        """Check all values, some rows at a time; raises as :meth:`read` does."""
        for first in range(0, self.shape[0], ROWS_PER_CHUNK):
            self.read(slice(first, min(first + ROWS_PER_CHUNK, self.shape[0])), slice(0, self.shape[1]))

    def read_around(
        self, lat: NDArray[np.float64], lon: NDArray[np.float64], margin_yx_deg: tuple[float, float]
    ) -> Labels:
        """Read the rectangle that contains points and a margin around them, clipped to the raster.

        Its bounds are counted in the turn of 360 degrees of the points.

        Parameters
        ----------
        lat, lon : (h,), (w,) float64
            Degrees.
        margin_yx_deg : (float, float)
            Along latitude and along longitude, degrees.

        Raises
        ------
        InputError
            As :meth:`read`; or the points are in two turns of the raster, as west and east of Greenwich in one from 0
            to 360 degrees.
        """
        west, south, east, north = self.bounds_wsen
        turned = np.round(turn_longitudes(lon, west, east) - lon)
        inside = (lon + turned >= west) & (lon + turned <= east)
        turns = np.unique(turned[inside])
        if len(turns) > 1:
            raise InputError(
                f"{self.path} covers {west:g} to {east:g} degrees of longitude, and the map {lon.min():g} to "
                f"{lon.max():g}: its labels are not contiguous there.",
                "`gravmap rasterize --overwrite` makes labels for the region of the fields.",
            )
        turn = float(turns[0]) if len(turns) else 0.0
        (rows, columns), (margin_y, margin_x) = self.shape, margin_yx_deg
        down, right = rows / (north - south), columns / (east - west)
        top, bottom = (north - lat.max() - margin_y) * down, (north - lat.min() + margin_y) * down
        left, last = (lon.min() + turn - margin_x - west) * right, (lon.max() + turn + margin_x - west) * right
        found = self.read(_part(top, bottom, rows), _part(left, last, columns))
        if not turn:
            return found
        west, south, east, north = found.bounds_wsen
        return replace(found, bounds_wsen=(west - turn, south, east - turn, north))

    def sample(self, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Labels at the nodes of a grid, shape (h, w): the cell that contains each node; 255 outside the raster.

        Longitudes of the nodes and of the raster may differ by 360 degrees.
        """
        west, south, east, north = self.bounds_wsen
        row = axis_cells(lat, north, south, self.shape[0])
        column = axis_cells(turn_longitudes(lon, west, east), west, east, self.shape[1])
        inside = (row >= 0)[:, None] & (column >= 0)[None, :]
        row, column = np.maximum(row, 0), np.maximum(column, 0)
        part = self.read(
            slice(int(row.min()), int(row.max()) + 1), slice(int(column.min()), int(column.max()) + 1)
        ).values
        values = part[(row - row.min())[:, None], (column - column.min())[None, :]]
        return np.where(inside, values, UNUSABLE).astype(np.uint8)


def open_labels(path: Path) -> Labels:
    """Read a label raster and the legend beside it.

    If the legend is missing, the class table `basement10` is used, with a warning.

    Raises
    ------
    InputError
        As :class:`LabelFile`; or the file has values that are not in its legend.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from gravmap.geology import load_legend, open_labels, write_labels
    >>> from gravmap.geology.rasterize_report import RasterizedMap
    >>> values = np.array([[0, 6], [6, 255]], dtype=np.uint8)
    >>> made = RasterizedMap(values, (80, 44, 82, 46), 1.0, load_legend("basement10"), maps=(), codes=())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_labels(Path(folder) / "labels.tif", made)
    ...     labels = open_labels(Path(folder) / "labels.tif")
    >>> labels.legend.classes[6].name
    'Devonian'
    """
    with LabelFile(path) as file:
        return file.read(slice(0, file.shape[0]), slice(0, file.shape[1]))


def _check_header(raster: Any, path: Path) -> None:
    if raster.crs is None or raster.crs.to_epsg() != 4326:
        found = raster.crs.to_string() if raster.crs else "no coordinate reference system"
        raise InputError(f"{path} has {found}, not EPSG:4326.", "`gravmap rasterize` makes a label raster from a map.")
    if raster.count != 1 or raster.dtypes[0] != "uint8":
        raise InputError(
            f"{path} has {raster.count} band(s) of {raster.dtypes[0]}.", "Labels are one band of uint8 class indices."
        )
    if raster.transform.e >= 0 or raster.transform.b or raster.transform.d:
        raise InputError(f"{path} is not north-up.", "Warp it with gdalwarp, or make it with `gravmap rasterize`.")
    west, south, east, north = raster.bounds
    cell = raster.transform.a
    if west < -180 - cell or east > 360 + cell or south < -90 - cell or north > 90 + cell:
        raise InputError(
            f"{path} covers {west:g} to {east:g} degrees of longitude and {south:g} to {north:g} of latitude.",
            "Longitudes are counted from -180 or from 0: make it with `gravmap rasterize`, or shift it with gdal_edit.",
        )
    if raster.nodata is not None and raster.nodata != UNUSABLE:
        raise InputError(f"{path} has nodata {raster.nodata:g}.", "Nodata is 255 in a label raster; 0 is the cover.")


def _legend_of(path: Path, raster: Any) -> Legend:
    beside, recorded = legend_path(path), raster.tags().get(LEGEND_TAG)
    hint = (
        f"Make both again: `gravmap rasterize MAP --legend LEGEND -o {path} --overwrite`. To rename or recolour a "
        "class, edit LEGEND."
    )
    if beside.exists():
        if recorded not in (None, sha256(beside)):
            raise InputError(
                f"{beside} is not the legend that {path.name} was made with: it was edited, or only one of the two was"
                " replaced.",
                hint,
            )
        return load_legend(beside)
    named = raster.tags().get(TABLE_TAG, DEFAULT_CLASSES)
    table = load_legend(named if named in CLASS_TABLES else DEFAULT_CLASSES)
    if (
        recorded is not None or named != table.table
    ):  # the colour map in the raster tells whether its classes were those
        colours = raster.colormap(1)
        if any(colours[value] != colour for value, colour in palette(class_rows(table)).items()):
            raise InputError(
                f"{beside} is missing, and the classes of {path.name} are not those of {table.table}.", hint
            )
    log.warning("%s is missing; the classes of %s are read from the legend %s.", beside, path.name, table.table)
    return table


def _unreadable(path: Path, error: RasterioIOError) -> InputError:
    return InputError(f"{path} is not a valid raster: {error}.", "`gravmap rasterize` makes it again.")


def _part(first: float, last: float, count: int) -> slice:
    """Cells between two positions, at least one, inside the raster."""
    start = min(max(math.floor(first), 0), count - 1)
    return slice(start, max(min(math.ceil(last) + 1, count), start + 1))
