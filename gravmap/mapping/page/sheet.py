"""The layers of a finished map, read from its files at reduced resolution."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioIOError
from rasterio.vrt import WarpedVRT

from gravmap.errors import InputError
from gravmap.mapping.layers import NODATA, NULL_MODEL, OUTCROP, UNDER_COVER, UNMAPPED, UNMAPPED_TAG, evidence_names

WGS84 = "EPSG:4326"
_DEFAULT_NEAR_KM = 25.0

Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class Sheet:
    """The layers of a map at reduced resolution.

    Attributes
    ----------
    bounds_wsen : tuple of float
        Outer edges, degrees.
    lithology : (ny, nx) uint8
        Class index, north up; 255 no data.
    classes : list of dict
        ``index``, ``name``, ``colour`` of each class of the file.
    evidence : (ny, nx) uint8, optional
        Values of :mod:`gravmap.mapping.layers`; None if the map has no evidence.tif.
    evidence_names : dict of int to str
        Names of the values, from the file.
    measures : dict of str to (ny, nx) float32
        Bands of uncertainty.tif that are quantities, by name; NaN for no data. Empty without the file.
    thickness_m : dict of str to (ny, nx) float32
        Bands of cover_thickness.tif, by name, metres; NaN for no data. Empty without the file.
    diffusion : (ny, nx) uint8, optional
        Classes of null_model.tif, a map made without gravity; 255 no data. None without the file.
    others : dict of str to dict of str to (ny, nx) float32
        Bands of the rasters named in `others` of :func:`read_sheet`, by the name of the file without ``.tif`` and by
        their own; NaN for no data.
    cells : (int, int)
        Rows and columns of the files.
    crs : str
        Coordinate system of the files.
    tags : dict of str to str
        Tags of lithology.tif.
    """

    bounds_wsen: Bounds
    lithology: NDArray[np.uint8]
    classes: list[dict[str, Any]]
    evidence: NDArray[np.uint8] | None = None
    evidence_names: dict[int, str] = field(default_factory=dict)
    measures: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    thickness_m: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    diffusion: NDArray[np.uint8] | None = None
    others: dict[str, dict[str, NDArray[np.float32]]] = field(default_factory=dict)
    cells: tuple[int, int] = (0, 0)
    crs: str = WGS84
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def as_mapped(self) -> bool:
        """Whether outcrop has its mapped class, not the predicted one."""
        return self.evidence is not None and not self.everywhere

    @property
    def everywhere(self) -> bool:
        """Whether the class is predicted on outcrop too."""
        return "everywhere" in self.tags.get("GRAVMAP_CONTENT", "")

    @property
    def outcrop(self) -> NDArray[np.bool_] | None:
        """Cells of mapped outcrop; None if the map has no evidence."""
        return None if self.evidence is None else np.asarray(self.evidence == OUTCROP)

    @property
    def unmapped(self) -> NDArray[np.bool_] | None:
        """Cells that no geological map covers, blank or predicted; None if there are none."""
        found = None if self.evidence is None else np.asarray(self.evidence == UNMAPPED)
        return found if found is not None and found.any() else None

    @property
    def fills_unmapped(self) -> bool:
        """Whether unmapped ground has a predicted class; otherwise it is blank."""
        return self.tags.get(UNMAPPED_TAG) == "predicted"

    @property
    def differs_from_diffusion(self) -> NDArray[np.bool_]:
        """Cells that are not outcrop and whose class is another than without gravity; for maps with `diffusion`."""
        differs = (self.lithology != self.diffusion) & (self.lithology != NODATA)
        return np.asarray(differs if self.outcrop is None else differs & ~self.outcrop)

    @property
    def predicted(self) -> NDArray[np.bool_] | None:
        """Cells under cover with a predicted class, if outcrop has its mapped class; otherwise None."""
        if self.evidence is None or not self.as_mapped:
            return None
        return np.asarray((self.evidence != OUTCROP) & (self.evidence != UNMAPPED) & (self.lithology != NODATA))


def read_sheet(folder: Path, longest_px: int = 1400, others: Sequence[str] = ()) -> Sheet:
    """Read the layers of a map in degrees at reduced resolution.

    Classes are reduced by mode, quantities by mean; a projected file is warped to degrees.

    Parameters
    ----------
    folder : Path
        Folder with ``lithology.tif`` and, if available, ``evidence.tif``, ``uncertainty.tif``, ``null_model.tif``
        and ``cover_thickness.tif``.
    longest_px : int
        Largest number of cells along the longer side, which bounds memory and the size of figures.
    others : sequence of str
        Further rasters to read, without ``.tif``; one that is missing is left out.

    Raises
    ------
    InputError
        ``lithology.tif`` is missing, or a layer cannot be read.
    """
    path = folder / "lithology.tif"
    if not path.exists():
        raise InputError(f"{path} is missing.", "Make it with `gravmap predict`.")
    lithology, bounds = _read(path, longest_px)
    shape = lithology.shape[1:]
    with rasterio.open(path) as raster:
        cells, crs, tags, palette = raster.shape, raster.crs, raster.tags(), raster.colormap(1)
    names = category_names(path)
    classes = [
        {"index": value, "name": names[value], "colour": "#{:02X}{:02X}{:02X}".format(*palette[value][:3])}
        for value in sorted(palette)
        if names.get(value) and value != NODATA
    ]
    evidence, words = _evidence(folder / "evidence.tif", longest_px, shape)
    measures = _measures(folder / "uncertainty.tif", longest_px, shape)
    thickness = _measures(folder / "cover_thickness.tif", longest_px, shape)
    if evidence is not None:
        # The mean passes over no data, so that reduced cells that are mostly outcrop or unmapped have one.
        for values in thickness.values():
            values[~np.isin(evidence, UNDER_COVER)] = np.nan
    diffusion, path = None, folder / f"{NULL_MODEL}.tif"
    if path.exists():
        diffusion = _fitting(_read(path, longest_px)[0], shape, path)[0]
    more = {name: bands for name in others if (bands := _measures(folder / f"{name}.tif", longest_px, shape))}
    known = lithology[0] != NODATA
    if evidence is not None and tags.get(UNMAPPED_TAG) != "predicted":
        # Reduced cells that are mostly unmapped are blank: mode and mean pass over no data.
        blank = evidence == UNMAPPED
        lithology[0][blank] = NODATA
        for values in measures.values():
            values[blank] = np.nan
        known |= blank
    kept = (slice(None), slice(None))
    if crs.to_epsg() != 4326:
        # A projected rectangle is not one in degrees: it is surrounded by a margin without data.
        kept, bounds = _with_data(known, bounds)
    return Sheet(
        bounds,
        lithology[0][kept],
        classes,
        None if evidence is None else evidence[kept],
        words,
        {name: values[kept] for name, values in measures.items()},
        {name: values[kept] for name, values in thickness.items()},
        None if diffusion is None else diffusion[kept],
        {name: {band: values[kept] for band, values in bands.items()} for name, bands in more.items()},
        (int(cells[0]), int(cells[1])),
        crs.to_string(),
        tags,
    )


def category_names(path: Path) -> dict[int, str]:
    """Names of the values of a raster, from its GDAL sidecar, which rasterio does not expose."""
    sidecar = path.with_name(path.name + ".aux.xml")
    if not sidecar.exists():
        return {}
    found = ElementTree.parse(sidecar).getroot().iterfind("PAMRasterBand[@band='1']/CategoryNames/Category")
    return {value: element.text for value, element in enumerate(found) if element.text}


def _with_data(known: NDArray[np.bool_], bounds_wsen: Bounds) -> tuple[tuple[slice, slice], Bounds]:
    """The smallest rectangle that contains every cell with data, and its outer edges."""
    if not known.any():
        return (slice(None), slice(None)), bounds_wsen
    (top, *_, bottom), (left, *_, right) = (np.flatnonzero(known.any(axis=axis)).repeat(2) for axis in (1, 0))
    west, south, east, north = bounds_wsen
    tall, wide = (north - south) / known.shape[0], (east - west) / known.shape[1]
    edges = (west + left * wide, north - (bottom + 1) * tall, west + (right + 1) * wide, north - top * tall)
    return (slice(top, bottom + 1), slice(left, right + 1)), edges


def _evidence(path: Path, longest_px: int, shape: tuple[int, ...]) -> tuple[NDArray[np.uint8] | None, dict[int, str]]:
    if not path.exists():
        return None, {}
    values = _fitting(_read(path, longest_px)[0], shape, path)
    return values[0], category_names(path) or evidence_names(_DEFAULT_NEAR_KM)


def _measures(path: Path, longest_px: int, shape: tuple[int, ...]) -> dict[str, NDArray[np.float32]]:
    if not path.exists():
        return {}
    stored = _fitting(_read(path, longest_px)[0], shape, path)
    with rasterio.open(path) as raster:
        names, scales, offsets, nodata = raster.descriptions, raster.scales, raster.offsets, raster.nodata
    return {
        str(name): np.where(band == nodata, np.nan, band.astype(np.float32) * scale + offset).astype(np.float32)
        for name, band, scale, offset in zip(names, stored, scales, offsets, strict=True)
    }


def _fitting(values: NDArray[Any], shape: tuple[int, ...], path: Path) -> NDArray[Any]:
    if values.shape[1:] != shape:
        raise InputError(
            f"{path} does not have the cells of lithology.tif in the same folder.",
            "Make both again with `gravmap predict --overwrite`.",
        )
    return values


def _read(path: Path, longest_px: int) -> tuple[NDArray[Any], Bounds]:
    """All bands (K, ny, nx), north up, and their outer edges in degrees."""
    try:
        with rasterio.open(path) as raster:
            if raster.crs is not None and raster.crs.to_epsg() != 4326:
                with WarpedVRT(raster, crs=WGS84, resampling=Resampling.nearest, nodata=raster.nodata) as warped:
                    return _reduced(warped, longest_px, Resampling.nearest)
            classes = raster.colorinterp[0] == ColorInterp.palette
            return _reduced(raster, longest_px, Resampling.mode if classes else Resampling.average)
    except RasterioIOError as error:
        raise InputError(
            f"{path} is not a readable raster: {error}.", "Make it again with `gravmap predict --overwrite`."
        ) from None


def _reduced(raster: Any, longest_px: int, resampling: Resampling) -> tuple[NDArray[Any], Bounds]:
    rows, columns = raster.shape
    factor = max(1.0, max(rows, columns) / longest_px)
    shape = (max(1, round(rows / factor)), max(1, round(columns / factor)))
    values: NDArray[Any] = raster.read(out_shape=(raster.count, *shape), resampling=resampling)
    return values, tuple(raster.bounds)
