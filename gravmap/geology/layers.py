"""Layers: what becomes a further channel of the fields, from a raster of the user's or from the distance to lines."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError, OptionError
from gravmap.files import sha256
from gravmap.geology.faults import CAP_KM, concatenate_lines, fault_distance_km, no_line, read_near
from gravmap.geology.raster_source import RESAMPLINGS, TRANSFORMS, RasterSource, log_of
from gravmap.gravity.derivatives import DERIVATIVE_HEIGHT_M, DERIVATIVES, field_derivatives
from gravmap.lattice import MASK_SUFFIX
from gravmap.regions import Region
from gravmap.units import format_length

log = logging.getLogger(__name__)

FAULT_DISTANCE = "fault_distance"
# To be raised when the same files give other values than before; stored in the recipe of a layer.
_VERSION = 1

# What `train --input` gives another meaning, and what the file of fields has beside its channels.
_TAKEN = ("scale", "rgb", "multi", "residual", "lat", "lon", "spatial_ref", "bouguer")
_TAKEN_STARTS = ("residual_", "regional_", "band_", "edge_error_", "outcrop", *(f"{name}_" for name in DERIVATIVES))
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")

_USUAL_FILLS = (-32768.0, -32767.0, -9999.0, -99999.0, -999999.0, 99999.0)

_MARGIN_DEG = 5.0
"""Data around the fields that are continued with a layer, as for gravity."""


@dataclass(frozen=True)
class LayerValues:
    """A layer at the nodes of the fields, with what is recorded of it.

    Attributes
    ----------
    values : (ny, nx) float32
        Latitudes ascending; NaN where the layer has no data.
    unit, long_name : str
        Of the channel.
    recipe : dict
        What the values depend on.
    files : list of dict
        ``path``, ``sha256`` and ``crs`` of each file.
    lines : tuple of int
        Of a distance: lines of each file within the upper limit.
    """

    values: NDArray[np.float32]
    unit: str
    long_name: str
    recipe: dict[str, Any]
    files: list[dict[str, Any]]
    lines: tuple[int, ...] = ()


@dataclass(frozen=True)
class RasterLayer:
    """A band of a georeferenced raster as a layer.

    Attributes
    ----------
    name : str
        Name of the channel: letters, digits and underscores.
    path : Path
        GeoTIFF, netCDF or another raster of GDAL, in any coordinate reference system.
    band : str
        Number of a band or name of a variable; "" for the only one.
    units : str
        Unit of the values, such as nT; "" for that of the file.
    resampling : str
        "average" over the cells of the nodes, "bilinear" or "nearest"; "" for the average of a raster that is finer
        than the nodes, and bilinear interpolation of a coarser one.
    transform : str
        "log", "rank" (among the values of the whole raster, 0 to 1) or "none".
    upward_m : float
        Of a potential field: height of an upward continuation, metres; 0 for none.
    derivative : str
        Of a potential field: a key of :data:`gravmap.gravity.derivatives.DERIVATIVES`, or "". It is taken
        `upward_m` above the data (2 km if 0).
    source, licence : str
        Where the data come from, and their terms.

    Raises
    ------
    OptionError
        The name is not valid or taken, or an option is.

    Examples
    --------
    >>> from pathlib import Path
    >>> from gravmap.geology import RasterLayer
    >>> RasterLayer("magnetic_tilt", Path("magnetics.tif"), units="nT", derivative="tilt").paths
    (PosixPath('magnetics.tif'),)
    """

    name: str
    path: Path
    band: str = ""
    units: str = ""
    resampling: str = ""
    transform: str = "none"
    upward_m: float = 0.0
    derivative: str = ""
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        _check_name(self.name)
        for value, known in ((self.resampling, ("", *RESAMPLINGS)), (self.transform, TRANSFORMS)):
            if value not in known:
                raise OptionError(f"{value!r} is not one of {', '.join(filter(None, known))}.")
        if self.derivative and self.derivative not in DERIVATIVES:
            raise OptionError(f"There is no derivative {self.derivative!r}.", f"There are {', '.join(DERIVATIVES)}.")
        if not 0 <= self.upward_m <= 1e6:
            raise OptionError(f"A layer cannot be continued by {self.upward_m:g} m.", "Give 0 to 1000 km.")
        if self.transform != "none" and (self.upward_m or self.derivative):
            raise OptionError("A logarithm or rank is not a potential field: it cannot be continued or derived.")

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return (self.path,)

    def read(self, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> LayerValues:
        """Values at nodes (ascending, degrees), and what is recorded of them.

        Raises
        ------
        InputError
            The file cannot be used, lies outside the nodes, or is constant there.
        """
        with RasterSource(self.path, self.band, self.units) as raster:
            if not raster.stated:
                log.warning("%s states no unit; add --units, or it is 1.", self.path.name)
            how = self.resampling or ("average" if raster.pixels_per_cell(lat, lon) > 1 else "bilinear")
            if how != "nearest" and (codes := raster.codes()):
                log.warning(
                    "%s holds %d different whole numbers. If they are codes of classes, their averages mean nothing: a"
                    " layer is a quantity, such as a field, a content or a distance.",
                    self.path.name,
                    codes,
                )
            if self.upward_m or self.derivative:
                values = _continued(raster, lat, lon, how, self.upward_m, self.derivative)
            else:
                values = raster.at_nodes(lat, lon, how)
            _check_values(values, raster, self.path, _region(lat, lon))
            if self.transform == "log":
                values = log_of(values, self.path)
            elif self.transform == "rank":
                values = raster.ranks(values)
            file = {"path": str(self.path), "sha256": sha256(self.path), "crs": raster.crs}
            unit = raster.unit
        recipe = {
            "version": _VERSION,
            "files_sha256_crs": [[file["sha256"], file["crs"]]],
            "band": self.band,
            "units": unit,
            "resampling": how,
            "transform": self.transform,
            "upward_m": float(self.upward_m),
            "derivative": self.derivative,
        }
        return LayerValues(values, self._unit(unit), self._long_name(), recipe, [file])

    def _unit(self, unit: str) -> str:
        if self.derivative:
            known = DERIVATIVES[self.derivative][1]
            return known.replace("mGal", unit if unit != "1" else "").removeprefix("/") if "mGal" in known else known
        return {"log": f"ln({unit})", "rank": "1", "none": unit}[self.transform]

    def _long_name(self) -> str:
        parts = [self.name.replace("_", " ")]
        if self.derivative:
            parts = [f"{self.derivative.replace('_', ' ')} of {parts[0]}"]
        if self.upward_m:
            parts.append(f"continued upward by {format_length(self.upward_m)}")
        if self.transform != "none":
            parts.append(self.transform)
        return ", ".join(parts)


@dataclass(frozen=True)
class DistanceLayer:
    """The distance to the nearest line of some maps as a layer.

    The value of a node is in km, on the WGS 84 ellipsoid, to lines inside or outside the fields.

    Attributes
    ----------
    paths : tuple of Path
        Maps with one layer of lines each.
    cap_km : float
        Upper limit of the distances.
    name, source, licence : str
        As of :class:`RasterLayer`.

    Examples
    --------
    >>> from pathlib import Path
    >>> from gravmap.geology import DistanceLayer
    >>> DistanceLayer((Path("faults.gpkg"), Path("thrusts.gpkg")), cap_km=50.0).name
    'fault_distance'
    """

    paths: tuple[Path, ...]
    cap_km: float = CAP_KM
    name: str = FAULT_DISTANCE
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        _check_name(self.name)

    def read(self, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> LayerValues:
        """As :meth:`RasterLayer.read`.

        Raises
        ------
        InputError
            A file cannot be used, or no line is within the limit of the nodes.
        OptionError
            The limit is not between 0 and 2000 km.
        """
        region = _region(lat, lon)
        read = read_near(self.paths, region, self.cap_km)
        values = fault_distance_km(concatenate_lines([lines for lines in read if lines.count]), lat, lon, self.cap_km)
        if float(values.min()) >= self.cap_km:
            raise no_line(self.paths, region, self.cap_km)
        # A file geodatabase is a folder, which has no hash.
        files = [
            {"path": str(path), "sha256": sha256(path) if path.is_file() else "", "crs": lines.crs}
            for path, lines in zip(self.paths, read, strict=True)
        ]
        # Not the order and location of the files.
        recipe = {
            "version": _VERSION,
            "cap_km": float(self.cap_km),
            "files_sha256_crs": sorted([file["sha256"], file["crs"]] for file in files),
        }
        long_name = f"distance to the nearest line, at most {self.cap_km:g} km"
        return LayerValues(values, "km", long_name, recipe, files, tuple(lines.count for lines in read))


Layer = RasterLayer | DistanceLayer


def _continued(
    raster: RasterSource,
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
    resampling: str,
    upward_m: float,
    derivative: str,
) -> NDArray[np.float32]:
    """A potential field continued upward, or a derivative of it; data around the nodes are used and cut off again."""
    import xarray as xr

    from gravmap.gravity.continuation import upward_continue

    wide_lat, rows = _extended(lat, 80.0 - max(abs(lat[0]), abs(lat[-1])))
    wide_lon, columns = _extended(lon, (359 - (lon[-1] - lon[0])) / 2)
    values = raster.at_nodes(wide_lat, wide_lon, resampling)
    known = np.isfinite(values)
    if not known[rows, columns].any():
        return values[rows, columns]
    level = float(np.nanmean(values, dtype=np.float64))
    # Rows and columns without data around are left out: there is nothing to continue there.
    used = [
        slice(min(inner.start, int(found[0])), max(inner.stop, int(found[-1]) + 1))
        for inner, found in ((rows, np.flatnonzero(known.any(axis=1))), (columns, np.flatnonzero(known.any(axis=0))))
    ]
    grid = xr.DataArray(
        values[used[0], used[1]] - np.float32(level),
        coords={"lat": wide_lat[used[0]], "lon": wide_lon[used[1]]},
        dims=("lat", "lon"),
    )
    if derivative:
        result = field_derivatives(grid, upward_m or DERIVATIVE_HEIGHT_M)[derivative].values
    else:
        result = upward_continue(grid, upward_m).values + np.float32(level)
    inside = tuple(
        slice(inner.start - part.start, inner.stop - part.start)
        for inner, part in zip((rows, columns), used, strict=True)
    )
    return np.asarray(result[inside], np.float32)


def _extended(axis: NDArray[np.float64], most_deg: float) -> tuple[NDArray[np.float64], slice]:
    """An axis with nodes up to the margin on both sides, and where the given ones are in it."""
    step = float(axis[-1] - axis[0]) / (len(axis) - 1)
    more = max(0, int(min(_MARGIN_DEG, most_deg) / step))
    wide = axis[0] + step * np.arange(-more, len(axis) + more)
    return wide, slice(more, more + len(axis))


def _check_values(values: NDArray[np.float32], raster: RasterSource, path: Path, region: Region) -> None:
    known = values[np.isfinite(values)]
    if not known.size:
        raise InputError(
            f"{path} has no data at the nodes of the fields, which cover {region}; it covers {raster.extent}.",
            "Give a raster of the region.",
        )
    for fill in _USUAL_FILLS:
        if count := np.count_nonzero(known == np.float32(fill)):
            raise InputError(
                f"{path} is {fill:g} at {count} nodes: a usual fill value, which the file does not declare.",
                f"Declare it: gdal_edit.py -a_nodata {fill:g} {path}",
            )
    if float(known.max()) == float(known.min()):
        raise InputError(
            f"{path} is {known[0]:g} at every node of the fields: a constant is no information.",
            "Choose another band or file.",
        )


def _region(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> Region:
    return Region(float(lon[0]), float(lat[0]), float(lon[-1]), float(lat[-1]))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise OptionError(
            f"{name!r} is not a valid name of a layer.",
            "Use a letter, then letters, digits and underscores; 40 at most.",
        )
    if name in _TAKEN or name.startswith(_TAKEN_STARTS) or name.endswith(MASK_SUFFIX):
        raise OptionError(f"{name} has a meaning of its own, and cannot be the name of a layer.", "Choose another.")
