"""The map as polygons: what is mapped and what is predicted, class by class, with what each polygon rests on."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.features import rasterize, shapes, sieve
from rasterio.windows import Window
from shapely.geometry import shape

from gravmap.files import atomic_path
from gravmap.geology.class_table import class_rows
from gravmap.geology.legend import Legend
from gravmap.mapping.files.projection import cell_areas_km2
from gravmap.mapping.files.styles import polygon_qml, polygon_sld
from gravmap.mapping.layers import EXTRAPOLATED, NODATA, OUTCROP

SLIVER_CELLS = 4
"""A predicted patch of fewer cells goes to its largest predicted neighbour: no gravity grid shows as little."""

LAYER = "lithology"
_MAPPED = 256  # added to the class where it is the mapped one, so that the two never share a polygon
_STRIP_ROWS = 512


@dataclass(frozen=True)
class _Shares:
    """Sums over the cells of every polygon; row 0 is for cells without one."""

    area_km2: NDArray[np.float64]
    known_km2: NDArray[np.float64]
    probability_km2: NDArray[np.float64]
    evidence_km2: NDArray[np.float64]


def write_polygons(folder: Path, legend: Legend, evidence_words: Mapping[int, str]) -> Path:
    """Write ``lithology.gpkg`` from the rasters of a map.

    One layer, ``lithology``, in the rasters' coordinate system and with its style inside. Polygons follow the cells'
    edges and never join mapped and predicted ground. Their columns: ``class`` (index), ``name``, ``age``, ``colour``,
    ``mapped``, ``area_km2`` (of the cells, on the ellipsoid), ``mean_probability`` (of this class; on outcrop the
    network's opinion of what is mapped), ``evidence`` (the most frequent, by area) and ``share_extrapolated`` (of the
    area).

    Predicted slivers of fewer than `SLIVER_CELLS` cells go to their largest predicted neighbour, so areas add up to the
    raster's in all but may shift a little between classes. The class raster is held in memory, some ten bytes a cell.

    Parameters
    ----------
    folder : Path
        Holds ``lithology.tif``, ``probability.tif`` and ``evidence.tif`` with the same cells.
    legend : Legend
        Classes 1..K.
    evidence_words : mapping of int to str
        Values of the evidence in words.

    Returns
    -------
    Path
        The file.
    """
    keys, transform, crs = _keys(folder)
    _dissolve_slivers(keys)
    found = list(shapes(keys, mask=keys > 0, connectivity=4, transform=transform))
    # Predicted ones first: what is drawn later, with its outline, lies on top.
    found.sort(key=lambda entry: entry[1])
    polygons = np.array([shape(outline) for outline, _ in found], dtype=object)
    key = np.array([int(value) for _, value in found], dtype=np.int64)
    del keys, found
    classes = key % _MAPPED
    shares = _shares(folder, polygons, classes)
    table = {entry.index: entry for entry in legend.bedrock}
    area = shares.area_km2[1:]
    with np.errstate(invalid="ignore"):
        probability = shares.probability_km2[1:] / shares.known_km2[1:]
        extrapolated = shares.evidence_km2[1:, EXTRAPOLATED] / area
    frame = geopandas.GeoDataFrame(
        {
            "class": classes.astype(np.int32),
            "name": [table[value].name for value in classes],
            "age": [table[value].age for value in classes],
            "colour": [table[value].colour for value in classes],
            "mapped": key >= _MAPPED,
            "area_km2": np.round(area, 6),
            "mean_probability": np.round(probability, 4),
            "evidence": [evidence_words.get(int(value)) for value in shares.evidence_km2[1:].argmax(axis=1)],
            "share_extrapolated": np.round(extrapolated, 4),
        },
        geometry=polygons,
        crs=crs,
    )
    path = folder / "lithology.gpkg"
    with atomic_path(path) as partial:
        # 1.2 is the newest version that GDAL before 3.7, as in QGIS 3.22, reads without a warning.
        frame.to_file(partial, layer=LAYER, driver="GPKG", engine="pyogrio", geometry_type="Polygon", VERSION="1.2")
        _add_style(partial, legend)
    return path


def _keys(folder: Path) -> tuple[NDArray[np.uint16], Any, str]:
    """Class of every cell, plus 256 where it is the mapped one; 0 where there is no data."""
    with rasterio.open(folder / "lithology.tif") as lithology, rasterio.open(folder / "evidence.tif") as evidence:
        keys = lithology.read(1).astype(np.uint16)
        keys[keys == NODATA] = 0
        keys[(evidence.read(1) == OUTCROP) & (keys > 0)] += _MAPPED
        return keys, lithology.transform, lithology.crs.to_wkt()


def _dissolve_slivers(keys: NDArray[np.uint16]) -> None:
    """Give predicted slivers to their largest predicted neighbour, in place."""
    if keys.size < SLIVER_CELLS:
        return
    predicted = (keys > 0) & (keys < _MAPPED)
    while True:
        # A sliver among slivers finds its neighbour in the next round.
        merged = sieve(keys, SLIVER_CELLS, mask=predicted, connectivity=4)
        changed = predicted & (merged != keys)
        if not changed.any():
            return
        keys[changed] = merged[changed]


def _shares(folder: Path, polygons: NDArray[Any], classes: NDArray[np.int64]) -> _Shares:
    """Go through the rasters strip by strip and sum over each polygon."""
    count = len(polygons) + 1
    area, known, probable = np.zeros(count), np.zeros(count), np.zeros(count)
    evidence_km2 = np.zeros((count, EXTRAPOLATED + 1))
    column = np.concatenate([[1], classes]) - 1  # of the polygon's class among the bands; the first is never used
    bounds = geopandas.GeoSeries(polygons).bounds
    with rasterio.open(folder / "probability.tif") as probability, rasterio.open(folder / "evidence.tif") as evidence:
        steps = np.asarray(probability.scales)
        for row in range(0, evidence.height, _STRIP_ROWS):
            strip = Window(0, row, evidence.width, min(_STRIP_ROWS, evidence.height - row))
            north = evidence.transform.f + row * evidence.transform.e
            south = north + strip.height * evidence.transform.e
            here = np.flatnonzero((bounds["maxy"] > south) & (bounds["miny"] < north))
            if not here.size:
                continue
            owner = rasterize(
                ((polygons[place], place + 1) for place in here),
                out_shape=(strip.height, strip.width),
                transform=evidence.window_transform(strip),
                dtype="int32",
            )
            km2 = np.broadcast_to(cell_areas_km2(evidence.crs, evidence.transform, strip), owner.shape)
            area += np.bincount(owner.ravel(), weights=km2.ravel(), minlength=count)
            band = column[owner]
            values = np.take_along_axis(probability.read(window=strip), band[None], axis=0)[0]
            there = values != NODATA
            known += np.bincount(owner[there], weights=km2[there], minlength=count)
            probable += np.bincount(
                owner[there], weights=km2[there] * values[there] * steps[band[there]], minlength=count
            )
            said = evidence.read(1, window=strip)
            for value in range(1, EXTRAPOLATED + 1):
                chosen = said == value
                evidence_km2[:, value] += np.bincount(owner[chosen], weights=km2[chosen], minlength=count)
    return _Shares(area, known, probable, evidence_km2)


def _add_style(path: Path, legend: Legend) -> None:
    """Put the style into the table where QGIS looks for it first."""
    rows = class_rows(legend)
    database = sqlite3.connect(path)
    try:
        with database:
            database.execute(
                "CREATE TABLE layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT, "
                "f_table_schema TEXT, f_table_name TEXT, f_geometry_column TEXT, styleName TEXT, styleQML TEXT, "
                "styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT, ui TEXT, "
                "update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))"
            )
            database.execute(
                "INSERT INTO gpkg_contents (table_name, data_type, identifier) "
                "VALUES ('layer_styles', 'attributes', 'layer_styles')"
            )
            database.execute(
                "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, "
                "styleName, styleQML, styleSLD, useAsDefault, description, owner) "
                "VALUES ('', '', ?, 'geom', 'lithology', ?, ?, 1, 'Bedrock classes', 'gravmap')",
                (LAYER, polygon_qml(rows), polygon_sld(LAYER, rows)),
            )
    finally:
        database.close()
