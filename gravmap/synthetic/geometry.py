"""Where things lie: a metric plane, coordinates that follow the strike, and random fields drawn in them.

Arrays are (y, x), rows ascending to the north. Lengths are km.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import map_coordinates

from gravmap.synthetic.setting import Setting

FloatArray = NDArray[np.float64]


_LEAST_FAULT_SHIFT_KM = 15.0


@dataclass(frozen=True)
class RandomStreams:
    """Independent random number streams, one for each part of the crust, from one seed.

    One stream per part: changing how many numbers one part draws leaves the others as they were.
    """

    seed: int

    def stream(self, part: str) -> np.random.Generator:
        """The random numbers of one part of the crust."""
        return np.random.default_rng([self.seed, zlib.crc32(part.encode())])


@dataclass(frozen=True, eq=False)
class StrikePlane:
    """A plane in km whose belts run along curved lines.

    Attributes
    ----------
    across_km, along_km : ndarray, shape (ny, nx)
        Coordinates across and along strike, curved, and broken where a transverse fault shifts the crust.
    deep_across_km, deep_along_km : ndarray, shape (ny, nx)
        The same without the faults: for what lies below them.
    strike_rad : ndarray, shape (ny, nx)
        Direction of the strike, anticlockwise from east.
    y_km, x_km : ndarray, shape (ny, nx)
        The plane itself.
    cell_km : float
        Mean node spacing: the finest detail that is drawn.
    streams : RandomStreams
        Random number streams of the crust.
    """

    across_km: FloatArray
    along_km: FloatArray
    deep_across_km: FloatArray
    deep_along_km: FloatArray
    strike_rad: FloatArray
    y_km: FloatArray
    x_km: FloatArray
    cell_km: float
    streams: RandomStreams

    def field(
        self, part: str, length_km: float, *, stretch: float = 3.0, smoothness: float = 1.0, deep: bool = False
    ) -> FloatArray:
        """A Gaussian field of unit variance that follows the strike; see `random_field`."""
        across, along = (self.deep_across_km, self.deep_along_km) if deep else (self.across_km, self.along_km)
        stream = self.streams.stream(part)
        return random_field(stream, across, along, length_km, stretch, smoothness, self.cell_km)

    def isotropic(self, part: str, length_km: float, *, smoothness: float = 1.0) -> FloatArray:
        """An isotropic Gaussian field of unit variance."""
        return random_field(self.streams.stream(part), self.y_km, self.x_km, length_km, 1.0, smoothness, self.cell_km)


def random_field(
    stream: np.random.Generator,
    across_km: FloatArray,
    along_km: FloatArray,
    length_km: float,
    stretch: float,
    smoothness: float,
    cell_km: float,
) -> FloatArray:
    r"""Gaussian random field with a von Karman (Matern) spectrum, at given places.

    The power spectrum is :math:`(1 + (k_s L)^2 + (k_a c L)^2)^{-(\nu + 1)}` with wavenumbers across and along strike
    in radians per km. The field is drawn on a regular grid of its two coordinates and interpolated to the places;
    the grid is four lengths larger than the places need, so its period cannot be seen.

    Parameters
    ----------
    stream : numpy.random.Generator
        Source of random numbers.
    across_km, along_km : ndarray, shape (ny, nx)
        Where the field is evaluated.
    length_km : float
        L: the length across strike.
    stretch : float
        c: how much longer the field is along strike.
    smoothness : float
        nu: 0.6 is rough, 1.8 is smooth.
    cell_km : float
        Finest detail that is drawn.

    Returns
    -------
    ndarray, shape (ny, nx)
        Mean 0 and variance 1 over many draws (not over this one).
    """
    step = max(min(length_km / 6, 3.0), 0.6 * cell_km)
    steps = step, max(min(step * stretch, length_km), 0.6 * cell_km)
    places = across_km, along_km
    lengths = length_km, length_km * stretch
    shape = [
        next_fast_len(int(np.ptp(place) / size + 4 * length / size) + 2, real=True)
        for place, size, length in zip(places, steps, lengths, strict=True)
    ]
    across = 2 * np.pi * np.fft.fftfreq(shape[0], steps[0])[:, None] * lengths[0]
    along = 2 * np.pi * np.fft.rfftfreq(shape[1], steps[1])[None, :] * lengths[1]
    power = (1 + across**2 + along**2) ** -(smoothness + 1)
    # The half plane of rfft2 stands for the whole: inner columns count twice.
    twice = np.full(power.shape[1], 2.0)
    twice[0] = 1.0
    if shape[1] % 2 == 0:
        twice[-1] = 1.0
    variance = float((power * twice).sum()) / (shape[0] * shape[1])
    values = irfft2(rfft2(stream.standard_normal(shape)) * np.sqrt(power / variance), s=shape)
    indices = [(place - place.min()) / size for place, size in zip(places, steps, strict=True)]
    # mypy: scipy has no types.
    interpolated: FloatArray = map_coordinates(values, indices, order=1, mode="nearest")
    return interpolated


def strike_plane(
    streams: RandomStreams, y_km: FloatArray, x_km: FloatArray, cell_km: float, setting: Setting
) -> StrikePlane:
    """Lay strike-following coordinates on a plane.

    The strike points anywhere; both coordinates are warped by smooth fields, then shifted across strike along
    transverse strike-slip faults.

    Parameters
    ----------
    streams : RandomStreams
        The seed.
    y_km, x_km : ndarray, shape (ny, nx)
        Northing and easting of the nodes.
    cell_km : float
        Mean node spacing.
    setting : Setting
        How far the strike swings, and the transverse faults.
    """
    stream = streams.stream("strike")
    strike = stream.uniform(0, np.pi)
    along = x_km * np.cos(strike) + y_km * np.sin(strike)
    across = -x_km * np.sin(strike) + y_km * np.cos(strike)
    warps = [
        setting.warp_km * random_field(streams.stream(part), y_km, x_km, setting.warp_length_km, 1.0, 1.8, cell_km)
        for part in ("warp across", "warp along")
    ]
    across, along = across + warps[0], along + warps[1]

    # The strike is where the across coordinate does not change.
    slope_y = np.gradient(across, axis=0) / np.gradient(y_km, axis=0)
    slope_x = np.gradient(across, axis=1) / np.gradient(x_km, axis=1)
    direction = np.arctan2(-slope_x, slope_y)

    faulted = across.copy()
    extent = np.ptp(along)
    count = max(1, round(extent / setting.fault_spacing_km * stream.uniform(0.7, 1.3)))
    for part in range(count):
        place = along.min() + extent * (part + stream.uniform(0.2, 0.8)) / count
        lean = np.tan(np.radians(stream.uniform(-35, 35)))
        shift = stream.choice([-1.0, 1.0]) * stream.uniform(_LEAST_FAULT_SHIFT_KM, setting.fault_shift_km)
        beyond = along - place - lean * (across - across.mean()) > 0
        # Half on either side keeps the crust where it was on average.
        faulted += np.where(beyond, shift / 2, -shift / 2)
    return StrikePlane(faulted, along, across, along, direction, y_km, x_km, cell_km, streams)
