"""Summary numbers of a crust: cover, its depth, distance to outcrop, amplitude of the gravity field."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from gravmap.geology import load_legend
from gravmap.lattice import EARTH_RADIUS_KM
from gravmap.synthetic.crust import LEGEND, Crust
from gravmap.synthetic.pool import crust_arrays
from gravmap.synthetic.stack import COVER_UNITS


@dataclass(frozen=True)
class ClassFacts:
    """One class of bedrock.

    Attributes
    ----------
    index, name
        As in the legend.
    share, mapped, hidden : float
        Percent of all bedrock, of the mapped bedrock, and of the bedrock under cover.
    density : float
        Mean density at the top of the bedrock, kg/m3; NaN if the class is absent.
    """

    index: int
    name: str
    share: float
    mapped: float
    hidden: float
    density: float


@dataclass(frozen=True)
class CrustFacts:
    """Summary numbers of a crust.

    Attributes
    ----------
    cover_percent : float
        Percent of the cells under cover.
    cover_mean_km, cover_deepest_km, outcrop_distance_km : float
        Over the covered cells: mean and maximum thickness, and median distance to outcrop. 0 without cover; the
        distance is infinite without outcrop.
    bouguer_std_mgal, bouguer_range_mgal, residual_std_mgal : float
        Standard deviation and range of the field, and standard deviation of its 10 km residual.
    classes : tuple of ClassFacts
        Classes 1..10.
    """

    cover_percent: float
    cover_mean_km: float
    cover_deepest_km: float
    outcrop_distance_km: float
    bouguer_std_mgal: float
    bouguer_range_mgal: float
    residual_std_mgal: float
    classes: tuple[ClassFacts, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable; NaN and infinity become null."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: plain(entry) for key, entry in value.items()}
            if isinstance(value, (list, tuple)):
                return [plain(entry) for entry in value]
            return None if isinstance(value, float) and not np.isfinite(value) else value

        facts: dict[str, Any] = plain(asdict(self))
        return facts


def crust_facts(crust: Crust) -> CrustFacts:
    """Compute the summary numbers of a crust."""
    hidden = crust.surface == 0
    lat, lon = crust.gravity["lat"].values, crust.gravity["lon"].values
    tall = EARTH_RADIUS_KM * np.radians(lat[1] - lat[0])
    wide = EARTH_RADIUS_KM * np.radians(lon[1] - lon[0]) * np.cos(np.radians(lat.mean()))
    distance = np.inf
    if hidden.any() and not hidden.all():
        distance = float(np.median(distance_transform_edt(hidden, sampling=(tall, wide))[hidden]))
    depth_km = crust.cover_thickness_m[hidden] / 1000 if hidden.any() else np.zeros(1)
    top = (crust.stack.thickness_km > 0)[COVER_UNITS:].argmax(axis=0) + COVER_UNITS
    density = crust.stack.reference + np.take_along_axis(crust.stack.contrast, top[None], axis=0)[0]
    residual = crust_arrays(crust, ["residual_10km"])["fields"][0]
    names = {entry.index: entry.name for entry in load_legend(LEGEND).classes}

    def percent(of: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return 100 * np.bincount(of.ravel(), minlength=11)[:11] / max(of.size, 1)

    everywhere, mapped, covered = percent(crust.truth), percent(crust.truth[~hidden]), percent(crust.truth[hidden])
    return CrustFacts(
        cover_percent=float(100 * hidden.mean()),
        cover_mean_km=float(depth_km.mean()),
        cover_deepest_km=float(depth_km.max()),
        outcrop_distance_km=distance if hidden.any() else 0.0,
        bouguer_std_mgal=float(crust.gravity.values.std()),
        bouguer_range_mgal=float(np.ptp(crust.gravity.values)),
        residual_std_mgal=float(residual.std()),
        classes=tuple(
            ClassFacts(
                index,
                names[index],
                float(everywhere[index]),
                float(mapped[index]),
                float(covered[index]),
                float(density[crust.truth == index].mean()) if everywhere[index] > 0 else float("nan"),
            )
            for index in range(1, 11)
        ),
    )
