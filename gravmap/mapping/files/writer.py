"""Write the files of a map block by block."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from gravmap import __version__
from gravmap.files import reporting_full_disk, write_text
from gravmap.geology.class_table import ClassRow, Tally, class_rows
from gravmap.geology.legend import Legend
from gravmap.mapping.files.layer_file import (
    CACHE_BYTES,
    Band,
    Layer,
    create_raster,
    quantise,
    write_cog,
    write_statistics,
)
from gravmap.mapping.files.polygons import write_polygons
from gravmap.mapping.files.projection import GEOGRAPHIC, read_crs, reproject_nearest, reprojected_grid
from gravmap.mapping.files.styles import class_raster_qml, class_raster_sld, ramp_raster_qml
from gravmap.mapping.layers import (
    CLASS_LAYERS,
    DISTANCE_COLOURS,
    DISTANCE_STEP_KM,
    EVIDENCE_COLOURS,
    GRAVITY_LEAST_MGAL,
    GRAVITY_STEP_MGAL,
    THICKNESS_BANDS,
    THICKNESS_COLOURS,
    UNMAPPED,
    Block,
    UncertaintyBand,
    evidence_names,
)
from gravmap.mapping.map_grid import PROBABILITY_STEPS, MapGrid
from gravmap.progress import Progress, silent

THICKNESS = Layer(
    "cover_thickness",
    tuple(Band(name, 1.0, {"meaning": meaning}, "m") for name, meaning in THICKNESS_BANDS.items()),
    dtype="uint16",
)
OUTCROP_DISTANCE = Layer(
    "outcrop_distance", (Band("distance to mapped outcrop", DISTANCE_STEP_KM, {}, "km"),), dtype="uint16"
)
_SAMPLED_PX = 1000  # of a field, for the ends of its colour scale
GRAVITY = "gravity"
"""Name of the layer whose bands depend on the fields."""


@dataclass(frozen=True)
class ValueArea:
    """Cells and area of one value of a class layer.

    Attributes
    ----------
    value : int
        Class index, or value of the evidence layer.
    name : str
        Name of the class or evidence.
    colour : str
        ``#RRGGBB``.
    cells : int
        Number of cells in the file.
    km2 : float
        Area on the ellipsoid, km².
    """

    value: int
    name: str
    colour: str
    cells: int
    km2: float


@dataclass(frozen=True)
class Summary:
    """Cells and areas of a map; ``dataclasses.asdict`` converts it to JSON values.

    Attributes
    ----------
    cells : int
        Number of cells with data.
    km2 : float
        Area of these cells on the ellipsoid, km².
    classes, evidence : tuple of ValueArea
        By class, in the order of the legend, and by value of the evidence layer; includes values without cells.
    """

    cells: int
    km2: float
    classes: tuple[ValueArea, ...]
    evidence: tuple[ValueArea, ...]

    @property
    def unmapped(self) -> float:
        """Fraction of the area with evidence that no geological map covers, from 0 to 1."""
        km2 = {each.value: each.km2 for each in self.evidence}
        return km2.get(UNMAPPED, 0.0) / (sum(km2.values()) or 1.0)


@dataclass(frozen=True)
class MapFiles:
    """The files that :class:`MapWriter` wrote.

    Attributes
    ----------
    paths : dict of str to Path
        File name to path.
    summary : Summary
        Cells and areas, counted in the files.
    """

    paths: dict[str, Path]
    summary: Summary


def thickness_scale_m(path: Path) -> float:
    """End of the colour scale of a thickness of the cover: the next 500 m above the largest median."""
    with rasterio.open(path) as raster:
        largest = float(raster.tags(1).get("STATISTICS_MAXIMUM", 0))
    return max(1, math.ceil(largest / 500)) * 500.0


def gravity_scale(path: Path, number: int) -> tuple[str, float, float]:
    """Colours of a band of ``gravity.tif`` and the values at their ends, mGal: 98 % of its values lie between them.

    A residual, whose zero has a meaning, has diverging colours, the same on both sides.
    """
    with rasterio.open(path) as raster:
        factor = max(1.0, max(raster.shape) / _SAMPLED_PX)
        shape = tuple(max(1, round(side / factor)) for side in raster.shape)
        stored = raster.read(number, out_shape=shape, masked=True).compressed()
        values = stored * raster.scales[number - 1] + raster.offsets[number - 1]
        name = str(raster.descriptions[number - 1])
    low, high = (float(end) for end in np.percentile(values, (1, 99))) if values.size else (0.0, 1.0)
    if name.startswith("residual"):
        high = max(abs(low), abs(high), 1.0)
        return "RdBu_r", -high, high
    return "viridis", low, max(high, low + 1.0)


def distance_scale_km(path: Path) -> float:
    """End of the colour scale of ``outcrop_distance.tif``: its largest value."""
    with rasterio.open(path) as raster:
        return max(1.0, float(raster.tags(1).get("STATISTICS_MAXIMUM", 0)) * float(raster.scales[0]))


def output_grid(grid: MapGrid, crs: str | None) -> dict[str, Any] | None:
    """Return the grid of the files in another coordinate system than longitude and latitude; None in these.

    Raises
    ------
    OptionError
        PROJ does not know `crs`, or it is not defined over the whole map.
    """
    target = GEOGRAPHIC if crs is None else read_crs(crs)
    return None if target == GEOGRAPHIC else reprojected_grid(_geographic(grid), target)


def _geographic(grid: MapGrid) -> dict[str, Any]:
    west, _, _, north = grid.bounds_wsen
    return {
        "crs": GEOGRAPHIC,
        "transform": from_origin(west, north, grid.spacing_deg[1], grid.spacing_deg[0]),
        "height": grid.shape[0],
        "width": grid.shape[1],
    }


def _likeliest_band(path: Path) -> int:
    """The band with the largest mean: the raster opens on a class that there is, not on the first of the legend."""
    with rasterio.open(path) as raster:
        means = [float(raster.tags(number).get("STATISTICS_MEAN", 0)) for number in raster.indexes]
    return means.index(max(means)) + 1


def _gravity_layer(names: Sequence[str]) -> Layer:
    bands = tuple(Band(name, GRAVITY_STEP_MGAL, {}, "mGal", GRAVITY_LEAST_MGAL) for name in names)
    return Layer(GRAVITY, bands, dtype="uint16")


class MapWriter:
    """Writes the blocks of a map, in any order, to rasters, polygons and styles that GIS software opens directly.

    Writes ``lithology.tif``, ``probability.tif``, ``uncertainty.tif``, ``evidence.tif``, a raster for each of
    `class_layers`, with `thickness` ``cover_thickness.tif``, with `gravity` ``gravity.tif``, and with `outcrop`
    ``outcrop_distance.tif`` (cloud-optimized GeoTIFF; the class layers with ``.aux.xml``), ``lithology.gpkg``, and
    styles (``.qml``, ``lithology.sld``). Cells that are in no block are no data.

    A context manager: unfinished files are removed at the end.

    Parameters
    ----------
    folder : Path
        Output folder, created if it is missing; usually a temporary one that is renamed afterwards.
    grid : MapGrid
        The cells of the blocks.
    legend : Legend
        Classes 1..K with names and colours.
    bands : sequence of UncertaintyBand
        Uncertainty bands of every block, in the order of the file; at least one.
    tags : mapping of str to str
        Tags of every raster.
    near_km : float
        Distance to mapped outcrop within which a cell counts as near it, for the names of the evidence.
    crs : str, optional
        Coordinate system of the files, by default EPSG:4326; each new cell gets all values of the cell that contains
        its centre.
    thickness : bool
        Whether the blocks have the thickness of the cover.
    class_layers : sequence of str
        Names of `CLASS_LAYERS` that the blocks have.
    gravity : sequence of str
        Names of the gravity fields of the blocks.
    outcrop : bool
        Whether the blocks have the distance to outcrop.
    region_unlike : bool
        Whether the region as a whole is unlike the training ground, for the names of the evidence.

    Raises
    ------
    OptionError
        PROJ does not know `crs`, or it is not defined over the whole map.
    """

    def __init__(
        self,
        folder: Path,
        grid: MapGrid,
        legend: Legend,
        *,
        bands: Sequence[UncertaintyBand],
        tags: Mapping[str, str],
        near_km: float,
        crs: str | None = None,
        thickness: bool = False,
        class_layers: Sequence[str] = (),
        gravity: Sequence[str] = (),
        outcrop: bool = False,
        region_unlike: bool = False,
    ) -> None:
        self.folder, self.grid, self.bands = folder, grid, tuple(bands)
        self.legend = Legend(legend.name, legend.bedrock)  # a map never shows cover
        self.evidence_names = evidence_names(near_km, region_unlike=region_unlike)
        self.tags = {"GRAVMAP_VERSION": __version__, "TIFFTAG_SOFTWARE": f"gravmap {__version__}", **tags}
        geographic = _geographic(grid)
        self._reprojected = output_grid(grid, crs)
        further = [
            Layer(name, (Band("class index", 1.0, {"meaning": CLASS_LAYERS[name]}),), class_rows(self.legend))
            for name in class_layers
        ]
        self.layers = (
            *self._layers(),
            *further,
            *([THICKNESS] if thickness else []),
            *([_gravity_layer(gravity)] if gravity else []),
            *([OUTCROP_DISTANCE] if outcrop else []),
        )
        folder.mkdir(parents=True, exist_ok=True)
        self._plain = {layer.name: folder / f".{layer.name}.plain.tif" for layer in self.layers}
        self._open: dict[str, Any] = {}
        try:
            for layer in self.layers:
                self._open[layer.name] = create_raster(self._plain[layer.name], layer, geographic, self.tags)
        except BaseException:
            self.close()
            raise

    def _layers(self) -> tuple[Layer, ...]:
        step = 1 / PROBABILITY_STEPS
        probability = [
            Band(
                entry.name, step, {"quantity": "probability", "class_name": entry.name, "class_index": str(entry.index)}
            )
            for entry in self.legend.bedrock
        ]
        uncertainty = [Band(band.name, band.scale, {"meaning": band.meaning}) for band in self.bands]
        evidence = tuple(ClassRow(value, name, EVIDENCE_COLOURS[value]) for value, name in self.evidence_names.items())
        return (
            Layer("lithology", (Band("class index"),), class_rows(self.legend)),
            Layer("probability", tuple(probability)),
            Layer("uncertainty", tuple(uncertainty)),
            Layer("evidence", (Band("evidence"),), evidence),
        )

    def __enter__(self) -> MapWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, block: Block) -> None:
        """Write one block; where blocks overlap, the later one is kept.

        Parameters
        ----------
        block : Block
            A rectangle of the grid's cells. Blocks that match the tiles of the file (512 x 512 cells from the
            north-west corner) are written fastest.

        Raises
        ------
        GravmapError
            The disk is full.
        """
        height, width = block.lithology.shape
        window = Window(block.col, block.row, width, height)
        with reporting_full_disk(self.folder), rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
            self._open["lithology"].write(block.lithology, 1, window=window)
            self._open["probability"].write(quantise(block.probability, 1 / PROBABILITY_STEPS), window=window)
            for number, band in enumerate(self.bands, start=1):
                values = quantise(block.uncertainty[band.name], band.scale)
                self._open["uncertainty"].write(values, number, window=window)
            self._open["evidence"].write(block.evidence, 1, window=window)
            for name, values in block.classes.items():
                self._open[name].write(values, 1, window=window)
            if block.cover_m is not None:
                self._open[THICKNESS.name].write(quantise(block.cover_m, 1.0, THICKNESS.dtype), window=window)
            if block.gravity_mgal is not None:
                stored = quantise(block.gravity_mgal, GRAVITY_STEP_MGAL, "uint16", GRAVITY_LEAST_MGAL)
                self._open[GRAVITY].write(stored, window=window)
            if block.outcrop_km is not None:
                stored = quantise(block.outcrop_km, DISTANCE_STEP_KM, "uint16")
                self._open[OUTCROP_DISTANCE.name].write(stored, 1, window=window)

    def finish(self, progress: Progress = silent) -> MapFiles:
        """Convert the blocks written so far to the files of the map.

        Parameters
        ----------
        progress : Progress
            Called before each file.

        Raises
        ------
        GravmapError
            The disk is full.
        """
        paths: dict[str, Path] = {}
        tallies: dict[str, Tally] = {}
        total = len(self.layers) + 1
        with reporting_full_disk(self.folder), rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
            for done, layer in enumerate(self.layers):
                path = self.folder / f"{layer.name}.tif"
                progress(done, total, path.name)
                self._open.pop(layer.name).close()
                tallies[layer.name] = self._convert(layer, path)
                paths[path.name] = path
                if layer.rows is not None:
                    paths[f"{path.name}.aux.xml"] = self.folder / f"{path.name}.aux.xml"
            progress(total - 1, total, "lithology.gpkg")
            paths["lithology.gpkg"] = write_polygons(self.folder, self.legend, self.evidence_names)
        for name, text in self._styles().items():
            paths[name] = self.folder / name
            write_text(paths[name], text)
        progress(total, total)
        return MapFiles(paths, self._summary(tallies))

    def _convert(self, layer: Layer, path: Path) -> Tally:
        plain = self._plain[layer.name]
        if self._reprojected is not None:
            reprojected = plain.with_name(f".{layer.name}.reprojected.tif")
            with create_raster(reprojected, layer, self._reprojected, self.tags) as target:
                reproject_nearest(plain, target)
            reprojected.replace(plain)
        tally = write_statistics(plain, areas=layer.rows is not None)
        write_cog(plain, path, layer, tally)
        plain.unlink()
        return tally

    def _styles(self) -> dict[str, str]:
        texts = {
            "probability.qml": ramp_raster_qml("viridis", band=_likeliest_band(self.folder / "probability.tif")),
            "uncertainty.qml": ramp_raster_qml("cividis"),
        }
        if THICKNESS in self.layers:
            path = self.folder / f"{THICKNESS.name}.tif"
            texts[f"{THICKNESS.name}.qml"] = ramp_raster_qml(THICKNESS_COLOURS, high=thickness_scale_m(path))
        names = [layer.name for layer in self.layers]
        if GRAVITY in names:
            texts[f"{GRAVITY}.qml"] = ramp_raster_qml(*gravity_scale(self.folder / f"{GRAVITY}.tif", 1))
        if OUTCROP_DISTANCE in self.layers:
            high = distance_scale_km(self.folder / f"{OUTCROP_DISTANCE.name}.tif")
            texts[f"{OUTCROP_DISTANCE.name}.qml"] = ramp_raster_qml(DISTANCE_COLOURS, high=high)
        for layer in self.layers:
            if layer.rows is not None:
                texts[f"{layer.name}.qml"] = class_raster_qml(layer.rows)
        lithology = self.layers[0]
        return texts | {"lithology.sld": class_raster_sld(lithology.name, lithology.rows or ())}

    def _summary(self, tallies: Mapping[str, Tally]) -> Summary:
        areas = {
            layer.name: tuple(
                ValueArea(row.value, row.name, row.colour, int(tally.cells[row.value]), float(tally.km2[row.value]))
                for row in layer.rows
            )
            for layer in self.layers
            if layer.rows is not None and (tally := tallies[layer.name])
        }
        classes = areas["lithology"]
        cells, km2 = sum(each.cells for each in classes), sum(each.km2 for each in classes)
        return Summary(cells, km2, classes, areas["evidence"])

    def close(self) -> None:
        """Remove unfinished files."""
        while self._open:
            self._open.popitem()[1].close()
        for path in self._plain.values():
            path.unlink(missing_ok=True)
            path.with_name(path.name.replace(".plain.", ".reprojected.")).unlink(missing_ok=True)
