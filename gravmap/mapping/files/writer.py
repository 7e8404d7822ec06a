"""The files of a map, written block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from gravmap import __version__
from gravmap.files import reporting_full_disk, write_text
from gravmap.geology.class_table import ClassRow, Tally, class_rows
from gravmap.geology.legend import Legend
from gravmap.mapping.files.layer_file import CACHE_BYTES, Band, Layer, create, publish, stored, survey
from gravmap.mapping.files.polygons import write_polygons
from gravmap.mapping.files.projection import GEOGRAPHIC, read_crs, warp, warped_place
from gravmap.mapping.files.styles import class_raster_qml, class_raster_sld, ramp_raster_qml
from gravmap.mapping.layers import EVIDENCE_COLOURS, Block, UncertaintyBand, evidence_names
from gravmap.mapping.map_grid import PROBABILITY_STEPS, MapGrid
from gravmap.progress import Progress, silent


@dataclass(frozen=True)
class Share:
    """How much of a map has one value.

    Attributes
    ----------
    value : int
        Class index, or value of the evidence.
    name : str
        In words.
    colour : str
        ``#RRGGBB``.
    cells : int
        Cells of the files.
    km2 : float
        Their area on the ellipsoid.
    """

    value: int
    name: str
    colour: str
    cells: int
    km2: float


@dataclass(frozen=True)
class Summary:
    """What the cells of a map add up to; ``dataclasses.asdict`` makes it plain values.

    Attributes
    ----------
    cells : int
        Cells with data.
    km2 : float
        Their area on the ellipsoid.
    classes, evidence : tuple of Share
        In the order of the legend and of the evidence's values; those that do not occur too.
    """

    cells: int
    km2: float
    classes: tuple[Share, ...]
    evidence: tuple[Share, ...]


@dataclass(frozen=True)
class MapFiles:
    """What was written.

    Attributes
    ----------
    paths : dict of str to Path
        File name to path, all in the writer's folder.
    summary : Summary
        Cells and areas, of the cells as the files hold them.
    """

    paths: dict[str, Path]
    summary: Summary


class MapWriter:
    """Takes the blocks of a map in any order and leaves files that GIS software opens styled.

    ``lithology.tif``, ``probability.tif``, ``uncertainty.tif`` and ``evidence.tif`` (cloud-optimized, the classes with
    ``.aux.xml``), ``lithology.gpkg``, and styles (``.qml``, ``lithology.sld``). Cells that no block covers are no data.

    Use it as a context manager: what is unfinished when it ends is taken away.

    Parameters
    ----------
    folder : Path
        Where the files go; made when missing. Meant to be a folder that is not in its place yet.
    grid : MapGrid
        The cells that blocks are given in.
    legend : Legend
        Classes 1..K, their names and colours.
    bands : sequence of UncertaintyBand
        Which measures every block has, in the order of the file; at least one.
    tags : mapping of str to str
        Written into every raster.
    near_km : float
        How far from outcrop counts as near it: for the words of the evidence.
    crs : str, optional
        Coordinate system of the files when it is not EPSG:4326: each cell of it takes all values of the nearest cell.

    Raises
    ------
    OptionError
        PROJ does not know `crs`, or it is not defined over the map.
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
    ) -> None:
        self.folder, self.grid, self.bands = folder, grid, tuple(bands)
        self.legend = Legend(legend.name, legend.bedrock)  # a map never shows cover
        self.words = evidence_names(near_km)
        self.tags = {"GRAVMAP_VERSION": __version__, "TIFFTAG_SOFTWARE": f"gravmap {__version__}", **tags}
        west, _, _, north = grid.bounds_wsen
        place = {
            "crs": GEOGRAPHIC,
            "transform": from_origin(west, north, grid.spacing_deg[1], grid.spacing_deg[0]),
            "height": grid.shape[0],
            "width": grid.shape[1],
        }
        target = GEOGRAPHIC if crs is None else read_crs(crs)
        self._warped = None if target == GEOGRAPHIC else warped_place(place, target)
        self.layers = self._layers()
        folder.mkdir(parents=True, exist_ok=True)
        self._plain = {layer.name: folder / f".{layer.name}.plain.tif" for layer in self.layers}
        self._open: dict[str, Any] = {}
        try:
            for layer in self.layers:
                self._open[layer.name] = create(self._plain[layer.name], layer, place, self.tags)
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
        evidence = tuple(ClassRow(value, name, EVIDENCE_COLOURS[value]) for value, name in self.words.items())
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
        """Take one block; a later one replaces an earlier one where they overlap.

        Parameters
        ----------
        block : Block
            Its rows and columns lie in the grid. Blocks on the file's own tiles (512 x 512 from the north-west corner)
            are written fastest.

        Raises
        ------
        GravmapError
            The disk is full.
        """
        height, width = block.lithology.shape
        window = Window(block.col, block.row, width, height)
        with reporting_full_disk(self.folder), rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
            self._open["lithology"].write(block.lithology, 1, window=window)
            self._open["probability"].write(stored(block.probability, 1 / PROBABILITY_STEPS), window=window)
            for number, band in enumerate(self.bands, start=1):
                values = stored(block.uncertainty[band.name], band.scale)
                self._open["uncertainty"].write(values, number, window=window)
            self._open["evidence"].write(block.evidence, 1, window=window)

    def finish(self, progress: Progress = silent) -> MapFiles:
        """Turn what was written into the map's files.

        Parameters
        ----------
        progress : Progress
            Told before every file.

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
                tallies[layer.name] = self._publish(layer, path)
                paths[path.name] = path
                if layer.rows is not None:
                    paths[f"{path.name}.aux.xml"] = self.folder / f"{path.name}.aux.xml"
            progress(total - 1, total, "lithology.gpkg")
            paths["lithology.gpkg"] = write_polygons(self.folder, self.legend, self.words)
        for name, text in self._styles().items():
            paths[name] = self.folder / name
            write_text(paths[name], text)
        progress(total, total)
        return MapFiles(paths, self._summary(tallies))

    def _publish(self, layer: Layer, path: Path) -> Tally:
        plain = self._plain[layer.name]
        if self._warped is not None:
            flat = plain.with_name(f".{layer.name}.warped.tif")
            with create(flat, layer, self._warped, self.tags) as target:
                warp(plain, target)
            flat.replace(plain)
        tally = survey(plain, areas=layer.rows is not None)
        publish(plain, path, layer, tally)
        plain.unlink()
        return tally

    def _styles(self) -> dict[str, str]:
        texts = {
            "probability.qml": ramp_raster_qml("viridis"),
            "uncertainty.qml": ramp_raster_qml("cividis"),
        }
        for layer in self.layers:
            if layer.rows is not None:
                texts[f"{layer.name}.qml"] = class_raster_qml(layer.rows)
        lithology = self.layers[0]
        return texts | {"lithology.sld": class_raster_sld(lithology.name, lithology.rows or ())}

    def _summary(self, tallies: Mapping[str, Tally]) -> Summary:
        shares = {
            layer.name: tuple(
                Share(row.value, row.name, row.colour, int(tally.cells[row.value]), float(tally.km2[row.value]))
                for row in layer.rows
            )
            for layer in self.layers
            if layer.rows is not None and (tally := tallies[layer.name])
        }
        classes = shares["lithology"]
        cells, km2 = sum(share.cells for share in classes), sum(share.km2 for share in classes)
        return Summary(cells, km2, classes, shares["evidence"])

    def close(self) -> None:
        """Take away what is unfinished."""
        while self._open:
            self._open.popitem()[1].close()
        for path in self._plain.values():
            path.unlink(missing_ok=True)
            path.with_name(path.name.replace(".plain.", ".warped.")).unlink(missing_ok=True)
