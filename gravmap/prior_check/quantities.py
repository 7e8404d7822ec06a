"""Quantities in which a region and simulated crusts are compared: names, units, and what a difference means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gravmap.lattice import UNUSABLE
from gravmap.learning.data.cover_masks import LEAST_HIDDEN, MOST_HIDDEN, TRIES, shifted_cover
from gravmap.learning.data.label_diffusion import class_probabilities
from gravmap.synthetic.statistics import BANDS_KM, QUARTILES

N_COVER_MASKS = 4
STRIDE = 2
"""Every second cell is used along both axes: a fifth of the time, and scores change by less than a point."""

SCORE_VERSION = 1
"""Incremented when the score of a map changes."""


def cover_mask_score(labels: NDArray[np.uint8], spacing_yx_km: tuple[float, float], classes: int) -> float | None:
    """Pixel accuracy of label diffusion on hidden outcrop, percent.

    The map's cover is mirrored and shifted (synthetic cover masks, :mod:`gravmap.learning.data.cover_masks`), and the
    outcrop that it then hides is predicted; hidden labels of several masks are pooled. The result is deterministic.

    Parameters
    ----------
    labels : (ny, nx) uint8
        0 cover, 1..K bedrock, 255 not usable.
    spacing_yx_km : (float, float)
        Spacing of the cells, km.
    classes : int
        K.

    Returns
    -------
    float or None
        None if the map has no cover, or if no shifted cover hides some of the outcrop and leaves some.
    """
    thin = labels[::STRIDE, ::STRIDE]
    cover, outcrop = thin == 0, (thin > 0) & (thin != UNUSABLE)
    if not cover.any() or not outcrop.any():
        return None
    rng = np.random.Generator(np.random.PCG64(0))
    spacing = STRIDE * spacing_yx_km[0], STRIDE * spacing_yx_km[1]
    correct = total = masks = 0
    for _ in range(TRIES):
        down, across = (int(rng.integers(2 * count)) for count in thin.shape)
        hidden = shifted_cover(cover, (down, across)) & outcrop
        known = np.where(outcrop & ~hidden, thin, 0).astype(np.uint8)
        if not LEAST_HIDDEN <= hidden.sum() / outcrop.sum() <= MOST_HIDDEN or len(np.unique(known)) < 3:
            continue
        predicted = class_probabilities(known, spacing, classes).argmax(axis=0) + 1
        correct += int((predicted[hidden] == thin[hidden]).sum())
        total += int(hidden.sum())
        masks += 1
        if masks == N_COVER_MASKS:
            break
    return 100 * correct / total if total else None


Group = Literal["gravity", "residuals", "contrast", "spectrum", "cover", "geology", "classes"]
GROUPS: dict[Group, str] = {
    "gravity": "Bouguer anomaly",
    "residuals": "Residuals",
    "contrast": "Outcrop less cover",
    "spectrum": "Power against wavelength",
    "cover": "Cover",
    "geology": "Pattern of the geology",
    "classes": "Classes in the outcrop",
}


@dataclass(frozen=True)
class Quantity:
    """One statistic of every box and every crust.

    Attributes
    ----------
    key : str
        Key in the statistics.
    label, unit : str
        For display.
    group : str
        Key of :data:`GROUPS`.
    offset : float or None
        Compared as log(value + offset); None: as it is.
    least : float
        Minimum width of the range of simulated values, on the compared scale.
    digits : int
        Decimals.
    low, high : str
        Meaning for a network trained on the crusts if the region has a lower, or a higher, value than any of them.
    edit : str
        Tables of the prior that determine it.
    """

    key: str
    label: str
    unit: str
    group: Group
    offset: float | None
    least: float
    digits: int
    low: str
    high: str
    edit: str

    @property
    def name(self) -> str:
        """The label together with its group."""
        if self.key == "cover_share":
            return "cover"
        before = {"gravity": "Bouguer anomaly, ", "contrast": "outcrop less cover, ", "classes": "outcrop of "}
        return before.get(self.group, "") + self.label

    def scaled(self, value: float) -> float:
        """The value on the compared scale."""
        return value if self.offset is None else float(np.log(max(value, 0.0) + self.offset))

    def format(self, value: float, unit: bool = True) -> str:
        """A value with its unit, as text."""
        number = f"{value:.{self.digits}f}"
        return f"{number} {self.unit}" if unit and self.unit else number


_LOUD = "its rocks, cover or Moho have stronger anomalies than any in training"
_LOWS = "what a network learned about gravity lows is misleading here"
_ROOTS = (
    "beside its cover, its outcrop lies over lower gravity than on any crust (roots below ranges, light rock in them):"
    f" {_LOWS}"
)
_BASINS = (
    f"beside its outcrop, its cover lies over lower gravity than on any crust (thicker or lighter sediments): {_LOWS}"
)
_FAINT = "its field is weaker than any in training, by smaller density contrasts or a smoother grid"


def quantities(channels: Sequence[str], class_names: Sequence[str]) -> list[Quantity]:
    """All quantities, in display order.

    Parameters
    ----------
    channels : sequence of str
        Residuals of the field, such as ``residual_10km``.
    class_names : sequence of str
        Of classes 1..K; empty if the map's classes are not those of the crusts.

    Examples
    --------
    >>> [quantity.key for quantity in quantities(["residual_10km"], ())][:4]
    ['bouguer_std', 'bouguer_range', 'residual_10km_std', 'residual_10km_robust']
    """
    contrasts = "[class] spread, [cover] cenozoic_deficit, mesozoic_deficit and deepest_km, [field] low_pass_km"
    found = [
        Quantity("bouguer_std", "std", "mGal", "gravity", 0.1, 0.1, 1, _FAINT, _LOUD, "[moho] relief_km and contrast"),
        Quantity(
            "bouguer_range", "range", "mGal", "gravity", 1, 0.1, 0, _FAINT, _LOUD, "[moho] relief_km and contrast"
        ),
    ]
    for channel in channels:
        name = channel.replace("_", " ").replace("km", " km")
        for key, how in (("std", "std"), ("robust", "robust std")):
            label = f"{name}, {how}"
            found.append(
                Quantity(f"{channel}_{key}", label, "mGal", "residuals", 0.01, 0.1, 2, _FAINT, _LOUD, contrasts)
            )
    for channel in channels:
        found.append(
            Quantity(
                f"{channel}_outcrop",
                f"{channel.replace('_', ' ').replace('km', ' km')}, mean",
                "mGal",
                "contrast",
                None,
                0.3,
                1,
                _ROOTS,
                _BASINS,
                "[moho] root_km, [cover] on_uplift, deepest_km, cenozoic_deficit and mesozoic_deficit",
            )
        )
    for longest, shortest in BANDS_KM:
        found.append(
            Quantity(
                f"slope_{longest}_{shortest}",
                f"slope {longest}-{shortest} km",
                "",
                "spectrum",
                None,
                0.2,
                1,
                "its short wavelengths are relatively weaker: lower resolution of the grid, or deeper sources",
                "its short wavelengths are relatively stronger: more noise, or shallower sources",
                "[field] low_pass_km and noise_mgal",
            )
        )
    far = "[cover] share, [uplift] length_km"
    found.append(
        Quantity(
            "cover_share",
            "share of the mapped area",
            "%",
            "cover",
            None,
            4,
            0,
            "it has more outcrop than in training",
            "it has less outcrop than in training: more has to be inferred from gravity",
            "[cover] share",
        )
    )
    for quartile in QUARTILES:
        found.append(
            Quantity(
                f"outcrop_distance_{quartile}",
                f"distance to outcrop, {quartile} % nearer",
                "km",
                "cover",
                1,
                0.1,
                0,
                "its cover is in smaller patches",
                "its cover is broader: places so far from outcrop are rare in training",
                far,
            )
        )
    found.append(
        Quantity(
            "diffusion_score",
            "outcrop under the map's cover shifted over it, predicted by label diffusion",
            "%",
            "geology",
            None,
            4,
            0,
            "its geology changes faster, or is less ordered: outcrop is less informative than in training",
            "its geology is more uniform: outcrop alone is more informative than in training",
            "[belts] width_km, [ages] fold_km, [granites] half_axis_km",
        )
    )
    for index, name in enumerate(class_names, 1):
        found.append(
            Quantity(
                f"share_{index}",
                name,
                "%",
                "classes",
                1,
                0.3,
                1,
                "this class is more frequent in training",
                "this class is rare in training",
                f"share of [[class]] {index}",
            )
        )
    return found
