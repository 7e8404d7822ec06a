"""Simple methods for the thickness of the cover, for cover_thickness.py: they see outcrop and gravity of a crust.

They are fitted on crusts of the prior that the test crusts are drawn from, with seeds that no test uses.

- Distance: the mean thickness as a monotone function of the distance to outcrop (isotonic regression), and so its
  10 and 90 % quantiles.
- Slab: thickness = (level - gravity) / (2 pi G contrast), not negative. Gravity is the Bouguer anomaly or a residual;
  the level is 0, the mean over outcrop, or a regional field interpolated from outcrop.
- Parker and Oldenburg: the inversion of such gravity for the base of a cover of constant contrast.
- Boosted trees: distance and gravity together (scikit-learn).

References
----------
Barnes (1964), A technique for maximizing details in numerical weather map analysis, J. Appl. Meteorol. 3, 396-409.
Parker (1973), The rapid calculation of potential anomalies, Geophys. J. R. astr. Soc. 31, 447-455.
Oldenburg (1974), The inversion and interpretation of gravity anomalies, Geophysics 39, 526-536.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter, zoom
from scipy.optimize import isotonic_regression, minimize_scalar

from gravmap.lattice import EARTH_RADIUS_KM
from gravmap.learning.data.outcrop_context import distance_to_outcrop_km

Array = np.ndarray
SLAB_MGAL = 2 * math.pi * 6.67430e-11 * 1e5 * 1e3
"""Attraction of an infinite slab 1 km thick for each kg/m3, mGal."""

RESIDUALS = ("residual_5km", "residual_10km", "residual_20km", "residual_40km", "residual_80km")
CHANNELS = ("bouguer", *RESIDUALS)
"""Fields that the methods read."""

QUANTILES = (0.1, 0.9)
WIDEST_KM, LENGTHS_KM = 240.0, (15.0, 30.0, 60.0, 120.0)
"""Standard deviations of the Gaussian weights with which a regional field is interpolated from outcrop."""

CUTOFFS_KM = (15.0, 25.0, 40.0, 60.0, 90.0, 130.0)
"""Wavelengths of half the amplitude of the low pass of the inversion."""


@dataclass(frozen=True)
class View:
    """What the methods see of a crust, and the true thickness; north-up grids.

    Attributes
    ----------
    fields : dict of str to ndarray
        Gravity by name, mGal.
    covered : ndarray of bool
        Cells under cover.
    distance_km, thickness_km : ndarray
        Distance to mapped outcrop; true thickness of the cover.
    cell_km : (float, float)
        Size of a cell along the meridian and along the parallel.
    """

    fields: dict[str, Array]
    covered: Array
    distance_km: Array
    thickness_km: Array
    cell_km: tuple[float, float]

    @classmethod
    def of(cls, arrays: dict[str, Any]) -> View:
        """From the arrays of a crust (`gravmap.synthetic.crust_arrays`) with :data:`CHANNELS`."""
        ny, nx = arrays["labels"].shape
        west, south, east, north = arrays["label_bounds_wsen"]
        lat = north - (np.arange(ny) + 0.5) * (north - south) / ny
        lon = west + (np.arange(nx) + 0.5) * (east - west) / nx
        km = math.radians((north - south) / ny) * EARTH_RADIUS_KM
        names = arrays["meta"]["channels"]
        fields = {name: arrays["fields"][names.index(name)].astype(np.float64) for name in CHANNELS}
        return cls(
            fields,
            arrays["labels"] == 0,
            distance_to_outcrop_km(arrays["labels"], lat, lon),
            arrays["cover_m"].astype(np.float64) / 1000,
            (km, km * math.cos(math.radians((south + north) / 2))),
        )

    @property
    def truth(self) -> Array:
        """Thickness of the covered cells, km."""
        return self.thickness_km[self.covered]


def levels() -> list[tuple[str, str]]:
    """Names of fields and of the levels that are subtracted from them."""
    from_outcrop = ["outcrop", *(f"outcrop {length:g} km" for length in LENGTHS_KM)]
    return [*((name, "0") for name in RESIDUALS), *((name, level) for name in CHANNELS for level in from_outcrop)]


def anomaly(view: View, field: str, level: str) -> Array:
    """Gravity minus a level: ``0``, its mean over ``outcrop``, or a regional field from ``outcrop L km``.

    The last is interpolated by successive corrections (Barnes): to the mean over outcrop weighted means of what is
    left are added, the length of the Gaussian weights halved each time from :data:`WIDEST_KM` to L.
    """
    gravity = view.fields[field]
    if level == "0":
        return gravity
    mean = gravity[~view.covered].mean()
    if level == "outcrop":
        return gravity - mean
    known, regional = (~view.covered).astype(float), np.full_like(gravity, mean)
    length_km = float(level.split()[1])
    passes = round(math.log2(WIDEST_KM / length_km))
    for each in range(passes + 1):
        sigma = [WIDEST_KM / 2**each / km for km in view.cell_km]
        weight, excess = (
            gaussian_filter(values, sigma, truncate=3, mode="reflect")
            for values in (known, known * (gravity - regional))
        )
        regional = regional + excess / (weight + 0.01)
    return gravity - regional


@dataclass(frozen=True)
class Monotone:
    """Mean and quantiles of the thickness as monotone functions of one number, linear between bins of equal counts."""

    at: Array
    low: Array
    mean: Array
    high: Array

    @classmethod
    def fit(cls, values: Array, thickness_km: Array, bins: int = 300) -> Monotone:
        """Isotonic regression of the mean and of the quantiles of bins."""
        order = np.argsort(values, kind="stable")
        parts = [each for each in np.array_split(order, bins) if len(each)]
        rows = [
            [
                values[part].mean(),
                *np.quantile(thickness_km[part], QUANTILES[:1]),
                thickness_km[part].mean(),
                *np.quantile(thickness_km[part], QUANTILES[1:]),
            ]
            for part in parts
        ]
        at, *columns = np.transpose(rows)
        weights = np.array([len(part) for part in parts], float)
        return cls(at, *(isotonic_regression(column, weights=weights).x for column in columns))

    def predict(self, values: Array) -> Array:
        """10 % quantile, mean and 90 % quantile; (..., 3), km."""
        return np.stack([np.interp(values, self.at, each) for each in (self.low, self.mean, self.high)], axis=-1)


@dataclass(frozen=True)
class Slab:
    """The Bouguer slab, with the field, level and contrast of the least error on the crusts it is fitted on."""

    field: str
    level: str
    contrast: float

    @classmethod
    def fit(cls, views: Sequence[View]) -> Slab:
        """Compare all fields and levels, and contrasts from 50 to 1500 kg/m3."""
        truth = np.concatenate([view.truth for view in views])
        found = []
        for field, level in levels():
            low = np.concatenate([-anomaly(view, field, level)[view.covered] for view in views]).clip(min=0)

            def error(log: float, low: Array = low) -> float:
                return rmse(low / (SLAB_MGAL * math.exp(log)), truth)

            best = minimize_scalar(error, bounds=(math.log(50), math.log(1500)), method="bounded")
            found.append((best.fun, cls(field, level, math.exp(best.x))))
        return min(found, key=lambda each: each[0])[1]

    def predict(self, view: View) -> Array:
        """Thickness of the covered cells, km."""
        low = -anomaly(view, self.field, self.level)[view.covered]
        return np.maximum(low, 0) / (SLAB_MGAL * self.contrast)


def parker(thickness_km: Array, contrast: float, cell_km: tuple[float, float], terms: int = 12) -> Array:
    """Gravity of a layer below the surface by Parker's series, mGal; the grid is continued as its mirror image.

    Parameters
    ----------
    thickness_km : (ny, nx) ndarray
        Thickness, km.
    contrast : float
        Reference density minus that of the layer, kg/m3; the layer attracts less than its surroundings.
    cell_km : (float, float)
        Spacing of rows and columns, km.
    terms : int
        Terms of the series: (k h)^(n - 1) h / n!.
    """
    wavenumber = _wavenumber(thickness_km.shape, cell_km)
    return idctn(-SLAB_MGAL * contrast * _series(thickness_km, wavenumber, terms), type=2, norm="ortho")


def _series(thickness_km: Array, wavenumber: Array, terms: int) -> Array:
    """Spectrum of the sum of (-k)^(n - 1) h^n / n!, which is (1 - exp(-k h)) / k for a constant h."""
    total, power = np.zeros_like(wavenumber), np.ones_like(thickness_km)
    factor = np.ones_like(wavenumber)
    for n in range(1, terms + 1):
        power = power * thickness_km / n
        total += factor * dctn(power, type=2, norm="ortho")
        factor = factor * -wavenumber
    return total


def _wavenumber(shape: tuple[int, ...], cell_km: tuple[float, float]) -> Array:
    """Wavenumbers of the cosine transform, rad/km."""
    ky, kx = (math.pi * np.arange(size) / (size * km) for size, km in zip(shape, cell_km, strict=True))
    return np.hypot(ky[:, None], kx[None, :])


def invert(
    gravity: Array,
    contrast: float,
    cell_km: tuple[float, float],
    cutoff_km: float,
    outcrop: Array | None = None,
    most_km: float = math.inf,
    iterations: int = 60,
    tolerance_km: float = 0.005,
) -> Array:
    """Thickness of a layer of constant contrast from its gravity, by Oldenburg's iteration.

    The spectrum of the thickness is that of the gravity over 2 pi G contrast, minus the higher terms of Parker's series
    for the thickness of the last step, times a low pass: a cosine from 1 at 1.5 times the wavelength `cutoff_km` to 0
    at 0.75 times it.

    Parameters
    ----------
    gravity : (ny, nx) ndarray
        mGal; negative over the layer.
    contrast, cell_km
        As in :func:`parker`.
    cutoff_km : float
        Wavelength of the low pass, km.
    outcrop : (ny, nx) ndarray, optional
        Cells (or fractions of cells) without the layer; the thickness is set to 0 there in every step.
    most_km : float
        The thickness is clipped to 0 and this.
    iterations, tolerance_km
        It ends when the rms change of the thickness is below the tolerance.
    """
    wavenumber = _wavenumber(gravity.shape, cell_km)
    from_k, to_k = (2 * math.pi / (factor * cutoff_km) for factor in (1.5, 0.75))
    low_pass = 0.5 + 0.5 * np.cos(math.pi * np.clip((wavenumber - from_k) / (to_k - from_k), 0, 1))
    low_pass[wavenumber >= to_k] = 0
    kept = np.minimum(wavenumber, to_k)  # the series need not converge where the low pass is 0
    observed = dctn(-gravity / (SLAB_MGAL * contrast), type=2, norm="ortho")
    layer = 1.0 if outcrop is None else 1.0 - outcrop
    thickness = np.zeros_like(gravity)
    for _ in range(iterations):
        higher = _series(thickness, kept, 12) - dctn(thickness, type=2, norm="ortho")
        new = layer * np.clip(idctn(low_pass * (observed - higher), type=2, norm="ortho"), 0, most_km)
        change = rmse(new, thickness)
        thickness = new
        if change < tolerance_km:
            break
    return thickness


@dataclass(frozen=True)
class ParkerOldenburg:
    """The inversion, with the field, level and low pass of the least error on the crusts it is fitted on.

    The contrast is that of the least error on each crust itself, found with the truth: no other method has that.
    """

    field: str
    level: str
    cutoff_km: float
    most_km: float

    @classmethod
    def fit(cls, views: Sequence[View], note: Callable[[str], None] = lambda _: None) -> ParkerOldenburg:
        """Choose the field and the level at one low pass, then the low pass."""
        most = float(max(view.thickness_km.max() for view in views))
        start = [cls(field, level, CUTOFFS_KM[2], most) for field, level in levels()]
        # A slab with each crust's best contrast tells the promising ones from the others.
        first = sorted(start, key=lambda each: np.mean([_slab_error(each, view) for view in views]))[:5]
        best = min(first, key=lambda each: each.mean_error(views))
        found = min((cls(best.field, best.level, each, most) for each in CUTOFFS_KM), key=lambda e: e.mean_error(views))
        note(f"inversion compared: {', '.join(f'{each.field} - {each.level}' for each in first)}")
        return found

    def mean_error(self, views: Sequence[View]) -> float:
        """Error over crusts, each with its best contrast."""
        pairs = [(self.predict(view)[0], view.truth) for view in views]
        return rmse(*(np.concatenate(each) for each in zip(*pairs, strict=True)))

    def predict(self, view: View) -> tuple[Array, float]:
        """Thickness of the covered cells, km, and the contrast, kg/m3."""
        # Every second cell: what is finer is below the low pass.
        gravity = _halved(anomaly(view, self.field, self.level))
        outcrop, cell_km = _halved((~view.covered).astype(float)), tuple(2 * km for km in view.cell_km)
        factors = [size / half for size, half in zip(view.covered.shape, gravity.shape, strict=True)]

        def thickness(contrast: float) -> Array:
            found = invert(gravity, contrast, cell_km, self.cutoff_km, outcrop, self.most_km)  # type: ignore[arg-type]
            return zoom(found, factors, order=1, grid_mode=True, mode="nearest")[view.covered]

        best = minimize_scalar(
            lambda log: rmse(thickness(math.exp(log)), view.truth),
            bounds=(math.log(60), math.log(1200)),
            method="bounded",
            options={"xatol": 0.03},
        )
        return thickness(math.exp(best.x)), math.exp(best.x)


def _slab_error(inversion: ParkerOldenburg, view: View) -> float:
    low = np.maximum(-anomaly(view, inversion.field, inversion.level)[view.covered], 0)
    return rmse(low * float((low @ view.truth) / max(low @ low, 1e-9)), view.truth)


def _halved(grid: Array) -> Array:
    """Means over 2 x 2 cells; an odd last row or column is left out."""
    ny, nx = (size // 2 for size in grid.shape)
    return grid[: 2 * ny, : 2 * nx].reshape(ny, 2, nx, 2).mean(axis=(1, 3))


@dataclass(frozen=True)
class BoostedTrees:
    """Gradient boosting of the mean and of the quantiles on what is known of the same cell."""

    models: tuple[Any, ...]

    @classmethod
    def fit(cls, views: Sequence[View], step: int = 7) -> BoostedTrees | None:
        """Fit on every `step`-th covered cell; None without scikit-learn."""
        try:
            from sklearn.ensemble import HistGradientBoostingRegressor
        except ImportError:
            return None
        features = np.concatenate([cls.features(view)[::step] for view in views])
        truth = np.concatenate([view.truth[::step] for view in views])
        losses: Iterable[dict[str, Any]] = (
            {"loss": "quantile", "quantile": QUANTILES[0]},
            {"loss": "squared_error"},
            {"loss": "quantile", "quantile": QUANTILES[1]},
        )
        settings = {"max_iter": 150, "learning_rate": 0.07, "min_samples_leaf": 200, "random_state": 0}
        return cls(tuple(HistGradientBoostingRegressor(**settings, **loss).fit(features, truth) for loss in losses))

    @staticmethod
    def features(view: View) -> Array:
        """Distance to outcrop, residuals, and the Bouguer anomaly minus regional fields; (n, features)."""
        planes = [view.distance_km, *(view.fields[name] for name in RESIDUALS)]
        planes += [anomaly(view, "bouguer", f"outcrop {length:g} km") for length in LENGTHS_KM]
        return np.stack([plane[view.covered] for plane in planes], axis=1).astype(np.float32)

    def predict(self, view: View) -> Array:
        """10 % quantile, mean and 90 % quantile of the covered cells; (n, 3), km."""
        features = self.features(view)
        return np.maximum(np.stack([model.predict(features) for model in self.models], axis=1), 0)


def rmse(found: Array, truth: Array) -> float:
    """Root of the mean squared difference."""
    return float(np.sqrt(np.mean((found - truth) ** 2)))
