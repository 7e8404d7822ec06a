"""Reads a band of any georeferenced raster onto the nodes of the fields: averaged over their cells, in blocks."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError, OptionError

log = logging.getLogger(__name__)

RESAMPLINGS = ("average", "bilinear", "nearest")
TRANSFORMS = ("none", "log", "rank")

_AGAIN = "It may be truncated: download or copy it again."
_BLOCK_MB = 64
"""Memory of the warper: a larger part of a raster is averaged piece by piece."""

_SAMPLE_SIDE = 1000
"""Ranks are those among this many rows and columns of the whole raster, so that they do not depend on the region."""

_MOST_CODES = 40
"""An integer raster with at most so many values may hold codes."""

_LARGEST = 1e30
"""Larger numbers are a fill value that the file does not declare."""

_UNITS = {
    "nt": "nT",
    "nanotesla": "nT",
    "gamma": "nT",
    "gammas": "nT",
    "pt": "pT",
    "t": "T",
    "tesla": "T",
    "metre": "m",
    "meter": "m",
    "metres": "m",
    "meters": "m",
    "kilometre": "km",
    "kilometer": "km",
    "percent": "%",
    "mgals": "mGal",
    "mgal": "mGal",
    "dimensionless": "1",
    "unitless": "1",
    "none": "1",
}
_AXES = {"lon", "longitude", "lat", "latitude", "x", "y"}


class RasterSource:
    """An open band of a raster; a context manager.

    Parameters
    ----------
    path : Path
        GeoTIFF, netCDF or another format of GDAL.
    band : str
        Number of a band or name of a variable; "" for the only one.
    units : str
        Unit of the values as the user states it; "" for that of the file.

    Attributes
    ----------
    crs : str
        Coordinate reference system of the file.
    unit : str
        Unit of the values; "1" where neither the file nor the user states one.
    stated : bool
        Whether one of them does.

    Raises
    ------
    InputError
        The file is missing, unreadable or not georeferenced, has several bands or none of that name, holds categories
        or complex numbers, or states another unit.
    """

    def __init__(self, path: Path, band: str = "", units: str = "") -> None:
        self.path = path
        with _quiet():
            self._raster, self._band = _open(path, band)
        try:
            self.crs = self._check_georeferencing()
            self._refuse_categories()
            self.unit, self.stated = self._unit(units)
        except BaseException:
            self._raster.close()
            raise

    def __enter__(self) -> RasterSource:
        return self

    def __exit__(self, *_: object) -> None:
        self._raster.close()

    def pixels_per_cell(self, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> float:
        """Side of a node's cell at the middle of a grid over that of a pixel: above 1 where the raster is finer."""
        from rasterio.warp import transform

        row, column = len(lat) // 2, len(lon) // 2
        step_y, step_x = float(lat[1] - lat[0]), float(lon[1] - lon[0])
        lon0, lat0 = float(lon[column]), float(lat[row])
        xs, ys = transform("EPSG:4326", self.crs, [lon0, lon0 + step_x, lon0], [lat0, lat0, lat0 + step_y])
        if not np.isfinite([*xs, *ys]).all():
            return 1.0
        inverse = ~self._raster.transform
        (u0, v0), *others = [inverse * (x, y) for x, y in zip(xs, ys, strict=True)]
        return max(math.hypot(u - u0, v - v0) for u, v in others)

    def at_nodes(self, lat: NDArray[np.float64], lon: NDArray[np.float64], resampling: str) -> NDArray[np.float32]:
        """Values at the nodes of a grid.

        Parameters
        ----------
        lat, lon : (ny,), (nx,) float64
            Degrees, evenly spaced, ascending.
        resampling : str
            "average": the mean of the pixels with data in the cell of a node; "bilinear" or "nearest" between pixels.

        Returns
        -------
        (ny, nx) float32
            NaN where the raster has no data.
        """
        found = np.full((len(lat), len(lon)), np.nan, np.float32)
        for turn in self._turns(float(lon[0]), float(lon[-1])):
            missing = np.isnan(found)
            if missing.any():
                found[missing] = self._warp(lat, lon + turn, resampling)[missing]
        with np.errstate(invalid="ignore"):
            strange = ~np.isnan(found) & ~(np.abs(found) < _LARGEST)
        if strange.any():
            log.warning(
                "%s: %d nodes with values beyond %g, a fill value that is not declared, are taken as missing.",
                self.path.name,
                np.count_nonzero(strange),
                _LARGEST,
            )
            found[strange] = np.nan
        scale, offset = self._raster.scales[self._band - 1], self._raster.offsets[self._band - 1]
        return found if (scale, offset) == (1.0, 0.0) else np.asarray(found * scale + offset, np.float32)

    def ranks(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fraction of the whole raster that is below each value, 0 to 1; NaN stays."""
        sample = np.ma.filled(self._sample().astype(np.float64), np.nan)
        scale, offset = self._raster.scales[self._band - 1], self._raster.offsets[self._band - 1]
        known = np.sort(sample[np.abs(sample) < _LARGEST] * scale + offset)  # NaN is not
        below, upto = (np.searchsorted(known, values, side) for side in ("left", "right"))
        rank = (below + upto) / (2 * max(known.size, 1))
        return np.where(np.isnan(values), np.nan, rank).astype(np.float32)

    def codes(self) -> int:
        """Number of different values of an integer raster that has few, as one of codes has; else 0.

        Two are a yes or no, of which an average is a share.
        """
        if not np.issubdtype(np.dtype(self._raster.dtypes[self._band - 1]), np.integer):
            return 0
        found = np.unique(self._sample().compressed()).size
        return found if 2 < found <= _MOST_CODES else 0

    def _sample(self) -> np.ma.MaskedArray[Any, Any]:
        """The band, thinned to at most `_SAMPLE_SIDE` rows and columns."""
        from rasterio.errors import RasterioIOError

        shape = min(self._raster.height, _SAMPLE_SIDE), min(self._raster.width, _SAMPLE_SIDE)
        try:
            band: np.ma.MaskedArray[Any, Any] = self._raster.read(self._band, out_shape=shape, masked=True)
        except RasterioIOError as error:
            raise InputError(f"{self.path} cannot be read to its end: {error}.", _AGAIN) from None
        return band

    @property
    def extent(self) -> str:
        """What the raster covers, for messages."""
        from rasterio.errors import CRSError
        from rasterio.warp import transform_bounds

        try:
            west, south, east, north = transform_bounds(self.crs, "EPSG:4326", *self._raster.bounds)
        except CRSError:
            return f"{self._raster.bounds} in {self.crs}"
        return f"{west:.2f} to {east:.2f} E, {south:.2f} to {north:.2f} N"

    def _turns(self, west: float, east: float) -> list[float]:
        """By how many degrees longitudes have to be turned to meet those of the raster: 0, 360, -360 or several."""
        if not self._geographic:
            return [0.0]
        left, right = self._raster.bounds.left, self._raster.bounds.right
        return [turn for turn in (0.0, 360.0, -360.0) if west + turn < right and east + turn > left]

    @property
    def _geographic(self) -> bool:
        from rasterio.crs import CRS

        return bool(CRS.from_user_input(self.crs).is_geographic)

    def _warp(self, lat: NDArray[np.float64], lon: NDArray[np.float64], resampling: str) -> NDArray[np.float32]:
        import rasterio
        from rasterio.enums import ColorInterp, Resampling
        from rasterio.errors import CRSError, RasterioError
        from rasterio.transform import from_origin
        from rasterio.warp import reproject

        step_y, step_x = (float(axis[-1] - axis[0]) / (len(axis) - 1) for axis in (lat, lon))
        target = np.full((len(lat), len(lon)), np.nan, np.float32)
        nodata = self._raster.nodatavals[self._band - 1]
        alpha = [
            index
            for index, meaning in zip(self._raster.indexes, self._raster.colorinterp, strict=True)
            if meaning == ColorInterp.alpha and index != self._band
        ]
        if nodata is None and not alpha and np.dtype(self._raster.dtypes[self._band - 1]).kind == "f":
            nodata = math.nan
        try:
            with _quiet(), rasterio.Env(GDAL_CACHEMAX=_BLOCK_MB):
                reproject(
                    rasterio.band(self._raster, self._band),
                    target,
                    src_crs=self.crs,
                    dst_crs="EPSG:4326",
                    dst_transform=from_origin(lon[0] - step_x / 2, lat[-1] + step_y / 2, step_x, step_y),
                    src_nodata=nodata,
                    dst_nodata=math.nan,
                    src_alpha=alpha[0] if alpha else 0,
                    resampling=Resampling[resampling],
                    warp_mem_limit=_BLOCK_MB,
                )
        except CRSError as error:
            raise InputError(f"{self.path}: its coordinate system cannot be transformed: {error}.", _CRS_HINT) from None
        except RasterioError as error:
            if "reprojection failed" in str(error).lower() or "transform" in str(error).lower():
                return target  # no point of the grid has coordinates in the raster's system
            raise InputError(f"{self.path} cannot be read to its end: {error}.", _AGAIN) from None
        return target[::-1]

    def _check_georeferencing(self) -> str:
        raster = self._raster
        if raster.crs is None:
            bounds = raster.bounds
            in_degrees = (
                max(map(abs, (bounds.bottom, bounds.top))) <= 91 and bounds.left >= -361 and bounds.right <= 721
            )
            if raster.driver == "netCDF" and in_degrees and not raster.transform.is_identity:
                log.warning("%s has no coordinate system; its axes are taken as degrees on WGS 84.", self.path.name)
                return "EPSG:4326"
            raise InputError(f"{self.path} has no coordinate reference system.", _CRS_HINT)
        if raster.transform.is_identity:
            raise InputError(
                f"{self.path} is not georeferenced: it has a coordinate system, but no position.",
                "Give it one: gdal_edit.py -a_ullr WEST NORTH EAST SOUTH FILE, or gdalwarp for control points.",
            )
        epsg = raster.crs.to_epsg()
        return f"EPSG:{epsg}" if epsg else str(raster.crs.to_wkt())

    def _refuse_categories(self) -> None:
        from rasterio.enums import ColorInterp

        raster, band = self._raster, self._band
        dtype = raster.dtypes[band - 1]
        if np.dtype(dtype).kind not in "fiu":
            raise InputError(f"{self.path} holds {dtype} numbers.", "A layer is a grid of real numbers.")
        beside = self.path.with_name(f"{self.path.name}.aux.xml")
        named = beside.is_file() and any(
            word in beside.read_text(errors="replace") for word in ("<CategoryNames>", "<GDALRasterAttributeTable")
        )
        if raster.colorinterp[band - 1] == ColorInterp.palette or named:
            raise InputError(
                f"{self.path} holds categories, a number for each name: their order means nothing to a network.",
                "Use a measured quantity; or one raster per category, 1 where it is and 0 elsewhere.",
            )

    def _unit(self, units: str) -> tuple[str, bool]:
        tags = {**self._raster.tags(), **self._raster.tags(self._band)}
        found = self._raster.units[self._band - 1] or tags.get("units") or tags.get("UNITTYPE") or ""
        stated, given = _normal_unit(found), _normal_unit(units)
        if stated and given and stated != given:
            raise InputError(
                f"{self.path} is in {stated} by its own metadata, not in {given}.",
                "Leave --units out; or correct the file where it is wrong: gdal_edit.py -units UNIT FILE.",
            )
        return given or stated or "1", bool(given or stated)


_CRS_HINT = "Give it one: gdal_edit.py -a_srs EPSG:NUMBER FILE"


def log_of(values: NDArray[np.float32], path: Path) -> NDArray[np.float32]:
    """Natural logarithm.

    Raises
    ------
    InputError
        A value is not positive.
    """
    with np.errstate(invalid="ignore"):
        wrong = np.count_nonzero(values <= 0)
    if wrong:
        raise InputError(
            f"{path} has {wrong} nodes of 0 or less (the least is {np.nanmin(values):g}), which have no logarithm.",
            "Use --transform rank, or none.",
        )
    return np.log(values)


def _normal_unit(unit: str) -> str:
    return _UNITS.get(unit.strip().lower(), unit.strip())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without rasterio's warning of a raster without position: it is an error here, with what to do."""
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _open(path: Path, band: str) -> tuple[Any, int]:
    """The open raster and the number of its band."""
    import rasterio
    from rasterio.errors import RasterioIOError

    if not path.exists():
        raise InputError(f"The layer {path} is missing.", "Check the path.")
    try:
        raster = rasterio.open(path)
        # A netCDF of several variables: each is a raster of its own.
        parts = {name.rpartition(":")[2].strip('"'): name for name in raster.subdatasets}
        parts = {name: whole for name, whole in parts.items() if name.lower() not in _AXES}
        if not raster.count or (parts and band and not band.isdigit()):
            raster.close()
            if not band and len(parts) == 1:
                band = next(iter(parts))
            if band not in parts:
                raise InputError(
                    f"{path} has several grids: {', '.join(parts)}." if parts else f"{path} has no grid of numbers.",
                    "Choose one with --band NAME." if parts else "A layer is a raster of numbers.",
                )
            raster, band = rasterio.open(parts[band]), ""
    except RasterioIOError as error:
        raise InputError(
            f"{path} cannot be read as a raster: {' '.join(str(error).split()).rstrip('.')}.",
            "A layer is a GeoTIFF, a netCDF or another raster of GDAL; fault lines are added with --distance.",
        ) from None
    names = [text or "" for text in raster.descriptions]
    if raster.driver == "netCDF":
        names = [str(raster.tags(index).get("NETCDF_VARNAME", "")) for index in raster.indexes]
    try:
        return raster, _band_number(path, band, raster.count, names)
    except BaseException:
        raster.close()
        raise


def _band_number(path: Path, band: str, count: int, names: list[str]) -> int:
    if not band:
        if count > 1:
            raise InputError(
                f"{path} has {count} bands: {', '.join(filter(None, names)) or '1, 2 ...'}.", "Add --band."
            )
        return 1
    if band.isdigit() and 1 <= int(band) <= count:
        return int(band)
    if names.count(band) == 1:
        return names.index(band) + 1
    known = ", ".join(filter(None, names))
    raise OptionError(f"{path} has no band {band!r}.", f"It has 1 to {count}{f': {known}' if known else ''}.")
