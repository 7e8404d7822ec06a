"""Simulate a crust: bedrock and cover, the geological map of its surface, and the gravity above it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import rioxarray  # noqa: F401  the .rio accessor
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import convolve1d

from gravmap.errors import OptionError
from gravmap.lattice import EARTH_RADIUS_KM
from gravmap.synthetic.bedrock import (
    MAPPED_KM,
    draw_bedrock,
    draw_belts,
    draw_cenozoic,
    draw_cover,
    draw_moho,
    draw_uplift,
)
from gravmap.synthetic.geometry import FloatArray, RandomStreams, random_field, strike_plane
from gravmap.synthetic.layers import Layer, fade_window, low_pass, plane_gravity, sphere_gravity
from gravmap.synthetic.prior import Prior, load_prior
from gravmap.synthetic.setting import Setting
from gravmap.synthetic.stack import Stack, build_stack, moho_layers

SPACING_DEG = 1 / 30
LEGEND = "crust"
# Cells simulated around the kept ones and discarded at the end.
MARGIN_CELLS = 36
# Taller regions (degrees, without the margin) use the sphere: on a plane, cos(latitude) would be wrong by over 10 %.
TALLEST_PLANE_DEG = 8.0
_FADED = 0.6  # fraction of the margin over which density contrasts are tapered
_STEEPEST_LATITUDE_DEG = 79.0


@dataclass(frozen=True, eq=False)
class Crust:
    """A simulated crust whose bedrock is known everywhere.

    Cells are `spacing_deg` wide; the nodes of all grids are the CELL CENTRES (pixel registration). Rows of all arrays
    ASCEND IN LATITUDE, like those of the gravity grid: row 0 is the southernmost; ``array[::-1]`` is north-up.
    `make_crust` and `draw_crust` return one.

    Attributes
    ----------
    gravity : xr.DataArray, dims (lat, lon), float32
        Bouguer anomaly, mGal, at height 0, with CF attributes and the CRS EPSG:4326. Its level is arbitrary.
    surface : ndarray, shape (ny, nx), uint8
        The geological map: class of the bedrock, 1..10, where the cover is thinner than 50 m; elsewhere 0.
    truth : ndarray, shape (ny, nx), uint8
        Class of the bedrock directly below the cover, 1..10, everywhere.
    cover_thickness_m : ndarray, shape (ny, nx), float32
        Thickness of the cover, Cenozoic and Mesozoic together, metres.
    moho_depth_m : ndarray, shape (ny, nx), float32
        Depth of the Moho, metres.
    belt : ndarray, shape (ny, nx), int16
        Number of the belt below the cover; belts meet at faults.
    stack : Stack
        Units, thicknesses and densities of every column, to 20 km.
    bounds_wsen : tuple of float
        Outer edges of the cells: west, south, east, north, degrees.
    setting : Setting
        Parameters of its geology and of its gravity field.
    around : xr.DataArray or None
        Gravity of a larger box, with a collar of cells on each side, laid out as `gravity`. Upward continuation near
        the sides of the region needs it.
    components : dict of str to ndarray, or None
        Gravity of ``bedrock``, ``cover``, ``moho`` and ``noise``, mGal, shape (ny, nx). Their sum is `gravity`.
    seed : int
        Seed of its random numbers.
    parameters : dict
        Every other argument of `make_crust`, and the prior it was drawn from, if any; JSON-serialisable.

    Examples
    --------
    >>> crust = make_crust(seed=1, shape=(8, 12), sub=1, margin=4)
    >>> crust.gravity.dims, crust.gravity.shape, crust.gravity.attrs["units"]
    (('lat', 'lon'), (8, 12), 'mGal')
    >>> outcrop = crust.surface > 0
    >>> bool((crust.surface[outcrop] == crust.truth[outcrop]).all())
    True
    """

    gravity: xr.DataArray
    surface: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    cover_thickness_m: NDArray[np.float32]
    moho_depth_m: NDArray[np.float32]
    belt: NDArray[np.int16]
    stack: Stack
    bounds_wsen: tuple[float, float, float, float]
    setting: Setting
    around: xr.DataArray | None
    components: dict[str, NDArray[np.float32]] | None
    seed: int
    parameters: dict[str, Any]


def make_crust(
    seed: int = 0,
    shape: tuple[int, int] = (160, 240),
    south_west: tuple[float, float] = (82.0, 43.0),
    spacing_deg: float = SPACING_DEG,
    *,
    sub: int = 2,
    setting: Setting | None = None,
    margin: int = MARGIN_CELLS,
    collar: int = 0,
    components: bool = False,
) -> Crust:
    """Simulate a crust and the gravity above it.

    The method, its sources and its limits are described in docs/method/crust.md. The same arguments give the same bits
    on one machine and one version of numpy; another shape gives another crust.

    Parameters
    ----------
    seed : int
        Seed of the random numbers, >= 0.
    shape : (int, int)
        Rows (latitude) and columns (longitude) of cells.
    south_west : (float, float)
        Longitude and latitude of the south-west CORNER of the south-western cell, degrees.
    spacing_deg : float
        Size of a cell, degrees; 2 arc-minutes, as in WGM2012, by default.
    sub : int
        The crust is built on a grid this many times finer, and its gravity averaged over the cells.
    setting : Setting, optional
        Parameters of the geology and of the field; the latitude is taken from `south_west`. By default those in the
        middle of the prior ``central-asia``, see `Prior.typical`.
    margin : int
        Number of cells simulated around the region and then discarded.
    collar : int
        Number of cells of the margin whose gravity is kept in `Crust.around`. Noise is drawn for the box with its
        collar, so that crusts with different collars have different noise.
    components : bool
        Whether to keep the gravity of bedrock, cover, Moho and noise in `Crust.components`.

    Returns
    -------
    Crust

    Raises
    ------
    OptionError
        An argument or a parameter of `setting` is invalid, or the region is too close to a pole.

    Examples
    --------
    >>> from gravmap.synthetic import make_crust
    >>> crust = make_crust(seed=1, shape=(8, 12), sub=1, margin=4, components=True)
    >>> crust.truth.shape, crust.bounds_wsen
    ((8, 12), (82.0, 43.0, 82.4, 43.266666666666666))
    >>> sorted(crust.components)
    ['bedrock', 'cover', 'moho', 'noise']

    The same seed gives the same crust:

    >>> again = make_crust(seed=1, shape=(8, 12), sub=1, margin=4)
    >>> bool((again.gravity == crust.gravity).all())
    True
    """
    setting = load_prior().typical() if setting is None else setting
    _check(seed, shape, south_west, spacing_deg, sub, setting, margin, collar)
    ny, nx = shape
    west, south = south_west
    # Nodes of the fine grid: every cell centre, and sub - 1 nodes between two centres.
    fine_deg = spacing_deg / sub
    lat: FloatArray = south + (0.5 - margin) * spacing_deg + fine_deg * np.arange((ny + 2 * margin - 1) * sub + 1.0)
    lon: FloatArray = west + (0.5 - margin) * spacing_deg + fine_deg * np.arange((nx + 2 * margin - 1) * sub + 1.0)
    middle = np.radians(south + ny * spacing_deg / 2)
    northing = EARTH_RADIUS_KM * np.radians(lat - np.degrees(middle))
    easting = EARTH_RADIUS_KM * np.cos(middle) * np.radians(lon - lon.mean())
    y_km, x_km = np.meshgrid(northing, easting, indexing="ij")
    spacing_yx_m = 1000 * (northing[1] - northing[0]), 1000 * (easting[1] - easting[0])
    kept = np.zeros(y_km.shape, dtype=bool)
    inner = _cells(0, shape, margin, sub)
    kept[inner] = True

    streams = RandomStreams(seed)
    plane = strike_plane(streams, y_km, x_km, float(np.sqrt(spacing_yx_m[0] * spacing_yx_m[1])) / 1000, setting)
    belts = draw_belts(plane, setting)
    uplift = draw_uplift(plane, belts, setting)
    cover_km = draw_cover(plane, uplift, kept, setting)
    moho_km = draw_moho(plane, uplift, setting)
    bedrock = draw_bedrock(plane, belts, uplift, kept, setting)
    cenozoic_km = draw_cenozoic(plane, cover_km, setting)
    stack = build_stack(plane, belts, bedrock, (cenozoic_km, cover_km - cenozoic_km), setting.rocks)

    window = fade_window((lat.size, lon.size), (_FADED * margin * sub, _FADED * margin * sub))
    filters = low_pass(1000 * setting.low_pass_km) if setting.low_pass_km > 0 else None
    tall = ny * spacing_deg > TALLEST_PLANE_DEG

    wide = _cells(collar, shape, margin, sub)

    def attraction(layers: Iterable[Layer]) -> FloatArray:
        if tall:
            return _cell_means(sphere_gravity(layers, lat, lon, window, filters=filters), sub)[wide]
        return _cell_means(plane_gravity(layers, spacing_yx_m, window, filters=filters), sub)[wide]

    parts = {
        "bedrock": attraction(stack.layers(cover=False)),
        "cover": attraction(stack.layers(cover=True)),
        "moho": attraction(moho_layers(moho_km, setting.moho_depth_km, setting.rocks.moho_contrast)),
        "noise": setting.noise_mgal
        * random_field(
            streams.stream("noise"), y_km[wide], x_km[wide], setting.noise_length_km, 1.0, 1.0, plane.cell_km * sub
        ),
    }
    total = _grid(np.sum(list(parts.values()), axis=0), shape, (west, south), spacing_deg, collar)
    own = slice(collar, collar + ny), slice(collar, collar + nx)
    thickness_km, truth = stack.cover_km[inner], bedrock.truth[inner].copy()
    setting = replace(setting, latitude_deg=float(np.degrees(middle)))
    return Crust(
        gravity=total[own] if collar else total,
        # The 50 m contour passes through a node, whose thickness may be rounded down in float32.
        surface=np.where(thickness_km < MAPPED_KM - 1e-6, truth, 0).astype(np.uint8),
        truth=truth,
        cover_thickness_m=1000 * thickness_km,
        moho_depth_m=(1000 * moho_km[inner]).astype(np.float32),
        belt=belts.index[inner].astype(np.int16),
        stack=stack.cut(inner),
        bounds_wsen=(west, south, west + nx * spacing_deg, south + ny * spacing_deg),
        setting=setting,
        around=total if collar else None,
        components={name: part[own].astype(np.float32) for name, part in parts.items()} if components else None,
        seed=int(seed),
        parameters={
            "shape": [int(ny), int(nx)],
            "south_west": [float(west), float(south)],
            "spacing_deg": spacing_deg,
            "sub": sub,
            "margin": margin,
            "collar": collar,
            "setting": setting.to_dict(),
            "operator": "latitude-variable" if tall else "plane",
        },
    )


def _cells(collar: int, shape: tuple[int, int], margin: int, sub: int) -> tuple[slice, slice]:
    """Slices of the fine grid: the centres of the region's cells and of `collar` cells around it."""
    first = (margin - collar) * sub
    rows, columns = (slice(first, (margin + collar + size - 1) * sub + 1, sub) for size in shape)
    return rows, columns


