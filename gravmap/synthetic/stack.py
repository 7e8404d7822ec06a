"""The units of a crust in every column with their densities, and their division into flat layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gravmap.synthetic.bedrock import PERMIAN, Bedrock, Belts
from gravmap.synthetic.geometry import FloatArray, StrikePlane
from gravmap.synthetic.layers import Layer
from gravmap.synthetic.setting import CLASSES, RockTable

UNITS = ("Cenozoic", "Mesozoic", "Permian", "pluton", "belt", "basement")
COVER_UNITS = 2
"""The first units of `UNITS`, whose contrast decays with depth."""
# Thin layers near the top, where a depth matters most; km.
LAYER_DEPTHS_KM = (0.0, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.5, 8.0, 10.0, 12.0, 16.0, 20.0)
MOHO_LAYER_DEPTHS_KM = tuple(range(-39, 54, 4))  # from the mean depth: from the shallowest Moho to roots of 50 km

# Weights of the three parts of a density's variation: between bodies, within a body, at small scale.
_BODY, _INSIDE, _SMALL = 0.65, 0.60, 0.45


@dataclass(frozen=True, eq=False)
class Stack:
    """Units on top of each other, from the surface to 20 km.

    Attributes
    ----------
    base_km : ndarray, shape (6, ny, nx), float32
        Depth of the base of every unit of `UNITS`; the base of an absent unit is that of the unit above it.
    contrast : ndarray, shape (6, ny, nx), float32
        Density minus the reference, kg/m3; that of the two layers of the cover holds at the surface and decays with
        depth.
    belt_class : ndarray, shape (ny, nx), uint8
        Class of the belt unit, 1..7, at the bedrock surface or deeper.
    pluton_class : ndarray, shape (ny, nx), uint8
        Class of the intrusive unit, 9 or 10; 0 where there is none.
    cover_scales_km : (float, float)
        Depth over which the contrast of the Cenozoic, and of the Mesozoic, decays by a factor of e.
    reference : float
        Density of the Bouguer reduction, kg/m3.
    """

    base_km: NDArray[np.float32]
    contrast: NDArray[np.float32]
    belt_class: NDArray[np.uint8]
    pluton_class: NDArray[np.uint8]
    cover_scales_km: tuple[float, float]
    reference: float

    @property
    def thickness_km(self) -> NDArray[np.float32]:
        """Thickness of every unit, shape (6, ny, nx); the sum over the units is 20 km everywhere."""
        return np.diff(self.base_km, axis=0, prepend=np.float32(0))

    @property
    def cover_km(self) -> NDArray[np.float32]:
        """Thickness of the cover, Cenozoic and Mesozoic together, shape (ny, nx)."""
        thickness: NDArray[np.float32] = self.base_km[COVER_UNITS - 1]
        return thickness

    def cut(self, part: slice | tuple[slice, ...]) -> Stack:
        """A copy of some of the columns; `part` indexes (row, column)."""
        where = (slice(None), *(part if isinstance(part, tuple) else (part,)))
        return Stack(
            self.base_km[where].copy(),
            self.contrast[where].copy(),
            self.belt_class[where[1:]].copy(),
            self.pluton_class[where[1:]].copy(),
            self.cover_scales_km,
            self.reference,
        )

    def density_at(self, depth_km: float) -> FloatArray:
        """Density at one depth, kg/m3, shape (ny, nx).

        Parameters
        ----------
        depth_km : float
            0 to 20; on the boundary of two units the density is that of the lower one.
        """
        unit = np.minimum((self.base_km <= depth_km).sum(axis=0), len(UNITS) - 1)
        contrast = np.take_along_axis(self.contrast, unit[None], axis=0)[0].astype(np.float64)
        contrast = contrast * self.compaction(unit, np.float64(depth_km))
        density: FloatArray = self.reference + contrast
        return density

    def compaction(self, unit: NDArray[np.integer], depth_km: FloatArray | np.float64) -> FloatArray:
        """Factor of the contrast of a unit at a depth: exp(-depth / scale) in the cover, 1 below it."""
        scales = np.array([*self.cover_scales_km, *[np.inf] * (len(UNITS) - COVER_UNITS)])
        factor: FloatArray = np.exp(-depth_km / scales[unit])
        return factor

    def layers(self, *, cover: bool) -> Iterator[Layer]:
        """Divide the cover, or everything below it, into flat layers, each with its mean contrast in every column.

        Parameters
        ----------
        cover : bool
            True: the cover alone; False: everything but the cover.
        """
        top = np.concatenate([np.zeros_like(self.base_km[:1]), self.base_km[:-1]]).astype(np.float64)
        base = self.base_km.astype(np.float64)
        for upper, lower in pairwise(LAYER_DEPTHS_KM):
            total = np.zeros(base.shape[1:])
            if cover:
                for unit, scale in enumerate(self.cover_scales_km):
                    start, end = np.clip(top[unit], upper, lower), np.clip(base[unit], upper, lower)
                    # Integral of the density-depth curve over the part of the layer that is in the unit.
                    total += self.contrast[unit] * scale * (np.exp(-start / scale) - np.exp(-end / scale))
            else:
                for unit in range(COVER_UNITS, len(UNITS)):
                    filled = np.clip(np.minimum(base[unit], lower) - np.maximum(top[unit], upper), 0, None)
                    total += filled * self.contrast[unit]
            if total.any():
                yield Layer(1000 * upper, 1000 * lower, total / (lower - upper))


def moho_layers(moho_km: FloatArray, mean_km: float, contrast: float) -> Iterator[Layer]:
    """Layers around the mean depth of the Moho: excess mass where mantle is above it, deficit where crust is below it.

    Contrasts are relative to a Moho at its mean depth, so the mean level of the gravity is arbitrary.
    """
    for upper, lower in pairwise(mean_km + depth for depth in MOHO_LAYER_DEPTHS_KM):
        mantle = np.clip(lower - np.maximum(moho_km, upper), 0, None) / (lower - upper)
        usual = max(lower - max(mean_km, upper), 0.0) / (lower - upper)
        if (mantle != usual).any():
            yield Layer(1000 * upper, 1000 * lower, contrast * (mantle - usual))


_LEAST_BELT_KM = 2.0
"""Belt units reach at least this far below the cover, basins and plutons above them: deep basins subsided with them."""


def build_stack(
    plane: StrikePlane, belts: Belts, bedrock: Bedrock, cover_km: tuple[FloatArray, FloatArray], rocks: RockTable
) -> Stack:
    """Compute the base and the density of every unit in every column.

    Parameters
    ----------
    plane, belts, bedrock, rocks
        Of the crust.
    cover_km : tuple of two ndarrays, shape (ny, nx)
        Thickness of the Cenozoic, and of the Mesozoic.
    """
    base = [cover_km[0], cover_km[0] + cover_km[1]]
    base.append(base[-1] + bedrock.permian_km)
    base.append(np.minimum(base[-1] + bedrock.pluton_km, LAYER_DEPTHS_KM[-1]))
    base.append(np.minimum(np.maximum(bedrock.belt_base_km, base[-1] + _LEAST_BELT_KM), LAYER_DEPTHS_KM[-1]))
    base.append(np.full_like(base[0], LAYER_DEPTHS_KM[-1]))

    inside = plane.field("density inside", 14.0, stretch=3.0, smoothness=1.2)
    small = plane.field("density small", 5.0, stretch=2.0, smoothness=0.8)
    bodies = plane.streams.stream("density of bodies").standard_normal((belts.count, CLASSES + 1))

    mean, std = (np.array([np.nan, *column]) for column in (rocks.mean, rocks.spread))

    def unit(index: NDArray[np.integer] | int) -> FloatArray:
        deviation = _BODY * bodies[belts.index, index] + _INSIDE * inside + _SMALL * small
        density: FloatArray = mean[index] + std[index] * deviation
        return density

    body = plane.streams.stream("density of plutons").standard_normal(bedrock.pluton_class.size)[bedrock.pluton]
    kind = bedrock.pluton_class[bedrock.pluton]
    belt = unit(bedrock.age_class) + _lenses(plane, bedrock, rocks)
    deficit = np.clip(1 + rocks.cover_spread * plane.field("cover density", 25.0, stretch=2.0), 0, None)
    density = [
        rocks.reference - rocks.cenozoic_deficit * deficit,
        rocks.reference - rocks.mesozoic_deficit * deficit,
        unit(PERMIAN),
        np.where(kind > 0, mean[kind] + std[kind] * body + 12.0 * inside, rocks.reference),
        belt,
        rocks.basement_mean + rocks.basement_spread * plane.field("basement", 60.0, stretch=2.0, deep=True),
    ]
    contrast = np.stack(density).astype(np.float32) - np.float32(rocks.reference)
    scales_km = rocks.cenozoic_scale_km, rocks.mesozoic_scale_km
    return Stack(np.stack(base).astype(np.float32), contrast, bedrock.age_class, kind, scales_km, rocks.reference)


def _lenses(plane: StrikePlane, bedrock: Bedrock, rocks: RockTable) -> FloatArray:
    """Density excess of volcanic lenses in belt units of Cambrian to Carboniferous age, kg/m3."""
    stream = plane.streams.stream("dense bodies")
    lens_field = plane.field("volcanic lenses", 6.0, stretch=5.0, smoothness=1.4)
    excess = np.zeros(lens_field.shape)
    for index in range(3, 8):
        of_class = bedrock.age_class == index
        fraction = stream.uniform(rocks.lens_smallest, rocks.lens_largest)
        if of_class.any():
            excess[of_class & (lens_field > np.quantile(lens_field[of_class], 1 - fraction))] = rocks.lens_excess
    return excess
