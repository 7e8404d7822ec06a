"""What hides the bedrock, and what lies below the crust."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gravmap.synthetic.geometry import FloatArray, StrikePlane
from gravmap.synthetic.setting import Setting

# Below the base of the stack of units, which lies at 20 km; no continent's Moho is shallower.
SHALLOWEST_MOHO_KM = 24.0

# Thinner cover is left off geological maps: the bedrock below shows through it.
MAPPED_KM = 0.05


def draw_cover(plane: StrikePlane, uplift: FloatArray, kept: NDArray[np.bool_], setting: Setting) -> FloatArray:
    """Thickness of the Cenozoic cover, km: thick where the uplift is low.

    The shore, where the cover is 50 m thick, lies at the quantile of the uplift that covers the wanted share of the
    kept nodes; outside it the cover feathers out, inside it thickens to its deepest. Belts thrown against each other
    make it bounded by faults. Where the setting loosens the cover from the uplift, basins of their own are mixed in.
    """
    share, deepest_km = setting.cover_share, setting.cover_deepest_km
    if setting.cover_on_uplift < 1:
        own = plane.field("cover basins", setting.uplift_length_km, stretch=2.0, smoothness=1.2)
        tie = setting.cover_on_uplift
        uplift = tie * uplift + np.sqrt(1 - tie**2) * own
    if share <= 0:
        return np.zeros_like(uplift)
    shore = float(np.quantile(uplift[kept], min(share, 1.0))) if share < 1 else float(uplift[kept].max())
    deepest = shore - float(np.quantile(uplift[kept], 0.005))
    depth = (shore - uplift) / max(deepest, 1e-9)
    inside = np.clip(depth, 0, None)
    texture = np.exp(setting.cover_texture * plane.field("cover texture", 20.0, stretch=2.0))
    thickness = MAPPED_KM + (0.25 * np.minimum(4 * inside, 1) + deepest_km * inside**1.9) * texture
    # The feather edge: as steep as the shore inside, and gone 50 m higher up.
    thickness = np.where(depth < 0, np.maximum(MAPPED_KM + depth, 0), thickness)
    return np.minimum(thickness, deepest_km)


def draw_moho(plane: StrikePlane, uplift: FloatArray, setting: Setting) -> FloatArray:
    """Depth of the Moho, km: smooth, with a root below the uplifts, nowhere above 24 km."""
    relief = plane.field("moho", setting.moho_length_km, stretch=1.5, smoothness=1.6, deep=True)
    depth_km = setting.moho_depth_km + setting.moho_relief_km * relief + setting.moho_root_km * uplift
    return np.maximum(depth_km, SHALLOWEST_MOHO_KM)