def _cell_means(fine: FloatArray, sub: int) -> FloatArray:
    """Moving average over a cell, `sub` fine steps wide; where `sub` is even the outermost nodes have half weight."""
    if sub == 1:
        return fine
    weights = np.full(sub + 1 - sub % 2, 1.0 / sub)
    if sub % 2 == 0:
        weights[[0, -1]] /= 2
    means: FloatArray = convolve1d(convolve1d(fine, weights, axis=0, mode="nearest"), weights, axis=1, mode="nearest")
    return means


def _grid(
    values: FloatArray, shape: tuple[int, int], south_west: tuple[float, float], spacing_deg: float, collar: int
) -> xr.DataArray:
    """A gravity grid with the coordinates, attributes and CRS that :mod:`gravmap.gravity` uses."""
    lon, lat = (
        corner + spacing_deg * (np.arange(-float(collar), size + collar) + 0.5)
        for corner, size in zip(south_west, shape[::-1], strict=True)
    )
    grid = xr.DataArray(
        values.astype(np.float32),
        dims=("lat", "lon"),
        coords={
            "lat": (
                "lat",
                lat,
                {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north", "axis": "Y"},
            ),
            "lon": (
                "lon",
                lon,
                {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east", "axis": "X"},
            ),
        },
        name="bouguer",
        attrs={"long_name": "Bouguer anomaly of a synthetic crust", "units": "mGal", "height_m": 0.0},
    )
    placed: xr.DataArray = grid.rio.write_crs("EPSG:4326")
    return placed


def _check(
    seed: int,
    shape: tuple[int, int],
    south_west: tuple[float, float],
    spacing_deg: float,
    sub: int,
    setting: Setting,
    margin: int,
    collar: int,
) -> None:
    if seed < 0:
        raise OptionError(f"The seed is {seed}, which is negative.", "Use a whole number from 0 up.")
    if min(shape) < 2:
        raise OptionError(f"A crust of {shape[0]} x {shape[1]} cells is too small.", "Use at least 2 x 2 cells.")
    _check_positive(spacing_deg=spacing_deg)
    if sub < 1 or margin < 1:
        raise OptionError(
            f"sub is {sub} and margin is {margin}; both must be at least 1.", "The defaults are sub 2 and margin 36."
        )
    if not 0 <= collar <= margin:
        raise OptionError(
            f"The collar is {collar} cells, outside 0 to the margin of {margin} cells.",
            "Use a smaller collar or a larger margin.",
        )
    _check_positive(belt_width_km=setting.belt_width_km, noise_length_km=setting.noise_length_km)
    percentages = setting.shares_percent
    if not 0 <= setting.cover_share <= 1:
        raise OptionError(
            f"cover_share, the covered fraction, is {setting.cover_share:g}.", "Use a number from 0 to 1."
        )
    if len(percentages) != 10 or min(percentages) < 0 or sum(percentages[:7]) <= 0:
        raise OptionError(
            f"shares_percent is {percentages}: ten numbers of at least 0 are needed, one of the first seven above 0.",
            "Those of the prior central-asia are 1, 9, 6, 6, 4, 19, 25, 5, 1.5, 24.",
        )
    margin_deg = margin * spacing_deg
    south, north = south_west[1] - margin_deg, south_west[1] + shape[0] * spacing_deg + margin_deg
    if max(abs(south), abs(north)) > _STEEPEST_LATITUDE_DEG:
        raise OptionError(
            f"The crust with its margin would span latitudes from {south:g} to {north:g} degrees.",
            f"Stay within {_STEEPEST_LATITUDE_DEG:g} degrees of the equator.",
        )


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0):
            raise OptionError(f"{name} is {value:g}, which is not above 0.", "Use a positive number.")


_WEST_DEG = 82.0  # arbitrary: nothing depends on the longitude


def draw_crust(
    prior: Prior,
    seed: int,
    shape: tuple[int, int] = (240, 360),
    *,
    sub: int = 1,
    collar: int = MARGIN_CELLS,
    components: bool = False,
) -> Crust:
    """Draw a crust from a prior: its parameters (`Prior.draw`), and then its geology (`make_crust`).

    Parameters
    ----------
    prior : Prior
        Distributions of the parameters, see `load_prior`.
    seed : int
        Seed of both, >= 0.
    shape : (int, int)
        Rows and columns of cells of 2 arc-minutes.
    sub : int
        As in `make_crust`. The default of 1 builds the crust on its cells: four times faster than 2.
    collar : int
        As in `make_crust`; by default the whole margin, so that residuals are accurate up to the sides of the region.
    components : bool
        As in `make_crust`.

    Returns
    -------
    Crust
        At the latitude that was drawn; its longitude is arbitrary.

    Raises
    ------
    OptionError
        As `make_crust`.

    Examples
    --------
    >>> from gravmap.synthetic import draw_crust, load_prior
    >>> crust = draw_crust(load_prior("wide"), seed=3, shape=(6, 9))
    >>> crust.truth.shape, crust.around.shape
    ((6, 9), (78, 81))
    >>> crust.parameters["prior"]["name"]
    'wide'
    """
    if seed < 0:
        raise OptionError(f"The seed is {seed}, which is negative.", "Use a whole number from 0 up.")
    setting = prior.draw(seed)
    south = round(setting.latitude_deg - shape[0] * SPACING_DEG / 2, 6)
    crust = make_crust(
        seed,
        shape,
        (_WEST_DEG, south),
        sub=sub,
        setting=setting,
        collar=collar,
        components=components,
    )
    parameters = {"prior": {"name": prior.name, "sha256": prior.sha256}, **crust.parameters}
    return replace(crust, parameters=parameters)
