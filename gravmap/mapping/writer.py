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

from gravmap.geology.index_raster import palette
from gravmap.geology.legend import Legend
from gravmap.mapping.layer_file import CACHE_BYTES, Band, Layer, add_statistics, create, publish, stored
from gravmap.mapping.layers import EVIDENCE_COLOURS, Block, UncertaintyBand, evidence_names
from gravmap.mapping.raster import PROBABILITY_STEPS, MapGrid
from gravmap.progress import Progress, silent


@dataclass(frozen=True)
class MapFiles:
    """What was written.

    Attributes
    ----------
    paths : dict of str to Path
        File name to path.
    """

    paths: dict[str, Path]


class MapWriter:
    """Takes the blocks of a map in any order and leaves files that GIS software opens styled.

    Use it as a context manager: what is unfinished when the block ends is taken away.

    Parameters
    ----------
    folder : Path
        Where the files go; made when missing.
    grid : MapGrid
        The cells that blocks are given in.
    legend : Legend
        Classes 1..K, their names and colours.
    bands : sequence of UncertaintyBand
        Which measures every block has, in the order of the file.
    tags : mapping of str to str
        Written into every raster.
    near_km : float
        How far from outcrop counts as near it: for the words of the evidence.
    crs : str, optional
        Coordinate system of the files.
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
        self.folder, self.grid, self.legend, self.bands = folder, grid, legend, tuple(bands)
        folder.mkdir(parents=True, exist_ok=True)
        self.layers = _layers(legend, self.bands, near_km)
        self._plain = {layer.name: folder / f".{layer.name}.plain.tif" for layer in self.layers}
        west, _, _, north = grid.bounds_wsen
        place = {
            "crs": "EPSG:4326",
            "transform": from_origin(west, north, grid.spacing_deg[1], grid.spacing_deg[0]),
            "height": grid.shape[0],
            "width": grid.shape[1],
        }
        self._open: dict[str, Any] = {}
        try:
            for layer in self.layers:
                self._open[layer.name] = create(self._plain[layer.name], layer, place, tags)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> MapWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, block: Block) -> None:
        """Take one block; a later one replaces an earlier one where they overlap."""
        height, width = block.lithology.shape
        window = Window(block.col, block.row, width, height)
        with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
            self._open["lithology"].write(block.lithology, 1, window=window)
            self._open["probability"].write(stored(block.probability, 1 / PROBABILITY_STEPS), window=window)
            for number, band in enumerate(self.bands, start=1):
                values = stored(block.uncertainty[band.name], band.scale)
                self._open["uncertainty"].write(values, number, window=window)
            self._open["evidence"].write(block.evidence, 1, window=window)

    def finish(self, progress: Progress = silent) -> MapFiles:
        """Turn what was written into the map's files."""
        paths = {}
        with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
            for done, layer in enumerate(self.layers):
                progress(done, len(self.layers), f"{layer.name}.tif")
                self._open.pop(layer.name).close()
                plain, path = self._plain[layer.name], self.folder / f"{layer.name}.tif"
                add_statistics(plain)
                publish(plain, path, layer)
                plain.unlink()
                paths[path.name] = path
        progress(len(self.layers), len(self.layers))
        return MapFiles(paths)

    def close(self) -> None:
        """Take away what is unfinished."""
        while self._open:
            self._open.popitem()[1].close()
        for path in self._plain.values():
            path.unlink(missing_ok=True)


def _layers(legend: Legend, bands: Sequence[UncertaintyBand], near_km: float) -> tuple[Layer, ...]:
    evidence = {
        value: (*(int(colour[k : k + 2], 16) for k in (1, 3, 5)), 255) for value, colour in EVIDENCE_COLOURS.items()
    }
    step = 1 / PROBABILITY_STEPS
    return (
        Layer("lithology", (Band("class index"),), palette(legend)),
        Layer(
            "probability",
            tuple(
                Band(
                    entry.name,
                    step,
                    {"quantity": "probability", "class_name": entry.name, "class_index": str(entry.index)},
                )
                for entry in legend.bedrock
            ),
        ),
        Layer("uncertainty", tuple(Band(band.name, band.scale, {"meaning": band.meaning}) for band in bands)),
        Layer(
            "evidence",
            (
                Band(
                    "evidence",
                    1.0,
                    {f"value_{value}": name for value, name in evidence_names(near_km).items()},
                ),
            ),
            evidence,  # type: ignore[arg-type]
        ),
    )
