"""The quantities that a region and simulated crusts are compared in: names, units, and what a difference means."""

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

CUTS = 4
EVERY = 2
"""Every second cell is taken along both sides: a fifth of the time, and the score of a crust moves by under a point."""

SCORE_VERSION = 1
"""Raised whenever one map gets another score than before."""


def cover_mask_score(labels: NDArray[np.uint8], spacing_yx_km: tuple[float, float], classes: int) -> float | None:
    """Pixel accuracy of label diffusion on outcrop that was hidden, percent.

    The map's cover is mirrored and shifted (:mod:`gravmap.learning.data.cover_masks`) and what it then hides of the
    outcrop is predicted; the labels hidden by several such masks are pooled. The same map gets the same score.

    Parameters
    ----------
    labels : (ny, nx) uint8
        0 cover, 1..K bedrock, 255 not usable.
    spacing_yx_km : (float, float)
        Of the cells.
    classes : int
        K.

    Returns
    -------
    float or None
        None where the map has no cover, or no place for it that hides a part of the outcrop and leaves another one.
    """
    thin = labels[::EVERY, ::EVERY]
    cover, outcrop = thin == 0, (thin > 0) & (thin != UNUSABLE)
    if not cover.any() or not outcrop.any():
        return None
    drawing = np.random.Generator(np.random.PCG64(0))
    spacing = EVERY * spacing_yx_km[0], EVERY * spacing_yx_km[1]
    right = asked = cuts = 0
    for _ in range(TRIES):
        down, across = (int(drawing.integers(2 * count)) for count in thin.shape)
        hidden = shifted_cover(cover, (down, across)) & outcrop
        known = np.where(outcrop & ~hidden, thin, 0).astype(np.uint8)
        if not LEAST_HIDDEN <= hidden.sum() / outcrop.sum() <= MOST_HIDDEN or len(np.unique(known)) < 3:
            continue
        guess = class_probabilities(known, spacing, classes).argmax(axis=0) + 1
        right += int((guess[hidden] == thin[hidden]).sum())
        asked += int(hidden.sum())
        cuts += 1
        if cuts == CUTS:
            break
    return 100 * right / asked if asked else None


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
    """One number that is taken of every box and every crust.

    Attributes
    ----------
    key : str
        As in the statistics.
    label, unit : str
        For people.
    group : str
        Of :data:`GROUPS`.
    offset : float or None
        Compared as log(value + offset); None: as it is.
    least : float
        A range of simulated values counts as so wide at least, in the numbers that are compared.
    digits : int
        After the point.
    low, high : str
        What it means for a network taught on the crusts when the region has less, or more, than any of them.
    edit : str
        Which tables of the prior decide it.
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
        """The label where its group is not beside it."""
        if self.key == "cover_share":
            return "cover"
        before = {"gravity": "Bouguer anomaly, ", "contrast": "outcrop less cover, ", "classes": "outcrop of "}
        return before.get(self.group, "") + self.label

    def scaled(self, value: float) -> float:
        """The number that is compared."""
        return value if self.offset is None else float(np.log(max(value, 0.0) + self.offset))

    def told(self, value: float, unit: bool = True) -> str:
        """A value with its unit."""
        number = f"{value:.{self.digits}f}"
        return f"{number} {self.unit}" if unit and self.unit else number


_LOUD = "its rocks, cover or Moho pull harder than any that a network was shown"
_LOWS = "what a network learnt to make of lows misleads it here"
_ROOTS = (
    "beside its cover, its outcrop lies over lower gravity than on any crust (roots below ranges, light rock in them):"
    f" {_LOWS}"
)
_BASINS = (
    f"beside its outcrop, its cover lies over lower gravity than on any crust (thicker or lighter sediments): {_LOWS}"
)
_FAINT = "its field is fainter than any that a network was shown, by lighter contrasts or a smoother grid"


def quantities(channels: Sequence[str], class_names: Sequence[str]) -> list[Quantity]:
    """All quantities, in the order in which they are told.

    Parameters
    ----------
    channels : sequence of str
        Residuals of the field, such as ``residual_10km``.
    class_names : sequence of str
        Of classes 1..K; empty where the map's classes are not those of the crusts.
    """
    contrasts = "[class] spread, [cover] deficit and deepest_km, [field] low_pass_km"
    found = [
        Quantity("bouguer_std", "std", "mGal", "gravity", 0.1, 0.1, 1, _FAINT, _LOUD, "[moho] relief_km and contrast"),
        Quantity(
            "bouguer_range", "range", "mGal", "gravity", 1, 0.1, 0, _FAINT, _LOUD, "[moho] relief_km and contrast"
        ),
    ]
    for channel in channels:
        name = channel.replace("_", " ").replace("km", " km")
        for key, how in (("std", "std"), ("robust", "robust spread")):
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
                "[moho] root_km, [cover] on_uplift, deepest_km and deficit",
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
                "its short waves are weaker beside the long ones: the grid resolves less, or its sources lie deeper",
                "its short waves are stronger beside the long ones: more noise, or shallower sources",
                "[field] low_pass_km and noise_mgal",
            )
        )
    far = "[cover] share, [uplift] length_km"
    found.append(
        Quantity(
            "cover_share",
            "share",
            "%",
            "cover",
            None,
            4,
            0,
            "it shows more outcrop than a network is used to",
            "it shows less outcrop than a network is used to: more has to come from gravity",
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
                "its cover comes in smaller patches",
                "its cover is broader: places so far from outcrop were hardly taught",
                far,
            )
        )
    found.append(
        Quantity(
            "diffusion_score",
            "hidden outcrop told by label diffusion",
            "%",
            "geology",
            None,
            4,
            0,
            "its geology changes faster, or is less ordered: outcrop tells less than a network expects of it",
            "its geology is more even: outcrop alone tells more than a network expects of it",
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
                "a network expects more of this class",
                "a network was shown little of this class",
                f"share of [[class]] {index}",
            )
        )
    return found
