"""The density table: which rock of the synthetic crust weighs how much."""

from __future__ import annotations

from dataclasses import dataclass

CLASSES = 10


@dataclass(frozen=True)
class RockTable:
    """Densities of every material of one crust, kg/m3 unless said otherwise.

    Attributes
    ----------
    reference : float
        Density of the Bouguer reduction; gravity is that of the departures from it.
    mean, spread : tuple of 10 floats
        Mean and standard deviation of the bedrock classes 1..10.
    lens_excess, lens_smallest, lens_largest : float
        What a volcanic lens adds to its unit, and the smallest and largest share of a class that lenses take.
    ophiolite_excess, ophiolite_half_width_km : float
        What ophiolite adds along a fault, and how far from the fault it reaches, km.
    basement_mean, basement_spread : float
        The basement below the belts.
    cover_deficit, cover_scale_km, cover_spread : float
        Cover weighs ``reference - cover_deficit * exp(-z / cover_scale_km)``; the relative spread of the deficit.
    moho_contrast : float
        Mantle minus crust.
    """

    reference: float
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    lens_excess: float
    lens_smallest: float
    lens_largest: float
    ophiolite_excess: float
    ophiolite_half_width_km: float
    basement_mean: float
    basement_spread: float
    cover_deficit: float
    cover_scale_km: float
    cover_spread: float
    moho_contrast: float
