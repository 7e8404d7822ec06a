"""Calibration: temperatures, reliability, class offsets and the area of applicability."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gravmap.learning.calibration.applicability import AreaOfApplicability, read_area_of_applicability
    from gravmap.learning.calibration.by_distance import DistanceTemperature
    from gravmap.learning.calibration.class_offsets import fit_class_offsets, predict_class
    from gravmap.learning.calibration.reliability import coverage, reliability_measures
    from gravmap.learning.calibration.temperature import Calibration, fit_temperature, read_calibration

__all__ = [
    "AreaOfApplicability",
    "Calibration",
    "DistanceTemperature",
    "coverage",
    "fit_class_offsets",
    "fit_temperature",
    "predict_class",
    "read_area_of_applicability",
    "read_calibration",
    "reliability_measures",
]

_MODULES = ("class_offsets", "by_distance", "reliability", "temperature", "applicability")


def __getattr__(name: str) -> Any:
    """Import on first use (PEP 562): gravmap.learning.training, which some modules import, uses this package."""
    if name in __all__:
        for module in map(import_module, (f"{__name__}.{each}" for each in _MODULES)):
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
