"""Write a map as polygons of one class, either mapped or predicted, with area, mean probability and evidence."""

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
from gravmap.mapping.layers import EXTRAPOLATED, NODATA, OUTCROP, UNMAPPED

SLIVER_CELLS = 4
"""Predicted patches of fewer cells are merged with their largest predicted neighbour: below the resolution of
gravity."""

LAYER = "lithology"
# Added to the class of outcrop and of unmapped ground, which never share a polygon with each other or with cover.
_MAPPED, _UNMAPPED = 256, 512
_STRIP_ROWS = 512


@dataclass(frozen=True)
class _PolygonSums:
    """Sums over the cells of each polygon; row 0 is for cells without a polygon."""

    area_km2: NDArray[np.float64]
    known_km2: NDArray[np.float64]
    probability_km2: NDArray[np.float64]
    evidence_km2: NDArray[np.float64]


def write_polygons(folder: Path, legend: Legend, evidence_names: Mapping[int, str]) -> Path:
    """Write ``lithology.gpkg`` from the rasters of a map.

    The layer ``lithology`` is in the coordinate system of the rasters and contains its style. Polygons follow the edges
    of the cells and never join outcrop, covered and unmapped ground; there are none where the map is blank. Columns:
    ``class`` (index), ``name``, ``age``, ``colour``, ``mapped``, ``area_km2`` (on the ellipsoid), ``mean_probability``
    (of this class; on outcrop the predicted probability of the mapped class), ``evidence`` (the most frequent, by area)
    and ``share_extrapolated`` (fraction of the area).

    Predicted slivers of fewer than `SLIVER_CELLS` cells are merged with their largest predicted neighbour, so that the
    total area is that of the raster, but areas of classes differ slightly. The class raster is held in memory, about
    ten bytes per cell.

    Parameters
    ----------
    folder : Path
        Folder of ``lithology.tif``, ``probability.tif`` and ``evidence.tif``, on the same grid.
    legend : Legend
        Classes 1..K.
    evidence_names : mapping of int to str
        Description of each value of the evidence layer.

    Returns
    -------
    Path
        The file.
    """
    keys, transform, crs = _keys(folder)
    _dissolve_slivers(keys)
    outlines = list(shapes(keys, mask=keys > 0, connectivity=4, transform=transform))
    # Predicted polygons first: mapped ones, which have an outline, are drawn on top.
    outlines.sort(key=lambda entry: entry[1])
    polygons = np.array([shape(outline) for outline, _ in outlines], dtype=object)
    key = np.array([int(value) for _, value in outlines], dtype=np.int64)
    del keys, outlines
    classes = key % _MAPPED
    mapped = (key >= _MAPPED) & (key < _UNMAPPED)
    sums = _sum_over_polygons(folder, polygons, classes)
    table = {entry.index: entry for entry in legend.bedrock}
    area = sums.area_km2[1:]
    with np.errstate(invalid="ignore"):
        probability = sums.probability_km2[1:] / sums.known_km2[1:]
        extrapolated = sums.evidence_km2[1:, EXTRAPOLATED] / area
    frame = geopandas.GeoDataFrame(
        {
            "class": classes.astype(np.int32),
            "name": [table[value].name for value in classes],
            "age": [table[value].age for value in classes],
            "colour": [table[value].colour for value in classes],
            "mapped": mapped,
            "area_km2": np.round(area, 6),
            "mean_probability": np.round(probability, 4),
            "evidence": [evidence_names.get(int(value)) for value in sums.evidence_km2[1:].argmax(axis=1)],
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
    """Return the class of each cell, plus 256 on mapped outcrop and 512 on unmapped ground; 0 is no data."""
    with rasterio.open(folder / "lithology.tif") as lithology, rasterio.open(folder / "evidence.tif") as evidence:
        keys = lithology.read(1).astype(np.uint16)
        keys[keys == NODATA] = 0
        based_on = evidence.read(1)
        keys[(based_on == OUTCROP) & (keys > 0)] += _MAPPED
        keys[(based_on == UNMAPPED) & (keys > 0)] += _UNMAPPED
        return keys, lithology.transform, lithology.crs.to_wkt()


def _dissolve_slivers(keys: NDArray[np.uint16]) -> None:
    """Merge slivers predicted under cover with their largest such neighbour, in place."""
    if keys.size < SLIVER_CELLS:
        return
    predicted = (keys > 0) & (keys < _MAPPED)
    while True:
        # A sliver between slivers is merged in the next iteration.
        merged = sieve(keys, SLIVER_CELLS, mask=predicted, connectivity=4)
        changed = predicted & (merged != keys)
        if not changed.any():
            return
        keys[changed] = merged[changed]


def _sum_over_polygons(folder: Path, polygons: NDArray[Any], classes: NDArray[np.int64]) -> _PolygonSums:
    """Read the rasters strip by strip and sum over the cells of each polygon."""
    count = len(polygons) + 1
    area, known, probability_km2 = np.zeros(count), np.zeros(count), np.zeros(count)
    evidence_km2 = np.zeros((count, UNMAPPED + 1))
    column = np.concatenate([[1], classes]) - 1  # band of each polygon's class; the first element is not used
    bounds = geopandas.GeoSeries(polygons).bounds
    with rasterio.open(folder / "probability.tif") as probability, rasterio.open(folder / "evidence.tif") as evidence:
        steps = np.asarray(probability.scales)
        for row in range(0, evidence.height, _STRIP_ROWS):
            strip = Window(0, row, evidence.width, min(_STRIP_ROWS, evidence.height - row))
            north = evidence.transform.f + row * evidence.transform.e
            south = north + strip.height * evidence.transform.e
            overlapping = np.flatnonzero((bounds["maxy"] > south) & (bounds["miny"] < north))
            if not overlapping.size:
                continue
            polygon_of = rasterize(
                ((polygons[index], index + 1) for index in overlapping),
                out_shape=(strip.height, strip.width),
                transform=evidence.window_transform(strip),
                dtype="int32",
            )
            km2 = np.broadcast_to(cell_areas_km2(evidence.crs, evidence.transform, strip), polygon_of.shape)
            area += np.bincount(polygon_of.ravel(), weights=km2.ravel(), minlength=count)
            band = column[polygon_of]
            values = np.take_along_axis(probability.read(window=strip), band[None], axis=0)[0]
            data = values != NODATA
            known += np.bincount(polygon_of[data], weights=km2[data], minlength=count)
            probability_km2 += np.bincount(
                polygon_of[data], weights=km2[data] * values[data] * steps[band[data]], minlength=count
            )
            evidence_values = evidence.read(1, window=strip)
            for value in range(1, UNMAPPED + 1):
                cells = evidence_values == value
                evidence_km2[:, value] += np.bincount(polygon_of[cells], weights=km2[cells], minlength=count)
    return _PolygonSums(area, known, probability_km2, evidence_km2)


def _add_style(path: Path, legend: Legend) -> None:
    """Write the style into the table ``layer_styles``, from which QGIS loads it by default."""
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
