"""The plan of a prediction: cells, windows, and one inference job for each window and run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gravmap.learning.evaluation.mosaic import covering_windows, window_cells
from gravmap.mapping.clip import Clip
from gravmap.mapping.layers import BANDS, CLASS_LAYERS, THICKNESS_BANDS
from gravmap.mapping.map_grid import MapGrid
from gravmap.regions import Region
from gravmap.units import format_angle

WINDOWS_FOLDER = "windows"
_MOST_GRAVITY_BANDS = 8  # residuals at several heights, and the Bouguer anomaly
FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))
"""Axes along which a tile is flipped for test-time augmentation: none, east-west, north-south, and both."""


@dataclass(frozen=True)
class InferenceJob:
    """One window to be predicted by one run.

    Attributes
    ----------
    run : int
        Index of the run, from 0.
    scale_deg : float
        Side of the window, degrees.
    number : int
        Index of the window among those of its size, from 0.
    bounds_wsen : tuple of float
        West, south, east, north, degrees.
    """

    run: int
    scale_deg: float
    number: int
    bounds_wsen: tuple[float, float, float, float]

    @property
    def name(self) -> str:
        """Unique within a map: ``run0_5deg_00012``."""
        return f"run{self.run}_{format_angle(self.scale_deg)}_{self.number:05d}"

    @property
    def logits_file(self) -> str:
        """File of the logits on the map's cells, relative to the map's folder."""
        return f"{WINDOWS_FOLDER}/{self.name}.npy"

    @property
    def votes_file(self) -> str:
        """File of the most probable class of each flip on these cells; written only with test-time augmentation."""
        return f"{WINDOWS_FOLDER}/{self.name}_votes.npy"


@dataclass(frozen=True)
class Plan:
    """What a prediction will compute; made by :meth:`gravmap.mapping.Predictor.plan`.

    Attributes
    ----------
    region : Region
        Bounding box of the map.
    grid : MapGrid
        Cells of the map.
    windows : dict of float to (n, 4) float array
        Window size in degrees to the bounds (west, south, east, north) of its windows.
    device : str
        ``cpu`` or ``cuda``.
    tile_size_px : tuple of int
        Pixels across a window, for each run.
    classes : int
        Number of classes K.
    clip : Clip, optional
        Cells whose centre lies outside it are no data.
    flips : bool
        Test-time augmentation: each window is predicted in its four flips and the logits are averaged.
    unmapped : float, optional
        Fraction of the map's area that no geological map covers; None without labels.
    thickness_runs : tuple of int
        Indices of the runs whose networks output the thickness of the cover.

    Examples
    --------
    >>> import numpy as np
    >>> from gravmap.mapping.plan import Plan
    >>> from gravmap.mapping.map_grid import map_grid
    >>> from gravmap.regions import Region
    >>> region = Region(81, 44, 84, 46)
    >>> grid = map_grid(np.arange(42, 48.01, 0.1), np.arange(79, 86.01, 0.1), region)
    >>> plan = Plan(region, grid, {5.0: np.array([[80.0, 42.5, 85.0, 47.5]])}, "cpu", (256, 256), classes=10)
    >>> [job.name for job in plan.jobs]
    ['run0_5deg_00000', 'run1_5deg_00000']
    """

    region: Region
    grid: MapGrid
    windows: dict[float, NDArray[np.float64]]
    device: str
    tile_size_px: tuple[int, ...]
    classes: int
    clip: Clip | None = None
    flips: bool = False
    unmapped: float | None = None
    thickness_runs: tuple[int, ...] = ()

    @cached_property
    def jobs(self) -> tuple[InferenceJob, ...]:
        """One job for each window and run, in the order in which their logits are blended."""
        return tuple(
            InferenceJob(run, scale, number, tuple(float(side) for side in window))  # type: ignore[arg-type]
            for run in range(len(self.tile_size_px))
            for scale, windows in self.windows.items()
            for number, window in enumerate(windows)
        )

    def job_files(self) -> dict[str, list[str]]:
        """Files that each job writes, by the job's name."""
        return {job.name: [job.logits_file, *([job.votes_file] if self.flips else [])] for job in self.jobs}

    def window_bytes(self, scale_deg: float) -> int:
        """Disk space of the files of all jobs of one window size; they are removed when the map is finished."""
        runs = len(self.tile_size_px)
        outputs = runs * self.classes + len(self.thickness_runs) * len(THICKNESS_BANDS)
        per_cell = 4 * outputs + (runs * len(FLIPS) if self.flips else 0)
        cells = 0
        for window in self.windows[scale_deg]:
            rows, columns = window_cells(window, self.grid.lat_deg, self.grid.lon_deg)
            cells += (rows.stop - rows.start) * (columns.stop - columns.start)
        return cells * per_cell

    @property
    def disk_bytes(self) -> int:
        """Upper bound on the disk space that the prediction needs until the map is finished."""
        bands = 2 + self.classes + len(BANDS) + (2 * len(THICKNESS_BANDS) if self.thickness_runs else 0)
        bands += 2 * _MOST_GRAVITY_BANDS + 2 + len(CLASS_LAYERS)  # with the distance to outcrop
        # Each raster exists twice while it is converted, with overviews; compressed, it is smaller than this.
        rasters = round(2 * 4 / 3 * bands * self.grid.shape[0] * self.grid.shape[1])
        return sum(self.window_bytes(scale) for scale in self.windows) + rasters


def windows_by_scale(
    grid: MapGrid,
    nodes_wsen: tuple[float, float, float, float],
    scales_deg: Sequence[float],
    clip: Clip | None,
) -> dict[float, NDArray[np.float64]]:
    """Find the windows of each size that the cells of a map need.

    Parameters
    ----------
    grid : MapGrid
        Cells of the map.
    nodes_wsen : tuple of float
        West, south, east, north of the outermost nodes of the fields, degrees.
    scales_deg : sequence of float
        Window sizes, degrees.
    clip : Clip, optional
        Windows that do not intersect it are left out.

    Returns
    -------
    dict of float to (n, 4) float64
        Window size to the bounds of its windows: west, south, east, north, degrees.
    """
    west, south, east, north = grid.bounds_wsen
    inside = (
        max(west, nodes_wsen[0]),
        max(south, nodes_wsen[1]),
        min(east, nodes_wsen[2]),
        min(north, nodes_wsen[3]),
    )
    result = {}
    for scale in scales_deg:
        windows = covering_windows(inside, scale, nodes_wsen)
        if clip is not None:
            windows = windows[clip.intersects(windows)]
        cells = [window_cells(window, grid.lat_deg, grid.lon_deg) for window in windows]
        result[scale] = windows[[rows.stop > 0 and columns.stop > 0 for rows, columns in cells]]
    return result
