"""Everything a crust is made from, as plain numbers: its densities and one draw from a prior, or its middle."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

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
        Density that a volcanic lens adds to its unit, and the smallest and largest fraction of a class taken by lenses.
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


@dataclass(frozen=True)
class Setting:
    """The numbers of one crust. What each does is in docs/method/crust.md.

    Attributes
    ----------
    latitude_deg : float
        Of the crust's middle.
    warp_km, warp_length_km : float
        How far (rms) and over which length the strike swings.
    fault_spacing_km, fault_shift_km : float
        Transverse faults along strike, and the most that one shifts the crust.
    belt_width_km, belt_sigma, belt_wiggle_km : float
        Belts between faults: median width, lognormal spread of the widths, waviness (rms) of their boundaries.
    belt_base_km, belt_base_spread_km : float
        How deep belt units reach, and how much it differs from belt to belt.
    uplift_length_km, uplift_throw : float
        Length of regional swells; fraction of the throws between belts.
    fold_km, fold_stretch, age_of_belts, age_on_uplift : float
        Folds across strike and how much longer along it; how far belts differ in age; how much older rock is where
        the crust was raised.
    granite_km, granite_sigma, granite_thickness : float
        Median major half axis and its lognormal spread; T in thickness = T width^0.6 (km).
    mesozoic_km, permian_km, basin_length_km, basin_on_uplift : float
        Deepest fill of the successor basins, their size, and how much they shun uplifts.
    cover_share : float
        Part of the region under 50 m of cover or more, 0 to 1.
    cover_deepest_km, cover_texture, cover_on_uplift : float
        Thickest cover; relief of its base from place to place; 1: it lies where the uplift is low, 0: anywhere.
    moho_depth_km, moho_relief_km, moho_length_km, moho_root_km : float
        Mean depth of the Moho, its relief (rms) and length, and how much deeper it is under an uplift of one sigma.
    low_pass_km, noise_mgal, noise_length_km : float
        What satellites and grids leave of the field: wavelength of half the amplitude (0: all is kept), and noise.
    shares_percent : tuple of 10 floats
        Classes 1..10 in the bedrock.
    rocks : RockTable
        Densities.
    """

    latitude_deg: float
    warp_km: float
    warp_length_km: float
    fault_spacing_km: float
    fault_shift_km: float
    belt_width_km: float
    belt_sigma: float
    belt_wiggle_km: float
    belt_base_km: float
    belt_base_spread_km: float
    uplift_length_km: float
    uplift_throw: float
    fold_km: float
    fold_stretch: float
    age_of_belts: float
    age_on_uplift: float
    granite_km: float
    granite_sigma: float
    granite_thickness: float
    mesozoic_km: float
    permian_km: float
    basin_length_km: float
    basin_on_uplift: float
    cover_share: float
    cover_deepest_km: float
    cover_texture: float
    cover_on_uplift: float
    moho_depth_km: float
    moho_relief_km: float
    moho_length_km: float
    moho_root_km: float
    low_pass_km: float
    noise_mgal: float
    noise_length_km: float
    shares_percent: tuple[float, ...]
    rocks: RockTable

    def to_dict(self) -> dict[str, Any]:
        """Every number, JSON-able; classes 1..10 in order."""
        rocks = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.rocks).items()}
        return {**asdict(self), "shares_percent": list(self.shares_percent), "rocks": rocks}
