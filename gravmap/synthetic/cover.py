"""What hides the bedrock, and what lies below the crust."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gravmap.synthetic.geometry import FloatArray, StrikePlane

# Thinner cover is left off geological maps: the bedrock below shows through it.
MAPPED_KM = 0.05
_DEEPEST_KM = 5.0


def draw_cover(plane: StrikePlane, uplift: FloatArray, kept: NDArray[np.bool_], share: float) -> FloatArray:
    """Thickness of the Cenozoic cover, km: thick where the uplift is low.

    The shore, where the cover is 50 m thick, lies at the quantile of the uplift that covers `share` of the kept
    nodes; outside it the cover feathers out, inside it thickens to 5 km. Belts thrown against each other make it
    bounded by faults.
    """
    if share <= 0:
        return np.zeros_like(uplift)
    shore = float(np.quantile(uplift[kept], min(share, 1.0))) if share < 1 else float(uplift[kept].max())
    deepest = shore - float(np.quantile(uplift[kept], 0.005))
    depth = (shore - uplift) / max(deepest, 1e-9)
    inside = np.clip(depth, 0, None)
    texture = np.exp(0.25 * plane.field("cover texture", 20.0, stretch=2.0))
    thickness = MAPPED_KM + (0.25 * np.minimum(4 * inside, 1) + 5.0 * inside**1.9) * texture
    # The feather edge: as steep as the shore inside, and gone 50 m higher up.
    thickness = np.where(depth < 0, np.maximum(MAPPED_KM + depth, 0), thickness)
    return np.minimum(thickness, _DEEPEST_KM)


def draw_moho(plane: StrikePlane, uplift: FloatArray) -> FloatArray:
    """Depth of the Moho, km: smooth, with a root below the uplifts."""
    return 45.0 + 3.5 * plane.field("moho", 130.0, stretch=1.5, smoothness=1.6, deep=True) + 1.2 * uplift
