"""Parameters of one crust: its geology, its densities and its gravity field."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

CLASSES = 10


@dataclass(frozen=True)
class RockTable:
    """Densities of the rocks of one crust, kg/m3 unless noted otherwise.

    `Prior.draw` and `Prior.typical` return one as `Setting.rocks`.

    Attributes
    ----------
    reference : float
        Density of the Bouguer reduction; gravity is computed from density contrasts to it.
    mean, spread : tuple of 10 floats
        Mean and standard deviation of the bedrock classes 1..10.
    lens_excess, lens_smallest, lens_largest : float
        Density excess of volcanic lenses over their unit, and the smallest and largest fraction of a class in lenses.
    basement_mean, basement_spread : float
        Mean and standard deviation of the basement below the belts.
    cenozoic_deficit, cenozoic_scale_km, mesozoic_deficit, mesozoic_scale_km : float
        The density of either layer of the cover at depth z is ``reference - deficit * exp(-z / scale_km)``.
    cover_spread : float
        Relative standard deviation of both deficits.
    moho_contrast : float
        Density of the mantle minus that of the crust.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from gravmap.synthetic import load_prior
    >>> rocks = load_prior().typical().rocks
    >>> rocks.reference, len(rocks.mean)
    (2670.0, 10)
    >>> replace(rocks, moho_contrast=400.0).moho_contrast
    400.0
    """

    reference: float
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    lens_excess: float
    lens_smallest: float
    lens_largest: float
    basement_mean: float
    basement_spread: float
    cenozoic_deficit: float
    cenozoic_scale_km: float
    mesozoic_deficit: float
    mesozoic_scale_km: float
    cover_spread: float
    moho_contrast: float


@dataclass(frozen=True)
class Setting:
    """Parameters of one crust; docs/method/crust.md describes the effect of each.

    `Prior.draw` and `Prior.typical` return one; `dataclasses.replace` changes single parameters of it.

    Attributes
    ----------
    latitude_deg : float
        Latitude of the middle of the crust.
    warp_km, warp_length_km : float
        Amplitude (rms) and correlation length of the warping of the strike.
    fault_spacing_km, fault_shift_km : float
        Spacing of transverse faults along strike, and the largest offset of one.
    belt_width_km, belt_sigma, belt_wiggle_km : float
        Belts between faults: median width, lognormal sigma of the widths, waviness (rms) of their boundaries.
    belt_base_km, belt_base_spread_km : float
        Mean depth of the base of belt units, and its standard deviation between belts.
    uplift_length_km, uplift_throw : float
        Correlation length of the regional uplift; weight of the offsets between belts.
    fold_km, fold_stretch, age_of_belts, age_on_uplift : float
        Correlation length of folds across strike, and the ratio of that along strike to it; weight of the differences
        in age between belts; weight of the uplift in the age of the rock.
    granite_km, granite_sigma, granite_thickness : float
        Median major half axis and its lognormal sigma; T in thickness = T width^0.6 (km).
    basic_km, basic_fault_km : float
        Median major half axis of basic and ultrabasic bodies, and the distance from faults within which most lie.
    permian_km, basin_length_km, basin_on_uplift : float
        Largest thickness of the Permian basins, their correlation length, and the weight with which uplift suppresses
        them.
    cover_share : float
        Fraction of the region under at least 50 m of cover, 0 to 1.
    cover_deepest_km, cover_texture, cover_on_uplift : float
        Largest thickness of the cover; amplitude of its local relief; correlation of the cover with low uplift, 0 to 1.
    cenozoic_share, cenozoic_variation : float
        Mean and standard deviation over the region of the fraction of the cover's thickness that is Cenozoic, the upper
        layer; the rest is Mesozoic. Clipped to 0 and 1.
    moho_depth_km, moho_relief_km, moho_length_km, moho_root_km : float
        Mean depth of the Moho, amplitude (rms) and correlation length of its relief, and its additional depth under an
        uplift of one standard deviation.
    low_pass_km, noise_mgal, noise_length_km : float
        Resolution and errors of a measured field: wavelength of half the amplitude (0: no filter), and noise.
    shares_percent : tuple of 10 floats
        Percentages of the classes 1..10 in the bedrock.
    rocks : RockTable
        Densities.

    Examples
    --------
    A crust with more cover than the default:

    >>> from dataclasses import replace
    >>> from gravmap.synthetic import load_prior, make_crust
    >>> setting = replace(load_prior().typical(), cover_share=0.75)
    >>> crust = make_crust(seed=1, shape=(8, 12), sub=1, margin=4, setting=setting)
    >>> float((crust.surface == 0).mean())
    0.75
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
    basic_km: float
    basic_fault_km: float
    permian_km: float
    basin_length_km: float
    basin_on_uplift: float
    cover_share: float
    cover_deepest_km: float
    cover_texture: float
    cover_on_uplift: float
    cenozoic_share: float
    cenozoic_variation: float
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
        """All parameters, JSON-serialisable; classes 1..10 in order."""
        rocks = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.rocks).items()}
        return {**asdict(self), "shares_percent": list(self.shares_percent), "rocks": rocks}
