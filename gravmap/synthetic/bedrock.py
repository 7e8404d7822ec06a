"""Geology of a simulated crust: belts between faults, rock ages, granites, basins, cover and Moho."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gravmap.synthetic.geometry import FloatArray, StrikePlane
from gravmap.synthetic.setting import Setting

LABELS = NDArray[np.uint8]

PERMIAN, BASIC, ACID = 8, 9, 10

_BELT_CLIP_KM = (15.0, 160.0)
_MISFITS = 60


@dataclass(frozen=True, eq=False)
class Belts:
    """Elongated blocks of crust between faults.

    Attributes
    ----------
    index : ndarray of int, shape (ny, nx)
        Number of the belt that each node lies in.
    count : int
        Number of belts.
    fault_distance_km : ndarray, shape (ny, nx)
        Distance across strike to the nearest boundary between belts.
    fault_index : ndarray of int, shape (ny, nx)
        Number of that boundary.
    """

    index: NDArray[np.intp]
    count: int
    fault_distance_km: FloatArray
    fault_index: NDArray[np.intp]

    def draw(self, stream: np.random.Generator) -> FloatArray:
        """Draw one standard normal number per belt; shape (ny, nx), constant within a belt."""
        return stream.standard_normal(self.count)[self.index]


@dataclass(frozen=True, eq=False)
class Bedrock:
    """The rocks below the cover; all arrays have shape (ny, nx).

    Attributes
    ----------
    truth : ndarray of uint8
        Class of the bedrock surface, directly below the cover, 1..10.
    age_class : ndarray of uint8
        Class of the belt unit, 1..7, at the bedrock surface or deeper.
    permian_km, pluton_km : ndarray
        Thickness of the units above the belt unit, km; 0 where a unit is absent.
    pluton : ndarray of int
        Number of the intrusive body; 0 outside intrusives.
    pluton_class : ndarray of uint8, shape (bodies + 1,)
        Class of each body: acid or basic; 0 for body 0.
    belt_base_km : ndarray
        Depth of the base of the belt unit, km.
    """

    truth: LABELS
    age_class: LABELS
    permian_km: FloatArray
    pluton_km: FloatArray
    pluton: NDArray[np.intp]
    pluton_class: LABELS
    belt_base_km: FloatArray


def draw_belts(plane: StrikePlane, setting: Setting) -> Belts:
    """Divide the plane into belts of lognormal width with wavy boundaries."""
    stream = plane.streams.stream("belts")
    place = plane.across_km + setting.belt_wiggle_km * plane.field("belt wiggle", 60.0, stretch=2.0, smoothness=1.0)
    start, stop = place.min() - _BELT_CLIP_KM[1], place.max() + _BELT_CLIP_KM[1]
    boundaries = [start]
    while boundaries[-1] < stop:
        width = setting.belt_width_km * stream.lognormal(0, setting.belt_sigma)
        boundaries.append(boundaries[-1] + float(np.clip(width, *_BELT_CLIP_KM)))
    edges = np.asarray(boundaries)
    index = np.searchsorted(edges, place) - 1
    below, above = place - edges[index], edges[index + 1] - place
    return Belts(index, len(edges), np.minimum(below, above), np.where(below < above, index, index + 1))


def draw_uplift(plane: StrikePlane, belts: Belts, setting: Setting) -> FloatArray:
    """Relative uplift of the crust, mean 0 and variance 1, shape (ny, nx).

    The sum of a regional field, one offset per belt, and local relief. High uplift means deep erosion: older rock at
    the surface, and thin or no cover.
    """
    uplift = (
        0.8 * plane.field("uplift regional", setting.uplift_length_km, stretch=2.0, smoothness=1.2)
        + setting.uplift_throw * belts.draw(plane.streams.stream("uplift throw"))
        + 0.45 * plane.field("uplift local", 25.0, stretch=2.0, smoothness=1.0)
    )
    standard: FloatArray = (uplift - uplift.mean()) / uplift.std()
    return standard


def draw_bedrock(
    plane: StrikePlane, belts: Belts, uplift: FloatArray, kept: NDArray[np.bool_], setting: Setting
) -> Bedrock:
    """Assign the ten classes so that they occupy the given percentages of the `kept` nodes.

    Permian basins occupy the upper quantile of a field that decreases with uplift. Granites are added until their
    fraction is reached, then basic and ultrabasic bodies along faults. The remaining nodes are divided by the quantiles
    of an age level, so that neighbouring layers of a fold are neighbours in age.

    Parameters
    ----------
    plane, belts, uplift
        From the functions above.
    kept : ndarray of bool, shape (ny, nx)
        Nodes inside the crust; those of the margin are False and not counted.
    setting : Setting
        Percentages of the classes; parameters of folds, granites and basins.

    Returns
    -------
    Bedrock
        Percentages are exact to one node; those of intrusives (and so of the belt classes) to a part of a small body.
    """
    fractions = np.asarray(setting.shares_percent) / np.sum(setting.shares_percent)
    permian_km = _permian_basins(plane, uplift, kept, fractions[PERMIAN - 1], setting)
    free = kept & (permian_km == 0)
    pluton, pluton_km, acid = _plutons(plane, free, fractions[ACID - 1] * kept.sum(), _granites(plane, setting))
    free &= pluton == 0
    basic, basic_km, count = _plutons(plane, free, fractions[BASIC - 1] * kept.sum(), _basics(plane, belts, setting))
    # Granites are the younger ones and cut the basic bodies.
    pluton_km = np.where(pluton == 0, basic_km, pluton_km)
    pluton = np.where((pluton == 0) & (basic > 0), basic + acid, pluton)
    pluton_class = np.repeat(np.array([0, ACID, BASIC], dtype=np.uint8), [1, acid, count])

    level = (
        setting.age_of_belts * belts.draw(plane.streams.stream("age of belts"))
        + 0.75 * plane.field("folds", setting.fold_km, stretch=setting.fold_stretch, smoothness=1.8)
        - setting.age_on_uplift * uplift
    )
    remaining = free & (pluton == 0)
    if not remaining.any():  # in a crust of a few cells all can be granite
        remaining = kept
    age_class = _classes_by_level(level, remaining, fractions[:7])

    truth = np.where(pluton > 0, pluton_class[pluton], age_class)
    truth = np.where(permian_km > 0, np.uint8(PERMIAN), truth).astype(np.uint8)
    belt_base_km = (
        setting.belt_base_km
        + setting.belt_base_spread_km * belts.draw(plane.streams.stream("belt depth"))
        + 1.2 * plane.field("belt base", 40.0, stretch=2.0, smoothness=1.2)
    )
    base_km = np.clip(belt_base_km, 2.5, 11.0)
    return Bedrock(truth, age_class, permian_km, pluton_km, pluton, pluton_class, base_km)


def _classes_by_level(level: FloatArray, counted: NDArray[np.bool_], fractions: FloatArray) -> LABELS:
    """Classes 1, 2, ... by increasing level, each with its fraction of the counted nodes."""
    present = np.flatnonzero(fractions)
    steps = np.cumsum(fractions[present])[:-1] / fractions.sum()
    return (1 + present[np.searchsorted(np.quantile(level[counted], steps), level)]).astype(np.uint8)


def _permian_basins(
    plane: StrikePlane, uplift: FloatArray, kept: NDArray[np.bool_], fraction: float, setting: Setting
) -> FloatArray:
    """Thickness of the Permian, usually 0.2-2.4 km, in basins that cover a fraction of the kept nodes."""
    sag = plane.field("successor basins", setting.basin_length_km, stretch=2.5, smoothness=1.2)
    sag = sag - setting.basin_on_uplift * uplift
    rim = np.quantile(sag[kept], 1 - fraction)
    deepest = np.quantile(sag[kept], 0.998)
    depth = np.clip((sag - rim) / max(deepest - rim, 1e-9), 0, 1)
    permian_km: FloatArray = np.where(sag > rim, 0.2 + setting.permian_km * depth, 0.0)
    return permian_km


@dataclass(frozen=True, eq=False)
class _Bodies:
    """Where intrusive bodies of one kind lie, and how large they are.

    Attributes
    ----------
    name : str
        Of their random numbers.
    density : ndarray, shape (ny, nx)
        Relative probability of a centre.
    major_km, sigma : float
        Median major half axis, and its lognormal sigma.
    smallest_km, largest_km : float
        Limits of the half axis.
    aspect : (float, float)
        Limits of the ratio of the axes.
    turn_deg : float
        Standard deviation of the angle between major axis and strike.
    thickness : float
        a in T = a W^0.6.
    deepest_km : float
        Largest thickness.
    """

    name: str
    density: FloatArray
    major_km: float
    sigma: float
    smallest_km: float
    largest_km: float
    aspect: tuple[float, float]
    turn_deg: float
    thickness: float
    deepest_km: float


def _granites(plane: StrikePlane, setting: Setting) -> _Bodies:
    """Acid bodies, in clusters; none is thicker than 10 km, the threshold of batholiths.

    The threshold is that of Cruden, McCaffrey and Bunger (2018), Geometric scaling of tabular igneous intrusions.
    """
    density = np.exp(plane.field("pluton clusters", 70.0, stretch=2.0, smoothness=1.2))
    size = setting.granite_km, setting.granite_sigma, 3.0, 45.0
    return _Bodies("plutons", density, *size, (1.0, 2.6), 23.0, setting.granite_thickness, 10.0)


def _basics(plane: StrikePlane, belts: Belts, setting: Setting) -> _Bodies:
    """Basic and ultrabasic bodies: small, elongated along strike, near the faults between belts."""
    density = np.exp(-0.5 * (belts.fault_distance_km / setting.basic_fault_km) ** 2)
    density *= np.exp(plane.field("basic clusters", 50.0, stretch=3.0, smoothness=1.2))
    size = setting.basic_km, 0.5, 1.5, 20.0
    return _Bodies("basic bodies", density, *size, (1.5, 4.0), 10.0, setting.granite_thickness, 6.0)


def _plutons(
    plane: StrikePlane, counted: NDArray[np.bool_], target: float, bodies: _Bodies
) -> tuple[NDArray[np.intp], FloatArray, int]:
    """Place intrusive bodies at random until `target` counted nodes are inside one.

    Outline: an ellipse along strike (major half axis lognormal) with a rough edge. Thickness: T = a W^0.6 km (a usually
    0.69) for a body W km wide, lognormal with sigma 0.3, with a round base; Cruden and McCaffrey (2001,
    Physics and Chemistry of the Earth A 26, 303-315) find 0.6(+-0.15) W^0.6(+-0.1).
    """
    stream = plane.streams.stream(bodies.name)
    shape = counted.shape
    body = np.zeros(shape, dtype=np.intp)
    thickness = np.zeros(shape)
    if target <= 0:
        return body, thickness, 0
    cumulative = np.cumsum(bodies.density.ravel())
    rough = plane.isotropic("pluton edges", 7.0, smoothness=0.8)
    steps_km = np.diff(plane.y_km[:2, 0])[0], np.diff(plane.x_km[0, :2])[0]
    filled, number, misfits = 0, 0, 0
    # With few eligible nodes the target cannot be reached: stop when all of them are filled.
    while filled < min(target, counted.sum()):
        row, column = np.unravel_index(np.searchsorted(cumulative, stream.uniform(0, cumulative[-1])), shape)
        major = bodies.major_km * stream.lognormal(0, bodies.sigma)
        major = float(np.clip(major, bodies.smallest_km, bodies.largest_km))
        minor = major / stream.uniform(*bodies.aspect)
        turn = plane.strike_rad[row, column] + np.radians(stream.normal(0, bodies.turn_deg))
        width = 2 * np.sqrt(major * minor)
        deepest_km = min(bodies.thickness * width**0.6 * stream.lognormal(0, 0.3), bodies.deepest_km)
        half = [int(1.6 * major / step) + 1 for step in steps_km]
        box = (
            slice(max(row - half[0], 0), row + half[0] + 1),
            slice(max(column - half[1], 0), column + half[1] + 1),
        )
        north, east = plane.y_km[box] - plane.y_km[row, column], plane.x_km[box] - plane.x_km[row, column]
        along = (east * np.cos(turn) + north * np.sin(turn)) / major
        across = (-east * np.sin(turn) + north * np.cos(turn)) / minor
        radius = np.hypot(along, across) * (1 + 0.13 * rough[box])
        inside = radius < 1
        added = int((inside & counted[box] & (body[box] == 0)).sum())
        if filled + added - target > target - filled:
            # The total is closer to the target without this body; a smaller one may still fit.
            misfits += 1
            if misfits > _MISFITS:
                break
            continue
        number += 1
        filled += added
        body[box][inside] = number
        deep = deepest_km * np.sqrt(1 - np.clip(radius[inside], 0, 1) ** 3)
        thickness[box][inside] = np.maximum(thickness[box][inside], np.maximum(deep, 0.05))
    return body, thickness, number


# Below the base of the stack of units, which lies at 20 km; no continent's Moho is shallower.
SHALLOWEST_MOHO_KM = 24.0

# Geological maps show the bedrock below cover that is thinner than this.
MAPPED_KM = 0.05


def draw_cover(plane: StrikePlane, uplift: FloatArray, kept: NDArray[np.bool_], setting: Setting) -> FloatArray:
    """Thickness of the Meso-Cenozoic cover, km, shape (ny, nx): thick where the uplift is low.

    The edge of the mapped cover, where it is 50 m thick, is a contour of the uplift: the quantile at which the given
    fraction of the kept nodes is covered. Outside the cover thins to nothing; inside it thickens to its maximum.
    Offsets of the uplift between belts make it bounded by faults. With ``cover_on_uplift`` below 1 an independent
    field is mixed into the uplift.
    """
    fraction, deepest_km = setting.cover_share, setting.cover_deepest_km
    if setting.cover_on_uplift < 1:
        independent = plane.field("cover basins", setting.uplift_length_km, stretch=2.0, smoothness=1.2)
        correlation = setting.cover_on_uplift
        uplift = correlation * uplift + np.sqrt(1 - correlation**2) * independent
    if fraction <= 0:
        return np.zeros_like(uplift)
    shore = float(np.quantile(uplift[kept], min(fraction, 1.0))) if fraction < 1 else float(uplift[kept].max())
    deepest = shore - float(np.quantile(uplift[kept], 0.005))
    depth = (shore - uplift) / max(deepest, 1e-9)
    inside = np.clip(depth, 0, None)
    texture = np.exp(setting.cover_texture * plane.field("cover texture", 20.0, stretch=2.0))
    thickness = MAPPED_KM + (0.25 * np.minimum(4 * inside, 1) + deepest_km * inside**1.6) * texture
    # Outside the 50 m contour the slope stays that just inside, down to zero thickness.
    thickness = np.where(depth < 0, np.maximum(MAPPED_KM + depth, 0), thickness)
    return np.minimum(thickness, deepest_km)


def draw_cenozoic(plane: StrikePlane, cover_km: FloatArray, setting: Setting) -> FloatArray:
    """Thickness of the Cenozoic, the upper layer of the cover, km, shape (ny, nx); the rest of it is Mesozoic.

    Its fraction of the cover is a random field, clipped to 0 and 1: in parts of the cover the Mesozoic crops out, in
    others the Cenozoic lies on the bedrock.
    """
    variation = setting.cenozoic_variation * plane.field("cenozoic fraction", 60.0, stretch=2.0, smoothness=1.2)
    return cover_km * np.clip(setting.cenozoic_share + variation, 0, 1)


def draw_moho(plane: StrikePlane, uplift: FloatArray, setting: Setting) -> FloatArray:
    """Depth of the Moho, km, shape (ny, nx): smooth, deeper below uplifts, at least 24 km."""
    relief = plane.field("moho", setting.moho_length_km, stretch=1.5, smoothness=1.6, deep=True)
    depth_km = setting.moho_depth_km + setting.moho_relief_km * relief + setting.moho_root_km * uplift
    return np.maximum(depth_km, SHALLOWEST_MOHO_KM)
