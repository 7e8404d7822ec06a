"""Gravity of a crust resampled to the height, node spacing and residuals of a measured field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from gravmap.gravity.fields import residual_fields
from gravmap.lattice import KM_PER_DEGREE
from gravmap.regions import Region
from gravmap.synthetic.crust import SPACING_DEG, Crust
from gravmap.units import format_length

_SAME = 1.02  # ratio of spacings up to which they count as equal
_FINEST_THINNED_DEG = 5 / 60
_LEVEL_PER_SPACING = 0.25


@dataclass(frozen=True)
class Measuring:
    """How a field is sampled.

    Attributes
    ----------
    level_m : float
        Height of its nodes above the surface.
    spacing_yx_deg : (float, float)
        Node spacing along latitude and longitude.
    heights_m : tuple of float
        Continuation heights of its residuals, above that level.
    """

    level_m: float
    spacing_yx_deg: tuple[float, float]
    heights_m: tuple[float, ...]

    @property
    def coarse(self) -> bool:
        """Whether its node spacing is larger than that of a crust."""
        return max(self.spacing_yx_deg) > _SAME * SPACING_DEG

    def why_not(self) -> str | None:
        """Reason why crusts cannot be sampled in the same way; None if they can.

        A node of a coarse grid at the surface may hold a point value or the mean of a cell, aliased or filtered, and
        the residuals of these differ. High above the surface the field has no wavelengths too short for the grid.
        """
        widest = max(self.spacing_yx_deg)
        if widest <= _SAME * _FINEST_THINNED_DEG:
            return None
        if self.level_m >= _LEVEL_PER_SPACING * 1000 * KM_PER_DEGREE * widest:
            return None
        return (
            f"its nodes are {60 * widest:.3g} arc-minutes apart at {format_length(self.level_m)} height: how shorter"
            " wavelengths were filtered is not known, so crusts cannot be sampled in the same way"
        )


def measured_fields(crust: Crust, how: Measuring) -> xr.Dataset:
    """Bouguer anomaly and residuals of a crust, computed as those of a measured field.

    The gravity of the region and its collar is continued to the level of the field, interpolated to its node spacing
    (a spacing finer than the crust's is not applied), and split by `gravmap.gravity.residual_fields`.

    Parameters
    ----------
    crust : Crust
        With `Crust.around`.
    how : Measuring
        Sampling of the field.

    Returns
    -------
    xr.Dataset, dims (lat, lon) ascending, mGal
        ``bouguer``, ``residual_H`` and the other fields of the region without the collar.
    """
    grid = crust.gravity if crust.around is None else crust.around
    if how.level_m > 0:
        raised = residual_fields(grid, [how.level_m])[f"regional_{format_length(how.level_m)}"]
        grid = raised.assign_attrs(height_m=how.level_m)
    if how.coarse:
        grid = _thinned(grid, crust.bounds_wsen, how.spacing_yx_deg)
    return residual_fields(grid, heights(how), Region(*crust.bounds_wsen))


def surface_at(crust: Crust, lat: NDArray[np.floating], lon: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Class of the crust's geological map at each node of a field, shape (lat, lon): that of the cell it lies in."""
    west, south, _, _ = crust.bounds_wsen
    step = float(crust.gravity["lat"].values[1] - crust.gravity["lat"].values[0])
    places = [
        np.clip(np.floor((nodes - corner) / step + 1e-9).astype(int), 0, count - 1)
        for nodes, corner, count in zip((lat, lon), (south, west), crust.surface.shape, strict=True)
    ]
    return crust.surface[np.ix_(*places)]


def heights(how: Measuring) -> Sequence[float]:
    """Continuation heights of the residuals; 10 km if there are none."""
    return how.heights_m or (10_000.0,)


def _thinned(
    grid: xr.DataArray, bounds_wsen: tuple[float, float, float, float], spacing_yx_deg: tuple[float, float]
) -> xr.DataArray:
    """Interpolate a grid (cubic) to a coarser spacing; the first node of the region is half a step from its corner."""
    west, south, _, _ = bounds_wsen
    axes = {}
    for name, corner, step in (("lat", south, spacing_yx_deg[0]), ("lon", west, spacing_yx_deg[1])):
        nodes = grid[name].values
        first, last = np.ceil((nodes[0] - corner) / step - 0.5), np.floor((nodes[-1] - corner) / step - 0.5)
        axes[name] = corner + (np.arange(first, last + 1) + 0.5) * step
    places = [(axes[name] - grid[name].values[0]) / (grid[name].values[1] - grid[name].values[0]) for name in axes]
    values = map_coordinates(
        grid.values.astype(np.float64), np.meshgrid(*places, indexing="ij"), order=3, mode="nearest"
    )
    return xr.DataArray(values.astype(np.float32), coords=axes, dims=("lat", "lon"), attrs=grid.attrs)
