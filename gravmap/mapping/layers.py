"""What a map consists of, cell by cell: the layers that prediction makes and files hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gravmap.plotting import BLUE, ORANGE, OUTCROP_COLOUR, PALE_BLUE

NODATA = 255

OUTCROP, NEAR, COVERED, EXTRAPOLATED = 1, 2, 3, 4
"""Values of the evidence layer: what a cell's class rests on."""

EVIDENCE_COLOURS = {OUTCROP: OUTCROP_COLOUR, NEAR: BLUE, COVERED: PALE_BLUE, EXTRAPOLATED: ORANGE}
"""Told apart by people who are colour-blind, and in grey."""


def evidence_names(near_km: float) -> dict[int, str]:
    """The evidence layer's values in words.

    Parameters
    ----------
    near_km : float
        How far from mapped outcrop a cell still counts as near it, km.
    """
    return {
        OUTCROP: "mapped outcrop",
        NEAR: f"within {near_km:g} km of mapped outcrop",
        COVERED: "under cover, gravity like that of the training ground",
        EXTRAPOLATED: "under cover, gravity unlike the training ground",
    }


@dataclass(frozen=True)
class UncertaintyBand:
    """One measure of how unsure a cell's class is.

    Attributes
    ----------
    name : str
        The band's description in the file, and its key in :attr:`Block.uncertainty`.
    meaning : str
        In plain words, with the range of values.
    scale : float
        The file holds round(value / scale) as uint8, at most 254; 255 is no data.
    """

    name: str
    meaning: str
    scale: float


ENTROPY = UncertaintyBand(
    "entropy", "entropy of the probabilities over ln K: 0 one class is sure, 1 all are equal", 1 / 200
)
MARGIN = UncertaintyBand("margin", "probability of the likeliest class less that of the second, 0 to 1", 1 / 200)
SECOND = UncertaintyBand("second class", "index of the second likeliest class", 1.0)
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
BANDS = (ENTROPY, MARGIN, SECOND, AGREEMENT, SPREAD, DISSIMILARITY)
"""In this order in the file; the spread only where several runs predict together, the dissimilarity only where a run
knows its training ground."""


@dataclass(frozen=True)
class Block:
    """A rectangle of finished map.

    Attributes
    ----------
    row, col : int
        Its first cell in the map; row 0 is the northernmost.
    lithology : (h, w) uint8
        Class index: the mapped one on outcrop, else the likeliest under cover; 0 never, 255 no data.
    probability : (K, h, w) float32
        Calibrated, of class 1..K; NaN where nothing is predicted. The network's on the outcrop, too.
    uncertainty : dict of str to (h, w) float32
        Band name to values; NaN no data.
    evidence : (h, w) uint8
        OUTCROP, NEAR, COVERED, EXTRAPOLATED; 255 no data.
    """

    row: int
    col: int
    lithology: NDArray[np.uint8]
    probability: NDArray[np.float32]
    uncertainty: dict[str, NDArray[np.float32]]
    evidence: NDArray[np.uint8]
