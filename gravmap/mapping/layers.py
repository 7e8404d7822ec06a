"""The layers of a map: what prediction computes for each cell and the files store."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gravmap.plotting import BLUE, ORANGE, OUTCROP_COLOUR, PALE_BLUE, UNMAPPED_COLOUR

NODATA = 255

THICKNESS_BANDS = {
    "median": "median of the predicted distribution of the thickness of the cover",
    "p10": "10 % quantile: on the simulated crusts of its calibration one in ten true thicknesses is smaller",
    "p90": "90 % quantile: on the simulated crusts of its calibration one in ten true thicknesses is larger",
}
"""Bands of ``cover_thickness.tif``, metres, in the order of the file, with their meaning."""

THICKNESS_NODATA = 65535
"""No data of ``cover_thickness.tif``, which stores whole metres: outcrop, unmapped ground and outside the region."""

THICKNESS_COLOURS = "YlGnBu"
"""Colour map of matplotlib, from thin to thick."""

GRAVITY_STEP_MGAL, GRAVITY_LEAST_MGAL = 0.02, -655.36
"""``gravity.tif`` stores round((value - least) / step) as uint16, which holds any Bouguer anomaly on Earth."""

DISTANCE_STEP_KM = 0.05
"""``outcrop_distance.tif`` stores round(value / step) as uint16: up to 3276 km."""

DISTANCE_COLOURS = "YlOrBr"
"""Colour map of matplotlib, from near to far."""

OUTCROP, NEAR, COVERED, EXTRAPOLATED, UNMAPPED = 1, 2, 3, 4, 5
"""Values of the evidence layer: what the class of a cell is based on; without a class where the map is blank."""

UNDER_COVER = (NEAR, COVERED, EXTRAPOLATED)
"""Those of covered ground. With `OUTCROP` they are the mapped area, of which every percentage of cover is a part."""

UNMAPPED_TAG = "GRAVMAP_UNMAPPED"
"""Tag of a map's rasters: whether unmapped ground is ``blank`` or ``predicted``; absent without a geological map."""

EVIDENCE_COLOURS = {
    OUTCROP: OUTCROP_COLOUR,
    NEAR: BLUE,
    COVERED: PALE_BLUE,
    EXTRAPOLATED: ORANGE,
    UNMAPPED: UNMAPPED_COLOUR,
}
"""Distinct for colour-blind readers and in greyscale."""


def evidence_names(near_km: float, *, region_unlike: bool = False) -> dict[int, str]:
    """Return a description of each value of the evidence layer, as the files store it.

    Parameters
    ----------
    near_km : float
        Distance to mapped outcrop within which a cell counts as near it, km.
    region_unlike : bool
        Whether the region as a whole is outside the prior of the crusts that the network was trained on.

    Examples
    --------
    >>> from gravmap.mapping.layers import NEAR, evidence_names
    >>> evidence_names(25.0)[NEAR]
    'within 25 km of mapped outcrop'
    """
    region = " only at the place: the region as a whole is unlike it" if region_unlike else ""
    return {
        OUTCROP: "mapped outcrop",
        NEAR: f"within {near_km:g} km of mapped outcrop",
        COVERED: f"under cover, gravity like that of the training ground{region}",
        EXTRAPOLATED: "under cover, gravity unlike the training ground",
        UNMAPPED: "unmapped: neither outcrop nor cover on the geological map",
    }


@dataclass(frozen=True)
class UncertaintyBand:
    """A measure of the uncertainty of a cell's class: one band of ``uncertainty.tif``.

    Attributes
    ----------
    name : str
        Description of the band in the file, and key in :attr:`Block.uncertainty`.
    meaning : str
        Definition, with the range of values; a tag of the band in the file.
    scale : float
        The file stores round(value / scale) as uint8, at most 254; 255 is no data.
    """

    name: str
    meaning: str
    scale: float


# These texts and those of evidence_names are written into files (tags, .aux.xml, styles, item.json): a new wording
# would change the files of every map.
ENTROPY = UncertaintyBand(
    "entropy", "entropy of the probabilities over ln K: 0 one class is sure, 1 all are equal", 1 / 200
)
MARGIN = UncertaintyBand("margin", "probability of the likeliest class less that of the second, 0 to 1", 1 / 200)
AGREEMENT = UncertaintyBand(
    "agreement",
    "share of the windows (all scales, shifts and flips, weighted as they are blended) that name the likeliest class",
    1 / 200,
)
SPREAD = UncertaintyBand(
    "ensemble spread", "standard deviation between runs of the likeliest class's probability, 0 to 0.5", 1 / 200
)
DISSIMILARITY = UncertaintyBand(
    "dissimilarity",
    "distance to the nearest training ground in the input channels and their local statistics, in units of the "
    "threshold beyond which the network extrapolates; 2.54 or more is 2.54",
    1 / 100,
)
PROBABILITY = UncertaintyBand(
    "probability", "probability of the class of the map: on mapped outcrop the predicted one of its class", 1 / 200
)
BANDS = (ENTROPY, MARGIN, AGREEMENT, SPREAD, DISSIMILARITY, PROBABILITY)
"""In the order of the file; the spread only with an ensemble, the dissimilarity only if a run has an area of
applicability."""

SECOND, NULL_MODEL = "second_class", "null_model"
CLASS_LAYERS = {
    SECOND: "the second likeliest class",
    NULL_MODEL: "the class that label diffusion, which reads no gravity, takes from the mapped outcrop",
}
"""Class rasters beside the lithology, each in a file of its name, with their meaning; the second only with a geological
map."""


@dataclass(frozen=True)
class Block:
    """All layers of a rectangle of cells.

    Attributes
    ----------
    row, col : int
        First cell of the block in the map; row 0 is the northernmost.
    lithology : (h, w) uint8
        Class index: the mapped class on outcrop, else the predicted class; never 0, 255 no data or unmapped ground
        that is not predicted.
    probability : (K, h, w) float32
        Calibrated probabilities of the classes 1..K, on outcrop too; NaN no data.
    uncertainty : dict of str to (h, w) float32
        Band name to values; NaN no data.
    evidence : (h, w) uint8
        OUTCROP, NEAR, COVERED, EXTRAPOLATED, UNMAPPED; 255 no data.
    cover_m : (3, h, w) float32, optional
        Thickness of the cover, metres, in the order of `THICKNESS_BANDS`; NaN no data. None without a network that
        outputs it.
    gravity_mgal : (F, h, w) float32, optional
        Gravity fields, mGal; NaN unknown.
    outcrop_km : (h, w) float32, optional
        Distance to the nearest mapped outcrop, km; NaN no data. None without mapped outcrop.
    classes : dict of str to (h, w) uint8
        Name of `CLASS_LAYERS` to class indices; 255 no data.
    """

    row: int
    col: int
    lithology: NDArray[np.uint8]
    probability: NDArray[np.float32]
    uncertainty: dict[str, NDArray[np.float32]]
    evidence: NDArray[np.uint8]
    cover_m: NDArray[np.float32] | None = None
    gravity_mgal: NDArray[np.float32] | None = None
    outcrop_km: NDArray[np.float32] | None = None
    classes: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
