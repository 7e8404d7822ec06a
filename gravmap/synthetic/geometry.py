"""Geometry of a simulated crust: a metric plane, coordinates along and across strike, and random fields in them.

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

    With one stream per part, a change in how many numbers one part draws does not change the others.
    """

    seed: int

    def stream(self, part: str) -> np.random.Generator:
        """The random number generator of one part of the crust, in its initial state."""
        return np.random.default_rng([self.seed, zlib.crc32(part.encode())])


@dataclass(frozen=True, eq=False)
class StrikePlane:
    """A plane in km with curvilinear coordinates across and along the strike of the belts.

    Attributes
    ----------
    across_km, along_km : ndarray, shape (ny, nx)
        Coordinates across and along strike; discontinuous at transverse faults.
    deep_across_km, deep_along_km : ndarray, shape (ny, nx)
        The same without the faults: for structures below them.
    strike_rad : ndarray, shape (ny, nx)
        Direction of the strike, anticlockwise from east.
    y_km, x_km : ndarray, shape (ny, nx)
        Northing and easting.
    cell_km : float
        Mean node spacing: random fields have no finer detail.
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
        """A Gaussian random field of unit variance, elongated along strike; see `random_field`."""
        across, along = (self.deep_across_km, self.deep_along_km) if deep else (self.across_km, self.along_km)
        stream = self.streams.stream(part)
        return random_field(stream, across, along, length_km, stretch, smoothness, self.cell_km)

    def isotropic(self, part: str, length_km: float, *, smoothness: float = 1.0) -> FloatArray:
        """An isotropic Gaussian random field of unit variance."""
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
    r"""Gaussian random field with a von Karman (Matern) spectrum, evaluated at given points.

    The power spectrum is :math:`(1 + (k_s L)^2 + (k_a c L)^2)^{-(\nu + 1)}` with wavenumbers across and along strike
    in radians per km. The field is drawn on a regular grid of its two coordinates and interpolated linearly to the
    points; the grid is four lengths larger than their extent, so that the field does not repeat within it.

    Parameters
    ----------
    stream : numpy.random.Generator
        Source of random numbers.
    across_km, along_km : ndarray, shape (ny, nx)
        Coordinates of the points.
    length_km : float
        L: correlation length across strike.
    stretch : float
        c: ratio of the correlation lengths along and across strike.
    smoothness : float
        nu: 0.6 is rough, 1.8 is smooth.
    cell_km : float
        Spacing of the points: the grid of the field is at most slightly finer.

    Returns
    -------
    ndarray, shape (ny, nx)
        Mean 0 and variance 1 over many realisations, not over each.
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
    # rfft2 holds half of the wavenumbers: all columns but the first and the Nyquist column count twice.
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
    """Define coordinates across and along strike on a plane.

    The mean strike has a random direction; both coordinates are warped by smooth fields, and then offset across strike
    by transverse strike-slip faults.

    Parameters
    ----------
    streams : RandomStreams
        Random numbers of the crust.
    y_km, x_km : ndarray, shape (ny, nx)
        Northing and easting of the nodes.
    cell_km : float
        Mean node spacing.
    setting : Setting
        Parameters of the warping and of the transverse faults.
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

    # The strike is the direction in which the coordinate across it is constant.
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
        # Half of the offset on each side, so that the mean position does not change.
        faulted += np.where(beyond, shift / 2, -shift / 2)
    return StrikePlane(faulted, along, across, along, direction, y_km, x_km, cell_km, streams)
