"""From label to what the network is asked, and back: the only two functions that know the shift."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IGNORE = -100
"""Target of a cell that teaches nothing: cover, outside the map, held out."""


def to_target(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Turn labels into targets of the network.

    Parameters
    ----------
    labels : ndarray of uint8
        0 cover, 1..K bedrock class, 255 not usable.

    Returns
    -------
    ndarray of int64
        Class - 1; :data:`IGNORE` for cover and unusable cells.
    """
    shifted = labels.astype(np.int64) - 1
    shifted[(labels == 0) | (labels == 255)] = IGNORE
    return shifted


def to_label(classes: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Turn the network's classes (the argmax of its logits) into labels.

    Parameters
    ----------
    classes : ndarray of int
        0..K-1, or :data:`IGNORE`.

    Returns
    -------
    ndarray of uint8
        Class + 1; 255 for :data:`IGNORE`.
    """
    labels = classes.astype(np.int64) + 1
    labels[classes == IGNORE] = 255
    return labels.astype(np.uint8)
