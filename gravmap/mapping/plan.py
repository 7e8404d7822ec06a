"""What a prediction will compute: cells, windows, and every pass of a window through a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gravmap.learning.evaluation.mosaic import covering_windows, window_cells
from gravmap.mapping.clip import Clip
from gravmap.mapping.layers import BANDS
from gravmap.mapping.map_grid import MapGrid
from gravmap.regions import Region
from gravmap.units import format_angle

FOLDER = "windows"
FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))
"""Axes of a tile that are turned around: as it is, mirrored east-west, north-south, and both."""


@dataclass(frozen=True)
class InferenceJob:
    """One window to be put through one network.

    Attributes
    ----------
    run : int
        Number of the run, from 0.
    scale_deg : float
        Side of the window.
    number : int
        Of the window among those of its size.
    wsen : tuple of float
        West, south, east, north, degrees.
    """

    run: int
    scale_deg: float
    number: int
    wsen: tuple[float, float, float, float]

    @property
    def name(self) -> str:
        """Unique in a map: ``run0_5deg_00012``."""
        return f"run{self.run}_{format_angle(self.scale_deg)}_{self.number:05d}"

    @property
    def logits_file(self) -> str:
        """Its logits on the map's cells, relative to the map's folder."""
        return f"{FOLDER}/{self.name}.npy"

    @property
    def votes_file(self) -> str:
        """The likeliest class of every flip on these cells; only where tiles are flipped."""
        return f"{FOLDER}/{self.name}_votes.npy"


@dataclass(frozen=True)
class Plan:
    """What a prediction will read, compute and write.

    Attributes
    ----------
    region : Region
        What is mapped.
    grid : MapGrid
        Cells of the map.
    windows : dict of float to (n, 4) float array
        Scale in degrees to windows W S E N.
    device : str
        ``cpu`` or ``cuda``.
    tile_size_px : tuple of int
        Pixels across a window, for each run.
    classes : int
        K, the classes that are told apart.
    clip : Clip, optional
        Cells whose centre is outside are no data.
    flips : bool
        Whether every window is seen in four mirror images.
    """

    region: Region
    grid: MapGrid
    windows: dict[float, NDArray[np.float64]]
    device: str
    tile_size_px: tuple[int, ...]
    classes: int
    clip: Clip | None = None
    flips: bool = False

    @cached_property
    def passes(self) -> tuple[InferenceJob, ...]:
        """Every window of every scale for every run, in the order in which they are blended."""
        return tuple(
            InferenceJob(run, scale, number, tuple(float(side) for side in window))  # type: ignore[arg-type]
            for run in range(len(self.tile_size_px))
            for scale, windows in self.windows.items()
            for number, window in enumerate(windows)
        )

    def files(self) -> dict[str, list[str]]:
        """The files that each pass leaves, by its name."""
        return {each.name: [each.logits_file, *([each.votes_file] if self.flips else [])] for each in self.passes}

    def pass_bytes(self, scale_deg: float) -> int:
        """Disk that the files of all passes at one scale take until the map is finished."""
        per_cell = 4 * self.classes + (len(FLIPS) if self.flips else 0)
        cells = 0
        for window in self.windows[scale_deg]:
            rows, columns = window_cells(window, self.grid.lat_deg, self.grid.lon_deg)
            cells += (rows.stop - rows.start) * (columns.stop - columns.start)
        return len(self.tile_size_px) * cells * per_cell

    @property
    def disk_bytes(self) -> int:
        """Disk that is needed at most, until the map is finished."""
        bands = 2 + self.classes + len(BANDS)
        # Each raster is there twice for a moment, with its smaller copies; none is larger than its plain bytes.
        rasters = round(2 * 4 / 3 * bands * self.grid.shape[0] * self.grid.shape[1])
        return sum(self.pass_bytes(scale) for scale in self.windows) + rasters


def lay_windows(
    grid: MapGrid,
    nodes_wsen: tuple[float, float, float, float],
    scales_deg: Sequence[float],
    clip: Clip | None,
) -> dict[float, NDArray[np.float64]]:
    """The windows that a map's cells need, scale by scale.

    Parameters
    ----------
    grid : MapGrid
        Cells of the map.
    nodes_wsen : tuple of float
        Of the outermost nodes of the fields, degrees.
    scales_deg : sequence of float
        Sides of the windows.
    clip : Clip, optional
        Windows that have no ground in common with it are left out.
    """
    west, south, east, north = grid.bounds_wsen
    inside = (
        max(west, nodes_wsen[0]),
        max(south, nodes_wsen[1]),
        min(east, nodes_wsen[2]),
        min(north, nodes_wsen[3]),
    )
    laid = {}
    for scale in scales_deg:
        windows = covering_windows(inside, scale, nodes_wsen)
        if clip is not None:
            windows = windows[clip.touches(windows)]
        seen = [window_cells(window, grid.lat_deg, grid.lon_deg) for window in windows]
        laid[scale] = windows[[rows.stop > 0 and columns.stop > 0 for rows, columns in seen]]
    return laid
