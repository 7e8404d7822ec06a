"""The grid of a map's cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.regions import Region

PROBABILITY_STEPS = 200  # a probability is stored as round(200 p): steps of half a percent; 255 is no data


@dataclass(frozen=True)
class MapGrid:
    """The cells of a map, north-up.

    Attributes
    ----------
    lat_deg : (ny,) float
        Latitudes of the cell centres, descending.
    lon_deg : (nx,) float
        Longitudes of the cell centres, ascending.
    spacing_deg : (float, float)
        Size of a cell along latitude and longitude, degrees.
    upsampling : float
        Number of cells per node spacing of the gravity grid; above 1 the map is finer than the data.
    """

    lat_deg: NDArray[np.float64]
    lon_deg: NDArray[np.float64]
    spacing_deg: tuple[float, float]
    upsampling: float

    @property
    def bounds_wsen(self) -> tuple[float, float, float, float]:
        """West, south, east, north edges of the grid, degrees."""
        half_y, half_x = self.spacing_deg[0] / 2, self.spacing_deg[1] / 2
        return (
            float(self.lon_deg[0] - half_x),
            float(self.lat_deg[-1] - half_y),
            float(self.lon_deg[-1] + half_x),
            float(self.lat_deg[0] + half_y),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.lat_deg.size, self.lon_deg.size


def map_grid(
    node_lat_deg: NDArray[np.float64],
    node_lon_deg: NDArray[np.float64],
    region: Region,
    resolution_deg: float | None = None,
) -> MapGrid:
    """Lay out the cells of a map over a region.

    Without a resolution, one cell is centred on each node of the gravity grid inside the region, so that nothing is
    resampled; with one, cells of that size fill the region from its north-west corner.

    Parameters
    ----------
    node_lat_deg, node_lon_deg : (ny,), (nx,) float
        Nodes of the gravity grid, both ascending, degrees.
    region : Region
        Area to map.
    resolution_deg : float, optional
        Cell size, degrees.

    Raises
    ------
    InputError
        The region extends beyond the grid, or contains fewer than 2 x 2 nodes.

    Examples
    --------
    >>> import numpy as np
    >>> from gravmap.mapping.map_grid import map_grid
    >>> from gravmap.regions import Region
    >>> grid = map_grid(np.arange(40, 50.1, 0.5), np.arange(80, 90.1, 0.5), Region(82, 43, 84, 45))
    >>> grid.shape, grid.bounds_wsen
    ((5, 5), (81.75, 42.75, 84.25, 45.25))
    """
    step_lat = float((node_lat_deg[-1] - node_lat_deg[0]) / (node_lat_deg.size - 1))
    step_lon = float((node_lon_deg[-1] - node_lon_deg[0]) / (node_lon_deg.size - 1))
    # A pixel-registered grid of a region has its nodes half a cell inside the region's edge.
    extent = Region(
        float(node_lon_deg[0]) - step_lon / 2,
        max(float(node_lat_deg[0]) - step_lat / 2, -90.0),
        float(node_lon_deg[-1]) + step_lon / 2,
        min(float(node_lat_deg[-1]) + step_lat / 2, 90.0),
    )
    # Bounds are printed with six digits, and often copied: a twentieth of a cell beyond is no other region.
    if not extent.contains(region, 0.05 * min(step_lat, step_lon)):
        turned = region.turned_into(extent.west, extent.east)
        if turned != region and extent.contains(turned):
            raise InputError(
                f"The region {region} is counted in another turn of 360 degrees than the gravity fields ({extent}).",
                f"Give it as --bbox {' '.join(f'{side:g}' for side in turned.bounds_wsen)}.",
            )
        message, hint = region.beyond(extent, "the gravity fields")
        raise InputError(message, f"{hint} Or run `gravmap residual` with a larger --region or --bbox.")
    if resolution_deg is None:
        slack = 1e-6
        lat = node_lat_deg[(node_lat_deg >= region.south - slack) & (node_lat_deg <= region.north + slack)]
        lon = node_lon_deg[(node_lon_deg >= region.west - slack) & (node_lon_deg <= region.east + slack)]
        if lat.size < 2 or lon.size < 2:
            raise InputError(
                f"The region {region} contains only {lat.size} x {lon.size} nodes of the gravity grid.",
                "Choose a larger region.",
            )
        return MapGrid(lat[::-1].astype(np.float64), lon.astype(np.float64), (step_lat, step_lon), 1.0)
    rows = max(1, round(region.height_deg / resolution_deg))
    cols = max(1, round(region.width_deg / resolution_deg))
    cell_lat = region.north - (np.arange(rows, dtype=np.float64) + 0.5) * resolution_deg
    cell_lon = region.west + (np.arange(cols, dtype=np.float64) + 0.5) * resolution_deg
    return MapGrid(cell_lat, cell_lon, (resolution_deg, resolution_deg), max(step_lat, step_lon) / resolution_deg)
